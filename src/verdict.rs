//! Why a machine failed: what machines can say of it, and the verdict on that; pure.
//!
//! Nobody knows why another machine is silent. But each way to fail leaves other traces: a process that ends in order
//! says so, one that is killed leaves a closed port, a frozen one leaves its own port open and answers nothing, a lost
//! host or cable answers nothing at all, and a restarted machine knows itself how its last run ended.

mod answering;
mod lines;
mod reach;
mod silent;
mod testimony;
mod word;

use ennead_ring::view::Name;
use serde_json::{Value, json};

use self::answering::of_one_that_answers;
use self::lines::evidence;
use self::reach::misses;
use self::silent::{of_a_silent_one, of_one_that_left};
pub use self::testimony::{Before, EndKind, Ended, Ending, Knock, Knocked, Met, Own, Seen, Testimony};
pub use self::word::Word;
use crate::crash::{Report, rfc3339};
use crate::status::PeerState;
use crate::units::show_duration;

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
    /// In a sentence.
    pub sentence: String,
    /// Who noticed.
    pub detected_by: Vec<Name>,
    /// What it rests on, line by line.
    pub evidence: Vec<String>,
    /// The crash report that belongs to it.
    pub report: Option<Report>,
}

impl Verdict {
    /// As `kvctl why --json` prints it.
    pub fn to_json(&self) -> Value {
        json!({
            "machine": self.machine.to_string(),
            "verdict": self.word.map(Word::word),
            "summary": self.sentence,
            "up": self.up,
            "at": self.at_ms.map(rfc3339),
            "detected_by": self.detected_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "evidence": self.evidence,
            "report": self.report,
        })
    }
}

/// The finding: a word, since when, and why in a sentence.
struct Finding {
    word: Option<Word>,
    at_ms: Option<u64>,
    sentence: String,
    report: Option<Report>,
}

fn found(word: Word, at_ms: Option<u64>, sentence: impl Into<String>) -> Finding {
    Finding { word: Some(word), at_ms, sentence: sentence.into(), report: None }
}

/// Joins what is known into a verdict.
pub fn judge(case: &Case) -> Verdict {
    let seen: Vec<(Name, &Seen)> =
        case.others.iter().filter_map(|t| Some((t.by, t.seen.as_ref()?))).collect();
    let own = case.own.as_ref().and_then(|t| t.own.as_ref());
    let finding = match own {
        _ if !case.member && seen.iter().any(|(_, s)| matches!(s.gone, Some((true, _)))) => {
            of_one_that_left(case, &seen)
        }
        Some(own) => of_one_that_answers(case, own, &seen),
        None => of_a_silent_one(case, &seen),
    };
    let mut detected_by: Vec<Name> = seen.iter().flat_map(|(by, s)| noticed(*by, s)).collect();
    detected_by.sort();
    detected_by.dedup();
    Verdict {
        machine: case.name,
        word: finding.word,
        up: own.is_some(),
        at_ms: finding.at_ms,
        sentence: finding.sentence,
        detected_by,
        evidence: evidence(case, own, &seen),
        report: finding.report,
    }
}

/// Those who noticed something, as one of them tells.
fn noticed(by: Name, seen: &Seen) -> Vec<Name> {
    let mut names = Vec::new();
    if seen.state != PeerState::Up {
        names.clone_from(&seen.by);
    }
    if seen.runs.len() > 1 || seen.farewell.is_some() || seen.unwell.is_some() || misses(seen) {
        names.push(by);
    }
    names
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn millis(ms: u64) -> String {
    show_duration(std::time::Duration::from_millis(ms))
}

#[cfg(test)]
mod tests;
