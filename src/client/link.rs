//! What a client knows of the cluster: the view, its connections, who answers and how fast.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ennead_ring::message::{Addr, Ask, Envelope, Message, Outcome};
use ennead_ring::stamp::{Hlc, RequestId};
use ennead_ring::view::{Epoch, Name, View};
use ennead_ring::{Key, Owners, Position, Ring};
use rand::seq::IteratorRandom;
use tokio::sync::mpsc;

use super::health::{Health, Standing};
use super::limit::Limit;
use super::{ClientOptions, Error};
use crate::certs::Identity;
use crate::clock::unix_ns;
use crate::status::{CheckStatus, MachineStatus};
use crate::transport::{Config, Event, To, Transport};
use crate::verdict::Testimony;
use crate::wire::{Frame, Role};

/// How long a machine that owes an answer may be silent before it is pinged, at least.
const PING_AFTER: Duration = Duration::from_millis(12);
/// How long it may then stay silent before its requests go elsewhere. A machine that is alive answers a ping at
/// once, whatever its disk does; the price of a wrong guess is one more round trip.
const SUSPECT_AFTER: Duration = Duration::from_millis(30);
/// How long a handshake may take before another machine is tried.
const REACH_WITHIN: Duration = Duration::from_millis(200);
/// How often some machine is asked who is better asked last, while there is anything to ask at all.
const HEALTH_EVERY: Duration = Duration::from_millis(500);
/// Answers that carry more than this are not measured.
const LONG: usize = 4 << 10;

/// A view and its ring.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) view: Arc<View>,
    pub(super) ring: Ring,
}

impl Known {
    pub(super) fn owners(&self, key: &Key) -> Owners {
        self.ring.owners(&ennead_ring::Chain::of(key.as_bytes(), self.view.slots()))
    }

    pub(super) fn name(&self, member: u32) -> Name {
        self.view.members()[member as usize].machine.name
    }
}

/// What comes back for an operation.
#[derive(Debug)]
pub(super) enum Reply {
    Ring(Box<Envelope>),
    Status(Box<MachineStatus>),
    Check {
        before: CheckStatus,
        refused: Option<String>,
    },
    Why(Box<Testimony>),
    /// This machine cannot be reached; whatever was sent to it may be lost.
    Down(String),
}

/// An operation's answers, by machine, as they come. Dropping it ends the operation.
pub(super) struct Replies {
    pub(super) ask: Ask,
    /// Further questions of the same operation.
    others: Vec<Ask>,
    tx: mpsc::UnboundedSender<(Name, Reply)>,
    rx: mpsc::UnboundedReceiver<(Name, Reply)>,
    link: Arc<Link>,
}

impl Replies {
    /// A further question, whose answers come here too.
    pub(super) fn another(&mut self) -> Ask {
        let ask = self.link.register(&self.tx);
        self.others.push(ask);
        ask
    }

    pub(super) async fn next(&mut self) -> (Name, Reply) {
        match self.rx.recv().await {
            Some(reply) => reply,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let mut state = self.link.state();
        for ask in self.others.iter().chain([&self.ask]) {
            state.pending.remove(&ask.0);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    known: Option<Arc<Known>>,
    pending: HashMap<u64, mpsc::UnboundedSender<(Name, Reply)>>,
    health: BTreeMap<Name, Health>,
    /// Latest time used in a request id.
    clock: u64,
    /// Duration of quorum reads: smoothed, and smoothed deviation, in microseconds.
    read_us: (f64, f64),
    /// Retries that may still be made; each success earns a tenth.
    budget: f64,
    /// A newer view is being fetched.
    refreshing: bool,
    /// When all were last asked whether they live.
    swept: Option<Instant>,
    /// When one was last asked who is not well.
    asked_health: Option<Instant>,
}

const BUDGET: f64 = 500.0;

/// Shared by a client's clones and its background task.
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) options: ClientOptions,
    pub(super) limit: Limit,
    state: Mutex<State>,
    next_ask: AtomicU64,
    /// Reads that asked more machines than a quorum of copies has: see [`super::Client::hedged_reads`].
    pub(super) hedged: AtomicU64,
    /// Rung when a connection comes or goes.
    changed: tokio::sync::Notify,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peers", &self.options.peers).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn open(options: ClientOptions, identity: Identity) -> Result<Arc<Self>, Error> {
        let (tx, rx) = mpsc::channel(4096);
        let mut config = Config::new(Role::Client, identity);
        config.max_value = options.max_value;
        config.renew_from = Some(options.certs.clone());
        let transport = Transport::bind(config, tx).map_err(|e| Error::Setup(e.to_string()))?;
        let state = State { budget: BUDGET, read_us: (1_000.0, 500.0), ..State::default() };
        let link = Arc::new(Self {
            transport,
            limit: Limit::new(options.min_under_way, options.max_under_way, options.timeout),
            options,
            state: Mutex::new(state),
            next_ask: AtomicU64::new(1),
            hedged: AtomicU64::new(0),
            changed: tokio::sync::Notify::new(),
        });
        tokio::spawn(pump(Arc::downgrade(&link), rx));
        Ok(link)
    }

    /// The lock is held for a few lines at a time and never across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // -- asking --------------------------------------------------------------------------------------

    /// Carries out a read or a write, if there is room for it among those under way. What is refused has cost nothing: an
    /// operation is large, and is only made once it is let in.
    pub(super) async fn bounded<T, F: Future<Output = Result<T, Error>>>(
        &self,
        operation: impl FnOnce() -> F,
    ) -> Result<T, Error> {
        let permit = match self.limit.admit() {
            Ok(permit) => permit,
            Err(error) => return Err(refused(error).await),
        };
        let came = Box::pin(operation()).await;
        if !matches!(came, Err(Error::Overloaded { .. })) {
            permit.ended();
        }
        came
    }

    pub(super) fn question(self: &Arc<Self>) -> Replies {
        // What machines answer to one operation, while it lasts: a few, and whoever asks takes them as they come.
        let (tx, rx) = mpsc::unbounded_channel();
        Replies { ask: self.register(&tx), others: vec![], tx, rx, link: self.clone() }
    }

    fn register(&self, tx: &mpsc::UnboundedSender<(Name, Reply)>) -> Ask {
        let ask = Ask(self.next_ask.fetch_add(1, Ordering::Relaxed));
        self.state().pending.insert(ask.0, tx.clone());
        ask
    }

    pub(super) fn send(&self, to: Name, message: Message) {
        let mut state = self.state();
        if let Message::Read { ask, .. } = &message {
            state.health.entry(to).or_default().ask(Instant::now(), ask.0);
        }
        let (cluster, epoch) = match &state.known {
            Some(known) => (Some(known.view.cluster()), known.view.epoch()),
            None => (None, Epoch::ZERO),
        };
        drop(state);
        self.transport.send(To::Machine(to), Frame::Ring(Box::new(Envelope { cluster, epoch, message })));
    }

    pub(super) fn request_id(&self, after: Hlc) -> RequestId {
        let wall = unix_ns();
        let mut state = self.state();
        state.clock = wall.max(state.clock + 1).max(after.nanos().saturating_add(1));
        RequestId { time: Hlc::from_nanos(state.clock), random: rand::random() }
    }

    // -- the view ------------------------------------------------------------------------------------

    pub(super) fn known(&self) -> Option<Arc<Known>> {
        self.state().known.clone()
    }

    /// The view in hand, or the newest that any of the machines we know of has.
    pub(super) async fn view(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Known>, Error> {
        match self.known() {
            Some(known) => {
                self.ask_health();
                Ok(known)
            }
            None => self.fetch_view(deadline).await,
        }
    }

    pub(super) async fn fetch_view(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Known>, Error> {
        let mut replies = self.question();
        let mut asked = self.options.peers.clone();
        if let Some(known) = self.known() {
            asked.extend(known.view.members().iter().map(|m| m.machine.name));
            asked.sort();
            asked.dedup();
        }
        let mut why: BTreeMap<Name, String> = asked.iter().map(|n| (*n, "no answer".to_owned())).collect();
        let (mut open, mut until) = (asked.len(), deadline);
        let mut again = Instant::now();
        let mut newest: Option<(Name, Arc<View>)> = None;
        while open > 0 {
            if newest.is_none() && Instant::now() >= again {
                for name in &asked {
                    self.send(*name, Message::ViewAsk { ask: replies.ask });
                }
                again = Instant::now() + Duration::from_millis(300);
            }
            let wait = if newest.is_none() { until.min(again) } else { until };
            let Ok((name, reply)) = tokio::time::timeout_at(wait.into(), replies.next()).await else {
                if Instant::now() >= until {
                    break;
                }
                continue;
            };
            match reply {
                Reply::Ring(envelope) => match envelope.message {
                    Message::ViewTold { view, .. } => {
                        open -= 1;
                        // One answer is enough to go on; others that are as quick may know more.
                        until = until.min(Instant::now() + Duration::from_millis(3));
                        if let Some((other, found)) = newest.as_ref().filter(|(_, n)| n.is_apart_from(&view))
                        {
                            return Err(apart(&format!("{other} follows"), found, name, &view));
                        }
                        if newest.as_ref().is_none_or(|(_, n)| view.epoch() > n.epoch()) {
                            newest = Some((name, view));
                        }
                    }
                    Message::Outcome { outcome: Outcome::Refused(reason), .. } => {
                        why.insert(name, reason.into());
                    }
                    Message::Outcome { outcome: Outcome::NotHere, .. } => {
                        why.insert(name, "this machine belongs to no cluster yet".to_owned());
                    }
                    _ => {}
                },
                Reply::Down(reason) => {
                    why.insert(name, reason);
                }
                Reply::Status(_) | Reply::Check { .. } | Reply::Why(_) => {}
            }
        }
        match newest {
            Some((name, view)) => self.learn(name, view),
            None => Err(Error::Unreachable { tried: why.into_iter().collect() }),
        }
    }

    fn learn(&self, from: Name, view: Arc<View>) -> Result<Arc<Known>, Error> {
        let mut state = self.state();
        match &state.known {
            // F2: what this client has read and written is in the one it knows.
            Some(known) if known.view.is_apart_from(&view) => {
                Err(apart("this client has followed", &known.view, from, &view))
            }
            Some(known) if known.view.epoch() >= view.epoch() => Ok(known.clone()),
            _ => {
                let known = Arc::new(Known { ring: Ring::of(&view), view });
                state.known = Some(known.clone());
                Ok(known)
            }
        }
    }

    /// An answer bore a higher epoch than our view: fetch the newer one, beside whatever goes on.
    pub(super) fn refresh(self: &Arc<Self>, epoch: Epoch) {
        let mut state = self.state();
        let behind = state.known.as_ref().is_some_and(|known| known.view.epoch() < epoch);
        if behind && !state.refreshing {
            state.refreshing = true;
            drop(state);
            let link = self.clone();
            tokio::spawn(async move {
                let deadline = Instant::now() + link.options.timeout;
                // A failure is found again by the next operation, which then says so.
                let _ = link.fetch_view(deadline).await;
                link.state().refreshing = false;
            });
        }
    }

    // -- who answers ---------------------------------------------------------------------------------

    /// The owners of a key's slots in the order in which they are best asked to read: those that are well and fast first.
    pub(super) fn ranked(&self, known: &Known, owners: &Owners) -> Vec<(Name, u32)> {
        self.ranked_of(known, owners.machines())
    }

    /// The same of any members.
    pub(super) fn ranked_of(&self, known: &Known, members: impl Iterator<Item = u32>) -> Vec<(Name, u32)> {
        let (now, state) = (Instant::now(), self.state());
        let mut ranked: Vec<_> = members
            .map(|member| {
                let name = known.name(member);
                let health = state.health.get(&name);
                let standing = health.map_or(Standing::Well, |h| h.standing(now));
                (standing, health.map_or(Duration::ZERO, |h| h.answer_time(now)), member, name)
            })
            .collect();
        drop(state);
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, member, name)| (name, member)).collect()
    }

    /// When to come back to a machine that turns so much away that it is better not asked now.
    pub(super) fn stay_away(&self, from: Name) -> Option<Duration> {
        self.state().health.get_mut(&from)?.throttle.stay_away(Instant::now(), rand::random())
    }

    /// A machine has done something about a request, or has turned it away and said for how long.
    pub(super) fn was_taken(&self, by: Name, turned: Option<Duration>) {
        let mut state = self.state();
        let throttle = &mut state.health.entry(by).or_default().throttle;
        match turned {
            Some(later) => throttle.turned(Instant::now(), later),
            None => throttle.taken(Instant::now()),
        }
        drop(state);
        if turned.is_some() {
            self.limit.turned();
        }
    }

    /// One of these that nobody has asked for some time, if there is any.
    pub(super) fn stale(&self, of: &[Name]) -> Option<Name> {
        let (now, state) = (Instant::now(), self.state());
        of.iter().copied().find(|name| state.health.get(name).is_some_and(|h| h.is_stale(now)))
    }

    pub(super) fn standing(&self, name: Name) -> Standing {
        self.state().health.get(&name).map_or(Standing::Well, |h| h.standing(Instant::now()))
    }

    /// The place of the one to ask next: the first of those that stand best.
    pub(super) fn best(&self, names: &[Name]) -> usize {
        let best = names.iter().enumerate().min_by_key(|(_, name)| self.standing(**name));
        best.map_or(0, |(at, _)| at)
    }

    /// Asks some machine that is well who is not, if that was long ago.
    fn ask_health(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        if state.asked_health.is_some_and(|at| at + HEALTH_EVERY > now) {
            return;
        }
        state.asked_health = Some(now);
        let well = |(_, h): &(&Name, &Health)| h.up && h.standing(now) == Standing::Well;
        let some = state.health.iter().filter(well).choose(&mut rand::rng());
        let some = some.map(|(name, _)| *name);
        drop(state);
        if let Some(name) = some {
            self.transport.send(To::Machine(name), Frame::HealthAsk);
        }
    }

    fn suspect(&self, name: Name) {
        self.state().health.entry(name).or_default().suspected = Some(Instant::now());
    }

    fn heard_since(&self, name: Name, since: Instant) -> bool {
        self.state().health.get(&name).is_some_and(|h| h.heard.is_some_and(|heard| heard >= since))
    }

    /// Sees that there is a connection, so that what is sent next is either delivered soon or never.
    pub(super) async fn reach(&self, name: Name, deadline: Instant) -> Result<(), String> {
        let until = (Instant::now() + REACH_WITHIN).min(deadline);
        let mut dialled = false;
        loop {
            let changed = self.changed.notified();
            let why = match self.state().health.get(&name) {
                Some(health) if health.up => return Ok(()),
                Some(health) if dialled => health.why.clone(),
                _ => None,
            };
            if let Some(why) = why {
                return Err(why);
            }
            if !dialled {
                dialled = true;
                self.state().health.entry(name).or_default().why = None;
                self.transport.send(To::Machine(name), Frame::Ping(0));
            }
            if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                self.suspect(name);
                return Err("no answer to a handshake".to_owned());
            }
        }
    }

    /// Resolves once a machine that was sent something has said nothing at all for too long, a ping included.
    ///
    /// A machine that is taking in a long value is busy with that, on the thread that would answer: it is given
    /// `slack` more.
    pub(super) async fn silence_of(self: &Arc<Self>, name: Name, sent: Instant, slack: Duration) {
        let mut since = sent;
        let mut ping_after = PING_AFTER + slack;
        loop {
            self.until(since + ping_after, name, sent).await;
            if !self.heard_since(name, since) {
                self.transport.send(To::Machine(name), Frame::Ping(0));
                self.until(Instant::now() + SUSPECT_AFTER + slack, name, sent).await;
                if !self.heard_since(name, since) {
                    self.suspect(name);
                    self.sweep();
                    return;
                }
            }
            // It lives: its disk or its queue is slow. Ask again less often.
            since = Instant::now();
            ping_after = (ping_after * 2).min(Duration::from_secs(1));
        }
    }

    /// Waits until then, or until somebody else finds that this machine has been silent since it was asked.
    async fn until(&self, then: Instant, name: Name, asked: Instant) {
        let suspected_since = |health: &Health| health.suspected.is_some_and(|at| at > asked);
        loop {
            let changed = self.changed.notified();
            let found = self.state().health.get(&name).is_some_and(suspected_since);
            if found || tokio::time::timeout_at(then.into(), changed).await.is_err() {
                return;
            }
        }
    }

    /// Where one machine fell silent, others may have: asks all that are connected whether they live, at once, so
    /// that the loss of four costs no more time than the loss of one.
    fn sweep(self: &Arc<Self>) {
        let since = Instant::now();
        let mut state = self.state();
        if state.swept.is_some_and(|at| since.duration_since(at) < SUSPECT_AFTER) {
            return;
        }
        state.swept = Some(since);
        let up: Vec<Name> = state.health.iter().filter(|(_, h)| h.up).map(|(name, _)| *name).collect();
        drop(state);
        for name in &up {
            self.transport.send(To::Machine(*name), Frame::Ping(0));
        }
        let link = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SUSPECT_AFTER).await;
            for name in up.into_iter().filter(|name| !link.heard_since(*name, since)) {
                link.suspect(name);
            }
            link.changed.notify_waiters();
        });
    }

    /// After how long a read asks the rest: four deviations above the usual. Not soon while much is under way: all are
    /// slow then, and would be slower for that.
    pub(super) fn hedge_after(&self) -> Duration {
        let (mean, deviation) = self.state().read_us;
        let most = Duration::from_millis(if self.limit.is_crowded() { 1_000 } else { 100 });
        Duration::from_micros((mean + 4.0 * deviation) as u64).clamp(Duration::from_millis(1), most)
    }

    pub(super) fn read_took(&self, took: Duration) {
        let took = took.as_micros() as f64;
        let mut state = self.state();
        let (mean, deviation) = state.read_us;
        state.read_us = (mean * 0.875 + took * 0.125, deviation * 0.75 + (took - mean).abs() * 0.25);
    }

    // -- retries -------------------------------------------------------------------------------------

    /// Takes one retry from the budget; false if there is none left: a struggling cluster is not helped by
    /// everybody asking twice.
    pub(super) fn may_retry(&self) -> bool {
        let mut state = self.state();
        let may = state.budget >= 1.0;
        if may {
            state.budget -= 1.0;
        }
        may
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        state.budget = (state.budget + 0.1).min(BUDGET);
    }
}

/// What is refused at once never waits: whoever asks again and again in a loop gives others their turn here.
pub(super) async fn refused(error: Error) -> Error {
    tokio::task::coop::consume_budget().await;
    error
}

/// F2: two forced recoveries went apart: one client does not use both.
fn apart(ours: &str, one: &View, name: Name, other: &View) -> Error {
    Error::Refused(format!(
        "two forced recoveries of cluster {} went apart: {ours} epoch {}, and {name} follows epoch {}. Each takes writes \
         that the other does not know; name machines of one of them only, and end the other",
        one.cluster(),
        one.epoch(),
        other.epoch()
    ))
}

/// Where a key's slots are.
pub(super) fn positions(key: &Key, slots: u8) -> Vec<Position> {
    ennead_ring::Chain::of(key.as_bytes(), slots).positions().to_vec()
}

/// Brings what arrives to the operation that waits for it.
async fn pump(link: std::sync::Weak<Link>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let Some(link) = link.upgrade() else { return };
        let mut state = link.state();
        match event {
            Event::Frame { from: Addr::Machine(machine), frame } => {
                let (now, health) = (Instant::now(), state.health.entry(machine.name).or_default());
                health.alive(now);
                let (ask, reply) = match frame {
                    Frame::Ring(envelope) => {
                        if let Message::Answer { ask, .. } = &envelope.message {
                            health.answers(now, ask.0, envelope.message.value_bytes() > LONG);
                        }
                        let ask = match &envelope.message {
                            Message::Answer { ask, .. }
                            | Message::Outcome { ask, .. }
                            | Message::ViewTold { ask, .. }
                            | Message::Wished { ask, .. }
                            | Message::Listed { ask, .. } => ask.0,
                            _ => continue,
                        };
                        (ask, Reply::Ring(envelope))
                    }
                    Frame::StatusTold { ask, status } => (ask, Reply::Status(status)),
                    Frame::CheckTold { ask, before, refused } => (ask, Reply::Check { before, refused }),
                    Frame::WhyTold { ask, testimony } => (ask, Reply::Why(testimony)),
                    Frame::HealthTold { shunned } => {
                        for (name, health) in &mut state.health {
                            health.told(now, shunned.contains(name));
                        }
                        continue;
                    }
                    _ => continue,
                };
                if let Some(waiting) = state.pending.get(&ask) {
                    let _ = waiting.send((machine.name, reply));
                }
            }
            Event::Up { machine, .. } => {
                state.health.entry(machine.name).or_default().alive(Instant::now());
                drop(state);
                link.changed.notify_waiters();
            }
            Event::Down { name, reason, .. } => {
                state.health.entry(name).or_default().lost(Instant::now(), reason.clone());
                link.changed.notify_waiters();
                for waiting in state.pending.values() {
                    let _ = waiting.send((name, Reply::Down(reason.clone())));
                }
            }
            Event::Frame { .. } | Event::Impostor { .. } | Event::ClientGone(_) | Event::Failed(_) => {}
        }
    }
}
