//! Five of nine machines are lost for good, and an operator says so (F2).

#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ennead::client::Error;
use ennead::cluster::{Base, Cluster, Options};

/// Patience with machines that may be busy with other tests.
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn four_of_nine_go_on_once_an_operator_has_forced_the_others_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(9),
        base: Base::at(Ipv4Addr::new(127, 0, 96, 1), 9595),
        flags: Vec::new(),
    };
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("nine processes");
    cluster.wait_until_up(WITHIN).await.expect("nine peers up");
    let client = cluster.client(Duration::from_secs(3)).await.expect("a client");
    for n in 0..100 {
        client.put(format!("key-{n}"), format!("value-{n}")).await.expect("a write");
    }
    // Whatever was acknowledged by five is brought to all nine.
    client.check().await.expect("nine answers");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let view = client.view().await.expect("a view");
    let names = cluster.names();
    let machine = |i: usize| view.members()[view.index_of(names[i]).expect("a member")].machine;
    let (survivor, lost) = (names[0], (4..9).map(machine).collect::<Vec<_>>());

    let alive = client.force(survivor, lost.clone()).await;
    assert!(matches!(&alive, Err(Error::Refused(why)) if why.contains("answers")), "{alive:?}");

    (4..9).for_each(|i| cluster.kill(i));
    for i in 5..9 {
        fs::remove_dir_all(cluster.data(i)).expect("its data are gone");
    }
    let stuck = client.put("stuck", "nobody").await;
    assert!(stuck.is_err(), "{stuck:?}");

    let asked = Instant::now();
    loop {
        match client.force(survivor, lost.clone()).await {
            Ok(()) => break,
            // They have only just died.
            Err(Error::Refused(why)) if why.contains("answers") => {}
            Err(error) => panic!("{error}"),
        }
        assert!(asked.elapsed() < WITHIN, "they are still believed alive");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Again, as a tool does that has not heard: nothing more happens.
    client.force(survivor, lost.clone()).await.expect("it was done");
    let asked = Instant::now();
    let mut n = 0;
    while n < 100 {
        match client.get(format!("key-{n}")).await {
            Ok(found) => {
                assert_eq!(&found.expect("a value").value[..], format!("value-{n}").as_bytes());
                n += 1;
            }
            Err(error) => assert!(asked.elapsed() < WITHIN, "key-{n}: {error}"),
        }
    }
    for n in 0..100 {
        client.put(format!("key-{n}"), "new").await.expect("a write");
    }
    let view = client.view().await.expect("a view");
    assert_eq!((view.epoch().generation, view.members().len(), view.forced_out().len()), (1, 4, 5));

    // One of the lost is found after all, with its data: it comes back as another machine.
    cluster.start(4).expect("a process");
    let asked = Instant::now();
    loop {
        cluster.supervise();
        let view = client.view().await.expect("a view");
        if let Some(i) = view.index_of(names[4])
            && view.members()[i].machine.incarnation != lost[0].incarnation
        {
            break;
        }
        let log = fs::read_to_string(cluster.log(4)).unwrap_or_default();
        assert!(asked.elapsed() < WITHIN, "{log}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = fs::read_to_string(cluster.log(4)).expect("a log");
    assert!(log.contains("forced out of the cluster"), "{log}");
    for n in 0..100 {
        let found = client.get(format!("key-{n}")).await.expect("a read").expect("a value");
        assert_eq!(&found.value[..], b"new");
    }
    cluster.stop().await;
}
