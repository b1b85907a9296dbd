//! The views there ever were, as somebody sees them who sees every disk: which are settled, who is lost for good, and
//! whether another loss can be borne.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use ennead_ring::{
    Chain, Epoch, Incarnation, Key, Machine, MemberState, Name, Owners, SlotSet, View, quorum_of,
};

/// The keys that clients use, and where their slots are: no view changes that.
pub(crate) struct Keys {
    all: Vec<Key>,
    chains: Vec<Chain>,
    places: HashMap<Key, u32, foldhash::fast::FixedState>,
}

impl Keys {
    pub(crate) fn new(count: usize, slots: u8) -> Self {
        let all: Vec<Key> = (0..count).map(|i| Key::new(format!("key-{i}")).expect("a key")).collect();
        let chains = all.iter().map(|key| Chain::of(key.as_bytes(), slots)).collect();
        let places = all.iter().cloned().zip(0..).collect();
        Self { all, chains, places }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, key: usize) -> &Key {
        &self.all[key]
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Key> + '_ {
        self.all.iter()
    }

    /// The number of a key, if clients use it.
    pub(crate) fn place(&self, key: &Key) -> Option<usize> {
        self.places.get(key).map(|&k| k as usize)
    }
}

/// A view that was decided, and what follows from it.
pub(crate) struct Seen {
    pub(crate) view: Arc<View>,
    /// Of each key.
    owners: Vec<Owners>,
    /// By member, one after the other: the keys of which it owns a slot. `starts[m]` is where those of `m` begin.
    keys: Vec<u32>,
    starts: Vec<u32>,
}

impl Seen {
    fn new(view: Arc<View>, keys: &Keys) -> Self {
        let ring = view.ring();
        let owners: Vec<Owners> = keys.chains.iter().map(|chain| ring.owners(chain)).collect();
        // Count, then place.
        let mut starts = vec![0u32; view.members().len() + 1];
        for m in owners.iter().flat_map(Owners::machines) {
            starts[m as usize + 1] += 1;
        }
        for m in 1..starts.len() {
            starts[m] += starts[m - 1];
        }
        let (mut next, mut all) = (starts.clone(), vec![0; starts[starts.len() - 1] as usize]);
        for (k, owners) in (0..).zip(&owners) {
            for m in owners.machines() {
                all[next[m as usize] as usize] = k;
                next[m as usize] += 1;
            }
        }
        Self { owners, keys: all, starts, view }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    /// Who owns the slots of a key, by lowest slot: one entry a slot, so that a machine with two is there twice.
    pub(crate) fn owners(&self, key: usize) -> impl ExactSizeIterator<Item = Machine> + '_ {
        let owners = &self.owners[key];
        (0..usize::from(owners.slots()))
            .map(|slot| self.view.members()[owners.owner(slot as u8 + 1) as usize].machine)
    }

    /// The same, each once.
    pub(crate) fn owners_once(&self, key: usize) -> impl Iterator<Item = Machine> + '_ {
        self.owners[key].machines().map(|m| self.view.members()[m as usize].machine)
    }

    fn place(&self, machine: Machine) -> Option<usize> {
        self.view.index_of(machine.name).filter(|&i| self.view.members()[i].machine == machine)
    }

    /// The slots of a key that a machine owns.
    pub(crate) fn owned(&self, machine: Machine, key: usize) -> SlotSet {
        self.place(machine).map_or(SlotSet::EMPTY, |i| self.owners[key].slots_of(i as u32))
    }

    /// The slots of a key that the member of this name owns.
    pub(crate) fn owned_by(&self, name: Name, key: usize) -> SlotSet {
        self.view.index_of(name).map_or(SlotSet::EMPTY, |i| self.owners[key].slots_of(i as u32))
    }

    /// The keys of which a machine owns slots.
    pub(crate) fn keys_of(&self, machine: Machine) -> impl Iterator<Item = usize> + '_ {
        let all = self.place(machine).map_or(0..0, |i| self.starts[i] as usize..self.starts[i + 1] as usize);
        self.keys[all].iter().map(|&k| k as usize)
    }

    /// Copies that a change from another view to this one makes necessary, of each key: machines that own a slot now and
    /// owned none before.
    pub(crate) fn new_owners<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (usize, Machine)> + 'a {
        (0..self.owners.len()).flat_map(move |k| {
            let new = self.owners_once(k).filter(move |m| before.owners_once(k).all(|former| former != *m));
            new.map(move |m| (k, m))
        })
    }

    /// The owners of `\0view`, by lowest slot.
    pub(crate) fn wardens(&self) -> impl Iterator<Item = Machine> + '_ {
        let chain = Chain::of(b"\0view", self.view.slots());
        let owners = self.view.ring().owners(&chain);
        let all: Vec<u32> = owners.machines().collect();
        all.into_iter().map(|m| self.view.members()[m as usize].machine)
    }

    pub(crate) fn in_ring(&self, machine: Machine) -> bool {
        self.place(machine).is_some_and(|i| self.view.members()[i].in_ring())
    }

    pub(crate) fn ring(&self) -> impl Iterator<Item = Machine> + '_ {
        ring_of(&self.view)
    }

    /// True if all is as the last move of a reshaping leaves it: nobody on the way in or out.
    pub(crate) fn at_rest(&self) -> bool {
        self.view.members().iter().all(|m| m.state == MemberState::Up && m.place() == m.next_place())
    }
}

pub(crate) fn ring_of(view: &View) -> impl Iterator<Item = Machine> + '_ {
    view.members().iter().filter(|m| m.in_ring()).map(|m| m.machine)
}

/// How many of so many machines may be lost at once (PROTOCOL section 2, the table): the slots of a key are shared
/// out evenly, and those with the larger shares may be the ones that are lost.
pub(crate) fn bears(machines: usize, slots: u8) -> usize {
    let (slots, quorum) = (usize::from(slots), usize::from(quorum_of(slots)));
    let (even, more) = (slots / machines, slots % machines);
    let taken = |lost: usize| lost * even + lost.min(more);
    (0..=machines).take_while(|&lost| slots - taken(lost) >= quorum).last().unwrap_or(0)
}

/// Views of which all is kept: a day has thousands.
const KEPT: usize = 64;

/// See the module's caption.
#[derive(Default)]
pub(crate) struct Views {
    /// The last [`KEPT`], and all since the last settled one.
    seen: BTreeMap<Epoch, Rc<Seen>>,
    /// What every earlier one was, in short.
    past: BTreeMap<Epoch, u64>,
    pub(crate) newest: Option<Rc<Seen>>,
    /// The newest view that somebody notes as settled.
    pub(crate) settled: Epoch,
    /// Who is durably synced for all it owns, in which views.
    synced: BTreeSet<(Incarnation, Epoch)>,
    /// Views that some warden has accepted, and that are not known to be decided.
    proposed: Vec<Arc<View>>,
    /// Machines that lost what they had on disk, or will never run again.
    lost: BTreeSet<Machine>,
}

impl Views {
    pub(crate) fn get(&self, epoch: Epoch) -> Option<&Rc<Seen>> {
        match &self.newest {
            Some(newest) if newest.epoch() == epoch => self.newest.as_ref(),
            _ => self.seen.get(&epoch),
        }
    }

    /// True if all is known that bears on who may vote in this view.
    pub(crate) fn remembers(&self, epoch: Epoch) -> bool {
        self.past.is_empty() || epoch >= self.settled
    }

    pub(crate) fn count(&self) -> u64 {
        (self.seen.len() + self.past.len()) as u64
    }

    /// A view is on somebody's disk. It, if it is new.
    ///
    /// # Errors
    /// V2: it is another one than somebody else has under this epoch.
    pub(crate) fn adopted(&mut self, view: &Arc<View>, keys: &Keys) -> Result<Option<Rc<Seen>>, String> {
        let epoch = view.epoch();
        if let Some(&was) = self.past.get(&epoch) {
            return if was == short(view) {
                Ok(None)
            } else {
                Err(format!("V2: two views e{epoch}: one of them {}", brief(view)))
            };
        }
        if let Some(seen) = self.seen.get(&epoch) {
            // Nearly all share it.
            return if Arc::ptr_eq(&seen.view, view) || seen.view == *view {
                Ok(None)
            } else {
                Err(format!("V2: two views e{epoch}: {} and {}", brief(&seen.view), brief(view)))
            };
        }
        if let Some(any) = &self.newest
            && any.view.cluster() != view.cluster()
        {
            return Err("F1: machines of one birth belong to two clusters".to_string());
        }
        if let Some(newest) = &self.newest
            && newest.view.is_apart_from(view)
        {
            return Err(format!("F2: {} and {} went apart", brief(&newest.view), brief(view)));
        }
        let seen = Rc::new(Seen::new(view.clone(), keys));
        self.seen.insert(epoch, seen.clone());
        if self.newest.is_none() {
            // Nobody voted before it: its owners are synced, and so it is settled.
            self.settled = epoch;
            self.synced.extend(seen.ring().map(|m| (m.incarnation, epoch)));
        }
        if self.newest.as_ref().is_none_or(|n| n.epoch() < epoch) {
            self.newest = Some(seen.clone());
        }
        if let Some(newest) = &self.newest {
            self.proposed.retain(|v| newest.view.is_in_past_of(v));
        }
        Ok(Some(seen))
    }

    /// A warden has accepted this as the next view.
    pub(crate) fn proposed(&mut self, view: &Arc<View>) {
        let decided = self.newest.as_ref().is_some_and(|n| !n.view.is_in_past_of(view));
        if !decided && !self.proposed.contains(view) {
            self.proposed.push(view.clone());
        }
    }

    /// A machine noted durably that it is synced for all it owns in this view. False if that is known.
    pub(crate) fn synced(&mut self, who: Incarnation, epoch: Epoch) -> bool {
        self.synced.insert((who, epoch))
    }

    pub(crate) fn is_synced(&self, who: Incarnation, epoch: Epoch) -> bool {
        self.synced.contains(&(who, epoch))
    }

    /// A machine noted durably that this view is settled. False if that is known.
    ///
    /// # Errors
    /// T1: somebody in its ring never said that it was synced.
    pub(crate) fn settled(&mut self, epoch: Epoch) -> Result<bool, String> {
        if epoch <= self.settled {
            return Ok(false);
        }
        let Some(seen) = self.seen.get(&epoch) else {
            return Err(format!("T1: e{epoch} is noted as settled, and nobody has adopted it"));
        };
        if let Some(one) = seen.ring().find(|m| !self.is_synced(m.incarnation, epoch)) {
            return Err(format!("T1: e{epoch} is noted as settled, and {one} was never synced in it"));
        }
        self.settled = epoch;
        while self.seen.len() > KEPT
            && let Some(oldest) = self.seen.first_entry().filter(|oldest| *oldest.key() < epoch)
        {
            let (oldest, seen) = oldest.remove_entry();
            self.past.insert(oldest, short(&seen.view));
            self.synced.retain(|(_, epoch)| *epoch > oldest);
        }
        Ok(true)
    }

    /// S1, Q1: the slots of a key that a machine may vote for in a view: those that it has owned in every view since
    /// the last one in which it was synced for all it owned.
    pub(crate) fn may_vote(&self, machine: Machine, epoch: Epoch, key: usize) -> SlotSet {
        let Some(seen) = self.get(epoch) else { return SlotSet::EMPTY };
        let mut slots = seen.owned(machine, key);
        if self.is_synced(machine.incarnation, epoch) {
            return slots;
        }
        for (&before, seen) in self.seen.range(..epoch).rev() {
            slots = slots.intersection(seen.owned(machine, key));
            if slots.is_empty() {
                break;
            }
            if self.is_synced(machine.incarnation, before) {
                return slots;
            }
        }
        SlotSet::EMPTY
    }

    /// Views that data may still have to be fetched from: the last settled one, and all since.
    fn unsettled(&self) -> impl Iterator<Item = &View> + '_ {
        let decided = self.seen.range(self.settled..).map(|(_, seen)| &*seen.view);
        decided.chain(self.proposed.iter().map(|v| &**v))
    }

    /// True if no unsettled view names this machine: nothing would be missing without it.
    pub(crate) fn is_free(&self, machine: Machine) -> bool {
        self.unsettled().all(|view| !view.has(machine))
    }

    /// Claim 4: true if, in each unsettled view, this machine can be lost in addition to those that are. And in the
    /// view that may come next, without those that `go`.
    pub(crate) fn can_lose(&self, machine: Machine, go: &[Machine]) -> bool {
        let fine = |view: &View, go: &[Machine]| {
            let ring: Vec<Machine> = ring_of(view).filter(|m| !go.contains(m)).collect();
            if !ring.contains(&machine) {
                return true;
            }
            let gone = ring.iter().filter(|m| self.lost.contains(m)).count();
            gone < bears(ring.len().max(1), view.slots())
        };
        self.unsettled().all(|view| fine(view, &[]))
            && self.newest.as_ref().is_none_or(|n| fine(&n.view, go) && self.after_joins(machine, go))
    }

    /// The same for the next ring: those that join are in it.
    fn after_joins(&self, machine: Machine, go: &[Machine]) -> bool {
        let Some(newest) = &self.newest else { return true };
        let ring: Vec<Machine> = newest
            .view
            .members()
            .iter()
            .filter(|m| m.state != MemberState::Leaving && !go.contains(&m.machine))
            .map(|m| m.machine)
            .collect();
        let gone = ring.iter().filter(|m| self.lost.contains(m)).count();
        !ring.contains(&machine) || gone < bears(ring.len().max(1), newest.view.slots())
    }

    pub(crate) fn lose(&mut self, machine: Machine) {
        self.lost.insert(machine);
    }

    /// Claim 4 promises nothing any more: some unsettled view lost more than it bears.
    pub(crate) fn overdrawn(&self) -> bool {
        self.unsettled().any(|view| {
            let ring: Vec<Machine> = ring_of(view).collect();
            // F2: what went with those that were forced out is charged.
            let missed = |m: &&Machine| self.lost.contains(*m) && !self.is_forced_out(**m);
            ring.iter().filter(missed).count() > bears(ring.len(), view.slots())
        })
    }

    fn is_forced_out(&self, machine: Machine) -> bool {
        self.newest.as_ref().is_some_and(|n| n.view.has_forced_out(machine.incarnation))
    }

    /// F2: lost for good, and still missed in some view that is not settled.
    pub(crate) fn missed(&self) -> Vec<Machine> {
        let missed = |m: &&Machine| !self.is_forced_out(**m) && self.unsettled().any(|view| view.has(**m));
        self.lost.iter().filter(missed).copied().collect()
    }

    /// F2: true if five slots of this key are lost for good in some view that is not settled.
    pub(crate) fn may_have_lost(&self, key: &Key) -> bool {
        self.unsettled().any(|view| {
            let owners = view.ring().owners(&Chain::of(key.as_bytes(), view.slots()));
            let owner = |slot| view.members()[owners.owner(slot) as usize].machine;
            let lost = (1..=view.slots()).filter(|slot| self.lost.contains(&owner(*slot))).count();
            lost >= usize::from(quorum_of(view.slots()))
        })
    }

    pub(crate) fn is_lost(&self, machine: Machine) -> bool {
        self.lost.contains(&machine)
    }
}

/// A number by which views are told apart.
fn short(view: &View) -> u64 {
    let mut hasher = DefaultHasher::new();
    for member in view.members() {
        (member.machine, member.place(), member.next_place(), member.state as u8).hash(&mut hasher);
    }
    view.forced_out().hash(&mut hasher);
    hasher.finish()
}

/// A view in a line: `e5{1 2 3- 4+}`, where 3 is leaving and 4 is joining. Machines by the last part of their address.
pub(crate) fn brief(view: &View) -> String {
    let members: Vec<String> = view
        .members()
        .iter()
        .map(|m| {
            let name = m.machine.name.to_string();
            let short = name.rsplit('.').next().unwrap_or(&name).to_string();
            match m.state {
                MemberState::Up => short,
                MemberState::Joining => short + "+",
                MemberState::Leaving => short + "-",
            }
        })
        .collect();
    format!("e{}{{{}}}", view.epoch(), members.join(" "))
}
