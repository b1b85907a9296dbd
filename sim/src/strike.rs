//! Faults strike: cuts, crashes, pauses, clocks that jump, disks that fail or are full, wrong hints.

use ennead_ring::Health;
use ennead_ring::effect::Input;
use rand::RngExt;

use crate::computer::Role;
use crate::events::{Event, Fault};
use crate::faults::log_uniform;
use crate::world::World;
use crate::{MS, SEC};

/// Longest that a process stands still.
pub(super) const LONGEST_PAUSE: u64 = 3 * SEC;
/// Longest that a disk has no room.
const LONGEST_FULL: u64 = 60 * SEC;

impl World {
    pub(super) fn start_faults(&mut self) {
        for fault in [
            Fault::Cut,
            Fault::Crash,
            Fault::Pause,
            Fault::Jump,
            Fault::Lie,
            Fault::Join,
            Fault::Leave,
            Fault::Die,
            Fault::Disaster,
            Fault::Wipe,
            Fault::BackUp,
            Fault::Freeze,
            Fault::Split,
            Fault::Churn,
            Fault::Stall,
            Fault::Zone,
            Fault::Place,
            Fault::Fail,
            Fault::Fill,
        ] {
            self.next_fault(fault);
        }
        if self.profile.moves() {
            self.schedule(SEC, Event::Operator);
        }
        self.start_schedule();
    }

    fn next_fault(&mut self, fault: Fault) {
        let every = match fault {
            Fault::Cut => self.profile.cut_every,
            Fault::Crash => self.profile.crash_every,
            Fault::Pause => self.profile.pause_every,
            Fault::Jump => self.profile.jump_every,
            Fault::Lie => self.profile.lie_every,
            Fault::Join => self.profile.join_every,
            Fault::Leave => self.profile.leave_every,
            Fault::Die => self.profile.die_every,
            Fault::Disaster => self.profile.disaster_every,
            Fault::Wipe => self.profile.wipe_every,
            Fault::BackUp if self.profile.restore > 0.0 => self.profile.wipe_every / 4,
            Fault::Freeze => self.profile.freeze_every,
            Fault::Split => self.profile.split_every,
            Fault::Churn => self.profile.churn_every,
            Fault::Stall => self.profile.stall_every,
            Fault::Zone => self.profile.zone_every,
            Fault::Place => self.profile.place_every,
            Fault::Fail => self.profile.fail_every,
            Fault::Fill => self.profile.full_every,
            Fault::Uncut | Fault::Restart(_) | Fault::Reborn(_) | Fault::BackUp => return,
            Fault::Timed(_) | Fault::Mend(_) | Fault::Ails(_) => return,
        };
        if every > 0 {
            let after = self.rng.random_range(0..=2 * every);
            self.schedule(after, Event::Fault(fault));
        }
    }

    pub(super) fn random_skew(&mut self) -> i64 {
        let most = self.profile.skew as i64;
        if most == 0 { 0 } else { self.rng.random_range(-most..=most) }
    }

    /// Its node is told so, and later that there is room again.
    pub(super) fn fill_disk(&mut self, m: usize, last: u64) {
        let life = self.computers[m].life;
        for (after, full) in [(0, true), (last, false)] {
            let input = Input::Health(Health { full, ..Health::default() });
            self.schedule(after, Event::Inside { machine: m, life, input });
        }
        self.note(|| format!("s{}: the disk is full for {} ms", m + 1, last / MS));
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        let machines = self.computers.len();
        let m = self.rng.random_range(0..machines);
        self.next_fault(fault);
        match fault {
            Fault::Cut => self.sever(m, self.profile.cut_for),
            Fault::Split => {
                let patience = self.profile.tuning.patience;
                self.sever(m, patience * 3);
            }
            Fault::Uncut => self.mend(),
            Fault::Crash => {
                if self.rng.random_bool(self.profile.power_cut) {
                    for m in 0..machines {
                        self.crash(m);
                    }
                } else {
                    self.crash(m);
                }
            }
            Fault::Restart(m) => {
                let runs = matches!(self.computers[m].role, Role::In | Role::Going);
                let until = self.computers[m].down_until;
                if self.faulty && until > self.now {
                    self.schedule(until - self.now, Event::Fault(fault));
                } else if runs && self.computers[m].node.is_none() {
                    self.start(m);
                }
            }
            Fault::Join => self.let_in(),
            Fault::Leave => self.let_go(),
            Fault::Die => self.let_die(),
            Fault::Disaster => self.lose_many(),
            Fault::Wipe => self.wipe(),
            Fault::Reborn(m) => self.reborn(m),
            Fault::BackUp => self.back_up(m),
            Fault::Churn => self.churn(),
            Fault::Stall => self.stall(),
            Fault::Zone => self.strike_zone(),
            Fault::Place => self.replace(),
            Fault::Fail => self.fail_disk(m),
            Fault::Fill => {
                let last = log_uniform(&mut self.rng, SEC, LONGEST_FULL);
                self.fill_disk(m, last);
            }
            Fault::Timed(n) => self.act(n),
            Fault::Mend(n) => self.mend_timed(n),
            Fault::Ails(m) => self.ail(m),
            Fault::Freeze => {
                let patience = self.profile.tuning.patience;
                let pause = self.rng.random_range(patience / 2..=patience * 3);
                self.computers[m].paused_until = self.now + pause;
                self.note(|| format!("s{} stands still for {} ms", m + 1, pause / MS));
            }
            Fault::Pause => {
                let pause = log_uniform(&mut self.rng, 10 * MS, LONGEST_PAUSE);
                self.computers[m].paused_until = self.now + pause;
                self.note(|| format!("s{} pauses", m + 1));
            }
            Fault::Jump => {
                let skew = self.random_skew();
                self.computers[m].skew = skew;
                self.note(|| format!("s{}: clock jumps to {skew}", m + 1));
            }
            Fault::Lie => {
                let about = self.rng.random_range(0..machines);
                let name = self.computers[about].me.name;
                let reachable = self.rng.random_bool(0.3);
                let life = self.computers[m].life;
                if about != m {
                    let input = Input::Reachable { name, reachable };
                    self.schedule(0, Event::Inside { machine: m, life, input });
                }
            }
        }
    }
}
