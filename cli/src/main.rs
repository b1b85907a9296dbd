//! kvctl: the command line of ennead. Data on stdout, talk on stderr, exit codes that tell what happened.
//!
//! | module | one idea |
//! |---|---|
//! | [`args`] | every command and flag |
//! | [`data`] | put, get, del |
//! | [`edit`] | ttl, touch, incr |
//! | [`many`], [`mod@batch`] | several keys; a file of operations |
//! | [`lock`], [`child`] | a command under a lock; the command's process |
//! | [`list`] | the keys in their order |
//! | [`backup`] | all keys in a file, and back |
//! | [`locate`] | where a key's slots are |
//! | [`status`] | can any four fail now? |
//! | [`members`], [`moves`] | the machines, and the data on its way between them |
//! | [`top`] | what each machine does now, and how fast |
//! | [`ring`], [`circle`], [`circle_svg`] | who owns how much; how that is drawn in characters, and as a picture |
//! | [`membership`], [`planned`] | leave and remove; what they would move |
//! | [`recover`] | goes on after more are lost than may be |
//! | [`check`] | compares every copy |
//! | [`mod@bench`], [`measure`] | how fast; how that is told |
//! | [`mod@sim`] | a cluster in one thread, through days of faults |
//! | [`why`], [`crashes`] | why a machine failed; the crash reports that the ring keeps |
//! | [`certs`] | the cluster's own authority |
//! | [`watch`], [`terminal`] | once, or every second; what fits on a screen |
//! | [`output`], [`failure`] | what is said, and how it ends |

mod args;
mod backup;
mod batch;
mod bench;
mod certs;
mod check;
mod child;
mod circle;
mod circle_svg;
mod crashes;
mod data;
mod edit;
mod failure;
mod imagined;
mod list;
mod locate;
mod lock;
mod many;
mod measure;
mod members;
mod membership;
mod moves;
mod output;
mod planned;
mod recover;
mod ring;
mod sim;
mod status;
mod terminal;
mod top;
mod watch;
mod weight;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ennead::client::{Client, ClientOptions};

use args::{Cli, Command, Global, SimCli};
use failure::Failure;
use output::Output;

/// How a command ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Exit code 0.
    Yes,
    /// Exit code 1: it is not so. What there is to say has been said.
    No,
    /// This exit code: the worst of many, or another program's.
    Code(u8),
}

fn main() -> ExitCode {
    // `--peers` is a number to this command, and addresses to all others.
    if let Some(words) = of_sim(std::env::args_os()) {
        let cli = SimCli::parse_from(words);
        let mut output = Output::new(cli.json);
        return end(sim::run(cli, &mut output), &mut output);
    }
    let Cli { global, command } = Cli::parse();
    let mut output = Output::new(global.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::Usage(format!("this process cannot start: {e}")).report(&mut output),
    };
    let result = runtime.block_on(run(&global, command, &mut output));
    end(result, &mut output)
}

fn end(result: Result<Verdict, Failure>, output: &mut Output) -> ExitCode {
    match result {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(failure::NO),
        Ok(Verdict::Code(code)) => ExitCode::from(code),
        Err(failure) => failure.report(output),
    }
}

/// The words of `kvctl [--json] sim ...` and of `kvctl help sim`, without those two.
fn of_sim(words: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let words: Vec<OsString> = words.collect();
    let given: Vec<&str> = words.iter().skip(1).take(2).filter_map(|word| word.to_str()).collect();
    let (skip, first) = match given[..] {
        ["--json", "sim"] => (3, Some("--json")),
        ["help", "sim"] => (3, Some("--help")),
        ["sim", ..] => (2, None),
        _ => return None,
    };
    let first = first.map(OsString::from);
    Some(words.iter().take(1).cloned().chain(first).chain(words.iter().skip(skip).cloned()).collect())
}

async fn run(global: &Global, command: Command, output: &mut Output) -> Result<Verdict, Failure> {
    match command {
        Command::Put(args) => data::put(args, global, output).await,
        Command::Get(args) => data::get(args, global, output).await,
        Command::Del(args) => data::del(args, global, output).await,
        Command::Ttl { key } => edit::ttl(key, global, output).await,
        Command::Touch(args) => edit::touch(args, global, output).await,
        Command::Incr(args) => edit::incr(args, global, output).await,
        Command::Batch { file } => batch::run(&file, global, output).await,
        Command::Lock(args) => lock::run(args, global, output).await,
        Command::LockChild { parent, command } => child::become_command(parent, &command, output),
        Command::List(args) => list::run(args, global, output).await,
        Command::Backup(args) => backup::backup(args, global, output).await,
        Command::Restore(args) => backup::restore(args, global, output).await,
        Command::Locate(args) => locate::run(args, global, output).await,
        Command::Status(args) => status::run(args, global, output).await,
        Command::Members(args) => members::run(args, global, output).await,
        Command::Ring(args) => ring::run(args, global, output).await,
        Command::Moves(args) => moves::run(args, global, output).await,
        Command::Top(args) => top::run(args, global, output).await,
        Command::Leave(args) => membership::leave(args, global, output).await,
        Command::Remove(args) => membership::remove(args, global, output).await,
        Command::Weight(args) => weight::run(args, global, output).await,
        Command::Recover(args) => recover::recover(args, global, output).await,
        Command::Check => check::run(global, output).await,
        Command::Why { machine, watch } => why::run(machine, watch, global, output).await,
        Command::Crashes { machine, watch } => crashes::run(machine, watch, global, output).await,
        Command::Bench(args) => bench::run(args, global, output).await,
        Command::Certs { command } => certs::run(command, output),
        Command::Sim(sim) => sim::run(SimCli { peers: None, sim, json: global.json }, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kvctl", &mut script);
            output.data(&script)?;
            Ok(Verdict::Yes)
        }
        Command::Man { command } => man(command.as_deref(), output),
    }
}

/// A client, as the global flags say.
async fn connect(global: &Global) -> Result<Client, Failure> {
    connect_for(global, 0).await
}

/// The same, for so many operations under way at once, if that is more than usual.
async fn connect_for(global: &Global, under_way: usize) -> Result<Client, Failure> {
    let Some(certs) = global.certs.clone() else {
        return Err(Failure::Usage(
            "which certificates? Say --certs DIR or set KVCTL_CERTS; 'ennead dev' prints the line for its own, \
             'kvctl certs' makes others"
                .to_string(),
        ));
    };
    let mut options = ClientOptions::new(global.peers.clone(), certs);
    options.identity = global.identity.clone();
    options.timeout = global.timeout();
    options.max_under_way = options.max_under_way.max(under_way);
    options.min_under_way = options.min_under_way.max(under_way);
    Ok(Client::with_options(options).await?)
}

/// The manual page of kvctl or of one of its commands, in roff.
fn man(name: Option<&str>, output: &mut Output) -> Result<Verdict, Failure> {
    let mut whole = Cli::command();
    // Propagates the global flags into the commands.
    whole.build();
    let command = match name {
        None => whole,
        Some("sim") => SimCli::command().name("kvctl-sim"),
        Some(name) => match whole.find_subcommand(name) {
            Some(found) => found.clone().name(format!("kvctl-{name}")),
            None => return Err(Failure::Usage(format!("there is no command {name}"))),
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Output)?;
    output.data(&page)?;
    Ok(Verdict::Yes)
}
