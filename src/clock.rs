//! The wall clock, asked for in one place, so that a test can set it wrong. It feeds ballots, and it is what people read;
//! nothing rests on its being right (section 12).

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::faults;

/// Seconds that this process takes its clock to be ahead of what the system says: 0 but in tests.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// What the wall clock says.
pub(crate) fn now() -> SystemTime {
    let system = SystemTime::now();
    let ahead = AHEAD.load(Relaxed).saturating_mul(1_000).saturating_add(faults::clock_off_ms());
    let by = Duration::from_millis(ahead.unsigned_abs());
    let shifted = if ahead < 0 { system.checked_sub(by) } else { system.checked_add(by) };
    shifted.unwrap_or(system)
}

/// The time since 1970; none where the clock says that it is earlier.
pub(crate) fn since_1970() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    since_1970().as_nanos() as u64
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    since_1970().as_millis() as u64
}

/// Test-only: from now on the clock is wrong by as many seconds as this file says, which is looked at now and then.
///
/// Certificates are judged by the same clock, as they would be on a machine whose clock is wrong.
#[doc(hidden)]
pub fn wrong_by_file(path: PathBuf) {
    let look = move || {
        let ahead = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        AHEAD.store(ahead.unwrap_or(0), Relaxed);
    };
    look();
    let looking = move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            look();
        }
    };
    // Without a thread the clock stays as it is now.
    let _ = std::thread::Builder::new().name("wrong clock".to_owned()).spawn(looking);
}

/// Whether a certificate is good at this time, by the same clock.
#[derive(Debug)]
pub(crate) struct Certified;

impl TimeProvider for Certified {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(since_1970()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_wrong_as_the_file_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("clock");
        for year in [31_536_000i64, -31_536_000, 0] {
            std::fs::write(&path, year.to_string()).expect("a file");
            wrong_by_file(path.clone());
            let system =
                SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970").as_secs() as i64;
            let off = since_1970().as_secs() as i64 - system;
            assert!((off - year).abs() <= 1, "{off} s instead of {year}");
        }
    }
}
