//! Why a machine failed, word by word, on real processes: too much asked of it, its clock, its version, its disk; and
//! that it left.

#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod real;

use std::time::{Duration, Instant};

use ennead::verdict::Word;
use ennead_ring::message::Wish;
use real::{SOON, START_WITHIN, real, until, until_it, until_over, until_well};

/// The version of the wire that this program speaks.
fn wire() -> &'static str {
    std::str::from_utf8(ennead::wire::ALPN).expect("text")
}

#[tokio::test]
async fn a_machine_that_refuses_requests_is_overloaded_and_says_so_when_it_is_over() {
    // Room for two of these values.
    let three = real(133, 1, 3, &["--request-memory", "64KiB"]).await;
    let name = three.cluster.names()[0];
    until_well(&three.client, name, SOON).await;
    let crowd: Vec<_> = (0..60)
        .map(|i| {
            let client = three.client.clone();
            tokio::spawn(async move {
                for n in 0u64.. {
                    // Some are refused: that is what this is about.
                    let _ = client.put(format!("k{i}-{n}"), vec![7; 24 << 10]).await;
                }
            })
        })
        .collect();
    let verdict = until(&three.client, name, Word::Overloaded, SOON).await;
    assert!(verdict.up && verdict.lasts() && verdict.sentence.contains("it refused"), "{verdict:#?}");
    // Longer than a hiccup.
    tokio::time::sleep(Duration::from_secs(4)).await;
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    let verdict = until_over(&three.client, name, Word::Overloaded, START_WITHIN).await;
    assert!(
        verdict.at_ms < verdict.until_ms && verdict.sentence.contains("requests refused"),
        "{verdict:#?}"
    );
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_named_with_by_how_much_and_the_others_are_not_blamed() {
    let mut five = real(133, 11, 5, &[]).await;
    let names = five.cluster.names();
    for (ms, said) in [("-90000", "90 s behind the others'"), ("3600000", "60 min ahead of the others'")] {
        five.cluster.terminate(1).await;
        five.ask_for(1, "clock-off", ms);
        five.cluster.start(1).expect("a process");
        five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
        let verdict = until(&five.client, names[1], Word::Clock, SOON).await;
        assert!(verdict.up && verdict.lasts() && verdict.sentence.contains(said), "{verdict:#?}");
        for other in [names[0], names[2], names[3], names[4]] {
            until_well(&five.client, other, SOON).await;
        }
        // Nobody has to ask: it is in the log of whoever noticed.
        let noticed = |index: usize| {
            let log = std::fs::read_to_string(five.cluster.log(index)).unwrap_or_default();
            log.contains("its clock and this machine's are far apart")
        };
        let begun = Instant::now();
        while ![0, 2, 3, 4].into_iter().all(noticed) {
            assert!(begun.elapsed() < START_WITHIN, "not noticed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    five.cluster.terminate(1).await;
    five.heal(1, "clock-off");
    five.cluster.start(1).expect("a process");
    five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    until_well(&five.client, names[1], START_WITHIN).await;
}

#[tokio::test]
async fn a_machine_of_another_version_is_upgraded_if_it_is_understood_and_incompatible_if_not() {
    let mut three = real(133, 21, 3, &[]).await;
    let (name, client) = (three.cluster.names()[2], three.client.clone());
    let (ours, wire) = (env!("CARGO_PKG_VERSION"), wire());

    three.cluster.terminate(2).await;
    three.ask_for(2, "program", "9.9.9");
    three.cluster.start(2).expect("a process");
    three.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let verdict = until(&client, name, Word::Upgraded, SOON).await;
    assert!(verdict.sentence.contains(&format!("upgraded from {ours} to 9.9.9")), "{verdict:#?}");
    assert!(!verdict.lasts() && verdict.earlier[0].word == Word::Exit, "{verdict:#?}");
    let met = |line: &String| line.contains(&format!("after a farewell, version 9.9.9 instead of {ours}"));
    assert!(verdict.evidence.iter().any(met), "{verdict:#?}");

    // After a kill, too: then that is what happened before it.
    three.cluster.kill(2);
    three.ask_for(2, "program", "9.9.10");
    three.cluster.start(2).expect("a process");
    three.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let from_9 = |verdict: &ennead::verdict::Verdict| verdict.sentence.contains("from 9.9.9 to 9.9.10");
    let verdict = until_it(&client, name, START_WITHIN, "upgraded", from_9).await;
    assert_eq!(verdict.earlier[0].word, Word::Killed, "{verdict:#?}");

    three.cluster.terminate(2).await;
    three.ask_for(2, "wire", "ennead/99");
    three.cluster.start(2).expect("a process");
    let verdict = until(&client, name, Word::Incompatible, SOON).await;
    let said = format!("I speak ennead/99 (program 9.9.10), you {wire} (program {ours})");
    assert!(!verdict.up && verdict.sentence.contains(&said), "{verdict:#?}");

    three.cluster.kill(2);
    three.heal(2, "wire");
    three.cluster.start(2).expect("a process");
    three.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    until_well(&client, name, START_WITHIN).await;
}

#[tokio::test]
async fn a_machine_whose_disk_fails_ends_with_that_reason_and_still_says_so_when_it_is_back() {
    let mut five = real(133, 31, 5, &[]).await;
    let (name, client) = (five.cluster.names()[4], five.client.clone());
    five.ask_for(4, "failing-disk", "");
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0u64.. {
                let _ = client.put(format!("k{}", n % 50), "x").await;
            }
        }
    });
    let verdict = until(&client, name, Word::DiskFailed, SOON).await;
    writer.abort();
    assert!(!verdict.up && verdict.lasts(), "{verdict:#?}");
    let report = verdict.report.expect("its last words");
    assert!(report.message.contains("asked to fail by a test"), "{report:#?}");
    // Its last words come first.
    let said = Instant::now();
    while five.cluster.is_running(4) {
        assert!(said.elapsed() < SOON, "after a failed fsync nobody knows what is on disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    five.heal(4, "failing-disk");
    five.cluster.start(4).expect("a process");
    five.cluster.wait_until_up(START_WITHIN).await.expect("all again");
    let verdict = until_over(&client, name, Word::DiskFailed, START_WITHIN).await;
    assert!(verdict.up && verdict.report.is_some_and(|r| r.id == report.id));
}

#[tokio::test]
async fn a_machine_that_left_has_left_and_did_not_fail() {
    let mut five = real(133, 41, 5, &[]).await;
    let (name, client) = (five.cluster.names()[3], five.client.clone());
    let view = client.view().await.expect("a view");
    let member = view.members().iter().find(|m| m.machine.name == name).expect("a member");
    let (machine, begun) = (member.machine, Instant::now());
    while client.view().await.is_ok_and(|view| view.has(machine)) {
        // Said again until it is so.
        let _ = client.wish(Wish::Leave { machine }).await;
        assert!(begun.elapsed() < START_WITHIN, "it does not get away");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let verdict = until(&client, name, Word::Left, SOON).await;
    assert!(verdict.sentence.contains("handed its data over and left"), "{verdict:#?}");
    while five.cluster.is_running(3) {
        assert!(begun.elapsed() < START_WITHIN, "it does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let verdict = until(&client, name, Word::Left, SOON).await;
    assert!(!verdict.up && verdict.at_ms.is_some(), "{verdict:#?}");
}
