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

use crate::digest::{Answered, Beliefs, Cut, Part, ToldTo, Unfolded};
use crate::effect::{Account, Effect, Loaded, Mono, Now, Scan};
use crate::history::Track;
use crate::key::Key;
use crate::local::Local;
use crate::message::{Ask, Bound, Entry, Page, Purpose, TellRequest};
use crate::mutant::Mutant;
use crate::pace;
use crate::placement::Owners;
use crate::quorum::SlotSet;
use crate::rare::{Rare, met, met_if};
use crate::roll::{self, Asking};
use crate::stamp::{Ballot, Hlc, Record, Stamp, State};
use crate::view::{Epoch, Machine, Name};

mod asking;
mod deciding;
mod rolled;

const MS: u64 = 1_000_000;
/// How long until an unanswered question is put again; doubles each time, up to the second.
const RESEND: (u64, u64) = (200 * MS, 2_000 * MS);
/// How often a teller that is left out is tried, where it is needed.
const TRY_AGAIN: u64 = 500 * MS;
/// The next page is asked for when so few entries of the last one are left.
const FEW: usize = 128;
/// Keys of one scan of the machine's own, and its bytes.
const SCAN: (usize, usize) = (1024, 1 << 20);
/// So many scans together, or keys that matter, and then tellers are asked: each question costs a hundred bytes, whatever
/// it asks for. A sync leaves out most keys; what waits for anything else grows old.
const SCANS: (u32, u32) = (64, 8);
const OWN: usize = 8192;
/// Records on their way into their cells at once.
const TAKING: usize = 256;
/// More keys than any machine has.
const MOST_KEYS: u64 = 1 << 40;
/// Values asked for at once, and in one question.
const WANTED: (usize, usize) = (256, 32);

/// What becomes of a record at the machine that was told of it: see [`Verdict`](crate::history::Verdict).
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
    /// Scans yet to be made before anybody is asked.
    scans: u32,
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
    /// Told from a later key on.
    later: VecDeque<Later<T>>,
}

#[derive(Debug)]
struct Later<T> {
    after: Key,
    entries: Vec<T>,
    upto: Upto,
}

#[derive(Clone, PartialEq, Debug)]
enum Upto {
    Key(Option<Key>),
    End,
}

impl<T> Source<T> {
    fn from(at: Option<Key>) -> Self {
        Self { buffer: VecDeque::new(), upto: Upto::Key(at), later: VecDeque::new() }
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

    /// Told on from where it was told to.
    fn extend(&mut self, entries: Vec<T>, upto: Upto) {
        self.buffer.extend(entries);
        self.upto = upto;
        while let Some(next) = self.later.pop_front() {
            match &self.upto {
                Upto::Key(Some(told)) if *told == next.after => {
                    self.buffer.extend(next.entries);
                    self.upto = next.upto;
                }
                Upto::Key(told) if told.as_ref() < Some(&next.after) => {
                    self.later.push_front(next);
                    break;
                }
                // More was told than was asked for.
                _ => {}
            }
        }
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
    /// How its questions are cut: the more of its claims were wrong, the finer.
    cut: Cut,
    asked: Option<Asked>,
    /// It tells nothing at present.
    out: bool,
    looked: u64,
    total: u64,
}

impl Teller {
    fn new(local: &Local, purpose: Purpose, machine: Machine) -> Self {
        Self {
            machine,
            member: local.present().index_of(machine),
            source: Source::from(None),
            account: None,
            track: local.places_of(machine),
            cut: Cut::new(matches!(purpose, Purpose::Ahead | Purpose::Copy)),
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
            scans: 0,
            tellers: tellers.into_iter().map(|machine| Teller::new(local, purpose, machine)).collect(),
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
        let answered = Answered { agreed: page.agreed, differs: page.differs, beyond: page.beyond };
        let told = asked.beliefs.unfold(answered, page.entries, page.upto.as_ref());
        let Some(Unfolded { parts, right, cut }) = told else { return false };
        met(if right { Rare::S3ClaimsRight } else { Rare::S3ClaimWrong });
        // In order, and beyond what was told before.
        let last = match (&teller.source.upto, teller.source.buffer.back()) {
            (_, Some(entry)) => Some(entry.key.clone()),
            (Upto::Key(key), None) => key.clone(),
            (Upto::End, None) => None,
        };
        let said = page.upto.map_or(Upto::End, |upto| Upto::Key(Some(upto)));
        let mut told = Vec::with_capacity(parts.len());
        for Part { after, entries, upto } in parts {
            let upto = match upto {
                ToldTo::AsSaid => said.clone(),
                ToldTo::Range(None) => Upto::Key(asked.request.after.clone()),
                ToldTo::Range(upto) => Upto::Key(upto),
            };
            let before = after.as_ref().or(last.as_ref());
            let keys = || entries.iter().map(|e| Some(&e.key));
            let ordered = core::iter::once(before).chain(keys()).is_sorted_by(|a, b| a < b);
            let within = match &upto {
                Upto::End => true,
                Upto::Key(upto) => keys().next_back().is_none_or(|last| last <= upto.as_ref()),
            };
            if !ordered || !within {
                return false;
            }
            told.push((after, entries, upto));
        }
        teller.cut = cut;
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
            for (after, entries, upto) in told.into_iter().rev() {
                match after {
                    Some(after) => teller.source.later.push_front(Later { after, entries, upto }),
                    None => teller.source.extend(entries, upto),
                }
            }
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
        self.scans = self.scans.saturating_sub(1);
        if end {
            (self.own.upto, self.scans) = (Upto::End, 0);
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
                let place = Place::of(local, &key);
                self.matters(local, &place).then_some(Owned { place, key, record, expires })
            })
            .collect();
        if self.purpose == Purpose::Check && !self.rolled.is_empty() {
            self.ask_owners(local, &owned);
        }
        self.own.buffer.extend(owned);
        if self.own.buffer.len() >= OWN {
            self.scans = 0;
        }
        true
    }

    /// False if nothing is decided about such a key, whatever is held and told.
    fn matters(&self, local: &Local, place: &Place) -> bool {
        let (history, Some(me)) = (local.history(), local.present().me) else { return true };
        let Some(now) = place.owners.last() else { return true };
        match self.purpose {
            Purpose::Sync => [&self.track, &self.mine]
                .iter()
                .any(|track| !now.slots_of(me).minus(history.votes(track, &place.owners)).is_empty()),
            Purpose::Check => now.machines().next() == Some(me),
            Purpose::Ahead => place.next.is_some_and(|next| next.is_owner(me)) && !now.is_owner(me),
            Purpose::Copy => {
                let votes = history.votes(&self.track, &place.owners);
                now.is_owner(me) && votes.intersection(now.slots_of(me)).is_empty()
            }
        }
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
        // What mattered may not be what matters.
        self.look_again();
    }

    fn look_again(&mut self) {
        (self.own, self.own_scan, self.scans) = (Source::from(self.at.clone()), None, 0);
    }

    /// One record has reached its cell.
    pub(crate) fn taken(&mut self) {
        self.stirred = true;
        self.taking = self.taking.saturating_sub(1);
    }

    /// Everybody tells again, from a key on; true.
    fn restart(&mut self, at: Option<Key>) -> bool {
        self.at = at;
        self.look_again();
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
