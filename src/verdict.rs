//! Why a machine failed: what machines can say of it, and the verdict on that; pure.
//!
//! Nobody knows why another machine is silent. But each way to fail leaves other traces: a process that ends in order
//! says so, one that is killed leaves a closed port, a frozen one leaves its own port open and answers nothing, a lost
//! host or cable answers nothing at all, and a restarted machine knows itself how its last run ended.

use bincode::{Decode, Encode};
use ennead_ring::view::Name;
use serde_json::{Value, json};

use crate::crash::{Cause, Kind, Report, rfc3339};
use crate::status::PeerState;
use crate::units::show_duration;

/// A clock this far from the middle of all clocks is wrong, in milliseconds.
const FAR_OFF: i64 = 10_000;
/// How lately a machine was heard by one who reaches it, in milliseconds.
const LATELY: u64 = 3_000;
/// How long a machine is missed before those who miss it are on another side, in milliseconds.
const MISSED: u64 = 1_500;
/// A load, in percent, at which work is refused.
const FULL: u8 = 100;

/// What one machine can say of another, or of itself. Times are ages, in milliseconds: no two clocks agree.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Testimony {
    /// Who speaks.
    pub by: Name,
    /// Its clock when it said this, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What it says of itself, where it was asked about itself.
    pub own: Option<Own>,
    /// What it has seen of the machine asked about.
    pub seen: Option<Seen>,
}

/// What a machine says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Own {
    /// This run of the program.
    pub run: u64,
    /// Since it began.
    pub uptime_ms: u64,
    /// Version of the program.
    pub version: String,
    /// How long its disk takes for an fsync while that is not well; else 0.
    pub stalled_ms: u32,
    /// How busy it is, in percent.
    pub load: u8,
    /// Since when the disk or the load is as it is.
    pub unwell_ms: u64,
    /// The run before this one, as the data directory tells.
    pub before: Option<Before>,
}

/// A run that is over.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Before {
    /// Which.
    pub run: u64,
    /// Version of the program.
    pub version: String,
    /// How it ended; nothing if it said nothing: then it was killed.
    pub ended: Option<Ended>,
}

/// An orderly end.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ended {
    /// Why.
    pub reason: String,
    /// True if it could not go on.
    pub failed: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What one machine has seen of another.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Seen {
    /// What its failure detector says.
    pub state: PeerState,
    /// Since the first probe that was not answered; 0 while it is up.
    pub silent_ms: u64,
    /// Whose probes were not answered: the first few.
    pub by: Vec<Name>,
    /// Since it was last heard.
    pub heard_ms: Option<u64>,
    /// The last run of it that was met, and the one before.
    pub runs: Vec<Met>,
    /// Since when there is no connection, though one is wanted.
    pub lost_ms: Option<u64>,
    /// How the last connection ended, or the last dial failed, since it was last met.
    pub end: Option<Ending>,
    /// Its word of farewell, since it was last met.
    pub farewell: Option<Ending>,
    /// What the last knocks said, since it was last met.
    pub knock: Option<Knock>,
    /// Its own word that it is not well: of fsync milliseconds, load, and for how long.
    pub unwell: Option<(u32, u8, u64)>,
    /// The crash report that it sent with its last words, as JSON.
    pub last_words: Option<String>,
    /// It is no member any more: whether it went as it had been asked to, and how long ago.
    pub gone: Option<(bool, u64)>,
}

/// A run of a machine's program, as its hello told it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Met {
    /// Which run.
    pub run: u64,
    /// Version of the program.
    pub version: String,
    /// How long ago it was first met.
    pub ago_ms: u64,
    /// True if the run said farewell.
    pub farewell: bool,
}

/// How a connection ended, or why there was none.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ending {
    /// What kind of an end.
    pub kind: EndKind,
    /// In words.
    pub text: String,
    /// How long ago.
    pub ago_ms: u64,
}

/// Kinds of ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EndKind {
    /// The process said that it ends.
    Farewell,
    /// The other end answered, and not as a member of this cluster and version would.
    Incompatible,
    /// Nothing came back.
    Silence,
    /// Something else.
    Other,
}

/// What became of a datagram to a port of the machine's, and to ports nobody listens at on the same host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Knock {
    /// At its own port.
    pub port: Knocked,
    /// At others of its host.
    pub host: Knocked,
    /// How long ago.
    pub ago_ms: u64,
}

/// See [`Knock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Knocked {
    /// The host says that nobody listens there.
    Refused,
    /// Nothing came back.
    Silent,
    /// The network says that there is no such host or no way to it.
    NoRoute,
}

/// The verdict in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Word {
    /// It ended, and said why.
    Exit,
    /// It panicked.
    Panic,
    /// Its process ended without a word.
    Killed,
    /// Its host is not there.
    HostDown,
    /// Nothing comes back from its host: it may be the host or the network.
    Unreachable,
    /// Some reach it, some do not.
    Partitioned,
    /// Its process is there and stands still.
    Paused,
    /// Its disk takes much too long.
    DiskStalled,
    /// Its disk, or what is on it, failed.
    DiskFailed,
    /// It is asked for more than it can do.
    Overloaded,
    /// Its clock is far off.
    Clock,
    /// It speaks another version, or is of another cluster.
    Incompatible,
    /// It was restarted with another version.
    Upgraded,
    /// It handed its data over and went.
    Left,
}

impl Word {
    /// As `kvctl why` prints it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Panic => "panic",
            Self::Killed => "killed",
            Self::HostDown => "host_down",
            Self::Unreachable => "unreachable",
            Self::Partitioned => "partitioned",
            Self::Paused => "paused",
            Self::DiskStalled => "disk_stalled",
            Self::DiskFailed => "disk_failed",
            Self::Overloaded => "overloaded",
            Self::Clock => "clock",
            Self::Incompatible => "incompatible",
            Self::Upgraded => "upgraded",
            Self::Left => "left",
        }
    }
}

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
    if seen.farewell.is_some() || seen.unwell.is_some() || misses(seen) {
        names.push(by);
    }
    names
}

/// True if this machine gets no answer from it. Its detector may have been told by others that it lives; then no
/// connection and no answer to knocks say the same.
fn misses(seen: &Seen) -> bool {
    let unanswered = seen.end.as_ref().is_some_and(|end| end.kind == EndKind::Silence)
        && seen.knock.is_some_and(|knock| knock.host != Knocked::Refused && knock.ago_ms <= LATELY);
    seen.state != PeerState::Up || unanswered
}

/// For how long it has got none.
fn missed_for(seen: &Seen) -> u64 {
    seen.silent_ms.max(seen.lost_ms.unwrap_or(0))
}

/// Its clock against the middle of all clocks, in milliseconds.
fn clock_offset(case: &Case) -> Option<i64> {
    let own = case.own.as_ref()?.wall_ms;
    let mut all: Vec<u64> = case.others.iter().map(|t| t.wall_ms).chain([own]).collect();
    if all.len() < 3 {
        all.push(case.now_ms);
    }
    all.sort_unstable();
    let middle = *all.get(all.len() / 2)?;
    Some(i64::try_from(own).ok()?.saturating_sub(i64::try_from(middle).ok()?))
}

fn of_one_that_answers(case: &Case, own: &Own, seen: &[(Name, &Seen)]) -> Finding {
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

/// What the report of its end says.
fn of_its_end(name: Name, report: &Report) -> Finding {
    let (word, what) = match report.cause {
        Cause::Storage => (Word::DiskFailed, "its disk failed"),
        Cause::Panic | Cause::Transport => (Word::Panic, "it panicked"),
    };
    let text = format!("{name} ended: {what}: {}", first_line(&report.message));
    Finding { report: Some(report.clone()), ..found(word, Some(report.at_ms), text) }
}

fn of_a_silent_one(case: &Case, seen: &[(Name, &Seen)]) -> Finding {
    let name = case.name;
    let ago = |ms: u64| Some(case.now_ms.saturating_sub(ms));
    if let Some((_, s)) = seen.iter().find(|(_, s)| matches!(s.gone, Some((true, _)))) {
        let text = format!("{name} handed its data over and left the cluster");
        return found(Word::Left, s.gone.and_then(|(_, ms)| ago(ms)), text);
    }
    let silent = seen.iter().map(|(_, s)| missed_for(s)).max().filter(|ms| *ms > 0).and_then(ago);
    // The run that was met last, by whoever met it last: reports of earlier ones say nothing of this end.
    let latest = seen.iter().filter_map(|(_, s)| s.runs.first()).min_by_key(|met| met.ago_ms);
    let run = latest.map(|met| format!("{:016x}", met.run));
    let told = seen.iter().filter_map(|(_, s)| Report::from_json(s.last_words.as_ref()?.as_bytes()));
    let mut ends = told.chain(case.reports.iter().cloned()).filter(|r| r.kind == Kind::End);
    if let Some(report) = ends.find(|r| run.as_ref().is_none_or(|run| *run == r.run)) {
        return of_its_end(name, &report);
    }
    let knocks: Vec<Knock> = seen.iter().filter_map(|(_, s)| s.knock).collect();
    let farewell = seen.iter().filter_map(|(_, s)| s.farewell.as_ref()).min_by_key(|end| end.ago_ms);
    if let Some(end) = farewell {
        return found(Word::Exit, ago(end.ago_ms), format!("{name} ended in order: {}", end.text));
    }
    let incompatible =
        seen.iter().filter_map(|(_, s)| s.end.as_ref()).find(|end| end.kind == EndKind::Incompatible);
    if let Some(end) = incompatible {
        let text = format!("{name} answers, and is none of this cluster and version: {}", end.text);
        return found(Word::Incompatible, ago(end.ago_ms), text);
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
    Finding { word: None, at_ms: None, sentence, report: None }
}

/// Who reaches it: has heard it lately, and after those who miss it did last.
fn reaching(case: &Case, seen: &[(Name, &Seen)]) -> Vec<Name> {
    let missed = seen.iter().filter(|(_, s)| misses(s)).map(|(_, s)| missed_for(s)).max().unwrap_or(u64::MAX);
    let reaches = |s: &Seen| {
        !misses(s) && s.heard_ms.is_some_and(|ms| ms <= LATELY && ms.saturating_add(MISSED) <= missed)
    };
    let mut names: Vec<Name> = seen.iter().filter(|(_, s)| reaches(s)).map(|(by, _)| *by).collect();
    if case.own.is_some() {
        // The one who asks reaches it, and that is somebody.
        names.dedup();
    }
    names
}

fn sides(name: Name, missing: &[Name], reaching: &[Name]) -> String {
    let list = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let reached = if reaching.is_empty() { "the one who asks".to_owned() } else { list(reaching) };
    format!("{name} is cut off from some: {} get no answer from it; {reached} reach it", list(missing))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn millis(ms: u64) -> String {
    show_duration(std::time::Duration::from_millis(ms))
}

/// Everything, line by line, first what it says itself.
fn evidence(case: &Case, own: Option<&Own>, seen: &[(Name, &Seen)]) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn name(i: u8) -> Name {
        Name::new(([10, 0, 0, i], 9595).into())
    }

    fn up() -> Seen {
        Seen {
            state: PeerState::Up,
            silent_ms: 0,
            by: vec![],
            heard_ms: Some(200),
            runs: vec![Met { run: 7, version: "1".into(), ago_ms: 60_000, farewell: false }],
            lost_ms: None,
            end: None,
            farewell: None,
            knock: None,
            unwell: None,
            last_words: None,
            gone: None,
        }
    }

    fn silent() -> Seen {
        let text = "timed out: nothing answers".to_owned();
        let end = Some(Ending { kind: EndKind::Silence, text, ago_ms: 3_000 });
        let by = vec![name(2), name(3)];
        Seen { state: PeerState::Down, silent_ms: 5_000, by, heard_ms: Some(5_000), end, ..up() }
    }

    fn knocked(port: Knocked, host: Knocked) -> Seen {
        Seen { knock: Some(Knock { port, host, ago_ms: 300 }), ..silent() }
    }

    fn own() -> Own {
        Own {
            run: 7,
            uptime_ms: 2_000,
            version: "1".into(),
            stalled_ms: 0,
            load: 0,
            unwell_ms: 0,
            before: None,
        }
    }

    fn before(ended: Option<Ended>) -> Option<Before> {
        Some(Before { run: 6, version: "1".into(), ended })
    }

    fn report(run: u64, kind: Kind, cause: Cause) -> Report {
        Report {
            id: "x".into(),
            kind,
            cause,
            message: "slot 3\nmore".into(),
            location: None,
            backtrace: String::new(),
            thread: "ennead-core".into(),
            part: "core loop".into(),
            log: vec![],
            version: "1".into(),
            uptime_ms: 1,
            restarts: 0,
            machine: name(1).to_string(),
            incarnation: "1".into(),
            run: format!("{run:016x}"),
            at_ms: NOW - 9_000,
        }
    }

    fn testimony(by: u8, own: Option<Own>, seen: Option<Seen>) -> Testimony {
        Testimony { by: name(by), wall_ms: NOW, own, seen }
    }

    fn case(own: Option<Own>, others: Vec<Seen>, reports: Vec<Report>) -> Case {
        let unanswered = if own.is_none() { vec![(name(1), "no answer".into())] } else { vec![] };
        let others = others.into_iter().zip(2..).map(|(seen, by)| testimony(by, None, Some(seen)));
        Case {
            name: name(1),
            member: true,
            own: own.map(|own| testimony(1, Some(own), None)),
            others: others.collect(),
            unanswered,
            reports,
            now_ms: NOW,
        }
    }

    fn word(case: &Case) -> Option<Word> {
        let verdict = judge(case);
        assert!(verdict.sentence.contains(&name(1).to_string()), "{}", verdict.sentence);
        assert!(verdict.word.is_none() || !verdict.evidence.is_empty());
        verdict.word
    }

    #[test]
    fn each_way_to_fail_has_its_own_verdict() {
        use Knocked::{NoRoute, Refused, Silent};
        let ended = |failed| Some(Ended { reason: "SIGTERM".into(), failed, at_ms: NOW - 3_000 });
        let end = |kind| Some(Ending { kind, text: "what it said".into(), ago_ms: 4_000 });
        let all = |seen: Seen| vec![seen.clone(), seen.clone(), seen];
        let last_words = |cause| Seen {
            last_words: Some(report(7, Kind::End, cause).to_json()),
            farewell: end(EndKind::Farewell),
            ..silent()
        };
        let table = [
            // It does not answer.
            ("kill -9", case(None, all(knocked(Refused, Refused)), vec![]), Some(Word::Killed)),
            ("SIGSTOP", case(None, all(knocked(Silent, Refused)), vec![]), Some(Word::Paused)),
            ("cable cut", case(None, all(knocked(Silent, Silent)), vec![]), Some(Word::Unreachable)),
            ("host off", case(None, all(knocked(NoRoute, NoRoute)), vec![]), Some(Word::HostDown)),
            (
                "one knock of three got through",
                case(None, vec![knocked(Silent, Silent), knocked(Refused, Refused)], vec![]),
                Some(Word::Killed),
            ),
            ("not knocked yet", case(None, all(silent()), vec![]), Some(Word::Unreachable)),
            (
                "SIGTERM",
                case(
                    None,
                    all(Seen { farewell: end(EndKind::Farewell), ..knocked(Refused, Refused) }),
                    vec![],
                ),
                Some(Word::Exit),
            ),
            (
                "two versions",
                case(None, all(Seen { end: end(EndKind::Incompatible), ..silent() }), vec![]),
                Some(Word::Incompatible),
            ),
            (
                "died too often",
                case(None, vec![silent(), last_words(Cause::Panic)], vec![]),
                Some(Word::Panic),
            ),
            (
                "fsync failed",
                case(None, vec![silent(), last_words(Cause::Storage)], vec![]),
                Some(Word::DiskFailed),
            ),
            (
                "report in the ring",
                case(None, all(knocked(Silent, Silent)), vec![report(7, Kind::End, Cause::Panic)]),
                Some(Word::Panic),
            ),
            (
                "report of an earlier run",
                case(None, all(knocked(Refused, Refused)), vec![report(5, Kind::End, Cause::Panic)]),
                Some(Word::Killed),
            ),
            (
                "a part died before",
                case(None, all(knocked(Refused, Refused)), vec![report(7, Kind::Panic, Cause::Panic)]),
                Some(Word::Killed),
            ),
            (
                "some reach it",
                case(None, vec![knocked(Silent, Silent), up()], vec![]),
                Some(Word::Partitioned),
            ),
            (
                "some have not noticed",
                case(None, vec![knocked(Silent, Silent), Seen { heard_ms: Some(4_900), ..up() }], vec![]),
                Some(Word::Unreachable),
            ),
            ("left", case(None, all(Seen { gone: Some((true, 900)), ..silent() }), vec![]), Some(Word::Left)),
            (
                "dropped",
                case(None, all(Seen { gone: Some((false, 900)), ..knocked(Refused, Refused) }), vec![]),
                Some(Word::Killed),
            ),
            ("not missed yet", case(None, all(up()), vec![]), None),
            ("nobody tells", case(None, vec![], vec![]), None),
            // It answers.
            (
                "slow disk",
                case(Some(Own { stalled_ms: 900, ..own() }), all(up()), vec![]),
                Some(Word::DiskStalled),
            ),
            ("cut off from one", case(Some(own()), vec![silent(), up()], vec![]), Some(Word::Partitioned)),
            (
                "cut off from one, who was told that it lives",
                case(
                    Some(own()),
                    vec![
                        Seen { state: PeerState::Up, lost_ms: Some(4_000), ..knocked(Silent, Silent) },
                        up(),
                    ],
                    vec![],
                ),
                Some(Word::Partitioned),
            ),
            ("too much", case(Some(Own { load: 120, ..own() }), all(up()), vec![]), Some(Word::Overloaded)),
            (
                "killed, and back",
                case(Some(Own { before: before(None), ..own() }), all(up()), vec![]),
                Some(Word::Killed),
            ),
            (
                "ended, and back",
                case(Some(Own { before: before(ended(false)), ..own() }), all(up()), vec![]),
                Some(Word::Exit),
            ),
            (
                "failed, and back",
                case(
                    Some(Own { before: before(ended(true)), ..own() }),
                    all(up()),
                    vec![report(6, Kind::End, Cause::Storage)],
                ),
                Some(Word::DiskFailed),
            ),
            (
                "last words, no end noted",
                case(
                    Some(Own { before: before(None), ..own() }),
                    all(up()),
                    vec![report(6, Kind::End, Cause::Panic)],
                ),
                Some(Word::Panic),
            ),
            (
                "a part was begun again",
                case(
                    Some(Own { before: before(None), ..own() }),
                    all(up()),
                    vec![report(7, Kind::Panic, Cause::Panic)],
                ),
                Some(Word::Panic),
            ),
            (
                "upgraded",
                case(
                    Some(Own { version: "2".into(), before: before(ended(false)), ..own() }),
                    all(up()),
                    vec![],
                ),
                Some(Word::Upgraded),
            ),
            ("never failed", case(Some(own()), all(up()), vec![]), None),
        ];
        for (what, case, expected) in table {
            assert_eq!(word(&case), expected, "{what}: {:#?}", judge(&case));
        }
    }

    #[test]
    fn a_clock_is_judged_against_the_middle_of_all() {
        let mut off = case(Some(own()), vec![up(), up(), up()], vec![]);
        off.own.as_mut().unwrap().wall_ms = NOW + 60_000;
        assert_eq!(word(&off), Some(Word::Clock));
        let mut asker = case(Some(own()), vec![up(), up(), up()], vec![]);
        asker.now_ms = NOW - 60_000;
        assert_eq!(word(&asker), None, "it is the one who asks whose clock is off");
    }

    #[test]
    fn who_is_on_which_side_is_named() {
        let cut = case(None, vec![knocked(Knocked::Silent, Knocked::Silent), up()], vec![]);
        let verdict = judge(&cut);
        let expected = "10.0.0.1 is cut off from some: 10.0.0.2 get no answer from it; 10.0.0.3 reach it";
        assert_eq!(verdict.sentence, expected);
        assert_eq!(verdict.at_ms, Some(NOW - 5_000));
    }

    #[test]
    fn a_verdict_prints_as_scripts_expect_it() {
        let verdict = judge(&case(None, vec![silent(), silent()], vec![report(7, Kind::End, Cause::Panic)]));
        let json = verdict.to_json();
        assert_eq!((&json["machine"], &json["verdict"]), (&json!("10.0.0.1"), &json!("panic")));
        assert_eq!(json["at"], json!(rfc3339(NOW - 9_000)));
        assert_eq!(json["detected_by"], json!(["10.0.0.2", "10.0.0.3"]));
        assert_eq!(json["report"]["message"], json!("slot 3\nmore"));
        assert!(json["evidence"].as_array().is_some_and(|lines| lines.len() >= 3));
    }
}
