//! The data on its way: to whom, from whom, how fast, how long yet, and what it waits for.

use std::time::Instant;

use ennead::Name;
use ennead::client::{Client, Error};
use ennead::moving::{Accounts, Move, Rates, purpose_word, to_json, waits_for};
use ennead::units::show_duration;
use ennead_ring::View;
use ennead_ring::message::Purpose;

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Names of machines that are waited for; more are counted.
const NAMED: usize = 8;

/// Lists them.
pub(crate) async fn run(args: Watch, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let mut rates = Rates::default();
    show(args, output, async |_: &Output| {
        let view = client.view().await?;
        let accounts = client.status().await?;
        let moves = rates.look(&accounts, Instant::now());
        let waits = waiting(&view, &accounts, &moves);
        let text = match moves.is_empty() {
            true if waits.is_empty() => "nothing moves\n".to_string(),
            true => "nothing moves now\n".to_string(),
            false => to_text(&moves),
        };
        let waits = if waits.is_empty() { String::new() } else { format!("\n{}\n", waits_text(&waits)) };
        Ok(Look { text: text + &waits, json: to_json(&moves), verdict: Verdict::Yes })
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

/// What moves now and whom that waits for, in one line; `None` if nothing does and nobody is waited for.
pub(crate) async fn look(client: &Client, rates: &mut Rates) -> Result<Option<String>, Error> {
    let (view, accounts) = (client.view().await?, client.status().await?);
    let moves = rates.look(&accounts, Instant::now());
    Ok(summary(&moves, &waiting(&view, &accounts, &moves)))
}

/// Whom a change of the ring waits for.
pub(crate) fn waiting(view: &View, accounts: &Accounts, moves: &[Move]) -> Vec<Name> {
    waits_for(view, moves, |name| accounts.iter().any(|(n, account)| *n == name && account.is_ok()))
}

fn waits_text(waits: &[Name]) -> String {
    format!("the change of the ring waits for {}", list(waits))
}

/// All of them in one line, and whom they wait for; `None` if there is neither. Comparing copies moves nothing by itself.
pub(crate) fn summary(moves: &[Move], waits: &[Name]) -> Option<String> {
    let moves: Vec<&Move> = moves.iter().filter(|m| m.told.purpose != Purpose::Check).collect();
    let mut machines: Vec<Name> = moves.iter().map(|m| m.to).collect();
    machines.dedup();
    let keys: u64 = moves.iter().map(|m| m.told.keys).sum();
    let rate: f64 = moves.iter().map(|m| m.rate).sum();
    let eta = moves.iter().filter_map(|m| m.eta).max();
    let who = match machines.as_slice() {
        [] => return (!waits.is_empty()).then(|| waits_text(waits)),
        [one] => format!("{one} takes in data"),
        many => format!("{} machines take in data", many.len()),
    };
    let eta = eta.map(|eta| format!(", done in about {}", show_duration(eta))).unwrap_or_default();
    let waits = if waits.is_empty() { String::new() } else { format!("; waits for {}", list(waits)) };
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

/// The names that a person needs to know: a few more.
pub(crate) fn list(names: &[Name]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED).map(Name::to_string).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
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

    fn moving(told: MoveStatus) -> Move {
        let rate = told.bytes as f64 / Duration::from_millis(told.since_ms.max(1)).as_secs_f64();
        let eta = (told.looked > 0).then(|| Duration::from_secs(10));
        Move { to: name(9), told, rate, eta }
    }

    #[test]
    fn nothing_known_is_no_promise() {
        let unknown = MoveStatus { total: 0, ..told(0, 0, 0) };
        let one = moving(unknown);
        assert_eq!((one.rate, one.eta, one.progress()), (0.0, None, None));
        let text = to_text(&[one]);
        assert!(text.contains("10.0.0.9  10.0.0.1 and 2 more  ahead  -"), "{text}");
    }

    #[test]
    fn all_moves_in_one_line() {
        assert_eq!(summary(&[], &[]), None);
        let one = moving(told(10, 500, 10_240));
        let said = "10.0.0.9 takes in data: 250 keys so far, 1.0 KiB/s, done in about 10 s";
        assert_eq!(summary(std::slice::from_ref(&one), &[]).as_deref(), Some(said));
        let waits = [name(1), name(2)];
        assert_eq!(summary(&[one], &waits), Some(format!("{said}; waits for 10.0.0.1, 10.0.0.2")));
        let said = "the change of the ring waits for 10.0.0.1, 10.0.0.2";
        assert_eq!(summary(&[], &waits).as_deref(), Some(said), "those who live have done their part");
    }

    #[test]
    fn bytes_for_people() {
        let shown = [0.0, 1_000.0, 1_024.0, 102_400.0, 3.5e9].map(show_bytes);
        assert_eq!(shown, ["0 B", "1000 B", "1.0 KiB", "100 KiB", "3.3 GiB"]);
    }
}
