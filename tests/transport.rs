//! The transport over real QUIC on 127.0.0.x: what it promises, and what it does with those who mean harm.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ennead::certs::{self, Identity, Who};
use ennead::transport::{CloseCode, Config, Event, To, Transport, TransportError};
use ennead::wire::{self, ALPN, Frame, Hello, Role};
use ennead_ring::SlotSet;
use ennead_ring::message::{Addr, Answer, Ask, Copied, Envelope, Message};
use ennead_ring::stamp::{Ballot, Record, Stamp, State};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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

// ---- What it promises

#[tokio::test]
async fn frames_go_both_ways_in_both_sizes() {
    let authority = Authority::new();
    let mut a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    let sizes = [0, 300, 16 * 1024, 16 * 1024 + 1, 1 << 20, 8 << 20];
    for (i, size) in sizes.into_iter().enumerate() {
        a.transport.send(To::Machine(b.name()), copy(i as u64, size));
        assert_eq!(b.frame().await, (Addr::Machine(a.machine.unwrap()), copy(i as u64, size)));
        b.transport.send(To::Machine(a.name()), copy(i as u64, size));
        assert_eq!(a.frame().await, (Addr::Machine(b.machine.unwrap()), copy(i as u64, size)));
    }
    let stats = a.transport.stats();
    assert_eq!((stats.connections, stats.dials, stats.dropped), (1, 1, 0));
    assert_eq!((stats.frames_in, stats.frames_out), (6, 6));
    assert_eq!(b.transport.stats().dials, 0, "the connection is used both ways");
}

#[tokio::test]
async fn up_comes_before_the_first_frame() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    a.transport.send(To::Machine(b.name()), ring(None, 1));
    assert_eq!(b.next().await, Event::Up { machine: a.machine.unwrap() });
    assert!(matches!(b.next().await, Event::Frame { .. }));
}

#[tokio::test]
async fn many_frames_keep_their_order() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    for ask in 0..200 {
        a.transport.send(To::Machine(b.name()), ring(None, ask));
    }
    for ask in 0..200 {
        assert_eq!(b.frame().await.1, ring(None, ask));
    }
}

#[tokio::test]
async fn a_client_asks_and_is_answered_and_its_going_is_told() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(peer.name()), Frame::StatusAsk { ask: 5 });
    let (from, frame) = peer.frame().await;
    assert_eq!(frame, Frame::StatusAsk { ask: 5 });
    let Addr::Client(number) = from else { panic!("{from} is no client") };
    assert_eq!(peer.transport.stats().clients, 1);
    peer.transport.send(from.into(), copy(1, 100_000));
    assert_eq!(client.frame().await, (Addr::Machine(peer.machine.unwrap()), copy(1, 100_000)));
    client.transport.close("done").await;
    assert_eq!(peer.next().await, Event::ClientGone(number));
    assert_eq!(peer.transport.stats().clients, 0);
}

#[tokio::test]
async fn a_machine_can_be_a_client_too() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let client = End::start(Config::new(Role::Client, authority.peer(free_name(2))));
    client.transport.send(To::Machine(peer.name()), Frame::StatusAsk { ask: 5 });
    assert!(matches!(peer.frame().await.0, Addr::Client(_)));
}

#[tokio::test]
async fn both_dial_at_once_and_one_connection_stays() {
    let authority = Authority::new();
    let mut a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    for round in 0..20 {
        a.transport.send(To::Machine(b.name()), ring(None, round));
        b.transport.send(To::Machine(a.name()), ring(None, round));
    }
    for round in 0..20 {
        assert_eq!(a.frame().await.1, ring(None, round));
        assert_eq!(b.frame().await.1, ring(None, round));
    }
    until(|| a.transport.stats().connections == 1 && b.transport.stats().connections == 1).await;
    for round in 100..120 {
        a.transport.send(To::Machine(b.name()), ring(None, round));
        assert_eq!(b.frame().await.1, ring(None, round));
        b.transport.send(To::Machine(a.name()), ring(None, round));
        assert_eq!(a.frame().await.1, ring(None, round));
    }
    assert_eq!((a.transport.stats().connections, b.transport.stats().connections), (1, 1));
    assert_eq!(a.transport.stats().dropped + b.transport.stats().dropped, 0, "nothing in flight was lost");
}

#[tokio::test]
async fn the_close_reason_reaches_the_peer() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    talk(&a, &mut b).await;
    a.transport.close("shutting down (SIGTERM)").await;
    assert_eq!(b.down().await, format!("{} closed: shutting down (SIGTERM)", a.name()));
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    talk(&a, &mut b).await;
    for ask in 1000..1200 {
        a.transport.send(To::Machine(b.name()), ring(None, ask));
    }
    a.transport.send(To::Machine(b.name()), copy(1, 4 << 20));
    a.transport.close("done").await;
    let (mut last, mut large) = (false, false);
    while !(last && large) {
        let frame = b.frame().await.1;
        last |= frame == ring(None, 1199);
        large |= frame == copy(1, 4 << 20);
    }
}

#[tokio::test]
async fn nobody_there_is_told_and_what_waits_is_dropped() {
    let authority = Authority::new();
    let nobody = free_name(9);
    let mut a = End::start(Config {
        dial_timeout: Duration::from_millis(200),
        ..peer_config(&authority, free_name(1))
    });
    for ask in 0..1000 {
        a.transport.send(To::Machine(nobody), ring(None, ask));
    }
    assert_eq!(a.down().await, format!("timed out: nothing answers at {}", nobody.address()));
    until(|| a.transport.stats().dropped == 1000).await;
    // With nothing left to send, it is not dialled any more.
    until(|| a.transport.stats().dials == a.transport.stats().dials_failed).await;
}

#[tokio::test]
async fn a_machine_that_was_down_is_dialled_at_once_after_a_while() {
    let authority = Authority::new();
    let name = free_name(2);
    let a = End::start(Config {
        dial_timeout: Duration::from_millis(100),
        ..peer_config(&authority, free_name(1))
    });
    a.transport.send(To::Machine(name), ring(None, 0));
    until(|| a.transport.stats().dropped == 1).await;
    let mut b = End::peer(&authority, name);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The wait after the failed dial is long over: this frame is neither late nor lost.
    a.transport.send(To::Machine(name), ring(None, 1));
    assert_eq!(b.frame().await.1, ring(None, 1));
}

#[tokio::test]
async fn a_value_above_the_cap_is_not_sent_and_does_no_harm() {
    let authority = Authority::new();
    let a = End::peer(&authority, free_name(1));
    let mut b = End::peer(&authority, free_name(2));
    a.transport.send(To::Machine(b.name()), copy(1, 9 << 20));
    a.transport.send(To::Machine(b.name()), ring(None, 2));
    assert_eq!(b.frame().await.1, ring(None, 2));
    until(|| a.transport.stats().dropped == 1).await;
    talk(&a, &mut b).await;
    assert_eq!(a.transport.stats().dials, 1);
}

#[tokio::test]
async fn a_peer_that_comes_late_is_reached() {
    let authority = Authority::new();
    let late = free_name(2);
    let a = End::start(Config {
        dial_timeout: Duration::from_millis(200),
        ..peer_config(&authority, free_name(1))
    });
    a.transport.send(To::Machine(late), ring(None, 0));
    until(|| a.transport.stats().dials_failed > 0).await;
    let mut b = End::peer(&authority, late);
    talk(&a, &mut b).await;
}

/// An endpoint in a thread of its own that dies without a word when it is killed, as by `kill -9`.
struct Doomed {
    end: End,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Doomed {
    async fn start(config: Config) -> Self {
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = tell.send(End::start(config));
                let _ = killed.await;
            });
            // Dropping the runtime drops every task where it stands: nothing is said any more.
        });
        Self { end: told.await.unwrap(), kill, thread }
    }

    /// Kills it, and waits until its socket is closed.
    async fn kill(self) {
        let Self { end, kill, thread } = self;
        kill.send(()).unwrap();
        thread.join().unwrap();
        let address = end.name().address();
        drop(end);
        until(|| UdpSocket::bind(address).is_ok()).await;
    }
}

#[tokio::test]
async fn a_killed_peer_that_is_back_is_noticed_by_who_sends_to_it() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::peer(&authority, free_name(1));
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    b.kill().await;
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    // Not by the idle timeout: by the reset that the new process signed with the old one's key.
    assert_eq!(a.down().await, format!("{name} restarted"));
    assert_eq!(a.next().await, Event::Up { machine: machine(name) });
    b.kill().await;
}

#[tokio::test]
async fn a_killed_peer_that_is_back_and_dials_replaces_its_old_connection() {
    for (mine, other) in [(1, 2), (2, 1)] {
        let authority = Authority::new();
        let name = free_name(other);
        let mut a = End::peer(&authority, free_name(mine));
        let mut b = Doomed::start(peer_config(&authority, name)).await;
        talk(&a, &mut b.end).await;
        b.kill().await;
        let mut b = Doomed::start(peer_config(&authority, name)).await;
        talk(&b.end, &mut a).await;
        talk(&a, &mut b.end).await;
        until(|| a.transport.stats().connections == 1).await;
        b.kill().await;
    }
}

#[tokio::test]
async fn a_silent_peer_is_declared_down_long_before_the_idle_timeout() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::start(Config {
        silence: Duration::from_millis(200),
        dial_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(3600),
        ..peer_config(&authority, free_name(1))
    });
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    b.kill().await;
    a.transport.send(To::Machine(name), ring(None, 1));
    assert_eq!(a.down().await, format!("nothing heard from {name}"));
    assert_eq!(a.transport.stats().connections, 0);
}

#[tokio::test]
async fn pings_are_answered_though_the_core_takes_nothing() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::peer(&authority, free_name(1));
    let (tell, events) = mpsc::channel(1);
    let b = Transport::bind(peer_config(&authority, name), tell).unwrap();
    for ask in 0..100 {
        a.transport.send(To::Machine(name), ring(None, ask));
    }
    until(|| b.stats().frames_in > 0).await;
    a.transport.send(To::Machine(name), Frame::Ping(77));
    assert_eq!(a.frame().await.1, Frame::Pong(77));
    // Nor does it matter that not even the coming of a machine can be told.
    let mut late = End::peer(&authority, free_name(3));
    late.transport.send(To::Machine(name), Frame::Ping(78));
    assert_eq!(late.frame().await.1, Frame::Pong(78));
    drop(events);
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_what_to_do() {
    let authority = Authority::new();
    let name = free_name(1);
    let _first = End::peer(&authority, name);
    let (tell, _events) = mpsc::channel(1);
    let error = Transport::bind(peer_config(&authority, name), tell).err().unwrap();
    assert!(matches!(error, TransportError::Listen { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&name.address().to_string()) && text.contains("another process listens there"),
        "{text}"
    );
}

#[tokio::test]
async fn an_identity_of_another_is_refused_before_anything_is_opened() {
    let authority = Authority::new();
    let (mine, other) = (free_name(1), free_name(2));
    let (tell, _events) = mpsc::channel(1);
    let config = Config {
        listen: Some(mine.address()),
        ..Config::new(Role::Machine(machine(mine)), authority.peer(other))
    };
    let error = Transport::bind(config, tell).err().unwrap();
    assert!(error.to_string().contains("kvctl certs issue --peer"), "{error}");
}

// ---- Clusters

fn in_cluster(authority: &Authority, last: u8, id: u64) -> End {
    End::start(Config { cluster: Some(ClusterId::new(id)), ..peer_config(authority, free_name(last)) })
}

#[tokio::test]
async fn two_clusters_refuse_each_other() {
    let authority = Authority::new();
    let mut a = in_cluster(&authority, 1, 1);
    let b = in_cluster(&authority, 2, 2);
    a.transport.send(To::Machine(b.name()), ring(None, 1));
    let reason = a.down().await;
    assert!(reason.contains("another cluster: I belong to 0000000000000002"), "{reason}");
    b.until_refused(CloseCode::AnotherCluster, 1).await;
    assert_eq!(a.transport.stats().connections, 0);
}

#[tokio::test]
async fn a_blank_machine_that_adopts_a_cluster_leaves_the_others() {
    let authority = Authority::new();
    let mut a = in_cluster(&authority, 1, 1);
    let mut b = in_cluster(&authority, 2, 2);
    let mut blank = End::peer(&authority, free_name(3));
    talk(&blank, &mut a).await;
    talk(&blank, &mut b).await;
    blank.transport.set_cluster(ClusterId::new(1));
    assert!(b.down().await.contains("another cluster"));
    assert!(blank.down().await.contains("another cluster"));
    talk(&blank, &mut a).await;
}

// ---- Those who mean harm, or were set up wrong

/// A client of QUIC that says what it likes.
struct Raw {
    endpoint: quinn::Endpoint,
}

impl Raw {
    fn new(authority: &CertificateDer<'static>, folder: &Path, file: &str, alpn: &[u8]) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join(format!("{file}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{file}.key"))).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let mut tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], key)
                .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        Self { endpoint }
    }

    fn client(authority: &Authority) -> Self {
        let identity = authority.client("tester");
        Self::new(identity.authority(), &authority.dir().join("clients"), "tester", ALPN)
    }

    fn peer(authority: &Authority, name: Name) -> Self {
        let identity = authority.peer(name);
        Self::new(identity.authority(), &authority.dir().join("peers"), &name.to_string(), ALPN)
    }

    async fn connect(&self, to: Name) -> Result<quinn::Connection, quinn::ConnectionError> {
        timeout(DEADLINE, self.endpoint.connect(to.address(), &to.ip().to_string()).unwrap()).await.unwrap()
    }

    /// Says these bytes on a fresh connection, ends the stream if asked to, and returns how that is answered.
    async fn say(&self, to: Name, bytes: &[u8], finish: bool) -> (u64, String) {
        let connection = self.connect(to).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        if finish {
            let _ = send.finish();
        }
        closed(&connection).await
    }
}

/// With which code and words the other end closed.
async fn closed(connection: &quinn::Connection) -> (u64, String) {
    match timeout(DEADLINE, connection.closed()).await.expect("closed in time") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for frame in frames {
        wire::encode(frame, &mut bytes).unwrap();
    }
    bytes.to_vec()
}

fn hello(role: Role, cluster: Option<ClusterId>) -> Frame {
    Frame::Hello(Hello { role, cluster, version: "raw".to_string(), run: 1 })
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// Asserts that these bytes, after a client's hello, are answered with this code and words, and counted; and that
/// others are served as before.
async fn harmful(bytes: &[u8], finish: bool, code: CloseCode, words: &str) {
    let authority = Authority::new();
    let mut peer = in_cluster(&authority, 1, 1);
    let said = [bytes_of(&[hello(Role::Client, None)]), bytes.to_vec()].concat();
    let (number, reason) = Raw::client(&authority).say(peer.name(), &said, finish).await;
    assert_eq!(CloseCode::from_number(number), Some(code), "{reason}");
    assert!(reason.contains(words), "{reason}");
    peer.until_refused(code, 1).await;
    let other = End::client(&authority);
    talk(&other, &mut peer).await;
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_at_its_length() {
    let most = (8 << 20) + (64 << 10) + 1u32;
    harmful(&most.to_le_bytes(), false, CloseCode::TooLarge, "8454145 bytes, and at most 8454144").await;
    harmful(&u32::MAX.to_le_bytes(), false, CloseCode::TooLarge, "4294967295 bytes").await;
}

#[tokio::test]
async fn a_truncated_frame_is_refused() {
    let whole = bytes_of(&[copy(1, 300)]);
    harmful(&whole[..100], true, CloseCode::BadFrame, "the stream ended inside a frame, after 100 of").await;
    harmful(&whole[..3], true, CloseCode::BadFrame, "after 3 of 4 bytes").await;
}

#[tokio::test]
async fn garbage_is_refused() {
    harmful(&framed(&[0xff; 50]), false, CloseCode::BadFrame, "not a frame of ennead/1").await;
    harmful(&framed(&[]), false, CloseCode::BadFrame, "it ends too early").await;
}

#[tokio::test]
async fn an_unknown_frame_is_refused() {
    harmful(&framed(&[42]), false, CloseCode::BadFrame, "unknown variant 42").await;
}

#[tokio::test]
async fn bytes_after_a_frame_are_refused() {
    let mut body = bytes_of(&[Frame::StatusAsk { ask: 1 }])[4..].to_vec();
    body.push(0);
    harmful(&framed(&body), false, CloseCode::BadFrame, "1 bytes after the end of a frame").await;
}

#[tokio::test]
async fn a_second_hello_is_refused() {
    harmful(&bytes_of(&[hello(Role::Client, None)]), false, CloseCode::BadFrame, "a second hello").await;
}

#[tokio::test]
async fn a_message_of_another_cluster_is_refused() {
    let bytes = bytes_of(&[ring(Some(ClusterId::new(2)), 1)]);
    harmful(&bytes, false, CloseCode::AnotherCluster, "another cluster: I belong to 0000000000000001").await;
}

#[tokio::test]
async fn a_list_that_claims_to_be_huge_is_refused() {
    // StatusTold whose version text claims 2^40 bytes.
    let body = [&[5, 1, 4, 127, 0, 0, 1, 5, 5, 0, 0, 0, 0][..], &[253, 0, 0, 0, 0, 0, 1, 0, 0]].concat();
    harmful(&framed(&body), false, CloseCode::BadFrame, "not a frame").await;
}

#[tokio::test]
async fn a_connection_that_begins_without_a_hello_is_refused() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let raw = Raw::client(&authority);
    let (code, reason) = raw.say(peer.name(), &bytes_of(&[Frame::StatusAsk { ask: 1 }]), false).await;
    assert_eq!(code, CloseCode::BadFrame as u64);
    assert_eq!(reason, "the first frame is status_ask, and must be a hello");
    // Before the hello, little is read: 5 KiB are already too much.
    let (code, reason) = raw.say(peer.name(), &5000u32.to_le_bytes(), false).await;
    assert_eq!(code, CloseCode::TooLarge as u64, "{reason}");
    let (code, reason) = raw.say(peer.name(), &[], true).await;
    assert_eq!((code, reason.as_str()), (CloseCode::BadFrame as u64, "the stream ended before a hello"));
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let authority = Authority::new();
    let name = free_name(1);
    let peer =
        End::start(Config { dial_timeout: Duration::from_millis(300), ..peer_config(&authority, name) });
    let connection = Raw::client(&authority).connect(name).await.unwrap();
    assert_eq!(closed(&connection).await, (CloseCode::Idle as u64, "no hello came in time".to_string()));
    peer.until_refused(CloseCode::Idle, 1).await;
}

#[tokio::test]
async fn too_many_streams_are_refused() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let connection = Raw::client(&authority).connect(peer.name()).await.unwrap();
    let mut streams = Vec::new();
    for i in 0..4 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        let frame = if i == 0 { hello(Role::Client, None) } else { Frame::StatusAsk { ask: i } };
        let _ = send.write_all(&bytes_of(&[frame])).await;
        streams.push((send, recv));
    }
    assert_eq!(closed(&connection).await.0, CloseCode::NotAllowed as u64);
    peer.until_refused(CloseCode::NotAllowed, 1).await;
}

#[tokio::test]
async fn connections_from_one_address_are_capped() {
    let authority = Authority::new();
    let name = free_name(1);
    let peer = End::start(Config { max_per_address: 2, ..peer_config(&authority, name) });
    let raw = Raw::client(&authority);
    let first = raw.connect(name).await.unwrap();
    let _second = raw.connect(name).await.unwrap();
    assert!(raw.connect(name).await.is_err());
    peer.until_refused(CloseCode::Crowded, 1).await;
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(name), Frame::StatusAsk { ask: 1 });
    assert!(client.down().await.contains("takes no more connections now"));
    first.close(0u32.into(), b"");
    // A place is free again once its connection is forgotten.
    until(|| {
        client.transport.send(To::Machine(name), Frame::StatusAsk { ask: 1 });
        client.transport.stats().connections == 1
    })
    .await;
}

#[tokio::test]
async fn above_the_watermark_callers_prove_their_address_and_are_served() {
    let authority = Authority::new();
    let name = free_name(1);
    let mut peer = End::start(Config { retry_above: 0, ..peer_config(&authority, name) });
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn a_clients_certificate_speaks_for_no_machine() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let claimed = free_name(2);
    let said = bytes_of(&[hello(Role::Machine(machine(claimed)), None)]);
    let (code, reason) = Raw::client(&authority).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::NotAllowed as u64);
    assert_eq!(reason, format!("certificate: client tester cannot speak for machine {claimed}"));
    peer.until_refused(CloseCode::NotAllowed, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn a_peers_certificate_speaks_for_no_other_machine() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let (mine, claimed) = (free_name(2), free_name(3));
    let said = bytes_of(&[hello(Role::Machine(machine(claimed)), None)]);
    let (code, reason) = Raw::peer(&authority, mine).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::WrongName as u64);
    assert_eq!(reason, format!("certificate: you say you are {claimed}, and it names {mine}"));
    peer.until_refused(CloseCode::WrongName, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn nobody_else_has_my_name() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let said = bytes_of(&[hello(Role::Machine(machine(peer.name())), None)]);
    let (code, reason) = Raw::peer(&authority, peer.name()).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::NotAllowed as u64);
    assert!(reason.contains("two live machines must not share one"), "{reason}");
}

/// Issues a certificate that `certs::issue` would not, by the authority of a folder.
fn odd_certificate(authority: &Authority, file: &str, uri: &str, ip: Option<&str>, years: (i32, i32)) {
    let dir = authority.dir();
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(dir.join("ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&ca, key).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.extend(ip.map(|ip| rcgen::SanType::IpAddress(ip.parse().unwrap())));
    let certificate = params.signed_by(&pair, &issuer).unwrap();
    std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
    std::fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), pair.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_peers_certificate_with_another_address_is_refused() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let name = free_name(2);
    for (i, ip) in [Some("127.0.0.3"), None].into_iter().enumerate() {
        let file = format!("peers/odd{i}");
        odd_certificate(&authority, &file, &format!("ennead://peer/{name}"), ip, (2020, 2090));
        let raw = Raw::new(peer_authority(&authority), authority.dir(), &file, ALPN);
        let said = bytes_of(&[hello(Role::Machine(machine(name)), None)]);
        let (code, reason) = raw.say(peer.name(), &said, false).await;
        assert_eq!(code, CloseCode::NotAllowed as u64);
        assert!(reason.contains("but not the IP address 127.0.0.2"), "{reason}");
    }
    peer.until_refused(CloseCode::NotAllowed, 2).await;
}

fn peer_authority(authority: &Authority) -> &'static CertificateDer<'static> {
    Box::leak(Box::new(CertificateDer::from_pem_file(authority.dir().join("ca.pem")).unwrap()))
}

#[tokio::test]
async fn who_is_dialled_must_be_who_was_meant() {
    let authority = Authority::new();
    let listening = free_name(2);
    // The same IP address and another port: TLS cannot tell, the name in the certificate does.
    let same_ip = Name::new(SocketAddr::new(listening.ip(), 1));
    let other_ip: Name = "127.0.0.3".parse().unwrap();
    for (named, words) in
        [(same_ip, "and it names peer 127.0.0.2:1"), (other_ip, "certificate: not accepted")]
    {
        let impostor = End::start(Config {
            listen: Some(listening.address()),
            ..Config::new(Role::Machine(machine(named)), authority.peer(named))
        });
        let mut a = End::client(&authority);
        a.transport.send(To::Machine(listening), ring(None, 1));
        let reason = a.down().await;
        assert!(reason.contains(words), "{reason}");
        impostor.transport.close("done").await;
        drop(impostor);
        until(|| UdpSocket::bind(listening.address()).is_ok()).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such_on_both_sides() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    odd_certificate(&authority, "clients/old", "ennead://client/old", None, (2019, 2020));
    let mut old =
        End::start(Config::new(Role::Client, Identity::client(authority.dir(), Some("old")).unwrap()));
    old.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = old.down().await;
    assert!(reason.starts_with("certificate: expired or not yet valid"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn an_expired_certificate_of_who_is_dialled_is_named_as_such() {
    let authority = Authority::new();
    let name = free_name(1);
    odd_certificate(
        &authority,
        &format!("peers/{name}"),
        &format!("ennead://peer/{name}"),
        Some("127.0.0.1"),
        (2019, 2020),
    );
    let peer = End::peer(&authority, name);
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(name), ring(None, 1));
    let reason = client.down().await;
    assert!(reason.starts_with("certificate: expired or not yet valid"), "{reason}");
    client.until_refused(CloseCode::Certificate, 1).await;
    peer.until_refused(CloseCode::Certificate, 1).await;
}

#[tokio::test]
async fn another_authority_is_refused_by_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut peer = End::peer(&ours, free_name(1));
    // Trusts its own authority only: it refuses us.
    let mut stranger = End::client(&theirs);
    stranger.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = stranger.down().await;
    assert!(reason.starts_with("certificate: signed by another authority"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 1).await;
    // Trusts ours, with a certificate of its own: we refuse it.
    std::fs::copy(ours.dir().join("ca.pem"), theirs.dir().join("ca.pem")).unwrap();
    let mut stranger = End::start(Config::new(Role::Client, theirs.client("tester")));
    stranger.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = stranger.down().await;
    assert!(reason.starts_with("certificate: signed by another authority"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 2).await;
    talk(&End::client(&ours), &mut peer).await;
}

#[tokio::test]
async fn another_version_of_the_wire_parts_at_the_handshake() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    authority.client("tester");
    let raw = Raw::new(peer_authority(&authority), &authority.dir().join("clients"), "tester", b"ennead/0");
    let error = raw.connect(peer.name()).await.err().unwrap().to_string();
    assert!(error.contains("120") || error.to_lowercase().contains("protocol"), "{error}");
    peer.until_refused(CloseCode::WrongVersion, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn noise_leaves_others_served() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..2000u32 {
        let noise: Vec<u8> =
            (0..(i % 1300)).map(|j| (i.wrapping_mul(31) ^ j.wrapping_mul(17)) as u8).collect();
        let _ = socket.send_to(&noise, peer.name().address());
    }
    talk(&End::client(&authority), &mut peer).await;
}
