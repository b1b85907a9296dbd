//! What a schedule says is done, when its time has come.

use ennead_ring::Health;
use ennead_ring::effect::Input;

use crate::computer::Role;
use crate::cuts::Cut;
use crate::events::{Event, Fault};
use crate::schedule::{Act, Timed};
use crate::world::World;
use crate::{MS, SEC};

/// A daemon calls its disk slow where most fsyncs take so long, and so many times what they used to (`src/health.rs`).
const SLOW: u64 = 50 * MS;
const SLOWER: f64 = 30.0;
/// It takes about so long to find that, and says it again as often.
const SAYS: u64 = 2 * SEC;

impl World {
    /// Times count from now on.
    pub(super) fn start_schedule(&mut self) {
        for n in 0..self.profile.schedule.len() {
            let at = self.profile.schedule[n].at();
            self.schedule(at, Event::Fault(Fault::Timed(n)));
        }
        for n in 0..self.profile.surveys.len() {
            self.schedule(self.profile.surveys[n], Event::Survey);
        }
    }

    /// The time of this one has come.
    pub(super) fn act(&mut self, n: usize) {
        let Timed { act, machines, clients, .. } = &self.profile.schedule[n];
        let (act, clients) = (*act, clients.unwrap_or(0));
        let all = self.computers.len();
        let struck: Vec<usize> = match act {
            Act::Power if machines.is_empty() => (0..all).collect(),
            _ => machines.iter().filter_map(|m| m.checked_sub(1)).filter(|&m| m < all).collect(),
        };
        let last = self.profile.schedule[n].lasts();
        let names: Vec<String> = struck.iter().map(|m| format!("s{}", m + 1)).collect();
        self.note(|| format!("scheduled: {} of {} for {} ms", act.told().0, names.join(" "), last / MS));
        if let Act::Cut | Act::Split = act {
            let mut side = vec![false; self.profile.machines + self.clients.len()];
            struck.iter().for_each(|&m| side[m] = true);
            side.iter_mut().skip(self.profile.machines).take(clients).for_each(|client| *client = true);
            self.counts.cuts += 1;
            self.cuts.push(Cut::Timed { number: n, side, alone: act == Act::Cut });
            return self.schedule(last, Event::Fault(Fault::Mend(n)));
        }
        for m in struck {
            self.act_on(n, act, m, last);
        }
    }

    fn act_on(&mut self, n: usize, act: Act, m: usize, last: u64) {
        let role = self.computers[m].role;
        let belongs = matches!(role, Role::In | Role::Going);
        match act {
            Act::Kill | Act::Power | Act::FailDisk => {
                self.computers[m].down_until = self.now + last;
                if act == Act::FailDisk {
                    self.fail_disk(m);
                } else {
                    self.crash(m);
                }
                self.schedule(last, Event::Fault(Fault::Restart(m)));
            }
            Act::KillForGood if belongs => {
                self.lose(m);
                self.met("died for good");
            }
            Act::Wipe if belongs => {
                self.lose(m);
                self.computers[m].reborn = Some(false);
                self.schedule(last, Event::Fault(Fault::Reborn(m)));
            }
            Act::Pause => {
                let computer = &mut self.computers[m];
                computer.paused_until = computer.paused_until.max(self.now + last);
            }
            Act::SlowDisk => {
                let times = self.profile.schedule[n].times.unwrap_or(1.0);
                self.computers[m].slow = (times, self.now + last);
                if times >= SLOWER && self.profile.sync as f64 * times >= SLOW as f64 {
                    self.schedule(SAYS, Event::Fault(Fault::Ails(m)));
                }
            }
            Act::FullDisk => self.fill_disk(m, last),
            Act::Clock => {
                let by = (self.profile.schedule[n].by_s.unwrap_or(0.0) * SEC as f64) as i64;
                let computer = &mut self.computers[m];
                computer.skew = computer.skew.saturating_add(by);
            }
            Act::Leave if role == Role::In => self.computers[m].role = Role::Going,
            Act::Remove if role == Role::Dead => self.removals.push(self.computers[m].me),
            Act::Join if matches!(role, Role::Out | Role::Dead) => {
                if role == Role::Dead {
                    self.renew(m, None);
                }
                self.join(m);
            }
            // Chance was there before.
            _ => self.note(|| format!("s{} is {role:?}: nothing is done", m + 1)),
        }
    }

    /// A machine whose disk is slow says so, for as long as it is.
    pub(super) fn ail(&mut self, m: usize) {
        let ((times, until), life) = (self.computers[m].slow, self.computers[m].life);
        let slow = until > self.now;
        let takes = (self.profile.sync as f64 * times) as u64 / MS;
        let stalled_ms = if slow { u32::try_from(takes).unwrap_or(u32::MAX) } else { 0 };
        let input = Input::Health(Health { stalled_ms, ..Health::default() });
        self.schedule(0, Event::Inside { machine: m, life, input });
        if slow {
            self.schedule(SAYS.min(until - self.now), Event::Fault(Fault::Ails(m)));
        }
    }
}
