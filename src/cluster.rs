//! A local cluster of child processes: what `ennead dev`, `ennead demo` and the process tests run.
//!
//! Each peer is a real `ennead serve` with its own address, data directory and log. Peers end when the
//! process that started them does, however it ends: each holds the other end of a pipe. Everything a cluster
//! leaves behind is in one folder:
//!
//! ```text
//! members          the peers' names; written once the whole cluster has been seen up
//! certs/           its authority, the peers' certificates and one client's
//! data/NAME/       data directories
//! logs/NAME.log    what each peer said on stderr
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ennead_ring::view::DEFAULT_PORT;
use rustix::process::{Pid, Signal, kill_process};

use crate::Name;
use crate::certs::{self, Who};
use crate::client::{Client, ClientOptions};
use crate::farewell;

mod error;

pub use error::ClusterError;

/// The client's certificate that a local cluster is made with.
const CLIENT: &str = "local";
/// Peers of a cluster where nobody said otherwise.
const PEERS: usize = 9;
/// Further peers that a cluster has certificates for, so that it can grow while it runs.
const SPARE: usize = 3;
/// Between two ports of a cluster that has one address only: each peer may want a second port later.
const PORT_STEP: u16 = 10;
/// How long a peer may take to shut down in order before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits before a dead peer is started again: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A peer that ran so long had a good start: its next death is a first one.
const HEALTHY: Duration = Duration::from_secs(30);

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ennead` program.
    pub program: PathBuf,
    /// The cluster's folder; made if absent.
    pub dir: PathBuf,
    /// How many peers; `None`: as many as the folder already has, or nine.
    pub peers: Option<usize>,
    /// The first peer's address; the others follow it.
    pub base: Base,
    /// Further flags of `ennead serve`, for every peer.
    pub flags: Vec<String>,
}

/// Where a cluster's peers listen: one address each, or one port each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    first: Ipv4Addr,
    port: u16,
    one_address: bool,
}

impl Base {
    /// 127.0.0.1, 127.0.0.2, ... on port 9595; where the system has 127.0.0.1 only, ports 9595, 9605, ...
    pub fn local() -> Self {
        Self::at(Ipv4Addr::LOCALHOST, DEFAULT_PORT)
    }

    /// Addresses from `first` on, all with this port. Tests run clusters beside each other so.
    ///
    /// Where the system has 127.0.0.1 only: ports from `port` on, moved apart by the third number of `first`.
    pub fn at(first: Ipv4Addr, port: u16) -> Self {
        let [a, b, c, d] = first.octets();
        let second = Ipv4Addr::new(a, b, c, d.saturating_add(1));
        match UdpSocket::bind((second, 0)) {
            Ok(_) => Self { first, port, one_address: false },
            Err(_) => {
                let port = port.saturating_add(u16::from(c) * 100);
                Self { first: Ipv4Addr::LOCALHOST, port, one_address: true }
            }
        }
    }

    /// The name of peer `index`, counted from 0; `None` where the numbers end.
    fn name(self, index: usize) -> Option<Name> {
        let [a, b, c, d] = self.first.octets();
        let (ip, port) = match self.one_address {
            true => (self.first, u16::try_from(index).ok()?.checked_mul(PORT_STEP)?.checked_add(self.port)?),
            false => (Ipv4Addr::new(a, b, c, d.checked_add(u8::try_from(index).ok()?)?), self.port),
        };
        Some(Name::new(SocketAddr::new(IpAddr::V4(ip), port)))
    }
}

/// Something that happened to a peer unasked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It ended; it is started again after this long.
    Died(Name, String, Duration),
    /// It was started again.
    Restarted(Name),
    /// It could not be started again, for this reason; tried again later.
    NotRestarted(Name, String),
    /// It has left the ring, and is not started again.
    Left(Name),
}

/// One peer.
#[derive(Debug)]
struct Peer {
    name: Name,
    child: Option<Child>,
    /// True while it is meant to run: a peer killed on purpose stays down.
    wanted: bool,
    started: Instant,
    /// The wait before the next start, after a death.
    backoff: Duration,
    retry_at: Option<Instant>,
}

/// A local cluster. Dropped, it kills what still runs.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    peers: Vec<Peer>,
    /// Names for further peers, which have certificates, and are nobody's yet.
    spare: Vec<Name>,
    /// True once the whole cluster has been seen up: its data directories belong to it from then on.
    born: bool,
}

impl Cluster {
    /// Makes ready all that a cluster needs, and starts nothing yet.
    ///
    /// # Errors
    /// The folder, the certificates, or an address that is not free.
    pub fn prepare(options: Options) -> Result<Self, ClusterError> {
        let dir = &options.dir;
        let members = dir.join("members");
        let (names, born) = match fs::read_to_string(&members) {
            Ok(text) => {
                let names: Result<Vec<Name>, _> = text.lines().map(str::parse).collect();
                (names.map_err(|_| ClusterError::NotMembers(members))?, true)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let count = options.peers.unwrap_or(PEERS);
                let names: Option<Vec<Name>> = (0..count).map(|i| options.base.name(i)).collect();
                (names.ok_or(ClusterError::TooMany(count))?, false)
            }
            Err(error) => return Err(ClusterError::Io { what: "read", path: members, error }),
        };
        match options.peers {
            Some(asked) if asked != names.len() => {
                return Err(ClusterError::OtherSize { dir: dir.clone(), has: names.len(), asked });
            }
            _ if !born && dir.join("data").exists() => return Err(ClusterError::HalfMade(dir.clone())),
            _ => {}
        }
        // A peer that has left its ring stays where it is: away.
        let left = |name: &Name| farewell::is_written(&dir.join("data").join(name.to_string()));
        let names: Vec<Name> = names.into_iter().filter(|name| !left(name)).collect();
        // Looked at before anything is made: a taken address is the likeliest mistake of all.
        for &name in &names {
            free(name)?;
        }
        for folder in ["certs", "logs"] {
            make_dir(&dir.join(folder))?;
        }
        if !born {
            make_certificates(&dir.join("certs"), &names)?;
        }
        let spare = spare(&options, &names)?;
        let now = Instant::now();
        let peer = |name| Peer {
            name,
            child: None,
            wanted: false,
            started: now,
            backoff: BACKOFF.0,
            retry_at: None,
        };
        Ok(Self { peers: names.into_iter().map(peer).collect(), options, spare, born })
    }

    /// Starts all peers; see [`wait_until_up`](Self::wait_until_up).
    ///
    /// # Errors
    /// A program that cannot be run, or a folder that cannot be made.
    pub fn start_all(&mut self) -> Result<(), ClusterError> {
        (0..self.peers.len()).try_for_each(|i| self.start(i))
    }

    /// Starts peer `index`, counted from 0, unless it runs.
    ///
    /// # Errors
    /// A program that cannot be run, or a folder that cannot be made.
    pub fn start(&mut self, index: usize) -> Result<(), ClusterError> {
        self.peers[index].wanted = true;
        if self.is_running(index) {
            return Ok(());
        }
        let child = self.spawn(index)?;
        let peer = &mut self.peers[index];
        (peer.child, peer.started, peer.retry_at) = (Some(child), Instant::now(), None);
        Ok(())
    }

    fn spawn(&self, index: usize) -> Result<Child, ClusterError> {
        let Options { program, dir, flags, .. } = &self.options;
        let name = self.peers[index].name;
        make_dir(&dir.join("data"))?;
        let path = self.log(index);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(|error| ClusterError::Io { what: "write", path: path.clone(), error })?;
        let log_too = log.try_clone().map_err(|error| ClusterError::Io { what: "write", path, error })?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--die-with-parent", "--listen", &name.to_string()])
            .arg("--data")
            .arg(self.data(index))
            .arg("--certs")
            .arg(self.certs())
            .args(self.birth(index))
            .args(flags)
            // The pipe that tells it when this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log_too))
            .stderr(Stdio::from(log))
            // Its own group: Ctrl-C in a terminal is for us alone, who then stop the peers in order.
            .process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"ENNEAD_") {
                command.env_remove(variable);
            }
        }
        command.spawn().map_err(|error| ClusterError::Spawn { program: program.clone(), error })
    }

    /// How peer `index` comes to the cluster. Once born, its data directory says so itself.
    fn birth(&self, index: usize) -> Vec<String> {
        let first = self.peers[0].name;
        match (self.born, index) {
            (true, _) => Vec::new(),
            (false, 0) if self.peers.len() == 1 => vec!["--init".to_string()],
            (false, 0) => {
                let others: Vec<String> = self.peers[1..].iter().map(|p| p.name.to_string()).collect();
                vec!["--init".to_string(), "--with".to_string(), others.join(",")]
            }
            (false, _) => vec!["--join".to_string(), first.to_string()],
        }
    }

    /// Waits until every peer that is meant to run answers with a view of the cluster.
    ///
    /// # Errors
    /// A peer that ended, with its last words; or who is missing when the time is over.
    pub async fn wait_until_up(&mut self, within: Duration) -> Result<(), ClusterError> {
        let deadline = Instant::now() + within;
        let mut client = None;
        loop {
            self.check_alive()?;
            let missing = match &client {
                None => match self.client(Duration::from_secs(1)).await {
                    Ok(c) => {
                        client = Some(c);
                        continue;
                    }
                    Err(e) => e.to_string(),
                },
                Some(c) => match self.missing(c).await {
                    missing if missing.is_empty() => break,
                    missing => missing.join("; "),
                },
            };
            if Instant::now() > deadline {
                let logs = self.options.dir.join("logs");
                return Err(ClusterError::NotUp { within, missing, logs });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !self.born {
            let text: String = self.peers.iter().map(|p| format!("{}\n", p.name)).collect();
            let path = self.options.dir.join("members");
            fs::write(&path, text).map_err(|error| ClusterError::Io { what: "write", path, error })?;
            self.born = true;
        }
        Ok(())
    }

    /// Which peers do not answer although they are meant to run, and why.
    async fn missing(&self, client: &Client) -> Vec<String> {
        let accounts = match client.status().await {
            Ok(accounts) => accounts,
            Err(e) => return vec![e.to_string()],
        };
        let wanted = self.peers.iter().filter(|p| p.wanted);
        let why = |name: Name| match accounts.iter().find(|(n, _)| *n == name) {
            Some((_, Ok(account))) if account.cluster.is_some() => None,
            Some((_, Ok(_))) => Some(format!("{name} belongs to no cluster yet")),
            Some((_, Err(e))) => Some(format!("{name} does not answer ({e})")),
            None => Some(format!("{name} is not a member")),
        };
        wanted.filter_map(|p| why(p.name)).collect()
    }

    /// A peer that ended although it was meant to run is an error.
    fn check_alive(&mut self) -> Result<(), ClusterError> {
        for index in 0..self.peers.len() {
            if self.peers[index].wanted
                && let Some(how) = self.ended(index)
            {
                if self.has_left(index, &how) {
                    self.peers[index].wanted = false;
                    continue;
                }
                let log = self.log(index);
                let tail = tail(&log);
                return Err(ClusterError::Died { name: self.peers[index].name, how, log, tail });
            }
        }
        Ok(())
    }

    /// True if peer `index`, which ended so, is not to be started again: it has left the ring.
    fn has_left(&self, index: usize, how: &str) -> bool {
        how == CLEAN && farewell::is_written(&self.data(index))
    }

    /// How peer `index` ended, if it did since it was last asked.
    fn ended(&mut self, index: usize) -> Option<String> {
        let child = self.peers[index].child.as_mut()?;
        let status = match child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => how(status),
            Err(e) => e.to_string(),
        };
        self.peers[index].child = None;
        Some(status)
    }

    /// Starts again, with backoff, what ended unasked. To be called every now and then; tells what it did.
    pub fn supervise(&mut self) -> Vec<Event> {
        let now = Instant::now();
        let mut events = Vec::new();
        for index in 0..self.peers.len() {
            if !self.peers[index].wanted {
                continue;
            }
            if let Some(how) = self.ended(index) {
                let left = self.has_left(index, &how);
                let peer = &mut self.peers[index];
                if left {
                    peer.wanted = false;
                    events.push(Event::Left(peer.name));
                    continue;
                }
                if now.duration_since(peer.started) > HEALTHY {
                    peer.backoff = BACKOFF.0;
                }
                peer.retry_at = Some(now + peer.backoff);
                events.push(Event::Died(peer.name, how, peer.backoff));
                peer.backoff = BACKOFF.1.min(peer.backoff * 2);
            }
            if self.peers[index].retry_at.is_some_and(|at| at <= now) {
                let name = self.peers[index].name;
                match self.start(index) {
                    Ok(()) => events.push(Event::Restarted(name)),
                    Err(e) => {
                        self.peers[index].retry_at = Some(now + BACKOFF.1);
                        events.push(Event::NotRestarted(name, e.to_string()));
                    }
                }
            }
        }
        events
    }

    /// Kills peer `index` with SIGKILL: no last word, no flush.
    pub fn kill(&mut self, index: usize) {
        self.peers[index].wanted = false;
        if let Some(mut child) = self.peers[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks peer `index` to shut down (SIGTERM), waits, and tells how it ended; `None` if it did not run.
    pub async fn terminate(&mut self, index: usize) -> Option<String> {
        self.peers[index].wanted = false;
        self.signal(index, Signal::TERM);
        self.wait(index).await
    }

    /// Freezes peer `index` (SIGSTOP): its sockets stay open, and nobody answers.
    pub fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// Lets a frozen peer go on (SIGCONT).
    pub fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        // The child is not yet waited for, so its id is still its own.
        if let Some(child) = &self.peers[index].child {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    async fn wait(&mut self, index: usize) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        self.peers[index].child.as_ref()?;
        loop {
            if let Some(how) = self.ended(index) {
                return Some(how);
            }
            if Instant::now() > deadline {
                self.kill(index);
                return Some(format!("killed: it did not shut down within {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Shuts all peers down in order; tells which did not end well, and how they ended.
    pub async fn stop(mut self) -> Vec<(Name, String)> {
        for index in 0..self.peers.len() {
            self.peers[index].wanted = false;
            self.signal(index, Signal::TERM);
            self.resume(index);
        }
        let mut unclean = Vec::new();
        for index in 0..self.peers.len() {
            match self.wait(index).await {
                Some(how) if how != CLEAN => unclean.push((self.peers[index].name, how)),
                _ => {}
            }
        }
        unclean
    }

    /// A client that knows every peer.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn client(&self, timeout: Duration) -> Result<Client, crate::client::Error> {
        let mut options = ClientOptions::new(self.names(), self.certs());
        options.identity = Some(CLIENT.to_string());
        options.timeout = timeout;
        Client::with_options(options).await
    }

    /// The peers' names, in order.
    pub fn names(&self) -> Vec<Name> {
        self.peers.iter().map(|p| p.name).collect()
    }

    /// Names that further peers may come in under: their certificates are made.
    pub fn spare(&self) -> &[Name] {
        &self.spare
    }

    /// The place of the peer of this name.
    pub fn index_of(&self, name: Name) -> Option<usize> {
        self.peers.iter().position(|p| p.name == name)
    }

    /// True if peer `index` runs, frozen or not.
    pub fn is_running(&mut self, index: usize) -> bool {
        self.peers[index].child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// The folder of certificates.
    pub fn certs(&self) -> PathBuf {
        self.options.dir.join("certs")
    }

    /// The data directory of peer `index`.
    pub fn data(&self, index: usize) -> PathBuf {
        self.options.dir.join("data").join(self.peers[index].name.to_string())
    }

    /// What peer `index` says on stderr, over all its lives.
    pub fn log(&self, index: usize) -> PathBuf {
        self.options.dir.join("logs").join(format!("{}.log", self.peers[index].name))
    }

    /// The process id of peer `index`, if it runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.peers[index].child.as_ref().map(Child::id)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.peers.len()).for_each(|i| self.kill(i));
    }
}

/// How a peer ended that ended well.
const CLEAN: &str = "exit code 0";

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// An address that is taken is best told before eight other peers run.
fn free(name: Name) -> Result<(), ClusterError> {
    match UdpSocket::bind(name.address()) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            Err(ClusterError::Taken { name, port: name.address().port() })
        }
        Err(error) => Err(ClusterError::NoAddress { name, error }),
    }
}

fn make_dir(path: &Path) -> Result<(), ClusterError> {
    fs::create_dir_all(path).map_err(|error| ClusterError::Io {
        what: "make",
        path: path.to_path_buf(),
        error,
    })
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let read = File::open(path).and_then(io::read_to_string);
    let text = read.unwrap_or_else(|e| e.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Names for further peers, with their certificates. Where the authority's key has been taken away, there are none.
fn spare(options: &Options, names: &[Name]) -> Result<Vec<Name>, ClusterError> {
    let certs = options.dir.join("certs");
    if !certs.join("ca.key").exists() {
        return Ok(Vec::new());
    }
    let after = (0..).map_while(|i| options.base.name(i)).filter(|name| !names.contains(name));
    let behind = |name: &Name| names.iter().all(|n| n < name);
    let spare: Vec<Name> = after.filter(behind).take(SPARE).collect();
    make_certificates(&certs, &spare)?;
    Ok(spare)
}

/// An authority, a certificate for each peer and one for a client. What a run that was cut short has made
/// already is kept.
fn make_certificates(dir: &Path, names: &[Name]) -> Result<(), ClusterError> {
    let failed =
        |error: certs::CertError| ClusterError::Certs { dir: dir.to_path_buf(), error: error.into() };
    if !dir.join("ca.pem").exists() {
        certs::init(dir).map_err(failed)?;
    }
    let peers = names.iter().map(|&name| (format!("peers/{name}.pem"), Who::Peer(name)));
    let client = (format!("clients/{CLIENT}.pem"), Who::Client(CLIENT.to_string()));
    for (path, who) in peers.chain([client]) {
        if !dir.join(path).exists() {
            certs::issue(dir, &who).map_err(failed)?;
        }
    }
    Ok(())
}
