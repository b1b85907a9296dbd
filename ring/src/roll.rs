//! Who has nothing to tell whom (S3, among many). A change of the view concerns few of a thousand machines; were each to ask
//! each, nearly all of a million pages would say "none".
//!
//! So each machine looks once through its keys for those whom they concern: its *note*. Who is to be told asks a warden,
//! which calls the roll, and tells him whose notes do not name him. These count as having told "none" to the end; all
//! others are asked. A note says what a page says, of the same moment: of records read after the view was adopted, under an
//! account that does not claim to have voted in it. And it names too many rather than too few.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use bincode::{Decode, Encode};

use crate::effect::{Effect, Loaded, Mono, Now, Scan};
use crate::history::{Present, Track};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Bound, Message, Purpose};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::rare::{Rare, met, met_if};
use crate::stamp::Ballot;
use crate::view::{Epoch, Machine};

const MS: u64 = 1_000_000;
/// How long until an unanswered call is put again; doubles each time, up to the second.
const CALL_AGAIN: (u64, u64) = (200 * MS, 2_000 * MS);
/// How often a warden looks whether those that it waits for are still believed alive.
const LOOK: u64 = 100 * MS;
/// Calls that a machine is waited for which is no member any more: nobody probes it.
const FORMER: u32 = 3;
/// Keys of one scan, and its bytes.
const SCAN: (usize, usize) = (512, 512 << 10);
/// How long until who asks a warden asks again, and until he asks everybody himself.
const ASK_AGAIN: u64 = 2_000 * MS;
const ASK_FOR: u64 = 60_000 * MS;
/// How old a roll for the comparison of copies may be: keys come into being at any time.
const OLD: u64 = 60_000 * MS;

/// To whom a machine may have something to tell in this view.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Note {
    /// The last view that it knows to be settled.
    pub settled: Epoch,
    /// The highest ballot it may have promised.
    pub promised: Ballot,
    /// Its bound.
    pub bound: Bound,
    /// Members, by their places in the view, that own slots of its keys which they did not own in the view before. `None`: it
    /// does not know that view, or was not synced in one since the last settled: it is to be asked.
    pub gained: Option<Vec<u32>>,
    /// Members that own slots of its keys in the next ring, and none in this one (M1).
    pub ahead: Vec<u32>,
    /// Members that are the first owners of its keys, and compare the copies. Only where that is what is called for.
    pub first: Vec<u32>,
}

/// Who has nothing to tell to who asks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Roll {
    /// The highest of all that was noted.
    pub settled: Epoch,
    /// Likewise.
    pub promised: Ballot,
    /// Likewise.
    pub bound: Bound,
    /// Members, one bit each in the order of the view, from the lowest of the first.
    pub nothing: Vec<u64>,
    /// Machines that are no members any more.
    pub former: Vec<Machine>,
    /// The same that do not answer.
    pub silent: Vec<Machine>,
}

impl Roll {
    pub(crate) fn has_nothing(&self, member: u32) -> bool {
        self.nothing.get(member as usize / 64).is_some_and(|bits| bits >> (member % 64) & 1 == 1)
    }
}

/// True if a pass for this may go by the roll. Who was synced in the view before gained the slots that it did not own there,
/// whatever came before (S1); of others nobody knows what they lack.
pub(crate) fn is_by_roll(local: &Local, purpose: Purpose) -> bool {
    if local.present().view.members().len() <= local.tuning.roll_above {
        return false;
    }
    match purpose {
        Purpose::Ahead | Purpose::Check => true,
        Purpose::Sync | Purpose::Copy => {
            let synced = |before: &Present| local.account.synced.last() == Some(&before.epoch());
            before(local).is_some_and(|before| synced(before) || local.rules.broken(Mutant::S3RollUnsynced))
        }
    }
}

/// The view before the present one, if this machine knows that very one.
fn before(local: &Local) -> Option<&Present> {
    let [.., before, present] = local.history().views else { return None };
    let (was, is) = (before.epoch(), present.epoch());
    (was.is_beside(is) && was.number.checked_add(1) == Some(is.number)).then_some(before)
}

/// Of a machine whose note does not name who asks: it voted in every view since the last settled one for all that it owned.
pub(crate) fn told_nothing(local: &Local, machine: Machine, settled: Epoch) -> Track {
    let views = local.history().views;
    let earlier = views.iter().take(views.len() - 1).map(Present::epoch);
    local.track_of(machine, earlier.filter(|epoch| *epoch >= settled).collect())
}

// -- who tells ---------------------------------------------------------------------------------------------

/// What this machine does for rolls: its own note, and those it calls. One for the change of the view, one for the comparison
/// of copies, which is called anew each time.
#[derive(Debug, Default)]
pub(crate) struct Rolls {
    of_change: Duty,
    of_check: Duty,
}

#[derive(Debug, Default)]
struct Duty {
    noting: Option<Noting>,
    book: Option<Book>,
}

/// The note in the making.
#[derive(Debug)]
struct Noting {
    check: bool,
    began: Mono,
    after: Option<Key>,
    scan: Option<Scan>,
    gained: Option<BTreeSet<u32>>,
    ahead: BTreeSet<u32>,
    first: BTreeSet<u32>,
    /// Where the members of the view before are in this one; `None` if the ring has not changed since.
    places: Option<Vec<Option<u32>>>,
    done: bool,
    /// Who waits for it.
    asked: Vec<(Machine, Ask)>,
}

impl Noting {
    fn new(local: &Local, now: Now, check: bool) -> Self {
        let mut noting = Self {
            check,
            began: now.mono,
            after: None,
            scan: None,
            gained: None,
            ahead: BTreeSet::new(),
            first: BTreeSet::new(),
            places: None,
            done: false,
            asked: Vec::new(),
        };
        if check {
            return noting;
        }
        let (before, present) = (before(local), local.present());
        let knows = before.is_some() && local.history().voted_throughout(local.me, &local.account);
        met_if(!knows, Rare::S3NoteCannotSay);
        noting.gained = (knows || local.rules.broken(Mutant::S3NoteUnsynced)).then(BTreeSet::new);
        let moved = before.filter(|before| !before.view.same_ring(&present.view));
        let place =
            |before: &Present| before.view.members().iter().map(|m| present.index_of(m.machine)).collect();
        noting.places = moved.map(place);
        // Without a move there is nothing to look for.
        noting.done = (noting.gained.is_none() || moved.is_none()) && present.view.next_ring().is_none();
        noting
    }

    fn add(&mut self, local: &Local, key: &Key) {
        let present = local.present();
        let chain = present.chain(key);
        let now = present.view.ring().owners(&chain);
        if self.check {
            self.first.extend(now.machines().next());
            return;
        }
        if let (Some(gained), Some(places), Some(before)) = (&mut self.gained, &self.places, before(local)) {
            let was = before.view.ring().owners(&chain);
            let place = |member: u32| places.get(member as usize).copied().flatten();
            let slots = (1..=now.slots()).filter(|slot| place(was.owner(*slot)) != Some(now.owner(*slot)));
            gained.extend(slots.map(|slot| now.owner(slot)));
        }
        if let Some(ring) = present.view.next_ring() {
            let next: Owners = ring.owners(&chain);
            self.ahead.extend(next.machines().filter(|member| !now.is_owner(*member)));
        }
    }

    fn note(&self, local: &Local) -> Note {
        let named = |members: &BTreeSet<u32>| members.iter().copied().collect();
        let silent = local.rules.broken(Mutant::S3NoteSilent);
        Note {
            settled: local.account.settled,
            promised: local.highest_promised(),
            bound: local.limits.bound,
            gained: self.gained.as_ref().map(|gained| if silent { Vec::new() } else { named(gained) }),
            ahead: named(&self.ahead),
            first: named(&self.first),
        }
    }
}

impl Duty {
    fn on_call(
        &mut self,
        local: &mut Local,
        now: Now,
        (from, ask, check): (Machine, Ask, bool),
        effects: &mut Vec<Effect>,
    ) {
        self.noting.take_if(|noting| check && noting.done && noting.began.plus(OLD) <= now.mono);
        let noting = self.noting.get_or_insert_with(|| Noting::new(local, now, check));
        noting.asked.retain(|(machine, _)| *machine != from);
        noting.asked.push((from, ask));
        self.go_on(local, effects);
    }

    fn on_scanned(
        &mut self,
        local: &mut Local,
        scan: Scan,
        (found, end): (&mut Vec<(Key, Loaded)>, bool),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(noting) = self.noting.as_mut().filter(|noting| noting.scan == Some(scan)) else {
            return false;
        };
        noting.scan = None;
        for (key, _) in mem::take(found) {
            noting.add(local, &key);
            noting.after = Some(key);
        }
        noting.done = end;
        self.go_on(local, effects);
        true
    }

    fn go_on(&mut self, local: &mut Local, effects: &mut Vec<Effect>) {
        let Some(noting) = &mut self.noting else { return };
        if !noting.done {
            if noting.scan.is_none() {
                let scan = Scan(local.number().0);
                noting.scan = Some(scan);
                effects.push(Effect::Scan { scan, after: noting.after.clone(), keys: SCAN.0, bytes: SCAN.1 });
            }
            return;
        }
        // S3, "durably": what was read is on disk.
        let after = local.last_ticket();
        for (machine, ask) in mem::take(&mut noting.asked) {
            let note = Box::new(noting.note(local));
            local.send(Addr::Machine(machine), Message::RollNoted { ask, note }, after, effects);
        }
    }
}

// -- who calls ---------------------------------------------------------------------------------------------

/// The roll, as far as it has been called.
#[derive(Debug)]
struct Book {
    /// The members in the order of the view, then whoever else owned slots in the views since the last settled one.
    calls: Vec<Call>,
    members: usize,
    waiting: Vec<Waiting>,
    check: bool,
    began: Mono,
    /// Calls without a note.
    unheard: usize,
    look: Mono,
}

#[derive(Debug)]
struct Call {
    to: Machine,
    ask: Ask,
    again: Mono,
    gap: u64,
    times: u32,
    note: Option<Box<Note>>,
}

#[derive(Debug)]
struct Waiting {
    who: Machine,
    ask: Ask,
    purpose: Purpose,
}

impl Book {
    fn new(local: &mut Local, now: Now, check: bool) -> Self {
        let present = local.present();
        let members = present.view.members();
        let known: Vec<Machine> = members.iter().map(|m| m.machine).collect();
        let former: BTreeSet<Machine> =
            local.history().views.iter().flat_map(Present::ring_members).collect();
        let former = former.into_iter().filter(|m| present.index_of(*m).is_none());
        let all: Vec<Machine> = known.iter().copied().chain(former).collect();
        let mut call = |to| {
            let ask = local.number();
            Call { to, ask, again: now.mono, gap: CALL_AGAIN.0, times: 0, note: None }
        };
        let calls: Vec<Call> = all.into_iter().map(&mut call).collect();
        let unheard = calls.len();
        let (members, began) = (known.len(), now.mono);
        Self { calls, members, waiting: Vec::new(), check, began, unheard, look: began }
    }

    /// True if nobody is left to wait for.
    fn is_ready(&self, local: &Local, now: Now) -> bool {
        let may_answer = |i: u32, call: &Call| match (i as usize) < self.members {
            true => local.is_alive(i),
            false => call.times < FORMER || call.again > now.mono,
        };
        self.unheard == 0
            || (0..).zip(&self.calls).all(|(i, call)| call.note.is_some() || !may_answer(i, call))
    }

    fn call(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        for (i, call) in (0..).zip(&mut self.calls) {
            let alive = if (i as usize) < self.members { local.is_alive(i) } else { call.times < FORMER };
            if call.note.is_none() && alive && call.again <= now.mono {
                met_if(call.times > 0, Rare::S3RollCalledAgain);
                call.again = now.mono.plus(call.gap);
                call.gap = (call.gap * 2).min(CALL_AGAIN.1);
                call.times += 1;
                local.send(
                    Addr::Machine(call.to),
                    Message::RollCall { ask: call.ask, check: self.check },
                    None,
                    effects,
                );
            }
        }
    }

    fn answer(&mut self, local: &mut Local, effects: &mut Vec<Effect>) {
        for Waiting { who, ask, purpose } in mem::take(&mut self.waiting) {
            let Some(member) = local.present().index_of(who) else { continue };
            let roll = Box::new(self.roll(local, member, purpose));
            local.send(Addr::Machine(who), Message::Roll { ask, roll }, None, effects);
        }
    }

    /// Whose notes do not name this member.
    fn roll(&self, local: &Local, asker: u32, purpose: Purpose) -> Roll {
        let mut roll = Roll {
            settled: local.account.settled,
            promised: Ballot::ZERO,
            bound: Bound::default(),
            nothing: vec![0; self.members.div_ceil(64)],
            former: Vec::new(),
            silent: Vec::new(),
        };
        for (i, call) in self.calls.iter().enumerate() {
            let Some(note) = &call.note else {
                if i >= self.members {
                    roll.silent.push(call.to);
                }
                continue;
            };
            roll.settled = roll.settled.max(note.settled);
            roll.promised = roll.promised.max(note.promised);
            roll.bound = roll.bound.max(note.bound);
            let named = match (purpose, &note.gained) {
                (Purpose::Ahead, _) => note.ahead.binary_search(&asker).is_ok(),
                (Purpose::Check, _) => note.first.binary_search(&asker).is_ok(),
                (_, Some(gained)) => gained.binary_search(&asker).is_ok(),
                (_, None) => true,
            };
            if named {
                continue;
            }
            if i < self.members {
                roll.nothing[i / 64] |= 1 << (i % 64);
            } else {
                roll.former.push(call.to);
            }
        }
        roll
    }
}

impl Duty {
    fn on_ask(
        &mut self,
        local: &mut Local,
        now: Now,
        (who, ask, purpose): (Machine, Ask, Purpose),
        effects: &mut Vec<Effect>,
    ) {
        let check = purpose == Purpose::Check;
        self.book.take_if(|book| check && book.waiting.is_empty() && book.began.plus(OLD) <= now.mono);
        let book = self.book.get_or_insert_with(|| Book::new(local, now, check));
        book.waiting.retain(|waiting| waiting.who != who || waiting.purpose != purpose);
        book.waiting.push(Waiting { who, ask, purpose });
        book.call(local, now, effects);
        if book.unheard == 0 {
            book.answer(local, effects);
        }
        if book.look <= now.mono {
            book.look = now.mono.plus(LOOK);
        }
    }

    /// True if it was this roll that was called.
    fn on_note(
        &mut self,
        local: &mut Local,
        (from, ask): (Machine, Ask),
        note: &Note,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(book) = &mut self.book else { return false };
        let Some(call) = book.calls.iter_mut().find(|call| call.ask == ask && call.to == from) else {
            return false;
        };
        // In order, each once and each a member: so a note is never longer than the view.
        let members = book.members as u32;
        let can_be = |list: &Vec<u32>| {
            list.is_sorted_by(|a, b| a < b) && list.last().is_none_or(|member| *member < members)
        };
        let mut lists = [&note.ahead, &note.first].into_iter().chain(&note.gained);
        if call.note.is_none() && lists.all(can_be) {
            local.see(note.promised.time);
            call.note = Some(Box::new(note.clone()));
            book.unheard -= 1;
            if book.unheard == 0 {
                book.answer(local, effects);
            }
        }
        true
    }

    fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        let Some(book) = self.book.as_mut().filter(|b| !b.waiting.is_empty() && b.look <= now.mono) else {
            return;
        };
        book.look = now.mono.plus(LOOK);
        if book.is_ready(local, now) {
            met(Rare::S3RollWithoutSome);
            book.answer(local, effects);
        } else {
            book.call(local, now, effects);
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        self.book.as_ref().filter(|book| !book.waiting.is_empty()).map(|book| book.look)
    }
}

impl Rolls {
    /// A newer view: all of it begins anew.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    fn duty(&mut self, check: bool) -> &mut Duty {
        if check { &mut self.of_check } else { &mut self.of_change }
    }

    /// A warden calls the roll.
    pub(crate) fn on_call(
        &mut self,
        local: &mut Local,
        now: Now,
        from: Machine,
        (ask, check): (Ask, bool),
        effects: &mut Vec<Effect>,
    ) {
        self.duty(check).on_call(local, now, (from, ask, check), effects);
    }

    /// Storage has looked. False if the scan was not for a note.
    pub(crate) fn on_scanned(
        &mut self,
        local: &mut Local,
        scan: Scan,
        (found, end): (&mut Vec<(Key, Loaded)>, bool),
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.of_change.on_scanned(local, scan, (found, end), effects)
            || self.of_check.on_scanned(local, scan, (found, end), effects)
    }

    /// A member wants to know who has nothing to tell it.
    pub(crate) fn on_ask(
        &mut self,
        local: &mut Local,
        now: Now,
        who: Machine,
        (ask, purpose): (Ask, Purpose),
        effects: &mut Vec<Effect>,
    ) {
        self.duty(purpose == Purpose::Check).on_ask(local, now, (who, ask, purpose), effects);
    }

    /// A machine's note. One that cannot be is none.
    pub(crate) fn on_note(
        &mut self,
        local: &mut Local,
        from: Machine,
        ask: Ask,
        note: &Note,
        effects: &mut Vec<Effect>,
    ) {
        if !self.of_change.on_note(local, (from, ask), note, effects) {
            self.of_check.on_note(local, (from, ask), note, effects);
        }
    }

    pub(crate) fn on_time(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        self.of_change.on_time(local, now, effects);
        self.of_check.on_time(local, now, effects);
    }

    pub(crate) fn wake_at(&self) -> Option<Mono> {
        self.of_change.wake_at().into_iter().chain(self.of_check.wake_at()).min()
    }
}

// -- who asks ----------------------------------------------------------------------------------------------

/// A pass that waits for the roll.
#[derive(Debug)]
pub(crate) struct Asking {
    ask: Ask,
    /// Whom.
    warden: Option<u32>,
    again: Mono,
    until: Mono,
}

impl Asking {
    pub(crate) fn begin(now: Now) -> Self {
        Self { ask: Ask(0), warden: None, again: now.mono, until: now.mono.plus(ASK_FOR) }
    }

    /// True if this is the answer.
    pub(crate) fn is(&self, local: &Local, from: Machine, ask: Ask) -> bool {
        self.ask == ask && self.warden.is_some_and(|warden| local.present().machine(warden) == from)
    }

    /// Asks the first warden that is believed alive. False if it is no use: everybody is to be asked.
    pub(crate) fn go_on(
        &mut self,
        local: &mut Local,
        now: Now,
        purpose: Purpose,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let warden = crate::decree::wardens(local).machines().find(|warden| local.is_alive(*warden));
        if warden.is_none() || self.until <= now.mono {
            met(Rare::S3RollGivenUp);
            return false;
        }
        if self.warden != warden || self.again <= now.mono {
            met_if(self.warden.is_some(), Rare::S3RollAskedAgain);
            (self.warden, self.ask) = (warden, local.number());
            self.again = now.mono.plus(ASK_AGAIN);
            let message = Message::RollAsk { ask: self.ask, purpose };
            if let Some(warden) = warden {
                local.send_to(warden, message, None, effects);
            }
        }
        true
    }

    pub(crate) fn wake_at(&self) -> Mono {
        self.again.min(self.until)
    }
}
