//! A storage peer in this process: its start, its end, and what is started again in between.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ennead_ring::Zone;
use ennead_ring::node::{Birth, PROBE_EVERY, Tuning};
use ennead_ring::view::{DEFAULT_WEIGHT, Epoch, Machine, Name};
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::certs::{CertError, Identity};
use crate::client::{Client, ClientOptions, Error};
use crate::crash::{self, Cause, Context};
use crate::diary::Diary;
use crate::errands::{self, Errands};
use crate::evidence::Evidence;
use crate::farewell;
use crate::http;
use crate::place;
use crate::program;
use crate::recovery::{self, open_storage};
use crate::run_file::RunFile;
#[doc(hidden)]
pub use crate::runtime::Part;
use crate::runtime::{self, Control, Ended, Inbox, Parts, Peers, Saved, Why};
use crate::snapshot::Publish;
use crate::storage::{Restored, Storage, StorageError, StorageEvent};
use crate::supervisor::{Alive, Restarts, last_words};
use crate::transport::{Config, To, Transport, TransportError};
use crate::verdict::{Before, Word};
use crate::wire::{Frame, Role};

/// Neighbours that a machine which cannot go on leaves its crash report to.
const LAST_WORDS_TO: usize = 5;
/// How long it waits for the names of a backtrace.
const NAMES_WITHIN: Duration = Duration::from_secs(3);
/// How long it waits for the report to be on its own disk.
const MOMENT: Duration = Duration::from_millis(300);

/// What a machine is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where it listens, UDP.
    pub listen: SocketAddr,
    /// What it is called: where others reach it. Part of the ring, so it stays for the life of its data.
    pub advertise: Name,
    /// Its data directory; made where there is none.
    pub data: PathBuf,
    /// The folder of certificates, with `ca.pem` and `peers/<name>.pem` and `.key`.
    pub certs: PathBuf,
    /// How it comes to a cluster, if its data directory is empty.
    pub birth: Birth,
    /// Its positions on the ring: its share of the data, against other machines'. Default 64.
    pub virtual_peers: u32,
    /// The zone that it would fail with. Default: none.
    pub zone: Zone,
    /// Longest value it takes, in bytes. Default 8 MiB.
    pub max_value: usize,
    /// Memory for requests that are not answered yet, in bytes; above it, more are refused as overloaded. Default 256 MiB.
    pub request_memory: usize,
    /// Room on the disk, in bytes, below which it takes no values; reads and all else go on. Default 64 MiB.
    pub disk_reserve: u64,
    /// How long another machine is down before it is dropped and its copies are restored (V7). Default 30 s.
    pub patience: Duration,
    /// Bytes a second that it takes in ahead of a move, or to compare copies. Default 32 MiB.
    pub move_rate: u64,
    /// Pause between two comparisons of all copies. Default 10 minutes; zero: only when asked for.
    pub check_every: Duration,
    /// Where health, metrics and the status page are told over HTTP. Default: nowhere.
    pub http: Option<http::Config>,
}

/// Why a machine did not start. Nothing was changed on disk, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An empty data directory, and no word what to do with it.
    #[error(
        "the data directory {0} is empty: start with --init to make a new cluster (--with NAMES takes blank \
         machines along), or with --join IP to be taken along by the machine there"
    )]
    NeedsBirth(PathBuf),
    /// `init` where there is a cluster already (F1).
    #[error(
        "--init is refused: the data directory {data} belongs to cluster {cluster} already. Start without \
         --init to go on as its member"
    )]
    AlreadyBelongs {
        /// The directory.
        data: PathBuf,
        /// Whose it is.
        cluster: String,
    },
    /// `init` in a directory that lost its data, but not the names of the machines that it was with (F1).
    #[error(
        "--init is refused: the data directory {0} is empty, and its file \"peers\" names the machines of a \
         cluster that it was in. Start without --init to join them; to make a new cluster, remove that file first"
    )]
    WasMember(PathBuf),
    /// The machine has left the ring.
    #[error(
        "the data directory {0} is that of a machine that has left its ring; the others have all that it held. \
         Start with --join IP to come in again, or remove the directory"
    )]
    HasLeft(PathBuf),
    /// The directory is another machine's.
    #[error(
        "the data directory {data} is that of {theirs}, not of {mine}: start it with --advertise {theirs}"
    )]
    OtherName {
        /// The directory.
        data: PathBuf,
        /// Whose it is.
        theirs: Name,
        /// Who we said we are.
        mine: Name,
    },
    /// An even number of slots, or too many.
    #[error("--slots {0}: a cluster has an odd number of slots, 1 to 15")]
    Slots(u8),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The address of HTTP.
    #[error(
        "cannot listen on TCP {address} for HTTP: {source}; free it, name another with --http IP:PORT, or say --http off"
    )]
    Http {
        /// Which.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A thread or a runtime.
    #[error("the system refuses a thread or an event queue: {0}")]
    System(#[from] std::io::Error),
    /// The machine's own client.
    #[error("its own client cannot be made: {0}")]
    Client(#[from] Error),
}

/// Why a machine stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// It was asked to, for this reason.
    Shutdown(String),
    /// It has left the ring for good: the others have all that it held. Its directory starts again only to join.
    Left(Epoch),
    /// It cannot go on, for this reason.
    Failed(String),
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shutdown(why) => write!(f, "shut down: {why}"),
            Self::Left(epoch) => write!(f, "left the ring (epoch {epoch}); the others have all that it held"),
            Self::Failed(why) => write!(f, "{why}"),
        }
    }
}

/// A running machine. Dropping it shuts it down without waiting.
#[derive(Debug)]
pub struct Node {
    name: Name,
    control: mpsc::Sender<Control>,
    stopped: watch::Receiver<Option<StopReason>>,
    client: Client,
}

/// A machine in the making: see [`Node::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    listen: Option<SocketAddr>,
    advertise: Option<Name>,
    data: Option<PathBuf>,
    certs: Option<PathBuf>,
    birth: Option<Birth>,
    virtual_peers: Option<u32>,
    zone: Zone,
    max_value: Option<usize>,
    patience: Option<Duration>,
    http: Option<http::Config>,
}

impl Builder {
    /// Where it listens: an IP address, or one with a port. Required.
    pub fn listen(mut self, address: impl Into<Listen>) -> Self {
        self.listen = Some(address.into().0);
        self
    }

    /// What it is called where that is not the address it listens on.
    pub fn advertise(mut self, name: Name) -> Self {
        self.advertise = Some(name);
        self
    }

    /// Its data directory. Required.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// The folder of certificates. Required.
    pub fn certs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certs = Some(dir.into());
        self
    }

    /// A blank machine offers itself to these.
    pub fn join(mut self, machines: impl IntoIterator<Item = Name>) -> Self {
        self.birth = Some(Birth::Join(machines.into_iter().collect()));
        self
    }

    /// Makes a new cluster of this machine and these blank ones, with nine slots.
    pub fn init(mut self, with: impl IntoIterator<Item = Name>) -> Self {
        let slots = ennead_ring::quorum::DEFAULT_SLOTS;
        self.birth = Some(Birth::Init { with: with.into_iter().collect(), slots });
        self
    }

    /// Its positions on the ring. Default 64.
    pub fn virtual_peers(mut self, positions: u32) -> Self {
        self.virtual_peers = Some(positions);
        self
    }

    /// The zone that it would fail with: keys are spread over all zones. Default: none.
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Longest value it takes, in bytes. Default 8 MiB.
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = Some(bytes);
        self
    }

    /// How long another machine is down before it is dropped. Default 30 s.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = Some(time);
        self
    }

    /// Tells health, metrics and the status page over HTTP; see [`http::Config`] for what is open there.
    pub fn http(mut self, config: http::Config) -> Self {
        self.http = Some(config);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`StartError`]; a required setting that is missing is [`StartError::Client`] with a word on which.
    pub async fn start(self) -> Result<Node, StartError> {
        let missing =
            |what: &str| StartError::Client(Error::Setup(format!("the builder was given no {what}")));
        let listen = self.listen.ok_or_else(|| missing("address to listen on"))?;
        let config = NodeConfig {
            listen,
            advertise: self.advertise.unwrap_or_else(|| Name::new(listen)),
            data: self.data.ok_or_else(|| missing("data directory"))?,
            certs: self.certs.ok_or_else(|| missing("folder of certificates"))?,
            birth: self.birth.unwrap_or(Birth::None),
            virtual_peers: self.virtual_peers.unwrap_or(DEFAULT_WEIGHT),
            zone: self.zone,
            max_value: self.max_value.unwrap_or(8 << 20),
            request_memory: Tuning::default().waiting_bytes,
            disk_reserve: crate::storage::Options::default().reserve_bytes,
            patience: self.patience.unwrap_or(Duration::from_nanos(Tuning::default().patience)),
            move_rate: Tuning::default().move_rate,
            check_every: Duration::from_nanos(Tuning::default().check_every),
            http: self.http,
        };
        Node::start(config).await
    }
}

/// An address to listen on; an IP address alone means port 9595.
#[derive(Clone, Copy, Debug)]
pub struct Listen(SocketAddr);

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl<T: Into<std::net::IpAddr> + Copy> From<(T,)> for Listen {
    fn from((ip,): (T,)) -> Self {
        Self(SocketAddr::new(ip.into(), ennead_ring::view::DEFAULT_PORT))
    }
}

impl From<std::net::IpAddr> for Listen {
    fn from(ip: std::net::IpAddr) -> Self {
        Self(SocketAddr::new(ip, ennead_ring::view::DEFAULT_PORT))
    }
}

impl From<Name> for Listen {
    fn from(name: Name) -> Self {
        Self(name.address())
    }
}

impl Node {
    /// A machine in the making.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a machine. It runs on a thread of its own, whatever the caller's runtime does.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do about it.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        if let Birth::Init { slots, .. } = config.birth
            && (slots.is_multiple_of(2) || slots as usize > ennead_ring::quorum::MAX_SLOTS)
        {
            return Err(StartError::Slots(slots));
        }
        let identity = Identity::peer(&config.certs, config.advertise)?;
        let mut options = ClientOptions::new([config.advertise], config.certs.clone());
        options.max_value = config.max_value;
        let client = Client::unconnected(options, identity.clone())?;
        let own = client.clone();
        let (control, control_rx) = mpsc::channel(16);
        let (started_tx, started) = oneshot::channel();
        let (stopped_tx, stopped) = watch::channel(None);
        let name = config.advertise;
        thread::Builder::new().name("ennead-core".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let reason = runtime.block_on(live(config, identity, own, control_rx, started_tx));
                    // Nobody may be left to hear it.
                    let _ = stopped_tx.send(reason);
                }
                Err(error) => {
                    let _ = started_tx.send(Err(error.into()));
                }
            }
        })?;
        match started.await {
            Ok(Ok(())) => Ok(Self { name, control, stopped, client }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(std::io::Error::other("the node's thread died while it started").into()),
        }
    }

    /// What it is called.
    pub fn name(&self) -> Name {
        self.name
    }

    /// A client of the cluster, over the same code and protocol as any other. It asks this machine first.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until it ends, and tells why.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_else(|| StopReason::Failed("the node's thread died".to_owned()))
    }

    /// Ends it in order: peers are told the reason, what is queued is flushed, the directory is released.
    pub async fn shutdown(self, why: &str) -> StopReason {
        // If it has stopped by itself, it says so below.
        let _ = self.control.send(Control::Shutdown(why.to_owned())).await;
        self.stopped().await
    }

    /// Test-only: makes a part panic.
    #[doc(hidden)]
    pub async fn break_part(&self, part: Part) {
        let _ = self.control.send(Control::Break(part)).await;
    }
}

/// What the directory says against these settings.
fn refuse(config: &NodeConfig, restored: &Restored) -> Result<(), StartError> {
    let data = config.data.clone();
    match (restored.views.last(), &config.birth) {
        // Alone, it can only mean a new cluster. With others it means one cluster with these: that there is.
        (Some(view), Birth::Init { with, .. }) if with.is_empty() => {
            Err(StartError::AlreadyBelongs { data, cluster: view.cluster().to_string() })
        }
        // M3: before that view is settled, it still has to tell what it holds.
        (Some(view), Birth::None | Birth::Init { .. })
            if restored.account.left && restored.account.settled >= view.epoch() =>
        {
            farewell::write(&data, view.epoch());
            Err(StartError::HasLeft(data))
        }
        (Some(view), _) => {
            let same = view.members().iter().find(|m| m.machine.incarnation == restored.incarnation);
            match same {
                Some(member) if member.machine.name != config.advertise => {
                    Err(StartError::OtherName { data, theirs: member.machine.name, mine: config.advertise })
                }
                _ => Ok(()),
            }
        }
        (None, _) => Ok(()), // See `recovery::birth`.
    }
}

/// A node's life on its thread: starts the parts, starts again those that die, ends them in order.
async fn live(
    config: NodeConfig,
    identity: Identity,
    client: Client,
    control: mpsc::Receiver<Control>,
    started: oneshot::Sender<Result<(), StartError>>,
) -> Option<StopReason> {
    // An answer to each load and scan that the core loop has asked for, which are bounded, and a ticket for each fsync: more
    // is never in it, and storage must not wait for who waits for storage.
    let (storage_tx, storage_rx) = mpsc::unbounded_channel();
    let begun = begin(&config, identity, &storage_tx);
    let Begun {
        storage,
        restored,
        birth,
        transport,
        events,
        crash,
        run,
        run_file,
        before,
        diary,
        web,
        published,
        alive: [core_alive, writer_alive],
    } = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let _ = started.send(Err(error));
            return None;
        }
    };
    let (errands, errands_rx) = Errands::new();
    let mut inbox = Inbox { transport: events, storage: storage_rx, control, errands: errands_rx };
    let me = Machine { name: config.advertise, incarnation: restored.incarnation };
    tracing::info!(
        name = %me.name,
        incarnation = %me.incarnation,
        data = %config.data.display(),
        listen = %transport.local_addr(),
        "started"
    );
    farewell::erase(&config.data);
    let _ = started.send(Ok(()));
    let saved = RefCell::new(Saved::of(&restored));
    let peers = RefCell::new(Peers::default());
    let (heard, heard_rx) = mpsc::channel(errands::LAST_WORDS);
    let why = Why { evidence: Evidence::default(), run, before, diary, crash, heard };
    // They end with this runtime.
    tokio::spawn(why.evidence.clone().knock(config.listen.ip()));
    tokio::spawn(why.diary.keep(&config.data));
    tokio::spawn(errands::hear(heard_rx, errands.clone()));
    let place = (config.virtual_peers, config.zone);
    tokio::spawn(place::keep(client, me, place, config.data.clone()));
    if let Some(crash) = &why.crash {
        tokio::spawn(errands::deliver(crash.clone(), errands));
    }
    let publish = web.as_ref().map(|_| &published);
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let tuning = Tuning {
        max_value: config.max_value,
        waiting_bytes: config.request_memory,
        probe_every: PROBE_EVERY,
        patience: nanos(config.patience),
        move_rate: config.move_rate,
        check_every: nanos(config.check_every),
        ..Tuning::default()
    };
    let (mut core_restarts, mut storage_restarts) =
        (Restarts::of("core loop"), Restarts::of("storage writer"));
    let start = Instant::now();
    let (mut storage, mut writer_life) = (Some(storage), Some(writer_alive.begin()));
    let (reason, cause) = loop {
        let Some(open) = &storage else { unreachable!("it is opened again, or the loop ends") };
        let parts = Parts {
            me,
            place,
            birth: birth.clone(),
            tuning: tuning.clone(),
            transport: &transport,
            storage: open,
            saved: &saved,
            peers: &peers,
            why: &why,
            started: start,
            restarts: [core_restarts.total(), storage_restarts.total()],
            publish,
            web: web.as_ref(),
            backlog: config.request_memory,
        };
        // Before it can panic again: the report of that counts this one.
        if let Some(crash) = &why.crash {
            crash.set_restarts(parts.restarts.iter().sum());
        }
        let life = core_alive.begin();
        let ended = AssertUnwindSafe(runtime::run(&parts, &mut inbox)).catch_unwind().await;
        drop(life);
        match ended {
            Ok(Ended::Shutdown(why)) => break (StopReason::Shutdown(why), None),
            // The records in the core's memory may be ahead of the disk: both begin anew from what is on it.
            Ok(Ended::Storage(error)) if error.is_panic() => {
                if let Err(reason) = storage_restarts.another(&error.to_string(), Instant::now()) {
                    break (StopReason::Failed(reason), Some(Cause::Panic));
                }
                drop((writer_life.take(), storage.take()));
                while inbox.storage.try_recv().is_ok() {}
                let why = match open_storage(&config, &storage_tx) {
                    Ok((opened, restored)) if restored.incarnation == me.incarnation => {
                        (storage, writer_life) = (Some(opened), Some(writer_alive.begin()));
                        *saved.borrow_mut() = Saved::of(&restored);
                        continue;
                    }
                    // R2: emptied or replaced under our feet. Whoever it is now has not promised what we did.
                    Ok((_, restored)) => format!("it is incarnation {} now", restored.incarnation),
                    Err(error) => error.to_string(),
                };
                let why = format!("the data directory cannot be opened again: {why}");
                break (StopReason::Failed(why), Some(Cause::Storage));
            }
            Ok(Ended::Storage(error)) => break (StopReason::Failed(error.to_string()), Some(Cause::Storage)),
            Ok(Ended::Transport(why)) => break (StopReason::Failed(why), Some(Cause::Transport)),
            Ok(Ended::Twin(why)) => break (StopReason::Failed(why), None),
            Ok(Ended::Left(epoch)) => break (StopReason::Left(epoch), None),
            Ok(Ended::ForcedOut(why)) => {
                recovery::note_forced_out(&config.data, me.incarnation, &why);
                break (StopReason::Failed(why), None);
            }
            Err(panic) => {
                if let Err(reason) = core_restarts.another(&last_words(&*panic), Instant::now()) {
                    break (StopReason::Failed(reason), Some(Cause::Panic));
                }
            }
        }
    };
    match &reason {
        StopReason::Shutdown(why) => tracing::info!(why, "shutting down"),
        StopReason::Left(epoch) => {
            tracing::info!(%epoch, "has left the ring; the others have all that it held")
        }
        StopReason::Failed(why) => tracing::error!(why, "cannot go on"),
    }
    if let (Some(crash), Some(cause)) = (&why.crash, cause) {
        let neighbours: Vec<Name> = peers.borrow().reached().take(LAST_WORDS_TO).collect();
        leave_a_report(crash, cause, &reason, &transport, neighbours).await;
    }
    drop(web);
    transport.close(&reason.to_string()).await;
    if let Some(run_file) = run_file {
        note_the_end(run_file, &reason, cause).await;
    }
    drop(storage);
    if let StopReason::Left(epoch) = &reason {
        farewell::write(&config.data, *epoch);
    }
    Some(reason)
}

/// A machine that cannot go on tells a few of its neighbours why, at length, and writes it down.
async fn leave_a_report(
    crash: &Context,
    cause: Cause,
    reason: &StopReason,
    transport: &Transport,
    neighbours: Vec<Name>,
) {
    let tell = |text: String| {
        // Written to them by `close`, which waits for that.
        for name in &neighbours {
            transport.send(To::Machine(*name), Frame::LastWords { report: text.clone() });
        }
    };
    let mut report = crash.end(cause, &reason.to_string());
    tell(report.to_json());
    crash.write(report.clone(), MOMENT).await;
    // Again with its backtrace, as it may never come back: who panics again and again ends before the names are found.
    if crash.find_backtrace(&mut report, NAMES_WITHIN).await {
        tell(report.to_json());
        crash.write(report, MOMENT).await;
    }
}

/// On a thread of its own, and no longer than a moment: the disk may be the reason.
async fn note_the_end(run_file: RunFile, reason: &StopReason, cause: Option<Cause>) {
    let (why, failed) = match reason {
        StopReason::Shutdown(why) => (why.clone(), false),
        StopReason::Left(_) => (reason.to_string(), false),
        StopReason::Failed(why) => (why.clone(), true),
    };
    let word = match (cause, reason) {
        (Some(Cause::Storage), _) => Word::DiskFailed,
        (Some(Cause::Panic | Cause::Transport), _) => Word::Panic,
        (None, StopReason::Left(_)) => Word::Left,
        (None, _) => Word::Exit,
    };
    let (done, noted) = oneshot::channel();
    let thread = thread::Builder::new().name("run-file".into()).spawn(move || {
        // Nobody may wait for it any more.
        let _ = done.send(run_file.end(&why, failed, word));
    });
    let noted = match thread {
        Ok(_) => tokio::time::timeout(3 * MOMENT, noted).await.ok().and_then(Result::ok),
        Err(error) => Some(Err(error)),
    };
    match noted {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, "that this run ends cannot be noted"),
        None => tracing::warn!("that this run ends may not be noted: the disk does not answer"),
    }
}

struct Begun {
    storage: Storage,
    restored: Restored,
    birth: Birth,
    transport: Transport,
    events: mpsc::Receiver<crate::transport::Event>,
    crash: Option<Arc<Context>>,
    run: u64,
    run_file: Option<RunFile>,
    before: Option<Before>,
    diary: Diary,
    web: Option<http::Server>,
    published: Publish,
    /// Whether the core loop and the storage writer live.
    alive: [Alive; 2],
}

fn begin(
    config: &NodeConfig,
    identity: Identity,
    storage_events: &mpsc::UnboundedSender<StorageEvent>,
) -> Result<Begun, StartError> {
    // The address first: a taken one is the likeliest mistake of all, and nothing has been touched.
    let listener = match &config.http {
        Some(web) => {
            let bound = http::bind(web);
            Some((*web, bound.map_err(|source| StartError::Http { address: web.listen, source })?))
        }
        None => None,
    };
    let (storage, restored) = recovery::open(config, storage_events)?;
    let birth = recovery::birth(config, &restored)?;
    refuse(config, &restored)?;
    let me = Machine { name: config.advertise, incarnation: restored.incarnation };
    let run = rand::random();
    // Neither is worth a machine: one that cannot write them says so, and serves.
    let cannot = |what: &str, error: std::io::Error| tracing::warn!(%error, "{what} cannot be written");
    let crash = Context::new(me, run, &config.data).map_err(|e| cannot("crash reports", e)).ok();
    let begun = RunFile::begin(&config.data, run).map_err(|e| cannot("the run file", e)).ok();
    let (run_file, before) = begun.unzip();
    crash::belongs_to(&config.data);
    let mut transport = Config::new(Role::Machine(me), identity.clone());
    transport.run = run;
    transport.renew_from = Some(config.certs.clone());
    transport.listen = Some(config.listen);
    transport.cluster = restored.views.last().map(|view| view.cluster());
    transport.max_value = config.max_value;
    let (tx, events) = mpsc::channel(8192);
    let transport = Transport::bind(transport, tx)?;
    let before = before.flatten();
    let diary = Diary::open(&config.data, before.as_ref(), program::version());
    let before = before.as_ref().map(Before::from);
    let (published, alive) = (Publish::new(None), <[Alive; 2]>::default());
    let web = match listener {
        Some((web, listener)) => {
            let mut options = ClientOptions::new([config.advertise], config.certs.clone());
            options.max_value = config.max_value;
            let (data, published) = (config.data.clone(), published.subscribe());
            let alive = alive.clone();
            let opened = http::Opened { config: web, options, identity, data, published, alive };
            Some(http::Server::start(listener, opened)?)
        }
        None => None,
    };
    Ok(Begun {
        storage,
        restored,
        birth,
        transport,
        events,
        crash,
        run,
        run_file,
        before,
        diary,
        web,
        published,
        alive,
    })
}
