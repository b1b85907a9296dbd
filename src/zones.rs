//! Can a whole zone fail now? Computed over all the owners that a key may have, not over the keys there are.

use ennead_ring::{Shares, Zone, quorum_of};
use serde_json::{Value, json};

use crate::Name;

/// A machine of the ring, as far as this question goes.
#[derive(Clone, Debug)]
pub struct Stand {
    /// Who.
    pub name: Name,
    /// Its zone.
    pub zone: Zone,
    /// Why its slots cannot be counted on at present, in a word; `None` if they can.
    pub lost: Option<&'static str>,
}

/// The answer for one zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneState {
    /// Which zone.
    pub name: Zone,
    /// Its machines in the ring.
    pub machines: Vec<Name>,
    /// True if every key would be served on without all of them.
    pub can_fail: bool,
    /// Why not, if it cannot.
    pub reason: Option<String>,
}

/// The zones that have machines in the ring, in order of their names; those without a name are none that could fail.
/// Members are numbered as in the view: `None` is one that is not in the ring.
pub fn zones(shares: &Shares, slots: u8, members: &[Option<Stand>]) -> Vec<ZoneState> {
    let ring = || (0u32..).zip(members).filter_map(|(i, stand)| Some((i, stand.as_ref()?)));
    // Where one names none, keys are spread over none (PROTOCOL section 2).
    let nameless = ring().filter(|(_, stand)| stand.zone.is_none()).count();
    let mut names: Vec<Zone> = ring().map(|(_, stand)| stand.zone).filter(|zone| !zone.is_none()).collect();
    names.sort();
    names.dedup();
    let state = |name: Zone| {
        let gone = ring().filter(|(_, stand)| stand.zone == name || stand.lost.is_some());
        let owned = shares.most_owned(gone.map(|(i, _)| i));
        let others: Vec<&Stand> =
            ring().map(|(_, stand)| stand).filter(|s| s.zone != name && s.lost.is_some()).collect();
        let can_fail = slots - owned >= quorum_of(slots);
        let machines = ring().filter(|(_, stand)| stand.zone == name).map(|(_, stand)| stand.name).collect();
        ZoneState {
            name,
            machines,
            can_fail,
            reason: (!can_fail).then(|| reason(owned, slots, &others, nameless)),
        }
    };
    names.into_iter().map(state).collect()
}

fn reason(owned: u8, slots: u8, others: &[&Stand], nameless: usize) -> String {
    let with = match others {
        [] => String::new(),
        [one] => format!("with {}, which is {}, ", one.name, one.lost.unwrap_or_default()),
        many => format!("with {} machines that are down or not synced, ", many.len()),
    };
    let spare = slots - quorum_of(slots);
    let still = match nameless {
        0 => String::new(),
        n => format!("; keys are spread over zones once all machines name theirs: {n} name none"),
    };
    format!("{with}{owned} of the {slots} slots of some keys would be silent, and {spare} may be{still}")
}

/// For programs.
pub fn to_json(zones: &[ZoneState]) -> Value {
    let zone = |zone: &ZoneState| {
        json!({
            "name": zone.name.as_str(),
            "machines": zone.machines.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "can_fail": zone.can_fail,
            "reason": zone.reason,
        })
    };
    Value::Array(zones.iter().map(zone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines 1, 2, ... in these zones; those in `down` are.
    fn of(names: &[&str], down: &[usize]) -> Vec<ZoneState> {
        let zone = |name: &str| name.parse::<Zone>().expect("a zone");
        let shares = Shares::of((0..).zip(names.iter().map(|name| zone(name))), 9);
        let stand = |(i, name): (usize, &&str)| {
            let lost = down.contains(&(i + 1)).then_some("down");
            Some(Stand { name: format!("10.0.0.{}", i + 1).parse().expect("a name"), zone: zone(name), lost })
        };
        zones(&shares, 9, &names.iter().enumerate().map(stand).collect::<Vec<_>>())
    }

    fn can_fail(zones: &[ZoneState]) -> Vec<bool> {
        zones.iter().map(|zone| zone.can_fail).collect()
    }

    #[test]
    fn each_of_three_zones_can_fail_and_with_one_machine_down_still() {
        let three = ["a", "a", "a", "b", "b", "b", "c", "c", "c"];
        assert_eq!(can_fail(&of(&three, &[])), [true; 3]);
        assert_eq!(can_fail(&of(&three, &[4])), [true; 3]);
        let two_down = of(&three, &[4, 5]);
        assert_eq!(can_fail(&two_down), [false, true, false]);
        let why = two_down[0].reason.as_deref().unwrap_or_default();
        assert_eq!(
            why,
            "with 2 machines that are down or not synced, 5 of the 9 slots of some keys would be silent, and 4 may be"
        );
        assert_eq!(two_down[1].reason, None);
    }

    #[test]
    fn of_two_zones_the_larger_share_cannot_fail() {
        let two = ["a", "a", "a", "a", "a", "b", "b", "b", "b", "b"];
        assert_eq!(can_fail(&of(&two, &[])), [false, false], "either may own five slots of a key");
        let nine = ["a", "a", "a", "a", "a", "b", "b", "b", "b"];
        assert_eq!(can_fail(&of(&nine, &[])), [false, true]);
    }

    #[test]
    fn machines_that_name_no_zone_are_no_zone_that_could_fail() {
        assert_eq!(of(&["-", "-", "-"], &[]), []);
        let one = of(&["-", "-", "a"], &[]);
        assert_eq!((one.len(), one[0].can_fail, one[0].machines.len()), (1, true, 1));
        let most = of(&["-", "a", "a", "a", "a", "a", "b", "b", "b", "b", "b", "b"], &[]);
        assert_eq!(can_fail(&most), [false, false]);
        assert!(most[0].reason.as_deref().is_some_and(|why| why.ends_with("1 name none")), "{most:?}");
    }
}
