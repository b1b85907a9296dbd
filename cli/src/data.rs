//! put, get and del.

use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennead::client::{CopyAnswer, CopyReport, Record};
use ennead::units::{show_duration, show_size};
use ennead_ring::Key;
use serde_json::{Value, json};

use crate::args::{Del, Get, Global, Put, Read};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::{Verdict, connect, many};

/// Longest value, in bytes.
pub(crate) const MAX_VALUE: usize = 8 << 20;

/// Stores a value.
pub(crate) async fn put(args: Put, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&args.key)?;
    let value = value_of(&args.value)?;
    let client = connect(global).await?;
    let began = Instant::now();
    let mut put = client.put(&args.key, &value);
    if let Some(version) = args.if_version {
        put = put.if_version(version);
    }
    if args.if_absent {
        put = put.if_absent();
    }
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    let written = put.receipt().await?;
    match output.json {
        true => output.print_json(&json!({
            "key": args.key,
            "version": written.version,
            "votes": written.votes,
            "ms": millis(began.elapsed()),
        }))?,
        false => output.version("ok", written.version)?,
    }
    Ok(Verdict::Yes)
}

/// Prints the value.
pub(crate) async fn get(args: Get, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let [key] = &args.keys[..] else { return many::get(args, global, output).await };
    check_key(key)?;
    if args.copies && args.read == Read::One {
        return Err(Failure::Usage("--copies asks every copy, --read one asks one: choose".to_string()));
    }
    let client = connect(global).await?;
    let began = Instant::now();
    let mut from = None;
    let mut copies = None;
    let record = match (args.read, args.copies) {
        (Read::One, _) => {
            let (machine, record) = client.get_one(key).await?;
            from = Some(machine);
            record
        }
        (Read::Quorum, false) => client.get(key).await?,
        (Read::Quorum, true) => {
            let (record, reports) = client.get_copies(key).await?;
            copies = Some(reports);
            record
        }
    };
    let took = began.elapsed();
    if !output.json {
        if let Some(machine) = from {
            output.say(&format!("dirty read: what {machine} alone holds; it may be stale"));
        }
        if let Some(copies) = &copies {
            output.say(copies_table(copies).trim_end());
        }
    }
    let copies = copies.map(|reports| reports.iter().map(copy_json).collect::<Value>());
    let Some(record) = record else { return Err(Failure::Absent { key: key.clone(), copies }) };
    match output.json {
        true => {
            let mut object = record_json(key, &record);
            object["ms"] = millis(took);
            if let Some(copies) = copies {
                object["copies"] = copies;
            }
            if let Some(machine) = from {
                object["read"] = json!("one");
                object["machine"] = json!(machine.to_string());
            }
            output.print_json(&object)?;
        }
        false => {
            output.data(&record.value)?;
            if output.stdout_is_terminal {
                output.data(b"\n")?;
            }
        }
    }
    Ok(Verdict::Yes)
}

/// Removes the value.
pub(crate) async fn del(args: Del, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&args.key)?;
    let client = connect(global).await?;
    let began = Instant::now();
    let mut delete = client.delete(&args.key);
    if let Some(version) = args.if_version {
        delete = delete.if_version(version);
    }
    let Some(version) = delete.await? else {
        return Err(Failure::Absent { key: args.key, copies: None });
    };
    match output.json {
        true => {
            output.print_json(&json!({"key": args.key, "version": version, "ms": millis(began.elapsed())}))?
        }
        false => output.version("deleted", version)?,
    }
    Ok(Verdict::Yes)
}

/// Refuses what is no key before anybody is asked.
pub(crate) fn check_key(text: &str) -> Result<Key, Failure> {
    match Key::new(text) {
        Ok(key) if key.is_reserved() => {
            Err(Failure::Usage("keys that begin with a zero byte are the cluster's own".to_string()))
        }
        other => other.map_err(|e| Failure::Usage(e.to_string())),
    }
}

/// The value of the command line, or stdin to its end.
fn value_of(text: &str) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    match text {
        "-" => {
            // One byte more than allowed tells that there is too much, however much that is.
            let most = MAX_VALUE as u64 + 1;
            io::stdin().lock().take(most).read_to_end(&mut value).map_err(|e| Failure::Input("stdin", e))?;
        }
        text => value.extend_from_slice(text.as_bytes()),
    }
    check_value(&value)?;
    Ok(value)
}

/// Refuses what is too long for a key before anybody is asked.
pub(crate) fn check_value(value: &[u8]) -> Result<(), Failure> {
    match value.len() {
        n if n > MAX_VALUE => Err(Failure::Usage(format!(
            "the value is longer than {}, the most a key can hold; split it over several keys",
            show_size(MAX_VALUE as u64)
        ))),
        _ => Ok(()),
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// A record for programs: as text where it is text.
pub(crate) fn record_json(key: &str, record: &Record) -> Value {
    let mut object = json!({"key": key, "version": record.version});
    match std::str::from_utf8(&record.value) {
        Ok(text) => object["value"] = json!(text),
        Err(_) => object["value_base64"] = json!(STANDARD.encode(&record.value)),
    }
    if let Some(expires) = record.expires {
        object["expires"] = json!(rfc3339(expires));
    }
    object
}

/// `2026-11-21T20:15:00Z`. Times that no calendar of ours holds are cut off at its ends.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let most = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(SystemTime::UNIX_EPOCH, most)).to_string()
}

fn answer_word(answer: CopyAnswer) -> &'static str {
    match answer {
        CopyAnswer::Same => "same",
        CopyAnswer::Older => "older",
        CopyAnswer::Newer => "newer",
        CopyAnswer::Absent => "absent",
        CopyAnswer::Silent => "silent",
        CopyAnswer::NotSynced => "not_synced",
        CopyAnswer::Refused => "refused",
    }
}

fn copy_json(copy: &CopyReport) -> Value {
    json!({
        "machine": copy.machine.to_string(),
        "slots": copy.slots,
        "version": copy.version,
        "answer": answer_word(copy.answer),
        "ms": copy.took.map(millis),
    })
}

fn copies_table(copies: &[CopyReport]) -> String {
    let head = ["MACHINE", "SLOTS", "ANSWER", "VERSION", "TOOK"].map(String::from).to_vec();
    let row = |copy: &CopyReport| {
        let slots: Vec<String> = copy.slots.iter().map(ToString::to_string).collect();
        vec![
            copy.machine.to_string(),
            slots.join(","),
            answer_word(copy.answer).replace('_', " "),
            copy.version.map_or_else(|| "-".to_string(), |v| v.to_string()),
            copy.took.map_or_else(|| "-".to_string(), show_duration),
        ]
    };
    table(&std::iter::once(head).chain(copies.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_before_anyone_is_asked() {
        assert!(check_key("mail-23412").is_ok());
        for (wrong, said) in
            [("", "empty"), ("\0view", "cluster's own"), (&"k".repeat(16_385), "16385 bytes")]
        {
            let message = check_key(wrong).expect_err("no key").to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_base64() {
        let record = |value: &[u8]| Record { value: value.into(), version: 3, expires: None };
        assert_eq!(record_json("k", &record(b"hello")), json!({"key": "k", "version": 3, "value": "hello"}));
        let object = record_json("k", &record(&[0xff, 0]));
        assert_eq!(object["value_base64"], "/wA=");
        assert_eq!(object.get("value"), None);
    }

    #[test]
    fn the_end_of_time_can_be_printed() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(9_999_999_999_999);
        assert_eq!(rfc3339(far), "9999-12-31T23:59:59Z");
    }
}
