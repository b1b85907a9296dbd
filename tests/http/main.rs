//! HTTP of real processes: health, metrics, status and the data, with machines dead, and whatever callers do.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

mod alerts;
mod ask;
mod bounds;
mod browser;
mod health;
mod kv;
mod metrics;
mod page;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};

use ask::{Answer, get};

/// Patience with a machine that may be busy with other tests.
const START_WITHIN: Duration = Duration::from_secs(60);

struct Real {
    cluster: Cluster,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Real {
    /// Where peer `index` answers HTTP: its address, port one higher.
    fn http(&self, index: usize) -> SocketAddr {
        let listen = self.cluster.names()[index].address();
        SocketAddr::new(listen.ip(), listen.port() + 1)
    }
}

/// Real processes on 127.0.136.`first` and on.
async fn real(first: u8, peers: usize, flags: &[&str]) -> Real {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(peers),
        base: Base::at(Ipv4Addr::new(127, 0, 136, first), 9595),
        flags: flags.iter().map(ToString::to_string).collect(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("processes");
    cluster.wait_until_up(START_WITHIN).await.expect("peers up");
    let client = cluster.client(Duration::from_secs(2)).await.expect("a client");
    Real { cluster, client, _dir: dir }
}

/// Asks until the answer is as wanted.
async fn until(at: SocketAddr, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = get(at, path).await;
        match answer {
            Ok(answer) if wanted(&answer) => return answer,
            answer => assert!(begun.elapsed() < START_WITHIN, "{at}{path}: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
