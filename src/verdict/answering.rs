//! A machine that answers: what is wrong with it now, or what was the last that happened to it.

use ennead_ring::view::Name;

use super::reach::{MISSED, missed_for, misses, reaching, sides};
use super::silent::of_its_end;
use super::testimony::{Before, Own, Seen};
use super::{Case, Finding, Word, first_line, found, millis};
use crate::crash::Kind;
use crate::status::PeerState;

/// A clock this far from the middle of all clocks is wrong, in milliseconds.
const FAR_OFF: i64 = 10_000;
/// A load, in percent, at which work is refused.
const FULL: u8 = 100;

/// Its clock against the middle of all clocks, in milliseconds.
pub(super) fn clock_offset(case: &Case) -> Option<i64> {
    let own = case.own.as_ref()?.wall_ms;
    let mut all: Vec<u64> = case.others.iter().map(|t| t.wall_ms).chain([own]).collect();
    if all.len() < 3 {
        all.push(case.now_ms);
    }
    all.sort_unstable();
    let middle = *all.get(all.len() / 2)?;
    Some(i64::try_from(own).ok()?.saturating_sub(i64::try_from(middle).ok()?))
}

pub(super) fn of_one_that_answers(case: &Case, own: &Own, seen: &[(Name, &Seen)]) -> Finding {
    let name = case.name;
    let ago = |ms: u64| Some(case.now_ms.saturating_sub(ms));
    if own.stalled_ms > 0 {
        let time = millis(own.stalled_ms.into());
        let text = format!("the disk of {name} is stalled: an fsync takes {time}");
        return found(Word::DiskStalled, ago(own.unwell_ms), text);
    }
    // A doubt may be refuted in a moment; a lost connection and a silent door are no mere doubt.
    let cut = |s: &Seen| misses(s) && (s.state == PeerState::Up || s.silent_ms >= MISSED);
    let missed: Vec<_> = seen.iter().filter(|(_, s)| cut(s)).collect();
    if !missed.is_empty() {
        let text = sides(name, &missed.iter().map(|(by, _)| *by).collect::<Vec<_>>(), &reaching(case, seen));
        return found(
            Word::Partitioned,
            ago(missed.iter().map(|(_, s)| missed_for(s)).max().unwrap_or(0)),
            text,
        );
    }
    if own.load >= FULL {
        let text = format!("{name} is asked for more than it can do: load {} %", own.load);
        return found(Word::Overloaded, ago(own.unwell_ms), text);
    }
    if let Some(offset) = clock_offset(case).filter(|offset| offset.abs() >= FAR_OFF) {
        let way = if offset > 0 { "ahead of" } else { "behind" };
        let text = format!("the clock of {name} is {} {way} the others'", millis(offset.unsigned_abs()));
        return found(Word::Clock, None, text);
    }
    // It is well now. What was the last that happened to it?
    let this_run = format!("{:016x}", own.run);
    if let Some(report) = case.reports.iter().find(|r| r.run == this_run) {
        let text = format!(
            "{name} is up; its {} panicked and was begun again: {}",
            report.part,
            first_line(&report.message)
        );
        return Finding { report: Some(report.clone()), ..found(Word::Panic, Some(report.at_ms), text) };
    }
    let back = ago(own.uptime_ms);
    match &own.before {
        Some(before) => of_the_run_before(case, own, before, back),
        // It kept no account of it; its peers may have.
        None => match seen.iter().find_map(|(_, s)| s.runs.get(1)) {
            Some(met) if !met.farewell => {
                let text = format!("{name} is up; it came back with a new start and had said no farewell");
                found(Word::Killed, back, text)
            }
            _ => Finding {
                word: None,
                at_ms: None,
                sentence: format!("{name} is up, and nothing is known against it"),
                report: None,
            },
        },
    }
}

/// What the data directory tells of the run before, and the crash reports that belong to that run.
fn of_the_run_before(case: &Case, own: &Own, before: &Before, back: Option<u64>) -> Finding {
    let name = case.name;
    if before.version != own.version {
        let text = format!("{name} is up; it was upgraded from {} to {}", before.version, own.version);
        return found(Word::Upgraded, back, text);
    }
    let run = format!("{:016x}", before.run);
    let last = case.reports.iter().find(|r| r.run == run && r.kind == Kind::End);
    match (&before.ended, last) {
        (_, Some(report)) => {
            let finding = of_its_end(name, report);
            Finding { sentence: format!("{name} is up again; {}", finding.sentence), ..finding }
        }
        (Some(ended), None) => {
            let text = format!("{name} is up again; its last run ended: {}", ended.reason);
            found(Word::Exit, Some(ended.at_ms), text)
        }
        (None, None) => {
            let text = format!(
                "{name} was killed, or lost its power: it is back with a new start and had said no farewell"
            );
            found(Word::Killed, back, text)
        }
    }
}
