//! The core loop's border towards clients: what they ask waits in lines (`src/admission.rs`), and is looked at as fast as
//! it can be served.

use std::time::{Duration, Instant};

use ennead_ring::SlotSet;
use ennead_ring::counts::{self, Histogram, KINDS, Timings};
use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Answer, Change, Envelope, Message, Op, Outcome, Write};

use super::Core;
use crate::admission::{Asked, Lines, Next, Reason};
use crate::snapshot::Turned;
use crate::transport::To;
use crate::wire::Frame;

/// Requests being served above which further ones wait in their lines, at most and at least. Many more than keep the disk
/// busy, so that some which wait for the dead do not keep out the others...
const SERVED: (u64, u64) = (64, 1_024);
/// ...but not so many that even the quickest takes so long, in microseconds, as a power of two: 65 ms.
const TOO_LONG: usize = 16;
/// More of them at a time, while the quickest does not.
const MORE: u64 = 64;
/// Requests and reads begun before what else has come gets its turn.
const REQUESTS: usize = 64;
const READS: usize = 256;
/// Memory that a frame takes beside its value.
const FRAME: usize = 256;

/// What clients ask and has not been looked at.
#[derive(Debug)]
pub(super) struct Border {
    /// To change a key, or to settle it: they are being served until they are answered.
    requests: Lines<(Addr, Box<Envelope>)>,
    /// Of copies: answered at once.
    reads: Lines<(Addr, Box<Envelope>)>,
    /// Told to come back later.
    turned: Turned,
    /// How long those waited that were looked at.
    waited: Timings,
    /// Requests that may be served at once.
    most: u64,
    /// How long requests took, when that was last looked at.
    took: Histogram,
    /// Keys that are being looked up on the disk.
    pub(super) loads: u64,
}

impl Border {
    /// One that holds so many bytes of requests at most.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            requests: Lines::new(bytes),
            reads: Lines::new(bytes),
            turned: Turned::default(),
            waited: Timings::default(),
            most: SERVED.1,
            took: [0; 32],
            loads: 0,
        }
    }

    /// Looks at how long requests have taken since it last did. That even the quickest took long says that they stand in
    /// one another's way; that some took long says that they wait for somebody.
    fn breathe(&mut self, took: &Histogram) {
        let before = std::mem::replace(&mut self.took, *took);
        let quickest = took.iter().zip(before).position(|(now, before)| *now > before);
        self.most = match quickest {
            Some(bucket) if bucket >= TOO_LONG => (self.most / 2).max(SERVED.0),
            Some(_) => (self.most + MORE).min(SERVED.1),
            None => self.most,
        };
    }

    /// Requests and reads told to come back later.
    pub(super) fn turned(&self) -> &Turned {
        &self.turned
    }

    /// How long requests and reads waited until they were looked at.
    pub(super) fn waited(&self) -> &Timings {
        &self.waited
    }

    /// All that were told to come back later.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned.iter().flatten().sum()
    }

    /// Requests and reads that wait in lines.
    pub(super) fn waiting(&self) -> usize {
        self.requests.len() + self.reads.len()
    }

    /// One more is told to come back later.
    fn note_turned(&mut self, message: &Message, why: Reason) {
        let kind = match message {
            Message::Request { op, .. } => counts::kind(op),
            _ => KINDS.len(),
        };
        self.turned[kind][why as usize] += 1;
    }

    pub(super) fn gone(&mut self, client: u64) {
        self.requests.gone(client);
        self.reads.gone(client);
    }
}

/// What a client's message is: who is served when goes by it.
fn cost(message: &Message) -> Option<(bool, usize, Option<Duration>)> {
    match message {
        Message::Request { op, within, .. } => {
            let bytes = match op {
                Op::Write(Write { change: Change::Put { value, .. }, .. }) => value.len(),
                _ => 0,
            };
            Some((true, FRAME + bytes, Some(Duration::from_millis(u64::from(*within)))))
        }
        Message::Read { .. } => Some((false, FRAME, None)),
        _ => None,
    }
}

impl Core<'_> {
    /// Somebody says something. What clients ask takes its place in a line; the rest is heard at once.
    pub(super) fn on_envelope(&mut self, from: Addr, envelope: Box<Envelope>) {
        let (Addr::Client(client), Some((request, bytes, within))) = (from, cost(&envelope.message)) else {
            self.input(Input::Message { from, envelope });
            return;
        };
        let came = Instant::now();
        let asked =
            Asked { what: (from, envelope), came, expires: within.and_then(|t| came.checked_add(t)), bytes };
        let lines = if request { &mut self.border.requests } else { &mut self.border.reads };
        if let Err(next) = lines.push(client, asked) {
            self.go_on_with(next);
        }
    }

    /// Serves those whose turn it is, as far as they can be served now.
    pub(super) fn admit(&mut self) {
        let now = Instant::now();
        for _ in 0..READS {
            let Some(next) = self.border.reads.next(now) else { break };
            self.go_on_with(next);
        }
        for _ in 0..REQUESTS {
            if !self.may_serve() {
                break;
            }
            let Some(next) = self.border.requests.next(now) else { break };
            self.go_on_with(next);
        }
    }

    /// At each beat: fewer are served at once if they stand in one another's way; and those are turned away that have
    /// waited too long behind others.
    pub(super) fn shed(&mut self) {
        let took = self.node.counts().writes_took();
        self.border.breathe(&took);
        let now = Instant::now();
        while !self.may_serve()
            && let Some(next) = self.border.requests.shed(now)
        {
            self.go_on_with(next);
        }
    }

    /// True if somebody waits who can be served now.
    pub(super) fn may_admit(&self) -> bool {
        self.border.reads.len() > 0 || (self.border.requests.len() > 0 && self.may_serve())
    }

    fn may_serve(&self) -> bool {
        self.node.counts().waiting + self.border.loads < self.border.most
    }

    fn go_on_with(&mut self, next: Next<(Addr, Box<Envelope>)>) {
        match next {
            Next::Serve(Asked { what: (from, mut envelope), came, .. }) => {
                let waited = came.elapsed();
                self.border.waited.note(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
                if let Message::Request { within, .. } = &mut envelope.message {
                    // The time in the line is part of the time for the answer.
                    *within = within.saturating_sub(u32::try_from(waited.as_millis()).unwrap_or(u32::MAX));
                }
                self.input(Input::Message { from, envelope });
            }
            Next::Turn(Asked { what: (from, envelope), .. }, later, why) => {
                self.border.note_turned(&envelope.message, why);
                self.turn_away(from, &envelope.message, later);
            }
        }
    }

    fn turn_away(&self, from: Addr, message: &Message, later: Duration) {
        let retry_after = u32::try_from(later.as_millis()).unwrap_or(u32::MAX);
        let message = match message {
            Message::Request { ask, .. } => {
                Message::Outcome { ask: *ask, outcome: Outcome::Overloaded { retry_after } }
            }
            Message::Read { ask, .. } => {
                let answer = Answer::Busy { retry_after };
                Message::Answer { ask: *ask, votes: SlotSet::EMPTY, answer }
            }
            _ => return,
        };
        let view = self.node.view();
        let (cluster, epoch) =
            (view.map(|view| view.cluster()), view.map(|view| view.epoch()).unwrap_or_default());
        self.parts
            .transport
            .send(To::from(from), Frame::Ring(Box::new(Envelope { cluster, epoch, message })));
    }

    /// True for an Accept that the disk cannot take: it hangs, or has no room. It is lost like any message, and asked for
    /// again; what waits for the disk would grow without bound otherwise.
    pub(super) fn is_swamped(&self, message: &Message) -> bool {
        matches!(message, Message::Accept { .. }) && self.parts.storage.backlog() > self.parts.backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_are_served_at_once_while_even_the_quickest_takes_long_and_not_because_some_do() {
        let (mut border, mut took) = (Border::new(1 << 20), [0; 32]);
        let mut pass = |border: &mut Border, buckets: &[usize]| {
            buckets.iter().for_each(|bucket| took[*bucket] += 1);
            border.breathe(&took);
            border.most
        };
        // Two seconds for those that wait for the dead, two milliseconds for the others.
        assert_eq!(pass(&mut border, &[11, 21, 21, 21]), SERVED.1);
        assert_eq!(pass(&mut border, &[17, 18, 21]), SERVED.1 / 2);
        assert_eq!(pass(&mut border, &[]), SERVED.1 / 2, "nothing is known");
        assert_eq!((0..9).map(|_| pass(&mut border, &[19])).last(), Some(SERVED.0));
        assert_eq!(pass(&mut border, &[12, 19]), SERVED.0 + MORE);
    }
}
