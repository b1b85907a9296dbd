//! What this machine takes in: the records of slots it has come to own (S1 to S7), those it will own (M1), and the
//! comparison of copies that mends what is left. Each is a pass over the keys (`merge`); here is when it begins and
//! what its end means.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::effect::{Effect, Loaded, Mono, Now, Scan};
use crate::history::Present;
use crate::key::Key;
use crate::local::Local;
use crate::mending::Mending;
use crate::merge::{Act, Merge, Move};
use crate::message::{Ask, Outcome, Page, Purpose};
use crate::quorum::SlotSet;
use crate::rare::{Rare, met};
use crate::roll::Roll;
use crate::stamp::{Ballot, Record, Stamp};
use crate::view::{Machine, MemberState, View};
use crate::warden::Standing;
use crate::zone::Zone;

const SEC: u64 = 1_000_000_000;
/// Keys of one scan of the sweep, and its bytes; and the pause between two.
const SWEEP: (usize, usize) = (512, 1 << 20);
const SWEEP_PAUSE: u64 = SEC / 50;
/// How soon after a view is settled copies are compared: what was taken as hearsay is no vote before (S6).
const CHECK_SOON: u64 = SEC;
/// The same for each pair of machines: everybody asks everybody, and among a thousand no change of the ring is followed by
/// that at once (after eight minutes; what has five votes meanwhile has them).
const CHECK_FOR_EACH_PAIR: u64 = SEC / 2_000;
/// How soon copies are compared once more, where more was left unlike than is remembered; doubles each time, up to the
/// second.
const CHECK_AGAIN: (u64, u64) = (10 * SEC, 600 * SEC);

/// How far the comparison of copies is, for people.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CheckProgress {
    /// Passes brought to an end.
    pub rounds: u64,
    /// One is under way.
    pub running: bool,
    /// Keys compared in the present pass, or in the last one.
    pub looked: u64,
    /// Of those, keys whose copies were not alike, or not all voted for.
    pub unlike: u64,
    /// Settling rounds that brought a key to all its slots, ever.
    pub mended: u64,
    /// Tombstones that were collected, ever.
    pub collected: u64,
}

/// See the module's caption.
#[derive(Debug)]
pub(crate) struct Sync {
    /// The passes under way: for what this machine owns, for what it will own, for comparison.
    passes: Vec<Merge>,
    /// This machine has copied ahead for the present view, or has nothing to.
    warm: bool,
    /// The next ring that it has copied ahead for.
    copied: Option<Vec<(Machine, (u32, Zone))>>,
    mending: Mending,
    check_at: Mono,
    /// When they are compared once more, since too much was left unlike; and how long until then if that happens next.
    again_at: Option<Mono>,
    again_after: u64,
    asked_to_check: bool,
    progress: CheckProgress,
    sweep: Option<Sweep>,
    /// Since the last one that came to its end, records may have come to be for nothing.
    to_sweep: bool,
    /// By passes that are over.
    taken_bytes: u64,
}

/// T2: records for none of whose slots this machine voted since the last settled view go.
#[derive(Debug)]
struct Sweep {
    after: Option<Key>,
    scan: Option<Scan>,
    not_before: Mono,
}

/// What the passes want of the node.
#[derive(Debug)]
pub(crate) enum Want {
    /// From a pass.
    Pass(Act),
    /// T2: forget this record, if it is still this one.
    Forget(Key, Stamp),
    /// S7: what the machine owns is here.
    Synced,
}

impl Sync {
    pub(crate) fn new(local: &Local, now: Now) -> Self {
        let mut sync = Self {
            passes: Vec::new(),
            warm: false,
            copied: None,
            mending: Mending::default(),
            check_at: now.mono.plus(local.tuning.check_every),
            again_at: None,
            again_after: CHECK_AGAIN.0,
            asked_to_check: false,
            progress: CheckProgress::default(),
            sweep: None,
            to_sweep: true,
            taken_bytes: 0,
        };
        if local.newest().is_some() {
            sync.begin_anew(local, now);
        }
        sync
    }

    /// A view has been adopted, or the machine has started: what is to be taken in now?
    pub(crate) fn begin_anew(&mut self, local: &Local, now: Now) {
        self.taken_bytes = self.taken_bytes();
        for pass in &self.passes {
            met(match pass.purpose {
                Purpose::Sync => Rare::V3SyncBeginsAnew,
                Purpose::Copy => Rare::V3CopyBeginsAnew,
                Purpose::Ahead => Rare::V3CopyAheadBeginsAnew,
                Purpose::Check => Rare::V3CheckEnds,
            });
        }
        self.passes.clear();
        // Once it is settled, another comparison begins.
        self.mending = Mending::default();
        self.again_at = None;
        self.progress.running = false;
        self.warm = false;
        let present = local.present();
        let same =
            |before: &Present| before.view.next_ring().is_none() && before.view.same_ring(&present.view);
        let views = local.history().views;
        if !views.len().checked_sub(2).is_some_and(|before| same(&views[before])) {
            (self.to_sweep, self.sweep) = (true, None);
        }
        let Some(me) = present.me else { return };
        if present.view.members()[me as usize].in_ring() && !local.is_synced() {
            let pass = match &self.copied {
                // M2: only stamps and votes are missing.
                Some(ring) if *ring == ring_of(&present.view) => {
                    met(Rare::M2CopiedAhead);
                    sync(local, now)
                }
                other => {
                    met(if other.is_some() { Rare::M2AnotherRing } else { Rare::M2NothingCopied });
                    copy(local, now)
                }
            };
            self.passes.push(pass);
        }
        self.copied = None;
        match present.view.next_ring() {
            // It holds already what it will own.
            Some(_) if owns_all(local) => {
                met(Rare::M1OwnsAll);
                self.warm = true;
                self.copied = Some(next_ring_of(&present.view));
            }
            Some(_) => {
                let ring = present.ring_members().filter(|m| *m != local.me).collect();
                self.passes.push(Merge::begin(local, now, Purpose::Ahead, ring));
            }
            None => self.warm = true,
        }
        if local.is_settled() {
            self.begin_sweep(local, now);
        }
    }

    /// T2: a view is settled; what was kept for earlier ones may go.
    pub(crate) fn on_settled(&mut self, local: &Local, now: Now) {
        for pass in &mut self.passes {
            pass.on_settled(local);
        }
        if local.tuning.check_every > 0 && local.is_settled() {
            let members = local.present().view.members().len() as u64;
            let soon = CHECK_SOON.max(members * members * CHECK_FOR_EACH_PAIR);
            self.check_at = self.check_at.min(now.mono.plus(soon));
        }
        self.begin_sweep(local, now);
    }

    fn begin_sweep(&mut self, local: &Local, now: Now) {
        // Who wants to come back keeps what it has: it need not be copied again.
        if self.to_sweep && (local.present().me.is_some() || local.account.left) {
            self.sweep = Some(Sweep { after: None, scan: None, not_before: now.mono });
        }
    }

    pub(crate) fn standing(&self, local: &Local) -> Standing {
        let syncing = self.passes.iter().any(|p| p.purpose == Purpose::Sync);
        Standing { synced: !syncing && local.is_synced(), warm: self.warm }
    }

    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes + self.passes.iter().map(|pass| pass.progress().bytes).sum::<u64>()
    }

    pub(crate) fn moves(&self) -> Vec<Move> {
        self.passes.iter().map(Merge::progress).collect()
    }

    pub(crate) fn progress(&self) -> CheckProgress {
        self.progress
    }

    /// Somebody wants all copies compared now.
    pub(crate) fn check_now(&mut self) {
        self.asked_to_check = true;
    }

    // -- what comes in -------------------------------------------------------------------------------

    pub(crate) fn on_page(
        &mut self,
        local: &mut Local,
        now: Now,
        from: Machine,
        ask: Ask,
        page: Page,
        wants: &mut Vec<Want>,
    ) {
        let mut acts = Vec::new();
        let epoch = local.epoch();
        let mut page = Some(page);
        for pass in self.passes.iter_mut().filter(|p| p.epoch == epoch) {
            if pass.asked_of(from, ask)
                && let Some(page) = page.take()
            {
                pass.on_page(local, now, from, ask, page, &mut acts);
            }
        }
        wants.extend(acts.into_iter().map(Want::Pass));
    }

    pub(crate) fn on_fetched(
        &mut self,
        local: &Local,
        from: Machine,
        ask: Ask,
        records: Vec<(Key, Option<Record>)>,
        wants: &mut Vec<Want>,
    ) {
        let mut acts = Vec::new();
        if let Some(pass) = self.passes.iter_mut().find(|p| p.has_fetched(from, ask)) {
            pass.on_fetched(local, from, ask, records, &mut acts);
        }
        wants.extend(acts.into_iter().map(Want::Pass));
    }

    pub(crate) fn on_roll(
        &mut self,
        local: &mut Local,
        from: Machine,
        ask: Ask,
        roll: &Roll,
        wants: &mut Vec<Want>,
    ) {
        let epoch = local.epoch();
        for pass in self.passes.iter_mut().filter(|p| p.epoch == epoch) {
            if let Some(settled) = pass.on_roll(local, from, ask, roll) {
                wants.push(Want::Pass(Act::Settled(settled)));
            }
        }
    }

    pub(crate) fn on_scanned(
        &mut self,
        local: &mut Local,
        now: Now,
        scan: Scan,
        found: &mut Vec<(Key, Loaded)>,
        end: bool,
        wants: &mut Vec<Want>,
    ) {
        if self.passes.iter_mut().any(|pass| pass.on_scanned(local, scan, found, end)) {
            return;
        }
        let Some(sweep) = self.sweep.as_mut().filter(|s| s.scan == Some(scan)) else { return };
        sweep.scan = None;
        sweep.not_before = now.mono.plus(SWEEP_PAUSE);
        if sweep.after.is_none() {
            local.tombstones.begin();
        }
        local.tombstones.found(found, end);
        let owns_all = owns_all(local);
        for (key, loaded) in core::mem::take(found) {
            if let Loaded::Record(record) = &loaded
                && !owns_all
                && is_for_nothing(local, &key)
            {
                wants.push(Want::Forget(key.clone(), record.stamp));
            }
            sweep.after = Some(key);
        }
        if end {
            (self.sweep, self.to_sweep) = (None, false);
        }
    }

    /// See [`Merge::may_hold`]; what nobody asks it to sync is none of its business.
    pub(crate) fn may_hold(&self, local: &Local, key: &Key, ballot: Ballot) -> bool {
        let pass = self.passes.iter().find(|p| p.purpose == Purpose::Sync && p.epoch == local.epoch());
        pass.is_some_and(|pass| pass.may_hold(local, key, ballot))
    }

    /// A record has reached its cell. Which pass it was from does not matter: both counts end at none.
    pub(crate) fn taken(&mut self, purpose: Purpose) {
        if let Some(pass) = self.passes.iter_mut().find(|p| p.purpose == purpose) {
            pass.taken();
        }
    }

    /// What came of a settling round.
    pub(crate) fn on_outcome(&mut self, local: &Local, now: Now, ask: Ask, outcome: &Outcome) {
        self.progress.mended += u64::from(self.mending.on_outcome(local, now, ask, outcome));
        if self.mending.take_forgotten() && self.again_at.is_none() {
            self.again_at = Some(now.mono.plus(self.again_after));
            self.again_after = CHECK_AGAIN.1.min(self.again_after * 2);
        }
    }

    // -- going on ------------------------------------------------------------------------------------

    pub(crate) fn advance(
        &mut self,
        local: &mut Local,
        now: Now,
        effects: &mut Vec<Effect>,
        wants: &mut Vec<Want>,
    ) {
        if local.newest().is_none() {
            return;
        }
        self.begin_check(local, now);
        let mut acts = Vec::new();
        for pass in &mut self.passes {
            // The comparison waits while there is enough to mend; and whatever brings values, while there is no room for them.
            let mends = pass.purpose == Purpose::Check && self.mending.is_busy();
            if mends || local.is_full && pass.purpose != Purpose::Sync {
                continue;
            }
            pass.advance(local, now, effects, &mut acts);
        }
        for act in acts {
            match act {
                Act::Settle(key) => self.mending.found(key),
                act => {
                    self.progress.collected += u64::from(matches!(act, Act::Collect(..)));
                    wants.push(Want::Pass(act));
                }
            }
        }
        self.mending.go_on(local, now, effects);
        self.sweep_on(local, now, effects);
        let Some(at) = self.passes.iter().position(|pass| pass.is_done()) else { return };
        let pass = self.passes.swap_remove(at);
        self.taken_bytes += pass.progress().bytes;
        match pass.purpose {
            Purpose::Sync => {
                local.become_synced(pass.promised, pass.bound, effects);
                wants.push(Want::Synced);
            }
            Purpose::Copy => {
                let mut next = sync(local, now);
                next.advance(local, now, effects, &mut Vec::new());
                self.passes.push(next);
            }
            Purpose::Ahead => {
                met(Rare::M1CopiedAhead);
                self.warm = true;
                self.copied = Some(next_ring_of(&local.present().view));
            }
            Purpose::Check => {
                let progress = pass.progress();
                (self.progress.looked, self.progress.unlike) = (progress.keys, pass.unlike);
                self.progress.rounds += 1;
                self.progress.running = false;
                self.check_at = now.mono.plus(local.tuning.check_every);
            }
        }
    }

    /// Copies are compared while nothing moves and everybody is there: else it would mend what mends itself.
    fn begin_check(&mut self, local: &Local, now: Now) {
        let every = local.tuning.check_every;
        let again = self.again_at.is_some_and(|at| at <= now.mono);
        let due = self.asked_to_check || again || every > 0 && self.check_at <= now.mono;
        if due && self.may_check(local) {
            self.asked_to_check = false;
            self.progress.running = true;
            if self.again_at.take().is_none() {
                self.again_after = CHECK_AGAIN.0;
            }
            let ring = local.present().ring_members().filter(|m| *m != local.me).collect();
            self.passes.push(Merge::begin(local, now, Purpose::Check, ring));
        }
    }

    fn may_check(&self, local: &Local) -> bool {
        let quiet = local.is_settled() && local.is_synced() && local.doubted.is_empty();
        let present = local.present();
        let in_ring = || present.me.is_some_and(|me| present.view.members()[me as usize].in_ring());
        quiet && self.passes.is_empty() && in_ring()
    }

    fn sweep_on(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        let Some(sweep) = &mut self.sweep else { return };
        if sweep.scan.is_none() && sweep.not_before <= now.mono {
            let scan = Scan(local.number().0);
            sweep.scan = Some(scan);
            effects.push(Effect::Scan { scan, after: sweep.after.clone(), keys: SWEEP.0, bytes: SWEEP.1 });
        }
    }

    pub(crate) fn wake_at(&self, local: &Local) -> Option<Mono> {
        local.newest()?;
        // See `advance`: settling rounds that end wake a comparison that waits.
        let waits = |pass: &Merge| {
            let mends = pass.purpose == Purpose::Check && self.mending.is_busy();
            mends || local.is_full && pass.purpose != Purpose::Sync
        };
        let passes = self.passes.iter().filter(|pass| !waits(pass)).filter_map(Merge::wake_at);
        let sweep = self.sweep.iter().filter(|s| s.scan.is_none()).map(|s| s.not_before);
        let check = (local.tuning.check_every > 0).then_some(self.check_at);
        let check = check.into_iter().chain(self.again_at).filter(|_| self.may_check(local));
        passes.chain(sweep).chain(check).chain(self.mending.wake_at(local)).min()
    }
}

/// What an owner should hold and does not is copied as plain data, from one machine a key; what the others tell then costs
/// digests. Told at once by all, it would cost a stamp from each.
/// From the owners in the last settled view that are still there.
fn copy(local: &Local, now: Now) -> Merge {
    let owners = local.history().views.first().into_iter().flat_map(|p| p.ring_members());
    let there = owners.filter(|m| *m != local.me && local.present().index_of(*m).is_some());
    Merge::begin(local, now, Purpose::Copy, there.collect())
}

fn sync(local: &Local, now: Now) -> Merge {
    Merge::begin(local, now, Purpose::Sync, everyone(local))
}

/// True if this machine owns a slot of every key: it is in a ring of no more machines than slots (section 2).
fn owns_all(local: &Local) -> bool {
    let present = local.present();
    present.ring_members().any(|m| m == local.me)
        && present.ring_members().count() <= usize::from(present.view.slots())
}

fn ring_of(view: &View) -> Vec<(Machine, (u32, Zone))> {
    view.members().iter().filter(|m| m.in_ring()).map(|m| (m.machine, m.place())).collect()
}

/// M1: the ring of the view in which all that is announced is done.
fn next_ring_of(view: &View) -> Vec<(Machine, (u32, Zone))> {
    let stays = view.members().iter().filter(|m| m.state != MemberState::Leaving);
    stays.map(|m| (m.machine, m.next_place())).collect()
}

/// S2: whoever owned slots in views before the present one. A machine that owns some for the first time has nothing to
/// tell (S4), and nobody waits for its disk.
fn everyone(local: &Local) -> Vec<Machine> {
    let views = local.history().views;
    let earlier = &views[..(views.len() - 1).max(1)];
    let all: BTreeSet<Machine> = earlier.iter().flat_map(|p| p.ring_members()).collect();
    all.into_iter().filter(|m| *m != local.me).collect()
}

/// T2: no slot of the key is this machine's, now or in the next ring, nor did it vote for one since the last settled
/// view.
fn is_for_nothing(local: &Local, key: &Key) -> bool {
    let history = local.history();
    let present = local.present();
    let chain = present.chain(key);
    let owners = history.owners(&chain);
    let track = history.track(local.me, &local.account);
    let mine =
        |owners: &crate::placement::Owners| present.me.map_or(SlotSet::EMPTY, |me| owners.slots_of(me));
    let now = owners.last().map_or(SlotSet::EMPTY, mine);
    let next = present.view.next_ring().map_or(SlotSet::EMPTY, |ring| mine(&ring.owners(&chain)));
    !history.ever_voted(&track, &owners) && now.is_empty() && next.is_empty()
}
