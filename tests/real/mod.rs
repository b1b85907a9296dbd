//! Real processes on loopback addresses, and the question why one of them failed.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};
use ennead::verdict::{Verdict, Word};

/// Patience with a machine that may be busy with other tests.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);
/// What an operator is promised.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Real {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    dir: tempfile::TempDir,
}

impl Real {
    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.dir.path().join("cluster/data").join(self.cluster.names()[index].to_string())
    }

    /// Asks a machine for a fault, or for another kind of it: see `ennead::faults`.
    pub(crate) fn ask_for(&self, index: usize, fault: &str, how: &str) {
        std::fs::write(self.data(index).join(fault), how).expect("a file");
    }

    /// Takes that back.
    pub(crate) fn heal(&self, index: usize, fault: &str) {
        std::fs::remove_file(self.data(index).join(fault)).expect("a file");
    }
}

/// Real processes on 127.0.`net`.`host` and on.
pub(crate) async fn real(net: u8, host: u8, peers: usize, flags: &[&str]) -> Real {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(peers),
        base: Base::at(Ipv4Addr::new(127, 0, net, host), 9595),
        flags: [&["--test-faults"], flags].concat().into_iter().map(String::from).collect(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("processes");
    cluster.wait_until_up(START_WITHIN).await.expect("peers up");
    let client = cluster.client(Duration::from_secs(2)).await.expect("a client");
    Real { cluster, client, dir }
}

/// Asks until the verdict is as wanted.
pub(crate) async fn until_it(
    client: &Client,
    name: Name,
    within: Duration,
    what: &str,
    wanted: impl Fn(&Verdict) -> bool,
) -> Verdict {
    let asked = Instant::now();
    loop {
        let verdict = client.why(name).await.expect("a view");
        if wanted(&verdict) {
            eprintln!("{what} after {:?}: {}", asked.elapsed(), verdict.sentence);
            return verdict;
        }
        assert!(asked.elapsed() < within, "not {what} after {:?}: {verdict:#?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks until this is what is wrong with it now, or what happened to it last.
pub(crate) async fn until(client: &Client, name: Name, word: Word, within: Duration) -> Verdict {
    until_it(client, name, within, word.word(), |verdict| verdict.word == Some(word)).await
}

/// Asks until nothing is wrong with it any more.
pub(crate) async fn until_well(client: &Client, name: Name, within: Duration) -> Verdict {
    until_it(client, name, within, "well", |verdict| verdict.up && !verdict.lasts()).await
}

/// Asks until this is what happened to it last, and is over.
pub(crate) async fn until_over(client: &Client, name: Name, word: Word, within: Duration) -> Verdict {
    until_it(client, name, within, "over", |verdict| verdict.word == Some(word) && verdict.until_ms.is_some())
        .await
}
