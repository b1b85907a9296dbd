//! The data on its way: to whom, from whom, how fast and how long yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ennead_ring::message::Purpose;
use ennead_ring::{MemberState, View};
use serde_json::{Value, json};

use crate::Name;
use crate::status::{MachineStatus, MoveStatus};

/// Two looks closer together than this say little about the rate.
const APART: Duration = Duration::from_millis(200);

/// What a machine tells of itself, or why it does not.
pub type Accounts = [(Name, Result<MachineStatus, String>)];

/// Data on its way to one machine, and how fast.
#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    /// To whom.
    pub to: Name,
    /// What that machine tells of it.
    pub told: MoveStatus,
    /// Bytes a second.
    pub rate: f64,
    /// Until it is done; `None` if nobody can tell yet.
    pub eta: Option<Duration>,
}

impl Move {
    /// How far it is, 0 to 1; `None` if nobody can tell yet.
    pub fn progress(&self) -> Option<f64> {
        (self.told.total > 0).then(|| (self.told.looked as f64 / self.told.total as f64).min(1.0))
    }
}

/// What the last look saw: two of them make a rate. A first look takes it since the move's beginning.
#[derive(Default, Debug)]
pub struct Rates {
    seen: BTreeMap<(Name, Purpose), (Instant, MoveStatus)>,
}

impl Rates {
    /// The moves that machines tell of, and how fast each is.
    pub fn look(&mut self, accounts: &Accounts, now: Instant) -> Vec<Move> {
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

/// Whom a change of the ring waits for, in order: who is asked for data and does not tell it, and who is of the next ring
/// and does not answer, so that nobody knows it to have its data (M2).
pub fn waits_for(view: &View, moves: &[Move], answers: impl Fn(Name) -> bool) -> Vec<Name> {
    let changes = view.members().iter().any(|m| m.state != MemberState::Up || m.place() != m.next_place());
    let next = view.members().iter().filter(|m| changes && m.state != MemberState::Leaving);
    let silent = next.map(|m| m.machine.name).filter(|name| !answers(*name));
    let told = moves.iter().filter(|m| m.told.purpose != Purpose::Check);
    let mut all: Vec<Name> = told.flat_map(|m| m.told.waits_for.iter().copied()).chain(silent).collect();
    all.sort();
    all.dedup();
    all
}

/// For programs.
pub fn to_json(moves: &[Move]) -> Value {
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

/// For what data moves, in a word.
pub fn purpose_word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Sync => "sync",
        Purpose::Copy => "copy",
        Purpose::Ahead => "ahead",
        Purpose::Check => "check",
    }
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
}
