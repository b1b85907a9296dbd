//! A machine that does not answer: which of the ways to fail left these traces.

use ennead_ring::view::Name;

use super::past::end_of;
use super::reach::{missed_for, misses, reaching, sides};
use super::testimony::{EndKind, Knock, Knocked, Seen};
use super::{Case, Finding, Word, first_line, found, millis};
use crate::crash::{Kind, Report};

pub(super) fn of_a_silent_one(case: &Case, seen: &[(Name, &Seen)]) -> Finding {
    let name = case.name;
    let ago = |ms: u64| Some(case.now_ms.saturating_sub(ms));
    let silent = seen.iter().map(|(_, s)| missed_for(s)).max().filter(|ms| *ms > 0).and_then(ago);
    // The run that was met last, by whoever met it last: reports of earlier ones say nothing of this end.
    let latest = seen.iter().filter_map(|(_, s)| s.runs.first()).min_by_key(|met| met.ago_ms);
    let run = latest.map(|met| format!("{:016x}", met.run));
    let told = seen.iter().filter_map(|(_, s)| Report::from_json(s.last_words.as_ref()?.as_bytes()));
    // It answers now, and is not one of us: whatever its last farewell and report were.
    let incompatible =
        seen.iter().filter_map(|(_, s)| s.end.as_ref()).find(|end| end.kind == EndKind::Incompatible);
    if let Some(end) = incompatible {
        let text = format!("{name} answers, and does not belong to this cluster and version: {}", end.text);
        return found(Word::Incompatible, ago(end.ago_ms), text);
    }
    let mut ends = told.chain(case.reports.iter().cloned()).filter(|r| r.kind == Kind::End);
    if let Some(report) = ends.find(|r| run.as_ref().is_none_or(|run| *run == r.run)) {
        return of_its_end(name, &report);
    }
    let knocks: Vec<Knock> = seen.iter().filter_map(|(_, s)| s.knock).collect();
    let farewell = seen.iter().filter_map(|(_, s)| s.farewell.as_ref()).min_by_key(|end| end.ago_ms);
    if let Some(end) = farewell {
        return found(Word::Exit, ago(end.ago_ms), format!("{name} ended in order: {}", end.text));
    }
    if knocks.iter().any(|k| k.port == Knocked::Refused) {
        let text = format!(
            "the process of {name} is gone without a farewell: its host answers, and nothing listens at its port"
        );
        return found(Word::Killed, silent, text);
    }
    let reaching = reaching(case, seen);
    let missing: Vec<Name> = seen.iter().filter(|(_, s)| misses(s)).map(|(by, _)| *by).collect();
    if !reaching.is_empty() && !missing.is_empty() {
        return found(Word::Partitioned, silent, sides(name, &missing, &reaching));
    }
    if let Some((_, (ms, _, since))) =
        seen.iter().find_map(|(by, s)| Some((by, s.unwell.filter(|u| u.0 > 0)?)))
        && !reaching.is_empty()
    {
        let text = format!("the disk of {name} is stalled: an fsync takes {}", millis(ms.into()));
        return found(Word::DiskStalled, ago(since), text);
    }
    if knocks.iter().any(|k| k.port == Knocked::Silent && k.host == Knocked::Refused) {
        let text = format!(
            "{name} stands still: its host answers and its port is open, but its process says nothing"
        );
        return found(Word::Paused, silent, text);
    }
    if knocks.iter().any(|k| k.host == Knocked::NoRoute || k.port == Knocked::NoRoute)
        && knocks.iter().all(|k| k.host != Knocked::Refused)
    {
        let text = format!("the host of {name} is down: the network says that it is not there");
        return found(Word::HostDown, silent, text);
    }
    if !missing.is_empty() {
        let many = if missing.len() == 1 {
            "the one machine".to_owned()
        } else {
            format!("{} machines", missing.len())
        };
        let text = format!(
            "nothing comes back from {name}, not even from its host, to {many} that told: its host is down or it is cut off"
        );
        return found(Word::Unreachable, silent, text);
    }
    let sentence = match case.unanswered.iter().find(|(n, _)| *n == name) {
        Some((_, why)) => {
            format!("{name} does not answer ({why}); nobody else knows anything against it yet")
        }
        None => format!("nobody knows anything of {name}"),
    };
    Finding { word: None, at_ms: None, until_ms: None, sentence, report: None }
}

/// What the report of its end says.
fn of_its_end(name: Name, report: &Report) -> Finding {
    let (word, what) = end_of(report);
    let text = format!("{name} ended: {what}: {}", first_line(&report.message));
    Finding { report: Some(report.clone()), ..found(word, Some(report.at_ms), text) }
}

/// It may still answer: it goes on, without votes, until nobody needs it any more (M3).
pub(super) fn of_one_that_left(case: &Case, seen: &[(Name, &Seen)]) -> Finding {
    let ms = seen.iter().filter_map(|(_, s)| s.gone).map(|(_, ms)| ms).max().unwrap_or(0);
    let text = format!("{} handed its data over and left the cluster", case.name);
    found(Word::Left, Some(case.now_ms.saturating_sub(ms)), text)
}
