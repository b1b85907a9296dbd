//! What a verdict rests on, line by line, for people to read.

use ennead_ring::view::Name;

use super::answering::clock_offset;
use super::testimony::{Before, Knocked, Own, Seen};
use super::{Case, FAR_OFF, first_line, millis};
use crate::crash::{Kind, rfc3339};
use crate::status::PeerState;

/// Everything: first what it says itself, then a line of each who tells something, then who only heard it.
pub(super) fn evidence(case: &Case, own: Option<&Own>, seen: &[(Name, &Seen)]) -> Vec<String> {
    let name = case.name;
    let mut lines = Vec::new();
    if let Some(own) = own {
        lines.extend(of_itself(name, own));
        let full = case.own.as_ref().and_then(|t| t.seen.as_ref()?.unwell).filter(|unwell| unwell.0 == 0);
        lines.extend(full.map(|(.., ms)| format!("it says: its disk is full, for {}", millis(ms))));
        if let Some(offset) = clock_offset(case, seen).filter(|offset| offset.abs() >= 1_000) {
            lines.push(format!("its clock is {offset} ms off the middle of all"));
        }
    }
    if let Some((_, why)) = case.unanswered.iter().find(|(n, _)| *n == name) {
        lines.push(format!("asked for its own word just now: {why}"));
    }
    if !case.member {
        lines.push("it is no member of the newest view".to_owned());
    }
    let mut heard: Vec<(Name, u64)> = Vec::new();
    for (by, s) in seen {
        match (told_by(s), s.heard_ms) {
            (told, _) if !told.is_empty() => lines.push(format!("{by}: {}", told.join("; "))),
            (_, Some(ms)) => heard.push((*by, ms)),
            _ => {}
        }
    }
    if let Some(oldest) = heard.iter().map(|(_, ms)| *ms).max() {
        let by: Vec<String> = heard.iter().map(|(by, _)| by.to_string()).collect();
        lines.push(format!("heard within the last {} by {}", millis(oldest.max(1)), by.join(", ")));
    }
    let silent = case.unanswered.iter().filter(|(n, _)| *n != name).map(|(n, _)| n.to_string());
    let silent: Vec<String> = silent.collect();
    if !silent.is_empty() {
        lines.push(format!("not told by {}: no answer from there", silent.join(", ")));
    }
    lines.extend(case.reports.iter().take(3).map(|r| {
        let what = if r.kind == Kind::End { "end of the machine" } else { "panic" };
        format!("crash report of {}: {what}, {}: {}", rfc3339(r.at_ms), r.part, first_line(&r.message))
    }));
    lines
}

/// What it says itself.
fn of_itself(name: Name, own: &Own) -> Vec<String> {
    let mut lines =
        vec![format!("{name} answers: up for {}, version {}", millis(own.uptime_ms), own.version)];
    match &own.before {
        Some(Before { ended: Some(end), version, .. }) => lines.push(format!(
            "its data directory: the run before (version {version}) ended at {}: {}",
            rfc3339(end.at_ms),
            end.reason
        )),
        Some(Before { version, .. }) => {
            lines.push(format!("its data directory: the run before (version {version}) has no end noted"));
        }
        None => {}
    }
    if own.stalled_ms > 0 || own.load > 50 || own.refused > 0 {
        let (fsync, load, refused) = (own.stalled_ms, own.load, own.refused);
        let time = millis(own.unwell_ms);
        lines.push(format!(
            "it says: fsync {fsync} ms, load {load} %, {refused} requests refused lately, for {time}"
        ));
    }
    lines
}

/// What another tells of it besides that it was heard.
fn told_by(s: &Seen) -> Vec<String> {
    let mut told = Vec::new();
    if s.state != PeerState::Up {
        let word = if s.state == PeerState::Down { "given up" } else { "suspected" };
        let by = match s.by.len() {
            0..=3 => s.by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            many => format!("{many} machines"),
        };
        told.push(format!("{word}, no answer to probes of {by} for {}", millis(s.silent_ms)));
    }
    if let Some(end) = s.farewell.as_ref().or(s.end.as_ref()) {
        told.push(format!("connection: {} ({} ago)", end.text, millis(end.ago_ms)));
    }
    if let Some(knock) = s.knock {
        let word = |knocked, refused| match knocked {
            Knocked::Refused => refused,
            Knocked::Silent => "nothing came back",
            Knocked::NoRoute => "no such host or no way to it",
        };
        let (port, host) = (word(knock.port, "closed"), word(knock.host, "answers"));
        told.push(format!("knocked {} ago: its port: {port}; its host: {host}", millis(knock.ago_ms)));
    }
    if let [last, before, ..] = &s.runs[..] {
        let end = if before.farewell { "after a farewell" } else { "without a farewell before" };
        let version = match last.version == before.version {
            true => String::new(),
            false => format!(", version {} instead of {}", last.version, before.version),
        };
        told.push(format!("met a new run of it {} ago, {end}{version}", millis(last.ago_ms)));
    }
    if let Some(silence) = s.silence {
        told.push(format!(
            "it was silent for {}, until {} ago",
            millis(silence.for_ms),
            millis(silence.ago_ms)
        ));
    }
    if let Some(clock) = s.clock.filter(|clock| clock.ms.abs() >= FAR_OFF) {
        let way = if clock.ms > 0 { "ahead of" } else { "behind" };
        let off = millis(clock.ms.unsigned_abs());
        told.push(format!("its clock is {off} {way} ours (asked {} ago)", millis(clock.ago_ms)));
    }
    match s.unwell {
        Some((0, _, since)) => {
            told.push(format!("it said of itself: its disk is full, for {}", millis(since)));
        }
        Some((stalled, load, since)) => {
            told.push(format!("it said of itself: fsync {stalled} ms, load {load} %, for {}", millis(since)));
        }
        None => {}
    }
    if s.last_words.is_some() {
        told.push("heard its last words, with a crash report".to_owned());
    }
    if let Some((planned, ms)) = s.gone {
        let how = if planned { "left" } else { "was dropped from" };
        told.push(format!("it {how} the cluster {} ago", millis(ms)));
    }
    told
}
