//! Changes of a ring of real machines: planned, which changes nothing; carried out as planned; and watched while they last.
#![allow(clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "another test uses the rest")]
mod nine;

use std::collections::BTreeMap;

use nine::Nine;
use serde_json::Value;

/// A little more than nine machines can hold all of.
const MACHINES: usize = 10;
const KEYS: u64 = 600;
const BYTES: usize = 8 << 10;

/// What `kvctl members` says of each machine: its part of all slots, and records that it holds.
fn members(ten: &Nine) -> (u64, BTreeMap<String, (f64, u64)>) {
    let told = ten.json(0, &["members"]);
    let machines = told["machines"].as_array().expect("machines").iter();
    let of = |m: &Value| {
        let name = m["name"].as_str().expect("a name").to_owned();
        (name, (m["share"].as_f64().unwrap_or(0.0), m["records"].as_u64().unwrap_or(0)))
    };
    (told["epoch"].as_u64().expect("an epoch"), machines.map(of).collect())
}

/// A plan, for a machine that owns a tenth of all slots. Nothing is changed by it.
fn plan(ten: &Nine, verb: &str, name: &str) -> Value {
    let before = members(ten).0;
    let plan = ten.json(0, &[verb, name, "--plan"]);
    let (text, code) = ten.told(&[verb, name, "--plan"]);
    assert_eq!((code, members(ten).0), (0, before), "{verb}: the view is as it was");
    assert_eq!((&plan["machines"], &plan["machines_after"]), (&10.into(), &9.into()), "{plan:#}");
    let keys = plan["keys"].as_u64().expect("a number");
    assert!((KEYS * 9 / 10..=KEYS * 11 / 10).contains(&keys), "{plan:#}");
    // Nine of ten keys have a slot there, and each goes to the one machine that had none of it.
    let records = plan["records_to_copy"].as_u64().expect("a number");
    assert!((KEYS * 3 / 4..=KEYS).contains(&records), "{plan:#}");
    // Others take over all that it owns, and change places besides.
    let flows = plan["flows"].as_array().expect("flows");
    assert!(flows.iter().all(|flow| flow["to"] != name), "{plan:#}");
    let sum = |of: &mut dyn Iterator<Item = &Value>| of.filter_map(|one| one["slots"].as_f64()).sum::<f64>();
    let owned = plan["shares"].as_array().expect("shares").iter().find(|share| share["name"] == name);
    let owned = owned.expect("its share")["slots"].as_f64().expect("a number");
    let given = sum(&mut flows.iter().filter(|flow| flow["from"] == name));
    assert!((0.05..0.2).contains(&owned) && (given - owned).abs() < 1e-9, "{owned} {given}: {plan:#}");
    let moved = plan["slots_moved"].as_f64().expect("a number");
    assert!((sum(&mut flows.iter()) - moved).abs() < 1e-9, "{plan:#}");
    // The same for people: who takes over, and how much.
    let verb = if verb == "leave" { "leaves" } else { "is removed" };
    assert!(text.starts_with(&format!("{name} {verb}: from 10 machines in the ring to 9\n")), "{text}");
    assert!(text.contains(&format!("; about {records} records to copy, of {keys} keys\n")), "{text}");
    for flow in &flows[..9] {
        let (from, to) = (flow["from"].as_str().expect("a name"), flow["to"].as_str().expect("a name"));
        let shown = |line: &str| line.starts_with(&format!("{from} ")) && line.contains(&format!(" {to} "));
        assert!(text.lines().any(shown), "{flow}: {text}");
    }
    plan
}

#[tokio::test]
async fn a_change_is_planned_made_and_watched() {
    let mut ten = Nine::of(MACHINES, &["--patience", "1h"], 0, 161, "k").await;
    let value = "x".repeat(BYTES);
    let put = ten.client.put_many((0..KEYS).map(|n| (format!("k{n}"), &value))).await;
    assert!(put.iter().all(Result::is_ok), "{put:?}");
    let gone = ten.name(9);
    plan(&ten, "leave", &gone);
    // The nine others alone are asked from here on.
    ten.cluster.kill(9);
    ten.until("missed", |ten| match ten.json(1, &["status"])["machines"][9]["state"].as_str() {
        Some("down") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let plan = plan(&ten, "remove", &gone);
    let (_, before) = members(&ten);
    assert!(before.contains_key(&gone), "a plan removes nobody");

    let removed = ten.json(0, &["remove", &gone, "--yes", "--timeout", "60s"]);
    assert_eq!((&removed["outcome"], &removed["machine"]), (&"done".into(), &gone.as_str().into()));
    ten.until("settled", |ten| {
        let status = ten.json(0, &["status"]);
        let all = status["machines"].as_array().expect("machines");
        let voting = all.iter().all(|m| m["synced_slots"] == m["slots"]);
        if status["settled"] == true && voting { Ok(()) } else { Err(format!("{status:#}")) }
    });
    let (_, after) = members(&ten);
    let planned = plan["shares"].as_array().expect("shares");
    for share in planned.iter().filter(|share| share["name"] != gone.as_str()) {
        let (is, _) = after[share["name"].as_str().expect("a name")];
        let was_to_be = share["slots_after"].as_f64().expect("a number");
        assert!((is - was_to_be).abs() < 1e-9, "{share}: {is}");
    }
    assert_eq!(after.len(), 9, "{after:?}");
    let held = |of: &BTreeMap<String, (f64, u64)>| of.values().map(|(_, records)| records).sum::<u64>();
    let (copied, planned) = (held(&after) - held(&before), plan["records_to_copy"].as_u64().expect("one"));
    eprintln!("planned: {planned} records to copy; copied: {copied}");
    assert!(copied.abs_diff(planned) <= planned / 8, "{copied} of {planned} records");

    // One comes in, slowly.
    let (_joiner, name) = ten.join(&["--move-rate", "64KiB"]);
    let moving = |ten: &Nine, fits: fn(&Value) -> bool| {
        ten.until("on its way as wanted", |ten| {
            let moves = ten.json(0, &["moves"]);
            let all = moves.as_array().expect("moves").iter();
            let mut found = all.filter(|m| m["to"] == name.as_str() && m["purpose"] != "check" && fits(m));
            found.next().cloned().ok_or_else(|| format!("{moves:#}"))
        })
    };
    // What it may take at once comes first.
    let under_way = moving(&ten, |m| m["bytes"].as_u64() > Some(0) && m["since_s"].as_f64() > Some(2.0));
    assert_eq!((&under_way["purpose"], &under_way["waits_for"]), (&"ahead".into(), &Value::Array(vec![])));
    let rate = under_way["bytes"].as_f64().expect("bytes") / under_way["since_s"].as_f64().expect("seconds");
    let told = under_way["bytes_per_s"].as_f64().expect("a rate");
    assert!((told - rate).abs() < 0.05 * rate, "{rate}: {under_way:#}");
    let (done, eta) =
        (under_way["progress"].as_f64().expect("one"), under_way["eta_s"].as_f64().expect("one"));
    assert!(done > 0.0 && done < 1.0 && eta > 0.0, "{under_way:#}");
    assert!(under_way["from"].as_array().is_some_and(|from| from.len() == 9), "{under_way:#}");

    // Whom it waits for is named, to programs and to people.
    ten.cluster.pause(0);
    let silent = ten.name(0);
    let waiting = moving(&ten, |m| m["waits_for"].as_array().is_some_and(|waits| !waits.is_empty()));
    assert_eq!(waiting["waits_for"], serde_json::json!([silent]));
    let (text, _) = ten.told(&["moves"]);
    let line = text.lines().find(|line| line.starts_with(&name)).expect("its line");
    assert!(line.contains("ahead") && line.contains("/s") && line.trim_end().ends_with(&silent), "{text}");
    assert!(text.ends_with(&format!("\nthe change of the ring waits for {silent}\n")), "{text}");
    ten.cluster.resume(0);
    let on = moving(&ten, |m| m["waits_for"] == Value::Array(vec![]));
    assert!(on["progress"].as_f64() >= under_way["progress"].as_f64(), "{on:#}");
    ten.cluster.stop().await;
}
