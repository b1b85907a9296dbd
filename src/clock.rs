//! The time of day. It orders nothing by itself (section 12): it feeds ballots, and it is what people read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::faults;

/// Nanoseconds since 1970, by this machine's clock.
pub(crate) fn unix_ns() -> u64 {
    let ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    match faults::clock_off_ms() {
        0 => ns,
        off => ns.saturating_add_signed(off.saturating_mul(1_000_000)),
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}
