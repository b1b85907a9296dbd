//! A machine whose disk forgot something comes back as another, by itself (R2).

#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};
use ennead::status::MachineStatus;

/// Patience with a machine that may be busy with other tests.
const WITHIN: Duration = Duration::from_secs(60);

/// What this machine says of itself, once it votes for all that it owns and `fits`.
async fn synced(client: &Client, name: ennead::Name, fits: impl Fn(&MachineStatus) -> bool) -> MachineStatus {
    let asked = Instant::now();
    loop {
        let accounts = client.status().await;
        let said = accounts.ok().into_iter().flatten().find(|(n, _)| *n == name);
        if let Some((_, Ok(account))) = &said
            && account.slots > 0
            && account.slots == account.synced_slots
            && fits(account)
        {
            return account.clone();
        }
        assert!(asked.elapsed() < WITHIN, "{name}: {said:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_machine_with_a_rotten_journal_joins_again_under_a_new_incarnation_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(3),
        base: Base::at(Ipv4Addr::new(127, 0, 97, 1), 9595),
        flags: Vec::new(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("three processes");
    cluster.wait_until_up(WITHIN).await.expect("three peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    for n in 0..200 {
        client.put(format!("key-{n}"), format!("value-{n}")).await.expect("a write");
    }
    let (victim, name) = (2, cluster.names()[2]);
    let was = synced(&client, name, |_| true).await;
    cluster.kill(victim);

    let path = cluster.data(victim).join("journal/000001");
    let mut journal = fs::read(&path).expect("a journal");
    let end = journal.iter().rposition(|&b| b != 0).expect("entries");
    journal[end / 2..end / 2 + 512].fill(0);
    fs::write(&path, journal).expect("a rotten journal");
    cluster.start(victim).expect("a process");

    let is = synced(&client, name, |is| is.machine.incarnation != was.machine.incarnation).await;
    assert!(is.epoch > was.epoch, "{} and then {}", was.epoch, is.epoch);
    let log = fs::read_to_string(cluster.log(victim)).expect("a log");
    assert!(log.contains("the data directory is damaged") && log.contains("entry"), "{log}");
    let data = fs::read_dir(cluster.data(victim)).expect("its data");
    let names = data.map(|item| item.expect("an item").file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name.starts_with("damaged-")).count(), 1);
    // It is as good as any other: another may be lost now.
    cluster.kill(0);
    for n in 0..200 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], format!("value-{n}").as_bytes());
        client.put(format!("key-{n}"), "new").await.expect("a write");
    }
    cluster.stop().await;
}
