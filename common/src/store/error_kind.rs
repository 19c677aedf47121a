//! The kinds of a store's errors, from which everything else is decided.

/// The kind of a [`StoreError`](super::StoreError), which decides what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The object does not exist.
    NotFound,
    /// The bucket does not exist, so that every object in it would fail.
    NoBucket,
    /// This object is forbidden.
    AccessDenied,
    /// The credentials are missing, wrong or expired, so that every object would fail.
    BadCredentials,
    /// The settings are wrong or incomplete, such as the endpoint or the region, so that every object
    /// would fail.
    BadSettings,
    /// This object can't be read as it is stored: it is archived, or encrypted with a key that can't be
    /// used.
    ArchivedOrEncrypted,
    /// The object has more bytes than allowed.
    TooLarge,
    /// This object can never be read or written: its name is too long or not allowed there, or names
    /// a loop of links, a pipe or a device.
    Unusable,
    /// The disk or the store's quota is full.
    NoSpace,
    /// Anything else: it may work later.
    Transient,
}

impl StoreErrorKind {
    /// True if the same request may work later without a change to the configuration.
    #[must_use]
    pub fn may_pass(self) -> bool {
        match self {
            Self::NoSpace | Self::Transient => true,
            Self::NotFound
            | Self::NoBucket
            | Self::AccessDenied
            | Self::BadCredentials
            | Self::BadSettings
            | Self::ArchivedOrEncrypted
            | Self::TooLarge
            | Self::Unusable => false,
        }
    }
}
