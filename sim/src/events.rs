//! What can happen next, and in which order it does.

#[cfg(test)]
use std::collections::BTreeSet;
use std::collections::VecDeque;

use ennead_ring::Name;
use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Envelope};

/// What happens next.
pub(crate) enum Event {
    /// A message arrives at a machine.
    Deliver {
        to: usize,
        from: Addr,
        envelope: Box<Envelope>,
    },
    /// A message arrives at a client.
    Tell {
        client: usize,
        from: Name,
        envelope: Box<Envelope>,
    },
    /// Something inside a process: it dies with it.
    Inside {
        machine: usize,
        life: u32,
        input: Input,
    },
    Synced {
        machine: usize,
        life: u32,
    },
    Wake {
        machine: usize,
        life: u32,
    },
    Client {
        client: usize,
        token: u64,
    },
    /// The operator looks after the cluster.
    Operator,
    /// Has anybody seen who died?
    Look,
    /// How do all stand?
    Survey,
    Fault(Fault),
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Cut,
    Uncut,
    Crash,
    Restart(usize),
    Pause,
    Jump,
    Lie,
    /// A machine joins.
    Join,
    /// One is told to leave.
    Leave,
    /// One never runs again.
    Die,
    /// More are lost for good than any key bears.
    Disaster,
    /// One loses its disk.
    Wipe,
    /// It begins anew.
    Reborn(usize),
    /// A backup is made.
    BackUp,
    /// One stands still for longer than the others wait.
    Freeze,
    /// Some are cut off for longer than that.
    Split,
    /// The next change of a steady flow.
    Churn,
    /// One of a few that are often slow stands still.
    Stall,
    /// All of a zone lose power.
    Zone,
    /// A member's weight or zone is changed.
    Place,
    /// An fsync fails.
    Fail,
    /// A disk is full.
    Fill,
    /// What the schedule says, by its place there.
    Timed(usize),
    /// The cut that it made is mended.
    Mend(usize),
    /// A machine whose disk it made slow says so.
    Ails(usize),
}

/// What is to happen, in order of time, and of what was scheduled first. Time never goes back, so this is a radix heap: an
/// event lies in the bucket of the highest bit by which its time differs from that of the last one, and comes down a few
/// buckets before it happens. Of a million events under way none is compared with any other. The events themselves lie aside.
pub(super) struct Queue {
    /// Those of time `now`, in order.
    due: VecDeque<u32>,
    /// By bit: their times, and their places in `events`. Each bucket is in the order in which they were scheduled.
    later: [Vec<(u64, u32)>; 64],
    /// A bit for each bucket that is not empty.
    filled: u64,
    now: u64,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
}

impl Default for Queue {
    fn default() -> Self {
        let later = std::array::from_fn(|_| Vec::new());
        Self { due: VecDeque::new(), later, filled: 0, now: 0, events: Vec::new(), free: Vec::new() }
    }
}

impl Queue {
    /// Not before the last that was taken out.
    pub(super) fn push(&mut self, at: u64, event: Event) {
        debug_assert!(at >= self.now, "time does not go back");
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(event);
        self.put(at, place);
    }

    fn put(&mut self, at: u64, place: u32) {
        match (at ^ self.now).checked_ilog2() {
            None => self.due.push_back(place),
            Some(bit) => {
                self.later[bit as usize].push((at, place));
                self.filled |= 1 << bit;
            }
        }
    }

    /// Takes out the next one, if it is due by then, and says when.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, Event)> {
        if self.due.is_empty() {
            // Of no bucket: nothing is to come.
            let bit = self.filled.trailing_zeros() as usize;
            let first = self.later.get(bit)?.iter().map(|(at, _)| *at).min()?;
            if first > until {
                return None;
            }
            self.now = first;
            self.filled &= !(1 << bit);
            let mut bucket = std::mem::take(&mut self.later[bit]);
            for (at, place) in bucket.drain(..) {
                self.put(at, place);
            }
            // All of them went further down: its room is kept.
            self.later[bit] = bucket;
        }
        if self.now > until {
            return None;
        }
        let place = self.due.pop_front()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (self.now, event))
    }

    /// Only these will happen.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Event) -> bool) {
        let Self { due, later, filled, events, free, .. } = self;
        let mut stays = |place: u32| {
            let event = &mut events[place as usize];
            let stays = event.as_ref().is_some_and(&wanted);
            if !stays {
                *event = None;
                free.push(place);
            }
            stays
        };
        due.retain(|place| stays(*place));
        for (bit, bucket) in later.iter_mut().enumerate() {
            bucket.retain(|(_, place)| stays(*place));
            if bucket.is_empty() {
                *filled &= !(1 << bit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_of_what_is_due_at_once_what_was_scheduled_first() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut queue, mut all) = (Queue::default(), BTreeSet::new());
        let (mut now, mut number) = (0, 0);
        for _ in 0..20_000 {
            if rng.random_bool(0.52) {
                // Where time stands still, too.
                let at = now + [0, 1, 1_000, 1 << 40][rng.random_range(0..4)] / rng.random_range(1..=9);
                queue.push(at, Event::Client { client: number, token: 0 });
                all.insert((at, number));
                number += 1;
            } else if let Some((at, first)) = all.pop_first() {
                assert!(at == 0 || queue.pop(at - 1).is_none(), "before it is due");
                let Some((then, Event::Client { client, .. })) = queue.pop(at) else { panic!("it is gone") };
                assert_eq!((then, client), (at, first));
                now = at;
            }
            if number % 5_000 == 4_999 {
                queue.retain(|event| matches!(event, Event::Client { client, .. } if client % 3 > 0));
                all.retain(|(_, number)| number % 3 > 0);
            }
        }
        assert!(number > 9_000);
    }
}
