//! Whether a certificate, its key and the authorities fit together, and until when.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertError, Identity, Who, pem_path};
use crate::clock;

impl Identity {
    /// Checks that it may be shown now: its key is its certificate's, one of the authorities signed it, and neither is past
    /// its time.
    ///
    /// # Errors
    /// [`CertError::Unfit`], with what does not fit.
    pub fn check(&self, dir: &Path) -> Result<(), CertError> {
        let unfit = |why: String| CertError::Unfit { path: pem_path(dir, &self.who), why };
        let key = any_supported_type(&self.key).map_err(|e| unfit(format!("its key cannot be used: {e}")))?;
        let pair = CertifiedKey::new(vec![self.certificate.clone()], key);
        pair.keys_match().map_err(|_| unfit("the key beside it is another's".to_owned()))?;
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|e| unfit(format!("an authority in ca.pem cannot be used: {e}")))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                .build();
        let verifier = verifier.map_err(|e| unfit(e.to_string()))?;
        let now = UnixTime::since_unix_epoch(clock::since_1970());
        let judged = verifier.verify_client_cert(&self.certificate, &[], now);
        judged.map(drop).map_err(|e| unfit(format!("no authority in ca.pem makes it good now: {e}")))
    }

    /// Seconds since 1970 after which it is of no use: its certificate's end, or that of the last authority.
    pub fn expires(&self) -> i64 {
        let end =
            |der: &[u8]| X509Certificate::from_der(der).ok().map(|(_, c)| c.validity().not_after.timestamp());
        let authorities = self.authorities.iter().filter_map(|der| end(der)).max();
        let own = end(&self.certificate);
        own.into_iter().chain(authorities).min().unwrap_or(i64::MAX)
    }

    /// True if it would be shown, and would judge others, exactly as another.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.certificate, &self.authorities) == (&other.certificate, &other.authorities)
            && self.key.secret_der() == other.key.secret_der()
    }
}

/// What the system says of the files of an identity: another means that one of them has changed.
pub(crate) type Stamp = [Option<(SystemTime, u64)>; 3];

/// Of the files of this identity, now.
pub(crate) fn stamp(dir: &Path, who: &Who) -> Stamp {
    let pem = pem_path(dir, who);
    let of = |path: &PathBuf| -> io::Result<(SystemTime, u64)> {
        let told = fs::metadata(path)?;
        Ok((told.modified()?, told.len()))
    };
    [dir.join("ca.pem"), pem.with_extension("key"), pem].map(|path| of(&path).ok())
}
