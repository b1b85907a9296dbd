//! What a node's background work is, in the words of its status.

use ennead_ring::effect::{Effect, Mono, Now};
use ennead_ring::view::Epoch;

use crate::status::{CheckStatus, MoveStatus};

/// The last view that it knows to be settled.
pub(crate) fn settled(node: &ennead_ring::Node) -> Epoch {
    // One settled view is all there is so far.
    node.view().map(|view| view.epoch()).unwrap_or_default()
}

/// What it takes in from others.
pub(crate) fn moves(_node: &ennead_ring::Node, _now: Mono) -> Vec<MoveStatus> {
    Vec::new()
}

/// How its comparison of copies goes.
pub(crate) fn check(_node: &ennead_ring::Node) -> CheckStatus {
    CheckStatus::default()
}

/// Begins to compare all copies; tells why not, if not.
pub(crate) fn start_check(
    _node: &mut ennead_ring::Node,
    _now: Now,
    _effects: &mut Vec<Effect>,
) -> Option<String> {
    Some("this version compares no copies yet".to_owned())
}

/// True if it has left the ring for good, and nobody needs what it holds (M3).
pub(crate) fn has_left(_node: &ennead_ring::Node) -> bool {
    false
}
