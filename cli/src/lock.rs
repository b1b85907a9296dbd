//! A command that runs while a lock is held: taken before, renewed meanwhile, given back after.

use ennead::client::{Lock, LockError};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{self, Global};
use crate::child::Child;
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};

/// Runs it.
pub(crate) async fn run(args: args::Lock, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    crate::data::check_key(&format!("lock/{}", args.name))?;
    // Before there is a lock, so that no signal leaves one behind.
    let mut signals =
        Signals::listen().map_err(|e| Failure::Usage(format!("no signals can be heard: {e}")))?;
    let client = connect(global).await?;
    let lock = client.lock(&args.name).ttl(args.ttl).wait(args.wait).holder(me());
    let lock = tokio::select! {
        lock = lock.into_future() => lock,
        signal = signals.next() => {
            return Err(Failure::Refused(format!(
                "interrupted while waiting for the lock; the command was not run (signal {})",
                signal.as_raw()
            )));
        }
    };
    let lock = lock.map_err(|error| match error {
        LockError::Held { by } => Failure::Held { name: args.name.clone(), by },
        LockError::Failed(error) => Failure::Client(error),
        other => Failure::Refused(other.to_string()),
    })?;
    let mut child = match Child::start(&args.command, lock.token()) {
        Ok(child) => child,
        Err(error) => {
            give_back(lock, output).await;
            return Err(Failure::Usage(format!("the command cannot be started: {error}")));
        }
    };
    let code = loop {
        tokio::select! {
            code = child.end() => break code,
            why = lock.lost() => {
                child.stop(lock.until()).await;
                return Err(Failure::Lost(format!("lock/{} was lost ({why}); the command was stopped", args.name)));
            }
            signal = signals.next() => {
                if signal != Signal::INT || !child.hears_the_terminal() {
                    child.signal(signal);
                }
            }
        }
    };
    give_back(lock, output).await;
    match code {
        Ok(code) => Ok(Verdict::Code(code)),
        Err(error) => Err(Failure::TimeOver(format!("how the command ended cannot be told: {error}"))),
    }
}

async fn give_back(lock: Lock, output: &mut Output) {
    let key = lock.key().to_string();
    if let Err(error) = lock.release().await {
        output.say(&format!("kvctl: {key} is free when its time is over: {error}"));
    }
}

/// Who holds the lock, for those who wait.
fn me() -> String {
    let system = rustix::system::uname();
    format!("process {} on {}", std::process::id(), system.nodename().to_string_lossy())
}

/// What people and service managers send to end a command: passed on, so that the lock is given back after it.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}
