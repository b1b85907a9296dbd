//! How many operations of a client may be under way; what is beyond that is refused at once, before it costs anything.
//!
//! Whoever asks for more than can be done would otherwise wait inside his own process, in a line without an end, until
//! nothing ends in time any more. The bound is what the client was told, or less (AIMD, as of a congestion window):
//! it falls when a machine turns something away, having measured how long requests wait there, and when an operation
//! takes longer than a good part of its time; it rises with each that does not. What is measured while few are under way
//! says nothing of how many may be.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Error;

/// How many more may be under way after as many as may be have ended in time.
const RISE: f64 = 16.0;
/// What is left of the bound when a machine has turned something away.
const FALL: f64 = 0.9;
/// The least that is left of it at once, however long an operation took.
const DEEPEST_FALL: f64 = 0.5;
/// An operation that takes longer than its timeout divided by this takes too long.
const IN_TIME: u32 = 4;
/// When whoever is refused is told to come back: twice what operations take, and within these.
const COME_BACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_600));

/// A client's bound, and what is under way.
#[derive(Debug)]
pub(super) struct Limit {
    now: AtomicUsize,
    /// What `pace` has come to, for those who only look.
    most: AtomicUsize,
    come_back_us: AtomicU64,
    pace: Mutex<Pace>,
}

/// One operation that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    limit: &'a Limit,
    begun: Instant,
    crowded: bool,
}

impl Limit {
    /// At least and at most so many, which may take so long each.
    pub(super) fn new(least: usize, most: usize, timeout: Duration) -> Self {
        let pace = Pace::new(least, most, timeout);
        Self {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(pace.most()),
            come_back_us: AtomicU64::new(micros(pace.come_back())),
            pace: Mutex::new(pace),
        }
    }

    /// Lets one in, or says when to come back.
    pub(super) fn admit(&self) -> Result<Permit<'_>, Error> {
        self.look()?;
        let (before, most) = (self.now.fetch_add(1, Relaxed), self.most.load(Relaxed));
        // From here on it is given back.
        let permit = Permit { limit: self, begun: Instant::now(), crowded: is_crowded(before + 1, most) };
        if before >= most { Err(self.refusal()) } else { Ok(permit) }
    }

    /// Whether one would be let in: for who would copy something first.
    pub(super) fn look(&self) -> Result<(), Error> {
        match self.now.load(Relaxed) < self.most.load(Relaxed) {
            true => Ok(()),
            false => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Error {
        Error::Overloaded { retry_after: Duration::from_micros(self.come_back_us.load(Relaxed)) }
    }

    /// True while at least half of what may be under way is: whoever is turned away then had better tell his caller than
    /// wait in the place of another.
    pub(super) fn is_crowded(&self) -> bool {
        is_crowded(self.now.load(Relaxed), self.most.load(Relaxed))
    }

    /// How many are under way, and how many may be.
    pub(super) fn read(&self) -> (usize, usize) {
        (self.now.load(Relaxed), self.most.load(Relaxed))
    }

    /// A machine has turned something away.
    pub(super) fn turned(&self) {
        if self.is_crowded() {
            self.note(|pace| pace.turned(Instant::now()));
        }
    }

    fn note(&self, note: impl FnOnce(&mut Pace)) {
        // Whoever panicked in here left numbers that are as good as any.
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut pace);
        self.most.store(pace.most(), Relaxed);
        self.come_back_us.store(micros(pace.come_back()), Relaxed);
    }
}

impl Permit<'_> {
    /// It has ended by itself. One that is merely dropped says nothing of how long it would have taken.
    pub(super) fn ended(self) {
        self.limit.note(|pace| pace.ended(self.begun, Instant::now(), self.crowded));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.limit.now.fetch_sub(1, Relaxed);
    }
}

fn is_crowded(now: usize, most: usize) -> bool {
    now * 2 >= most
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the bound is, by what was measured; pure.
#[derive(Debug)]
struct Pace {
    most: f64,
    /// Between which it stays, whatever is measured.
    bounds: (f64, f64),
    /// Whatever takes longer takes too long.
    in_time: Duration,
    /// What an operation takes, smoothed.
    took: Duration,
    /// When the bound fell last: what began before that says nothing of the bound since.
    fell: Option<Instant>,
}

impl Pace {
    fn new(least: usize, most: usize, timeout: Duration) -> Self {
        let most = most.max(1) as f64;
        let bounds = ((least.max(1) as f64).min(most), most);
        Self { most, bounds, in_time: timeout / IN_TIME, took: Duration::ZERO, fell: None }
    }

    fn most(&self) -> usize {
        self.most as usize
    }

    fn come_back(&self) -> Duration {
        self.took.saturating_mul(2).clamp(COME_BACK.0, COME_BACK.1)
    }

    fn ended(&mut self, begun: Instant, now: Instant, crowded: bool) {
        let took = now.saturating_duration_since(begun);
        // An hour is as much as for ever, and no sum overflows.
        self.took = (self.took * 7 + took.min(Duration::from_secs(3_600))) / 8;
        if !crowded {
            return;
        }
        if took > self.in_time {
            // Of so many that begin together, so many end in time.
            let share = self.in_time.as_secs_f64() / took.as_secs_f64();
            self.fall(begun, now, share.clamp(DEEPEST_FALL, FALL));
        } else {
            self.most = (self.most + RISE / self.most).min(self.bounds.1);
        }
    }

    fn turned(&mut self, now: Instant) {
        let begun = now.checked_sub(self.took).unwrap_or(now);
        self.fall(begun, now, FALL);
    }

    fn fall(&mut self, begun: Instant, now: Instant, to: f64) {
        if self.fell.is_none_or(|fell| fell <= begun) {
            self.fell = Some(now);
            self.most = (self.most * to).max(self.bounds.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn so_many_are_let_in_the_next_is_told_when_to_come_back_and_what_is_dropped_makes_room() {
        let limit = Limit::new(16, 3, Duration::from_secs(2));
        let mut all: Vec<_> = (0..3).map(|_| limit.admit().expect("room")).collect();
        for _ in 0..2 {
            let refused = limit.admit().expect_err("no room");
            assert_eq!(refused, Error::Overloaded { retry_after: COME_BACK.0 });
            assert!(limit.look().is_err() && limit.read() == (3, 3));
        }
        drop(all.pop());
        assert!(limit.look().is_ok());
        all.push(limit.admit().expect("room"));
        assert!(limit.admit().is_err());
        all.into_iter().for_each(Permit::ended);
        assert_eq!(limit.read(), (0, 3));
    }

    #[test]
    fn no_bound_is_below_one() {
        let limit = Limit::new(0, 0, Duration::ZERO);
        for _ in 0..100 {
            limit.admit().expect("room").ended();
        }
        assert_eq!(limit.read(), (0, 1));
    }

    #[test]
    fn a_machine_that_turns_away_lowers_the_bound_once_for_all_that_was_under_way_and_it_rises_again() {
        let (mut pace, start) = (Pace::new(16, 1_000, Duration::from_secs(2)), Instant::now());
        pace.ended(start, start + 8 * MS, true);
        assert_eq!(pace.took, MS);
        for _ in 0..500 {
            pace.turned(start + 10 * MS);
        }
        assert_eq!(pace.most(), 900);
        // What began since says more of it.
        (12..500).step_by(2).for_each(|ms| pace.turned(start + ms * MS));
        assert_eq!(pace.most(), 16);
        // Sixteen more for each round of them.
        let now = start + 500 * MS;
        (0..16).for_each(|_| pace.ended(now, now + MS, true));
        assert!((30..=32).contains(&pace.most()), "{}", pace.most());
        (0..100_000).for_each(|_| pace.ended(now, now + MS, true));
        assert_eq!(pace.most(), 1_000, "and never above what it was told");
    }

    #[test]
    fn no_more_are_let_in_than_end_in_a_quarter_of_their_time() {
        // A cluster that does a hundred a second, whatever is asked; a bound of a thousand; 2 s for each.
        let (mut pace, start) = (Pace::new(16, 1_000, Duration::from_secs(2)), Instant::now());
        let mut under_way = std::collections::VecDeque::from(vec![start; 1_000]);
        for n in 1..3_000 {
            let now = start + n * 10 * MS;
            if let Some(begun) = under_way.pop_front() {
                pace.ended(begun, now, true);
            }
            while under_way.len() < pace.most() {
                under_way.push_back(now);
            }
        }
        assert!((20..=80).contains(&pace.most()), "{}", pace.most());
        assert!(pace.come_back() > 300 * MS, "{:?}", pace.come_back());
    }

    #[test]
    fn what_takes_long_while_few_are_under_way_says_nothing() {
        let (mut pace, start) = (Pace::new(16, 1_000, Duration::from_secs(2)), Instant::now());
        (0..50).for_each(|_| pace.ended(start, start + 1_900 * MS, false));
        assert_eq!(pace.most(), 1_000);
        assert_eq!(pace.come_back(), COME_BACK.1);
        let limit = Limit::new(16, 100, Duration::from_secs(2));
        let few: Vec<_> = (0..49).map(|_| limit.admit().expect("room")).collect();
        limit.turned();
        assert_eq!(limit.read(), (49, 100));
        let more = limit.admit().expect("room");
        limit.turned();
        assert_eq!(limit.read(), (50, 90));
        drop((few, more));
    }
}
