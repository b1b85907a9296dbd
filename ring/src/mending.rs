//! Keys whose copies a comparison found unlike: a settling round for each, a few at once, and again for those that some
//! owner did not hold in the end.
//!
//! A round is chosen with five votes, and a copy is mended only with all of them: an owner that has started since may
//! refuse the ballot of a lead that is older than its floor (A4), and its answer comes after the five. What is not mended
//! is tried again while everybody is there, sooner at first; what there is no room to remember, another comparison finds.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::{Effect, Mono, Now};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Message, Op, Outcome};
use crate::rare::{Rare, met};

const SEC: u64 = 1_000_000_000;
/// Settling rounds under way at once.
const AT_ONCE: usize = 8;
/// How long a round may take, in milliseconds.
const WITHIN: u32 = 5_000;
/// How long until a key is tried again; doubles each time, up to the second.
const AGAIN: (u64, u64) = (SEC, 64 * SEC);
/// Keys that are to be tried again, at most.
const REMEMBERED: usize = 1_024;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Mending {
    /// Found unlike, and how often they were tried.
    found: Vec<(Key, u32)>,
    under_way: BTreeMap<Ask, (Key, u32)>,
    /// Not mended, in the order in which they are to be tried again.
    again: BTreeMap<(Mono, Key), u32>,
    /// A key was not mended, and there was no room for it.
    forgotten: bool,
}

impl Mending {
    /// A comparison found this key's copies unlike.
    pub(crate) fn found(&mut self, key: Key) {
        self.take_back(&key);
        self.found.push((key, 0));
    }

    /// It may have been found before, and is tried once at a time.
    fn take_back(&mut self, key: &Key) {
        self.again.retain(|(_, other), _| other != key);
    }

    /// True while there is enough to mend: a comparison waits.
    pub(crate) fn is_busy(&self) -> bool {
        self.found.len() >= AT_ONCE
    }

    /// True, once, if something was not mended that only another comparison can find.
    pub(crate) fn take_forgotten(&mut self) -> bool {
        core::mem::take(&mut self.forgotten)
    }

    /// What came of a settling round; true if the key is on all its slots now.
    pub(crate) fn on_outcome(&mut self, local: &Local, now: Now, ask: Ask, outcome: &Outcome) -> bool {
        let Some((key, tries)) = self.under_way.remove(&ask) else { return false };
        let slots = local.present().view.slots();
        if matches!(outcome, Outcome::Done { votes, .. } if *votes == slots) {
            met(Rare::CheckMended);
            self.take_back(&key);
            return true;
        }
        met(Rare::CheckNotMended);
        self.take_back(&key);
        if self.again.len() < REMEMBERED {
            let pause = AGAIN.1.min(AGAIN.0 << tries.min(32));
            self.again.insert((now.mono.plus(pause), key), tries + 1);
        } else {
            self.forgotten = true;
        }
        false
    }

    /// The next settling rounds: requests to this machine itself, on the road of any other.
    pub(crate) fn go_on(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        while is_worth_it(local)
            && !self.is_busy()
            && self.again.first_key_value().is_some_and(|((at, _), _)| *at <= now.mono)
            && let Some(((_, key), tries)) = self.again.pop_first()
        {
            self.found.push((key, tries));
        }
        while self.under_way.len() < AT_ONCE
            && let Some((key, tries)) = self.found.pop()
        {
            let ask = local.number();
            self.under_way.insert(ask, (key.clone(), tries));
            let message = Message::Request { ask, key, op: Op::Settle, within: WITHIN, handed: true };
            local.send(Addr::Machine(local.me), message, None, effects);
        }
    }

    /// When something is to be tried again.
    pub(crate) fn wake_at(&self, local: &Local) -> Option<Mono> {
        let first = self.again.first_key_value().filter(|_| is_worth_it(local) && !self.is_busy());
        first.map(|((at, _), _)| *at)
    }
}

/// Not all slots will hold a key while an owner is away, or has no room.
fn is_worth_it(local: &Local) -> bool {
    local.doubted.is_empty() && local.full.is_empty() && !local.is_full
}
