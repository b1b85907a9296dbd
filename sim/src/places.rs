//! Where machines stand and how heavy they are: zones that fail whole, places that an operator changes.

use ennead_ring::message::Wish;
use ennead_ring::{MemberState, Zone};
use rand::RngExt;

use crate::computer::Role;
use crate::faults::{Profile, log_uniform};
use crate::world::World;
use crate::{MS, SEC};

/// The weight and the zone with which a machine begins: what stands together says so.
pub(crate) fn first(profile: &Profile, m: usize) -> (u32, Zone) {
    let named = profile.zones > 1 && profile.named;
    (profile.weight, if named { zone(m % profile.zones) } else { Zone::NONE })
}

fn zone(n: usize) -> Zone {
    format!("zone-{}", n + 1).parse().unwrap_or_default()
}

impl World {
    /// All machines that stand in one zone lose power, and are back together. In a scenario, only once the last that did
    /// are whole again: two zones at once are more than is promised.
    pub(super) fn strike_zone(&mut self) {
        if self.profile.endless && self.unsettled().is_some() {
            return;
        }
        let zones = self.profile.zones.max(1);
        let struck = self.rng.random_range(0..zones);
        let most = self.profile.zone_down;
        let back = self.now + log_uniform(&mut self.rng, most / 10, most);
        let pause = (back - self.now) / MS;
        self.note(|| format!("zone {} fails for {pause} ms", struck + 1));
        for m in (struck..self.computers.len()).step_by(zones) {
            self.computers[m].down_until = back;
            self.crash(m);
        }
        self.met("zone failed");
    }

    /// An operator wants a machine to be heavier, lighter, or of another zone.
    pub(super) fn replace(&mut self) {
        let all = self.computers.iter().enumerate();
        let members: Vec<usize> = all.filter(|(_, c)| c.role == Role::In).map(|(m, _)| m).collect();
        if members.is_empty() {
            return;
        }
        let m = members[self.rng.random_range(0..members.len())];
        let (mut weight, mut zone_of) = self.computers[m].place;
        // Where all name their zones, who names none is not taken in.
        if zone_of.is_none() || self.rng.random_bool(0.5) {
            weight = [1, 4, 16][self.rng.random_range(0..3)];
        } else {
            zone_of = zone(self.rng.random_range(0..4));
        }
        self.computers[m].place = (weight, zone_of);
        self.note(|| format!("s{} is to have {weight} positions, in zone {zone_of}", m + 1));
    }

    /// Says again what is not so yet.
    pub(super) fn wish_places(&mut self) {
        let Some(newest) = self.views.newest.clone() else { return };
        for m in 0..self.computers.len() {
            let (machine, (weight, zone)) = (self.computers[m].me, self.computers[m].place);
            let member = newest.view.members().iter().find(|member| member.machine == machine);
            let up = member.filter(|member| member.state == MemberState::Up);
            if up.is_some_and(|member| member.next_place() != (weight, zone)) {
                self.wish(Wish::Place { machine, weight, zone });
                self.met("place changed");
            }
        }
    }
}

/// What a seed draws of zones and places, in a world whose membership changes.
pub(crate) fn draw(p: &mut Profile, rng: &mut rand::rngs::StdRng) {
    if rng.random_bool(0.4) {
        p.zones = rng.random_range(2..=4);
        if rng.random_bool(0.5) {
            p.zone_every = log_uniform(rng, 2 * SEC, 20 * SEC);
            p.zone_down = log_uniform(rng, 100 * MS, 6 * SEC);
        }
    }
    if rng.random_bool(0.4) {
        p.place_every = log_uniform(rng, SEC, 10 * SEC);
    }
}
