//! What a seed draws: a fault, whom it hits, for how long. Every draw takes as many numbers from the seed as any other.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// kill -9; started again after this.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this.
    Freeze(Duration),
    /// kill -9, and its data is gone; started again after this.
    Wipe(Duration),
    /// A machine that is no member joins.
    Join,
    /// A member hands its data over and goes.
    Leave,
    /// Its disk is full for so long.
    Full(Duration),
    /// Each fsync takes this much longer, for a while.
    Slow { by: Duration, lasts: Duration },
    /// Its clock is wrong by so many seconds from now on.
    Clock(i64),
    /// So many machines and the others do not hear each other. Clients hear both.
    Cut { machines: usize, lasts: Duration },
    /// It hears none of the others; they hear it.
    Deaf(Duration),
    /// kill -9 of all machines at once.
    Blackout,
}

/// One of each kind, of middling length.
pub(crate) const KINDS: [Fault; 11] = {
    const LASTS: Duration = Duration::from_secs(3);
    [
        Fault::Kill(LASTS),
        Fault::Freeze(LASTS),
        Fault::Wipe(LASTS),
        Fault::Join,
        Fault::Leave,
        Fault::Full(LASTS),
        Fault::Slow { by: Duration::from_millis(100), lasts: LASTS },
        Fault::Clock(-3_600),
        Fault::Cut { machines: 2, lasts: LASTS },
        Fault::Deaf(LASTS),
        Fault::Blackout,
    ]
};

impl Fault {
    /// The word by which such faults are counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Freeze(_) => "freeze",
            Self::Wipe(_) => "wipe",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Full(_) => "full disk",
            Self::Slow { .. } => "slow disk",
            Self::Clock(_) => "clock",
            Self::Cut { .. } => "cut",
            Self::Deaf(_) => "deaf",
            Self::Blackout => "blackout",
        }
    }
}

/// One draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) fault: Fault,
    /// Whom it hits: the first in question from this number on.
    pub(crate) who: usize,
    /// Until the next draw.
    pub(crate) pause: Duration,
}

pub(crate) struct Draws(StdRng);

impl Draws {
    pub(crate) fn of(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub(crate) fn next(&mut self) -> Draw {
        let (kind, who, long, size) = (
            self.0.random_range(0..100),
            self.0.random_range(0..1000),
            self.0.random_range(0.0..1.0),
            self.0.random_range(0.0..1.0),
        );
        let pause = Duration::from_millis(self.0.random_range(100..2000));
        let fault = match kind {
            0..18 => Fault::Kill(between(0.1, 20.0, long)),
            18..32 => Fault::Freeze(between(1.0, 40.0, long)),
            32..45 => Fault::Wipe(between(0.1, 3.0, long)),
            45..57 => Fault::Join,
            57..66 => Fault::Leave,
            66..72 => Fault::Full(between(1.0, 20.0, long)),
            72..77 => Fault::Slow { by: between(0.02, 3.0, size), lasts: between(1.0, 20.0, long) },
            77..84 => Fault::Clock(wrong(who, size)),
            84..91 => Fault::Cut { machines: 1 + (size * 4.0) as usize, lasts: between(1.0, 20.0, long) },
            91..98 => Fault::Deaf(between(1.0, 15.0, long)),
            _ => Fault::Blackout,
        };
        Draw { fault, who, pause }
    }
}

/// As often from 1 to 2 s as from 10 to 20 s.
fn between(least: f64, most: f64, at: f64) -> Duration {
    Duration::from_secs_f64(least * (most / least).powf(at))
}

/// Mostly some seconds or hours, to either side; now and then right, or a year ahead. Further back than a certificate
/// was made, nobody would be believed.
fn wrong(who: usize, at: f64) -> i64 {
    let by = between(0.5, 70_000.0, at).as_secs() as i64;
    match who % 10 {
        0 => 31_536_000,
        1 => 0,
        2..6 => -by,
        _ => by,
    }
}

/// A seed draws the same at every run.
#[test]
fn a_seed_draws_the_same_again() {
    let drawn = |seed| {
        let mut draws = Draws::of(seed);
        (0..100).map(|_| format!("{:?}", draws.next())).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
