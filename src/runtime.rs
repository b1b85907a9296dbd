//! Feeds inputs to the protocol and carries out its effects, in order.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::Zone;
use ennead_ring::effect::{Account, Change, Decree, Effect, Input, Limits, Mono, Now, Scan, Ticket};
use ennead_ring::message::{Addr, Envelope, Message};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::view::{Epoch, Machine, Name, View};
use tokio::sync::mpsc;

use crate::clock::unix_ns;
use crate::progress;
use crate::status::CheckStatus;
mod admit;
mod clocks;
mod gate;
mod look;
mod why;

use self::admit::Border;
use self::clocks::Clocks;
use self::gate::Gate;
use self::look::Look;
use self::why::Beat;
pub(crate) use self::why::Why;
use crate::errands::Errand;
use crate::http;
use crate::snapshot::Publish;
use crate::storage::{self, Restored, Storage, StorageError, StorageEvent};
use crate::transport::{self, CloseCode, Event, To, Transport};
use crate::wire::Frame;

/// Inputs taken before the writers of the connections get their turn. What clients ask costs little until it is served,
/// so that of it more is taken.
const BATCH: usize = 1_024;
/// What an input of others counts in it.
const DEAR: usize = 4;
/// A ballot or request this much ahead of our clock is logged loudly (section 12). It is obeyed.
const FAR_AHEAD: u64 = 24 * 3_600 * 1_000_000_000;

/// What the node has persisted last, kept beside it: a core loop that died begins anew from here (R1).
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) limits: Limits,
    /// Since the last one that the account says is settled.
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) account: Account,
    pub(crate) decree: Decree,
    /// The last ticket used. The next core loop's begin after it, so that durability stays one sequence.
    pub(crate) ticket: u64,
    pub(crate) durable: u64,
    /// How many scans were asked for, by whatever core loop.
    pub(crate) scans: u64,
}

impl Saved {
    pub(crate) fn of(restored: &Restored) -> Self {
        Self {
            limits: restored.limits,
            views: restored.views.clone(),
            account: restored.account.clone(),
            decree: restored.decree.clone(),
            ticket: 0,
            durable: 0,
            scans: 0,
        }
    }
}

/// Where inputs come from. It outlives a core loop that panics.
pub(crate) struct Inbox {
    pub(crate) transport: mpsc::Receiver<Event>,
    pub(crate) storage: mpsc::UnboundedReceiver<StorageEvent>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) errands: mpsc::Receiver<Errand>,
}

/// What the node's owner asks of the core loop.
#[derive(Debug)]
pub(crate) enum Control {
    Shutdown(String),
    /// Test-only: makes a part panic, to see what comes of it.
    Break(Part),
}

/// A part of a node that is begun again when it panics.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Feeds inputs to the protocol.
    Core,
    /// Makes changes durable.
    StorageWriter,
    /// Takes connections.
    Listener,
    /// Makes connections.
    Dialler,
    /// Answers HTTP.
    Http,
}

/// Why a core loop ended other than by a panic.
#[derive(Debug)]
pub(crate) enum Ended {
    Shutdown(String),
    Storage(StorageError),
    /// A part of the transport died too often.
    Transport(String),
    /// It handed over what it held, and the view of this epoch, which it is not in, needs it no more (M3).
    Left(Epoch),
    /// F2: it may take part no more under its incarnation, for this reason.
    ForcedOut(String),
    /// V6: another process with its address lives, and was there before.
    Twin(String),
}

/// What a core loop is made of.
pub(crate) struct Parts<'a> {
    pub(crate) me: Machine,
    pub(crate) place: (u32, Zone),
    pub(crate) birth: Birth,
    pub(crate) tuning: Tuning,
    pub(crate) transport: &'a Transport,
    pub(crate) storage: &'a Storage,
    pub(crate) saved: &'a RefCell<Saved>,
    pub(crate) peers: &'a RefCell<Peers>,
    pub(crate) why: &'a Why,
    pub(crate) started: Instant,
    /// Restarts of the core loop, of the storage writer.
    pub(crate) restarts: [u32; 2],
    /// Where it publishes how it is; `None` if nobody looks.
    pub(crate) publish: Option<&'a Publish>,
    pub(crate) web: Option<&'a http::Server>,
    /// Bytes that may wait for the disk before Accepts are lost.
    pub(crate) backlog: usize,
}

/// What is known of the other machines' connections.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    of: BTreeMap<Name, Peer>,
    loud: Option<Instant>,
    /// What was said last that cannot be so: of the views, and under whose name somebody else came.
    objection: Option<String>,
    impostors: BTreeMap<Name, (Instant, String)>,
}

/// How long a refused process under another's name is told of, and how many are.
const IMPOSTOR_FOR: Duration = Duration::from_secs(60);
const IMPOSTORS: usize = 16;
/// How long one and the same machine must have told that another has this one's address before this one ends, and how
/// long after its start that may be: whoever was there first goes on.
const TWIN_FOR: Duration = Duration::from_millis(1_500);
const TWIN_YOUNG: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Peer {
    reachable: bool,
    since: Instant,
    reason: Option<String>,
}

impl Peers {
    /// True if there is no connection, though one was wanted.
    fn is_unreached(&self, name: Name) -> bool {
        self.of.get(&name).is_some_and(|peer| !peer.reachable)
    }

    /// Some that can be reached.
    pub(crate) fn reached(&self) -> impl Iterator<Item = Name> + '_ {
        self.of.iter().filter(|(_, peer)| peer.reachable).map(|(name, _)| *name)
    }

    /// Somebody came in under this name, and is not that machine.
    fn note_impostor(&mut self, name: Name, why: String) {
        self.impostors.retain(|_, (at, _)| at.elapsed() < IMPOSTOR_FOR);
        let known = self.impostors.contains_key(&name);
        if !known {
            tracing::error!(%name, why, "another process says that it is this machine: it was not taken");
        }
        if known || self.impostors.len() < IMPOSTORS {
            self.impostors.insert(name, (Instant::now(), why));
        }
    }

    /// What a person should look at, of what others say.
    fn objections(&self) -> Vec<String> {
        let fresh = self.impostors.iter().filter(|(_, (at, _))| at.elapsed() < IMPOSTOR_FOR);
        let fresh = fresh.map(|(name, (at, why))| {
            format!("{} s ago another process said that it is {name}: {why}", at.elapsed().as_secs())
        });
        self.objection.iter().cloned().chain(fresh).collect()
    }

    fn note(&mut self, name: Name, reachable: bool, reason: Option<String>) {
        let now = Instant::now();
        let peer = self.of.entry(name).or_insert(Peer { reachable: !reachable, since: now, reason: None });
        if peer.reachable != reachable {
            peer.since = now;
            match &reason {
                Some(reason) => tracing::warn!(peer = %name, reason, "peer is gone"),
                None => tracing::info!(peer = %name, "peer is there"),
            }
        }
        peer.reachable = reachable;
        peer.reason = reason;
    }
}

struct Core<'a> {
    node: ennead_ring::Node,
    parts: &'a Parts<'a>,
    /// What waits for the disk before it leaves.
    gate: Gate<(Addr, Box<Envelope>)>,
    /// The node's number of each scan under way, by the storage's: a page that an earlier core loop asked for
    /// would be taken for one of this one's.
    scans: BTreeMap<Scan, Scan>,
    /// Messages to oneself.
    loopback: VecDeque<Input>,
    effects: Vec<Effect>,
    ended: Option<Ended>,
    beat: Beat,
    look: Look,
    clocks: Clocks,
    border: Border,
    /// Accepts lost, since the disk could not take them.
    swamped: u64,
    /// When each machine first told of another process with this one's address.
    twin: BTreeMap<Name, Instant>,
}

/// Runs the protocol until somebody or something ends it. Dropping the future loses what R1 says: promises, leads.
pub(crate) async fn run(parts: &Parts<'_>, inbox: &mut Inbox) -> Ended {
    let (setup, handed_in, durable) = {
        let saved = parts.saved.borrow();
        let setup = Setup {
            me: parts.me,
            weight: parts.place.0,
            zone: parts.place.1,
            limits: saved.limits,
            views: saved.views.clone(),
            account: saved.account.clone(),
            decree: saved.decree.clone(),
            birth: parts.birth.clone(),
            tuning: parts.tuning.clone(),
            seed: rand::random(),
            rules: Rules::default(),
        };
        (setup, saved.ticket, saved.durable)
    };
    let node = ennead_ring::Node::new(setup, now(parts.started));
    let mut core = Core {
        node,
        parts,
        gate: Gate::new(handed_in, durable),
        scans: BTreeMap::new(),
        loopback: VecDeque::new(),
        effects: Vec::new(),
        ended: None,
        beat: Beat::new(),
        look: Look::default(),
        clocks: Clocks::default(),
        border: Border::new(parts.tuning.waiting_bytes),
        swamped: 0,
        twin: BTreeMap::new(),
    };
    if let Some(view) = core.node.view() {
        parts.why.evidence.adopted(view);
    }
    loop {
        core.beat();
        core.publish();
        let beat = core.beat.next;
        let wake = core.node.wake_at().map(|(at, _)| parts.started + Duration::from_nanos(at.0));
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(event) = inbox.storage.recv() => core.on_storage(event),
            Some(control) = inbox.control.recv() => match control {
                Control::Shutdown(why) => return Ended::Shutdown(why),
                Control::Break(Part::Core) => panic!("asked to panic by a test"),
                Control::Break(Part::StorageWriter) => parts.storage.break_writer(),
                Control::Break(Part::Listener) => parts.transport.break_part(transport::Part::Listener),
                Control::Break(Part::Http) => parts.web.iter().for_each(|web| web.break_it()),
                Control::Break(Part::Dialler) => parts.transport.break_part(transport::Part::Dialler),
            },
            () = sleep => core.input(Input::Wake),
            () = tokio::time::sleep_until(beat.into()) => {}
            Some(errand) = inbox.errands.recv() => core.on_errand(errand),
            Some(event) = inbox.transport.recv() => core.on_transport(event),
            () = std::future::ready(()), if core.may_admit() => {}
        }
        // What else has come meanwhile, without another trip through the scheduler.
        let mut left = BATCH;
        while left > 0 {
            let cost = if let Ok(event) = inbox.storage.try_recv() {
                core.on_storage(event);
                DEAR
            } else if let Ok(event) = inbox.transport.try_recv() {
                let client = matches!(event, Event::Frame { from: Addr::Client(_), .. });
                core.on_transport(event);
                if client { 1 } else { DEAR }
            } else {
                break;
            };
            left = left.saturating_sub(cost);
        }
        core.admit();
        if let Some(ended) = core.ended.take() {
            return ended;
        }
        core.object();
        if let Some(reason) = core.node.is_forced_out() {
            return Ended::ForcedOut(reason.to_owned());
        }
        if core.node.has_left() {
            return Ended::Left(core.node.view().map(|view| view.epoch()).unwrap_or_default());
        }
        if core.node.wake_at().is_some_and(|(at, _)| at <= now(parts.started).mono) {
            core.input(Input::Wake);
        }
        // The connections' writers share this thread.
        tokio::task::yield_now().await;
    }
}

fn now(started: Instant) -> Now {
    Now { mono: Mono(started.elapsed().as_nanos() as u64), wall: unix_ns() }
}

impl Core<'_> {
    fn on_storage(&mut self, event: StorageEvent) {
        match event {
            StorageEvent::Durable(ticket) => {
                let saved = &self.parts.saved;
                let durable = saved.borrow().durable.max(ticket.0);
                saved.borrow_mut().durable = durable;
                for (to, envelope) in self.gate.open(ticket) {
                    self.deliver(to, envelope);
                }
                self.drain();
            }
            StorageEvent::Loaded { key, found } => {
                self.border.loads = self.border.loads.saturating_sub(1);
                if found == ennead_ring::effect::Loaded::Unreadable {
                    tracing::error!(key = %key.digest(), "a record is unreadable: this machine is mute for its key");
                }
                self.input(Input::Loaded { key, found });
            }
            StorageEvent::Scanned { scan, found, end, total } => {
                if let Some(scan) = self.scans.remove(&scan) {
                    self.input(Input::Scanned { scan, found, end, total });
                }
            }
            StorageEvent::Failed(error) => self.ended = Some(Ended::Storage(error)),
        }
    }

    fn on_transport(&mut self, event: Event) {
        match event {
            Event::Frame { from, frame: Frame::Ring(envelope) } => {
                self.look.heard(envelope.message.kind());
                self.observe(from, &envelope);
                if self.is_swamped(&envelope.message) {
                    self.swamped += 1;
                } else {
                    self.on_envelope(from, envelope);
                }
            }
            Event::Frame { from, frame: Frame::StatusAsk { ask } } => {
                let status = Box::new(self.status());
                self.parts.transport.send(To::from(from), Frame::StatusTold { ask, status });
            }
            Event::Frame { from, frame: Frame::CheckAsk { ask } } => {
                let (before, refused) = self.start_check();
                self.parts.transport.send(To::from(from), Frame::CheckTold { ask, before, refused });
            }
            Event::Frame { from, frame: Frame::HealthAsk } => {
                let shunned = self.node.shunned();
                self.parts.transport.send(To::from(from), Frame::HealthTold { shunned });
            }
            Event::Frame { from, frame: Frame::WhyAsk { ask, of } } => {
                let testimony = Box::new(self.testimony(of));
                self.parts.transport.send(To::from(from), Frame::WhyTold { ask, testimony });
            }
            Event::Frame { from, frame: Frame::LastWords { report } } => self.on_last_words(from, report),
            Event::Frame { from, frame: Frame::Pong { number, wall_ms } } => {
                self.on_clock(from, number, wall_ms);
            }
            Event::ClientGone(client) => self.border.gone(client),
            Event::Frame { .. } => {}
            Event::Impostor { name, why } => self.parts.peers.borrow_mut().note_impostor(name, why),
            Event::Failed(reason) => self.ended = Some(Ended::Transport(reason)),
            Event::Up { machine, run, version } => {
                self.parts.why.evidence.met(machine.name, run, &version);
                self.parts.peers.borrow_mut().note(machine.name, true, None);
                self.input(Input::Reachable { name: machine.name, reachable: true });
            }
            Event::Down { name, reason, how } => {
                if how == transport::Ended::Refused(CloseCode::Twin) {
                    self.told_of_a_twin(name, &reason);
                }
                self.parts.why.evidence.ended(name, how, &reason);
                self.parts.peers.borrow_mut().note(name, false, Some(reason));
                self.input(Input::Reachable { name, reachable: false });
            }
        }
    }

    /// V6: of two with one address, the one that has just begun ends: as long as it speaks, the network does not lead to
    /// the other. Told twice by one machine: what a run said that was ended just now cannot come so late.
    fn told_of_a_twin(&mut self, by: Name, reason: &str) {
        tracing::error!(%by, reason, "another machine hears a second process with this one's address");
        let first = *self.twin.entry(by).or_insert_with(Instant::now);
        if first.elapsed() >= TWIN_FOR && self.parts.started.elapsed() < TWIN_YOUNG {
            self.ended = Some(Ended::Twin(format!(
                "another process has the address of {}, and was there before this one: {reason}",
                self.parts.me.name
            )));
        }
    }

    /// Says aloud, once, what another machine said of the views and cannot be so.
    fn object(&self) {
        let Some(objection) = self.node.objection() else { return };
        let mut peers = self.parts.peers.borrow_mut();
        if peers.objection.as_deref() != Some(objection) {
            tracing::error!("{objection}");
            peers.objection = Some(objection.to_owned());
        }
    }

    fn input(&mut self, input: Input) {
        self.node.handle(now(self.parts.started), input, &mut self.effects);
        self.carry_out();
        self.drain();
    }

    /// A vote for oneself takes the same road as any other: it comes back as a message.
    fn drain(&mut self) {
        while let Some(input) = self.loopback.pop_front() {
            self.node.handle(now(self.parts.started), input, &mut self.effects);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist { ticket, change } => {
                    let ticket = self.gate.ticket(ticket);
                    self.remember(ticket, &change);
                    self.parts.storage.persist(ticket, change);
                }
                Effect::Send { to, envelope, after } => {
                    if let Some((to, envelope)) = self.gate.pass(after, (to, envelope)) {
                        self.deliver(to, envelope);
                    }
                }
                Effect::Load { key } => {
                    self.border.loads += 1;
                    self.parts.storage.load(key);
                }
                Effect::Scan { scan, after, keys, bytes } => {
                    let number = self.number_scan();
                    self.scans.insert(number, scan);
                    self.parts.storage.scan_for(number, after, keys, bytes);
                }
            }
        }
        self.effects = effects;
    }

    fn number_scan(&self) -> Scan {
        let mut saved = self.parts.saved.borrow_mut();
        saved.scans += 1;
        Scan(saved.scans)
    }

    fn remember(&self, Ticket(ticket): Ticket, change: &Change) {
        let mut saved = self.parts.saved.borrow_mut();
        saved.ticket = ticket;
        match change {
            Change::Limits(limits) => saved.limits = *limits,
            Change::View(view) => {
                tracing::info!(
                    cluster = %view.cluster(),
                    epoch = %view.epoch(),
                    members = view.members().len(),
                    "adopted a view"
                );
                self.parts.transport.set_cluster(view.cluster());
                self.parts.why.evidence.adopted(view);
                saved.views.push(view.clone());
            }
            Change::Account(account) => {
                saved.account = account.clone();
                let past = storage::past(&saved.views, account.settled);
                saved.views.drain(..past);
            }
            Change::Decree(decree) => saved.decree = decree.clone(),
            Change::Record { .. } | Change::Forget { .. } => {}
        }
    }

    fn deliver(&mut self, to: Addr, envelope: Box<Envelope>) {
        let me = self.parts.me;
        if matches!(to, Addr::Machine(machine) if machine.name == me.name) {
            if self.is_swamped(&envelope.message) {
                self.swamped += 1;
            } else if let Some(envelope) = self.errand_done(envelope) {
                self.loopback.push_back(Input::Message { from: Addr::Machine(me), envelope });
            }
            return;
        }
        self.look.said(envelope.message.kind());
        trace("to", to, &envelope);
        self.parts.transport.send(To::from(to), Frame::Ring(envelope));
    }

    /// Logs what a person should see of a message.
    fn observe(&mut self, from: Addr, envelope: &Envelope) {
        trace("from", from, envelope);
        if let Message::NotTaken { reason } = &envelope.message {
            tracing::warn!(peer = %from, reason, "not taken along");
        }
        if let Some(time) = envelope.message.time() {
            let wall = now(self.parts.started).wall;
            self.look.time(time.nanos().saturating_sub(wall));
            let mut peers = self.parts.peers.borrow_mut();
            let quiet = peers.loud.is_some_and(|at| at.elapsed() < Duration::from_secs(60));
            if time.nanos() > wall.saturating_add(FAR_AHEAD) && !quiet {
                peers.loud = Some(Instant::now());
                tracing::error!(peer = %from, time = %time, kind = envelope.message.kind(), "a time more than a day ahead of this clock: whose clock is wrong?");
            }
        }
    }

    /// Begins to compare all copies; tells how that stood before, and why not, if not.
    fn start_check(&mut self) -> (CheckStatus, Option<String>) {
        let before = progress::check(&self.node);
        if self.node.view().is_none() {
            return (before, Some("it belongs to no cluster yet".to_owned()));
        }
        self.node.start_check(now(self.parts.started), &mut self.effects);
        self.carry_out();
        self.drain();
        (before, None)
    }
}

fn trace(direction: &str, other: Addr, envelope: &Envelope) {
    // A key's digest costs an MD5: only where somebody reads it.
    if tracing::enabled!(tracing::Level::TRACE) {
        let message = &envelope.message;
        tracing::trace!(
            direction,
            peer = %other,
            kind = message.kind(),
            key = message.key().map(|k| tracing::field::display(k.digest())),
            ballot = message.ballot().map(tracing::field::display),
            epoch = %envelope.epoch,
            "message"
        );
    }
}
