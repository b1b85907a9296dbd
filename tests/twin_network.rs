//! The duplicated container: two machines in networks of their own carry one IP address, on one cable so to speak, and
//! copies of one certificate. The network leads now to one of them and now to the other (V6).

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

mod folders;
#[allow(dead_code, reason = "another test uses the rest")]
mod namespaces;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ennead::client::{Client, ClientOptions};
use namespaces::{Inside, Networks, ip, make_certificates, name, of, start, start_as};

const PEERS: u8 = 5;
/// Whom there are two of, and where the second one is.
const TWO: u8 = 3;
const SECOND: u8 = PEERS + 1;
const START_WITHIN: Duration = Duration::from_secs(60);
/// Within how long the second one is to end: it needs two calls.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Six machines at once are enough for two processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn in_namespaces(test: &str) {
    let _alone = ONE_AT_A_TIME.lock();
    match Networks::make(SECOND) {
        Ok(networks) => networks.run(test),
        Err(why) => eprintln!("SKIPPED: no network namespaces here, so nothing was tested: {why}"),
    }
}

#[test]
fn v6_a_duplicated_container_is_refused_and_ends_and_the_first_goes_on() {
    in_namespaces("a_copy_of_all");
}

#[test]
fn v6_a_container_with_a_copied_certificate_and_an_empty_disk_does_not_drive_the_first_out() {
    in_namespaces("a_copy_of_the_certificate");
}

#[tokio::test]
#[ignore = "another test runs it, in namespaces"]
async fn a_copy_of_all() {
    let Some(mut world) = World::begin().await else { return };
    folders::copy(&world.data(TWO), &world.data(SECOND));
    world.second_comes(&[], 3).await;
    world.moves().await;
}

#[tokio::test]
#[ignore = "another test runs it, in namespaces"]
async fn a_copy_of_the_certificate() {
    let Some(mut world) = World::begin().await else { return };
    // Blank, it calls the one that it is to join by.
    world.second_comes(&["--join".to_owned(), name(1).to_string()], 1).await;
}

struct World {
    prefix: String,
    folder: tempfile::TempDir,
    machines: Vec<Option<Inside>>,
    client: Client,
    /// Writes acknowledged: each key's value is the number of the last.
    written: u32,
}

impl World {
    async fn begin() -> Option<Self> {
        let prefix = namespaces::prefix()?;
        let folder = tempfile::tempdir().expect("a folder");
        let certs = folder.path().join("certs");
        make_certificates(&certs, PEERS);
        let machines = (1..=PEERS).map(|i| Some(start(&prefix, folder.path(), i, PEERS))).collect();
        let begun = Instant::now();
        let client = loop {
            match Client::with_options(ClientOptions::new([name(1)], certs.clone())).await {
                Ok(client) if client.put("warm-up", "x").await.is_ok() => break client,
                _ => assert!(begun.elapsed() < START_WITHIN, "the cluster does not serve"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let mut world = Self { prefix, folder, machines, client, written: 0 };
        world.until_well().await;
        world.write_for(Duration::from_secs(2)).await;
        let second = of(&world.prefix, SECOND);
        ip(&format!("-n {second} addr flush dev eth0")).expect("no address");
        ip(&format!("-n {second} addr add 10.197.0.{TWO}/24 dev eth0")).expect("the other's address");
        Some(world)
    }

    fn data(&self, i: u8) -> PathBuf {
        self.folder.path().join(i.to_string())
    }

    fn log(&self, i: u8) -> String {
        fs::read_to_string(self.folder.path().join(format!("{i}.log"))).expect("a log")
    }

    /// The run that has this data directory.
    fn run(&self, i: u8) -> u64 {
        let text = fs::read_to_string(self.data(i).join("run")).expect("a run file");
        let run: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        u64::from_str_radix(run["run"].as_str().expect("a run"), 16).expect("a number")
    }

    /// Pulls or plugs a cable; and all systems forget where addresses are, which takes them up to a minute.
    fn cable(&self, i: u8, state: &str) {
        ip(&format!("-n {}-hub link set v{i} {state}", self.prefix)).expect("a cable");
        for namespace in (1..=SECOND).map(|i| of(&self.prefix, i)).chain([format!("{}-hub", self.prefix)]) {
            ip(&format!("-n {namespace} neigh flush all")).expect("forgotten");
        }
    }

    async fn write(&mut self) {
        self.written += 1;
        let key = format!("key-{}", self.written % 50);
        self.client.put(key, self.written.to_string()).await.expect("a write");
    }

    async fn write_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.write().await;
        }
    }

    async fn read_all(&self) {
        for n in self.written.saturating_sub(49)..=self.written {
            let found = self.client.get(format!("key-{}", n % 50)).await.expect("a read").expect("a value");
            assert_eq!(String::from_utf8_lossy(&found.value), n.to_string());
        }
    }

    /// Until every machine says that it votes for all it owns, and all reach it.
    async fn until_well(&mut self) {
        let begun = Instant::now();
        loop {
            let accounts = self.client.status().await.expect("a view");
            let told: Vec<_> = accounts.iter().filter_map(|(_, account)| account.as_ref().ok()).collect();
            let well = told.iter().filter(|a| a.slots > 0 && a.slots == a.synced_slots);
            let reach = told.iter().all(|a| a.peers.iter().all(|peer| peer.reachable));
            if well.count() == usize::from(PEERS) && reach {
                return eprintln!("all well after {:?}", begun.elapsed());
            }
            assert!(begun.elapsed() < START_WITHIN, "not well: {accounts:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The second one comes, is told why it is not taken, and ends; the first goes on under its name, and clients
    /// notice nothing. So many machines at least say that it came.
    async fn second_comes(&mut self, flags: &[String], told_by: usize) {
        let first = self.run(TWO);
        let begun = Instant::now();
        let mut second = start_as(&self.prefix, self.folder.path(), SECOND, name(TWO), flags);
        let code = loop {
            if let Some(code) = second.ended() {
                break code;
            }
            let log = || self.log(SECOND);
            assert!(begun.elapsed() < ENDS_WITHIN, "it goes on after {:?}:\n{}", begun.elapsed(), log());
            self.write().await;
        };
        eprintln!("the second ended after {:?}", begun.elapsed());
        let log = self.log(SECOND);
        assert!(code == 1 && log.contains("another process lives with the address of"), "{code}: {log}");
        assert!(log.contains("was there before this one"), "{log}");
        // Its container goes, and its address with it.
        self.cable(SECOND, "down");
        let accounts = self.client.status().await.expect("a view");
        let told = accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
        let objections: Vec<&String> = told.flat_map(|account| &account.objections).collect();
        let said = |o: &&&String| o.contains("was heard after you called: two must not share a name");
        assert!(objections.iter().filter(said).count() >= told_by, "{objections:#?}");
        self.write_for(Duration::from_secs(1)).await;
        self.until_well().await;
        self.read_all().await;

        // Nobody has met another than the first, which has run all the time.
        let machine = self.machines[usize::from(TWO) - 1].as_mut().expect("it was not ended");
        assert_eq!((machine.ended(), self.run(TWO)), (None, first), "{}", self.log(TWO));
        let case = self.client.case(name(TWO)).await.expect("a view");
        assert_eq!(case.own.and_then(|told| told.own).map(|own| own.run), Some(first));
        assert_eq!(case.others.len(), usize::from(PEERS) - 1);
        for other in case.others {
            let met: Vec<u64> = other.seen.iter().flat_map(|seen| &seen.runs).map(|met| met.run).collect();
            assert_eq!(met, [first], "{} has met another run", other.by);
        }
    }

    /// The machine is killed, and begins again elsewhere with its own disk: it is no twin, and is taken.
    async fn moves(&mut self) {
        drop(self.machines[usize::from(TWO) - 1].take());
        self.cable(TWO, "down");
        fs::remove_dir_all(self.data(SECOND)).expect("the copy goes");
        fs::rename(self.data(TWO), self.data(SECOND)).expect("its disk");
        self.cable(SECOND, "up");
        self.machines.push(Some(start_as(&self.prefix, self.folder.path(), SECOND, name(TWO), &[])));
        self.until_well().await;
        self.read_all().await;
        let machine = self.machines.last_mut().and_then(Option::as_mut).expect("it was begun");
        assert_eq!(machine.ended(), None, "{}", self.log(SECOND));
    }
}
