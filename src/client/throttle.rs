//! How much of what a client asks of one machine it had better not ask: a machine that turns most of it away spends its
//! time on turning away.
//!
//! The client asks about twice as much as is taken (SRE book, "client-side throttling"): enough to notice at once when
//! more is taken again, and little enough that a hundred such clients leave the machine its work.

use std::time::{Duration, Instant};

/// How many times what is taken may be asked.
const ASKED_TO_TAKEN: f64 = 2.0;
/// After so long, what came of a request counts half.
const HALF_LIFE: f64 = 2.0;

/// What came of this client's requests to one machine lately.
#[derive(Debug)]
pub(super) struct Throttle {
    at: Option<Instant>,
    /// Requests of which it is known what came of them, and of those, the ones not turned away.
    asked: f64,
    taken: f64,
    /// What the machine said last of when to come back.
    later: Duration,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { at: None, asked: 0.0, taken: 0.0, later: Duration::from_millis(50) }
    }
}

impl Throttle {
    fn fade(&mut self, now: Instant) {
        let since = self.at.replace(now).map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let left = 0.5_f64.powf(since / HALF_LIFE);
        (self.asked, self.taken) = (self.asked * left, self.taken * left);
    }

    /// It did something about a request.
    pub(super) fn taken(&mut self, now: Instant) {
        self.fade(now);
        self.asked += 1.0;
        self.taken += 1.0;
    }

    /// It turned one away, and said when to come back.
    pub(super) fn turned(&mut self, now: Instant, later: Duration) {
        self.fade(now);
        self.asked += 1.0;
        self.later = later;
    }

    /// `None` if the machine is to be asked; else when to come back. `draw` is a random number from 0 to 1.
    pub(super) fn stay_away(&mut self, now: Instant, draw: f64) -> Option<Duration> {
        self.fade(now);
        let over = (self.asked - ASKED_TO_TAKEN * self.taken) / (self.asked + 1.0);
        if draw >= over {
            return None;
        }
        // It would have been turned away.
        self.asked += 1.0;
        Some(self.later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn of_ten_times_too_much_about_twice_as_much_as_is_taken_is_asked_and_all_once_all_is_taken() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut draw = 0.0;
        // Ten a millisecond are wanted, of which one is taken.
        let mut run = |throttle: &mut Throttle, from: u32, ms: u32, takes: u32| {
            let mut asked = 0;
            for at in from..from + ms {
                let (now, mut room) = (start + MS * at, takes);
                for _ in 0..10 {
                    draw = (draw + 0.618_034_f64) % 1.0;
                    if throttle.stay_away(now, draw).is_some() {
                        continue;
                    }
                    asked += 1;
                    match room.checked_sub(1) {
                        Some(left) => {
                            room = left;
                            throttle.taken(now);
                        }
                        None => throttle.turned(now, 100 * MS),
                    }
                }
            }
            asked
        };
        run(&mut throttle, 0, 5_000, 1);
        let asked = run(&mut throttle, 5_000, 1_000, 1);
        assert!((1_500..3_000).contains(&asked), "{asked} asked, 1000 taken");
        // Load is usual again: within seconds everything is asked.
        run(&mut throttle, 6_000, 8_000, 10);
        assert_eq!(run(&mut throttle, 14_000, 100, 10), 1_000);
    }

    #[test]
    fn a_burst_of_which_nothing_is_known_yet_is_asked() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert!((0..10_000).all(|n| throttle.stay_away(now, f64::from(n) / 10_000.0).is_none()));
        throttle.turned(now, 70 * MS);
        throttle.turned(now, 80 * MS);
        assert_eq!(throttle.stay_away(now, 0.0), Some(80 * MS));
    }
}
