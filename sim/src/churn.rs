//! Membership that never rests: machines join, leave, die and lose their disks, about as many coming as going.

use rand::RngExt;

use crate::computer::Role;
use crate::faults::log_uniform;
use crate::world::World;
use crate::{MS, SEC};

/// Longest that a machine stalls: as long as the others wait before they drop it.
const LONGEST_STALL: u64 = 30 * SEC;

impl World {
    /// The next change.
    pub(super) fn churn(&mut self) {
        let few = self.wanted() < self.profile.founders;
        match self.rng.random_range(0..10) {
            _ if few => self.let_in(),
            0..5 => self.let_go(),
            5..7 => self.let_die(),
            _ => self.wipe(),
        }
    }

    /// A tenth of the machines stand still now and then, for a tenth of a second up to half a minute. Who stands still or is
    /// down already does not for longer: of two on end the others would rightly think that it is dead.
    pub(super) fn stall(&mut self) {
        let m = self.rng.random_range(0..self.computers.len().div_ceil(10));
        let pause = log_uniform(&mut self.rng, 100 * MS, LONGEST_STALL);
        let computer = &mut self.computers[m];
        if computer.node.is_none() || computer.paused_until > self.now {
            return;
        }
        computer.paused_until = self.now + pause;
        self.note(|| format!("s{} stands still for {} ms", m + 1, pause / MS));
    }

    /// A machine that died is replaced by a new one of its name, once nobody needs what it knew.
    pub(super) fn replace_the_dead(&mut self) {
        for m in 0..self.computers.len() {
            let computer = &self.computers[m];
            if computer.role == Role::Dead && computer.reborn.is_none() && self.views.is_free(computer.me) {
                self.renew(m, None);
                self.computers[m].role = Role::Out;
            }
        }
    }
}
