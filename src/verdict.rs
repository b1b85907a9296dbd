//! Why a machine failed: what machines can say of it, and the verdict on that; pure.
//!
//! Nobody knows why another machine is silent. But each way to fail leaves other traces: a process that ends in order
//! says so, one that is killed leaves a closed port, a frozen one leaves its own port open and answers nothing, a lost
//! host or cable answers nothing at all, and a restarted machine knows itself how its last run ended.

mod answering;
mod lines;
mod past;
mod reach;
mod silent;
mod testimony;
mod word;

use ennead_ring::view::Name;
use serde_json::{Value, json};

use self::answering::of_one_that_answers;
use self::lines::evidence;
use self::past::past;
use self::reach::misses;
use self::silent::{of_a_silent_one, of_one_that_left};
pub use self::testimony::{
    Before, EndKind, Ended, Ending, Happened, Knock, Knocked, Met, Offset, Own, Seen, Silence, Testimony,
};
pub use self::word::Word;
use crate::crash::{Report, rfc3339};
use crate::status::PeerState;
use crate::units::show_duration;

/// A clock this far from the middle of all clocks is wrong, in milliseconds.
pub(crate) const FAR_OFF: i64 = 10_000;
/// Things that happened earlier, and are told with a verdict.
const EARLIER: usize = 8;

/// All that is known of one machine.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which.
    pub name: Name,
    /// True if it is a member of the newest view.
    pub member: bool,
    /// What it says itself, if it answered.
    pub own: Option<Testimony>,
    /// What others say.
    pub others: Vec<Testimony>,
    /// Who did not answer the one who asks, and why.
    pub unanswered: Vec<(Name, String)>,
    /// Its crash reports, newest first.
    pub reports: Vec<Report>,
    /// The clock of the one who asks, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What is to be said of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Of which machine.
    pub machine: Name,
    /// In a word; `None` if nothing is known against it.
    pub word: Option<Word>,
    /// True if it answers now.
    pub up: bool,
    /// When it happened or began, in milliseconds since 1970.
    pub at_ms: Option<u64>,
    /// When it was over; `None` while it lasts.
    pub until_ms: Option<u64>,
    /// In a sentence.
    pub sentence: String,
    /// Who noticed.
    pub detected_by: Vec<Name>,
    /// What it rests on, line by line.
    pub evidence: Vec<String>,
    /// The crash report that belongs to it.
    pub report: Option<Report>,
    /// What happened to it before that and is over, newest first.
    pub earlier: Vec<Happened>,
}

impl Verdict {
    /// True if something is wrong with it now, as far as anybody knows.
    pub fn lasts(&self) -> bool {
        self.word.is_some() && self.until_ms.is_none()
    }

    /// As `kvctl why --json` prints it.
    pub fn to_json(&self) -> Value {
        let earlier = |h: &Happened| {
            let (at, until) = (rfc3339(h.from_ms), rfc3339(h.until_ms));
            json!({ "verdict": h.word.word(), "at": at, "until": until, "summary": h.what })
        };
        json!({
            "machine": self.machine.to_string(),
            "verdict": self.word.map(Word::word),
            "summary": self.sentence,
            "up": self.up,
            "at": self.at_ms.map(rfc3339),
            "until": self.until_ms.map(rfc3339),
            "detected_by": self.detected_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "evidence": self.evidence,
            "report": self.report,
            "earlier": self.earlier.iter().map(earlier).collect::<Vec<_>>(),
        })
    }
}

/// The finding: a word, since when, and why in a sentence.
struct Finding {
    word: Option<Word>,
    at_ms: Option<u64>,
    until_ms: Option<u64>,
    sentence: String,
    report: Option<Report>,
}

fn found(word: Word, at_ms: Option<u64>, sentence: impl Into<String>) -> Finding {
    Finding { word: Some(word), at_ms, until_ms: None, sentence: sentence.into(), report: None }
}

/// Joins what is known into a verdict.
pub fn judge(case: &Case) -> Verdict {
    let seen: Vec<(Name, &Seen)> =
        case.others.iter().filter_map(|t| Some((t.by, t.seen.as_ref()?))).collect();
    let own = case.own.as_ref().and_then(|t| t.own.as_ref());
    let mut past = past(case, own, &seen);
    let finding = match own {
        _ if !case.member && seen.iter().any(|(_, s)| matches!(s.gone, Some((true, _)))) => {
            of_one_that_left(case, &seen)
        }
        Some(own) => of_one_that_answers(case, own, &seen, &mut past),
        None => of_a_silent_one(case, &seen),
    };
    // What the report of the finding says is not told twice.
    past.retain(|past| {
        past.report.is_none() || past.report.as_ref().map(|r| &r.id) != finding.report.as_ref().map(|r| &r.id)
    });
    let mut detected_by: Vec<Name> = seen.iter().flat_map(|(by, s)| noticed(*by, s)).collect();
    detected_by.sort();
    detected_by.dedup();
    Verdict {
        machine: case.name,
        word: finding.word,
        up: own.is_some(),
        at_ms: finding.at_ms,
        until_ms: finding.until_ms,
        sentence: finding.sentence,
        detected_by,
        evidence: evidence(case, own, &seen),
        report: finding.report,
        earlier: past.into_iter().take(EARLIER).map(|past| past.happened).collect(),
    }
}

/// Those who noticed something, as one of them tells.
fn noticed(by: Name, seen: &Seen) -> Vec<Name> {
    let mut names = Vec::new();
    if seen.state != PeerState::Up {
        names.clone_from(&seen.by);
    }
    let restarted = seen.runs.len() > 1 || seen.farewell.is_some();
    let far_off = seen.clock.is_some_and(|clock| clock.far_ms.is_some());
    if restarted || far_off || seen.silence.is_some() || seen.unwell.is_some() || misses(seen) {
        names.push(by);
    }
    names
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

pub(crate) fn millis(ms: u64) -> String {
    show_duration(std::time::Duration::from_millis(ms))
}

#[cfg(test)]
mod tests;
