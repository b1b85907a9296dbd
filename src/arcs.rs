//! The ring's parts: where each begins, and whose it is. For pictures of it.

use ennead_ring::{Position, View};

/// A part of the ring: from its position up to the next one's, all slots prefer this member; where keys are spread over
/// zones, those that have found its zone, and on up to the next position of that zone's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arc {
    /// Where it begins.
    pub from: Position,
    /// Whose it is, as an index into [`View::members`].
    pub member: usize,
}

/// The ring's parts, in order. Never none.
pub fn arcs(view: &View) -> Vec<Arc> {
    let mut arcs = Vec::new();
    for (member, m) in view.members().iter().enumerate().filter(|(_, m)| m.in_ring()) {
        let mut from = Position::of(m.machine.name.to_string().as_bytes());
        for _ in 0..m.weight {
            arcs.push(Arc { from, member });
            from = from.next();
        }
    }
    arcs.sort_by_key(|arc| (arc.from, arc.member));
    arcs
}

/// Each member's part of the circle, 0 to 1.
pub fn lengths(arcs: &[Arc], members: usize) -> Vec<f64> {
    let mut lengths = vec![0.0; members];
    for (i, arc) in arcs.iter().enumerate() {
        let next = arcs[(i + 1) % arcs.len()].from;
        // A lone position's arc is the whole circle.
        let length = match next.to_u128().wrapping_sub(arc.from.to_u128()) {
            0 if arcs.len() == 1 => 1.0,
            length => fraction(Position::from_u128(length)),
        };
        lengths[arc.member] += length;
    }
    lengths
}

/// Where on the circle: 0 at the top, 0.25 on the right.
pub fn fraction(position: Position) -> f64 {
    position.to_u128() as f64 / 2f64.powi(128)
}

#[cfg(test)]
mod tests {
    use ennead_ring::{ClusterId, Epoch, Incarnation, Machine, Member};

    use super::*;

    fn view(names: &[&str], weight: u32) -> View {
        let member = |(i, name): (usize, &&str)| {
            let incarnation = Incarnation::new(i as u64 + 1);
            let machine = Machine { name: name.parse().expect("a name"), incarnation };
            Member::up(machine, weight)
        };
        let members = names.iter().enumerate().map(member).collect();
        View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).expect("a view")
    }

    #[test]
    fn arcs_are_in_order_and_their_lengths_add_up() {
        let view = view(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], 64);
        let arcs = arcs(&view);
        assert_eq!(arcs.len(), 192);
        assert!(arcs.windows(2).all(|p| p[0].from < p[1].from));
        let lengths = lengths(&arcs, 3);
        assert!((lengths.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(lengths.iter().all(|&part| (0.2..0.5).contains(&part)), "{lengths:?}");
    }

    #[test]
    fn a_lone_position_is_the_whole_circle() {
        let view = view(&["10.0.0.1"], 1);
        assert_eq!(lengths(&arcs(&view), 1), [1.0]);
    }
}
