//! Why an operation did not succeed, and what that means for the data.

use std::fmt;
use std::time::Duration;

use ennead_ring::stamp::{RequestId, Uncountable};
use ennead_ring::view::Name;
use serde_json::{Value, json};

/// Whether a failed operation left the key as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The key is as it was.
    Unchanged,
    /// The write may or may not have taken effect, or may yet.
    Unknown,
}

/// Why an operation did not succeed. [`effect`](Self::effect) says what that means for the data.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Too few slots answered in time; no Accept was sent. The key is as it was.
    NoQuorum {
        /// Slots that did answer.
        votes: u8,
        /// Slots that must.
        needed: u8,
        /// Owners that did not answer.
        silent: Vec<Name>,
        /// The operation's deadline.
        within: Duration,
    },
    /// An Accept may have gone out and the deadline passed. The write may yet take effect.
    Unknown {
        /// The request's id: a retry under it is applied at most once.
        id: RequestId,
        /// Slots known to hold the write.
        votes: u8,
        /// Slots that must.
        needed: u8,
        /// Owners that did not answer.
        silent: Vec<Name>,
        /// The operation's deadline.
        within: Duration,
    },
    /// The comparison failed: the key has this version, or no value. It is as it was.
    VersionMismatch {
        /// The version it has.
        found: Option<u64>,
    },
    /// The value, of this version, cannot be counted up: it is no number, or the sum would be none. It is as it was.
    Uncountable {
        /// The version it has.
        version: u64,
        /// Which of the two.
        why: Uncountable,
    },
    /// No machine could be reached at all. The key is as it was.
    Unreachable {
        /// Whom was tried, and why each failed.
        tried: Vec<(Name, String)>,
    },
    /// More is asked than can be done: of the cluster, or of this client, which has as many operations under way as it may
    /// ([`max_under_way`](super::ClientOptions::max_under_way)). The key is as it was.
    Overloaded {
        /// When to try again; better a random time later, so that not all come back together.
        retry_after: Duration,
    },
    /// The disks of so many of the key's owners have no room for a value that the others are not a quorum. The key is as
    /// it was; reads and deletes go on.
    DiskFull {
        /// Whose disks.
        machines: Vec<Name>,
    },
    /// The request itself is wrong: an empty key, a value too long. Nothing was tried.
    Invalid(String),
    /// A machine refused, for this reason. The key is as it was.
    Refused(String),
    /// Certificates or settings that cannot be used. Nothing was tried.
    Setup(String),
}

impl Error {
    /// One word: `no_quorum`, `timeout`, `version_mismatch`, `not_a_number`, `too_large`, `unreachable`,
    /// `overloaded`, `disk_full`, `invalid`, `refused` or `setup`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoQuorum { .. } => "no_quorum",
            Self::Unknown { .. } => "timeout",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::Uncountable { why: Uncountable::NotANumber, .. } => "not_a_number",
            Self::Uncountable { why: Uncountable::TooLarge, .. } => "too_large",
            Self::Unreachable { .. } => "unreachable",
            Self::Overloaded { .. } => "overloaded",
            Self::DiskFull { .. } => "disk_full",
            Self::Invalid(_) => "invalid",
            Self::Refused(_) => "refused",
            Self::Setup(_) => "setup",
        }
    }

    /// For programs: what is true of the data, the numbers, and what to do.
    pub fn to_json(&self) -> Value {
        let outcome = match self.effect() {
            Effect::Unchanged => "unchanged",
            Effect::Unknown => "unknown",
        };
        let mut object = json!({"error": self.code(), "message": self.to_string(), "outcome": outcome});
        if let Self::NoQuorum { votes, needed, silent, .. } | Self::Unknown { votes, needed, silent, .. } =
            self
        {
            object["votes"] = json!(votes);
            object["needed"] = json!(needed);
            object["silent"] = silent.iter().map(ToString::to_string).collect();
        }
        match self {
            Self::Unknown { id, .. } => object["request"] = json!(id.to_string()),
            Self::VersionMismatch { found } => object["version"] = json!(found),
            Self::Uncountable { version, .. } => object["version"] = json!(version),
            Self::Overloaded { retry_after } => {
                object["retry_after_ms"] = json!(retry_after.as_millis() as u64);
            }
            Self::DiskFull { machines } => {
                object["machines"] = machines.iter().map(ToString::to_string).collect();
            }
            Self::Unreachable { tried } => {
                object["silent"] = tried.iter().map(|(name, _)| name.to_string()).collect();
            }
            _ => {}
        }
        object
    }

    /// Whether the key is as it was.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Unknown { .. } => Effect::Unknown,
            _ => Effect::Unchanged,
        }
    }
}

struct Names<'a>(&'a [Name]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = |names: &[Name]| match names {
            [] => String::new(),
            names => format!(" (silent: {})", Names(names)),
        };
        match self {
            Self::NoQuorum { votes, needed, silent: names, within } => write!(
                f,
                "{votes} of {needed} votes within {within:?}{}; nothing was changed, retrying is safe",
                silent(names)
            ),
            Self::Unknown { id, votes, needed, silent: names, within } => write!(
                f,
                "{votes} of {needed} votes within {within:?}{}; the write may yet take effect: read before you \
                 write again (request {id})",
                silent(names)
            ),
            Self::VersionMismatch { found: Some(version) } => {
                write!(f, "the key has version {version}; nothing was changed")
            }
            Self::VersionMismatch { found: None } => write!(f, "the key has no value; nothing was changed"),
            Self::Uncountable { version, why } => {
                let why = match why {
                    Uncountable::NotANumber => {
                        "the value is no whole number from -2^63 to 2^63-1 in decimal, such as 42 or -7"
                    }
                    Uncountable::TooLarge => "the sum would be outside -2^63 to 2^63-1",
                };
                write!(f, "{why}; the key has version {version}, nothing was changed")
            }
            Self::Unreachable { tried } => {
                write!(f, "no machine could be reached; nothing was changed. Tried ")?;
                for (i, (name, why)) in tried.iter().enumerate() {
                    write!(f, "{}{name}: {why}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Overloaded { retry_after } => {
                write!(f, "more is asked than can be done; nothing was changed, try again in {retry_after:?}")
            }
            Self::DiskFull { machines } => write!(
                f,
                "too many of the key's disks are full ({}); nothing was changed: make room there, and it goes on by itself",
                Names(machines)
            ),
            Self::Invalid(why) | Self::Refused(why) => write!(f, "{why}; nothing was changed"),
            Self::Setup(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for Error {}
