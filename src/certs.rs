//! The cluster's own authority, and the certificates by which machines and clients prove who they are.
//!
//! One folder: `ca.pem`, `ca.key` (only where certificates are issued), `peers/NAME.pem|.key`,
//! `clients/NAME.pem|.key`. A peer's certificate names its IP address and `ennead://peer/NAME`, a client's
//! `ennead://client/NAME`. Keys are ECDSA on P-256: what `ring` signs and verifies fastest.

mod fit;
mod renew;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ennead_ring::view::Name;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub(crate) use fit::stamp;
pub use renew::{renew, renew_authority, retire_authorities};

/// How long an authority is good for, in days.
pub const AUTHORITY_DAYS: i64 = 3650;
/// How long a peer's or a client's certificate is good for, in days.
pub const LEAF_DAYS: i64 = 730;
/// Longest name of a client, in bytes.
pub const MAX_CLIENT_NAME: usize = 64;

const PEER_URI: &str = "ennead://peer/";
const CLIENT_URI: &str = "ennead://client/";

/// Whom a certificate names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    /// A machine.
    Peer(Name),
    /// A client.
    Client(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(name) => write!(f, "peer {name}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

/// Why there is no certificate to work with.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file that is needed is not there.
    #[error("there is no {}: run `{}`", .path.display(), .command)]
    Missing {
        /// Which.
        path: PathBuf,
        /// What makes it.
        command: String,
    },
    /// A file is there already, and a key once lost cannot be had again.
    #[error("{} exists and is not overwritten: choose another folder or name, or move it away first", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}; check that the folder belongs to you and has room", .path.display())]
    File {
        /// Read, write or list.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is damaged: {why}; put back a copy, or move it away and issue it again", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file names someone else than its own name does.
    #[error("{} was issued to {found}, not to {wanted}: run `{command}` where the authority's key is", .path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// Whom the certificate names.
        found: Who,
        /// Whom it should name.
        wanted: Who,
        /// What makes the right one.
        command: String,
    },
    /// A certificate cannot be used, though all of its files are there.
    #[error("{} cannot be used: {why}; issue it again with `kvctl certs renew`", .path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// Certificates that would be good for nothing without an older authority.
    #[error(
        "an older authority is needed yet: {} of the {of} certificates here are its ({}); nothing was changed. Renew them \
         first, with `kvctl certs renew --dir {} --all`, and wait until all machines and clients have theirs",
        .who.len(), few(.who), .dir.display()
    )]
    Older {
        /// Where.
        dir: PathBuf,
        /// Whose they are.
        who: Vec<Who>,
        /// Certificates there are.
        of: usize,
    },
    /// Nobody can be called that.
    #[error(
        "\"{0}\" cannot name a client: use 1 to {MAX_CLIENT_NAME} letters, digits, '-', '_' and '.', not first '.'"
    )]
    ClientName(String),
    /// Several clients could be meant.
    #[error("{} holds the certificates of several clients: choose one of {} with --as NAME", .dir.display(), .names.join(", "))]
    Several {
        /// Where.
        dir: PathBuf,
        /// Who they are.
        names: Vec<String>,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// The first names of a list, and how many more there are.
fn few(who: &[Who]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = who.iter().take(SHOWN).map(Who::to_string).collect();
    match who.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a certificate that the authority did sign says nothing to us.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NamesError {
    /// Not a certificate at all.
    #[error("it cannot be read as a certificate")]
    Unreadable,
    /// No `ennead://` name in it, or more than one.
    #[error("it names {0} peers and clients, and must name one (ennead://peer/NAME or ennead://client/NAME)")]
    HowMany(usize),
    /// An `ennead://` name that is none.
    #[error("it names \"{0}\", which is neither a peer nor a client")]
    Unknown(String),
    /// The IP addresses are not those of the name.
    #[error("it names {name} but not the IP address {}, or others besides", .name.ip())]
    Address {
        /// The peer it names.
        name: Name,
    },
}

/// Whom a certificate names. Checks no signature: rustls has done that before.
///
/// # Errors
/// It names nobody, several, or a peer without (exactly) its IP address.
pub fn names(certificate: &CertificateDer<'_>) -> Result<Who, NamesError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NamesError::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_| NamesError::Unreadable)?;
    let names = names.map(|n| n.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|n| match n {
            GeneralName::URI(uri) if uri.starts_with("ennead://") => Some(*uri),
            _ => None,
        })
        .collect();
    let &[uri] = uris.as_slice() else { return Err(NamesError::HowMany(uris.len())) };
    let unknown = || NamesError::Unknown(plain(uri.as_bytes(), 100));
    if let Some(client) = uri.strip_prefix(CLIENT_URI) {
        return is_client_name(client).then(|| Who::Client(client.to_string())).ok_or_else(unknown);
    }
    let text = uri.strip_prefix(PEER_URI).ok_or_else(unknown)?;
    let name: Name = text.parse().map_err(|_| unknown())?;
    let ips: Vec<Option<IpAddr>> = names
        .iter()
        .filter_map(|n| match n {
            GeneralName::IPAddress(bytes) => Some(ip_of(bytes)),
            _ => None,
        })
        .collect();
    match ips.as_slice() {
        [Some(ip)] if *ip == name.ip() => Ok(Who::Peer(name)),
        _ => Err(NamesError::Address { name }),
    }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Foreign bytes as text that can be logged: one line, printable, at most so many characters.
pub(crate) fn plain(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

fn is_client_name(name: &str) -> bool {
    (1..=MAX_CLIENT_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A certificate with its key, and the authorities to judge others by.
pub struct Identity {
    who: Who,
    /// At least one; the newest first.
    authorities: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A machine's own identity: `peers/NAME.pem` and its key.
    ///
    /// # Errors
    /// A file is missing (with the command that makes it), damaged, or issued to someone else.
    pub fn peer(dir: &Path, name: Name) -> Result<Self, CertError> {
        Self::load(dir, Who::Peer(name))
    }

    /// A client's identity: the one named, or the only one in `clients/`.
    ///
    /// # Errors
    /// As for a peer; and several clients, none of them named.
    pub fn client(dir: &Path, name: Option<&str>) -> Result<Self, CertError> {
        let name = match name {
            Some(name) => checked_client_name(name)?,
            None => only_client(dir)?,
        };
        Self::load(dir, Who::Client(name))
    }

    /// Whom it names.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// The authority's certificate: the newest one's, where there are several.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authorities[0]
    }

    /// The certificates of all authorities that others are judged by.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key of its certificate.
    pub(crate) fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// What a folder has for this machine or client.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    pub fn load(dir: &Path, who: Who) -> Result<Self, CertError> {
        let authorities = renew::authorities(dir)?;
        let path = pem_path(dir, &who);
        let command = || issue_command(dir, &who);
        let certificate = read_certificate(&path, command)?;
        match names(&certificate) {
            Ok(found) if found == who => {}
            Ok(found) => {
                return Err(CertError::Other { path, found, wanted: who.clone(), command: command() });
            }
            Err(e) => return Err(CertError::Damaged { path, why: e.to_string() }),
        }
        let path = path.with_extension("key");
        let key = PrivateKeyDer::from_pem_slice(&read(&path, command)?)
            .map_err(|e| CertError::Damaged { path, why: e.to_string() })?;
        Ok(Self { who, authorities, certificate, key })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            who: self.who.clone(),
            authorities: self.authorities.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.who)
    }
}

/// Makes an authority: `ca.pem` and `ca.key` in a folder, which is made if need be. Returns the certificate's path.
///
/// # Errors
/// There is one already, or the folder cannot be written to.
pub fn init(dir: &Path) -> Result<PathBuf, CertError> {
    let pem = dir.join("ca.pem");
    let key = dir.join("ca.key");
    refuse_existing(&[&pem, &key])?;
    let (certificate, private) = new_authority()?;
    write_pair(&pem, &certificate, &key, &private)?;
    Ok(pem)
}

/// An authority's certificate and its key, as PEM.
fn new_authority() -> Result<(String, String), CertError> {
    let pair = KeyPair::generate()?;
    let mut params = params(&format!("ennead authority {:08x}", rand::random::<u32>()), AUTHORITY_DAYS);
    // It signs leaves and nothing else: no authority can be made below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&pair)?;
    Ok((certificate.pem(), pair.serialize_pem()))
}

/// Issues a certificate: `peers/NAME.pem|.key` or `clients/NAME.pem|.key`. Returns the certificate's path.
///
/// # Errors
/// No authority in the folder, one that is damaged, a name nobody can have, or a certificate of that name already.
pub fn issue(dir: &Path, who: &Who) -> Result<PathBuf, CertError> {
    if let Who::Client(name) = who {
        checked_client_name(name)?;
    }
    let ca_pem = dir.join("ca.pem");
    let ca_key = dir.join("ca.key");
    let pem = pem_path(dir, who);
    let key = pem.with_extension("key");
    refuse_existing(&[&pem, &key])?;
    let damaged = |path: &Path, e: String| CertError::Damaged { path: path.to_path_buf(), why: e };
    let authority = read_certificate(&ca_pem, || init_command(dir))?;
    let signing = String::from_utf8(read(&ca_key, || init_command(dir))?)
        .map_err(|e| damaged(&ca_key, e.to_string()))?;
    let signing = KeyPair::from_pem(&signing).map_err(|e| damaged(&ca_key, e.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&authority).map_err(|e| damaged(&ca_pem, e.to_string()))?;
    if parsed.public_key().subject_public_key.data.as_ref() != signing.public_key_raw() {
        return Err(damaged(&ca_key, "it is not the key of ca.pem".to_string()));
    }
    let issuer =
        Issuer::from_ca_cert_der(&authority, signing).map_err(|e| damaged(&ca_pem, e.to_string()))?;

    let pair = KeyPair::generate()?;
    let mut params = params(&format!("ennead {who}"), LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = match who {
        Who::Peer(name) => {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.push(SanType::IpAddress(name.ip()));
            format!("{PEER_URI}{name}")
        }
        Who::Client(name) => format!("{CLIENT_URI}{name}"),
    };
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri)?));
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&pair, &issuer)?;
    write_pair(&pem, &certificate.pem(), &key, &pair.serialize_pem())?;
    Ok(pem)
}

/// Makes what is missing in a folder: the authority, then a certificate for each of these. What is there stays, and what
/// is damaged is an error. Returns the certificates made.
///
/// # Errors
/// As [`init`] and [`issue`], but for what is there already; certificates of which the key or the authority is missing.
pub fn make(dir: &Path, whom: impl IntoIterator<Item = Who>) -> Result<Vec<PathBuf>, CertError> {
    let mut made = Vec::new();
    let (pem, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    if !pem.exists() && !key.exists() {
        made.push(init(dir)?);
    }
    for who in whom {
        let pem = pem_path(dir, &who);
        if pem.exists() && pem.with_extension("key").exists() {
            let found = names(&read_certificate(&pem, || issue_command(dir, &who))?);
            let found = found.map_err(|e| CertError::Damaged { path: pem.clone(), why: e.to_string() })?;
            if found != who {
                let command = issue_command(dir, &who);
                return Err(CertError::Other { path: pem, found, wanted: who, command });
            }
        } else {
            made.push(issue(dir, &who)?);
        }
    }
    Ok(made)
}

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

/// All certificates of a folder: the authorities, the newest first, then the peers, then the clients, by file name.
///
/// # Errors
/// No authority, or a file that is damaged.
pub fn show(dir: &Path) -> Result<Vec<Shown>, CertError> {
    let of = |(at, certificate)| (dir.join("ca.pem"), certificate, at == 0, false);
    let mut found: Vec<_> = renew::authorities(dir)?.into_iter().enumerate().map(of).collect();
    for folder in ["peers", "clients"] {
        for path in list(&dir.join(folder))? {
            let certificate = read_certificate(&path, || init_command(dir))?;
            found.push((path, certificate, true, true));
        }
    }
    let mut shown = Vec::with_capacity(found.len());
    // Only the newest authority's key is `ca.key`.
    for (path, certificate, newest, leaf) in found {
        let damaged = |why: String| CertError::Damaged { path: path.clone(), why };
        let who = leaf.then(|| names(&certificate)).transpose().map_err(|e| damaged(e.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|e| damaged(e.to_string()))?;
        let (serial, validity) = (parsed.raw_serial_as_string(), parsed.validity());
        shown.push(Shown {
            who,
            serial,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            has_key: newest && path.with_extension("key").exists(),
            path,
        });
    }
    Ok(shown)
}

fn params(common_name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    // A day of grace for machines whose clock is behind the authority's.
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(days);
    // Positive, as RFC 5280 asks, and never zero.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn init_command(dir: &Path) -> String {
    format!("kvctl certs init --dir {}", dir.display())
}

fn issue_command(dir: &Path, who: &Who) -> String {
    let (flag, name) = match who {
        Who::Peer(name) => ("peer", name.to_string()),
        Who::Client(name) => ("client", name.clone()),
    };
    format!("kvctl certs issue --dir {} --{flag} {name}", dir.display())
}

fn pem_path(dir: &Path, who: &Who) -> PathBuf {
    match who {
        Who::Peer(name) => dir.join("peers").join(format!("{name}.pem")),
        Who::Client(name) => dir.join("clients").join(format!("{name}.pem")),
    }
}

fn checked_client_name(name: &str) -> Result<String, CertError> {
    match is_client_name(name) {
        true => Ok(name.to_string()),
        false => Err(CertError::ClientName(plain(name.as_bytes(), 100))),
    }
}

fn only_client(dir: &Path) -> Result<String, CertError> {
    let folder = dir.join("clients");
    let mut names: Vec<String> =
        list(&folder)?.iter().filter_map(|p| Some(p.file_stem()?.to_str()?.to_string())).collect();
    match names.len() {
        0 => Err(CertError::Missing {
            path: folder.join("NAME.pem"),
            command: issue_command(dir, &Who::Client("NAME".to_string())),
        }),
        1 => Ok(names.remove(0)),
        _ => Err(CertError::Several { dir: folder, names }),
    }
}

/// The certificates in a folder, by name; none if there is no such folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, CertError> {
    let failed = |source| CertError::File { what: "list", path: folder.to_path_buf(), source };
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path, command: impl Fn() -> String) -> Result<Vec<u8>, CertError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CertError::Missing { path: path.to_path_buf(), command: command() },
        _ => CertError::File { what: "read", path: path.to_path_buf(), source },
    })
}

fn read_certificate(path: &Path, command: impl Fn() -> String) -> Result<CertificateDer<'static>, CertError> {
    CertificateDer::from_pem_slice(&read(path, command)?)
        .map_err(|e| CertError::Damaged { path: path.to_path_buf(), why: e.to_string() })
}

fn refuse_existing(paths: &[&Path]) -> Result<(), CertError> {
    match paths.iter().find(|p| p.exists()) {
        Some(path) => Err(CertError::Exists(path.to_path_buf())),
        None => Ok(()),
    }
}

/// The key first: a certificate without its key would look like a folder that is complete elsewhere.
fn write_pair(pem: &Path, certificate: &str, key: &Path, private: &str) -> Result<(), CertError> {
    if let Some(folder) = pem.parent() {
        fs::create_dir_all(folder).map_err(|source| CertError::File {
            what: "make",
            path: folder.to_path_buf(),
            source,
        })?;
    }
    write_new(key, private, 0o600)?;
    write_new(pem, certificate, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let mut options = OpenOptions::new();
    // `create_new` decides in one step: two that issue the same name at once cannot both win.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertError::Exists(path.to_path_buf()),
        _ => CertError::File { what: "write", path: path.to_path_buf(), source },
    })
}

#[cfg(test)]
mod tests;
