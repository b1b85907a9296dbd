//! Why a local cluster does not run, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Name, certs};

/// Why a local cluster does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file or folder of the cluster.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// Make, read or write.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No certificates.
    #[error("cannot make certificates in {dir}: {error}")]
    Certs {
        /// Where.
        dir: PathBuf,
        /// Why.
        error: Box<certs::CertError>,
    },
    /// Another process listens there.
    #[error(
        "{name} (UDP port {port}) is taken: another cluster may be running on this computer; stop it first"
    )]
    Taken {
        /// The peer that was to listen there.
        name: Name,
        /// Its port.
        port: u16,
    },
    /// The system does not let anyone listen there.
    #[error("cannot listen on {name}: {error}")]
    NoAddress {
        /// The peer that was to listen there.
        name: Name,
        /// What the system says.
        error: io::Error,
    },
    /// More peers than there are addresses.
    #[error("{0} peers are more than there are addresses here")]
    TooMany(usize),
    /// The folder holds a cluster of another size.
    #[error("{dir} holds a cluster of {has} peers, not {asked}: leave --peers out, or choose another folder")]
    OtherSize {
        /// The folder.
        dir: PathBuf,
        /// How many it has.
        has: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// The folder's list of peers is not one.
    #[error("{0} should list the peers' names, one a line, and does not")]
    NotMembers(PathBuf),
    /// The folder was left while the cluster was being founded.
    #[error(
        "the cluster in {0} was never seen up, and cannot be founded twice: remove the folder, then start again"
    )]
    HalfMade(PathBuf),
    /// The program cannot be run.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A peer ended while the cluster was starting.
    #[error("{name} ended ({how}) while the cluster was starting; its last words, from {log}:\n{tail}")]
    Died {
        /// Which.
        name: Name,
        /// By a code or a signal.
        how: String,
        /// Where it wrote.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// Not all peers answered in time.
    #[error("after {within:?}, {missing}; the logs are in {logs}")]
    NotUp {
        /// How long they had.
        within: Duration,
        /// Who is missing, and why.
        missing: String,
        /// Where to look.
        logs: PathBuf,
    },
}
