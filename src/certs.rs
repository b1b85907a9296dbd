//! The cluster's own authority. (Placeholder, replaced at merge.)

use std::path::{Path, PathBuf};

use ennead_ring::Name;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CertError(String);

/// The authority that signs a cluster's certificates.
#[derive(Debug)]
pub struct Authority {}

/// A certificate, as `kvctl certs show` prints it.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its file.
    pub file: PathBuf,
    /// Authority, peer or client.
    pub role: String,
    /// Whom it names.
    pub name: String,
    /// Until when it is valid, as text.
    pub not_after: String,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// Where there is one already.
    pub fn init(_dir: &Path) -> Result<Self, CertError> {
        Err(CertError("not built yet".to_string()))
    }

    /// Opens the authority that is there.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(_dir: &Path) -> Result<Self, CertError> {
        Err(CertError("not built yet".to_string()))
    }

    /// Issues a peer's certificate.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn issue_peer(&self, _name: Name) -> Result<PathBuf, CertError> {
        Err(CertError("not built yet".to_string()))
    }

    /// Issues a client's certificate.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn issue_client(&self, _name: &str) -> Result<PathBuf, CertError> {
        Err(CertError("not built yet".to_string()))
    }
}

/// Every certificate in a folder.
///
/// # Errors
/// Where the folder cannot be read.
pub fn show(_dir: &Path) -> Result<Vec<Info>, CertError> {
    Err(CertError("not built yet".to_string()))
}
