//! How fast a pass takes in what it is told: side work leaves the disks and the network to clients. Pure.

use crate::message::Purpose;

/// What a page costs beside its bytes: storage looked for it.
const PAGE: u64 = 4_096;

/// Nanoseconds to wait after so many bytes (a token bucket), at the full rate and while clients are served; `None`: none.
pub(crate) fn pause(purpose: Purpose, bytes: u64, full: u64, serves: bool) -> Option<u64> {
    let rate = rate(purpose, full, serves)?;
    Some(bytes.saturating_add(PAGE).saturating_mul(1_000_000_000) / rate)
}

/// Bytes a second that a pass may take in, at the full rate and while clients are served. Slots are silent until what is
/// behind them has come: a copy for them yields less, and the digests of a sync, which are few bytes, not at all.
fn rate(purpose: Purpose, full: u64, serves: bool) -> Option<u64> {
    let share = match (purpose, serves) {
        (Purpose::Sync, _) | (Purpose::Copy, false) => return None,
        (Purpose::Copy, true) | (Purpose::Ahead | Purpose::Check, false) => 1,
        (Purpose::Ahead | Purpose::Check, true) => 4,
    };
    Some((full / share).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_work_yields_to_clients_and_what_slots_wait_for_yields_less() {
        let rates = |serves| {
            [Purpose::Check, Purpose::Ahead, Purpose::Copy, Purpose::Sync].map(|p| rate(p, 400, serves))
        };
        assert_eq!(rates(false), [Some(400), Some(400), None, None]);
        assert_eq!(rates(true), [Some(100), Some(100), Some(400), None]);
        assert_eq!(rate(Purpose::Check, 0, true), Some(1), "slow, and not stopped");
    }
}
