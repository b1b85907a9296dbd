//! How this machine does: what its disk takes for an fsync against what it used to, how busy its loop is, and whether it
//! refuses work.
//!
//! Probes do not touch the disk, so a machine whose fsyncs hang answers them all and is of no use: the data path is
//! evidence too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ennead_ring::Health;

use crate::storage::Histogram;

/// An fsync under way for so long is a stall, whatever came before.
const HANGS: Duration = Duration::from_secs(1);
/// The disk is slow if lately it was busy for half the time with fsyncs of a quarter of a second or more (in
/// microseconds, as a power of two)...
const SLOW: usize = 18;
/// ...and that is so many times what it usually takes;
const SLOWER: u64 = 8;
/// or if lately most of so many took so long...
const SOME: u64 = 3;
const MOSTLY_SLOW: u64 = 50_000;
/// ...and so many times what they usually take.
const MOSTLY_SLOWER: u64 = 30;
/// How long "lately" is.
const LATELY: Duration = Duration::from_secs(3);
/// Readings of it.
const READINGS: usize = 16;
/// A loop that comes this much too late is fully busy.
const LAG: Duration = Duration::from_millis(1_000);

/// Readings over time.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Fsync times, and requests refused, as counted when each reading was made.
    readings: VecDeque<(Instant, Histogram, u64)>,
    /// Requests refused lately.
    refused: u64,
    /// What was usual before the readings there are, in microseconds; 0 if nothing is known.
    usual: u64,
    /// Since when it is as it is.
    since: Instant,
    health: Health,
    /// Since when the disk has no room for values.
    full: Option<Instant>,
    /// How late the loop was at the last reading: one that stood still once is not loaded.
    late: Duration,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            readings: VecDeque::new(),
            refused: 0,
            usual: 0,
            since: now,
            health: Health::default(),
            full: None,
            late: Duration::ZERO,
        }
    }

    /// How it is, and for how long.
    pub(crate) fn health(&self, now: Instant) -> (Health, Duration) {
        (self.health, now.saturating_duration_since(self.since))
    }

    /// Whether the disk has room for values: told with the next reading.
    pub(crate) fn note_room(&mut self, now: Instant, full: bool) {
        self.full = full.then(|| self.full.unwrap_or(now));
    }

    /// For how long the disk has had no room for values.
    pub(crate) fn full_for(&self, now: Instant) -> Option<Duration> {
        self.full.map(|since| now.saturating_duration_since(since))
    }

    /// Requests refused lately.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// This machine stood still: what took long until now says nothing of its disk.
    pub(crate) fn begin_anew(&mut self, now: Instant, fsyncs: &Histogram, refused: u64) -> Health {
        self.readings.clear();
        self.read(now, fsyncs, None, Duration::ZERO, refused)
    }

    /// Takes a reading: of the fsyncs counted so far, the one under way, how late the loop is, and the requests refused
    /// so far.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        fsyncs: &Histogram,
        running: Option<Duration>,
        late: Duration,
        refused: u64,
    ) -> Health {
        while self.readings.front().is_some_and(|(at, ..)| now.duration_since(*at) > LATELY)
            || self.readings.len() >= READINGS
        {
            if let Some((_, old, _)) = self.readings.pop_front() {
                // While it is slow, slowness does not become usual.
                let usual = quantile(&old, 50);
                if self.health.stalled_ms == 0 && usual > 0 {
                    self.usual = usual;
                }
            }
        }
        let (before, refused_before) =
            self.readings.front().map_or((*fsyncs, refused), |(_, old, refused)| (*old, *refused));
        self.readings.push_back((now, *fsyncs, refused));
        self.refused = refused.saturating_sub(refused_before);
        let mut lately = [0; 32];
        for (lately, (now, before)) in lately.iter_mut().zip(fsyncs.iter().zip(before)) {
            *lately = now.saturating_sub(before);
        }
        let usual = self.usual.max(100);
        let (worst, most) = (quantile(&lately, 99), quantile(&lately, 50));
        // One slow fsync is a hiccup. The middle of a bucket stands for all that is in it.
        let busy: u64 = (SLOW..32).map(|i| lately[i].saturating_mul(3 << (i - 1))).sum();
        let count: u64 = lately.iter().sum();
        let running = running.unwrap_or_default();
        let stalled_us = if running >= HANGS {
            running.as_micros() as u64
        } else if self.usual > 0 && busy >= LATELY.as_micros() as u64 / 2 && worst / usual >= SLOWER {
            worst
        } else if self.usual > 0 && count >= SOME && most >= MOSTLY_SLOW && most / usual >= MOSTLY_SLOWER {
            most
        } else {
            0
        };
        let late = std::mem::replace(&mut self.late, late).min(late);
        let load = (late.as_millis() * 100 / LAG.as_millis()).min(250) as u8;
        // Who refuses work is full, however well its loop does.
        let load = if self.refused > 0 { load.max(100) } else { load };
        let full = self.full.is_some();
        let health =
            Health { stalled_ms: u32::try_from(stalled_us.div_ceil(1_000)).unwrap_or(u32::MAX), load, full };
        let changed =
            (health.is_unwell(), health.load >= 100) != (self.health.is_unwell(), self.health.load >= 100);
        if changed {
            self.since = now;
        }
        self.health = health;
        health
    }
}

/// The value below which so many percent lie, as the lower end of its bucket; 0 of nothing.
fn quantile(histogram: &Histogram, percent: u64) -> u64 {
    let all: u64 = histogram.iter().sum();
    let mut left = (all * percent).div_ceil(100);
    for (i, count) in histogram.iter().enumerate() {
        if left <= *count && left > 0 {
            return 1 << i;
        }
        left = left.saturating_sub(*count);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fsyncs of so many microseconds, a hundred a second, for so long.
    fn run(
        pulse: &mut Pulse,
        counts: &mut Histogram,
        now: &mut Instant,
        micros: u64,
        seconds: u64,
    ) -> Health {
        let mut health = Health::default();
        for _ in 0..seconds * 4 {
            counts[micros.ilog2() as usize] += 25;
            *now += Duration::from_millis(250);
            health = pulse.read(*now, counts, None, Duration::ZERO, 0);
        }
        health
    }

    #[test]
    fn a_disk_far_slower_than_it_was_is_stalled_and_well_again_when_it_is_not() {
        let mut now = Instant::now();
        let (mut pulse, mut counts) = (Pulse::new(now), [0; 32]);
        assert_eq!(run(&mut pulse, &mut counts, &mut now, 2_000, 60).stalled_ms, 0);
        let slow = run(&mut pulse, &mut counts, &mut now, 300_000, 4);
        assert!(slow.stalled_ms >= 200, "{slow:?}");
        assert!(
            run(&mut pulse, &mut counts, &mut now, 300_000, 600).stalled_ms > 0,
            "it does not become usual"
        );
        assert_eq!(run(&mut pulse, &mut counts, &mut now, 2_000, 5).stalled_ms, 0);
        // Slower, and bearable; and a hundred times slower from little.
        assert_eq!(run(&mut pulse, &mut counts, &mut now, 40_000, 5).stalled_ms, 0);
        let mut counts = [0; 32];
        let mut pulse = Pulse::new(now);
        run(&mut pulse, &mut counts, &mut now, 700, 10);
        assert!(run(&mut pulse, &mut counts, &mut now, 70_000, 4).stalled_ms > 0);
    }

    #[test]
    fn one_slow_fsync_is_a_hiccup() {
        let mut now = Instant::now();
        let (mut pulse, mut counts) = (Pulse::new(now), [0; 32]);
        run(&mut pulse, &mut counts, &mut now, 2_000, 60);
        for _ in 0..8 {
            counts[19] += 1;
            now += Duration::from_secs(2);
            assert_eq!(pulse.read(now, &counts, None, Duration::ZERO, 0).stalled_ms, 0);
        }
    }

    #[test]
    fn a_disk_that_was_always_slow_is_not_stalled() {
        let mut now = Instant::now();
        let (mut pulse, mut counts) = (Pulse::new(now), [0; 32]);
        assert_eq!(run(&mut pulse, &mut counts, &mut now, 300_000, 60).stalled_ms, 0);
    }

    #[test]
    fn an_fsync_that_hangs_is_seen_before_it_ends() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        let read = |pulse: &mut Pulse, ms| {
            pulse.read(now, &[0; 32], Some(Duration::from_millis(ms)), Duration::ZERO, 0).stalled_ms
        };
        assert_eq!((read(&mut pulse, 900), read(&mut pulse, 1_200)), (0, 1_200));
    }

    #[test]
    fn who_turns_requests_away_is_overloaded_and_is_not_once_it_does_no_more() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(now);
        let mut read = |turned_away| {
            now += Duration::from_millis(250);
            pulse.read(now, &[0; 32], None, Duration::ZERO, turned_away).load
        };
        assert_eq!((read(7), read(7)), (0, 0), "what an earlier loop counted is old");
        assert_eq!(read(9), 100);
        let then: Vec<u8> = (0..20).map(|_| read(9)).collect();
        assert!(
            then[..8].iter().all(|load| *load == 100) && then[16..].iter().all(|load| *load == 0),
            "{then:?}"
        );
    }

    #[test]
    fn a_loop_that_comes_too_late_is_loaded() {
        let mut pulse = Pulse::new(Instant::now());
        let mut read = || pulse.read(Instant::now(), &[0; 32], None, Duration::from_millis(1_500), 0);
        assert_eq!(read().load, 0, "once is a pause");
        let health = read();
        assert_eq!((health.load, health.is_unwell()), (150, false));
    }

    #[test]
    fn a_machine_that_refuses_requests_is_full_until_it_has_not_for_a_while() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(now);
        let mut read = |refused| {
            now += Duration::from_millis(250);
            (pulse.read(now, &[0; 32], None, Duration::ZERO, refused).load, pulse.refused())
        };
        assert_eq!((read(7), read(7), read(9)), ((0, 0), (0, 0), (100, 2)));
        assert!((0..20).map(|_| read(9)).all(|(load, refused)| (load >= 100) == (refused > 0)));
        assert_eq!(read(9), (0, 0));
    }

    #[test]
    fn what_took_long_while_the_machine_stood_still_is_no_stall() {
        let mut now = Instant::now();
        let (mut pulse, mut counts) = (Pulse::new(now), [0; 32]);
        run(&mut pulse, &mut counts, &mut now, 2_000, 60);
        now += Duration::from_secs(8);
        counts[22] += 1;
        assert_eq!(pulse.begin_anew(now, &counts, 0).stalled_ms, 0);
        assert_eq!(run(&mut pulse, &mut counts, &mut now, 2_000, 2).stalled_ms, 0);
    }
}
