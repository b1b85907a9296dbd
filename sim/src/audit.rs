//! After the faults: all is healed, every key is tried, and what expired is accounted for.

use ennead_ring::node::Birth;
use rand::RngExt;

use crate::checker::{Call, If, Op, Reply};
use crate::client::{Client, Script};
use crate::computer::Role;
use crate::events::{Event, Fault};
use crate::faults::Profile;
use crate::script::What;
use crate::world::World;
use crate::{MS, SEC};

/// How long it may take until membership is as wanted and settled, besides the patience of the machines.
const REST: u64 = 60 * SEC;
/// The same where an operator has to force, who is refused while a machine that he names is believed alive.
const FORCED: u64 = 600 * SEC;
/// How long it may take until all copies are alike.
const EVEN: u64 = 60 * SEC;

impl World {
    /// Faults stop. Everybody is back, or all but as many as may be missing.
    pub(super) fn heal(&mut self) {
        self.note(|| "healed".to_string());
        self.faulty = false;
        self.cuts.clear();
        let stay = self.profile.stay_down && self.born() && !self.profile.moves();
        let away: Vec<usize> = if stay { self.may_be_missing() } else { Vec::new() };
        for m in 0..self.computers.len() {
            self.computers[m].paused_until = 0;
            if away.contains(&m) {
                self.crash(m);
                // Not to come back: the restart under way finds another life.
                self.computers[m].birth = Birth::None;
                self.queue_without_restart(m);
            } else if matches!(self.computers[m].role, Role::In | Role::Going)
                && self.computers[m].node.is_none()
            {
                self.start(m);
            }
        }
        if self.profile.moves() {
            self.bring_back();
        }
        for m in 0..self.computers.len() {
            let up = self.computers[m].node.is_some();
            self.tell_reachable(m, up);
        }
    }

    /// Views change until every machine that is wanted is a member, and nobody else; and the last one is settled.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        let begun = self.now;
        // Who is left alone, and has known slow links, takes its time to believe that all others are gone.
        let forced = if self.profile.disaster_every > 0 { FORCED } else { 0 };
        let within = REST + 20 * self.profile.tuning.patience + forced;
        while let Some(missing) = self.unsettled() {
            if self.disaster.named.is_empty() && self.views.overdrawn() {
                self.met("more lost than promised");
                return Ok(());
            }
            if self.now > begun + within {
                return Err(format!("claim 4: {} s after healing, {missing}", (self.now - begun) / SEC));
            }
            self.run_while(100 * MS, |_| true)?;
        }
        self.counts.rest = self.now - begun;
        Ok(())
    }

    /// Copies are compared and settled until all of a key are alike and voted for.
    pub(super) fn even_out(&mut self) -> Result<(), String> {
        // Where there is room for few keys, a promise that is dropped raises the floor above the very Accept that follows
        // it: some copies may be left behind each time.
        if self.profile.tuning.cells < 4 * self.keys.len() {
            return Ok(());
        }
        let begun = self.now;
        let look = if self.profile.born { SEC } else { 200 * MS };
        // Where nothing moves, nothing begins a comparison either.
        if (self.profile.born || !self.profile.moves()) && self.uneven().is_some() {
            self.met("copies differ until they are compared");
            self.compare_copies();
        }
        while let Some(uneven) = self.uneven().filter(|_| !self.views.overdrawn()) {
            if self.now > begun + EVEN {
                return Err(format!(
                    "repair: {} s after nobody does anything any more, {uneven}",
                    EVEN / SEC
                ));
            }
            self.run_while(look, |_| true)?;
        }
        self.counts.even = self.counts.even.max(self.now - begun);
        Ok(())
    }

    /// A comparison needs all of a key's owners, and clocks by which something can succeed.
    pub(super) fn can_compare(&self) -> bool {
        let all = self.computers.iter().all(|c| c.role != Role::In || c.node.is_some());
        all && !self.profile.doomed && self.profile.tuning.check_every > 0
    }

    /// As `kvctl check` does: by itself it happens every ten minutes.
    fn compare_copies(&mut self) {
        for m in 0..self.computers.len() {
            self.record(m, |_| Some(What::Compares));
            self.at_node(m, |node, now, effects| node.start_check(now, effects));
        }
    }

    fn queue_without_restart(&mut self, m: usize) {
        self.queue.retain(|event| !matches!(event, Event::Fault(Fault::Restart(i)) if *i == m));
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
            // Its clock is ahead of all others: no request of its is too late. Ballots run ahead of the clocks, by the
            // ceiling of each restart, and the bound of what was collected with them.
            let Profile { client_skew, skew, tick, .. } = self.profile;
            let ahead = (client_skew + skew + tick + 3_600 * SEC) as i64;
            let mut client = Client::new(0, ahead);
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
        for (key, given) in std::mem::take(&mut self.expiring) {
            let history = &mut self.histories[key];
            let condition = match (given.call, given.reply) {
                (_, Reply::Done(version)) => If::Version(version),
                (Call::Touch(condition), _) => condition,
                (Call::Put(value, _), _) => {
                    let read = history.iter().find_map(|op| match op.reply {
                        Reply::Found(v, version) if v == value => Some(version),
                        _ => None,
                    });
                    read.map_or(If::Any, If::Version)
                }
                _ => If::Any,
            };
            let (call, reply) = (Call::Delete(condition), Reply::Unknown);
            history.push(Op { who: 999, call, reply, end: u64::MAX, ..given });
        }
    }
}
