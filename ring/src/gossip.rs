//! What machines tell each other of each other: news in small numbers, each told a few times.
//!
//! News rides on probes and answers. With m machines every piece is told by each of them log2 m + 8 times, least told first,
//! which is enough for all to hear it and keeps every message small; a word on health half as often, and for seconds only.

mod last;
mod pile;

use alloc::vec::Vec;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

pub(crate) use last::Last;
use pile::Pile;

use crate::effect::Mono;
use crate::view::{Machine, Name};

/// Most pieces of news in one message.
pub const MAX_NEWS: usize = 8;
/// Of the pieces in one message, so many may be of health: who lives matters more.
const MAX_HEALTH: usize = 3;
/// How long a word on health is passed on by one who heard it. It is said again much sooner for as long as it is true; and
/// where it came later still, it would seem new to those who have forgotten it, and go round for ever.
pub(crate) const HEALTH_FOR: u64 = 10_000_000_000;
/// A piece is told log2 m and so many times more. Each who knows it tells it to one at random: it takes log2 m rounds to be
/// known by about half, and whoever has missed it then does so c rounds more with a probability of e^-c.
const TELL_MORE: u32 = 8;

/// What is said of one machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub struct News {
    /// Of whom.
    pub of: Machine,
    /// How many suspicions it had refuted when this was said. A suspicion of a lower number is refuted.
    /// Of its [health](Said::Health) and of its [answers](Said::Late), which of the words of who says so this is: the
    /// highest is the last.
    pub refuted: u32,
    /// What.
    pub said: Said,
}

/// See [`News`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Said {
    /// It said itself that it lives.
    Alive,
    /// `by` got no answer from it since so many milliseconds. An age, since no two clocks agree.
    Silent {
        /// Whose probe was not answered.
        by: Name,
        /// Milliseconds since that probe.
        age: u32,
    },
    /// It lives, and this is how it says it is.
    Health(Health),
    /// It may answer probes, but its answers about keys do not come to `by` as those of others do.
    Late {
        /// Who waits for them.
        by: Name,
        /// How long they take, in milliseconds; 0: they come again.
        ms: u32,
    },
}

/// What a machine says of itself. It may answer every probe and be of no use: probes do not touch the disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Encode, Decode)]
pub struct Health {
    /// Milliseconds that its disk has been busy with one fsync, or takes for one lately; 0 if the disk is well.
    pub stalled_ms: u32,
    /// How much of what it could do it is asked to do, in percent; 100 and above: it refuses work.
    pub load: u8,
    /// Its disk has no room for further values: it takes none, and goes on with everything else.
    pub full: bool,
}

impl Health {
    /// True if others should not count on its answers.
    pub const fn is_unwell(self) -> bool {
        self.stalled_ms > 0
    }
}

/// A few pieces of news: never more than [`MAX_NEWS`], on the wire as here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Gossip(Vec<News>);

impl Gossip {
    /// The first few of these.
    pub fn new(news: impl IntoIterator<Item = News>) -> Self {
        Self(news.into_iter().take(MAX_NEWS).collect())
    }

    /// All of it, what matters most first.
    pub fn news(&self) -> &[News] {
        &self.0
    }
}

impl Encode for Gossip {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u8).encode(encoder)?;
        self.0.iter().try_for_each(|news| news.encode(encoder))
    }
}

impl<Context> Decode<Context> for Gossip {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = usize::from(u8::decode(decoder)?);
        if count > MAX_NEWS {
            return Err(DecodeError::Other("more news than a message may carry"));
        }
        (0..count).map(|_| News::decode(decoder)).collect::<Result<_, _>>().map(Self)
    }
}
bincode::impl_borrow_decode!(Gossip);

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Rumours {
    lives: Pile<Rumour>,
    /// At most one of each machine by each.
    health: Pile<Word>,
}

/// A word on how a machine is: its own, or that of one who waits for its answers.
#[derive(Clone, Copy, Debug)]
struct Word {
    of: Machine,
    number: u32,
    said: Said,
    heard: Mono,
}

impl Word {
    /// Whose word it is, where it is not the machine's own.
    fn by(said: Said) -> Option<Name> {
        match said {
            Said::Late { by, .. } | Said::Silent { by, .. } => Some(by),
            Said::Alive | Said::Health(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Rumour {
    of: Machine,
    refuted: u32,
    /// Whose probe was not answered, and since when; `None` if it lives.
    silent: Option<(Name, Mono)>,
}

impl Rumours {
    /// Something new. What it makes untrue or says again is told no more.
    pub(crate) fn add(&mut self, of: Machine, refuted: u32, silent: Option<(Name, Mono)>) {
        let by = silent.map(|(by, _)| by);
        self.lives.retain(|r| {
            r.of != of || r.refuted >= refuted && r.silent.map(|(by, _)| by) != by && r.silent.is_some()
        });
        self.lives.add(Rumour { of, refuted, silent });
    }

    /// It has spoken: nothing bad is said of it any more.
    pub(crate) fn clear(&mut self, of: Machine) {
        self.lives.retain(|r| r.of != of || r.silent.is_none());
    }

    /// The last word of somebody on how a machine is, itself or another.
    pub(crate) fn add_health(&mut self, now: Mono, of: Machine, number: u32, said: Said) {
        let by = Word::by(said);
        self.health.retain(|word| word.of.incarnation != of.incarnation || Word::by(word.said) != by);
        self.health.add(Word { of, number, said, heard: now });
    }

    /// Only of these machines is anything told from now on.
    pub(crate) fn keep(&mut self, of: impl Fn(Machine) -> bool) {
        self.lives.retain(|rumour| of(rumour.of));
        self.health.retain(|word| of(word.of));
    }

    /// What to tell next, among so many machines; `first` goes before all else.
    pub(crate) fn pick(&mut self, first: Option<News>, machines: usize, now: Mono) -> Gossip {
        let often = (usize::BITS - machines.leading_zeros() + TELL_MORE) as u8;
        let mut news: Vec<News> = first.into_iter().collect();
        // A word on health is said again for as long as it is true: half as often is enough.
        self.health.tell(MAX_HEALTH, often.div_ceil(2), |word| {
            let counts = word.heard.plus(HEALTH_FOR) > now;
            if counts {
                news.push(News { of: word.of, refuted: word.number, said: word.said });
            }
            counts
        });
        let room = MAX_NEWS - news.len();
        self.lives.tell(room, often, |rumour| {
            news.push(silence(rumour.of, rumour.refuted, rumour.silent, now));
            true
        });
        Gossip(news)
    }
}

/// News of a machine as of now.
pub(crate) fn silence(of: Machine, refuted: u32, silent: Option<(Name, Mono)>, now: Mono) -> News {
    let said = match silent {
        None => Said::Alive,
        Some((by, since)) => {
            let age = now.0.saturating_sub(since.0).div_ceil(1_000_000);
            Said::Silent { by, age: u32::try_from(age).unwrap_or(u32::MAX) }
        }
    };
    News { of, refuted, said }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::view::Incarnation;

    /// How many of so many machines hear a piece that one of them tells, each probing one other at a time and answering; one of
    /// four messages is lost.
    fn hear_it(machines: usize, rng: &mut SmallRng) -> usize {
        let name = Name::new(([10, 0, 0, 1], 9595).into());
        let of = Machine { name, incarnation: Incarnation::new(1) };
        let mut rumours: Vec<Rumours> = (0..machines).map(|_| Rumours::default()).collect();
        let mut know = vec![false; machines];
        rumours[0].add(of, 1, None);
        know[0] = true;
        loop {
            let mut told = false;
            for prober in 0..machines {
                let probed = (prober + rng.random_range(1..machines)) % machines;
                for (from, to) in [(prober, probed), (probed, prober)] {
                    let gossip = rumours[from].pick(None, machines, Mono::default());
                    told |= !gossip.news().is_empty();
                    if !gossip.news().is_empty() && !know[to] && rng.random_bool(0.75) {
                        know[to] = true;
                        rumours[to].add(of, 1, None);
                    }
                }
            }
            if !told {
                return know.into_iter().filter(|knows| *knows).count();
            }
        }
    }

    #[test]
    fn a_word_on_health_is_passed_on_for_seconds_only() {
        let name = Name::new(([10, 0, 0, 1], 9595).into());
        let of = Machine { name, incarnation: Incarnation::new(1) };
        let mut rumours = Rumours::default();
        rumours.add_health(Mono(5), of, 1, Said::Health(Health::default()));
        rumours.add(of, 1, None);
        assert_eq!(rumours.pick(None, 9, Mono(4 + HEALTH_FOR)).news().len(), 2);
        let later = rumours.pick(None, 9, Mono(5 + HEALTH_FOR));
        assert_eq!(later.news().len(), 1, "who lives and who does not is told until all know");
    }

    #[test]
    fn all_hear_it_however_many_they_are() {
        for (machines, runs) in [(2, 20), (9, 20), (100, 20), (1_000, 20)] {
            for seed in 0..runs {
                let heard = hear_it(machines, &mut SmallRng::seed_from_u64(seed));
                assert_eq!(heard, machines, "seed {seed}");
            }
        }
    }
}
