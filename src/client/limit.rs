//! How many operations of a client may be under way; what is beyond that is refused at once, before it costs anything.
//!
//! Whoever asks for more than can be done would otherwise wait inside his own process, in a line without an end, until
//! nothing ends in time any more. The bound is what the client was told, or less (AIMD, as of a congestion window):
//! it falls by one for each that a machine turns away, having measured how long requests wait there: nothing takes its
//! place. When operations take long for what the quickest of them take, or a good part of their time, it falls to as many as
//! would take less, by Little's law: what waits longer is not done any sooner, and costs the machines more. It rises with each
//! that ends while they do not. What is measured while few are under way says nothing of how many may be.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Error;

/// How many more may be under way after as many as may be have ended in time.
const RISE: f64 = 8.0;
/// Operations that take longer, on average, than so many times what the quickest take wait in a line: somewhere far away, or
/// with slow disks, the quickest take long, too.
const TIMES: f64 = 8.0;
/// But never less than their timeout divided by the one, and never more than divided by the other: some take a few times as long
/// as the average.
const IN_TIME: (u32, u32) = (16, 4);
/// How much slower the quickest is believed to have become with each operation: twice as slow after some 45,000.
const FORGET: f64 = 1.0 + 1.0 / 65_536.0;
/// How much one operation counts in such an average: a few that are slow for reasons of their own do not.
const WEIGHT: f64 = 1.0 / 32.0;
/// When whoever is refused is told to come back: twice what operations take, and within these.
const COME_BACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_600));

/// A client's bound, and what is under way.
#[derive(Debug)]
pub(super) struct Limit {
    now: AtomicUsize,
    /// What `pace` has come to, for those who only look.
    most: AtomicUsize,
    come_back_us: AtomicU64,
    usual_us: AtomicU64,
    pace: Mutex<Pace>,
}

/// One operation that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    limit: &'a Limit,
    begun: Instant,
    /// How many were under way then, this one among them.
    beside: usize,
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
            usual_us: AtomicU64::new(0),
            pace: Mutex::new(pace),
        }
    }

    /// Lets one in, or says when to come back.
    pub(super) fn admit(&self) -> Result<Permit<'_>, Error> {
        self.look()?;
        let (before, most) = (self.now.fetch_add(1, Relaxed), self.most.load(Relaxed));
        // From here on it is given back.
        let (beside, crowded) = (before + 1, is_crowded(before + 1, most));
        let permit = Permit { limit: self, begun: Instant::now(), beside, crowded };
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

    /// What an operation takes at present, on average; an hour at most.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_micros(self.usual_us.load(Relaxed))
    }

    /// How many are under way, and how many may be.
    pub(super) fn read(&self) -> (usize, usize) {
        (self.now.load(Relaxed), self.most.load(Relaxed))
    }

    /// A machine has turned something away.
    pub(super) fn turned(&self) {
        if self.is_crowded() {
            self.note(Pace::turned);
        }
    }

    fn note(&self, note: impl FnOnce(&mut Pace)) {
        // Whoever panicked in here left numbers that are as good as any.
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut pace);
        self.most.store(pace.most(), Relaxed);
        self.come_back_us.store(micros(pace.come_back()), Relaxed);
        self.usual_us.store((pace.took * 1e6) as u64, Relaxed);
    }
}

impl Permit<'_> {
    /// Something was done about it. One that is merely dropped, or was turned away, says nothing of how long it would have
    /// taken.
    pub(super) fn ended(self) {
        let beside = self.crowded.then_some(self.beside);
        self.limit.note(|pace| pace.ended(self.begun.elapsed(), beside));
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
    /// In seconds, as are the others: least and most that operations may take on average.
    in_time: (f64, f64),
    /// What the quickest takes.
    quickest: f64,
    /// What an operation takes, smoothed.
    took: f64,
    /// The same of those begun while many were under way, and how many those were.
    crowd: Option<(f64, f64)>,
}

impl Pace {
    fn new(least: usize, most: usize, timeout: Duration) -> Self {
        let most = most.max(1) as f64;
        let bounds = ((least.max(1) as f64).min(most), most);
        let in_time = ((timeout / IN_TIME.0).as_secs_f64(), (timeout / IN_TIME.1).as_secs_f64());
        Self { most, bounds, in_time, quickest: f64::INFINITY, took: 0.0, crowd: None }
    }

    fn most(&self) -> usize {
        self.most as usize
    }

    fn come_back(&self) -> Duration {
        let (first, last) = COME_BACK;
        Duration::from_secs_f64((self.took * 2.0).clamp(first.as_secs_f64(), last.as_secs_f64()))
    }

    /// One has ended after so long, which was begun as one of so many, if they were many.
    fn ended(&mut self, took: Duration, beside: Option<usize>) {
        // An hour is as much as for ever.
        let took = took.as_secs_f64().min(3_600.0);
        self.took += (took - self.took) * WEIGHT;
        self.quickest = (self.quickest * FORGET).min(took);
        let Some(beside) = beside.map(|n| n as f64) else { return };
        // From nothing: one that is slow by chance is no average.
        let (usual, many) = self.crowd.get_or_insert((0.0, beside));
        *usual += (took - *usual) * WEIGHT;
        *many += (beside - *many) * WEIGHT;
        let (least, longest) = self.in_time;
        let in_time = (self.quickest * TIMES).max(least).min(longest);
        if *usual > in_time {
            // So many of these end in that time.
            let most = *many * in_time / *usual;
            self.most = self.most.min(most).max(self.bounds.0);
        } else {
            self.most = (self.most + RISE / self.most).min(self.bounds.1);
        }
    }

    fn turned(&mut self) {
        self.most = (self.most - 1.0).max(self.bounds.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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
        assert_eq!(limit.usual(), Duration::ZERO);
        std::thread::sleep(MS);
        all.into_iter().for_each(Permit::ended);
        assert_eq!(limit.read(), (0, 3));
        assert!(limit.usual() > Duration::ZERO);
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
    fn the_bound_falls_by_what_machines_turn_away_and_rises_with_what_they_do() {
        let mut pace = Pace::new(16, 1_000, Duration::from_secs(2));
        (0..1_000).for_each(|_| pace.ended(MS, None));
        (0..300).for_each(|_| pace.turned());
        assert_eq!(pace.most(), 700);
        (0..3_000).for_each(|_| pace.turned());
        assert_eq!(pace.most(), 16);
        // Eight more for each round of them.
        (0..16).for_each(|_| pace.ended(MS, Some(16)));
        assert!((22..=24).contains(&pace.most()), "{}", pace.most());
        (0..100_000).for_each(|_| pace.ended(MS, Some(500)));
        assert_eq!(pace.most(), 1_000, "and never above what it was told");
    }

    /// So many are done every 10 ms, however many are under way; all that may be are. Tells the longest any took.
    fn run(pace: &mut Pace, under_way: &mut VecDeque<(u32, usize)>, from: u32, until: u32, done: u32) -> u32 {
        let mut longest = 0;
        for at in from..until {
            for _ in 0..done {
                if let Some((begun, beside)) = under_way.pop_front() {
                    pace.ended((at - begun) * 10 * MS, Some(beside));
                    longest = longest.max((at - begun) * 10);
                }
            }
            while under_way.len() < pace.most() {
                under_way.push_back((at, under_way.len() + 1));
            }
        }
        longest
    }

    #[test]
    fn no_more_are_let_in_than_end_in_time() {
        // A cluster that does a thousand a second, whatever is asked; a bound of a thousand; 2 s for each.
        let (mut pace, mut under_way) = (Pace::new(16, 1_000, Duration::from_secs(2)), VecDeque::new());
        run(&mut pace, &mut under_way, 0, 1_500, 10);
        let longest = run(&mut pace, &mut under_way, 1_500, 3_000, 10);
        assert!((80..=150).contains(&pace.most()), "{}", pace.most());
        assert!(longest < 200, "{longest} ms");
        assert!(pace.come_back() > 200 * MS, "{:?}", pace.come_back());
        // It does ten times as much again: within two seconds, so many are let in again.
        run(&mut pace, &mut under_way, 3_000, 3_200, 100);
        assert!(pace.most() > 500, "{}", pace.most());
    }

    #[test]
    fn who_is_far_away_has_as_many_under_way_until_they_take_a_quarter_of_their_time() {
        let mut pace = Pace::new(16, 1_000, Duration::from_secs(2));
        (0..10_000).for_each(|_| pace.ended(300 * MS, Some(1_000)));
        assert_eq!(pace.most(), 1_000, "none of them is any quicker");
        (0..10_000).for_each(|_| pace.ended(600 * MS, Some(1_000)));
        assert!((800..=850).contains(&pace.most()), "{}", pace.most());
        // Of others that take as long, some are quick: those wait in a line.
        let mut pace = Pace::new(16, 1_000, Duration::from_secs(2));
        pace.ended(2 * MS, Some(1_000));
        (0..10_000).for_each(|_| pace.ended(300 * MS, Some(1_000)));
        assert!((400..=450).contains(&pace.most()), "{}", pace.most());
    }

    #[test]
    fn a_few_that_are_slow_for_reasons_of_their_own_do_not_lower_the_bound() {
        let mut pace = Pace::new(16, 1_000, Duration::from_secs(2));
        for n in 0..10_000 {
            pace.ended(if n % 100 == 0 { 1_900 * MS } else { 5 * MS }, Some(900));
        }
        assert_eq!(pace.most(), 1_000);
    }

    #[test]
    fn what_takes_long_while_few_are_under_way_says_nothing() {
        let mut pace = Pace::new(16, 1_000, Duration::from_secs(2));
        (0..500).for_each(|_| pace.ended(1_900 * MS, None));
        assert_eq!(pace.most(), 1_000);
        assert_eq!(pace.come_back(), COME_BACK.1);
        let limit = Limit::new(16, 100, Duration::from_secs(2));
        let few: Vec<_> = (0..49).map(|_| limit.admit().expect("room")).collect();
        limit.turned();
        assert_eq!(limit.read(), (49, 100));
        let more = limit.admit().expect("room");
        limit.turned();
        assert_eq!(limit.read(), (50, 99));
        drop((few, more));
    }
}
