//! The process of a command that runs under a lock: it does not outlive kvctl, and can be stopped with all it started.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Verdict;
use crate::failure::Failure;
use crate::output::Output;

/// As of shells: there is no such command; it cannot be run; a signal ended it, plus its number.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;
const SIGNALLED: i32 = 128;

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: Option<Pid>,
    /// It leads a process group of its own. Not where it reads from a terminal, which gives its keys to one group only.
    leads: bool,
}

impl Child {
    /// Starts it through this very program, which sees to it that it ends with us; see [`become_command`].
    pub(crate) fn start(command: &[OsString], token: u64) -> io::Result<Self> {
        let leads = !io::stdin().is_terminal();
        let mut this = tokio::process::Command::new(std::env::current_exe()?);
        this.arg("lock-child").arg(std::process::id().to_string()).arg("--").args(command);
        this.env("ENNEAD_LOCK_TOKEN", token.to_string());
        if leads {
            this.process_group(0);
        }
        let process = this.spawn()?;
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { process, pid, leads })
    }

    /// The exit code to pass on.
    pub(crate) async fn end(&mut self) -> io::Result<u8> {
        self.process.wait().await.map(code)
    }

    /// Asks it to end, and makes it end at `until`, with whatever it has started and left in its group.
    pub(crate) async fn stop(&mut self, until: Instant) {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout_at(until.into(), self.process.wait()).await;
        if ended.is_err() || self.leads {
            self.signal(Signal::KILL);
        }
        // It is gone, or the system will not let go of it: nothing more can be done.
        let _ = self.process.wait().await;
    }

    /// Tells it, and its group; it may be gone by then.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = match self.pid {
            Some(pid) if self.leads => kill_process_group(pid, signal),
            Some(pid) if self.process.id().is_some() => kill_process(pid, signal),
            _ => Ok(()),
        };
    }

    /// A key that ends programs reaches it by itself, where it is in the terminal's group as we are.
    pub(crate) fn hears_the_terminal(&self) -> bool {
        !self.leads
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// In the new process: it dies when its parent does, however that ends, and is the command from here on.
pub(crate) fn become_command(
    parent: u32,
    command: &[OsString],
    output: &mut Output,
) -> Result<Verdict, Failure> {
    #[cfg(target_os = "linux")]
    {
        let end_with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        end_with_parent.map_err(|e| Failure::Usage(format!("the command cannot be tied to kvctl: {e}")))?;
    }
    // The parent may have ended before it was said that we would.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()) != Some(parent) {
        return Err(Failure::Usage("kvctl has ended; the command was not run".to_string()));
    }
    let [program, arguments @ ..] = command else {
        return Err(Failure::Usage("there is no command to run".to_string()));
    };
    let error = Command::new(program).args(arguments).exec();
    output.say(&format!("kvctl: cannot run {}: {error}", program.display()));
    Ok(Verdict::Code(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }))
}
