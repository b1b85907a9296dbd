//! A machine whose disk forgot something comes back as another, by itself (R2); and rot that nobody reads is found.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[path = "membership/copies.rs"]
mod copies;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
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

async fn three(dir: &Path, host: u8, flags: &[&str]) -> (Cluster, Client) {
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.join("cluster"),
        peers: Some(3),
        base: Base::at(Ipv4Addr::new(127, 0, 97, host), 9595),
        flags: flags.iter().map(ToString::to_string).collect(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("three processes");
    cluster.wait_until_up(WITHIN).await.expect("three peers up");
    let client = cluster.client(Duration::from_secs(5)).await.expect("a client");
    (cluster, client)
}

#[tokio::test]
async fn a_machine_with_a_rotten_journal_joins_again_under_a_new_incarnation_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cluster, client) = three(dir.path(), 1, &[]).await;
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

/// Files of a machine's ordered store with records in them.
fn tables(cluster: &Cluster, index: usize) -> Vec<PathBuf> {
    let tables = fs::read_dir(cluster.data(index).join("records/tables")).into_iter().flatten();
    tables.map(|table| table.expect("an item").path()).collect()
}

fn size(table: &Path) -> u64 {
    fs::metadata(table).map_or(0, |table| table.len())
}

/// Nobody reads the record, and nobody runs `kvctl check`: the comparison that machines make by themselves meets it. What
/// else is in that part of the disk nobody knows, so the machine ends, and whoever starts it again has its copies back.
#[tokio::test]
async fn rot_that_nobody_reads_is_met_by_the_comparison_and_mended() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cluster, client) = three(dir.path(), 11, &["--check-every", "2s", "--patience", "1h"]).await;
    let (victim, name) = (1, cluster.names()[1]);
    let was = synced(&client, name, |_| true).await;
    // More than stays in memory, so that some of it is in the ordered store. Noise: nothing that is pressed together.
    let noise: Vec<u8> = (0..64 << 10).map(|_| rand::random()).collect();
    let value = |n: usize| [format!("value-{n} ").as_bytes(), &noise].concat();
    let key = |n: usize| format!("key-{n:03}");
    let mut keys = Vec::new();
    let begun = Instant::now();
    while tables(&cluster, victim).is_empty() {
        let some: Vec<usize> = (keys.len()..keys.len() + 32).collect();
        let put = client.put_many(some.iter().map(|n| (key(*n), value(*n)))).await;
        assert!(put.iter().all(Result::is_ok), "{put:?}");
        keys.extend(some.into_iter().map(key));
        assert!(begun.elapsed() < WITHIN, "no table of {} values", keys.len());
    }
    // Until it is written.
    let mut sizes = BTreeMap::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = tables(&cluster, victim).into_iter().map(|table| (size(&table), table)).collect();
        if sizes == now && now.keys().any(|size| *size > 0) {
            break;
        }
        sizes = now;
        assert!(begun.elapsed() < WITHIN, "no table is complete: {sizes:?}");
    }
    cluster.kill(victim);
    // The middle of the largest is within somebody's value.
    let (_, table) = sizes.pop_last().expect("a table");
    let mut bytes = fs::read(&table).expect("a table");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    fs::write(&table, bytes).expect("a rotten table");
    let rotten = Instant::now();
    cluster.start(victim).expect("a process");

    // As `ennead dev` and systemd do: what ends is started again.
    let after = loop {
        cluster.supervise();
        let accounts = client.status().await.unwrap_or_default();
        let said = accounts.into_iter().find(|(n, _)| *n == name).and_then(|(_, account)| account.ok());
        if let Some(account) = said
            && account.machine.incarnation != was.machine.incarnation
            && account.slots > 0
            && account.slots == account.synced_slots
        {
            break account;
        }
        let log = fs::read_to_string(cluster.log(victim)).unwrap_or_default();
        assert!(rotten.elapsed() < WITHIN, "nobody met the rot: {log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(after.epoch > was.epoch);
    let whole = copies::until_all_are_whole(&client, &keys, WITHIN).await;
    eprintln!(
        "{} values of 64 KiB: all copies whole {:?} after the rot, {whole:?} of it to see that",
        keys.len(),
        rotten.elapsed()
    );
    let log = fs::read_to_string(cluster.log(victim)).expect("a log");
    assert!(log.contains("looking through the records failed"), "it was the comparison that met it: {log}");
    // They are as good as any other: another machine may be lost now.
    cluster.kill(0);
    for (n, key) in keys.iter().enumerate() {
        let found = client.get(key).await.expect("a read").expect("a value");
        assert!(found.value.starts_with(format!("value-{n} ").as_bytes()), "{key}");
    }
    cluster.stop().await;
}
