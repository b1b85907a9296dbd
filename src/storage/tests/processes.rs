//! One process at a time, and whatever it acknowledged outlives its being killed.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ennead_ring::{Change, Loaded};

use super::{Rig, error, limits, put, record, small};
use crate::storage::Options;

/// This program again, as another process: see [`other_process`].
fn child(task: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "storage::tests::processes::other_process", "--nocapture"])
        .env("STORAGE_TEST_TASK", task)
        .env("STORAGE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// What the tests start as another process; by itself it does nothing.
#[test]
fn other_process() {
    let (Some(task), Some(dir)) =
        (std::env::var_os("STORAGE_TEST_TASK"), std::env::var_os("STORAGE_TEST_DIR"))
    else {
        return;
    };
    let say = |text: String| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    let opened = Rig::open(Path::new(&dir), small());
    let mut rig = match opened {
        Err(e) => return say(format!("REFUSED {e}")),
        Ok(_) if task == "open" => return say("OPENED".to_owned()),
        Ok(rig) => rig,
    };
    // Writes for ever, in order, and tells what was acknowledged; to be killed.
    let mut n = rig.restored.limits.ceiling.nanos() as u32;
    loop {
        for _ in 0..7 {
            n += 1;
            rig.persist(put(n % 900, n));
            rig.persist(Change::Limits(limits(u64::from(n))));
        }
        rig.settle().unwrap();
        say(format!("ACKED {n}"));
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path(), Options::default()).unwrap();
    let refused = error(Rig::open(dir.path(), Options::default())).to_string();
    let me = std::process::id();
    assert!(refused.contains(&format!("in use by another process (pid {me})")), "{refused}");
    let child = child("open", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains(&format!("REFUSED {}: in use by another", dir.path().display())), "{told}");
    rig.storage.close();
    let child = self::child("open", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains("OPENED"), "{told}");
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let mut process = child("write", dir.path()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acked = 0;
        let mut hear = |line: String| {
            if let Some((_, n)) = line.split_once("ACKED ") {
                acked = n.parse().unwrap();
            }
        };
        for _ in 0..10 + round * 37 {
            hear(lines.next().unwrap().unwrap());
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // Half a line is no acknowledgement.
        lines.map_while(Result::ok).filter(|line| line.starts_with("ACKED")).for_each(hear);
        let mut rig = Rig::open(dir.path(), small()).unwrap();
        let upto = rig.restored.limits.ceiling.nanos() as u32;
        assert!(upto >= acked, "round {round}: {acked} was acknowledged, {upto} is there");
        for n in upto.saturating_sub(899)..=upto {
            match rig.get(n % 900) {
                // The record before the limits that were lost with the rest of its group may be there.
                Loaded::Record(found) => assert!(found == record(n, 50) || found.stamp.n > upto, "{n}"),
                other => assert!(n == 0, "round {round}: key-{n}: {other:?}"),
            }
        }
        rig.storage.close();
    }
}
