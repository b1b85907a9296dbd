//! How long each machine takes to answer questions about keys: the data path is evidence too.
//!
//! A machine may answer every probe and be of no use, since probes touch neither its disk nor its registers. So of each
//! machine one question of each kind is timed at a time, like a round trip, whether anybody still waits for the answer
//! or not: five others are enough for a request, and the sixth to the ninth are measured all the same.
//!
//! Late is who takes many times longer than the others do, for two answers or two questions: one lost message or one slow
//! fsync says nothing. A machine that is slow itself finds all others slow, and so none late.

use alloc::vec::Vec;

use crate::effect::Mono;
use crate::message::{Answer, Ask, Message};

const MS: u64 = 1_000_000;
/// Nobody is late who takes less than this.
const LEAST: u64 = 250 * MS;
/// Late is who takes so many times as long as others.
const TIMES: u64 = 8;
/// Answers remembered of each machine and kind. The second fastest counts: one slow answer is a hiccup.
const SAMPLES: usize = 4;
/// How long an answer says something about its machine.
const RECENT: u64 = 10_000 * MS;
/// After this time an answer may be lost, whatever others take.
const LONGEST: u64 = 500 * MS;
/// Longer ones take their time on the wire, and say little of the machine.
const LONG: usize = 16 << 10;

/// What an answer waits for at the machine that gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nothing but its turn: a Prepare, a Read.
    Told,
    /// Its disk: an Accept.
    Held,
}

const KINDS: [Kind; 2] = [Kind::Told, Kind::Held];

/// See the module's caption.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Answers {
    /// Of every member of the present view that was asked anything in it, in the order of their places there: among thousands
    /// they are few.
    of: Vec<(u32, [Timed; KINDS.len()])>,
    usual: Usual,
}

/// What an answer takes, whoever gives it: mean and deviation, smoothed as for a retransmission (RFC 6298), in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    mean: u64,
    deviation: u64,
}

impl Usual {
    fn note(&mut self, took: u64) {
        let took = took.min(LONGEST);
        let off = took.abs_diff(self.mean);
        self.mean = self.mean - self.mean / 8 + took / 8;
        self.deviation = self.deviation - self.deviation / 4 + off / 4;
    }
}

/// The questions of one kind to one machine.
#[derive(Clone, Debug, Default)]
struct Timed {
    /// The one that is being timed, when it left, and when another was asked while its answer was owed.
    owed: Option<Owed>,
    /// When the last few answers came, and how long they took; the newest first.
    took: [Option<(Mono, u64)>; SAMPLES],
}

/// An answer that has not come.
#[derive(Clone, Copy, Debug)]
struct Owed {
    ask: Ask,
    sent: Mono,
    /// When a second question left, which is not answered either.
    again: Option<Mono>,
}

impl Timed {
    fn note(&mut self, now: Mono, took: u64) {
        self.took.rotate_right(1);
        self.took[0] = Some((now, took));
    }

    /// What an answer takes lately, as far as is known; true if it is the word of two.
    fn usual(&self, now: Mono) -> Option<(u64, bool)> {
        let recent = self.took.iter().flatten().filter(|(at, _)| at.plus(RECENT) > now);
        let (mut first, mut second) = (None, None);
        for &(_, took) in recent {
            if first.is_none_or(|first| took < first) {
                (first, second) = (Some(took), first);
            } else if second.is_none_or(|second| took < second) {
                second = Some(took);
            }
        }
        Some((second.or(first)?, second.is_some()))
    }

    /// What two answers took at least, or how long two are owed already. Nothing of who has never answered in this view: it
    /// may not be synced, and then it is silent by rule (S5).
    fn takes(&self, now: Mono) -> Option<u64> {
        self.took[0]?;
        let usual = self.usual(now).filter(|(_, of_two)| *of_two).map(|(took, _)| took);
        let owed = self.owed.and_then(|owed| owed.again).map(|again| now.0.saturating_sub(again.0));
        usual.max(owed)
    }

    /// Nothing shows that its answers do not come.
    fn is_quick(&self, now: Mono) -> bool {
        let usual = self.usual(now).map(|(took, _)| took);
        let owed = self.owed.map(|owed| now.0.saturating_sub(owed.sent.0));
        usual.max(owed).is_none_or(|took| took < LEAST)
    }
}

impl Answers {
    /// A view was adopted: what was asked in the one before may never be answered.
    pub(crate) fn begin_anew(&mut self) {
        self.of.clear();
    }

    /// When an answer is late enough that the question may be lost. Whoever asks again any sooner where much is asked has
    /// everything done twice, and less of it in time.
    pub(crate) fn patience(&self) -> u64 {
        (self.usual.mean + 4 * self.usual.deviation).min(LONGEST)
    }

    fn of(&self, member: u32) -> Option<&[Timed; KINDS.len()]> {
        let at = self.of.binary_search_by_key(&member, |(m, _)| *m).ok()?;
        Some(&self.of[at].1)
    }

    fn of_mut(&mut self, member: u32) -> &mut [Timed; KINDS.len()] {
        let at = self.of.binary_search_by_key(&member, |(m, _)| *m);
        let at = at.unwrap_or_else(|at| {
            self.of.insert(at, (member, Default::default()));
            at
        });
        &mut self.of[at].1
    }

    /// A machine is asked something that about so many bytes come back for.
    pub(crate) fn asked(&mut self, now: Mono, member: u32, message: &Message, bytes: usize) {
        let (ask, kind) = match message {
            Message::Prepare { ask, .. } | Message::Read { ask, .. } => (*ask, Kind::Told),
            Message::Accept { ask, .. } => (*ask, Kind::Held),
            _ => return,
        };
        let timed = &mut self.of_mut(member)[kind as usize];
        if let Some(owed) = &mut timed.owed {
            if owed.sent.plus(RECENT) > now {
                owed.again.get_or_insert(now);
                return;
            }
            // It will not come any more.
            let took = now.0 - owed.sent.0;
            timed.note(now, took);
        }
        let short = message.value_bytes().max(bytes) <= LONG;
        timed.owed = short.then_some(Owed { ask, sent: now, again: None });
    }

    /// It answers.
    pub(crate) fn answered(&mut self, now: Mono, member: u32, ask: Ask, answer: &Answer) {
        let Ok(at) = self.of.binary_search_by_key(&member, |(m, _)| *m) else { return };
        for (timed, kind) in self.of[at].1.iter_mut().zip(KINDS) {
            let Some(Owed { ask: owed, sent, .. }) = timed.owed else { continue };
            let same = match answer {
                Answer::Held { .. } => kind == Kind::Held,
                Answer::Promised { .. } | Answer::Copy(_) | Answer::Mute => kind == Kind::Told,
                // Said without a look at the disk.
                Answer::Refused { .. } | Answer::NoRoom | Answer::Busy { .. } => false,
            };
            if owed == ask {
                let took = now.0.saturating_sub(sent.0);
                timed.note(now, took);
                timed.owed = None;
                self.usual.note(took);
            } else if same && ask > owed {
                // Numbers rise: the one that was timed is lost, or was overtaken.
                timed.owed = None;
            }
        }
    }

    /// Members whose answers do not come as those of others do, and how long they take, in milliseconds. One's own slowness
    /// stretches what is waited for.
    pub(crate) fn late(&self, now: Mono, slowness: u64) -> Vec<(u32, u32)> {
        let mut late: Vec<(u32, u32)> = Vec::new();
        for kind in KINDS.map(|kind| kind as usize) {
            let mut usual: Vec<(u64, u32)> =
                self.members().filter_map(|(m, of)| Some((of[kind].usual(now)?.0, m))).collect();
            usual.sort_unstable();
            for (member, of) in self.members() {
                let Some(takes) = of[kind].takes(now).filter(|takes| *takes >= LEAST) else { continue };
                let others = usual.iter().filter(|(_, m)| *m != member);
                let middle = others.clone().count().saturating_sub(1) / 2;
                let Some((usual, _)) = others.clone().nth(middle) else { continue };
                if takes >= usual.saturating_mul(TIMES).max(LEAST).saturating_mul(1 + slowness) {
                    let ms = u32::try_from(takes / MS).unwrap_or(u32::MAX);
                    match late.iter_mut().find(|(m, _)| *m == member) {
                        Some((_, longest)) => *longest = ms.max(*longest),
                        None => late.push((member, ms)),
                    }
                }
            }
        }
        late
    }

    /// True if a machine is seen to answer as it should, whatever others say of it.
    pub(crate) fn is_prompt(&self, now: Mono, member: u32) -> bool {
        let Some(of) = self.of(member) else { return false };
        // What it has written lately shows most.
        of[Kind::Held as usize].usual(now).is_some() && of.iter().all(|timed| timed.is_quick(now))
    }

    fn members(&self) -> impl Iterator<Item = (u32, &[Timed; KINDS.len()])> {
        self.of.iter().map(|(member, of)| (*member, of))
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::key::Key;
    use crate::message::Bound;
    use crate::register;
    use crate::stamp::Stamp;

    /// Asks eight machines and lets each answer after so many milliseconds; `None`: never.
    fn ask(answers: &mut Answers, ms: &mut u64, number: u64, took: [Option<u64>; 8]) {
        let (key, state) = (Key::new("k").unwrap(), Arc::new(register::absent(Bound::default())));
        let accept = Message::Accept { ask: Ask(number), key, stamp: Stamp::default(), state };
        for (member, took) in took.into_iter().enumerate() {
            answers.asked(Mono(*ms * MS), member as u32, &accept, 0);
            if let Some(took) = took {
                let held = Answer::Held { stamp: Stamp::default() };
                answers.answered(Mono((*ms + took) * MS), member as u32, Ask(number), &held);
            }
        }
        *ms += 1_000;
    }

    fn eight() -> (Answers, u64) {
        let mut answers = Answers::default();
        answers.begin_anew();
        let mut ms = 1_000;
        for number in 1..=4 {
            ask(&mut answers, &mut ms, number, [Some(3); 8]);
        }
        (answers, ms)
    }

    fn but(last: Option<u64>, others: u64) -> [Option<u64>; 8] {
        let mut took = [Some(others); 8];
        took[7] = last;
        took
    }

    #[test]
    fn who_owes_an_answer_that_others_have_given_is_late_before_it_comes() {
        let (mut answers, mut ms) = eight();
        ask(&mut answers, &mut ms, 5, but(None, 3));
        assert_eq!(answers.late(Mono((ms + 900) * MS), 0), [], "one message may be lost");
        assert!(!answers.is_prompt(Mono((ms + 900) * MS), 7), "nor does that show that it answers");
        let asked = ms;
        ask(&mut answers, &mut ms, 6, but(None, 3));
        assert_eq!(answers.late(Mono((asked + 200) * MS), 0), []);
        assert_eq!(answers.late(Mono((asked + 300) * MS), 0), [(7, 300)]);
        // Who is slow himself is slower to say so.
        assert_eq!(answers.late(Mono((asked + 300) * MS), 1), []);
        assert!(!answers.is_prompt(Mono((asked + 300) * MS), 7));
        let held = Answer::Held { stamp: Stamp::default() };
        answers.answered(Mono((asked + 900) * MS), 7, Ask(5), &held);
        assert_eq!(answers.late(Mono((asked + 901) * MS), 0), [], "one slow answer is a hiccup");
    }

    #[test]
    fn one_slow_answer_is_a_hiccup_where_it_is_the_only_one() {
        let (mut answers, mut ms) = eight();
        let later = ms + 11_000;
        ms = later;
        ask(&mut answers, &mut ms, 5, but(Some(900), 3));
        assert_eq!(answers.late(Mono((later + 901) * MS), 0), []);
        assert!(!answers.is_prompt(Mono((later + 901) * MS), 7));
        ask(&mut answers, &mut ms, 6, but(Some(800), 3));
        assert_eq!(answers.late(Mono(ms * MS), 0), [(7, 900)], "two are not");
    }

    #[test]
    fn patience_follows_what_answers_take() {
        let (mut answers, mut ms) = eight();
        // The first questions of all: nothing is known.
        assert!(answers.patience() < 10 * MS, "{}", answers.patience());
        // One hangs now and then.
        ask(&mut answers, &mut ms, 5, but(Some(40_000), 3));
        assert!(answers.patience() <= LONGEST, "{}", answers.patience());
        (6..9).for_each(|number| ask(&mut answers, &mut ms, number, but(Some(3), 3)));
        assert!(answers.patience() < 50 * MS, "{}", answers.patience());
        // All do much, and so each answer takes long.
        (40..60).for_each(|number| ask(&mut answers, &mut ms, number, [Some(100); 8]));
        assert!((100 * MS..150 * MS).contains(&answers.patience()), "{}", answers.patience());
        answers.begin_anew();
        assert!(answers.patience() > 100 * MS, "a view changes nothing of that");
        (60..80).for_each(|number| ask(&mut answers, &mut ms, number, [Some(900); 8]));
        assert_eq!(answers.patience(), LONGEST, "and there is an end to it");
        (80..100).for_each(|number| ask(&mut answers, &mut ms, number, [Some(3); 8]));
        assert!(answers.patience() < 20 * MS, "{}", answers.patience());
    }

    #[test]
    fn who_takes_many_times_longer_than_others_is_late_until_it_does_not() {
        let (mut answers, mut ms) = eight();
        for number in 5..9 {
            ask(&mut answers, &mut ms, number, but(Some(300), 3));
        }
        assert_eq!(answers.late(Mono(ms * MS), 0), [(7, 300)]);
        for number in 9..11 {
            ask(&mut answers, &mut ms, number, but(Some(3), 3));
        }
        assert_eq!(answers.late(Mono(ms * MS), 0), []);
        assert!(answers.is_prompt(Mono(ms * MS), 7));
        assert!(!answers.is_prompt(Mono((ms + 11_000) * MS), 7), "nothing is known for ever");
    }

    #[test]
    fn where_all_are_slow_none_is_late() {
        let (mut answers, mut ms) = eight();
        for number in 5..12 {
            ask(&mut answers, &mut ms, number, but(Some(900), 300));
        }
        assert_eq!(answers.late(Mono(ms * MS), 0), []);
    }

    #[test]
    fn a_lost_question_is_forgotten_with_the_answer_to_a_later_one() {
        let (mut answers, mut ms) = eight();
        ask(&mut answers, &mut ms, 5, but(None, 3));
        ask(&mut answers, &mut ms, 6, but(Some(3), 3));
        assert_eq!(answers.late(Mono(ms * MS), 0), []);
    }

    #[test]
    fn who_has_not_answered_yet_in_this_view_is_not_late() {
        let (mut answers, mut ms) = eight();
        answers.begin_anew();
        for number in 5..9 {
            ask(&mut answers, &mut ms, number, but(None, 3));
        }
        assert_eq!(answers.late(Mono(ms * MS), 0), []);
    }
}
