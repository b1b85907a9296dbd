//! A machine that answers: what is wrong with it now, or what was the last that happened to it.

use ennead_ring::view::Name;

use super::past::Past;
use super::reach::{MISSED, missed_for, misses, reaching, sides};
use super::testimony::{Own, Seen};
use super::{Case, FAR_OFF, Finding, Word, found, millis};
use crate::status::PeerState;

/// A load, in percent, at which work is refused.
const FULL: u8 = 100;

/// How far its clock is from the middle of all, in milliseconds.
pub(super) fn clock_offset(case: &Case, seen: &[(Name, &Seen)]) -> Option<i64> {
    let mut offsets: Vec<i64> = seen.iter().filter_map(|(_, s)| Some(s.clock?.ms)).collect();
    if offsets.len() >= 2 {
        // Its own word counts as one: of two others, the one whose own clock is off does not decide.
        offsets.push(0);
        offsets.sort_unstable();
        return offsets.get(offsets.len() / 2).copied();
    }
    // Too few have measured it: what all say the time is, as they told it.
    let own = case.own.as_ref()?.wall_ms;
    let mut all: Vec<u64> = case.others.iter().map(|t| t.wall_ms).chain([own]).collect();
    if all.len() < 3 {
        all.push(case.now_ms);
    }
    all.sort_unstable();
    let middle = *all.get(all.len() / 2)?;
    Some(i64::try_from(own).ok()?.saturating_sub(i64::try_from(middle).ok()?))
}

/// For how long its disk has been full, in milliseconds: by its own word, or else as others have heard it of itself.
pub(super) fn full_for(case: &Case, seen: &[(Name, &Seen)]) -> Option<u64> {
    let full = |s: &Seen| s.unwell.filter(|(stalled, ..)| *stalled == 0).map(|(.., since)| since);
    let own = case.own.as_ref().and_then(|t| t.seen.as_ref());
    own.and_then(full).or_else(|| seen.iter().filter_map(|(_, s)| full(s)).max())
}

pub(super) fn of_one_that_answers(
    case: &Case,
    own: &Own,
    seen: &[(Name, &Seen)],
    past: &mut Vec<Past>,
) -> Finding {
    if let Some(finding) = of_now(case, own, seen) {
        return finding;
    }
    let name = case.name;
    if past.is_empty() {
        let sentence = format!("{name} is up, and nothing is known against it");
        return Finding { word: None, at_ms: None, until_ms: None, sentence, report: None };
    }
    let Past { happened, report } = past.remove(0);
    let again = match happened.word {
        Word::Exit | Word::Panic | Word::Killed | Word::DiskFailed if happened.run != own.run => " again",
        _ => "",
    };
    let sentence = format!("{name} is up{again}; {}", happened.what);
    let until_ms = Some(happened.until_ms);
    Finding { until_ms, report, ..found(happened.word, Some(happened.from_ms), sentence) }
}

/// What is wrong with it now, if anything is.
fn of_now(case: &Case, own: &Own, seen: &[(Name, &Seen)]) -> Option<Finding> {
    let name = case.name;
    let ago = |ms: u64| Some(case.now_ms.saturating_sub(ms));
    if own.stalled_ms > 0 {
        let time = millis(own.stalled_ms.into());
        let text = format!("the disk of {name} is stalled: an fsync takes {time}");
        return Some(found(Word::DiskStalled, ago(own.unwell_ms), text));
    }
    // A doubt may be refuted in a moment; a lost connection and a silent door are no mere doubt.
    let cut = |s: &Seen| misses(s) && (s.state == PeerState::Up || s.silent_ms >= MISSED);
    let missed: Vec<_> = seen.iter().filter(|(_, s)| cut(s)).collect();
    if !missed.is_empty() {
        let text = sides(name, &missed.iter().map(|(by, _)| *by).collect::<Vec<_>>(), &reaching(case, seen));
        let longest = missed.iter().map(|(_, s)| missed_for(s)).max().unwrap_or(0);
        return Some(found(Word::Partitioned, ago(longest), text));
    }
    if let Some(ms) = full_for(case, seen) {
        let text = format!(
            "the disk of {name} is full: it takes no values until there is room, and goes on with everything else"
        );
        return Some(found(Word::DiskFull, ago(ms), text));
    }
    if own.load >= FULL {
        let how = match own.refused {
            0 => format!("its loop comes too late (load {} %)", own.load),
            1 => "it refused a request lately".to_owned(),
            n => format!("it refused {n} requests lately"),
        };
        let text = format!("{name} is asked for more than it can do: {how}");
        return Some(found(Word::Overloaded, ago(own.unwell_ms), text));
    }
    let offset = clock_offset(case, seen).filter(|offset| offset.abs() >= FAR_OFF)?;
    let way = if offset > 0 { "ahead of" } else { "behind" };
    let text = format!("the clock of {name} is {} {way} the others'", millis(offset.unsigned_abs()));
    let since = seen.iter().filter_map(|(_, s)| s.clock?.far_ms).max();
    Some(found(Word::Clock, since.and_then(ago), text))
}
