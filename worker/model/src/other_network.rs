//! The network that a file of weights looks like, for errors about a file of another network.
//!
//! Names only: `network::resnet` finds out which it is.

use std::fmt;

/// The network that a file looks like, if it is another than was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherNetwork {
    /// Names of architectures that can be run. They differ only in their strides.
    Runnable(Vec<&'static str>),
    /// One that can't be run, by timm's name or in words.
    Foreign(String),
}

impl fmt::Display for OtherNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runnable(names) => {
                let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                f.write_str(&names.join(" or "))
            }
            Self::Foreign(name) => write!(f, "{name}, which this version can't run"),
        }
    }
}
