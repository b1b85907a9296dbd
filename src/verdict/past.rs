//! What happened to a machine and is over: told by itself, by crash reports, and by those who missed it for a while.

use ennead_ring::view::Name;

use super::testimony::{Happened, Knocked, Own, Seen, Silence};
use super::{Case, Word, first_line, millis};
use crate::crash::{Cause, Kind, Report};
use crate::status::PeerState;

/// Silences that were over within so many milliseconds of each other are one.
const TOGETHER: u64 = 5_000;

/// Something that is over, and the crash report that belongs to it.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) happened: Happened,
    pub(super) report: Option<Report>,
}

/// All of it, newest first.
pub(super) fn past(case: &Case, own: Option<&Own>, seen: &[(Name, &Seen)]) -> Vec<Past> {
    let mut all: Vec<Past> = Vec::new();
    let told = own.map(|own| &own.past[..]).unwrap_or_default();
    for happened in told {
        let ended = matches!(happened.word, Word::Exit | Word::Panic | Word::DiskFailed | Word::Killed);
        let end = |r: &&Report| ended && r.kind == Kind::End && run_of(r) == happened.run;
        let report = case.reports.iter().find(end).cloned();
        let happened = match &report {
            // It could not note its end any more, and the report says what that was.
            Some(report) if happened.word == Word::Killed => of_report(report),
            _ => happened.clone(),
        };
        all.push(Past { happened, report });
    }
    for report in &case.reports {
        if !all.iter().any(|past| past.report.as_ref().is_some_and(|r| r.id == report.id)) {
            all.push(Past { happened: of_report(report), report: Some(report.clone()) });
        }
    }
    let by_others = own.and_then(|own| silence(case, own, seen).or_else(|| restart(case, own, seen)));
    all.extend(by_others.map(|happened| Past { happened, report: None }));
    // Stable: of one moment, it told the newest first.
    all.sort_by_key(|past| std::cmp::Reverse(past.happened.until_ms));
    all
}

fn run_of(report: &Report) -> u64 {
    u64::from_str_radix(&report.run, 16).unwrap_or(0)
}

/// What the report of its end says: the word, and the rest in words.
pub(super) fn end_of(report: &Report) -> (Word, &'static str) {
    match report.cause {
        Cause::Storage => (Word::DiskFailed, "its disk failed"),
        Cause::Panic | Cause::Transport => (Word::Panic, "it panicked"),
    }
}

fn of_report(report: &Report) -> Happened {
    let message = first_line(&report.message);
    let (word, what) = match (report.kind, end_of(report)) {
        (Kind::Panic, _) => {
            (Word::Panic, format!("its {} panicked and was begun again: {message}", report.part))
        }
        (Kind::End, (word, how)) => (word, format!("it ended: {how}: {message}")),
    };
    Happened { word, from_ms: report.at_ms, until_ms: report.at_ms, run: run_of(report), what }
}

/// Others got no answer from it for a while, and it has gone on since in the same run.
fn silence(case: &Case, own: &Own, seen: &[(Name, &Seen)]) -> Option<Happened> {
    let of_this_run = |s: &Seen| s.silence.filter(|silence| silence.run == own.run);
    let silences: Vec<(Name, Silence)> =
        seen.iter().filter_map(|(by, s)| Some((*by, of_this_run(s)?))).collect();
    let ago = silences.iter().map(|(_, silence)| silence.ago_ms).min()?;
    let (missed, silences): (Vec<Name>, Vec<Silence>) =
        silences.into_iter().filter(|(_, silence)| silence.ago_ms <= ago + TOGETHER).unzip();
    // What one alone missed may be his own cut.
    if missed.len() < 2.min(seen.len()) {
        return None;
    }
    let lasted = silences.iter().map(|silence| silence.for_ms).max()?;
    let until_ms = case.now_ms.saturating_sub(ago);
    let from_ms = until_ms.saturating_sub(lasted);
    let knew = |told: &Happened| {
        told.from_ms <= until_ms.saturating_add(TOGETHER) && told.until_ms.saturating_add(TOGETHER) >= from_ms
    };
    if own.past.iter().any(knew) {
        return None;
    }
    // Who has not noticed yet that it is back reached it no better.
    let reached =
        seen.iter().any(|(by, s)| !missed.contains(by) && s.lost_ms.is_none() && s.state == PeerState::Up);
    let knocks = || silences.iter().filter_map(|silence| silence.knock);
    let time = millis(lasted);
    let (word, what) = if knocks().any(|k| k.port == Knocked::Silent && k.host == Knocked::Refused) {
        (Word::Paused, format!("it stood still for {time}: its host answered, and its process did not"))
    } else if knocks().any(|k| k.host == Knocked::NoRoute) {
        (Word::HostDown, format!("its host was down for {time}: the network said that it was not there"))
    } else if !reached {
        (Word::Unreachable, format!("nothing came back from it for {time}"))
    } else {
        let names: Vec<String> = missed.iter().map(ToString::to_string).collect();
        (Word::Partitioned, format!("it was cut off from some for {time}: {}", names.join(", ")))
    };
    Some(Happened { word, from_ms, until_ms, run: own.run, what })
}

/// It kept no account of its runs; others met two of them.
fn restart(case: &Case, own: &Own, seen: &[(Name, &Seen)]) -> Option<Happened> {
    let met = seen.iter().find_map(|(_, s)| s.runs.get(1)).filter(|met| !met.farewell)?;
    let began = case.now_ms.saturating_sub(own.uptime_ms);
    let what = "it came back with a new start and had said no farewell".to_owned();
    let told = own.before.is_some() || !own.past.is_empty();
    (!told).then_some(Happened { word: Word::Killed, from_ms: began, until_ms: began, run: met.run, what })
}
