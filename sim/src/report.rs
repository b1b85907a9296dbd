//! What a run tells: its counts, its trace, and the digest by which two runs alike are known.

use std::collections::BTreeMap;

use ennead_ring::effect::{Change, Input};
use ennead_ring::message::{Addr, DecreeAnswer, Envelope, Held, Message, Outcome};
use ennead_ring::{Loaded, Node, View};

use crate::checker::{Call, Op, Reply};
use crate::measure::Metrics;
use crate::survey::Survey;
use crate::views::brief;
use crate::world::World;
use crate::{MS, SEC};

/// How many of what a run had.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Calls with an outcome.
    pub answered: u64,
    /// Calls that may still take effect.
    pub unknown: u64,
    /// Calls that were told that nothing was changed.
    pub never: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Times that links were cut.
    pub cuts: u64,
    /// Sent, lost ones too.
    pub messages: u64,
    /// Records that were spoiled.
    pub rotten: u64,
    /// Of the audit: its longest call, in nanoseconds.
    pub slowest: u64,
    /// Views after the first.
    pub views: u64,
    /// After healing: until membership was as wanted; then, after the audit, until all copies were alike.
    pub rest: u64,
    /// See `rest`.
    pub even: u64,
}

/// A run that went well.
#[derive(Clone, Debug)]
pub struct Report {
    /// Two runs alike have the same.
    pub digest: u64,
    /// Inputs handled.
    pub steps: u64,
    /// In nanoseconds.
    pub virtual_time: u64,
    /// How many of what.
    pub counts: Counts,
    /// Its figures.
    pub metrics: Metrics,
    /// How often each kind of thing was said.
    pub probes: BTreeMap<&'static str, u64>,
    /// What happened, line by line, where it was wanted.
    pub trace: Vec<String>,
    /// Of each key, what its callers saw.
    pub histories: Vec<Vec<Op>>,
    /// When each call ended, and how long it took, in nanoseconds.
    pub took: Vec<(u64, u64)>,
    /// What became of each call of a client, in a run in which moments were wanted at which it is told how all stand.
    pub calls: Vec<Called>,
    /// How all stood, at each moment at which that was wanted.
    pub surveys: Vec<Survey>,
}

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// By which client: the first is 0.
    pub client: usize,
    /// When it ended, and how long it took, in virtual nanoseconds.
    pub at: u64,
    /// See `at`.
    pub took: u64,
    /// What was asked.
    pub call: Call,
    /// What was told; [`Reply::Nothing`] of a read of one copy, whatever it held.
    pub reply: Reply,
    /// It asked for one copy.
    pub one: bool,
    /// The first word of a coordinator that was no answer, such as "no quorum", and after how long it came.
    pub refused: Option<(&'static str, u64)>,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// By which it is met again.
    pub seed: u64,
    /// Membership changed: the seed's profile is another one.
    pub moving: bool,
    /// Inputs handled until then.
    pub step: u64,
    /// When, in virtual nanoseconds.
    pub at: u64,
    /// Which claim did not hold, and how.
    pub what: String,
    /// What happened, line by line, where it was wanted.
    pub trace: Vec<String>,
    /// Its figures until then.
    pub metrics: Box<Metrics>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, moving, step, at, what, .. } = self;
        let (s, ms) = (at / SEC, at % SEC / MS);
        let seed = format!("{}{seed}", if *moving { "m" } else { "" });
        writeln!(f, "seed {seed}, step {step}, {s}.{ms:03} s: {what}")?;
        write!(f, "again: SIM_SEED={seed} cargo test -p ennead-sim --test sim one_seed -- --nocapture")
    }
}

impl World {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {:>6} {}", self.now as f64 / 1e9, self.steps, line()));
        }
    }

    /// Whose answers do not come, as a machine sees it.
    pub(super) fn probe_late(&mut self, m: usize, node: &Node) {
        let Some((hangs, ..)) = self.profile.hang else { return };
        let name = self.computers[hangs].me.name;
        for (late, by) in node.late() {
            self.met(if late != name {
                "called late, and is not"
            } else if by.len() >= 3 {
                "called late by three"
            } else {
                "called late"
            });
        }
        if node.is_unwell() {
            self.met(if m == hangs { "knows that it is late" } else { "called late, and is not" });
        }
    }

    pub(super) fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(super) fn label(&self, addr: Addr) -> String {
        match addr {
            Addr::Machine(machine) => match self.by_name.get(&machine.name) {
                Some(i) => format!("s{}", i + 1),
                None => machine.to_string(),
            },
            Addr::Client(n) => format!("client {n}"),
        }
    }

    pub(super) fn probe(&mut self, input: &Input) {
        let what = match input {
            Input::Message { envelope, .. } => match &envelope.message {
                Message::Request { handed: true, .. } => "handed over",
                Message::Outcome { outcome, .. } => said(outcome),
                message => message.kind(),
            },
            Input::Loaded { found: Loaded::Unreadable, .. } => "unreadable",
            Input::Loaded { .. } => "loaded",
            Input::Reachable { .. } => "hint",
            Input::Scanned { .. } => "scanned",
            Input::Wake => "wake",
            Input::Health(_) => "health",
        };
        *self.probes.entry(what).or_default() += 1;
    }

    /// A client was told this.
    pub(crate) fn probe_outcome(&mut self, outcome: &Outcome) {
        *self.probes.entry(said(outcome)).or_default() += 1;
    }

    pub(super) fn mix_input(&mut self, m: usize, input: &Input) {
        self.mix(self.now);
        self.mix(m as u64);
        match input {
            Input::Message { from, envelope } => {
                let from = match from {
                    Addr::Machine(machine) => self.by_name.get(&machine.name).map_or(0, |&i| i as u64),
                    Addr::Client(n) => 1_000 + n,
                };
                self.mix(from);
                for byte in envelope.message.kind().bytes() {
                    self.mix(u64::from(byte));
                }
                if let Some(ballot) = envelope.message.ballot() {
                    self.mix(ballot.time.nanos());
                }
            }
            Input::Loaded { .. } => self.mix(1),
            Input::Reachable { reachable, .. } => self.mix(2 + u64::from(*reachable)),
            Input::Wake => self.mix(4),
            Input::Scanned { found, .. } => self.mix(5 + found.len() as u64),
            Input::Health(_) => self.mix(6),
        }
    }
}

/// What is handed to storage, in a few words.
pub(super) fn written(change: &Change) -> String {
    match change {
        Change::Record { key, record } => {
            let (stamp, votes) = (record.stamp, record.votes);
            format!("record {} {stamp} votes {votes:?}{}", key.digest(), grave(record.state.value.is_none()))
        }
        Change::Forget { key } => format!("that it forgets {}", key.digest()),
        Change::Limits(limits) => {
            format!("floor {}, ceiling {}, bound {}", limits.floor, limits.ceiling, limits.bound.time)
        }
        Change::View(view) => brief(view),
        Change::Account(account) => {
            let left = if account.left { ", left" } else { "" };
            format!("that e{} is settled, synced in {:?}{left}", account.settled, account.synced)
        }
        Change::Decree(decree) => {
            let accepted = decree.accepted.as_ref().map(|(ballot, view)| format!("{ballot} {}", brief(view)));
            format!("decree after e{}: promised {}, accepted {accepted:?}", decree.epoch, decree.promised)
        }
    }
}

fn grave(is: bool) -> &'static str {
    if is { " tombstone" } else { "" }
}

/// An input that is no message, in a few words.
pub(super) fn happened(input: &Input) -> String {
    let found = |found: &Loaded| match found {
        Loaded::Nothing => "nothing".to_string(),
        Loaded::Record(record) => format!("{} votes {:?}", record.stamp, record.votes),
        Loaded::Unreadable => "unreadable".to_string(),
    };
    match input {
        Input::Loaded { key, found: f } => format!("loaded {}: {}", key.digest(), found(f)),
        Input::Scanned { scan, found: all, end, .. } => {
            let all: Vec<String> =
                all.iter().map(|(key, f)| format!("{}: {}", key.digest(), found(f))).collect();
            format!("scan {}: {}{}", scan.0, all.join(", "), if *end { "; the end" } else { "" })
        }
        Input::Reachable { name, reachable } => {
            format!("{name} {}", if *reachable { "can be reached" } else { "cannot be reached" })
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn describe(envelope: &Envelope) -> String {
    let views = |views: &[std::sync::Arc<View>]| views.iter().map(|v| brief(v)).collect::<Vec<_>>().join(" ");
    let extra = match &envelope.message {
        Message::Request { op, handed, .. } => format!(" {op:?}{}", if *handed { " handed" } else { "" }),
        Message::Outcome { outcome, .. } => format!(" {outcome:?}"),
        Message::Accept { state, .. } => format!(" version {}", state.version),
        Message::Answer { answer, .. } => format!(" {answer:?}"),
        Message::NotTaken { reason } => format!(" {reason}"),
        Message::Birth { view } | Message::ViewTold { view, .. } => format!(" {}", brief(view)),
        Message::ViewsAsk { after } => format!(" after e{after}"),
        Message::ViewsTold { views: all, settled } => format!(" {}, settled e{settled}", views(all)),
        Message::DecreeAccept { view, .. } => format!(" {}", brief(view)),
        Message::DecreeAnswer { answer, .. } => match answer {
            DecreeAnswer::Promised { accepted, .. } => {
                let accepted = accepted.as_ref().map(|(ballot, view)| format!("{ballot} {}", brief(view)));
                format!(" promised, accepted {accepted:?}")
            }
            DecreeAnswer::Accepted { .. } => " accepted".to_string(),
            DecreeAnswer::Refused { .. } => " refused".to_string(),
        },
        Message::Wish { wish, .. } => format!(" {wish:?}"),
        Message::Wished { refused, .. } => format!(" {refused:?}"),
        Message::Word { synced, warm } => format!(" synced {synced}, warm {warm}"),
        Message::Settled { epoch } | Message::Collect { epoch, .. } => format!(" e{epoch}"),
        Message::Tell { request, .. } => {
            let after = request.after.as_ref().map(|key| key.digest());
            format!(
                " for {:?} after {after:?}, {} claims, since {:?}{}, without {:?}",
                request.purpose,
                request.claims.len(),
                request.since,
                if request.handoff { ", handoff" } else { "" },
                request.without
            )
        }
        Message::Told { page, .. } => {
            let entries: Vec<String> = page
                .entries
                .iter()
                .map(|entry| match &entry.held {
                    Held::Record { stamp, votes, tombstone, state } => {
                        let state = if state.is_some() { " whole" } else { "" };
                        format!("{}: {stamp} votes {votes:?}{}{state}", entry.key.digest(), grave(*tombstone))
                    }
                    Held::Unreadable => format!("{}: unreadable", entry.key.digest()),
                })
                .collect();
            let account = &page.account;
            format!(
                ", settled e{}, synced {:?}, bound {}, agreed {:b}: {}{}",
                account.settled,
                account.synced,
                page.bound.time,
                page.agreed,
                entries.join("; "),
                if page.upto.is_none() { "; the end" } else { "" }
            )
        }
        Message::Probe { gossip, .. } | Message::ProbeFor { gossip, .. } | Message::Alive { gossip, .. } => {
            let news: Vec<String> = gossip.news().iter().map(|n| format!("{} {:?}", n.of, n.said)).collect();
            format!(" {}", news.join("; "))
        }
        Message::Fetch { keys, .. } => format!(" {} keys", keys.len()),
        Message::Fetched { records, .. } => format!(" {} records", records.len()),
        _ => String::new(),
    };
    let mut line = format!("{}{extra} [e{}]", envelope.message, envelope.epoch);
    if line.len() > 400 {
        let cut = (0..=400).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
        line.truncate(cut);
    }
    line
}

/// An outcome in a word or two.
pub(crate) fn said(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Counted { .. } => "counted",
        Outcome::Uncountable { .. } => "uncountable",
        Outcome::Value(None) => "no value",
        Outcome::Value(Some(_)) => "value",
        Outcome::Mismatch { .. } => "mismatch",
        Outcome::Absent => "nothing to delete",
        Outcome::TooLate { .. } => "too late",
        Outcome::NoQuorum { .. } => "no quorum",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Overloaded { .. } => "overloaded",
        Outcome::NoRoom { .. } => "no room",
        Outcome::Refused(_) | Outcome::NotHere => "not tried",
    }
}
