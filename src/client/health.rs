//! What a client knows of one machine: whether it is there, what is said of it, and how long its answers take.

use std::time::{Duration, Instant};

use super::throttle::Throttle;

/// How long a suspect is asked last, unless something is heard from it.
const SUSPECT_FOR: Duration = Duration::from_secs(2);
/// How long a machine's word counts that another is better asked last. It is asked again much sooner.
const SHUNNED_FOR: Duration = Duration::from_secs(3);
/// An answer owed for so long will not come; what it would have taken is not known, but this much it has.
const GIVE_UP: Duration = Duration::from_secs(1);
/// A machine that nobody has asked for so long is asked beside the others: it may have become faster.
const STALE: Duration = Duration::from_secs(1);

/// How a machine stands; the first is asked first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Standing {
    Well,
    /// It lives, and a machine says that it or its disk is not well; or that it is suspected.
    Shunned,
    /// It was silent when this client waited for it.
    Suspect,
}

#[derive(Debug, Default)]
pub(super) struct Health {
    /// There is a connection, as far as is known.
    pub(super) up: bool,
    /// Why there is none.
    pub(super) why: Option<String>,
    pub(super) heard: Option<Instant>,
    /// When it was last found silent; `None` once it was heard again.
    pub(super) suspected: Option<Instant>,
    shunned: Option<Instant>,
    /// The read that is timed: one at a time, whether or not anybody still waits for its answer.
    owed: Option<(u64, Instant)>,
    /// When it was last asked to read.
    asked: Option<Instant>,
    /// Smoothed time to answer a read.
    took: Duration,
    /// How much of what it is asked it turns away.
    pub(super) throttle: Throttle,
}

impl Health {
    pub(super) fn alive(&mut self, now: Instant) {
        self.up = true;
        self.heard = Some(now);
        self.suspected = None;
    }

    pub(super) fn lost(&mut self, now: Instant, why: String) {
        self.up = false;
        self.why = Some(why);
        self.suspected = Some(now);
        // What was on its way is lost with the connection.
        self.owed = None;
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        if self.suspected.is_some_and(|at| at + SUSPECT_FOR > now) {
            Standing::Suspect
        } else if self.shunned.is_some_and(|at| at + SHUNNED_FOR > now) {
            Standing::Shunned
        } else {
            Standing::Well
        }
    }

    /// A machine says whether this one is better asked last.
    pub(super) fn told(&mut self, now: Instant, shun: bool) {
        self.shunned = shun.then_some(now);
    }

    /// A read is sent to it.
    pub(super) fn ask(&mut self, now: Instant, ask: u64) {
        self.asked = Some(now);
        match self.owed {
            Some((_, sent)) if sent + GIVE_UP > now => {}
            lost => {
                if let Some((_, sent)) = lost {
                    self.note(now.duration_since(sent));
                }
                self.owed = Some((ask, now));
            }
        }
    }

    /// It answers a read; a long value took its time on the way, which says nothing of the machine.
    pub(super) fn answers(&mut self, now: Instant, ask: u64, long: bool) {
        if let Some((_, sent)) = self.owed.take_if(|(owed, _)| *owed == ask)
            && !long
        {
            self.note(now.duration_since(sent));
        }
    }

    fn note(&mut self, took: Duration) {
        self.took = if self.took.is_zero() { took } else { (self.took * 3 + took) / 4 };
    }

    /// What an answer takes, or is owed already; a machine never asked counts as fast, so that it is tried.
    pub(super) fn answer_time(&self, now: Instant) -> Duration {
        let owed = self.owed.map_or(Duration::ZERO, |(_, sent)| now.saturating_duration_since(sent));
        self.took.max(owed)
    }

    /// True if it is time to see how it answers, though others are asked first.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.up && self.asked.is_none_or(|at| at + STALE <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_that_nobody_waits_for_any_more_is_measured_all_the_same() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.ask(start, 1);
        // While it is owed, it is as slow as that.
        assert_eq!(health.answer_time(start + 40 * MS), 40 * MS);
        health.ask(start + 41 * MS, 2);
        health.answers(start + 42 * MS, 2, false);
        assert_eq!(health.answer_time(start + 60 * MS), 60 * MS, "the first is still owed");
        health.answers(start + 100 * MS, 1, false);
        assert_eq!(health.answer_time(start + 500 * MS), 100 * MS);
        for number in 3..30 {
            health.ask(start + 500 * MS, number);
            health.answers(start + 501 * MS, number, false);
        }
        assert!(health.answer_time(start + 500 * MS) < 2 * MS, "it is fast again");
    }

    #[test]
    fn a_long_value_says_nothing_of_its_machine() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.ask(start, 1);
        health.answers(start + 300 * MS, 1, true);
        assert_eq!(health.answer_time(start + 300 * MS), Duration::ZERO);
    }

    #[test]
    fn an_answer_that_never_comes_counts_as_slow_and_one_lost_with_its_connection_does_not() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.ask(start, 1);
        health.ask(start + GIVE_UP, 2);
        assert_eq!(health.answer_time(start + GIVE_UP), GIVE_UP);
        let mut health = Health::default();
        health.ask(start, 1);
        health.lost(start + 10 * MS, "gone".to_owned());
        assert_eq!(health.answer_time(start + GIVE_UP), Duration::ZERO);
    }

    #[test]
    fn who_is_suspected_is_asked_after_who_is_shunned_and_neither_for_ever() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.alive(start);
        assert_eq!(health.standing(start), Standing::Well);
        health.told(start, true);
        assert_eq!(health.standing(start), Standing::Shunned);
        health.suspected = Some(start);
        assert_eq!(health.standing(start), Standing::Suspect);
        assert_eq!(health.standing(start + SUSPECT_FOR), Standing::Shunned);
        assert_eq!(health.standing(start + SHUNNED_FOR), Standing::Well);
        health.told(start, true);
        health.told(start + MS, false);
        health.alive(start + MS);
        assert_eq!(health.standing(start + MS), Standing::Well);
    }
}
