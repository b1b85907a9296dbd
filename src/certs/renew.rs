//! Certificates in place of others, while those who use them run: they notice (`src/transport/renewal.rs`).
//!
//! A new authority comes in three steps, and at each of them everybody trusts whom everybody shows: the new one is put
//! into `ca.pem` before the old one, everywhere; then certificates of the new one take the place of the others; then the
//! old one goes.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{
    CertError, Identity, Who, init_command, issue, list, names, new_authority, pem_path, read,
    read_certificate, write_new,
};

/// Issues a certificate and its key in place of those there are. Returns the certificate's path.
///
/// # Errors
/// As [`issue`]; the folder cannot be written to. What was there is then still there.
pub fn renew(dir: &Path, who: &Who) -> Result<PathBuf, CertError> {
    let pem = pem_path(dir, who);
    read_certificate(&pem, || super::issue_command(dir, who))?;
    // Made in a folder of their own, with the authority's files, and then put in place one after the other: whoever looks
    // in between sees that they do not fit, and looks again.
    let fresh = Fresh::make(dir)?;
    fs::copy(dir.join("ca.pem"), fresh.path("ca.pem")).map_err(|e| file("copy", &dir.join("ca.pem"), e))?;
    write_new(&fresh.path("ca.key"), &text(&dir.join("ca.key"), dir)?, 0o600)?;
    let made = issue(&fresh.0, who)?;
    for extension in ["key", "pem"] {
        let to = pem.with_extension(extension);
        fs::rename(made.with_extension(extension), &to).map_err(|e| file("replace", &to, e))?;
    }
    Ok(pem)
}

/// Makes a new authority: what is issued from now on is its. Those before stay in `ca.pem` after it, and keep their
/// certificates good; the key before goes to `ca-before.key`. Returns the path of `ca.pem`.
///
/// # Errors
/// There is none to follow, or the folder cannot be written to.
pub fn renew_authority(dir: &Path) -> Result<PathBuf, CertError> {
    let (pem, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let before = text(&pem, dir)?;
    text(&key, dir)?;
    let (certificate, private) = new_authority()?;
    let fresh = Fresh::make(dir)?;
    write_new(&fresh.path("ca.pem"), &format!("{certificate}{before}"), 0o644)?;
    write_new(&fresh.path("ca.key"), &private, 0o600)?;
    let old = dir.join("ca-before.key");
    fs::rename(&key, &old).map_err(|e| file("replace", &old, e))?;
    for name in ["ca.key", "ca.pem"] {
        let to = dir.join(name);
        fs::rename(fresh.path(name), &to).map_err(|e| file("replace", &to, e))?;
    }
    Ok(pem)
}

/// Leaves only the newest authority in `ca.pem`. Returns how many it dropped.
///
/// # Errors
/// [`CertError::Older`]: certificates in the folder are an older one's, and would be good for nothing; or one is good for
/// nothing as it is.
pub fn retire_authorities(dir: &Path) -> Result<usize, CertError> {
    let pem = dir.join("ca.pem");
    let authorities = authorities(dir)?;
    let dropped = authorities.len() - 1;
    let newest = authorities[..1].to_vec();
    let (mut of, mut older) = (0, Vec::new());
    for folder in ["peers", "clients"] {
        for path in list(&dir.join(folder))? {
            let certificate = read_certificate(&path, || init_command(dir))?;
            let damaged = |why: String| CertError::Damaged { path: path.clone(), why };
            let who = names(&certificate).map_err(|e| damaged(e.to_string()))?;
            let identity = Identity::load(dir, who.clone())?;
            identity.check(dir)?;
            of += 1;
            if (Identity { authorities: newest.clone(), ..identity }).check(dir).is_err() {
                older.push(who);
            }
        }
    }
    if !older.is_empty() {
        return Err(CertError::Older { dir: dir.to_owned(), who: older, of });
    }
    if dropped > 0 {
        let all = text(&pem, dir)?;
        const END: &str = "-----END CERTIFICATE-----\n";
        let end = all.find(END).map_or(all.len(), |at| at + END.len());
        let fresh = Fresh::make(dir)?;
        write_new(&fresh.path("ca.pem"), &all[..end], 0o644)?;
        fs::rename(fresh.path("ca.pem"), &pem).map_err(|e| file("replace", &pem, e))?;
    }
    Ok(dropped)
}

/// All that `ca.pem` has, the newest first.
pub(super) fn authorities(dir: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let path = dir.join("ca.pem");
    let bytes = read(&path, || init_command(dir))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(CertError::Damaged { path, why: "there is no certificate in it".to_owned() })
        }
        Ok(found) => Ok(found),
        Err(e) => Err(CertError::Damaged { path, why: e.to_string() }),
    }
}

fn text(path: &Path, dir: &Path) -> Result<String, CertError> {
    let bytes = read(path, || init_command(dir))?;
    String::from_utf8(bytes).map_err(|e| CertError::Damaged { path: path.to_owned(), why: e.to_string() })
}

fn file(what: &'static str, path: &Path, source: std::io::Error) -> CertError {
    CertError::File { what, path: path.to_owned(), source }
}

/// A folder beside the others, for what is not complete yet; gone with this.
struct Fresh(PathBuf);

impl Fresh {
    fn make(dir: &Path) -> Result<Self, CertError> {
        let path = dir.join(format!(".new-{:08x}", rand::random::<u32>()));
        fs::create_dir(&path).map_err(|e| file("make", &path, e))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // What is left of it harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
