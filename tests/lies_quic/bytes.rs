//! Bytes of a member that are no frame, or come under another's name: its connection ends with a reason.

use ennead::transport::CloseCode;
use ennead::wire::{ALPN, Frame, Role};
use ennead_ring::message::{Ask, Envelope, Message};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine};

use super::raw::{Raw, bytes_of, hello};
use super::{Cluster, logged};

/// A question that any machine would answer.
fn question(cluster: &Cluster) -> Vec<u8> {
    let message = Message::ViewAsk { ask: Ask(1) };
    let envelope = Envelope { cluster: Some(cluster.id), epoch: Epoch::FIRST, message };
    bytes_of(&[Frame::Ring(Box::new(envelope))])
}

/// The same bytes under another length.
fn as_long_as(bytes: &[u8], len: usize) -> Vec<u8> {
    [&(len as u32).to_le_bytes()[..], &bytes[4..]].concat()
}

impl Cluster {
    /// The liar, calling from its own address with its own certificate.
    fn raw_liar(&self) -> Raw {
        let (name, folder) = (self.liar.name, self.authority.dir().join("peers"));
        let authority = self.authority.peer(name);
        Raw::at(name.address(), authority.authority(), &folder, &name.to_string(), ALPN)
    }

    /// Says this on a connection of its own, which ends so; and clients are served as before.
    async fn refuses(&mut self, lie: &str, bytes: &[u8], finish: bool, code: CloseCode, words: &str) {
        let (number, reason) = self.raw_liar().say(self.victim(), bytes, finish).await;
        assert_eq!(CloseCode::from_number(number), Some(code), "{lie}: {reason}");
        assert!(reason.contains(words), "{lie}: {reason}");
        logged(&["connection", words]).await;
        self.serves(lie).await;
    }
}

#[tokio::test]
async fn bytes_of_a_member_that_are_no_frame_end_its_connection_and_nothing_else() {
    let mut cluster = Cluster::start_at(132, 1).await;
    let said = |cluster: &Cluster| bytes_of(&[hello(Role::Machine(cluster.liar), Some(cluster.id))]);
    let (first, frame) = (said(&cluster), question(&cluster));
    let after_hello = |bytes: &[u8]| [&first[..], bytes].concat();

    let bytes = after_hello(&[&42u32.to_le_bytes()[..], &[0xff; 42]].concat());
    cluster.refuses("garbage", &bytes, false, CloseCode::BadFrame, "not a frame of this version").await;

    // Of what follows, the rest is taken for a length.
    let bytes = after_hello(&as_long_as(&frame, frame.len() - 4 - 3));
    cluster.refuses("longer than it says", &bytes, false, CloseCode::BadFrame, "it ends too early").await;

    let padded = [&frame[..], &[7; 9]].concat();
    let bytes = after_hello(&as_long_as(&padded, padded.len() - 4));
    let words = "9 bytes after the end of a frame";
    cluster.refuses("shorter than it says", &bytes, false, CloseCode::BadFrame, words).await;

    let bytes = after_hello(&frame[..frame.len() - 2]);
    cluster.refuses("truncated", &bytes, true, CloseCode::BadFrame, "the stream ended inside a frame").await;

    // StatusTold whose version text claims 2^40 bytes.
    let claims = [&[5, 1, 4, 127, 0, 0, 1, 5, 5, 0, 0, 0, 0][..], &[253, 0, 0, 0, 0, 0, 1, 0, 0]].concat();
    let bytes = after_hello(&[&(claims.len() as u32).to_le_bytes()[..], &claims].concat());
    cluster
        .refuses("a length within that cannot be", &bytes, false, CloseCode::BadFrame, "not a frame")
        .await;

    let bytes = after_hello(&u32::MAX.to_le_bytes());
    cluster.refuses("a frame of 4 GiB", &bytes, false, CloseCode::TooLarge, "4294967295 bytes").await;

    let bytes = after_hello(&first);
    cluster.refuses("another hello", &bytes, false, CloseCode::BadFrame, "a second hello").await;
}

#[tokio::test]
async fn a_member_that_speaks_for_another_is_refused() {
    let mut cluster = Cluster::start_at(133, 1).await;
    let other = ClusterId::new(cluster.id.id() ^ 1);
    let liar = Role::Machine(cluster.liar);

    let message = Message::ViewAsk { ask: Ask(1) };
    let frame = Frame::Ring(Box::new(Envelope { cluster: Some(other), epoch: Epoch::FIRST, message }));
    let bytes = bytes_of(&[hello(liar, Some(cluster.id)), frame]);
    let words = format!("another cluster: I belong to {}, you to {other}", cluster.id);
    cluster.refuses("another cluster's message", &bytes, false, CloseCode::AnotherCluster, &words).await;

    let bytes = bytes_of(&[hello(liar, Some(other))]);
    cluster.refuses("another cluster's machine", &bytes, false, CloseCode::AnotherCluster, &words).await;

    // The name of one that lives, and of one that nobody is.
    for host in [2, 9] {
        let name = format!("127.0.133.{host}").parse().expect("a name");
        let machine = Machine { name, incarnation: Incarnation::new(7) };
        let bytes = bytes_of(&[hello(Role::Machine(machine), Some(cluster.id))]);
        let words = format!("certificate: you say you are {name}, and it names {}", cluster.liar.name);
        cluster.refuses("another's name", &bytes, false, CloseCode::WrongName, &words).await;
    }
}
