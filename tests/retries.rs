//! A client whose coordinator answers late, and each try in its own time. Over real QUIC; the coordinator is this test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ennead::certs::{self, Identity, Who};
use ennead::client::ClientOptions;
use ennead::transport::{Config, Event, To, Transport};
use ennead::wire::{Frame, Role};
use ennead::{Client, Name};
use ennead_ring::View;
use ennead_ring::message::{Addr, Ask, Envelope, Message, Op, Outcome, Write};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Member};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster of one machine, which says what the test says.
struct Coordinator {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    view: Arc<View>,
}

impl Coordinator {
    fn say(&self, to: Addr, message: Message) {
        let (cluster, epoch) = (Some(self.view.cluster()), self.view.epoch());
        self.transport.send(To::from(to), Frame::Ring(Box::new(Envelope { cluster, epoch, message })));
    }

    /// The next write that it is asked for. Until then it tells whoever asks that it is alone.
    async fn asked(&mut self) -> (Addr, Ask, Write) {
        let asked = async {
            loop {
                let event = self.events.recv().await.expect("its transport goes on");
                let Event::Frame { from, frame: Frame::Ring(envelope) } = event else { continue };
                match envelope.message {
                    Message::ViewAsk { ask } => {
                        self.say(from, Message::ViewTold { ask, view: self.view.clone() });
                    }
                    Message::Request { ask, op: Op::Write(write), .. } => return (from, ask, write),
                    other => panic!("a client says {}", other.kind()),
                }
            }
        };
        timeout(DEADLINE, asked).await.expect("it asks in time")
    }
}

/// I3, FOUND 9: the first try fails, and is told of when the second has been sent. That failure is not the second one's: the
/// write may succeed yet, and here it does.
#[tokio::test]
async fn i3_an_answer_to_an_earlier_try_is_not_taken_for_a_later_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let certs = dir.path().join("certs");
    let name = Name::new(SocketAddr::new(Ipv4Addr::new(127, 0, 137, 11).into(), 9595));
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Client("me".into())).expect("a certificate");
    certs::issue(&certs, &Who::Peer(name)).expect("a certificate");

    let machine = Machine { name, incarnation: Incarnation::new(7) };
    let view = View::new(ClusterId::new(5), Epoch::FIRST, 1, vec![Member::up(machine, 4)], vec![]);
    let view = Arc::new(view.expect("a view"));
    let (tell, events) = mpsc::channel(1024);
    let config = Config {
        listen: Some(name.address()),
        cluster: Some(view.cluster()),
        ..Config::new(Role::Machine(machine), Identity::peer(&certs, name).expect("its certificate"))
    };
    let transport = Transport::bind(config, tell).expect("its address is free");
    let mut coordinator = Coordinator { transport, events, view };

    let options = ClientOptions { timeout: DEADLINE, ..ClientOptions::new([name], certs) };
    let put = tokio::spawn(async move {
        let client = Client::with_options(options).await.expect("a client");
        client.put("light", "red").if_version(3).await
    });
    let (from, first, write) = coordinator.asked().await;
    let (_, second, again) = coordinator.asked().await;
    assert!(write.id == again.id && !write.again && again.again, "the same, tried again: {again:?}");
    coordinator.say(from, Message::Outcome { ask: first, outcome: Outcome::Mismatch { version: Some(2) } });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!put.is_finished(), "it waits for the second");
    coordinator.say(from, Message::Outcome { ask: second, outcome: Outcome::Done { version: 4, votes: 1 } });
    let done = timeout(DEADLINE, put).await.expect("an answer in time").expect("no panic");
    assert_eq!(done.expect("it was applied"), 4);
}
