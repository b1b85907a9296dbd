//! How a command fails: a message that says what is true of the data, a JSON object, an exit code.

use std::io;
use std::process::ExitCode;

use ennead::Name;
use ennead::backup::BackupError;
use ennead::client::{Effect, Error};
use serde_json::{Value, json};

use crate::output::Output;

/// Exit code: absent, comparison failed, unhealthy.
pub(crate) const NO: u8 = 1;
/// Exit code: failed, and nothing changed.
pub(crate) const FAILED: u8 = 2;
/// Exit code: the write may or may not have taken effect, or may yet.
pub(crate) const UNKNOWN: u8 = 3;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The cluster's answer, or the lack of one.
    #[error("{0}")]
    Client(#[from] Error),
    /// The command cannot be carried out as given.
    #[error("{0}")]
    Usage(String),
    /// The key has no value. Further fields of the answer come along.
    #[error("{key} has no value")]
    Absent {
        /// Which.
        key: String,
        /// Answers of the copies, where they were asked for.
        copies: Option<Value>,
    },
    /// The cluster has no such member.
    #[error("{0} is not a member of this cluster; nothing was changed")]
    NoSuchMachine(Name),
    /// Another holds the lock.
    #[error("lock/{name} is held by {by}; the command was not run")]
    Held {
        /// Which lock.
        name: String,
        /// What he says of himself.
        by: String,
    },
    /// The lock was lost while the command ran.
    #[error("{0}")]
    Lost(String),
    /// The change is not made, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The time is over, and the end of it not seen.
    #[error("{0}")]
    TimeOver(String),
    /// A backup could not be taken, read or put back.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// Certificates cannot be made or read.
    #[error("{0}")]
    Certs(#[from] ennead::certs::CertError),
    /// Stdin or a file cannot be read.
    #[error("cannot read {0}: {1}")]
    Input(&'static str, io::Error),
    /// Stdout cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// Stdout cannot be written, after the cluster did what it was asked.
    #[error("the write took effect (version {version}), but the answer cannot be written: {error}")]
    Untold {
        /// What it made.
        version: u64,
        /// What the system says.
        error: io::Error,
    },
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Absent { .. }
            | Self::NoSuchMachine(_)
            | Self::Held { .. }
            | Self::Client(Error::VersionMismatch { .. }) => NO,
            Self::Backup(BackupError::Damaged { .. } | BackupError::Unfinished { .. }) => NO,
            Self::Client(e) | Self::Backup(BackupError::Client(e)) => match e.effect() {
                Effect::Unchanged => FAILED,
                Effect::Unknown => UNKNOWN,
            },
            Self::Untold { .. } | Self::TimeOver(_) | Self::Lost(_) => UNKNOWN,
            Self::Usage(_)
            | Self::Refused(_)
            | Self::Backup(_)
            | Self::Certs(_)
            | Self::Input(..)
            | Self::Output(_) => FAILED,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Client(e) => e.code(),
            Self::Absent { .. } | Self::NoSuchMachine(_) => "not_found",
            Self::Held { .. } => "held",
            Self::Lost(_) => "lost",
            Self::Refused(_) => "refused",
            Self::Backup(_) => "backup",
            Self::TimeOver(_) => "timeout",
            Self::Usage(_) => "invalid",
            Self::Certs(_) => "certificates",
            Self::Input(..) => "input",
            Self::Output(_) | Self::Untold { .. } => "output",
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        if let Self::Client(error) | Self::Backup(BackupError::Client(error)) = self {
            return error.to_json();
        }
        let outcome = if self.exit_code() == UNKNOWN { "unknown" } else { "unchanged" };
        let mut object = json!({"error": self.word(), "message": self.to_string(), "outcome": outcome});
        if let Self::Absent { copies: Some(copies), .. } = self {
            object["copies"] = copies.clone();
        }
        object
    }

    /// Says why, to people and (with `--json`) to programs.
    pub(crate) fn report(&self, output: &mut Output) -> ExitCode {
        // A reader that has gone away has seen what it wanted to see.
        if let Self::Output(e) = self
            && e.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        output.say(&format!("kvctl: {self}"));
        if output.json {
            // If stdout is the trouble, stderr has said so already.
            let _ = output.print_json(&self.to_json());
        }
        ExitCode::from(self.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_missing_value_and_a_failed_comparison_are_no() {
        let absent = Failure::Absent { key: "k".to_string(), copies: None };
        assert_eq!(absent.exit_code(), NO);
        assert_eq!(absent.to_json()["error"], "not_found");
        let beaten = Failure::Client(Error::VersionMismatch { found: Some(7) });
        assert_eq!(beaten.exit_code(), NO);
    }

    #[test]
    fn what_cannot_be_carried_out_changed_nothing() {
        let usage = Failure::Usage("no".to_string());
        assert_eq!(usage.exit_code(), FAILED);
        assert_eq!(usage.to_json()["outcome"], "unchanged");
    }

    #[test]
    fn an_error_without_a_quorum_counts_and_names_the_silent() {
        let error = Error::NoQuorum {
            votes: 4,
            needed: 5,
            silent: vec!["127.0.0.4".parse().expect("a name")],
            within: Duration::from_secs(2),
        };
        let object = Failure::Client(error).to_json();
        assert_eq!((&object["votes"], &object["needed"]), (&json!(4), &json!(5)));
        assert_eq!(object["silent"], json!(["127.0.0.4"]));
        assert_eq!((&object["error"], &object["outcome"]), (&json!("no_quorum"), &json!("unchanged")));
    }
}
