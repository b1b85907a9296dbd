//! The data on its way: to whom, from whom, how fast, how long yet, and what it waits for.

use std::time::Instant;

use ennead::Name;
use ennead::moving::{Move, Rates, purpose_word, to_json};
use ennead::units::show_duration;
use ennead_ring::message::Purpose;

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Lists them.
pub(crate) async fn run(args: Watch, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let mut rates = Rates::default();
    show(args, output, async |_: &Output| {
        client.view().await?;
        let accounts = client.status().await?;
        let moves = rates.look(&accounts, Instant::now());
        let text = match moves.is_empty() {
            true => "nothing moves\n".to_string(),
            false => to_text(&moves),
        };
        Ok(Look { text, json: to_json(&moves), verdict: Verdict::Yes })
    })
    .await
}

/// For people.
pub(crate) fn to_text(moves: &[Move]) -> String {
    let head =
        ["TO", "FROM", "FOR", "DONE", "KEYS", "BYTES", "RATE", "ETA", "WAITS FOR"].map(String::from).to_vec();
    let row = |m: &Move| {
        vec![
            m.to.to_string(),
            few(&m.told.from),
            purpose_word(m.told.purpose).to_string(),
            m.progress().map_or_else(|| "-".to_string(), |p| format!("{:.0} %", p * 100.0)),
            m.told.keys.to_string(),
            show_bytes(m.told.bytes as f64),
            format!("{}/s", show_bytes(m.rate)),
            m.eta.map_or_else(|| "-".to_string(), show_duration),
            few(&m.told.waits_for),
        ]
    };
    table(&std::iter::once(head).chain(moves.iter().map(row)).collect::<Vec<_>>())
}

/// All of them in one line; `None` if there are none. Comparing copies moves nothing by itself.
pub(crate) fn summary(moves: &[Move]) -> Option<String> {
    let moves: Vec<&Move> = moves.iter().filter(|m| m.told.purpose != Purpose::Check).collect();
    let mut machines: Vec<Name> = moves.iter().map(|m| m.to).collect();
    machines.dedup();
    let keys: u64 = moves.iter().map(|m| m.told.keys).sum();
    let rate: f64 = moves.iter().map(|m| m.rate).sum();
    let eta = moves.iter().filter_map(|m| m.eta).max();
    let mut waits: Vec<Name> = moves.iter().flat_map(|m| m.told.waits_for.iter().copied()).collect();
    waits.sort();
    waits.dedup();
    let who = match machines.as_slice() {
        [] => return None,
        [one] => format!("{one} takes in data"),
        many => format!("{} machines take in data", many.len()),
    };
    let eta = eta.map(|eta| format!(", done in about {}", show_duration(eta))).unwrap_or_default();
    let waits = if waits.is_empty() { String::new() } else { format!("; waits for {}", few(&waits)) };
    Some(format!("{who}: {keys} keys so far, {}/s{eta}{waits}", show_bytes(rate)))
}

/// The first names of a list, and how many more there are.
fn few(names: &[Name]) -> String {
    match names {
        [] => "-".to_string(),
        [one] => one.to_string(),
        [one, two] => format!("{one}, {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// Bytes for a person: three digits are plenty.
pub(crate) fn show_bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut left = bytes;
    for unit in units {
        if left < 1023.5 {
            let digits = usize::from(left < 9.95 && unit != "B");
            return format!("{left:.digits$} {unit}");
        }
        left /= 1024.0;
    }
    format!("{left:.0} EiB")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ennead::status::MoveStatus;

    use super::*;

    fn name(n: u8) -> Name {
        format!("10.0.0.{n}").parse().expect("a name")
    }

    fn told(seconds: u64, looked: u64, bytes: u64) -> MoveStatus {
        MoveStatus {
            purpose: Purpose::Ahead,
            keys: looked / 2,
            bytes,
            looked,
            total: 1_000,
            since_ms: seconds * 1_000,
            from: vec![name(1), name(2), name(3)],
            waits_for: vec![],
        }
    }

    fn look(told: MoveStatus) -> Move {
        let rate = told.bytes as f64 / Duration::from_millis(told.since_ms.max(1)).as_secs_f64();
        let eta = (told.looked > 0).then(|| Duration::from_secs(10));
        Move { to: name(9), told, rate, eta }
    }

    #[test]
    fn nothing_known_is_no_promise() {
        let unknown = MoveStatus { total: 0, ..told(0, 0, 0) };
        let moving = look(unknown);
        assert_eq!((moving.rate, moving.eta, moving.progress()), (0.0, None, None));
        let text = to_text(&[moving]);
        assert!(text.contains("10.0.0.9  10.0.0.1 and 2 more  ahead  -"), "{text}");
    }

    #[test]
    fn all_moves_in_one_line() {
        assert_eq!(summary(&[]), None);
        let one = look(told(10, 500, 10_240));
        assert_eq!(
            summary(&[one]).as_deref(),
            Some("10.0.0.9 takes in data: 250 keys so far, 1.0 KiB/s, done in about 10 s")
        );
    }

    #[test]
    fn bytes_for_people() {
        let shown = [0.0, 1_000.0, 1_024.0, 102_400.0, 3.5e9].map(show_bytes);
        assert_eq!(shown, ["0 B", "1000 B", "1.0 KiB", "100 KiB", "3.3 GiB"]);
    }
}
