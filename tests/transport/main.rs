//! The transport over real QUIC on 127.0.0.x: what it promises, and what it does with those who mean harm.
//!
//! | module | one idea |
//! |---|---|
//! | `bind` | what keeps an endpoint from being opened |
//! | `frames` | what is sent arrives, in order, over one connection per pair |
//! | `restarts` | peers that are away, killed, back, silent |
//! | `clusters` | machines of two clusters part |
//! | `raw` | a client of QUIC that says what it likes |
//! | `hostile` | bytes and callers that mean harm |
//! | `certificates` | who may speak for whom |

mod bind;
mod certificates;
mod clusters;
mod frames;
mod hostile;
mod raw;
mod restarts;
mod twins;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ennead::certs::{self, Identity, Who};
use ennead::transport::{CloseCode, Config, Event, To, Transport};
use ennead::wire::{Frame, Role};
use ennead_ring::SlotSet;
use ennead_ring::message::{Addr, Answer, Ask, Copied, Envelope, Message};
use ennead_ring::stamp::{Ballot, Record, Stamp, State};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Name};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything takes on a machine that does a hundred other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with an authority.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path()).unwrap();
        Self(dir)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn peer(&self, name: Name) -> Identity {
        if !self.dir().join(format!("peers/{name}.pem")).exists() {
            certs::issue(self.dir(), &Who::Peer(name)).unwrap();
        }
        Identity::peer(self.dir(), name).unwrap()
    }

    fn client(&self, name: &str) -> Identity {
        if !self.dir().join(format!("clients/{name}.pem")).exists() {
            certs::issue(self.dir(), &Who::Client(name.to_string())).unwrap();
        }
        Identity::client(self.dir(), Some(name)).unwrap()
    }
}

/// A name on this computer that nobody listens on.
fn free_name(last: u8) -> Name {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
    Name::new(socket.local_addr().unwrap())
}

fn machine(name: Name) -> Machine {
    Machine { name, incarnation: Incarnation::new(7) }
}

struct End {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    machine: Option<Machine>,
}

impl End {
    fn start(config: Config) -> Self {
        let machine = match config.role {
            Role::Machine(machine) => Some(machine),
            Role::Client => None,
        };
        let (tell, events) = mpsc::channel(1024);
        Self { transport: Transport::bind(config, tell).unwrap(), events, machine }
    }

    fn peer(authority: &Authority, name: Name) -> Self {
        Self::start(peer_config(authority, name))
    }

    fn client(authority: &Authority) -> Self {
        Self::start(Config::new(Role::Client, authority.client("tester")))
    }

    fn name(&self) -> Name {
        self.machine.unwrap().name
    }

    async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("an endpoint that lives")
    }

    /// The next frame, and from whom; skips ups and downs.
    async fn frame(&mut self) -> (Addr, Frame) {
        loop {
            if let Event::Frame { from, frame } = self.next().await {
                return (from, frame);
            }
        }
    }

    /// The reason of the next `Down`.
    async fn down(&mut self) -> String {
        loop {
            if let Event::Down { reason, .. } = self.next().await {
                return reason;
            }
        }
    }

    fn refused(&self, code: CloseCode) -> u64 {
        self.transport.stats().refused(code)
    }

    async fn until_refused(&self, code: CloseCode, times: u64) {
        until(|| self.refused(code) >= times).await;
        assert_eq!(self.refused(code), times);
    }
}

fn peer_config(authority: &Authority, name: Name) -> Config {
    Config { listen: Some(name.address()), ..Config::new(Role::Machine(machine(name)), authority.peer(name)) }
}

async fn until(mut condition: impl FnMut() -> bool) {
    timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it comes true in time");
}

fn ring(cluster: Option<ClusterId>, ask: u64) -> Frame {
    let message = Message::ViewAsk { ask: Ask(ask) };
    Frame::Ring(Box::new(Envelope { cluster, epoch: Epoch::FIRST, message }))
}

fn copy(ask: u64, bytes: usize) -> Frame {
    let state = State { version: 3, value: Some(vec![ask as u8; bytes].into()), ..State::default() };
    let stamp = Stamp { ballot: Ballot::ZERO, n: 2 };
    let record = Record { stamp, state: Arc::new(state), votes: SlotSet::all(9) };
    let answer = Answer::Copy(Copied::Whole(record));
    let message = Message::Answer { ask: Ask(ask), votes: SlotSet::all(3), answer };
    Frame::Ring(Box::new(Envelope { cluster: None, epoch: Epoch::FIRST, message }))
}

/// Sends until something comes out, as whoever needs an answer does: frames may be lost.
async fn talk(from: &End, to: &mut End) {
    let name = to.name();
    for ask in 0.. {
        from.transport.send(To::Machine(name), ring(None, ask));
        let came = timeout(Duration::from_millis(100), to.frame()).await;
        if came.is_ok() {
            return;
        }
        assert!(ask < 600, "nothing came");
    }
}
