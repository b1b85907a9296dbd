//! `ennead dev`: a local cluster that stays up until Ctrl-C, for a person to try things on.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ennead::cluster::{Base, Cluster, ClusterError, Event, Options};
use ennead::units::show_duration;
use ennead_ring::view::DEFAULT_PORT;
use tokio::signal::unix::{SignalKind, signal};

use crate::{FAILED, NOT_STARTED, complain};

/// How long the peers may take to find each other.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at the peers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Starts the cluster in `dir`, keeps it up, and ends it in order.
pub(crate) async fn run(peers: Option<u8>, dir: PathBuf, first: Option<Ipv4Addr>) -> ExitCode {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(e), _) | (_, Err(e)) => return complain(NOT_STARTED, &e),
        };
    let began = Instant::now();
    let mut cluster = match prepare(peers, &dir, first) {
        Ok(cluster) => cluster,
        Err(e) => return complain(NOT_STARTED, &e),
    };
    let up = tokio::select! {
        up = start(&mut cluster) => up,
        _ = interrupt.recv() => return end(cluster).await,
        _ = terminate.recv() => return end(cluster).await,
    };
    if let Err(e) = up {
        cluster.stop().await;
        return complain(NOT_STARTED, &e);
    }
    greet(&cluster, &dir, began.elapsed());
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = tokio::time::sleep(LOOK_EVERY) => cluster.supervise().into_iter().for_each(report),
        }
    }
    end(cluster).await
}

fn prepare(peers: Option<u8>, dir: &Path, first: Option<Ipv4Addr>) -> Result<Cluster, ClusterError> {
    let program = std::env::current_exe()
        .map_err(|error| ClusterError::Spawn { program: PathBuf::from("ennead"), error })?;
    let peers = peers.map(usize::from);
    Cluster::prepare(Options {
        program,
        dir: dir.to_path_buf(),
        peers,
        base: first.map_or_else(Base::local, |first| Base::at(first, DEFAULT_PORT)),
        flags: Vec::new(),
    })
}

async fn start(cluster: &mut Cluster) -> Result<(), ClusterError> {
    cluster.start_all()?;
    cluster.wait_until_up(START_WITHIN).await
}

/// Says how to reach the cluster, in lines that can be copied.
fn greet(cluster: &Cluster, dir: &Path, took: Duration) {
    let names = cluster.names();
    let certs = cluster.certs();
    let range = match names.as_slice() {
        [one] => format!("1 peer is up: {one}"),
        [first, .., last] => format!("{} peers are up: {first} to {last}", names.len()),
        [] => "no peers".to_string(),
    };
    println!("{range} (in {})", show_duration(took));
    println!("data, certificates and logs are in {}; started again, it goes on from there", dir.display());
    if let Some(first) = names.first().map(|name| name.address()) {
        println!("status page: http://{}:{}/", first.ip(), first.port().saturating_add(1));
    }
    println!();
    match kvctl() {
        Some(kvctl) => {
            println!("In another terminal:");
            println!();
            println!(
                "  export KVCTL_CERTS={} KVCTL_PEERS={}",
                absolute(&certs).display(),
                first_three(&names)
            );
            for line in ["put mail-23412 hello", "get mail-23412 --copies", "locate mail-23412", "status"] {
                println!("  {} {line}", kvctl.display());
            }
        }
        None => {
            println!("In another terminal (build it first: cargo build --release -p kvctl):");
            println!();
            println!(
                "  export KVCTL_CERTS={} KVCTL_PEERS={}",
                absolute(&certs).display(),
                first_three(&names)
            );
            println!("  kvctl put mail-23412 hello");
            println!("  kvctl status");
        }
    }
    println!();
    grow(cluster, &absolute(dir));
    println!("Kill some peers and see (their ids: {}); they are started again.", ids(cluster));
    println!("Ctrl-C stops the cluster.");
}

/// Says how a further peer comes in, and how one goes.
fn grow(cluster: &Cluster, dir: &Path) {
    let (Some(new), Some(member)) = (cluster.spare().first(), cluster.names().first().copied()) else {
        return;
    };
    let program = std::env::current_exe().map_or_else(|_| PathBuf::from("ennead"), shorter);
    println!(
        "To let a further peer in, and out again (certificates are there for {} of them):",
        cluster.spare().len()
    );
    println!();
    println!(
        "  {} serve --listen {new} --data {}/data/{new} --certs {}/certs --join {member}",
        program.display(),
        dir.display(),
        dir.display()
    );
    let kvctl = kvctl().unwrap_or_else(|| PathBuf::from("kvctl"));
    println!("  {} leave {new} --plan", kvctl.display());
    println!("  {} leave {new}", kvctl.display());
    println!();
}

/// The command line tool beside this program, if it is built; relative to here where that is shorter.
fn kvctl() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("kvctl");
    path.exists().then(|| shorter(path))
}

fn shorter(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|h| path.strip_prefix(h).map(Path::to_path_buf).ok()).unwrap_or(path)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Any member leads to all others; three, so that one may be down.
fn first_three(names: &[ennead::Name]) -> String {
    names.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn ids(cluster: &Cluster) -> String {
    let ids = (0..cluster.names().len()).filter_map(|i| cluster.pid(i));
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
}

fn report(event: Event) {
    match event {
        Event::Died(name, how, wait) => {
            eprintln!("{name} ended ({how}); it is started again in {}", show_duration(wait));
        }
        Event::Restarted(name) => eprintln!("{name} is started again"),
        Event::NotRestarted(name, why) => eprintln!("{name} cannot be started again: {why}"),
        Event::Left(name) => eprintln!("{name} has left the ring, and is not started again"),
    }
}

async fn end(cluster: Cluster) -> ExitCode {
    println!("stopping");
    let unclean = cluster.stop().await;
    for (name, how) in &unclean {
        eprintln!("{name} did not end well: {how}");
    }
    match unclean.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    }
}
