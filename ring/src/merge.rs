//! One pass over the keys, in their order, with all that every machine tells of each (S3).
//!
//! Every teller's pages come in the order of the keys, and so does the machine's own storage. So the pass holds a page
//! of each at a time, and when it comes to a key it knows at once all that is told of it, "none" included: S5 and S6
//! are decided key by key, in bounded memory. The same pass copies ahead (M1) and compares copies.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::digest::{Beliefs, WIDTH};
use crate::effect::{Account, Effect, Loaded, Mono, Now, Scan};
use crate::history::{Concern, Telling, Track, Verdict, judge};
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Bound, Entry, Held, Message, Page, Purpose, TellRequest};
use crate::mutant::Mutant;
use crate::pace;
use crate::placement::Owners;
use crate::quorum::SlotSet;
use crate::rare::{Rare, met, met_if};
use crate::roll::{self, Asking, Roll};
use crate::stamp::{Ballot, Hlc, Record, Stamp, State};
use crate::view::{Epoch, Machine, Name};

const MS: u64 = 1_000_000;
/// How long until an unanswered question is put again; doubles each time, up to the second.
const RESEND: (u64, u64) = (200 * MS, 2_000 * MS);
/// How often a teller that is left out is tried, where it is needed.
const TRY_AGAIN: u64 = 500 * MS;
/// The next page is asked for when so few entries of the last one are left.
const FEW: usize = 128;
/// Keys of one scan of the machine's own, and its bytes.
const SCAN: (usize, usize) = (1024, 1 << 20);
/// Records on their way into their cells at once.
const TAKING: usize = 256;
/// More keys than any machine has.
const MOST_KEYS: u64 = 1 << 40;
/// Values asked for at once, and in one question.
const WANTED: (usize, usize) = (256, 32);

/// What becomes of a record at the machine that was told of it: see [`Verdict`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Take {
    /// The pass that it is from, and its view: in another it means nothing any more.
    pub(crate) purpose: Purpose,
    pub(crate) epoch: Epoch,
    pub(crate) stamp: Option<Stamp>,
    /// `None` where the machine holds that stamp already.
    pub(crate) state: Option<Arc<State>>,
    pub(crate) gained: SlotSet,
    pub(crate) granted: SlotSet,
    /// What it held and what does not count: replaced whatever its stamp, unless it has changed since.
    pub(crate) void: Option<Stamp>,
}

/// What the pass wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Bring this to the key's cell.
    Take(Key, Take),
    /// The copies are not alike, or not all voted for: settle the key under a fresh ballot.
    Settle(Key),
    /// G2: all slots vote for this tombstone.
    Collect(Key, Stamp),
    /// T1: somebody knows this view to be settled.
    Settled(Epoch),
}

/// A move of data to this machine, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// For what.
    pub purpose: Purpose,
    /// Keys whose record was taken or found to be here already.
    pub keys: u64,
    /// Bytes of values that came.
    pub bytes: u64,
    /// Keys that the tellers have looked at, and have in all, roughly.
    pub looked: u64,
    /// See `looked`.
    pub total: u64,
    /// Since when.
    pub since: Mono,
    /// Who tells.
    pub from: Vec<Name>,
    /// Who should tell and does not answer.
    pub waits_for: Vec<Name>,
}

/// See the module's caption.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) purpose: Purpose,
    pub(crate) epoch: Epoch,
    since: Option<Epoch>,
    /// This machine's own places in the views: as its questions say, and as it votes.
    track: Track,
    mine: Track,
    handoff: bool,
    /// Every key up to here is decided.
    at: Option<Key>,
    own: Source<Owned>,
    own_scan: Option<Scan>,
    /// In their order.
    tellers: Vec<Teller>,
    without: Vec<Machine>,
    /// It goes by the roll, and waits for it.
    asking: Option<Asking>,
    /// Who has told "none" of every key by the roll, knowing this view at most to be settled; before that, all who may. In
    /// their order.
    rolled: Vec<Machine>,
    noted: Epoch,
    /// Records whose values have been asked for, or will be.
    wanted: BTreeMap<Key, Wanted>,
    fetches: Vec<Fetch>,
    taking: usize,
    /// The highest ballot that any teller may have promised, and the highest bound (S5).
    pub(crate) promised: Ballot,
    pub(crate) bound: Bound,
    not_before: Mono,
    began: Mono,
    keys: u64,
    bytes: u64,
    pub(crate) unlike: u64,
    /// Something came in with which it can go on, since it last did.
    stirred: bool,
    /// Tellers that have told nothing yet: until all have, nothing can be decided.
    unheard: usize,
    /// Who was doubted then; when it goes on though nothing comes in; and whether it is done.
    doubted: Vec<Name>,
    wake: Option<Mono>,
    done: bool,
}

#[derive(Debug)]
struct Source<T> {
    buffer: VecDeque<T>,
    /// Told up to here, the buffer included.
    upto: Upto,
}

#[derive(Clone, PartialEq, Debug)]
enum Upto {
    Key(Option<Key>),
    End,
}

impl<T> Source<T> {
    fn from(at: Option<Key>) -> Self {
        Self { buffer: VecDeque::new(), upto: Upto::Key(at) }
    }

    /// True if it has said all that it says of this key and those before.
    fn has_told(&self, key: &Key) -> bool {
        !self.buffer.is_empty()
            || match &self.upto {
                Upto::End => true,
                Upto::Key(upto) => upto.as_ref().is_some_and(|upto| upto >= key),
            }
    }

    fn is_over(&self) -> bool {
        self.buffer.is_empty() && self.upto == Upto::End
    }
}

/// A key of the machine's own.
#[derive(Debug)]
struct Owned {
    key: Key,
    place: Place,
    /// `None`: unreadable.
    record: Option<(Stamp, SlotSet, bool)>,
    /// When its value expires (G4).
    expires: Option<Hlc>,
}

/// Where a key belongs in each view since the last settled one, and in the next ring: computed once for all that is asked
/// of it.
#[derive(Debug)]
struct Place {
    owners: Vec<Owners>,
    next: Option<Owners>,
}

impl Place {
    fn of(local: &Local, key: &Key) -> Self {
        let chain = local.present().chain(key);
        let history = local.history();
        Self { owners: history.owners(&chain), next: history.next_owners(&chain) }
    }
}

#[derive(Debug)]
struct Teller {
    machine: Machine,
    /// Its place in the pass's view; `None` if it is no member of it.
    member: Option<u32>,
    source: Source<Entry>,
    account: Option<Account>,
    /// Its places in the views since the last settled one, and what the account says of them, once there is one.
    track: Track,
    /// Keys of a range: the fewer, the more often its claims were wrong.
    width: usize,
    asked: Option<Asked>,
    /// It tells nothing at present.
    out: bool,
    looked: u64,
    total: u64,
}

impl Teller {
    fn new(local: &Local, machine: Machine) -> Self {
        Self {
            machine,
            member: local.present().index_of(machine),
            source: Source::from(None),
            account: None,
            track: local.places_of(machine),
            width: WIDTH.0,
            asked: None,
            out: false,
            looked: 0,
            total: 0,
        }
    }
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    /// The same each time it is put: it may be the first that is answered.
    request: Box<TellRequest>,
    beliefs: Beliefs,
    again: Mono,
    gap: u64,
}

#[derive(Debug)]
struct Wanted {
    take: Take,
    from: Machine,
    asked: bool,
}

#[derive(Debug)]
struct Fetch {
    ask: Ask,
    from: Machine,
    keys: Vec<Key>,
    again: Mono,
    tries: u32,
}

impl Merge {
    /// A pass that hears these machines.
    pub(crate) fn begin(local: &Local, now: Now, purpose: Purpose, tellers: Vec<Machine>) -> Self {
        let history = local.history();
        let before = history.views.len().checked_sub(2).map(|i| history.views[i].epoch());
        let handoff = purpose == Purpose::Sync && before == Some(local.account.settled);
        // F2: who was forced out tells nothing, ever; others tell in its place.
        let (view, waits) = (&local.present().view, local.rules.broken(Mutant::F2Waits));
        let since = local.account.synced.last().copied();
        debug_assert!(tellers.is_sorted(), "tellers are searched");
        let (without, tellers): (Vec<Machine>, Vec<Machine>) =
            tellers.into_iter().partition(|m| view.has_forced_out(m.incarnation) && !waits);
        let asking = roll::is_by_roll(local, purpose).then(|| Asking::begin(now));
        let (rolled, tellers) = if asking.is_some() { (tellers, Vec::new()) } else { (Vec::new(), tellers) };
        Self {
            purpose,
            epoch: local.epoch(),
            since,
            track: local.tracks_of(local.me, since),
            mine: history.track(local.me, &local.account),
            handoff,
            at: None,
            own: Source::from(None),
            own_scan: None,
            tellers: tellers.into_iter().map(|machine| Teller::new(local, machine)).collect(),
            asking,
            rolled,
            noted: Epoch::ZERO,
            without,
            wanted: BTreeMap::new(),
            fetches: Vec::new(),
            taking: 0,
            promised: Ballot::ZERO,
            bound: Bound::default(),
            not_before: now.mono,
            began: now.mono,
            keys: 0,
            bytes: 0,
            unlike: 0,
            stirred: true,
            unheard: 0,
            doubted: Vec::new(),
            wake: Some(now.mono),
            done: false,
        }
    }

    /// True once every key is decided and everything taken has reached its cell.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// S4 holds for the keys that nobody named, too.
    fn is_through(&self, local: &Local) -> bool {
        let told = self.tellers.iter().all(|t| t.out || t.source.is_over() && t.account.is_some());
        self.asking.is_none()
            && self.may_go_on(local)
            && told
            && self.own.is_over()
            && self.wanted.is_empty()
            && self.taking == 0
    }

    /// What it tells people of itself.
    pub(crate) fn progress(&self) -> Move {
        let name = |t: &&Teller| t.machine.name;
        Move {
            purpose: self.purpose,
            keys: self.keys,
            bytes: self.bytes,
            looked: self.tellers.iter().map(|t| t.looked).sum(),
            total: self.tellers.iter().map(|t| t.total.max(t.looked)).sum(),
            since: self.began,
            from: self.tellers.iter().filter(|t| !t.out).map(|t| t.machine.name).collect(),
            waits_for: self
                .tellers
                .iter()
                .filter(|t| t.out || t.asked.as_ref().is_some_and(|a| a.gap > RESEND.0))
                .map(|t| name(&t))
                .collect(),
        }
    }

    // -- what comes in -------------------------------------------------------------------------------

    /// True if this is its question.
    pub(crate) fn asked_of(&self, from: Machine, ask: Ask) -> bool {
        self.teller(from).is_some_and(|at| self.tellers[at].asked.as_ref().is_some_and(|a| a.ask == ask))
    }

    fn teller(&self, machine: Machine) -> Option<usize> {
        self.tellers.binary_search_by_key(&machine, |t| t.machine).ok()
    }

    /// True if these values are its.
    pub(crate) fn has_fetched(&self, from: Machine, ask: Ask) -> bool {
        self.fetches.iter().any(|f| f.ask == ask && f.from == from)
    }

    /// A page. Returns false if nobody asked for it.
    pub(crate) fn on_page(
        &mut self,
        local: &mut Local,
        now: Now,
        from: Machine,
        ask: Ask,
        page: Page,
        acts: &mut Vec<Act>,
    ) -> bool {
        let Some(at) = self.teller(from) else { return false };
        let teller = &mut self.tellers[at];
        let Some(asked) = teller.asked.as_ref().filter(|asked| asked.ask == ask) else { return false };
        // A peer may say anything.
        let bytes: usize = page.entries.iter().map(Entry::bytes).sum();
        let told = asked.beliefs.unfold(page.agreed, page.entries, page.upto.as_ref());
        let Some((entries, right)) = told else { return false };
        // In order, and beyond what was told before.
        let last = match (&teller.source.upto, teller.source.buffer.back()) {
            (_, Some(entry)) => Some(entry.key.clone()),
            (Upto::Key(key), None) => key.clone(),
            (Upto::End, None) => None,
        };
        let keys = || entries.iter().map(|e| Some(&e.key));
        let ordered = core::iter::once(last.as_ref()).chain(keys()).is_sorted_by(|a, b| a < b);
        let within =
            page.upto.as_ref().is_none_or(|upto| keys().next_back().flatten().is_none_or(|k| k <= upto));
        met(if right { Rare::S3ClaimsRight } else { Rare::S3ClaimWrong });
        if !ordered || !within {
            return false;
        }
        teller.width = if right { teller.width * 2 } else { teller.width / 2 }.clamp(WIDTH.1, WIDTH.0);
        teller.asked = None;
        let was_out = mem::replace(&mut teller.out, false);
        self.bytes += bytes as u64;
        teller.looked += u64::from(page.looked);
        // A peer may claim any number: those of all tellers are added up, here and by whoever shows them.
        teller.total = page.total.min(MOST_KEYS);
        if page.account.settled > local.account.settled {
            met(Rare::T1SettledIsTold);
            acts.push(Act::Settled(page.account.settled));
        }
        if teller.account.is_none() && !was_out {
            self.unheard = self.unheard.saturating_sub(1);
        }
        if teller.account.as_ref() != Some(&page.account) {
            teller.track = local.history().track(from, &page.account);
            // What it told before it was synced in this view may still wait to be decided: it was no vote of this view.
            let mut account = page.account;
            let late = local.rules.broken(Mutant::S3Late);
            let before = teller.account.as_ref().is_some_and(|former| !former.synced.contains(&self.epoch));
            if !late && before {
                met_if(account.synced.contains(&self.epoch), Rare::S3SyncedSinceItTold);
                account.synced.retain(|epoch| *epoch != self.epoch);
            }
            teller.account = Some(account);
        }
        self.promised = self.promised.max(page.promised);
        self.bound = self.bound.max(page.bound);
        local.see(page.promised.time);
        if was_out {
            met(Rare::S2SpeaksAgain);
            // It speaks again, from where the pass is: what this page says may be too late for that.
            self.without.retain(|m| *m != from);
            teller.source = Source::from(self.at.clone());
        } else {
            teller.source.upto = page.upto.map_or(Upto::End, |upto| Upto::Key(Some(upto)));
            teller.source.buffer.extend(entries);
        }
        // It need not be asked again, and there are others to wait for.
        self.stirred |= was_out || self.unheard == 0 || teller.source.upto != Upto::End;
        if let Some(pause) =
            pace::pause(self.purpose, bytes as u64, local.tuning.move_rate, local.serves(now))
        {
            self.not_before = self.not_before.max(now.mono).plus(pause);
        }
        true
    }

    /// The roll: who has nothing to tell has told it. Returns the view that is known to be settled; `None` if nobody asked.
    pub(crate) fn on_roll(
        &mut self,
        local: &mut Local,
        from: Machine,
        ask: Ask,
        roll: &Roll,
    ) -> Option<Epoch> {
        self.asking.take_if(|asking| asking.is(local, from, ask))?;
        met(Rare::S3ByRoll);
        self.stirred = true;
        let present = local.present();
        let (rolled, others): (Vec<Machine>, Vec<Machine>) =
            mem::take(&mut self.rolled).into_iter().partition(|machine| match present.index_of(*machine) {
                Some(member) => roll.has_nothing(member),
                None => roll.former.contains(machine),
            });
        (self.rolled, self.noted) = (rolled, roll.settled);
        for machine in others {
            let mut teller = Teller::new(local, machine);
            if teller.member.is_none() && roll.silent.contains(&machine) {
                met(Rare::S3RollHasOneSilent);
                teller.out = true;
                self.without.push(machine);
            }
            self.tellers.push(teller);
        }
        // Nobody has anything, this machine included.
        if present.me.is_some_and(|me| roll.has_nothing(me)) && self.tellers.iter().all(|t| t.out) {
            self.own.upto = Upto::End;
        }
        self.promised = self.promised.max(roll.promised);
        self.bound = self.bound.max(roll.bound);
        local.see(roll.promised.time);
        Some(roll.settled)
    }

    /// The machine's own storage has looked. False if not for this pass.
    pub(crate) fn on_scanned(
        &mut self,
        local: &Local,
        scan: Scan,
        found: &mut Vec<(Key, Loaded)>,
        end: bool,
    ) -> bool {
        if self.own_scan != Some(scan) {
            return false;
        }
        self.own_scan = None;
        self.stirred = true;
        if let Some((key, _)) = found.last() {
            self.own.upto = Upto::Key(Some(key.clone()));
        }
        if end {
            self.own.upto = Upto::End;
        }
        let owned: Vec<Owned> = mem::take(found)
            .into_iter()
            .filter_map(|(key, loaded)| {
                let (record, expires) = match loaded {
                    Loaded::Nothing => return None,
                    Loaded::Unreadable => (None, None),
                    Loaded::Record(Record { stamp, votes, state }) => {
                        let tombstone = state.value.is_none();
                        (Some((stamp, votes, tombstone)), state.expires.filter(|_| !tombstone))
                    }
                };
                Some(Owned { place: Place::of(local, &key), key, record, expires })
            })
            .collect();
        if self.purpose == Purpose::Check && !self.rolled.is_empty() {
            self.ask_owners(local, &owned);
        }
        self.own.buffer.extend(owned);
        true
    }

    /// Values that were asked for. False if not by this pass.
    pub(crate) fn on_fetched(
        &mut self,
        local: &Local,
        from: Machine,
        ask: Ask,
        records: Vec<(Key, Option<Record>)>,
        acts: &mut Vec<Act>,
    ) -> bool {
        let Some(at) = self.fetches.iter().position(|f| f.ask == ask && f.from == from) else { return false };
        self.stirred = true;
        let fetch = self.fetches.swap_remove(at);
        for key in &fetch.keys {
            if let Some(wanted) = self.wanted.get_mut(key) {
                wanted.asked = false;
            }
        }
        for (key, record) in records {
            if !fetch.keys.contains(&key) {
                continue;
            }
            let Some(Wanted { mut take, .. }) = self.wanted.remove(&key) else { continue };
            match record {
                Some(record) if Some(record.stamp) >= take.stamp => {
                    self.bytes += record.state.value.as_ref().map_or(0, |v| v.len() as u64) + 64;
                    if Some(record.stamp) > take.stamp {
                        met(Rare::S6FetchedIsNewer);
                        // Accepted since: truly proposed, and no vote of any slot of ours (S6).
                        (take.stamp, take.granted) = (Some(record.stamp), SlotSet::EMPTY);
                    }
                    take.state = Some(record.state);
                    self.taking += 1;
                    acts.push(Act::Take(key, take));
                }
                // It was collected meanwhile, with a bound that we have not heard: all over again.
                _ => {
                    met(Rare::S5FetchedIsGone);
                    self.ask_everybody(local);
                    return self.restart(None);
                }
            }
        }
        true
    }

    /// T2: earlier views are forgotten, here too.
    pub(crate) fn on_settled(&mut self, local: &Local) {
        self.stirred = true;
        let history = local.history();
        for teller in &mut self.tellers {
            let account = teller.account.as_ref();
            let account = account.map(|account| history.track(teller.machine, account));
            teller.track = account.unwrap_or_else(|| local.places_of(teller.machine));
        }
        self.track = local.tracks_of(local.me, self.since);
        self.mine = history.track(local.me, &local.account);
        for owned in &mut self.own.buffer {
            owned.place = Place::of(local, &owned.key);
        }
    }

    /// One record has reached its cell.
    pub(crate) fn taken(&mut self) {
        self.stirred = true;
        self.taking = self.taking.saturating_sub(1);
    }

    /// Everybody tells again, from a key on; true.
    fn restart(&mut self, at: Option<Key>) -> bool {
        self.at = at;
        self.own = Source::from(self.at.clone());
        self.own_scan = None;
        for teller in &mut self.tellers {
            teller.source = Source::from(self.at.clone());
            teller.asked = None;
            if self.at.is_none() {
                teller.account = None;
            }
        }
        if self.at.is_none() {
            self.wanted.clear();
            self.fetches.clear();
        }
        true
    }

    /// No roll: all who may have something to tell are asked.
    fn ask_everybody(&mut self, local: &Local) {
        let rolled = mem::take(&mut self.rolled);
        self.tellers.extend(rolled.into_iter().map(|machine| Teller::new(local, machine)));
        self.tellers.sort_by_key(|teller| teller.machine);
    }

    /// Whoever should hold what this machine has compared is asked, though he noted nothing of it: there may be keys since then.
    fn ask_owners(&mut self, local: &Local, owned: &[Owned]) {
        let present = local.present();
        for owners in owned.iter().filter_map(|owned| owned.place.owners.last()) {
            if owners.machines().next() != present.me {
                continue;
            }
            for machine in owners.machines().map(|member| present.machine(member)) {
                if let Ok(at) = self.rolled.binary_search(&machine) {
                    self.rolled.remove(at);
                    let mut teller = Teller::new(local, machine);
                    teller.source = Source::from(self.at.clone());
                    let at = self.tellers.partition_point(|teller| teller.machine < machine);
                    self.tellers.insert(at, teller);
                }
            }
        }
    }

    /// Of those who have told "none" by the roll, whoever was to tell of this key (S4 needs no others).
    fn rolled_of(&self, local: &Local, place: &Place, mute: &[Machine]) -> Vec<Track> {
        if self.rolled.is_empty() || self.purpose != Purpose::Sync {
            return Vec::new();
        }
        let (history, concern) = (local.history(), self.concern(local));
        let owners =
            history.views.iter().zip(&place.owners).flat_map(|(p, o)| o.machines().map(|m| p.machine(m)));
        let mut owners: Vec<Machine> = owners.collect();
        owners.sort_unstable();
        owners.dedup();
        let rolled = owners.into_iter().filter(|m| self.rolled.binary_search(m).is_ok() && !mute.contains(m));
        rolled
            .map(|machine| (machine, roll::told_nothing(local, machine, self.noted)))
            .filter(|(m, track)| history.is_told(&concern, (&place.owners, place.next.as_ref()), (*m, track)))
            .map(|(_, track)| track)
            .collect()
    }

    // -- going on ------------------------------------------------------------------------------------

    /// Decides what can be decided, asks for what is missing. Costs nothing where nothing has changed: a pass among a
    /// thousand machines may wait for one of them, while whatever else its machine hears makes it look.
    pub(crate) fn advance(
        &mut self,
        local: &mut Local,
        now: Now,
        effects: &mut Vec<Effect>,
        acts: &mut Vec<Act>,
    ) {
        let due = self.wake.is_some_and(|at| at <= now.mono);
        if !mem::take(&mut self.stirred) && !due && self.doubted == local.doubted {
            return;
        }
        self.doubted.clone_from(&local.doubted);
        self.go_on(local, now, effects, acts);
        self.wake = self.next_wake();
        self.unheard = self.tellers.iter().filter(|t| !t.out && t.account.is_none()).count();
        self.done = self.is_through(local);
    }

    fn go_on(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>, acts: &mut Vec<Act>) {
        self.leave_out(local);
        if !self.may_go_on(local) {
            met(if self.purpose == Purpose::Sync { Rare::S4Waits } else { Rare::CheckLacksATeller });
            self.ask(local, now, effects);
            return;
        }
        while self.taking < TAKING && self.wanted.len() < WANTED.0 {
            let heads = self.tellers.iter().filter(|t| !t.out).filter_map(|t| t.source.buffer.front());
            let own = self.own.buffer.front().map(|o| &o.key);
            let Some(key) = heads.map(|e| &e.key).chain(own).min().cloned() else { break };
            let told = |t: &Teller| t.out || t.account.is_some() && t.source.has_told(&key);
            if !self.own.has_told(&key) || !self.tellers.iter().all(told) {
                break;
            }
            if !self.decide(local, now, &key, acts) {
                break;
            }
            self.at = Some(key);
        }
        self.ask(local, now, effects);
    }

    /// Who does not answer is left out, as long as he is not needed; who answers again is heard again.
    fn leave_out(&mut self, local: &Local) {
        let mut changed = false;
        for teller in &mut self.tellers {
            let present = teller.member;
            let answers = || {
                let unheard = |f: &Fetch| f.from == teller.machine && f.tries > 1;
                let told = teller.asked.as_ref().is_none_or(|a| a.gap < 4 * RESEND.0);
                !teller.out && told && !self.fetches.iter().any(unheard)
            };
            let alive = match present {
                // What is copied first is copied for speed: nobody is waited for.
                Some(member) => local.is_alive(member) && (self.purpose != Purpose::Copy || answers()),
                // No longer a member: nobody probes it. It is heard while it answers.
                None => answers(),
            };
            if !alive && !teller.out {
                met(if present.is_some() { Rare::S2LeftOut } else { Rare::S2FormerMemberLeftOut });
                teller.out = true;
                teller.source = Source::from(self.at.clone());
                self.without.push(teller.machine);
                changed = true;
            } else if alive && teller.out && present.is_some() {
                met(Rare::S2HeardAgain);
                teller.out = false;
                teller.asked = None;
                teller.source = Source::from(self.at.clone());
                self.without.retain(|m| *m != teller.machine);
            }
        }
        if changed {
            // Others tell in its place, from where the pass is.
            let at = self.at.clone();
            self.restart(at);
            let gone: Vec<Machine> = self.without.clone();
            self.fetches.retain(|f| !gone.contains(&f.from));
            let lost = |w: &Wanted| gone.contains(&w.from);
            if self.wanted.values().any(lost) {
                met(Rare::S2ValuesLostOnTheWay);
                // Values that only it was asked for: decided anew.
                self.restart(None);
            }
        }
    }

    /// S5: true if a machine that votes for no slot of this key yet may hold what is proposed under this ballot: all is
    /// told of the key, and its floor and its bound will not be above the ballot for what was told.
    pub(crate) fn may_hold(&self, local: &Local, key: &Key, ballot: Ballot) -> bool {
        let told = || self.tellers.iter().all(|t| t.out || t.account.is_some() && t.source.is_over());
        let decided = self.at.as_ref().is_some_and(|at| key <= at)
            || self.own.is_over() && told() && self.may_go_on(local);
        decided && ballot.time > self.promised.time.max(self.bound.time)
    }

    /// S4: no key is decided while those who are left out may be needed for it.
    fn may_go_on(&self, local: &Local) -> bool {
        match self.purpose {
            Purpose::Sync => self.is_covered_without(local, &self.without),
            Purpose::Ahead | Purpose::Copy => true,
            Purpose::Check => self.without.is_empty(),
        }
    }

    fn is_covered_without(&self, local: &Local, without: &[Machine]) -> bool {
        let synced = |machine, epoch| match self.teller(machine) {
            Some(at) => {
                self.tellers[at].account.as_ref().is_some_and(|account| account.synced.contains(&epoch))
            }
            None if self.rolled.binary_search(&machine).is_ok() => {
                self.asking.is_none() && self.noted <= epoch && epoch < self.epoch
            }
            None => machine == local.me && local.account.synced.contains(&epoch),
        };
        local.history().is_covered_without(local.me, without, synced)
    }

    /// One key, of which all has been told. False if it cannot be decided yet.
    fn decide(&mut self, local: &mut Local, now: Now, key: &Key, acts: &mut Vec<Act>) -> bool {
        let own = pop_if(&mut self.own.buffer, |o| o.key == *key);
        let mut told: Vec<(usize, Entry)> = Vec::new();
        for (i, teller) in self.tellers.iter_mut().enumerate().filter(|(_, t)| !t.out) {
            told.extend(pop_if(&mut teller.source.buffer, |e| e.key == *key).map(|e| (i, e)));
        }
        let unreadable = told.iter().any(|(_, e)| e.held == Held::Unreadable);
        match self.purpose {
            Purpose::Check => self.compare(local, now, key, own, &told, acts),
            // Nobody has it for this machine: whatever is held stays as it is.
            Purpose::Ahead | Purpose::Copy if told.is_empty() => {}
            _ if matches!(own, Some(Owned { record: None, .. })) => {
                // R3: mute for this key, until a round that did without it has written it anew.
            }
            _ if unreadable => {
                if self.handoff {
                    // The one who should tell cannot: all others must.
                    self.handoff = false;
                    let at = self.at.clone();
                    self.restart(at);
                    return false;
                }
                let mute = told.iter().filter(|(_, e)| e.held == Held::Unreadable);
                let mute: Vec<Machine> = mute.map(|(i, _)| self.tellers[*i].machine).collect();
                let without: Vec<Machine> =
                    self.without.iter().copied().chain(mute.iter().copied()).collect();
                if self.purpose == Purpose::Sync && !self.is_covered_without(local, &without) {
                    let at = self.at.clone();
                    self.restart(at);
                    self.not_before = now.mono.plus(TRY_AGAIN);
                    return false;
                }
                self.take(local, key, own, told, &mute, acts);
            }
            _ => self.take(local, key, own, told, &[], acts),
        }
        true
    }

    /// S5, S6, M1.
    fn take(
        &mut self,
        local: &mut Local,
        key: &Key,
        own: Option<Owned>,
        mut told: Vec<(usize, Entry)>,
        mute: &[Machine],
        acts: &mut Vec<Act>,
    ) {
        let (place, own) = match own {
            Some(Owned { place, record, .. }) => (place, record.map(|(stamp, votes, _)| (stamp, votes))),
            None => (Place::of(local, key), None),
        };
        let verdict = self.verdict(local, &place, own, &told, mute);
        let Some(Verdict { gained, best, granted, own_is_void }) = verdict else { return };
        let void = if own_is_void { own.map(|(stamp, _)| stamp) } else { None };
        let (purpose, epoch) = (self.purpose, self.epoch);
        let mut take = Take { purpose, epoch, stamp: best, state: None, gained, granted, void };
        match (best, own) {
            (None, None) => return,
            (None, Some(_)) if !own_is_void => return,
            (None, Some(_)) => met(Rare::S5OwnIsVoid),
            (Some(best), Some((stamp, votes))) if stamp == best => {
                self.keys += 1;
                if votes.minus(gained).union(granted) == votes {
                    return;
                }
            }
            (Some(best), _) => {
                self.keys += 1;
                let holds = |e: &Entry| matches!(&e.held, Held::Record { stamp, .. } if *stamp == best);
                let whole = |e: &Entry| matches!(&e.held, Held::Record { state: Some(_), .. }) && holds(e);
                if let Some(at) = told.iter().position(|(_, e)| whole(e)) {
                    if let Held::Record { state, .. } = told.swap_remove(at).1.held {
                        take.state = state;
                    }
                } else if let Some((i, _)) = told.iter().find(|(_, e)| holds(e)) {
                    met(Rare::M2ValueIsFetched);
                    let from = self.tellers[*i].machine;
                    self.wanted.insert(key.clone(), Wanted { take, from, asked: false });
                    return;
                } else {
                    return;
                }
            }
        }
        self.taking += 1;
        acts.push(Act::Take(key.clone(), take));
    }

    /// What all this makes of the key; `None` if it is no concern of this machine.
    fn verdict(
        &self,
        local: &Local,
        place: &Place,
        own: Option<(Stamp, SlotSet)>,
        told: &[(usize, Entry)],
        mute: &[Machine],
    ) -> Option<Verdict> {
        let history = local.history();
        let Place { owners, next } = place;
        let concern = self.concern(local);
        let mut others = Vec::with_capacity(self.tellers.len());
        for (i, teller) in self.tellers.iter().enumerate() {
            let track = &teller.track;
            let is_told = || history.is_told(&concern, (owners, next.as_ref()), (teller.machine, track));
            if teller.out || mute.contains(&teller.machine) || !is_told() {
                continue;
            }
            let record = told.iter().find(|(t, _)| *t == i).and_then(|(_, e)| match e.held {
                Held::Record { stamp, votes, .. } => Some((stamp, votes)),
                Held::Unreadable => None,
            });
            others.push(Telling { track, record });
        }
        let rolled = self.rolled_of(local, place, mute);
        others.extend(rolled.iter().map(|track| Telling { track, record: None }));
        let mine = Telling { track: &self.mine, record: own };
        match self.purpose {
            Purpose::Ahead | Purpose::Copy => {
                // M1: plain data, no votes. What it holds is compared by its stamp alone: it counts for nothing.
                let concerns = others.iter().any(|t| t.record.is_some());
                let best = others.iter().filter_map(|t| t.record).map(|(stamp, _)| stamp).max();
                let newer = best.is_some_and(|best| own.is_none_or(|(stamp, _)| best > stamp));
                (concerns && newer).then_some(Verdict {
                    gained: SlotSet::EMPTY,
                    best,
                    granted: SlotSet::EMPTY,
                    own_is_void: false,
                })
            }
            _ => {
                let verdict = judge(&history, owners, &mine, &others);
                (!verdict.gained.is_empty()).then_some(verdict)
            }
        }
    }

    fn concern<'a>(&'a self, local: &Local) -> Concern<'a> {
        Concern {
            purpose: self.purpose,
            handoff: self.handoff,
            without: &self.without,
            asker: local.me,
            track: &self.track,
        }
    }

    /// Are all copies of a key alike, and voted for by all its slots? Its first owner asks.
    fn compare(
        &mut self,
        local: &Local,
        now: Now,
        key: &Key,
        own: Option<Owned>,
        told: &[(usize, Entry)],
        acts: &mut Vec<Act>,
    ) {
        let present = local.present();
        let owners = own
            .as_ref()
            .and_then(|own| own.place.owners.last().copied())
            .unwrap_or_else(|| present.owners(key));
        if present.me.is_none() || owners.machines().next() != present.me {
            return;
        }
        self.keys += 1;
        let slots = |machine| present.index_of(machine).map_or(SlotSet::EMPTY, |i| owners.slots_of(i));
        let others = told.iter().filter_map(|(i, entry)| match &entry.held {
            Held::Record { stamp, votes, tombstone, .. } => {
                Some((self.tellers[*i].machine, *stamp, *votes, *tombstone))
            }
            Held::Unreadable => None,
        });
        let unreadable = own.as_ref().is_some_and(|o| o.record.is_none()) || !told.is_empty();
        let wall = Hlc::from_nanos(now.wall);
        let expired = own.as_ref().and_then(|o| o.expires).is_some_and(|at| at <= wall);
        let own =
            own.and_then(|o| o.record).map(|(stamp, votes, tombstone)| (local.me, stamp, votes, tombstone));
        let copies: Vec<(Machine, Stamp, SlotSet, bool)> = others.chain(own).collect();
        let all = SlotSet::all(owners.slots());
        let Some(best) = copies.iter().map(|c| c.1).max() else {
            // Only unreadable ones: the owners that can read say "none", and five of them are a quorum.
            if unreadable {
                self.unlike += 1;
                acts.push(Act::Settle(key.clone()));
            }
            return;
        };
        let rules = local.rules;
        let votes = copies.iter().filter(|c| c.1 == best).map(|(machine, _, votes, _)| {
            if rules.broken(Mutant::G2Hearsay) {
                slots(*machine)
            } else {
                votes.intersection(slots(*machine))
            }
        });
        let votes = votes.fold(SlotSet::EMPTY, SlotSet::union);
        let tombstone = copies.iter().any(|c| c.1 == best && c.3);
        let enough = votes == all || rules.broken(Mutant::G2Five) && votes.len() * 2 > all.len();
        let old = best.ballot.time.plus(local.tuning.collect_after) <= wall;
        met_if(tombstone && enough && !old, Rare::G2TooYoung);
        met_if(tombstone && !enough, Rare::G2NotAllVote);
        met_if(expired, Rare::G4NobodyAsks);
        if tombstone && enough && old && local.is_settled() {
            acts.push(Act::Collect(key.clone(), best));
        } else if votes != all || expired {
            // G4: nobody may ever ask for an expired value again; whoever settles it deletes it on the way.
            self.unlike += u64::from(votes != all);
            acts.push(Act::Settle(key.clone()));
        }
    }

    /// Asks for whatever is missing, and again for what has not come.
    fn ask(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        if let Some(asking) = &mut self.asking {
            if asking.go_on(local, now, self.purpose, effects) {
                return;
            }
            self.asking = None;
            self.ask_everybody(local);
        }
        let may_go_on = self.may_go_on(local);
        if self.own.buffer.len() < FEW
            && self.own_scan.is_none()
            && let Upto::Key(after) = self.own.upto.clone()
        {
            let scan = Scan(local.number().0);
            self.own_scan = Some(scan);
            effects.push(Effect::Scan { scan, after, keys: SCAN.0, bytes: SCAN.1 });
        }
        for i in 0..self.tellers.len() {
            let teller = &self.tellers[i];
            if teller.out && may_go_on {
                // Left out: tried now and then, where the pass cannot go on without it.
                self.tellers[i].asked = None;
                continue;
            }
            match &teller.asked {
                Some(asked) if asked.again > now.mono => continue,
                Some(_) => {}
                None if self.not_before > now.mono || !self.is_next(teller) => continue,
                None => {
                    let asked = self.question(local, now, teller);
                    self.tellers[i].asked = Some(asked);
                }
            }
            let teller = &mut self.tellers[i];
            let Some(asked) = &mut teller.asked else { continue };
            if asked.again <= now.mono {
                asked.gap = (asked.gap * 2).min(RESEND.1);
            }
            asked.again = now.mono.plus(asked.gap);
            let message = Message::Tell { ask: asked.ask, request: asked.request.clone() };
            local.send(Addr::Machine(teller.machine), message, None, effects);
        }
        self.fetch(local, now, effects);
    }

    /// True if it should be asked for its next page: there is little left of the last one, and the machine has seen what
    /// it holds itself where that begins.
    fn is_next(&self, teller: &Teller) -> bool {
        let few = teller.source.buffer.len() < FEW;
        match (&teller.source.upto, &self.own.upto) {
            (Upto::End, _) => false,
            (Upto::Key(_), Upto::End) => few,
            (Upto::Key(told), Upto::Key(seen)) => few && told < seen,
        }
    }

    /// What to ask it next: everything after what it has told, up to where the machine has seen its own keys.
    fn question(&self, local: &mut Local, now: Now, teller: &Teller) -> Asked {
        let (ask, salt) = (local.number(), local.random());
        let Upto::Key(after) = teller.source.upto.clone() else { unreachable!("it has told to the end") };
        let upto = match &self.own.upto {
            Upto::Key(seen) => seen.clone(),
            Upto::End => None,
        };
        let (history, concern) = (local.history(), self.concern(local));
        let from = self.own.buffer.partition_point(|own| Some(&own.key) <= after.as_ref());
        let believed = self.own.buffer.range(from..).filter_map(|Owned { key, place, record, .. }| {
            let (stamp, _, tombstone) = (*record)?;
            let Place { owners, next } = place;
            let told = history.is_told(&concern, (owners, next.as_ref()), (teller.machine, &teller.track));
            let votes = history.digested(self.purpose, owners, &teller.track);
            let held = Held::Record { stamp, votes, tombstone, state: None };
            told.then(|| Entry { key: key.clone(), held })
        });
        let beliefs = Beliefs::new(salt, teller.width, believed, upto);
        let request = TellRequest {
            purpose: self.purpose,
            after,
            // Elsewhere many tell of a key: its state is fetched from one.
            claims: beliefs.claims(matches!(self.purpose, Purpose::Ahead | Purpose::Copy), local.rules),
            salt,
            since: self.since,
            handoff: self.handoff,
            without: self.without.clone(),
        };
        let gap = if teller.out { TRY_AGAIN } else { RESEND.0 };
        Asked { ask, request: Box::new(request), beliefs, again: now.mono.plus(gap), gap }
    }

    fn fetch(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        for fetch in &mut self.fetches {
            if fetch.again <= now.mono {
                fetch.again = now.mono.plus((RESEND.0 << fetch.tries.min(4)).min(RESEND.1));
                fetch.tries += 1;
                let message = Message::Fetch { ask: fetch.ask, keys: fetch.keys.clone() };
                local.send(Addr::Machine(fetch.from), message, None, effects);
            }
        }
        let mut by: BTreeMap<Machine, Vec<Key>> = BTreeMap::new();
        for (key, wanted) in self.wanted.iter_mut().filter(|(_, w)| !w.asked) {
            let keys = by.entry(wanted.from).or_default();
            if keys.len() < WANTED.1 {
                keys.push(key.clone());
                wanted.asked = true;
            }
        }
        for (from, keys) in by {
            let ask = local.number();
            let message = Message::Fetch { ask, keys: keys.clone() };
            local.send(Addr::Machine(from), message, None, effects);
            self.fetches.push(Fetch { ask, from, keys, again: now.mono.plus(RESEND.0), tries: 1 });
        }
    }

    /// When it has something to do, if nothing comes in before.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        self.wake
    }

    fn next_wake(&self) -> Option<Mono> {
        let asked = self.tellers.iter().filter_map(|t| t.asked.as_ref()).map(|a| a.again);
        let fetches = self.fetches.iter().map(|f| f.again);
        let idle = self.tellers.iter().any(|t| !t.out && t.asked.is_none() && self.is_next(t));
        let pause = idle.then_some(self.not_before);
        let roll = self.asking.as_ref().map(Asking::wake_at);
        asked.chain(fetches).chain(pause).chain(roll).min()
    }
}

fn pop_if<T>(queue: &mut VecDeque<T>, f: impl FnOnce(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(f) { queue.pop_front() } else { None }
}
