//! What a run tells: its counts, its trace, and the digest by which two runs alike are known.

use std::collections::BTreeMap;

use ennead_ring::Loaded;
use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Envelope, Message, Outcome};

use super::checker::Op;
use super::world::World;
use super::{MS, SEC};

/// How many of what a run had.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) never: u64,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) messages: u64,
    pub(crate) rotten: u64,
    /// Of the audit: its longest call, in nanoseconds.
    pub(crate) slowest: u64,
}

/// A run that went well.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Two runs alike have the same.
    pub(crate) digest: u64,
    pub(crate) steps: u64,
    pub(crate) virtual_time: u64,
    pub(crate) counts: Counts,
    /// How often each kind of thing was said.
    pub(crate) probes: BTreeMap<&'static str, u64>,
    pub(crate) trace: Vec<String>,
    pub(crate) histories: Vec<Vec<Op>>,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) at: u64,
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, at, what, .. } = self;
        let (s, ms) = (at / SEC, at % SEC / MS);
        writeln!(f, "seed {seed}, step {step}, {s}.{ms:03} s: {what}")?;
        write!(f, "again: SIM_SEED={seed} cargo test -p ennead-ring --test sim one_seed -- --nocapture")
    }
}

impl World {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {:>6} {}", self.now as f64 / 1e9, self.steps, line()));
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
            Input::Wake => "wake",
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
        }
    }
}

pub(super) fn describe(envelope: &Envelope) -> String {
    let extra = match &envelope.message {
        Message::Request { op, handed, .. } => format!(" {op:?}{}", if *handed { " handed" } else { "" }),
        Message::Outcome { outcome, .. } => format!(" {outcome:?}"),
        Message::Accept { state, .. } => format!(" version {}", state.version),
        Message::Answer { answer, .. } => format!(" {answer:?}"),
        _ => String::new(),
    };
    let mut line = format!("{}{extra}", envelope.message);
    line.truncate(300);
    line
}

/// An outcome in a word or two.
pub(crate) fn said(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Value(None) => "no value",
        Outcome::Value(Some(_)) => "value",
        Outcome::Mismatch { .. } => "mismatch",
        Outcome::Absent => "nothing to delete",
        Outcome::TooLate { .. } => "too late",
        Outcome::NoQuorum { .. } => "no quorum",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Overloaded { .. } => "overloaded",
        Outcome::Refused(_) => "not tried",
    }
}
