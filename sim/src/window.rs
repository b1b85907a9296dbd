//! A long run is judged as it goes: a key's history is judged and cut short whenever it is long and nobody has a call
//! under way at the key. So a day costs no more memory than its last hour.
//!
//! What is cut off ends in one known state, and nothing after the cut began before it. The rest is judged as the history
//! of a key that began in that state; a write of unknown outcome may still take effect, and goes along.

use std::collections::HashSet;

use crate::checker::{self, Call, If, Op, Reply, Value};
use crate::world::World;

/// Calls of a key that are judged together.
const WINDOW: usize = 1_024;
/// How many more until it is tried again, where somebody had a call under way.
const AGAIN: usize = 16;

impl World {
    /// A call of this key has come to its end.
    pub(super) fn judge_so_far(&mut self, key: usize) {
        let history = &self.histories[key];
        let long = history.len() >= WINDOW && history.len().is_multiple_of(AGAIN);
        // An expiry may delete later what was put before; a listing is noted when it is over; a counter has a judge of its
        // own; and what a forced recovery lost is counted at the end.
        let p = &self.profile;
        let plain = p.ttl == 0.0 && p.touches == 0 && !p.lists && !p.is_counter(key);
        let plain = plain && self.disaster.charged[key].is_empty();
        if !long || !p.endless || !plain || self.clients.iter().any(|client| client.is_at(key)) {
            return;
        }
        let mut history = std::mem::take(&mut self.histories[key]);
        history.sort_by_key(|op| op.start);
        self.histories[key] = match carried(&history) {
            Some(rest) => {
                if let Err(fault) = checker::judge(&history) {
                    self.fail(format!("claim 1: key {key}: {fault}"));
                }
                rest
            }
            None => history,
        };
    }
}

/// What goes on from a history in which no call is under way: the state in which it ends, as writes that made it, and what
/// may still take effect. `None` where nobody was told that state.
fn carried(history: &[Op]) -> Option<Vec<Op>> {
    let last = history.iter().filter(|op| op.end != u64::MAX).max_by_key(|op| op.end)?;
    let made = |call, version| Op { call, reply: Reply::Done(version), ..*last };
    let mut rest = Vec::new();
    let newest = history.iter().filter_map(version).max().unwrap_or(0);
    if newest > 0 {
        let states: Vec<Option<Value>> =
            history.iter().filter(|op| version(op) == Some(newest)).filter_map(state).collect();
        match *states.first()? {
            Some(value) => rest.push(made(Call::Put(value, If::Any), newest)),
            None => {
                // A tombstone is of something: of a value that nobody else has put.
                let before = newest.checked_sub(1).filter(|before| *before > 0)?;
                rest.push(made(Call::Put(Value::MAX, If::Any), before));
                rest.push(made(Call::Delete(If::Any), newest));
            }
        }
    }
    let seen: HashSet<Value> = history
        .iter()
        .filter_map(|op| if let Reply::Found(value, _) = op.reply { Some(value) } else { None })
        .collect();
    let open = |op: &&Op| {
        let condition = match op.call {
            // It took effect.
            Call::Put(value, _) if seen.contains(&value) => return false,
            Call::Put(_, condition) | Call::Delete(condition) => condition,
            Call::Get | Call::Touch(_) | Call::Incr(_) => return false,
        };
        op.reply == Reply::Unknown && !matches!(condition, If::Version(v) if v < newest)
    };
    rest.extend(history.iter().filter(open));
    Some(rest)
}

/// The version that a caller was told.
fn version(op: &Op) -> Option<u64> {
    match op.reply {
        Reply::Done(version) | Reply::Counted(_, version) | Reply::Found(_, version) => Some(version),
        Reply::Nothing(version) | Reply::Mismatch(version) => version,
        Reply::Absent | Reply::Never | Reply::Unknown => None,
    }
}

/// What that version was, where the call tells.
fn state(op: &Op) -> Option<Option<Value>> {
    match (op.call, op.reply) {
        (Call::Put(value, _), Reply::Done(_)) | (_, Reply::Found(value, _)) => Some(Some(value)),
        (Call::Delete(_), Reply::Done(_)) | (_, Reply::Nothing(Some(_))) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::judge;

    fn op(call: Call, reply: Reply, start: u64) -> Op {
        let end = if reply == Reply::Unknown { u64::MAX } else { start + 1 };
        Op { who: 1, call, reply, start, end }
    }

    fn put(value: Value) -> Call {
        Call::Put(value, If::Any)
    }

    /// The same calls, judged in one piece and in two.
    fn judged(history: &[Op], cut: usize) -> (bool, bool) {
        let rest = carried(&history[..cut]).expect("a state that somebody was told");
        let rest: Vec<Op> = rest.into_iter().chain(history[cut..].iter().copied()).collect();
        (judge(history).is_ok(), judge(&history[..cut]).is_ok() && judge(&rest).is_ok())
    }

    #[test]
    fn what_is_right_in_one_piece_is_right_in_two_and_what_is_wrong_is_wrong() {
        let begin = [
            op(put(1), Reply::Done(1), 10),
            op(Call::Put(2, If::Version(1)), Reply::Unknown, 20),
            op(put(3), Reply::Done(4), 30),
            op(Call::Get, Reply::Found(3, 4), 40),
        ];
        let deleted = [&begin[..], &[op(Call::Delete(If::Any), Reply::Done(6), 50)]].concat();
        let open = [&begin[..], &[op(put(7), Reply::Unknown, 50)]].concat();
        let both = |history: &[Op], more: &[Op]| judged(&[history, more].concat(), history.len());
        for (history, more, right) in [
            (&begin[..], op(Call::Get, Reply::Found(3, 4), 60), true),
            (&begin, op(Call::Get, Reply::Found(1, 1), 60), false),
            (&begin, op(Call::Get, Reply::Nothing(None), 60), false),
            (&begin, op(Call::Put(8, If::Version(4)), Reply::Done(5), 60), true),
            (&begin, op(Call::Put(8, If::Version(1)), Reply::Done(5), 60), false),
            (&begin, op(Call::Put(8, If::Absent), Reply::Mismatch(Some(4)), 60), true),
            (&begin, op(Call::Put(8, If::Absent), Reply::Done(5), 60), false),
            (&begin, op(put(8), Reply::Done(3), 60), false),
            (&deleted, op(Call::Get, Reply::Nothing(None), 60), true),
            (&deleted, op(Call::Get, Reply::Nothing(Some(6)), 60), true),
            (&deleted, op(Call::Get, Reply::Found(3, 4), 60), false),
            (&deleted, op(Call::Put(8, If::Absent), Reply::Done(9), 60), true),
            (&deleted, op(Call::Delete(If::Any), Reply::Done(9), 60), false),
            (&open, op(Call::Get, Reply::Found(7, 5), 60), true),
            (&open, op(Call::Get, Reply::Found(3, 4), 60), true),
            (&open, op(Call::Get, Reply::Found(2, 3), 60), false),
        ] {
            assert_eq!(both(history, &[more]), (right, right), "{more}");
        }
    }

    #[test]
    fn a_state_that_nobody_was_told_is_no_place_to_cut() {
        let history =
            [op(put(1), Reply::Unknown, 10), op(Call::Put(2, If::Absent), Reply::Mismatch(Some(1)), 20)];
        assert_eq!(judge(&history), Ok(()));
        assert!(carried(&history).is_none());
    }
}
