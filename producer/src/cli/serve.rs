//! The arguments of `camshaft serve`, and the config made of them.

use camshaft_common::location::Location;
use clap::Args;
use clap::builder::BoolishValueParser;

use crate::serve::ServeConfig;

/// `camshaft serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The run to show: a folder or URL with a report
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
    /// The port of this machine to listen on; 0 for any free one [default: the same for the same OUT, if
    /// it is free, so that a browser finds what it could not send before]
    #[arg(long, env = "CAMSHAFT_PORT", value_name = "N")]
    pub(crate) port: Option<u16>,
    /// Only print the address, and open no browser
    #[arg(long, env = "CAMSHAFT_NO_OPEN", value_parser = BoolishValueParser::new())]
    pub(crate) no_open: bool,
}

impl ServeArgs {
    pub(crate) fn resolve(self) -> ServeConfig {
        let Self { out, port, no_open } = self;
        ServeConfig { out, port, open: !no_open }
    }
}
