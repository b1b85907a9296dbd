//! Crash reports of real machines: what is in them, how they come into the ring, and who reads them.
#![allow(clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod nine;

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use nine::Nine;
use serde_json::Value;

/// What a machine says in its log when it put another's report into the ring.
const HEARD: &str = "its last words are in the ring";
/// More than a machine bears within a minute.
const TOO_MANY: u32 = 9;

/// Makes the next fsyncs of a machine panic.
fn break_disk(three: &Nine, index: usize, times: u32) {
    fs::write(three.cluster.data(index).join("panics"), times.to_string()).expect("a file");
}

/// Waits until it has ended by itself.
async fn until_it_has_ended(three: &mut Nine, index: usize) {
    let begun = Instant::now();
    while three.cluster.is_running(index) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
        // Something to write, if there are machines to write it to.
        let _ = tokio::time::timeout(Duration::from_millis(50), three.client.put("k", "v")).await;
    }
}

/// The reports of a machine, newest first, of which there are so many, asked at these others.
fn reports(three: &Nine, of: usize, at: &[usize], count: usize) -> Vec<Value> {
    let (of, at) = (three.name(of), at.iter().map(|i| three.name(*i)).collect::<Vec<_>>().join(","));
    three.until("all of its crash reports", |three| {
        let told = three.command(&["crashes", &of, "--json", "--peers", &at]).output().expect("a run");
        let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
        let found = told["crashes"].as_array().cloned().unwrap_or_default();
        // A report is told at once, and again when the names of its backtrace have been found.
        let whole = found.iter().all(|r| r["backtrace"].as_str().is_some_and(|trace| !trace.is_empty()));
        let brief = |r: &Value| format!("{} {}: {}", r["kind"], r["id"], r["message"]);
        let brief: Vec<String> = found.iter().map(brief).collect();
        if found.len() == count && whole { Ok(found) } else { Err(format!("whole: {whole}, {brief:#?}")) }
    })
}

/// Everything that a person who looks for the bug needs is in it.
fn assert_complete(report: &Value, machine: &str, incarnation: &str) {
    for (field, wanted) in [
        ("cause", "panic"),
        ("message", "asked to panic by a test"),
        ("part", "storage writer"),
        ("thread", "storage-writer"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("machine", machine),
        ("incarnation", incarnation),
    ] {
        assert!(report[field].as_str().is_some_and(|said| said.contains(wanted)), "{field}: {report:#}");
    }
    assert!(report["location"].as_str().is_some_and(|at| at.contains("src/storage/disk.rs:")), "{report:#}");
    assert!(
        report["backtrace"].as_str().is_some_and(|trace| trace.contains("ennead::storage")),
        "{report:#}"
    );
    assert!(report["log"].as_array().is_some_and(|log| !log.is_empty()), "{report:#}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_millis() as u64;
    let (up, at) = (report["uptime_ms"].as_u64().expect("a number"), report["at_ms"].as_u64().expect("one"));
    assert!((1..300_000).contains(&up) && (now - 300_000..=now).contains(&at), "{report:#}");
}

/// Three machines: a part of one panics and is begun again; it is killed with nobody there to hear of it, and returns; and
/// another dies for good.
#[tokio::test]
async fn crash_reports_are_whole_and_are_read_when_their_machine_is_back_or_never_is() {
    let mut three = Nine::of(3, &["--patience", "1h", "--test-faults"], 0, 151, "k").await;
    let (second, third) = (three.name(1), three.name(2));
    let status = three.json(0, &["status"]);
    assert_eq!(status["machines"][1]["crash_report"], Value::Null, "{status:#}");

    break_disk(&three, 1, 2);
    three.client.put("k", "v").await.expect("two go on");
    let told = reports(&three, 1, &[0, 2], 2);
    let incarnation = told[0]["incarnation"].as_str().expect("an incarnation").to_owned();
    assert!(!incarnation.is_empty());
    told.iter().for_each(|report| {
        assert_complete(report, &second, &incarnation);
        assert_eq!(report["kind"], "panic");
    });
    let restarts = |report: &Value| report["restarts"].as_u64().expect("a number");
    assert_eq!(restarts(&told[1]), 0, "{:#}", told[1]);
    assert!(restarts(&told[0]) > 0 && told[0]["uptime_ms"].as_u64() > told[1]["uptime_ms"].as_u64());
    // What was logged between the two is in the second.
    let logs = |report: &Value| report["log"].to_string().contains("a part of this node died");
    assert!(!logs(&told[1]) && logs(&told[0]), "{told:#?}");
    let (text, code) = three.told(&["crashes", &second]);
    assert_eq!(code, 0);
    for word in [
        &format!("of {second}, "),
        "a part panicked and was begun again\n  asked to panic by a test\n  in the storage writer",
        &format!("version {}, up for ", env!("CARGO_PKG_VERSION")),
        ", 0 restarts of its parts before",
        "\n  backtrace (",
        "\n  log (",
    ] {
        assert!(text.contains(word), "{word:?}: {text}");
    }
    let (all, code) = three.told(&["crashes"]);
    let lines: Vec<&str> = all.lines().collect();
    assert!(code == 0 && lines.len() == 3 && lines[0].starts_with("MACHINE"), "{all}");
    assert!(lines[1].contains("panic  storage writer  asked to panic by a test"), "{all}");

    // It panics where nobody hears of it, and is killed. Those who are back know nothing of that, until it is.
    let key = (0..).map(|n| format!("led-{n}"));
    let key = stream::iter(key).filter_map(async |key| {
        let slots = three.client.locate(&key).await.expect("slots");
        (slots[0].owner.to_string() == second).then_some(key)
    });
    let key = std::pin::pin!(key).next().await.expect("it is the first to be asked for some key");
    three.client.put(&key, "led").await.expect("all are there");
    three.cluster.kill(0);
    three.cluster.kill(2);
    break_disk(&three, 1, 1);
    let untold = || {
        let files = fs::read_dir(three.cluster.data(1).join("crashes")).expect("a folder");
        let files = files.map(|file| file.expect("a file").path());
        let mut files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let report: Value = serde_json::from_slice(&fs::read(files.next()?).ok()?).ok()?;
        report["backtrace"].as_str().is_some_and(|trace| !trace.is_empty()).then_some(report)
    };
    let begun = Instant::now();
    let untold = loop {
        // Its own copy is written to its disk: it leads the key.
        let _ = tokio::time::timeout(Duration::from_millis(100), three.client.put(&key, "led")).await;
        match untold() {
            Some(report) => break report,
            None => assert!(begun.elapsed() < Duration::from_secs(60), "nothing is put down"),
        }
    };
    three.cluster.kill(1);
    for index in [0, 2] {
        three.cluster.start(index).expect("a process");
    }
    assert_eq!(reports(&three, 1, &[0, 2], 2), told, "nobody was there to be told");
    three.cluster.start(1).expect("a process");
    assert_eq!(reports(&three, 1, &[0, 2], 3)[0], untold);
    assert_eq!(untold["run"], told[0]["run"], "of its run before");
    for index in [0, 2] {
        let log = fs::read_to_string(three.cluster.log(index)).expect("a log");
        assert!(!log.contains(HEARD), "the machine itself delivers it: {log}");
    }

    // The third ends for good, disk and all, and others tell of it.
    three.until("well", |three| {
        let status = three.told(&["status"]);
        if status.1 == 0 { Ok(()) } else { Err(status.0) }
    });
    break_disk(&three, 2, TOO_MANY);
    until_it_has_ended(&mut three, 2).await;
    fs::remove_dir_all(three.cluster.data(2)).expect("its data");
    let end = three.until("the report of its end", |three| {
        let told = three.command(&["crashes", &third, "--json", "--peers", &three.name(0)]).output();
        let told: Value = serde_json::from_slice(&told.expect("a run").stdout).expect("JSON");
        let ends = told["crashes"].as_array().into_iter().flatten().filter(|report| report["kind"] == "end");
        let ends: Vec<&Value> = ends.collect();
        assert!(ends.len() <= 1, "each heard it, and it is there once: {ends:#?}");
        ends.first().map(|report| (*report).clone()).ok_or_else(|| format!("{told:#}"))
    });
    assert_eq!((&end["machine"], &end["cause"]), (&third.as_str().into(), &"panic".into()));
    assert!(end["backtrace"].as_str().is_some_and(|trace| trace.contains("ennead::storage")), "{end:#}");
    assert!(end["restarts"].as_u64() >= Some(5) && end["log"].as_array().is_some_and(|l| !l.is_empty()));
    let logs = [0, 1].map(|index| fs::read_to_string(three.cluster.log(index)).expect("a log"));
    assert!(logs.iter().any(|log| log.contains(HEARD)), "a neighbour put it there");
    let (status, why) = (three.json(1, &["status"]), three.json(0, &["why", &third]));
    let of_third = &status["machines"][2];
    assert_eq!((&of_third["state"], &of_third["verdict"]), (&"down".into(), &"panic".into()), "{status:#}");
    assert_eq!((&of_third["crash_report"], &why["report"]["id"]), (&end["id"], &end["id"]), "{status:#}");
    let (text, _) = three.told(&["crashes", &third]);
    assert!(text.contains("the machine ended\n") && text.contains("\n  backtrace ("), "{text}");
    three.cluster.stop().await;
}
