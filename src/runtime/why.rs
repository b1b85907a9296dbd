//! The core loop's part in finding out why machines fail: its own pulse, errands, testimony, others' last words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Ask, Envelope, Message, Outcome};
use ennead_ring::view::{Epoch, Name};
use ennead_ring::{Health, Standing, Suspect};
use tokio::sync::{mpsc, oneshot};

use super::{Core, now};
use crate::crash::{self, Context, Report, unix_ms};
use crate::errands::{Errand, Heard};
use crate::evidence::{self, Evidence};
use crate::health::Pulse;
use crate::status::PeerState;
use crate::verdict::{Before, Own, Testimony};

/// Between two readings of this machine's pulse.
const BEAT: Duration = Duration::from_millis(250);
/// Numbers of errands have this bit, and the node's own questions never do.
const ERRAND: u64 = 1 << 63;

/// What outlives a core loop.
pub(crate) struct Why {
    pub(crate) evidence: Evidence,
    /// Which run of the program this is.
    pub(crate) run: u64,
    /// The run before, as the data directory told.
    pub(crate) before: Option<Before>,
    pub(crate) crash: Option<Arc<Context>>,
    /// Others' last words, to be put into the ring.
    pub(crate) heard: mpsc::Sender<Heard>,
}

/// What one core loop needs.
pub(super) struct Beat {
    pub(super) next: Instant,
    pulse: Pulse,
    errands: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_errand: u64,
}

impl Beat {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { next: now + BEAT, pulse: Pulse::new(now), errands: BTreeMap::new(), next_errand: ERRAND }
    }
}

impl Beat {
    /// How this machine was at the last beat.
    pub(super) fn health(&self, now: Instant) -> Health {
        self.pulse.health(now).0
    }
}

impl Core<'_> {
    /// Reads this machine's pulse, if it is time to.
    pub(super) fn beat(&mut self) {
        let time = Instant::now();
        if time < self.beat.next {
            return;
        }
        let late = time.duration_since(self.beat.next);
        self.beat.next = time + BEAT;
        let (fsyncs, running) = self.parts.storage.fsyncs();
        let before = self.beat.pulse.health(time).0;
        let health = self.beat.pulse.read(time, &fsyncs, running, late);
        if health.is_unwell() != before.is_unwell() {
            match health.is_unwell() {
                true => tracing::warn!(fsync_ms = health.stalled_ms, "the disk of this machine is stalled"),
                false => tracing::info!("the disk of this machine is well again"),
            }
        }
        if let Some(crash) = &self.parts.why.crash {
            crash.set_restarts(self.parts.restarts.iter().sum());
        }
        self.parts.why.evidence.silent(self.silent());
        self.input(Input::Health(health));
    }

    /// Members that do not answer.
    fn silent(&self) -> Vec<Name> {
        let mut silent: Vec<Name> = self.node.suspects().into_iter().map(|s| s.name).collect();
        let members = self.node.view().map(|v| v.members()).unwrap_or_default();
        let peers = self.parts.peers.borrow();
        let unreached = members.iter().map(|m| m.machine.name).filter(|name| peers.is_unreached(*name));
        silent.extend(unreached);
        silent.sort();
        silent.dedup();
        silent
    }

    // -- errands -------------------------------------------------------------------------------------

    pub(super) fn on_errand(&mut self, errand: Errand) {
        let Errand { key, op, within, done } = errand;
        self.beat.errands.retain(|_, done| !done.is_closed());
        self.beat.next_errand += 1;
        let ask = self.beat.next_errand;
        self.beat.errands.insert(ask, done);
        let within = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let message = Message::Request { ask: Ask(ask), key, op, within, handed: false };
        let view = self.node.view();
        let envelope = Box::new(Envelope {
            cluster: view.map(|v| v.cluster()),
            epoch: view.map_or(Epoch::ZERO, |v| v.epoch()),
            message,
        });
        // From itself: what clients may not write, it may.
        self.input(Input::Message { from: Addr::Machine(self.parts.me), envelope });
    }

    /// What this machine is told by itself: the outcome of an errand goes no further.
    pub(super) fn errand_done(&mut self, envelope: Box<Envelope>) -> Option<Box<Envelope>> {
        match envelope.message {
            Message::Outcome { ask: Ask(ask), outcome } if ask & ERRAND != 0 => {
                if let Some(done) = self.beat.errands.remove(&ask) {
                    // Who does not wait any more asks again.
                    let _ = done.send(outcome);
                }
                None
            }
            _ => Some(envelope),
        }
    }

    // -- what is told and heard ----------------------------------------------------------------------

    /// What this machine knows of another's failures, or of its own.
    pub(super) fn testimony(&self, of: Name) -> Testimony {
        let why = self.parts.why;
        let is_me = of == self.parts.me.name;
        let own = is_me.then(|| {
            let (health, since) = self.beat.pulse.health(Instant::now());
            Own {
                run: why.run,
                uptime_ms: self.parts.started.elapsed().as_millis() as u64,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                stalled_ms: health.stalled_ms,
                load: health.load,
                unwell_ms: since.as_millis() as u64,
                before: why.before.clone(),
            }
        });
        let seen = (!is_me).then(|| why.evidence.seen(of, self.heard_of(of)));
        Testimony { by: self.parts.me.name, wall_ms: unix_ms(), own, seen }
    }

    fn heard_of(&self, of: Name) -> evidence::Heard {
        let mono = now(self.parts.started).mono;
        let ago = |at: u64| mono.0.saturating_sub(at) / 1_000_000;
        let suspect = self.node.suspects().into_iter().find(|s| s.name == of);
        let (state, silent_ms, by) = match suspect {
            None => (PeerState::Up, 0, Vec::new()),
            Some(Suspect { state: Standing::Suspect, since, by, .. }) => {
                (PeerState::Suspect, ago(since.mono.0), by)
            }
            Some(Suspect { state: Standing::Down, since, by, .. }) => {
                (PeerState::Down, ago(since.mono.0), by)
            }
        };
        let unwell = self.node.unwell().into_iter().find(|(name, ..)| *name == of);
        evidence::Heard {
            state,
            silent_ms,
            by,
            heard_ms: self.node.heard(of).map(|at| ago(at.0)),
            unwell: unwell.map(|(_, health, since)| (health.stalled_ms, health.load, ago(since.mono.0))),
        }
    }

    /// A machine ends, and leaves its crash report to us. It may speak for itself alone.
    pub(super) fn on_last_words(&self, from: Addr, text: String) {
        let Addr::Machine(machine) = from else { return };
        let Some(view) = self.node.view().filter(|view| view.has(machine)) else { return };
        let report = Report::from_json(text.as_bytes()).filter(|r| r.machine == machine.name.to_string());
        let Some(report) = report else {
            tracing::warn!(peer = %from, bytes = text.len(), "last words that are no crash report of its own");
            return;
        };
        tracing::warn!(peer = %from, message = crash::cut(&report.message, 200), "it ends, and these are its last words");
        self.parts.why.evidence.last_words(machine.name, text);
        let silent = self.silent();
        let others = view.members().iter().map(|m| m.machine.name);
        let before = others.filter(|n| *n < self.parts.me.name && *n != machine.name && !silent.contains(n));
        let rank = before.count() as u32;
        // Full: so many have died at once that their reports must come from their own disks.
        let _ = self.parts.why.heard.try_send((machine.name, report, rank));
    }
}
