//! Machines cut off in networks of their own: who is unreachable, whose host is down, who is on which side.
//!
//! Each machine has a network namespace, with a cable to a bridge in one more, where the asking is done. That needs
//! root on Linux; elsewhere this says so and tests nothing. No packet leaves the namespaces.

#![allow(missing_docs, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::certs::{self, Who};
use ennead::client::{Client, ClientOptions};
use ennead::verdict::{Verdict, Word};

const PEERS: u8 = 5;
const START_WITHIN: Duration = Duration::from_secs(60);
/// The aim is five seconds on a machine that does nothing else; beside other tests, probes are given more time.
const SOON: Duration = Duration::from_secs(10);
/// Set where the asking is done: the beginning of the namespaces' names.
const INSIDE: &str = "ENNEAD_TEST_NAMESPACES";

fn ip(args: &str) -> Result<(), String> {
    let out = Command::new("ip").args(args.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// The namespaces, for as long as this lives.
struct Networks(String);

impl Networks {
    fn make() -> Result<Self, String> {
        let networks = Self(format!("ennead-{}", std::process::id()));
        let hub = networks.hub();
        ip(&format!("netns add {hub}"))?;
        for line in [
            "link set lo up",
            "link add br0 type bridge",
            "addr add 10.197.0.254/24 dev br0",
            "link set br0 up",
        ] {
            ip(&format!("-n {hub} {line}"))?;
        }
        for i in 1..=PEERS {
            let of = of(&networks.0, i);
            ip(&format!("netns add {of}"))?;
            ip(&format!("-n {hub} link add v{i} type veth peer name eth0 netns {of}"))?;
            ip(&format!("-n {hub} link set v{i} master br0 up"))?;
            for line in [
                "link set lo up".to_owned(),
                format!("addr add 10.197.0.{i}/24 dev eth0"),
                "link set eth0 up".to_owned(),
            ] {
                ip(&format!("-n {of} {line}"))?;
            }
        }
        Ok(networks)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.0)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        let all = (1..=PEERS).map(|i| of(&self.0, i)).chain([self.hub()]);
        for namespace in all {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

fn of(prefix: &str, peer: u8) -> String {
    format!("{prefix}-{peer}")
}

/// A program in a namespace; it ends with this.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_is_cut_off_is_told_from_who_is_gone() {
    let networks = match Networks::make() {
        Ok(networks) => networks,
        Err(why) => {
            eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}");
            return;
        }
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &networks.hub()])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "inside_the_namespaces", "--nocapture"])
        .env(INSIDE, &networks.0)
        .status();
    assert!(status.expect("ip netns exec").success(), "see above");
}

fn name(i: u8) -> Name {
    Name::new(SocketAddr::new(Ipv4Addr::new(10, 197, 0, i).into(), 9595))
}

fn start(prefix: &str, dir: &Path, i: u8) -> Inside {
    let others: Vec<String> = (2..=PEERS).map(|i| name(i).to_string()).collect();
    let birth = match i {
        1 => ["--init".to_owned(), format!("--with={}", others.join(","))],
        _ => ["--join".to_owned(), name(1).to_string()],
    };
    let log = std::fs::File::create(dir.join(format!("{i}.log"))).expect("a log");
    let child = Command::new("ip")
        .args(["netns", "exec", &of(prefix, i), env!("CARGO_BIN_EXE_ennead"), "serve", "--die-with-parent"])
        .args(["--listen", &name(i).to_string()])
        .arg("--data")
        .arg(dir.join(i.to_string()))
        .arg("--certs")
        .arg(dir.join("certs"))
        .args(birth)
        .env_remove(INSIDE)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Inside(child.expect("ip netns exec"))
}

fn iptables(prefix: &str, i: u8, args: &str) {
    let namespace = of(prefix, i);
    let words = ["netns", "exec", &namespace, "iptables", "-w"].into_iter().chain(args.split(' '));
    let out = Command::new("ip").args(words).output().expect("iptables");
    assert!(out.status.success(), "iptables {args}: {}", String::from_utf8_lossy(&out.stderr));
}

async fn until(client: &Client, name: Name, words: &[Option<Word>], within: Duration) -> Verdict {
    let asked = Instant::now();
    loop {
        let verdict = client.why(name).await.expect("a view");
        if words.contains(&verdict.word) {
            eprintln!("{:?} after {:?}: {}", verdict.word, asked.elapsed(), verdict.sentence);
            return verdict;
        }
        assert!(asked.elapsed() < within, "not {words:?} after {:?}: {verdict:#?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "who_is_cut_off_is_told_from_who_is_gone runs it, in namespaces"]
async fn inside_the_namespaces() {
    let Ok(prefix) = std::env::var(INSIDE) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let dir: PathBuf = folder.path().to_owned();
    let certs = dir.join("certs");
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Client("test".into())).expect("a certificate");
    for i in 1..=PEERS {
        certs::issue(&certs, &Who::Peer(name(i))).expect("a certificate");
    }
    let peers: Vec<Inside> = (1..=PEERS).map(|i| start(&prefix, &dir, i)).collect();
    let begun = Instant::now();
    let client = loop {
        let client = Client::with_options(ClientOptions::new([name(1)], certs.clone())).await;
        match client {
            Ok(client) if client.put("warm-up", "x").await.is_ok() => break client,
            _ => assert!(begun.elapsed() < START_WITHIN, "the cluster does not serve"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for i in 1..=PEERS {
        until(&client, name(i), &[None], SOON).await;
    }

    // Machines that have just started trust their own clockwork little, and wait longer for answers.
    tokio::time::sleep(Duration::from_secs(5)).await;

    // Every packet to it is dropped: the host cannot say a word.
    iptables(&prefix, 2, "-P INPUT DROP");
    until(&client, name(2), &[Some(Word::Unreachable)], SOON).await;
    iptables(&prefix, 2, "-P INPUT ACCEPT");
    until(&client, name(2), &[None], START_WITHIN).await;

    // It and two others hear nothing of each other; all else works.
    for other in [1, 2] {
        iptables(&prefix, 4, &format!("-A INPUT -s 10.197.0.{other} -j DROP"));
        iptables(&prefix, 4, &format!("-A OUTPUT -d 10.197.0.{other} -j DROP"));
    }
    let mut verdict = until(&client, name(4), &[Some(Word::Partitioned)], SOON).await;
    let begun = Instant::now();
    let sides = "10.197.0.1, 10.197.0.2 get no answer from it; 10.197.0.3, 10.197.0.5 reach it";
    while !verdict.sentence.contains(sides) {
        assert!(begun.elapsed() < START_WITHIN, "{verdict:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        verdict = client.why(name(4)).await.expect("a view");
    }
    iptables(&prefix, 4, "-F");
    until(&client, name(4), &[None], START_WITHIN).await;

    // The cable is pulled. Without what they remember of the host's hardware address, which they do for up to a minute,
    // the others' systems find out in three seconds that there is no such host.
    ip(&format!("-n {prefix}-hub link set v3 down")).expect("a cable");
    for i in (1..=PEERS).filter(|i| *i != 3) {
        ip(&format!("-n {} neigh flush all", of(&prefix, i))).expect("forgotten");
    }
    until(&client, name(3), &[Some(Word::Unreachable), Some(Word::HostDown)], SOON).await;
    until(&client, name(3), &[Some(Word::HostDown)], Duration::from_secs(25)).await;
    drop(peers);
}
