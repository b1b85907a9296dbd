//! What a verdict rests on, line by line, for people to read.

use ennead_ring::view::Name;

use super::answering::clock_offset;
use super::testimony::{Before, Knocked, Own, Seen};
use super::{Case, first_line, millis};
use crate::crash::{Kind, rfc3339};
use crate::status::PeerState;

/// Everything, line by line, first what it says itself.
pub(super) fn evidence(case: &Case, own: Option<&Own>, seen: &[(Name, &Seen)]) -> Vec<String> {
    let name = case.name;
    let mut lines = Vec::new();
    if let Some(own) = own {
        lines.push(format!("{name} answers: up for {}, version {}", millis(own.uptime_ms), own.version));
        match &own.before {
            Some(Before { ended: Some(end), version, .. }) => lines.push(format!(
                "its data directory: the run before (version {version}) ended at {}: {}",
                rfc3339(end.at_ms),
                end.reason
            )),
            Some(Before { version, .. }) => {
                lines
                    .push(format!("its data directory: the run before (version {version}) has no end noted"));
            }
            None => {}
        }
        if let Some(offset) = clock_offset(case).filter(|offset| offset.abs() >= 1_000) {
            lines.push(format!("its clock is {offset} ms off the middle of all"));
        }
        if own.stalled_ms > 0 || own.load > 50 {
            lines.push(format!(
                "it says: fsync {} ms, load {} %, for {}",
                own.stalled_ms,
                own.load,
                millis(own.unwell_ms)
            ));
        }
    }
    if let Some((_, why)) = case.unanswered.iter().find(|(n, _)| *n == name) {
        lines.push(format!("no answer to the one who asks: {why}"));
    }
    if !case.member {
        lines.push("it is no member of the newest view".to_owned());
    }
    for (by, s) in seen {
        let mut say = |text: String| lines.push(format!("{by}: {text}"));
        if s.state != PeerState::Up {
            let word = if s.state == PeerState::Down { "given up" } else { "suspected" };
            let names: Vec<_> = s.by.iter().map(ToString::to_string).collect();
            say(format!("{word}: no answer to probes of {} for {}", names.join(", "), millis(s.silent_ms)));
        } else if let Some(ms) = s.heard_ms {
            say(format!("heard it {} ago", millis(ms)));
        }
        if let Some(end) = s.farewell.as_ref().or(s.end.as_ref()) {
            say(format!("connection: {} ({} ago)", end.text, millis(end.ago_ms)));
        }
        if let Some(knock) = s.knock {
            let word = |knocked, refused| match knocked {
                Knocked::Refused => refused,
                Knocked::Silent => "nothing came back",
                Knocked::NoRoute => "no such host or no way to it",
            };
            say(format!(
                "knocked {} ago: its port: {}; its host: {}",
                millis(knock.ago_ms),
                word(knock.port, "closed"),
                word(knock.host, "answers")
            ));
        }
        if let [last, before, ..] = &s.runs[..] {
            let end = if before.farewell { "after a farewell" } else { "without a farewell before" };
            let version = if last.version == before.version {
                String::new()
            } else {
                format!(", version {} instead of {}", last.version, before.version)
            };
            say(format!("met a new run of it {} ago, {end}{version}", millis(last.ago_ms)));
        }
        if let Some((stalled, load, since)) = s.unwell {
            say(format!("it said of itself: fsync {stalled} ms, load {load} %, for {}", millis(since)));
        }
        if s.last_words.is_some() {
            say("heard its last words, with a crash report".to_owned());
        }
        if let Some((planned, ms)) = s.gone {
            let how = if planned { "left" } else { "was dropped from" };
            say(format!("it {how} the cluster {} ago", millis(ms)));
        }
    }
    lines.extend(case.reports.iter().take(3).map(|r| {
        let what = if r.kind == Kind::End { "end of the machine" } else { "panic" };
        format!("crash report of {}: {what}, {}: {}", rfc3339(r.at_ms), r.part, first_line(&r.message))
    }));
    lines
}
