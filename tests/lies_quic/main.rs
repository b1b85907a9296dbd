//! A member of the cluster that lies, over real QUIC: its certificate is valid, it is in the view, and it calls from its own
//! address. Whatever it says, the others refuse it or pass over it, say why, and serve their clients meanwhile.
//!
//! | module | one idea |
//! |---|---|
//! | `bytes` | what is no frame, or comes under another's name: the connection ends with a reason |
//! | `words` | frames that say what is not so: of epochs, votes, times, views |
//!
//! `ring/tests/lies.rs` is the same without sockets, and says more lies.
#![allow(missing_docs, reason = "tests")]

mod bytes;
#[path = "../transport/raw.rs"]
#[allow(dead_code, reason = "the transport's tests need more of it")]
mod raw;
mod words;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ennead::certs::{self, Identity, Who};
use ennead::status::MachineStatus;
use ennead::{Client, Name, Node};
use ennead_ring::view::{ClusterId, Machine};
use tracing_subscriber::filter::LevelFilter;

/// Longer than anything takes on a machine that does a hundred other things.
const DEADLINE: Duration = Duration::from_secs(60);
/// No machine is dropped while a test runs.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Machines of which the last is the liar.
const MACHINES: u8 = 4;

/// What every machine of this process has logged.
#[derive(Clone, Copy)]
struct Log;

static LOGGED: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
    // Whoever else had set one up would be heard, too.
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(|| Log)
        .try_init();
    Mutex::default()
});

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until a line of the log has all of these in it.
async fn logged(words: &[&str]) {
    until(|| {
        let log = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&log).lines().any(|line| words.iter().all(|w| line.contains(w)))
    })
    .await;
}

async fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "it comes true in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A folder with an authority.
struct Authority(PathBuf);

impl Authority {
    fn dir(&self) -> &Path {
        &self.0
    }

    fn peer(&self, name: Name) -> Identity {
        Identity::peer(&self.0, name).expect("a certificate")
    }

    fn client(&self, name: &str) -> Identity {
        Identity::client(&self.0, Some(name)).expect("a certificate")
    }
}

/// Three machines in this process, and who was the fourth.
struct Cluster {
    nodes: Vec<Node>,
    liar: Machine,
    id: ClusterId,
    authority: Authority,
    dir: tempfile::TempDir,
    served: u32,
}

impl Cluster {
    /// At 127.0.`net`.`host` and on.
    async fn start_at(net: u8, host: u8) -> Self {
        LazyLock::force(&LOGGED);
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority(dir.path().join("certs"));
        let name = |host| Name::new(SocketAddr::new(Ipv4Addr::new(127, 0, net, host).into(), 9595));
        let names: Vec<Name> = (host..host + MACHINES).map(name).collect();
        certs::init(authority.dir()).expect("an authority");
        certs::issue(authority.dir(), &Who::Client("tester".into())).expect("a client's certificate");
        for name in &names {
            certs::issue(authority.dir(), &Who::Peer(*name)).expect("a peer's certificate");
        }
        let mut nodes = Vec::new();
        // The last one joins, so that there are views before the present one.
        for (i, name) in names.iter().enumerate().rev() {
            let data = dir.path().join(name.to_string());
            let node = Node::builder().listen(*name).data_dir(data).certs(authority.dir()).patience(PATIENCE);
            let node = if i == 0 { node.init(names[1..3].to_vec()) } else { node.join([names[0]]) };
            nodes.insert(0, node.start().await.expect("a machine"));
        }
        let (client, begun) = (nodes[0].client(), Instant::now());
        let liar = loop {
            // Of all that are members by now.
            let _ = client.view().await;
            let told = client.status().await.unwrap_or_default();
            let settled: Vec<&MachineStatus> = told
                .iter()
                .filter_map(|(_, status)| {
                    status.as_ref().ok().filter(|s| s.settled == s.epoch && s.slots > 0)
                })
                .collect();
            if settled.len() == usize::from(MACHINES) {
                break settled.iter().find(|s| s.machine.name == names[3]).expect("four are told of").machine;
            }
            assert!(begun.elapsed() < DEADLINE, "{} of {MACHINES} are settled", settled.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let id = client.view().await.expect("a view").cluster();
        nodes.pop().expect("four").shutdown("somebody takes its place").await;
        let mut cluster = Self { nodes, liar, id, authority, dir, served: 0 };
        cluster.serves("it lost one of four").await;
        cluster
    }

    fn victim(&self) -> Name {
        self.nodes[0].name()
    }

    async fn client(&self) -> Client {
        let names = self.nodes.iter().map(Node::name);
        Client::connect(names, self.authority.dir()).await.expect("a client")
    }

    /// What each of the three says of itself.
    async fn accounts(&self) -> Vec<MachineStatus> {
        let told = self.nodes[0].client().status().await.expect("what they say of themselves");
        let told = told.into_iter().filter(|(name, _)| *name != self.liar.name);
        told.map(|(name, status)| status.unwrap_or_else(|e| panic!("{name}: {e}"))).collect()
    }

    /// Waits until one of them tells people of this.
    async fn objects(&self, words: &str) {
        let begun = Instant::now();
        loop {
            let told: Vec<String> = self.accounts().await.into_iter().flat_map(|a| a.objections).collect();
            if told.iter().any(|objection| objection.contains(words)) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "nobody says \"{words}\": {told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A client is served, in the view that there was, and nothing has panicked.
    async fn serves(&mut self, after: &str) {
        self.served += 1;
        let (key, value) = (format!("key-{}", self.served), format!("value-{}", self.served));
        // One that knows nothing yet, and one that knew them before.
        for client in [self.client().await, self.nodes[1].client()] {
            let put = client.put(&*key, &*value).await;
            assert!(put.is_ok(), "a put after \"{after}\": {put:?}");
            let copy = client.get(&*key).await.unwrap_or_else(|e| panic!("a get after \"{after}\": {e}"));
            assert_eq!(copy.map(|c| c.value.to_vec()), Some(value.clone().into_bytes()), "after \"{after}\"");
        }
        for account in self.accounts().await {
            assert_eq!(account.part_restarts, 0, "{} after \"{after}\"", account.machine);
            assert!(account.epoch == account.settled, "{} after \"{after}\"", account.machine);
        }
        for node in &self.nodes {
            let reports = self.dir.path().join(node.name().to_string()).join("crashes");
            let reports = std::fs::read_dir(reports).map_or(0, Iterator::count);
            assert_eq!(reports, 0, "crash reports of {} after \"{after}\"", node.name());
        }
    }
}
