//! A view that operators force (F2), in small: machines are lost for good, an operator names them to somebody who is left;
//! that one dies in the middle, and another operator names it too, to somebody else. Never two views after one.
//!
//! What runs is the code that is shipped: `force`, `Decrees`, `Local`. Written anew is what `Node` does between them: it
//! takes a decided view for its own, and answers no more about the decree (V2). As in the other models, whatever was said
//! may be heard at any time, any number of times or never.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::hash::{BuildHasher, Hash, Hasher};

use super::explorer::Small;
use super::ground::{letter, machine, number_of, view};
use crate::decree::{Decrees, wardens};
use crate::effect::{Account, Decree, Effect, Limits, Mono, Now};
use crate::forced::{Force, force};
use crate::local::Local;
use crate::message::{Addr, Message};
use crate::mutant::Rules;
use crate::node::{Birth, Setup, Tuning};
use crate::view::{Epoch, Machine};
use crate::zone::Zone;

/// Who may be lost besides those that were; how many machines there are in all; and what else happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivors {
    pub(super) machines: u8,
    /// How often some operator names all that are lost, to any machine.
    pub(super) words: u8,
    pub(super) deaths: u8,
    /// Proposals that are given up after their time.
    pub(super) given_up: u8,
    pub(super) rules: Rules,
}

/// A machine that is left, in the view that all were in.
#[derive(Clone)]
struct Survivor {
    local: Local,
    decrees: Decrees,
}

/// Something said.
struct Letter {
    from: Machine,
    to: u8,
    message: Message,
}

/// See the module's caption.
#[derive(Clone)]
pub(super) struct Scene {
    /// `None`: lost for good.
    survivors: Vec<Option<Survivor>>,
    /// In another view by now, a bit each.
    gone_on: u8,
    /// All that was ever said, by a number made of it.
    said: BTreeMap<u64, Rc<Letter>>,
    words: u8,
    deaths: u8,
    given_up: u8,
    /// The view that followed.
    decided: Option<Epoch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// An operator names all that are lost.
    Name {
        at: u8,
    },
    Hear {
        letter: u64,
        kind: &'static str,
        from: u8,
        at: u8,
    },
    GiveUp {
        at: u8,
    },
    Die {
        at: u8,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Name { at } => write!(f, "{} is told who is lost", letter(at)),
            Self::Hear { kind, from, at, .. } => {
                write!(f, "{} hears a {kind} of {}", letter(at), letter(from))
            }
            Self::GiveUp { at } => write!(f, "{} gives its proposal up", letter(at)),
            Self::Die { at } => write!(f, "{} is lost", letter(at)),
        }
    }
}

const SLOTS: u8 = 3;
const TWO: &str = "two views are forced after one";

/// Hashes what is written to it.
struct Written<'a, H>(&'a mut H);

impl<H: Hasher> Write for Written<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Hash for Scene {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for survivor in &self.survivors {
            // What its random numbers will be is no matter: they are names.
            let alive = survivor.as_ref();
            alive.map(|Survivor { local, decrees }| (decrees, local.clock(), &local.doubted)).hash(state);
        }
        self.said.keys().for_each(|letter| letter.hash(state));
        (self.gone_on, self.words, self.deaths, self.given_up, self.decided).hash(state);
    }
}

impl Survivors {
    fn now(scene: &Scene) -> Now {
        // Long after whatever was given up before.
        let mono = Mono(u64::from(scene.given_up) * 10_000_000_000);
        Now { mono, wall: 1_700_000_000_000_000_000 }
    }

    fn say(scene: &mut Scene, from: u8, effects: Vec<Effect>) {
        let hasher = foldhash::quality::FixedState::with_seed(9);
        for effect in effects {
            if let Effect::Send { to: Addr::Machine(to), envelope, .. } = effect {
                let message = envelope.message;
                let (from, to) = (machine(from), number_of(to));
                if scene.survivors[usize::from(to)].is_none() || scene.gone_on >> to & 1 == 1 {
                    continue;
                }
                let mut number = hasher.build_hasher();
                (from, to).hash(&mut number);
                write!(Written(&mut number), "{message:?}").expect("a hash");
                scene.said.entry(number.finish()).or_insert_with(|| Rc::new(Letter { from, to, message }));
            }
        }
    }

    /// V2, V3: it goes on to the view decided, and has no more part in the decree.
    fn go_on(scene: &mut Scene, at: u8, epoch: Epoch) -> Result<(), &'static str> {
        scene.gone_on |= 1 << at;
        Self::unheard(scene, at);
        match scene.decided.replace(epoch) {
            Some(other) if other != epoch => Err(TWO),
            _ => Ok(()),
        }
    }

    fn hear(scene: &mut Scene, letter: &Letter) -> Result<(), &'static str> {
        let (now, at) = (Self::now(scene), letter.to);
        let Some(Survivor { local, decrees }) = &mut scene.survivors[usize::from(at)] else { return Ok(()) };
        let mut effects = Vec::new();
        let decided = match letter.message.clone() {
            Message::DecreeAnswer { ask, answer } => {
                let from = local.present().index_of(letter.from).expect("a member");
                decrees.on_answer(local, now, from, ask, answer, &mut effects)
            }
            question => {
                decrees.on_question(local, letter.from, question, &mut effects);
                None
            }
        };
        Self::say(scene, at, effects);
        decided.map_or(Ok(()), |view| Self::go_on(scene, at, view.epoch()))
    }

    /// What is said to it makes no difference any more.
    fn unheard(scene: &mut Scene, at: u8) {
        scene.said.retain(|_, letter| letter.to != at);
    }

    fn die(scene: &mut Scene, at: u8) {
        scene.survivors[usize::from(at)] = None;
        Self::unheard(scene, at);
        for survivor in scene.survivors.iter_mut().flatten() {
            survivor.local.doubted.push(machine(at).name);
        }
    }
}

impl Small for Survivors {
    type State = Scene;
    type Act = Act;

    /// The first two wardens are lost, and so is the wardens' quorum.
    fn first(&self) -> Scene {
        let members: Vec<u8> = (0..self.machines).collect();
        let all = alloc::sync::Arc::new(view(0, (&members, 1), SLOTS, &[]));
        let survivor = |m: u8| {
            let setup = Setup {
                me: machine(m),
                weight: 1,
                zone: Zone::NONE,
                limits: Limits::default(),
                views: Vec::from([all.clone()]),
                account: Account::default(),
                decree: Decree::default(),
                birth: Birth::None,
                tuning: Tuning::default(),
                seed: u64::from(m) + 1,
                rules: self.rules,
            };
            let local = Local::new(&setup, Now::default());
            Some(Survivor { local, decrees: Decrees::new(Decree::default()) })
        };
        let mut scene = Scene {
            survivors: members.iter().map(|m| survivor(*m)).collect(),
            gone_on: 0,
            said: BTreeMap::new(),
            words: 0,
            deaths: 0,
            given_up: 0,
            decided: None,
        };
        let local = &scene.survivors[0].as_ref().expect("nobody is lost yet").local;
        let first: Vec<u8> =
            wardens(local).machines().take(2).map(|m| number_of(local.present().machine(m))).collect();
        first.into_iter().for_each(|m| Self::die(&mut scene, m));
        scene
    }

    fn acts(&self, scene: &Scene, acts: &mut Vec<Act>) {
        let left = (0..self.machines).filter(|m| scene.survivors[usize::from(*m)].is_some());
        for at in left.clone() {
            if scene.deaths < self.deaths && left.clone().count() > 1 {
                acts.push(Act::Die { at });
            }
            if scene.gone_on >> at & 1 == 1 {
                continue;
            }
            if scene.words < self.words {
                acts.push(Act::Name { at });
            }
            if scene.given_up < self.given_up {
                acts.push(Act::GiveUp { at });
            }
            let heard = scene.said.iter().filter(|(_, letter)| letter.to == at);
            acts.extend(heard.map(|(number, letter)| Act::Hear {
                letter: *number,
                kind: letter.message.kind(),
                from: number_of(letter.from),
                at,
            }));
        }
    }

    fn step(&self, scene: &mut Scene, act: Act) -> Result<(), &'static str> {
        match act {
            Act::Name { at } => {
                scene.words += 1;
                let now = Self::now(scene);
                let lost = (0..self.machines).filter(|m| scene.survivors[usize::from(*m)].is_none());
                let lost: Vec<Machine> = lost.map(machine).collect();
                let Some(Survivor { local, decrees }) = &mut scene.survivors[usize::from(at)] else {
                    return Ok(());
                };
                let mut effects = Vec::new();
                match force(local, &lost) {
                    Force::View(view) => {
                        decrees.force(local, now, view, &mut effects);
                    }
                    other => unreachable!("the wardens' quorum is lost: {other:?}"),
                }
                Self::say(scene, at, effects);
            }
            Act::Hear { letter, .. } => {
                let letter = scene.said[&letter].clone();
                return Self::hear(scene, &letter);
            }
            Act::GiveUp { at } => {
                scene.given_up += 1;
                let now = Self::now(scene);
                let mut effects = Vec::new();
                if let Some(Survivor { local, decrees }) = &mut scene.survivors[usize::from(at)] {
                    decrees.on_time(local, now, &mut effects);
                }
                Self::say(scene, at, effects);
            }
            Act::Die { at } => {
                scene.deaths += 1;
                Self::die(scene, at);
            }
        }
        Ok(())
    }
}
