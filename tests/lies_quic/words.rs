//! Frames of a member that say what is not so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ennead::client::CopyAnswer;
use ennead::transport::{Config, Event, To, Transport};
use ennead::wire::{Frame, Role};
use ennead_ring::message::{Addr, Answer, Ask, Copied, Envelope, Message};
use ennead_ring::stamp::{Ballot, Hlc};
use ennead_ring::view::{Epoch, Incarnation, Machine, Member};
use ennead_ring::{Key, SlotSet, View};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Cluster, DEADLINE, logged};

/// The liar, at its own address, as its transport would run there.
struct Liar {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    cluster: Cluster,
    epoch: Epoch,
}

impl Liar {
    /// Takes its place in this cluster.
    async fn of(cluster: Cluster) -> Self {
        let epoch = cluster.nodes[0].client().view().await.expect("a view").epoch();
        let (tell, events) = mpsc::channel(1024);
        let config = Config {
            listen: Some(cluster.liar.name.address()),
            cluster: Some(cluster.id),
            ..Config::new(Role::Machine(cluster.liar), cluster.authority.peer(cluster.liar.name))
        };
        Self {
            transport: Transport::bind(config, tell).expect("its address is free"),
            events,
            cluster,
            epoch,
        }
    }

    fn say(&self, to: To, epoch: Epoch, message: Message) {
        let envelope = Envelope { cluster: Some(self.cluster.id), epoch, message };
        self.transport.send(to, Frame::Ring(Box::new(envelope)));
    }

    /// Says it to the victim, again and again, until that says something which is looked for.
    async fn until_told<T>(
        &mut self,
        epoch: Epoch,
        message: Message,
        mut looked_for: impl FnMut(&Envelope) -> Option<T>,
    ) -> T {
        let victim = self.cluster.victim();
        let talk = async {
            loop {
                self.say(To::Machine(victim), epoch, message.clone());
                while let Ok(Some(event)) = timeout(Duration::from_millis(300), self.events.recv()).await {
                    if let Event::Frame { from: Addr::Machine(from), frame: Frame::Ring(envelope) } = event
                        && from.name == victim
                        && let Some(found) = looked_for(&envelope)
                    {
                        return found;
                    }
                }
            }
        };
        timeout(DEADLINE, talk).await.expect("an answer in time")
    }

    fn at(&self, number: u32) -> Epoch {
        Epoch { number, ..self.epoch }
    }

    /// The present view, as the victim tells it, and which is settled.
    async fn present(&mut self) -> (View, Epoch) {
        let asked = Message::ViewsAsk { after: Epoch::ZERO };
        let told = self.until_told(self.epoch, asked, |told| match &told.message {
            Message::ViewsTold { views, settled } => Some((View::clone(views.last()?), *settled)),
            _ => None,
        });
        told.await
    }

    /// Answers whatever is asked of a key with "none", and the votes of all nine slots. Counts the lies told.
    async fn votes_for_all(&mut self, epoch: Epoch, told: &mut [usize; 2]) {
        while let Some(event) = self.events.recv().await {
            let Event::Frame { from, frame: Frame::Ring(envelope) } = event else { continue };
            let (ask, answer) = match envelope.message {
                Message::Read { ask, .. } => (ask, Answer::Copy(Copied::None)),
                Message::Prepare { ask, ballot, .. } => {
                    (ask, Answer::Promised { ballot, record: None, bound: Default::default() })
                }
                _ => continue,
            };
            told[usize::from(matches!(from, Addr::Client(_)))] += 1;
            self.say(from.into(), epoch, Message::Answer { ask, votes: SlotSet::all(9), answer });
        }
    }
}

fn key() -> Key {
    Key::new("mail-23412").expect("a key")
}

#[tokio::test]
async fn what_a_member_says_of_epochs_views_and_times_is_weighed() {
    let mut liar = Liar::of(Cluster::start_at(132, 11).await).await;
    let own = liar.epoch;
    assert!(own.number > 1);

    // V4: who is behind asks for the views, and answers nothing.
    let later = liar.at(own.number + 7);
    let read = Message::Read { ask: Ask(77), key: key(), inline: 100 };
    let asked = liar.until_told(later, read, |told| match told.message {
        Message::Answer { ask: Ask(77), .. } => panic!("it answered"),
        Message::ViewsAsk { after } => Some(after),
        _ => None,
    });
    assert_eq!(asked.await, own, "it asks for what came after its own");
    liar.cluster.serves("a later epoch").await;

    // V2: who speaks of a view that is past is told of this one.
    let ballot = Ballot { time: Hlc::from_nanos(1), by: liar.cluster.liar.incarnation };
    let past = Message::DecreePrepare { ask: Ask(78), ballot };
    let told = liar.until_told(liar.at(own.number - 1), past, |told| match &told.message {
        Message::DecreeAnswer { .. } => panic!("it answered"),
        Message::ViewsTold { views, .. } => views.last().map(|view| view.epoch()),
        _ => None,
    });
    assert_eq!(told.await, own);
    liar.cluster.serves("an earlier epoch").await;

    // V3: views that do not follow this one.
    let (view, settled) = liar.present().await;
    let stranger =
        Machine { name: "127.0.132.99".parse().expect("a name"), incarnation: Incarnation::new(99) };
    let with_stranger = view.members().iter().copied().chain([Member::up(stranger, 64)]).collect();
    let unlawful = view.successor(with_stranger, Vec::new()).expect("a view");
    let next = view.successor(view.members().to_vec(), Vec::new()).expect("a view");
    let gap = next.successor(view.members().to_vec(), Vec::new()).expect("a view");
    for view in [gap, unlawful] {
        let epoch = view.epoch();
        let views = Message::ViewsTold { views: vec![Arc::new(view)], settled };
        // Whoever has not adopted it asks for what came after its own, still.
        let asked = liar.until_told(epoch, views, |_| Some(()));
        asked.await;
        let probe = Message::Read { ask: Ask(79), key: key(), inline: 0 };
        let asked = liar.until_told(epoch, probe, |told| match told.message {
            Message::ViewsAsk { after } => Some(after),
            _ => None,
        });
        assert_eq!(asked.await, own, "epoch {epoch} was not adopted");
        liar.cluster.serves("a view that does not follow").await;
    }
    liar.cluster.objects("no decree can have made it: it was not adopted").await;

    // A hundred years ahead: obeyed, and said aloud (section 12).
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let time = Hlc::from_nanos((now + Duration::from_secs(100 * 365 * 86_400)).as_nanos() as u64);
    let ballot = Ballot { time, by: liar.cluster.liar.incarnation };
    let prepare = Message::Prepare { ask: Ask(80), key: key(), ballot };
    let promised = liar.until_told(own, prepare, |told| match &told.message {
        Message::Answer { ask: Ask(80), answer: Answer::Promised { ballot, .. }, .. } => Some(*ballot),
        _ => None,
    });
    assert_eq!(promised.await, ballot);
    let name = liar.cluster.liar.name.to_string();
    logged(&["a time more than a day ahead of this clock", &name]).await;
    let client = liar.cluster.client().await;
    client.put(key().as_bytes(), "above it").await.expect("a put above that ballot");
    liar.cluster.serves("a ballot far ahead").await;
}

#[tokio::test]
async fn a_member_that_votes_for_all_is_one_voice() {
    const KEYS: usize = 12;
    let mut cluster = Cluster::start_at(133, 11).await;
    let client = cluster.client().await;
    for n in 0..KEYS {
        let key = format!("kept-{n}");
        client.put(&*key, "here").await.expect("a put");
        // Else "none" of the liar's own slots, and of one more, would be true of five.
        let whole = async {
            let same = |copy: &ennead::client::CopyReport| copy.answer == CopyAnswer::Same;
            while client
                .get_copies(&*key)
                .await
                .map_or(0, |(_, copies)| copies.into_iter().filter(same).count())
                < 3
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, whole).await.expect("three hold it");
    }
    cluster.serves("nothing yet").await;
    let mut liar = Liar::of(cluster).await;
    let own = liar.epoch;
    // In this view, in one that is past, in one that never was.
    for number in [own.number, own.number - 1, own.number + 3] {
        let (epoch, mut told) = (liar.at(number), [0, 0]);
        // It is there, and is asked.
        liar.present().await;
        let client = liar.cluster.client().await;
        let asks = async {
            for n in 0..KEYS {
                let key = format!("kept-{n}");
                let copy = client.get(&*key).await.unwrap_or_else(|e| panic!("{key} at epoch {epoch}: {e}"));
                assert_eq!(copy.map(|c| c.value.to_vec()), Some(b"here".to_vec()), "{key} at epoch {epoch}");
                client.put(format!("new-{number}-{n}"), "there").await.expect("a put");
            }
        };
        tokio::select! {
            () = liar.votes_for_all(epoch, &mut told) => panic!("its transport has ended"),
            done = timeout(DEADLINE, asks) => done.expect("reads and writes in time"),
        }
        assert!(told.iter().all(|n| *n > 0), "lies told to machines and clients: {told:?}");
        if number <= own.number {
            liar.cluster.objects("votes for slots that are not its own").await;
        }
        liar.cluster.serves("votes for others' slots").await;
    }
}
