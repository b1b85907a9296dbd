//! A cluster imagined: machines as `--machines` names them, each with its zone where that matters.

use std::str::FromStr;

use ennead::Name;
use ennead_ring::quorum::DEFAULT_SLOTS;
use ennead_ring::{ClusterId, Epoch, Incarnation, Machine, Member, MemberState, View, Zone};

use crate::failure::Failure;

/// Positions of an imagined machine where nobody said otherwise: those of PROTOCOL's known answers.
const IMAGINED_WEIGHT: u32 = 1;

/// `10.0.0.1`, `10.0.0.1:9605`, or with a zone `10.0.0.1@rack-7`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Imagined {
    name: Name,
    zone: Zone,
}

impl FromStr for Imagined {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, zone) = match text.split_once('@') {
            Some((name, zone)) => (name, zone.parse().map_err(|e: ennead_ring::ZoneError| e.to_string())?),
            None => (text, Zone::NONE),
        };
        Ok(Self { name: name.parse().map_err(|e: ennead_ring::view::NameError| e.to_string())?, zone })
    }
}

/// The view of a cluster of these machines, each with so many positions. Asks nobody.
pub(crate) fn imagine_view(
    machines: &[Imagined],
    weight: Option<u32>,
    slots: Option<u8>,
) -> Result<View, Failure> {
    let weight = weight.unwrap_or(IMAGINED_WEIGHT);
    let slots = slots.unwrap_or(DEFAULT_SLOTS);
    let member = |(i, &Imagined { name, zone }): (usize, &Imagined)| {
        let machine = Machine { name, incarnation: Incarnation::new(i as u64 + 1) };
        Member::new(machine, (weight, zone), MemberState::Up)
    };
    let members = machines.iter().enumerate().map(member).collect();
    View::new(ClusterId::new(0), Epoch::FIRST, slots, members, Vec::new())
        .map_err(|e| Failure::Usage(e.to_string()))
}
