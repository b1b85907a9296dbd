//! The daemon: configuration in, node running, signals out.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What it says on a terminal is its purpose.

mod config;
mod demo;
mod dev;
mod logging;

use std::error::Error;
use std::fmt::Write;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ennead::Node;
use ennead::node::StopReason;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use config::{LogFormat, Serve, Settings};

/// A failure before anything was started, wrong usage included.
const NOT_STARTED: u8 = 2;
/// A failure while running.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    match matches.subcommand() {
        Some(("serve", flags)) => runtime.block_on(serve(flags)),
        Some(("config", flags)) => show_config(flags),
        Some(("dev", flags)) => {
            let peers = flags.get_one::<u8>("peers").copied();
            let dir = flags.get_one::<PathBuf>("data").cloned().unwrap_or_else(|| "ennead-dev".into());
            let first = flags.get_one::<Ipv4Addr>("first").copied();
            runtime.block_on(dev::run(peers, dir, first))
        }
        Some(("demo", _)) => runtime.block_on(demo::run()),
        _ => unreachable!("clap asks for a subcommand"),
    }
}

/// The command line.
fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let orphan = Arg::new("die-with-parent").long("die-with-parent").action(ArgAction::SetTrue).hide(true);
    // For tests: see `ennead::faults` and `ennead::clock::wrong_by_file`.
    let faults = Arg::new("test-faults").long("test-faults").action(ArgAction::SetTrue).hide(true);
    let clock = Arg::new("test-clock").long("test-clock").value_name("FILE").hide(true);
    let clock = clock.value_parser(value_parser!(PathBuf));
    let peers = Arg::new("peers")
        .long("peers")
        .value_name("N")
        .value_parser(value_parser!(u8).range(1..=99))
        .help("How many peers [default: 9, or as many as the folder has]");
    let data = Arg::new("data")
        .long("data")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Folder of the cluster: data, certificates, logs [default: ./ennead-dev]");
    let first =
        Arg::new("first").long("first").value_name("IP").value_parser(value_parser!(Ipv4Addr)).help(
            "Address of the first peer, the others follow it; only for a new cluster [default: 127.0.0.1]",
        );
    Command::new("ennead")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A key-value store without a leader. Nine slots hold each key; five must agree.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Runs one machine of a cluster")
                .after_help("Every flag is also a variable ENNEAD_<FLAG> and a key of the --config file. A flag is\nstronger than the environment, that than the file, that than the default.")
                .args(config::arguments())
                .args([orphan, faults, clock]),
        )
        .subcommand(
            Command::new("config")
                .about("Prints the settings in force, and whence; takes the flags of serve")
                .args(config::arguments())
                .arg(json),
        )
        .subcommand(Command::new("dev").about("Keeps a local cluster up until Ctrl-C").args([peers, data, first]))
        .subcommand(
            Command::new("demo").about("Nine peers, a thousand keys, four killed, nothing lost: under a minute"),
        )
}

/// Says on stderr why not.
fn complain(code: u8, error: &dyn Error) -> ExitCode {
    let mut message = format!("ennead: {error}");
    let mut cause = error.source();
    while let Some(e) = cause {
        // Some errors already print what caused them; twice would confuse.
        let text = e.to_string();
        if !message.contains(&text) {
            let _ = write!(message, ": {text}");
        }
        cause = e.source();
    }
    eprintln!("{message}");
    ExitCode::from(code)
}

fn gather(flags: &ArgMatches) -> Result<Settings, config::ConfigError> {
    Settings::gather(flags, |variable| std::env::var(variable).ok())
}

fn show_config(flags: &ArgMatches) -> ExitCode {
    let settings = match gather(flags).and_then(|s| s.values().map(|_| s)) {
        Ok(settings) => settings,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    match flags.get_flag("json") {
        true => println!("{:#}", settings.to_json()),
        false => print!("{settings}"),
    }
    ExitCode::SUCCESS
}

async fn serve(flags: &ArgMatches) -> ExitCode {
    let Serve { node: config, log } = match gather(flags).and_then(|s| s.serve()) {
        Ok(serve) => serve,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    // What goes to stderr in any case need not be there twice.
    let log_is_elsewhere = log.file.is_some() || log.format == LogFormat::Json;
    // Dropped last, so that the last words reach the log.
    let _log = match logging::start(&log) {
        Ok(guard) => guard,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    if flags.get_flag("test-faults") {
        ennead::faults::begin(&config.data);
    }
    if let Some(file) = flags.get_one::<PathBuf>("test-clock") {
        ennead::clock::wrong_by_file(file.clone());
    }
    let mut stop = match Stop::listen(flags.get_flag("die-with-parent")) {
        Ok(stop) => stop,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    let node = tokio::select! {
        started = Node::start(config) => match started {
            Ok(node) => node,
            Err(e) => {
                if log_is_elsewhere {
                    tracing::error!(reason = %e, "not started");
                }
                return complain(NOT_STARTED, &e);
            }
        },
        why = stop.asked() => {
            tracing::info!(why, "stopped before it had started");
            return ExitCode::SUCCESS;
        }
    };
    let why = tokio::select! {
        reason = node.stopped() => {
            // What it was for is done: nobody is to start it again.
            if let StopReason::Left(_) = reason {
                eprintln!("ennead: stopped: {reason}. Start it with --join to come in again");
                return ExitCode::SUCCESS;
            }
            if log_is_elsewhere {
                tracing::error!(%reason, "stopped");
            }
            eprintln!("ennead: stopped: {reason}");
            return ExitCode::from(FAILED);
        }
        why = stop.asked() => why,
    };
    tracing::info!(why, "stopping; once more Ctrl-C ends at once");
    tokio::select! {
        reason = node.shutdown(why) => match reason {
            StopReason::Shutdown(_) | StopReason::Left(_) => ExitCode::SUCCESS,
            StopReason::Failed(reason) => {
                eprintln!("ennead: failed while stopping: {reason}");
                ExitCode::from(FAILED)
            }
        },
        _ = stop.interrupt.recv() => {
            eprintln!("ennead: ended at once, without a word to the peers");
            std::process::exit(130)
        }
    }
}

/// The ways in which others ask this process to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Resolves when the parent is gone; never, unless that was asked for.
    orphaned: oneshot::Receiver<()>,
    /// Keeps `orphaned` pending where nobody watches the parent.
    _keep: Option<oneshot::Sender<()>>,
}

impl Stop {
    fn listen(die_with_parent: bool) -> std::io::Result<Self> {
        let (sender, orphaned) = oneshot::channel();
        let mut keep = Some(sender);
        if die_with_parent && let Some(sender) = keep.take() {
            // A thread of its own: a read of stdin cannot be cancelled, and would keep the runtime waiting.
            std::thread::Builder::new().name("parent".to_string()).spawn(move || {
                let mut byte = [0];
                while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
                let _ = sender.send(());
            })?;
        }
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, orphaned, _keep: keep })
    }

    /// Resolves with what peers and logs are told.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = &mut self.orphaned => "the process that started it is gone",
        }
    }
}
