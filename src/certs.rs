//! The cluster's own authority. (Placeholder, replaced at merge.)

use std::path::{Path, PathBuf};

use ennead_ring::Name;

/// Whom a certificate names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    /// A machine.
    Peer(Name),
    /// A client.
    Client(String),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(name) => write!(f, "peer {name}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CertError(String);

/// One certificate of a folder, for people to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Its file.
    pub path: PathBuf,
    /// Whom it names; `None` for the authority.
    pub who: Option<Who>,
    /// Its serial number, in hex.
    pub serial: String,
    /// Seconds since 1970 from which on it is good.
    pub not_before: i64,
    /// Seconds since 1970 after which it is not.
    pub not_after: i64,
    /// True if its key is beside it.
    pub has_key: bool,
}

/// Makes an authority.
///
/// # Errors
/// There is one already.
pub fn init(_dir: &Path) -> Result<PathBuf, CertError> {
    Err(CertError("not built yet".to_string()))
}

/// Issues a certificate.
///
/// # Errors
/// No authority, or a certificate of that name already.
pub fn issue(_dir: &Path, _who: &Who) -> Result<PathBuf, CertError> {
    Err(CertError("not built yet".to_string()))
}

/// All certificates of a folder.
///
/// # Errors
/// No authority.
pub fn show(_dir: &Path) -> Result<Vec<Shown>, CertError> {
    Err(CertError("not built yet".to_string()))
}
