//! Who is served next, and who is asked to come back later; pure.
//!
//! What clients ask waits in a line for each connection, and the lines take turns: a client with ten thousand requests
//! outstanding costs another with one request a single turn. A machine that is asked for more than it can do still does
//! as much as it can if it turns the rest away early, so each line goes by the time that is waited in it, not by its
//! length (CoDel): a burst is served, and a line in which everybody has waited too long for a whole interval is cut to
//! those who have not waited for much longer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A wait longer than this is too long, if it is no burst.
const TARGET: Duration = Duration::from_millis(50);
/// In a crowded line, who has waited longer than this is turned away: those left still show whether it is crowded.
const CUT: Duration = Duration::from_millis(100);
/// A line in which all have waited too long for so long is crowded.
const INTERVAL: Duration = Duration::from_millis(500);
/// When to come back, at first; twice as long after each interval, and never longer than the second.
const COME_BACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_600));
/// What may wait in one line, and in all of them.
const LINE: usize = 1_024;
const ALL: usize = 65_536;

/// Something that a client asked.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    pub(crate) what: T,
    pub(crate) came: Instant,
    /// After this nobody waits for an answer.
    pub(crate) expires: Option<Instant>,
    /// Bytes of memory that it takes.
    pub(crate) bytes: usize,
}

/// What is to be done with the next one.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// It is looked at now.
    Serve(Asked<T>),
    /// It is told to come back after so long: nothing was done about it.
    Turn(Asked<T>, Duration, Reason),
}

/// Why one is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// As many wait in its line, or in all of them, as may.
    Full,
    /// So do as many bytes.
    Memory,
    /// Nobody waits for its answer any more.
    Late,
    /// It has waited too long in a crowded line.
    Crowded,
    /// It has waited too long, and none can be served.
    Stuck,
}

impl Reason {
    pub(crate) const ALL: [Self; 5] = [Self::Full, Self::Memory, Self::Late, Self::Crowded, Self::Stuck];

    /// In one word, for metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Memory => "memory",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Stuck => "stuck",
        }
    }
}

/// All the lines.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    of: HashMap<u64, Line<T>>,
    /// Clients whose lines are not empty, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: usize,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Line<T> {
    asked: VecDeque<Asked<T>>,
    /// When the present interval began, and the shortest wait in it.
    interval: Option<(Instant, Duration)>,
    /// Intervals in a row in which all waited too long.
    crowded: u32,
}

impl<T> Line<T> {
    fn new() -> Self {
        Self { asked: VecDeque::new(), interval: None, crowded: 0 }
    }

    /// One has waited for so long.
    fn note(&mut self, now: Instant, waited: Duration) {
        let (began, least) = self.interval.get_or_insert((now, waited));
        *least = waited.min(*least);
        if now.duration_since(*began) >= INTERVAL {
            self.crowded = if *least > TARGET { self.crowded + 1 } else { 0 };
            self.interval = Some((now, waited));
        }
        if self.asked.is_empty() {
            (self.interval, self.crowded) = (None, 0);
        }
    }

    /// How long one may have waited and still be served.
    fn most(&self) -> Duration {
        if self.crowded > 0 { CUT } else { Duration::MAX }
    }

    fn come_back(&self) -> Duration {
        let (first, last) = COME_BACK;
        first.saturating_mul(1 << self.crowded.saturating_sub(1).min(16)).min(last)
    }
}

impl<T> Lines<T> {
    /// Lines for what takes so many bytes of memory at most; one always fits, however large.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { of: HashMap::new(), turns: VecDeque::new(), waiting: 0, bytes: 0, most_bytes }
    }

    /// Takes its place in its client's line. What finds none comes back, with how long to stay away.
    pub(crate) fn push(&mut self, client: u64, asked: Asked<T>) -> Result<(), Next<T>> {
        let line = self.of.entry(client).or_insert_with(Line::new);
        let no_bytes = self.bytes > 0 && self.bytes + asked.bytes > self.most_bytes;
        if no_bytes || line.asked.len() >= LINE || self.waiting >= ALL {
            let (later, why) = (line.come_back(), if no_bytes { Reason::Memory } else { Reason::Full });
            return Err(Next::Turn(asked, later, why));
        }
        if line.asked.is_empty() {
            self.turns.push_back(client);
        }
        self.waiting += 1;
        self.bytes += asked.bytes;
        line.asked.push_back(asked);
        Ok(())
    }

    /// The next one, from the client whose turn it is.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next<T>> {
        let client = self.turns.pop_front()?;
        let line = self.of.get_mut(&client)?;
        let asked = line.asked.pop_front()?;
        if !line.asked.is_empty() {
            self.turns.push_back(client);
        }
        self.waiting -= 1;
        self.bytes -= asked.bytes;
        let waited = now.saturating_duration_since(asked.came);
        line.note(now, waited);
        let late = asked.expires.is_some_and(|at| at <= now);
        let why = match late {
            true => Reason::Late,
            false if waited > line.most() => Reason::Crowded,
            false => return Some(Next::Serve(asked)),
        };
        Some(Next::Turn(asked, line.come_back(), why))
    }

    /// One that nobody waits for any more, or that has waited too long in a crowded line: for when none can be served.
    pub(crate) fn shed(&mut self, now: Instant) -> Option<Next<T>> {
        let is_late = |client: &u64| {
            let line = self.of.get(client)?;
            let first = line.asked.front()?;
            let waited = now.saturating_duration_since(first.came);
            let late = first.expires.is_some_and(|at| at <= now);
            (late || waited > line.most().min(INTERVAL)).then_some(())
        };
        let at = self.turns.iter().position(|client| is_late(client).is_some())?;
        self.turns.rotate_left(at);
        let client = *self.turns.front()?;
        let next = self.next(now)?;
        Some(match next {
            Next::Serve(asked) => {
                let later = self.of.get(&client).map_or(COME_BACK.0, Line::come_back);
                Next::Turn(asked, later, Reason::Stuck)
            }
            turned => turned,
        })
    }

    /// A client's connection ended: nobody hears what it asked.
    pub(crate) fn gone(&mut self, client: u64) {
        let Some(line) = self.of.remove(&client) else { return };
        self.turns.retain(|other| *other != client);
        self.waiting -= line.asked.len();
        self.bytes -= line.asked.iter().map(|asked| asked.bytes).sum::<usize>();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(what: u64, came: Instant) -> Asked<u64> {
        Asked { what, came, expires: None, bytes: 1 }
    }

    fn served(next: Option<Next<u64>>) -> Option<u64> {
        match next? {
            Next::Serve(asked) => Some(asked.what),
            Next::Turn(..) => None,
        }
    }

    #[test]
    fn clients_take_turns_however_much_one_of_them_asks() {
        let (mut lines, now) = (Lines::new(1 << 20), Instant::now());
        for n in 0..1_000 {
            lines.push(1, asked(n, now)).expect("room");
        }
        lines.push(2, asked(7_777, now)).expect("room");
        lines.push(3, asked(8_888, now)).expect("room");
        let first: Vec<_> = (0..4).map(|_| served(lines.next(now))).collect();
        assert_eq!(first, [Some(0), Some(7_777), Some(8_888), Some(1)]);
    }

    #[test]
    fn a_line_has_an_end_and_so_have_all_together_and_their_bytes() {
        let (mut lines, now) = (Lines::new(LINE * 2), Instant::now());
        let taken = (0..5_000).filter(|n| lines.push(1, asked(*n, now)).is_ok()).count();
        assert_eq!((taken, lines.len()), (LINE, LINE));
        assert!(matches!(lines.push(1, asked(1, now)), Err(Next::Turn(_, _, Reason::Full))));
        // One always fits, and then nothing more.
        let mut lines = Lines::new(10);
        let huge = |n| Asked { bytes: 1_000, ..asked(n, now) };
        assert!(lines.push(1, huge(1)).is_ok());
        assert!(matches!(lines.push(2, huge(2)), Err(Next::Turn(_, _, Reason::Memory))));
        assert_eq!(served(lines.next(now)), Some(1));
        assert!(lines.push(2, huge(2)).is_ok());
        lines.gone(2);
        assert!(lines.len() == 0 && lines.next(now).is_none() && lines.push(3, huge(3)).is_ok());
    }

    #[test]
    fn a_burst_is_served_and_a_standing_line_is_cut_and_told_to_stay_away_longer_and_longer() {
        let (mut lines, start) = (Lines::new(1 << 20), Instant::now());
        // A burst: all wait long, and it is over before the interval is.
        for n in 0..400 {
            lines.push(1, asked(n, start)).expect("room");
        }
        assert!((0..400).all(|n| served(lines.next(start + MS * n)).is_some()));
        // Twice as much as is served, for ten seconds.
        let (mut kept, mut turned, mut stays) = (0, 0, Vec::new());
        for ms in 1_000..11_000u32 {
            let now = start + MS * ms;
            for _ in 0..2 {
                let _ = lines.push(1, asked(0, now));
            }
            // Turning away is cheap.
            let mut served = false;
            while !served {
                match lines.next(now) {
                    Some(Next::Serve(asked)) => {
                        (served, kept) = (true, kept + 1);
                        assert!(now - asked.came <= INTERVAL + CUT, "{:?}", now - asked.came);
                    }
                    Some(Next::Turn(_, later, why)) => {
                        assert_eq!(why, Reason::Crowded);
                        turned += 1;
                        stays.push(later);
                    }
                    None => break,
                }
            }
        }
        assert!(kept > 9_990 && turned > 8_000, "{kept} served, {turned} turned away");
        assert!(stays.contains(&COME_BACK.0) && stays.contains(&COME_BACK.1), "{stays:?}");
        // Another client is not to blame.
        let now = start + MS * 11_000;
        lines.push(2, asked(42, now)).expect("room");
        lines.next(now);
        assert_eq!(served(lines.next(now)), Some(42));
    }

    #[test]
    fn who_stays_crowded_is_told_to_stay_away_longer_and_longer() {
        let (mut line, start) = (Line::<u64>::new(), Instant::now());
        line.asked.push_back(asked(1, start));
        let mut told = Vec::new();
        for half_seconds in 0..9 {
            line.note(start + INTERVAL * half_seconds, TARGET * 2);
            told.push(line.come_back());
        }
        assert!(told.is_sorted() && told[0] == COME_BACK.0 && told[8] == COME_BACK.1, "{told:?}");
        line.note(start + INTERVAL * 10, MS);
        assert_eq!(line.come_back(), COME_BACK.0);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_served() {
        let (mut lines, now) = (Lines::new(1 << 20), Instant::now());
        lines.push(1, Asked { expires: Some(now + MS), ..asked(1, now) }).expect("room");
        assert!(lines.shed(now).is_none());
        assert!(matches!(lines.shed(now + MS * 2), Some(Next::Turn(_, _, Reason::Late))));
        lines.push(1, Asked { expires: Some(now + MS), ..asked(1, now) }).expect("room");
        assert!(matches!(lines.next(now + MS), Some(Next::Turn(_, _, Reason::Late))));
        // Nor is what waits for too long while nothing is served at all.
        lines.push(1, asked(1, now)).expect("room");
        assert!(matches!(lines.shed(now + INTERVAL + MS), Some(Next::Turn(_, _, Reason::Stuck))));
    }
}
