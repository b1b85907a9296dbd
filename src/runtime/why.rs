//! The core loop's part in finding out why machines fail: its own pulse, errands, testimony, others' last words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Ask, Envelope, Message, Outcome};
use ennead_ring::view::{Epoch, Name};
use ennead_ring::{Health, Standing, Suspect};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

use super::{Core, now};
use crate::clock::unix_ms;
use crate::crash::{self, Context, Report};
use crate::diary::{Diary, Troubles};
use crate::errands::{Errand, Heard};
use crate::evidence::{self, Evidence};
use crate::health::Pulse;
use crate::program;
use crate::status::PeerState;
use crate::units::show_duration;
use crate::verdict::{Before, FAR_OFF, Happened, Own, Seen, Testimony, Word, millis};

/// Between two readings of this machine's pulse.
const BEAT: Duration = Duration::from_millis(250);
/// A loop that comes this much too late, and has used next to no time of the processor since, stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// Beats after that in which what took long took so long because of it.
const AWAKENING: u32 = 2;
/// Numbers of errands have this bit, and the node's own questions never do.
const ERRAND: u64 = 1 << 63;

/// What outlives a core loop.
pub(crate) struct Why {
    pub(crate) evidence: Evidence,
    /// Which run of the program this is.
    pub(crate) run: u64,
    /// The run before, as the data directory told.
    pub(crate) before: Option<Before>,
    /// What happened to it and is over.
    pub(crate) diary: Diary,
    pub(crate) crash: Option<Arc<Context>>,
    /// Others' last words, to be put into the ring.
    pub(crate) heard: mpsc::Sender<Heard>,
}

/// What one core loop needs.
pub(super) struct Beat {
    pub(super) next: Instant,
    pulse: Pulse,
    /// Whose answers did not come at the last beat.
    late: Vec<Name>,
    troubles: Troubles,
    /// Time of the processor that this thread has used, at the last beat.
    worked: Duration,
    /// Beats left of the [`AWAKENING`].
    awakening: u32,
    errands: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_errand: u64,
}

impl Beat {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            next: now + BEAT,
            pulse: Pulse::new(now),
            late: Vec::new(),
            troubles: Troubles::default(),
            worked: worked(),
            awakening: 0,
            errands: BTreeMap::new(),
            next_errand: ERRAND,
        }
    }
}

impl Beat {
    /// How this machine was at the last beat.
    pub(super) fn health(&self, now: Instant) -> Health {
        self.pulse.health(now).0
    }
}

/// Time of the processor that this thread has used so far.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
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
        let refused = self.node.turned_away() + self.border.turned_away();
        self.shed();
        if self.stood_still(late) {
            self.beat.awakening = AWAKENING;
        }
        let before = self.beat.pulse.health(time).0;
        self.beat.pulse.note_room(time, self.parts.storage.is_short_of_room());
        let health = match self.beat.awakening.checked_sub(1) {
            Some(left) => {
                self.beat.awakening = left;
                self.beat.pulse.begin_anew(time, &fsyncs, refused)
            }
            None => self.beat.pulse.read(time, &fsyncs, running, late, refused),
        };
        self.note_troubles(time, health);
        self.ask_a_clock();
        if health.is_unwell() != before.is_unwell() {
            match health.is_unwell() {
                true => tracing::warn!(fsync_ms = health.stalled_ms, "the disk of this machine is stalled"),
                false => tracing::info!("the disk of this machine is well again"),
            }
        }
        self.note_late();
        self.parts.why.evidence.silent(self.silent());
        self.input(Input::Health(health));
    }

    /// Says whose answers about keys do not come, and to whom, and when they come again.
    fn note_late(&mut self) {
        let late = self.node.late();
        for (name, by) in late.iter().filter(|(name, _)| !self.beat.late.contains(name)) {
            let by: Vec<String> = by.iter().map(|(by, ms)| format!("{by} for {ms} ms")).collect();
            tracing::warn!(peer = %name, waits = by.join(", "), "its answers do not come: it is asked last");
        }
        let names: Vec<Name> = late.into_iter().map(|(name, _)| name).collect();
        for name in self.beat.late.iter().filter(|name| !names.contains(name)) {
            tracing::info!(peer = %name, "its answers come again");
        }
        self.beat.late = names;
    }

    /// True if this machine did nothing since the last beat though its clock went on: somebody stopped the process, or
    /// the computer. It knows that afterwards, and for how long.
    fn stood_still(&mut self, late: Duration) -> bool {
        let worked = worked();
        let busy = worked.saturating_sub(std::mem::replace(&mut self.beat.worked, worked));
        if late < STOOD_STILL || busy > late / 4 {
            return false;
        }
        let (time, until_ms) = (show_duration(late), unix_ms());
        tracing::warn!(time, "this machine stood still: its process was stopped, or the computer");
        self.parts.why.diary.note(Happened {
            word: Word::Paused,
            from_ms: until_ms.saturating_sub(late.as_millis() as u64),
            until_ms,
            run: self.parts.why.run,
            what: format!("it stood still for {time}: its process was stopped, or the computer"),
        });
        true
    }

    /// Notes what was wrong with this machine and is over.
    fn note_troubles(&mut self, time: Instant, health: Health) {
        let Why { run, diary, evidence, .. } = self.parts.why;
        let disk = (health.stalled_ms > 0).then_some(health.stalled_ms.into());
        let load = (health.load >= 100).then(|| self.beat.pulse.refused());
        let clock = evidence.own_clock().map(i64::unsigned_abs).filter(|off| *off >= FAR_OFF.unsigned_abs());
        let over = [
            self.beat.troubles.see(time, Word::DiskStalled, disk, *run, |time, worst| {
                format!("its disk was stalled for {time}: an fsync took {}", millis(worst))
            }),
            self.beat.troubles.see(time, Word::Overloaded, load, *run, |time, worst| match worst {
                0 => format!("it was asked for more than it could do for {time}: its loop came too late"),
                n => format!(
                    "it was asked for more than it could do for {time}: up to {n} requests refused in 3 s"
                ),
            }),
            self.beat.troubles.see(time, Word::DiskFull, health.full.then_some(0), *run, |time, _| {
                format!("its disk was full for {time}: it took no values")
            }),
            self.beat.troubles.see(time, Word::Clock, clock, *run, |time, worst| {
                format!("its clock was {} off the others' for {time}", millis(worst))
            }),
        ];
        over.into_iter().flatten().for_each(|happened| diary.note(happened));
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
                version: program::version().to_owned(),
                stalled_ms: health.stalled_ms,
                load: health.load,
                refused: self.beat.pulse.refused(),
                unwell_ms: since.as_millis() as u64,
                before: why.before.clone(),
                past: why.diary.newest(),
            }
        });
        let seen = (!is_me).then(|| why.evidence.seen(of, self.heard_of(of)));
        let seen = seen.or_else(|| self.full_itself());
        Testimony { by: self.parts.me.name, wall_ms: unix_ms(), own, seen }
    }

    /// What others hear from this machine of its full disk. One alone has nobody who could say so.
    fn full_itself(&self) -> Option<Seen> {
        let time = Instant::now();
        let full = self.beat.pulse.full_for(time)?;
        let unwell = Some((0, self.beat.health(time).load, full.as_millis() as u64));
        let (state, by) = (PeerState::Up, Vec::new());
        let heard = evidence::Heard { state, silent_ms: 0, by, heard_ms: None, unwell };
        Some(self.parts.why.evidence.seen(self.parts.me.name, heard))
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
