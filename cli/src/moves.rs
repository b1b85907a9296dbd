//! The data on its way: to whom, from whom, how fast, how long yet, and what it waits for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::status::{MachineStatus, MoveStatus};
use ennead::units::show_duration;
use ennead_ring::message::Purpose;
use serde_json::{Value, json};

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Two looks closer together than this say little about the rate.
const APART: Duration = Duration::from_millis(200);

/// What a machine tells of itself, or why it does not.
pub(crate) type Accounts = [(Name, Result<MachineStatus, String>)];

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

/// Data on its way to one machine, and how fast.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Move {
    pub(crate) to: Name,
    pub(crate) told: MoveStatus,
    /// Bytes a second.
    pub(crate) rate: f64,
    /// Until it is done; `None` if nobody can tell yet.
    pub(crate) eta: Option<Duration>,
}

impl Move {
    fn progress(&self) -> Option<f64> {
        (self.told.total > 0).then(|| (self.told.looked as f64 / self.told.total as f64).min(1.0))
    }
}

/// What the last look saw: two of them make a rate. A first look takes it since the move's beginning.
#[derive(Default)]
pub(crate) struct Rates {
    seen: BTreeMap<(Name, Purpose), (Instant, MoveStatus)>,
}

impl Rates {
    /// The moves that machines tell of, and how fast each is.
    pub(crate) fn look(&mut self, accounts: &Accounts, now: Instant) -> Vec<Move> {
        let mut seen = BTreeMap::new();
        let mut moves = Vec::new();
        for (to, account) in accounts {
            for told in account.iter().flat_map(|account| &account.moves) {
                let before = self.seen.get(&(*to, told.purpose));
                moves.push(rated(*to, told, before, now));
                seen.insert((*to, told.purpose), (now, told.clone()));
            }
        }
        self.seen = seen;
        moves
    }
}

fn rated(to: Name, told: &MoveStatus, before: Option<&(Instant, MoveStatus)>, now: Instant) -> Move {
    let whole = Duration::from_millis(told.since_ms).as_secs_f64();
    // The same move, further on; one that has begun anew is younger than before.
    let further = before.filter(|(at, earlier)| {
        now.duration_since(*at) >= APART
            && earlier.since_ms <= told.since_ms
            && earlier.bytes <= told.bytes
            && earlier.looked <= told.looked
    });
    let (bytes, looked, seconds) = match further {
        Some((at, earlier)) => {
            (told.bytes - earlier.bytes, told.looked - earlier.looked, now.duration_since(*at).as_secs_f64())
        }
        None => (told.bytes, told.looked, whole),
    };
    let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    let left = told.total.saturating_sub(told.looked) as f64;
    let eta =
        (told.total > 0 && looked > 0).then(|| Duration::try_from_secs_f64(left / per_second(looked)).ok());
    Move { to, told: told.clone(), rate: per_second(bytes), eta: eta.flatten() }
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

/// For programs.
pub(crate) fn to_json(moves: &[Move]) -> Value {
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let one = |m: &Move| {
        json!({
            "to": m.to.to_string(),
            "from": names(&m.told.from),
            "purpose": purpose_word(m.told.purpose),
            "keys": m.told.keys,
            "bytes": m.told.bytes,
            "bytes_per_s": m.rate.round(),
            "progress": m.progress(),
            "since_s": Duration::from_millis(m.told.since_ms).as_secs_f64(),
            "eta_s": m.eta.map(|eta| eta.as_secs_f64().round()),
            "waits_for": names(&m.told.waits_for),
        })
    };
    moves.iter().map(one).collect()
}

fn purpose_word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Sync => "sync",
        Purpose::Copy => "copy",
        Purpose::Ahead => "ahead",
        Purpose::Check => "check",
    }
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

    #[test]
    fn a_first_look_rates_a_move_since_its_beginning() {
        let moving = rated(name(9), &told(10, 500, 10_240), None, Instant::now());
        assert_eq!(moving.rate, 1024.0);
        assert_eq!(moving.eta, Some(Duration::from_secs(10)));
        assert_eq!(moving.progress(), Some(0.5));
    }

    #[test]
    fn a_second_look_rates_what_came_between() {
        let now = Instant::now();
        let before = (now, told(10, 500, 10_240));
        let moving =
            rated(name(9), &told(12, 600, 10_240 + 4_096), Some(&before), now + Duration::from_secs(2));
        assert_eq!(moving.rate, 2_048.0);
        assert_eq!(moving.eta, Some(Duration::from_secs(8)));
        // Stalled: no rate, and no end in sight.
        let stalled = rated(name(9), &told(12, 500, 10_240), Some(&before), now + Duration::from_secs(2));
        assert_eq!((stalled.rate, stalled.eta), (0.0, None));
        // Begun anew since.
        let anew = rated(name(9), &told(1, 100, 512), Some(&before), now + Duration::from_secs(2));
        assert_eq!(anew.rate, 512.0);
    }

    #[test]
    fn nothing_known_is_no_promise() {
        let unknown = MoveStatus { total: 0, ..told(0, 0, 0) };
        let moving = rated(name(9), &unknown, None, Instant::now());
        assert_eq!((moving.rate, moving.eta, moving.progress()), (0.0, None, None));
        let text = to_text(&[moving]);
        assert!(text.contains("10.0.0.9  10.0.0.1 and 2 more  ahead  -"), "{text}");
    }

    #[test]
    fn all_moves_in_one_line() {
        assert_eq!(summary(&[]), None);
        let one = rated(name(9), &told(10, 500, 10_240), None, Instant::now());
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
