//! What becomes of a message on its way: late, lost, twice, cut off, forged.

use std::sync::Arc;

use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Answer, Copied, Entry, Envelope, Held, Message, Outcome};
use ennead_ring::{ClusterId, Incarnation, Machine, Record, SlotSet, State};
use rand::RngExt;

use crate::events::Event;
use crate::faults::log_uniform;
use crate::report::describe;
use crate::world::World;
use crate::{MS, SEC, US};

impl World {
    pub(super) fn send(&mut self, m: usize, to: Addr, envelope: Box<Envelope>) {
        let from = Addr::Machine(self.computers[m].me);
        if self.trace.is_some() {
            let line = format!("s{} -> {} {}", m + 1, self.label(to), describe(&envelope));
            self.note(|| line);
        }
        self.speaks(m, to, &envelope);
        match to {
            Addr::Machine(machine) => {
                let Some(&i) = self.by_name.get(&machine.name) else { return };
                if i == m {
                    let life = self.computers[m].life;
                    let input = Input::Message { from, envelope };
                    return self.schedule(US, Event::Inside { machine: m, life, input });
                }
                self.transmit(m, i, Event::Deliver { to: i, from, envelope });
            }
            // A forger has no use for an answer.
            Addr::Client(n) if n as usize > self.clients.len() => {}
            Addr::Client(n) => {
                let client = n as usize;
                let end = self.profile.machines + client;
                let from = self.computers[m].me.name;
                self.transmit(m, end, Event::Tell { client, from, envelope });
            }
        }
    }

    pub(crate) fn send_from_client(&mut self, c: usize, to: usize, envelope: Envelope) {
        let from = Addr::Client(c as u64);
        let end = self.profile.machines + c;
        self.transmit(end, to, Event::Deliver { to, from, envelope: Box::new(envelope) });
    }

    fn transmit(&mut self, from: usize, to: usize, event: Event) {
        self.counts.messages += 1;
        if !self.faulty {
            let after = self.rng.random_range(self.profile.delay.min(MS) / 2..=self.profile.delay.min(MS));
            return self.schedule(after, event);
        }
        // A request travels on a stream of its own: lost or late, but never twice.
        let once = matches!(&event, Event::Deliver { envelope, .. } if matches!(envelope.message, Message::Request { .. }));
        if !once && self.rng.random_bool(self.profile.replay) {
            let after = log_uniform(&mut self.rng, 10 * MS, self.profile.replay_delay);
            self.schedule(after, copy(&event));
        }
        if self.profile.forge > 0.0
            && self.rng.random_bool(self.profile.forge)
            && let Some(forged) = self.forge(&event)
        {
            let after = self.delay();
            self.schedule(after, forged);
        }
        if self.is_cut(from, to) || self.rng.random_bool(self.profile.drop) {
            return;
        }
        if !once && self.rng.random_bool(self.profile.duplicate) {
            let after = self.delay();
            self.schedule(after, copy(&event));
        }
        let after = self.delay() + self.distance(from, to) + self.queueing(from, &event);
        self.schedule(after, event);
    }

    /// What the way between two zones adds. Clients are spread over them, too.
    fn distance(&self, from: usize, to: usize) -> u64 {
        let (from, to) = (from % self.profile.zones, to % self.profile.zones);
        match self.profile.distances.get(from) {
            Some(distances) => distances[to],
            None if from == to => 0,
            None => self.profile.zone_delay,
        }
    }

    /// A machine sends one thing after the other.
    fn queueing(&mut self, from: usize, event: &Event) -> u64 {
        let (Some(computer), Event::Deliver { envelope, .. } | Event::Tell { envelope, .. }) =
            (self.computers.get_mut(from), event)
        else {
            return 0;
        };
        if self.profile.bandwidth == 0 {
            return 0;
        }
        let took = size_of(envelope) * SEC / self.profile.bandwidth;
        computer.sending_until = computer.sending_until.max(self.now) + took;
        computer.sending_until - self.now
    }

    /// The same message with another content, from somebody who has no right to it.
    fn forge(&mut self, event: &Event) -> Option<Event> {
        let Event::Deliver { to, from, envelope } = event else { return None };
        let Addr::Machine(machine) = *from else { return None };
        let mut envelope = envelope.clone();
        match &mut envelope.message {
            Message::Accept { state, stamp, .. } => {
                let mut other = State::clone(state);
                (other.value, other.version) = (Some([0xff; 8].into()), other.version + 1);
                *state = Arc::new(other);
                stamp.n += 1;
            }
            Message::Prepare { ballot, .. } => ballot.time = ballot.time.plus(60 * SEC),
            Message::Answer { votes, answer, .. } => {
                *votes = SlotSet::all(self.profile.slots);
                match answer {
                    Answer::Held { stamp } => stamp.n += 1,
                    Answer::Promised { record, .. } => *record = None,
                    Answer::Copy(copied) => *copied = Copied::None,
                    Answer::Refused { .. } | Answer::Mute | Answer::NoRoom | Answer::Busy { .. } => {}
                }
            }
            Message::Outcome { outcome, .. } => *outcome = Outcome::Done { version: 999_999, votes: 9 },
            _ => return None,
        }
        let from = match self.rng.random_range(0..3) {
            0 => Addr::Client(9_999),
            1 => {
                let incarnation = Incarnation::new(machine.incarnation.id() ^ 1);
                Addr::Machine(Machine { incarnation, ..machine })
            }
            _ => {
                envelope.cluster = Some(ClusterId::new(self.rng.random()));
                *from
            }
        };
        Some(Event::Deliver { to: *to, from, envelope })
    }

    fn delay(&mut self) -> u64 {
        if self.rng.random_bool(self.profile.tail) {
            log_uniform(&mut self.rng, MS, self.profile.tail_delay)
        } else {
            self.rng.random_range(self.profile.delay / 2..=self.profile.delay)
        }
    }
}

/// Bytes of a message, roughly: its values, and what else it is made of.
fn size_of(envelope: &Envelope) -> u64 {
    let value = |state: &State| state.value.as_ref().map_or(0, |v| v.len()) as u64 + 64;
    let record = |record: &Record| value(&record.state);
    100 + match &envelope.message {
        Message::Accept { state, .. } => value(state),
        Message::Answer { answer: Answer::Promised { record: Some(r), .. }, .. }
        | Message::Answer { answer: Answer::Copy(Copied::Whole(r)), .. } => record(r),
        Message::Told { page, .. } => {
            let held = |entry: &Entry| match &entry.held {
                Held::Record { state: Some(state), .. } => value(state),
                _ => 64,
            };
            page.entries.iter().map(held).sum()
        }
        Message::Fetched { records, .. } => records.iter().filter_map(|(_, r)| r.as_ref()).map(record).sum(),
        Message::ViewsTold { views, .. } => views.iter().map(|v| 24 * v.members().len() as u64).sum(),
        _ => 0,
    }
}

fn copy(event: &Event) -> Event {
    match event {
        Event::Deliver { to, from, envelope } => {
            Event::Deliver { to: *to, from: *from, envelope: envelope.clone() }
        }
        Event::Tell { client, from, envelope } => {
            Event::Tell { client: *client, from: *from, envelope: envelope.clone() }
        }
        _ => unreachable!("only messages are copied"),
    }
}
