//! One quinn connection per pair of endpoints, and frames on it; nothing more.
//!
//! Both ends prove who they are with certificates of the cluster's own authority. Connections are dialled when
//! there is something to send, used both ways by whoever dialled, and dialled again when they are lost, after a
//! growing wait. Nothing here waits for anybody: what does not fit into a bounded queue is dropped and counted,
//! as a network would.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ennead_ring::message::Addr;
use ennead_ring::view::{ClusterId, Machine, Name};
use tokio::sync::mpsc;

use crate::certs::{Identity, Who};
use crate::program;
use crate::wire::{self, Frame, Role};

mod close;
mod counters;
mod lanes;
mod link;
mod peers;
mod proof;
mod renewal;
mod settings;
mod versions;

pub use close::{CloseCode, Ended};
pub use counters::TransportStats;
use peers::Shared;
pub use renewal::Certificates;

/// What an endpoint is to be. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; `None` for an endpoint that only dials, from any free port. Default `None`.
    pub listen: Option<SocketAddr>,
    /// A machine, whose certificate must name it, or a client.
    pub role: Role,
    /// Certificate, key and authorities.
    pub identity: Identity,
    /// The folder they come from, to be looked at for others once a second; `None`: they stay. Default `None`.
    pub renew_from: Option<PathBuf>,
    /// Which run of the program this is: told in the hello. Default: drawn.
    pub run: u64,
    /// The version of the wire that we speak. Default: this program's.
    pub wire: Vec<u8>,
    /// Our cluster, if we have one; a blank machine learns it later ([`Transport::set_cluster`]). Default `None`.
    pub cluster: Option<ClusterId>,
    /// Largest value, in bytes: frames of up to that and 64 KiB more are taken. Default 8 MiB.
    pub max_value: usize,
    /// Frames that may wait to be written to one other end. Default 4096.
    /// More hides a slow peer for longer; less drops more in a burst.
    pub queue: usize,
    /// Bytes of values that may wait to be written to one other end. Default 64 MiB.
    pub queue_bytes: usize,
    /// Connections that may come in, in all. Default 8192.
    pub max_incoming: usize,
    /// Connections that may come in from one IP address. Default 1024.
    pub max_per_address: usize,
    /// Handshakes under way above which a caller must prove its address first (QUIC Retry), which costs it a
    /// round trip. Default 64.
    pub retry_above: usize,
    /// How long a dial, or the first frame of a connection that came in, may take. Default 2 s.
    pub dial_timeout: Duration,
    /// How long we may hear nothing at all from a machine that we send to, before it is dialled anew beside the
    /// connection there is. Default 1 s. Shorter finds a lost connection sooner, and redials slow machines.
    pub silence: Duration,
    /// After how long without a packet a connection ends. Default 30 s.
    pub idle_timeout: Duration,
}

impl Config {
    /// An endpoint that only dials, with the defaults for everything else.
    pub fn new(role: Role, identity: Identity) -> Self {
        Self {
            listen: None,
            role,
            identity,
            renew_from: None,
            run: rand::random(),
            wire: program::speaks(),
            cluster: None,
            max_value: 8 << 20,
            queue: 4096,
            queue_bytes: 64 << 20,
            max_incoming: 8192,
            max_per_address: 1024,
            retry_above: 64,
            dial_timeout: Duration::from_secs(2),
            silence: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
        }
    }

    /// Longest frame taken after the hello.
    fn max_frame(&self) -> usize {
        self.max_value.saturating_add(wire::AROUND).min(wire::MAX_FRAME)
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {address}: {source}; {what}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What to do.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no socket to be had.
    #[error("cannot open a UDP socket: {0}; check the limit on open files and the firewall")]
    Socket(#[source] io::Error),
    /// The certificate or its key cannot be used.
    #[error("the certificate or its key cannot be used: {0}; issue it again with `kvctl certs issue`")]
    Tls(#[from] rustls::Error),
    /// The authority's certificate cannot be used.
    #[error("the authority's certificate cannot be used: {0}; put back a copy of ca.pem")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// The TLS library lacks what QUIC begins with.
    #[error("this build of TLS lacks AES-128-GCM, which QUIC needs")]
    NoInitialCipher,
    /// The identity is someone else's.
    #[error(
        "the certificate names {found}, and this is {name}: issue one with `kvctl certs issue --peer {name}`"
    )]
    NotMine {
        /// Whom the certificate names.
        found: Who,
        /// Who we are to be.
        name: Name,
    },
    /// There is no runtime to live in.
    #[error("the transport lives in a tokio runtime: make it inside of one")]
    NoRuntime,
}

/// Whom to send to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum To {
    /// A machine, dialled if need be.
    Machine(Name),
    /// A client, by the number that its frames came under. Never dialled.
    Client(u64),
}

impl From<Addr> for To {
    fn from(addr: Addr) -> Self {
        match addr {
            Addr::Machine(machine) => Self::Machine(machine.name),
            Addr::Client(number) => Self::Client(number),
        }
    }
}

/// A part of an endpoint that is begun again when it panics.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Takes connections.
    Listener,
    /// Makes connections.
    Dialler,
}

/// What happens on the endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A frame came. Never a hello or a ping: those are answered here.
    Frame {
        /// From whom.
        from: Addr,
        /// What.
        frame: Frame,
    },
    /// A machine can be reached: there was no connection, or it is another incarnation, or it restarted.
    Up {
        /// Who it says it is; its certificate has proven the name.
        machine: Machine,
        /// Which run of its program.
        run: u64,
        /// Version of its program.
        version: String,
    },
    /// A machine cannot be reached: the last connection ended, or a dial failed. Sending dials it again.
    Down {
        /// Which.
        name: Name,
        /// Why: in the machine's own words where it said any.
        reason: String,
        /// What that says of it.
        how: Ended,
    },
    /// Somebody came in under this name, our own perhaps, and is not the machine at that address: not taken.
    Impostor {
        /// Whose name.
        name: Name,
        /// What it was told.
        why: String,
    },
    /// A client's connection ended.
    ClientGone(u64),
    /// A part of the endpoint died too often to be begun again: the endpoint is of no use any more.
    Failed(String),
}

/// An endpoint. Clones are the same endpoint; when the last is dropped, it closes.
#[derive(Clone)]
pub struct Transport {
    owner: Arc<Owner>,
}

/// Closes the endpoint when the last [`Transport`] goes. The tasks hold what is inside, and so never this.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.shut("closed");
    }
}

impl Transport {
    /// Makes an endpoint; what happens on it is told through `events`, and where that is full, the streams wait.
    /// To be called inside a tokio runtime, where its tasks will live.
    ///
    /// # Errors
    /// The address is taken or not ours, or the identity cannot be used or is another's.
    pub fn bind(config: Config, events: mpsc::Sender<Event>) -> Result<Self, TransportError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        if let Role::Machine(machine) = config.role
            && *config.identity.who() != Who::Peer(machine.name)
        {
            return Err(TransportError::NotMine { found: config.identity.who().clone(), name: machine.name });
        }
        let made = settings::settings(&config)?;
        let endpoint =
            quinn::Endpoint::new(made.endpoint, made.server, made.socket, Arc::new(quinn::TokioRuntime))
                .map_err(TransportError::Socket)?;
        let address = endpoint.local_addr().map_err(TransportError::Socket)?;
        let shared = Arc::new(Shared::new(config, endpoint, made.client, address, runtime.clone(), events));
        runtime.spawn(shared.clone().listen());
        if let Some(dir) = shared.config.renew_from.clone() {
            runtime.spawn(renewal::watch(Arc::downgrade(&shared), dir));
        }
        Ok(Self { owner: Arc::new(Owner(shared)) })
    }

    /// Sends a frame, or drops it: never waits, never fails. A machine without a connection is dialled; what
    /// does not fit into the queue towards it is dropped and counted.
    pub fn send(&self, to: To, frame: Frame) {
        self.owner.0.send(to, frame);
    }

    /// Tells the endpoint which cluster it belongs to from now on. Connections with another cluster's machines
    /// end. The first word counts: a machine adopts one cluster, once (F1).
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.owner.0.set_cluster(cluster);
    }

    /// Test-only: makes the listener or the next dialler panic, to see what comes of it.
    #[doc(hidden)]
    pub fn break_part(&self, part: Part) {
        self.owner.0.break_part(part);
    }

    /// How it stands with its certificates.
    pub fn certificates(&self) -> Certificates {
        self.owner.0.certificates()
    }

    /// Where the endpoint is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.owner.0.address
    }

    /// The counts.
    pub fn stats(&self) -> TransportStats {
        self.owner.0.stats()
    }

    /// Ends the endpoint: writes what waits, tells every other end why, and waits until that is out, a second
    /// at most. Nothing is sent or taken from then on.
    pub async fn close(&self, why: &str) {
        self.owner.0.close(why).await;
    }
}
