//! Who is connected, and which of several connections is used. `peers/dialling.rs` makes them, `peers/taking.rs` takes those
//! that come in.
//!
//! The rule for several connections with one machine, by which both ends decide alike: a newer run of its process,
//! once it is proven to be the one at the machine's address (`proof.rs`), ends the older one's connections; of those left, one that is not silent, then one dialled by the lower name,
//! then the newest. The others are read until they have been idle for a moment, then closed.

mod dialling;
mod taking;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ennead_ring::message::Addr;
use ennead_ring::view::{ClusterId, Machine};
use quinn::{ClientConfig, Connection, Endpoint};
use rand::RngExt;
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::close::{CloseCode, End, Ended, cut, end_of};
use super::counters::Counters;
use super::lanes::Lanes;
use super::link::{Link, MainStream};
use super::renewal::InUse;
use super::{Config, Event, Name, Part, To, TransportError, TransportStats, proof, settings};
use crate::certs::{self, Identity, Who};
use crate::program;
use crate::supervisor::{Alive, Restarts};
use crate::wire::{Frame, Hello, Role};

/// The first wait after a failed dial; it doubles up to [`LONGEST_WAIT`], and each is shortened at random by up
/// to a half, so that those who lost one machine together do not come back together.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Frames that still make sense when a wait between dials ends: the newest so many.
const KEPT_WHILE_DOWN: usize = 256;
/// A connection that ended before it was this old counts as a failed dial: redialling at once would spin.
const PROVEN: Duration = Duration::from_secs(1);
/// How long a connection that is not used any more is still read. The lower name closes it; the other end
/// only if that never comes, so that two ends that disagree are left with one connection and not with none.
const GRACE: Duration = Duration::from_secs(1);
const GRACE_OF_HIGHER: Duration = Duration::from_secs(5);
/// The same of a client: a machine answers a request on the connection that it came on, and a coordinator that lacks votes
/// answers when the request's time is over.
const GRACE_OF_CLIENT: Duration = Duration::from_secs(60);
/// Ups and downs of one machine that may wait to be told; in the middle of more, pairs are left out.
const NOTICES: usize = 16;
/// How long `close` waits for what is queued, and for the other ends to hear of it.
const FLUSH: Duration = Duration::from_millis(500);

/// The inside of an endpoint, which its tasks share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) address: SocketAddr,
    pub(super) counters: Counters,
    pub(super) events: mpsc::Sender<Event>,
    endpoint: Endpoint,
    /// How we dial.
    dialling: Mutex<ClientConfig>,
    pub(super) in_use: Mutex<InUse>,
    /// Where our tasks live, whoever calls from wherever.
    runtime: Handle,
    cluster: OnceLock<ClusterId>,
    next_link: AtomicU64,
    closing: AtomicBool,
    listening: Alive,
    listener_restarts: Mutex<Restarts>,
    dialler_restarts: Mutex<Restarts>,
    /// Test-only: the part panics at its next turn.
    broken_listener: AtomicBool,
    broken_dialler: AtomicBool,
    /// Handshakes that came in and are under way.
    handshakes: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    peers: BTreeMap<Name, Peer>,
    clients: HashMap<u64, Arc<Link>>,
    /// Connections that came in, by the address they came from.
    incoming: HashMap<IpAddr, usize>,
    incoming_in_all: usize,
}

/// What is known of one machine.
struct Peer {
    lanes: Arc<Lanes>,
    /// Its live connections, in order of their numbers.
    links: Vec<Arc<Link>>,
    /// True while its dialler runs: there is never a second one.
    dialling: bool,
    /// Dials in a row that came to nothing, or to a connection that ended at once.
    failures: u32,
    /// When it may be dialled again.
    not_before: Option<Instant>,
    /// The last run that was refused since an earlier one lives, and when; how long that is taken to be so without a
    /// connection with the earlier one.
    twin: Option<(u64, Instant)>,
    lived: Option<Instant>,
    /// Which machine, and run of it, was last told to be up.
    told_up: Option<(Machine, u64)>,
    /// Ups and downs to be told, in order.
    notices: VecDeque<Event>,
    /// Held by who tells them, so that their order stays.
    telling: Arc<tokio::sync::Mutex<()>>,
}

impl Peer {
    fn new(config: &Config, counters: &Counters) -> Self {
        Self {
            lanes: Arc::new(Lanes::new(config.queue, config.queue_bytes, counters.waiting.clone())),
            links: Vec::new(),
            dialling: false,
            failures: 0,
            not_before: None,
            twin: None,
            lived: None,
            told_up: None,
            notices: VecDeque::new(),
            telling: Arc::default(),
        }
    }

    /// Notes how often in a row it was lost, and when it may therefore be dialled again.
    fn lost(&mut self, failures: u32) {
        self.failures = failures;
        self.not_before = (failures > 0).then(|| Instant::now() + wait_after(failures));
    }

    fn note(&mut self, event: Event) {
        if self.notices.len() >= NOTICES {
            // Of down, up, down, up: the second and third say nothing that the others do not.
            self.notices.drain(1..3);
        }
        self.notices.push_back(event);
    }

    /// True if there is a connection on which something is heard.
    fn well(&self) -> bool {
        self.links.iter().any(|l| !l.silent.load(Relaxed))
    }

    /// The connection to use, by the rule above. `me` is `None` for a client, which dials them all itself.
    fn chosen(&self, me: Option<Name>) -> Option<&Arc<Link>> {
        self.links.iter().max_by_key(|link| {
            let by_lower = match (me, link.name()) {
                (Some(me), Some(other)) => link.ours == (me < other),
                _ => true,
            };
            (!link.silent.load(Relaxed), by_lower, link.id)
        })
    }

    /// Lets the chosen connection write what waits.
    fn choose(&self, me: Option<Name>) {
        self.lanes.give_to(self.chosen(me).map_or(0, |l| l.id));
    }
}

/// A connection that was not made, and why.
struct Refused {
    code: Option<CloseCode>,
    reason: String,
    how: Ended,
}

impl Refused {
    /// We end it, for this reason.
    fn by_us(code: CloseCode, reason: String) -> Self {
        let End { code, text, how } = End::ours(code, reason);
        Self { code, reason: text, how }
    }
}

impl Shared {
    pub(super) fn new(
        config: Config,
        endpoint: Endpoint,
        dialling: ClientConfig,
        address: SocketAddr,
        runtime: Handle,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let cluster = OnceLock::new();
        if let Some(id) = config.cluster {
            let _ = cluster.set(id);
        }
        Self {
            in_use: InUse::new(config.identity.clone()),
            dialling: Mutex::new(dialling),
            config,
            address,
            counters: Counters::default(),
            events,
            endpoint,
            runtime,
            cluster,
            next_link: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            listening: Alive::default(),
            listener_restarts: Mutex::new(Restarts::of("listener")),
            dialler_restarts: Mutex::new(Restarts::of("dialler")),
            broken_listener: AtomicBool::new(false),
            broken_dialler: AtomicBool::new(false),
            handshakes: AtomicUsize::new(0),
            table: Mutex::default(),
        }
    }

    /// From now on this identity is shown, and judges others, on connections that are made.
    pub(super) fn show(&self, identity: &Identity) -> Result<(), TransportError> {
        let client = settings::client(&self.config, identity)?;
        if self.config.listen.is_some() {
            self.endpoint.set_server_config(Some(settings::server(&self.config, identity)?));
        }
        *self.dialling.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our name, if we are a machine.
    fn me(&self) -> Option<Name> {
        match self.config.role {
            Role::Machine(machine) => Some(machine.name),
            Role::Client => None,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            role: self.config.role,
            cluster: self.cluster.get().copied(),
            version: program::version().to_owned(),
            run: self.config.run,
        }
    }

    pub(super) fn stats(&self) -> TransportStats {
        let restarts = [&self.listener_restarts, &self.dialler_restarts]
            .map(|r| r.lock().unwrap_or_else(PoisonError::into_inner).total());
        let table = self.lock();
        let connections = table.peers.values().map(|p| p.links.len()).sum();
        let counts = self.counters.read(connections, table.clients.len());
        TransportStats {
            part_restarts: restarts.iter().sum(),
            listening: self.listening.is_alive(),
            ..counts
        }
    }

    /// Why the other end may not stay, if it is of that cluster and we are of another.
    pub(super) fn other_cluster(&self, theirs: Option<ClusterId>) -> Option<String> {
        match (self.cluster.get(), theirs) {
            (Some(ours), Some(theirs)) if *ours != theirs => {
                Some(format!("another cluster: I belong to {ours}, you to {theirs}"))
            }
            _ => None,
        }
    }

    pub(super) fn set_cluster(self: &Arc<Self>, cluster: ClusterId) {
        if *self.cluster.get_or_init(|| cluster) != cluster {
            tracing::error!(%cluster, kept = ?self.cluster.get(), "a second cluster id is not taken");
            return;
        }
        let table = self.lock();
        let links = table.peers.values().flat_map(|p| &p.links).chain(table.clients.values());
        let strangers: Vec<_> =
            links.filter(|l| l.hello.cluster.is_some_and(|c| c != cluster)).cloned().collect();
        drop(table);
        for link in strangers {
            if let Some(why) = self.other_cluster(link.hello.cluster) {
                self.refuse(&link, CloseCode::AnotherCluster, &why);
            }
        }
    }

    // ---- Sending

    pub(super) fn send(self: &Arc<Self>, to: To, frame: Frame) {
        let mut table = self.lock();
        let sent = match to {
            _ if self.closing.load(Relaxed) => false,
            To::Client(number) => table.clients.get(&number).is_some_and(|link| link.lanes.push(frame)),
            To::Machine(name) if Some(name) == self.me() => false,
            To::Machine(name) => {
                let peer = table.peers.entry(name).or_insert_with(|| Peer::new(&self.config, &self.counters));
                let fits = peer.lanes.push(frame);
                if peer.links.is_empty() {
                    if peer.failures > 0 {
                        // While nobody answers, the newest matter: the old have been given up by who sent them.
                        Counters::add(&self.counters.dropped, peer.lanes.keep_newest(KEPT_WHILE_DOWN));
                    }
                    self.dial_soon(name, peer);
                }
                fits
            }
        };
        if !sent {
            Counters::add(&self.counters.dropped, 1);
        }
    }

    /// Which runs of a machine are connected: this one, others.
    pub(super) fn connected(&self, machine: Machine, run: u64) -> (bool, bool) {
        let table = self.lock();
        let links = table.peers.get(&machine.name).map(|p| &p.links[..]).unwrap_or_default();
        let alive = |l: &&Arc<Link>| l.connection.close_reason().is_none();
        let is = |l: &Arc<Link>| (l.from, l.hello.run) == (Addr::Machine(machine), run);
        let mut alive = links.iter().filter(alive).map(is);
        (alive.clone().any(|own| own), alive.any(|own| !own))
    }

    /// The connections of other runs of a machine; and true if one that has none any more lived a moment ago.
    pub(super) fn earlier(&self, machine: Machine, run: u64) -> (Vec<Arc<Link>>, bool) {
        let table = self.lock();
        let Some(peer) = table.peers.get(&machine.name) else { return (Vec::new(), false) };
        let is_other = |l: &&Arc<Link>| (l.from, l.hello.run) != (Addr::Machine(machine), run);
        let refused = peer.twin.is_some_and(|(twin, _)| twin == run);
        let lately = refused && peer.lived.is_some_and(|at| at.elapsed() < proof::LIVES_FOR);
        (peer.links.iter().filter(is_other).cloned().collect(), lately)
    }

    /// This run was refused, since an earlier one lives.
    pub(super) fn note_twin(&self, name: Name, run: u64) {
        if let Some(peer) = self.lock().peers.get_mut(&name) {
            peer.twin = Some((run, Instant::now()));
        }
    }

    /// Has something written to a machine: whoever is there answers, if only that he does not know the connection.
    pub(super) fn provoke(&self, name: Name) {
        if let Some(peer) = self.lock().peers.get(&name) {
            let _ = peer.lanes.push(Frame::Ping(0));
        }
    }

    // ---- Its parts

    async fn part_ended(&self, ended: Result<(), String>) {
        if let Err(reason) = ended {
            // If nobody listens any more, the endpoint is going away as it is.
            let _ = self.events.send(Event::Failed(reason)).await;
        }
    }

    pub(super) fn break_part(&self, part: Part) {
        match part {
            Part::Listener => self.broken_listener.store(true, Relaxed),
            Part::Dialler => self.broken_dialler.store(true, Relaxed),
        }
    }

    /// Where nobody has room for it, it is told at the next try: whoever is refused tries again.
    fn tell_impostor(&self, name: Name, why: &str) {
        let _ = self.events.try_send(Event::Impostor { name, why: why.to_owned() });
    }

    // ---- Connections in use

    async fn serve_client(self: &Arc<Self>, connection: Connection, hello: Hello, main: MainStream) {
        let id = self.next_link.fetch_add(1, Relaxed);
        let waiting = self.counters.waiting.clone();
        let lanes = Arc::new(Lanes::new(self.config.queue, self.config.queue_bytes, waiting));
        lanes.give_to(id);
        let link = Arc::new(Link::new(id, connection, Addr::Client(id), hello, false, lanes));
        self.lock().clients.insert(id, link.clone());
        link.set_told_up();
        link.serve(self, main).await;
        self.lock().clients.remove(&id);
        tracing::debug!(client = id, reason = self.end_of(&link).text, "client gone");
        let _ = self.events.send(Event::ClientGone(id)).await;
    }

    async fn serve_machine(
        self: Arc<Self>,
        connection: Connection,
        machine: Machine,
        hello: Hello,
        ours: bool,
        main: MainStream,
    ) {
        let name = machine.name;
        let id = self.next_link.fetch_add(1, Relaxed);
        let run = (machine, hello.run);
        let version = hello.version.clone();
        let (link, older) = {
            let mut table = self.lock();
            let peer = table.peers.entry(name).or_insert_with(|| Peer::new(&self.config, &self.counters));
            let lanes = peer.lanes.clone();
            let link = Arc::new(Link::new(id, connection, Addr::Machine(machine), hello, ours, lanes));
            // Those of an earlier run lead to a process that is no more.
            let (same, older): (Vec<_>, Vec<_>) =
                peer.links.drain(..).partition(|l| (l.from, l.hello.run) == (Addr::Machine(machine), run.1));
            peer.links = same;
            peer.links.push(link.clone());
            if ours {
                // The dialler is done: not before the link is here, or a frame in between would dial again.
                peer.dialling = false;
            }
            peer.choose(self.me());
            if peer.told_up != Some(run) {
                if peer.told_up.is_some() {
                    peer.note(Event::Down { name, reason: format!("{name} restarted"), how: Ended::Other });
                }
                peer.told_up = Some(run);
                peer.note(Event::Up { machine, run: run.1, version });
            }
            (link, older)
        };
        for link in older {
            link.close(CloseCode::Replaced, &format!("replaced: a newer run of {name} is connected"));
        }
        self.retire_others(name);
        // Both at once: a core that takes nothing must not keep pings from being answered.
        let up = async {
            self.tell(name).await;
            link.set_told_up();
        };
        tokio::join!(up, link.serve(&self, main));
        self.ended(name, &link);
        self.tell(name).await;
    }

    /// Takes a connection that ended off the table.
    fn ended(self: &Arc<Self>, name: Name, link: &Arc<Link>) {
        let End { code, text: reason, how } = self.end_of(link);
        let mut table = self.lock();
        let Some(peer) = table.peers.get_mut(&name) else { return };
        let before = peer.links.len();
        peer.links.retain(|l| l.id != link.id);
        if peer.links.len() == before {
            return; // A newer run took its place, and that was told.
        }
        let refused = |(run, at): (u64, Instant)| run != link.hello.run && at.elapsed() < proof::LIVES_FOR;
        if proof::found_us_silent(link) && peer.twin.is_some_and(refused) {
            peer.lived = Some(Instant::now());
        }
        peer.choose(self.me());
        tracing::debug!(%name, reason, left = peer.links.len(), "connection ended");
        if peer.links.is_empty() {
            // A restarted machine is back already: it has just said so. Others get a moment.
            let failures = match link.connection.close_reason() {
                Some(quinn::ConnectionError::Reset) => 0,
                _ if code == Some(CloseCode::Silent) => peer.failures.max(1),
                _ if link.born.elapsed() >= PROVEN => 1,
                _ => peer.failures.saturating_add(1),
            };
            peer.lost(failures);
            peer.told_up = None;
            peer.note(Event::Down { name, reason, how });
            if !peer.lanes.is_empty() {
                self.dial_soon(name, peer);
            }
        }
    }

    /// Why a connection ended: the code, if it was one of ours, the text for people, and what it says of the other end.
    fn end_of(&self, link: &Link) -> End {
        if let Some((code, why)) = link.farewell() {
            return End::ours(*code, why.clone());
        }
        match link.connection.close_reason() {
            Some(error) => end_of(&link.from.to_string(), &error),
            None => End { code: None, text: "ended".to_string(), how: Ended::Other },
        }
    }

    /// Ends a connection because its other end did wrong.
    pub(super) fn refuse(&self, link: &Link, code: CloseCode, why: &str) {
        if link.farewell().is_none() {
            self.counters.refused(code);
            tracing::warn!(from = %link.from, code = code.label(), why, "connection refused");
        }
        link.close(code, why);
    }

    /// A connection has fallen silent, or is heard again: another may be better now, or a new one needed.
    pub(super) fn silence_changed(self: &Arc<Self>, link: &Link) {
        let Some(name) = link.name() else { return };
        let mut table = self.lock();
        let Some(peer) = table.peers.get_mut(&name) else { return };
        peer.choose(self.me());
        if !peer.well() {
            self.dial_soon(name, peer);
        }
    }

    /// Closes, after a while, those connections with a machine that are not used.
    fn retire_others(self: &Arc<Self>, name: Name) {
        let several = self.lock().peers.get(&name).is_some_and(|p| p.links.len() > 1);
        if !several {
            return;
        }
        let grace = match self.me() {
            Some(me) if me > name => GRACE_OF_HIGHER,
            Some(_) => GRACE,
            None => GRACE_OF_CLIENT,
        };
        let shared = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            let unused: Vec<_> = {
                let table = shared.lock();
                let Some(peer) = table.peers.get(&name) else { return };
                let chosen = peer.chosen(shared.me()).map_or(0, |l| l.id);
                peer.links.iter().filter(|l| l.id != chosen && l.born.elapsed() >= grace).cloned().collect()
            };
            for link in unused {
                link.close(CloseCode::Replaced, "replaced: another connection between us is in use");
            }
        });
    }

    /// Tells the ups and downs of a machine that have not been told, in their order.
    async fn tell(&self, name: Name) {
        let Some(telling) = self.lock().peers.get(&name).map(|p| p.telling.clone()) else { return };
        let _turn = telling.lock().await;
        loop {
            let notice = self.lock().peers.get_mut(&name).and_then(|p| p.notices.pop_front());
            let Some(event) = notice else { return };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    // ---- The end

    /// Closes at once.
    pub(super) fn shut(&self, why: &str) {
        self.closing.store(true, Relaxed);
        self.endpoint.close(CloseCode::Shutdown.number(), cut(why).as_bytes());
    }

    pub(super) async fn close(&self, why: &str) {
        self.closing.store(true, Relaxed);
        let links: Vec<_> = {
            let table = self.lock();
            let peers = table.peers.values().flat_map(|p| &p.links);
            peers.chain(table.clients.values()).cloned().collect()
        };
        for link in &links {
            link.lanes.end();
        }
        // QUIC's close discards what has not arrived: so that comes first.
        let written = async {
            while !links.iter().all(|l| l.is_flushed()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(FLUSH, written).await;
        self.shut(why);
        let _ = timeout(FLUSH, self.endpoint.wait_idle()).await;
    }
}

/// Whom the other end's certificate names.
fn certificate_names(connection: &Connection) -> Result<Who, String> {
    let chain = connection.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|c| c.first()).ok_or_else(|| "none was shown".to_string())?;
    certs::names(leaf).map_err(|e| e.to_string())
}

/// How long to wait before the next dial.
fn wait_after(failures: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}
