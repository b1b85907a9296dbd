//! After the faults: all is healed, every key is tried, and what expired is accounted for.

use ennead_ring::node::Birth;
use rand::RngExt;

use super::SEC;
use super::checker::{Call, If, Op, Reply};
use super::client::{Client, Script};
use super::events::{Event, Fault};
use super::world::World;

impl World {
    /// Faults stop. Everybody is back, or all but as many as may be missing.
    pub(super) fn heal(&mut self) {
        self.note(|| "healed".to_string());
        self.faulty = false;
        self.uncut();
        let away: Vec<usize> =
            if self.profile.stay_down && self.born() { self.may_be_missing() } else { Vec::new() };
        for m in 0..self.computers.len() {
            self.computers[m].paused_until = 0;
            if away.contains(&m) {
                self.crash(m);
                // Not to come back: the restart under way finds another life.
                self.computers[m].birth = Birth::None;
                self.queue_without_restart(m);
            } else if self.computers[m].node.is_none() {
                self.start(m);
            }
        }
        for m in 0..self.computers.len() {
            let up = self.computers[m].node.is_some();
            self.tell_reachable(m, up);
        }
    }

    fn queue_without_restart(&mut self, m: usize) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue
            .into_iter()
            .filter(|s| !matches!(s.event, Event::Fault(Fault::Restart(i)) if i == m))
            .collect();
    }

    /// Machines without which every key still has its five.
    fn may_be_missing(&mut self) -> Vec<usize> {
        let mut away = Vec::new();
        for _ in 0..self.profile.machines {
            let m = self.rng.random_range(0..self.profile.machines);
            if away.contains(&m) {
                continue;
            }
            away.push(m);
            let enough = (0..self.keys.len())
                .all(|key| self.slots_where(key, |_, i| !away.contains(&i)) > self.profile.slots / 2);
            if !enough {
                away.pop();
            }
        }
        away
    }

    /// Every key must be readable and writable, from everywhere.
    pub(super) fn audit(&mut self) {
        // Where there is room for few keys, the floor rises with each that is dropped: several at a time would
        // refuse one another's ballots for ever. Then one auditor goes from key to key.
        let together = self.profile.tuning.cells >= 4 * self.keys.len();
        let keys: Vec<usize> = (0..self.keys.len()).collect();
        for keys in keys.chunks(if together { 1 } else { keys.len() }) {
            let c = self.clients.len();
            // Its clock is ahead of all others: no request of its is too late.
            let ahead = (self.profile.client_skew + self.profile.tick + SEC) as i64;
            let mut client = Client::new(0, ahead, self.keys.len());
            client.scripted = true;
            let script = [
                Script::Get,
                Script::DirectGet,
                Script::Put,
                Script::DirectGet,
                Script::Get,
                Script::Delete,
                Script::Get,
                Script::Put,
                Script::Get,
            ];
            for &key in keys {
                client.script.extend(script.map(|s| (key, s)));
            }
            self.clients.push(client);
            self.client_start(c);
        }
    }

    /// G4: whoever finds a value past its expiry, by his own clock, deletes it. Clocks mean nothing here, so that
    /// may happen at any time after the put began, or never: a conditional delete of unknown outcome.
    pub(super) fn expire(&mut self) {
        for (key, value, start) in std::mem::take(&mut self.expiring) {
            let history = &mut self.histories[key];
            let version = history.iter().find_map(|op| match (op.call, op.reply) {
                (Call::Put(v, _), Reply::Done(version)) | (Call::Get, Reply::Found(v, version))
                    if v == value =>
                {
                    Some(version)
                }
                _ => None,
            });
            let condition = version.map_or(If::Any, If::Version);
            let (call, reply) = (Call::Delete(condition), Reply::Unknown);
            history.push(Op { who: 999, call, reply, start, end: u64::MAX });
        }
    }
}
