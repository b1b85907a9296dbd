//! What a node's background work is, in the words of its status.

use ennead_ring::Node;
use ennead_ring::effect::Mono;

use crate::status::{CheckStatus, MoveStatus};

/// What it takes in from others.
pub(crate) fn moves(node: &Node, now: Mono) -> Vec<MoveStatus> {
    let moves = node.moves().into_iter().map(|m| MoveStatus {
        purpose: m.purpose,
        keys: m.keys,
        bytes: m.bytes,
        looked: m.looked,
        total: m.total,
        since_ms: now.0.saturating_sub(m.since.0) / 1_000_000,
        from: m.from,
        waits_for: m.waits_for,
    });
    moves.collect()
}

/// How its comparison of copies goes.
pub(crate) fn check(node: &Node) -> CheckStatus {
    let progress = node.check_progress();
    CheckStatus {
        rounds: progress.rounds,
        running: progress.running,
        keys: progress.looked,
        unlike: progress.unlike,
        mended: progress.mended,
        collected: progress.collected,
    }
}
