//! What stays the same while a small world is explored: its views, who owns which slot of the one key in each, and the
//! rules. Placement is the real one: the key is searched for whose slots lie as the scenario wants them.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::world::Act;
use crate::effect::Account;
use crate::history::{History, Present};
use crate::key::Key;
use crate::mutant::Rules;
use crate::placement::Owners;
use crate::position::Chain;
use crate::quorum::{SlotSet, quorum_of};
use crate::stamp::{Ballot, Hlc};
use crate::view::{ClusterId, Epoch, Incarnation, Machine, Member, Name, View};

/// Most machines, ballots and views of a small world.
pub(super) const MACHINES: usize = 5;
pub(super) const BALLOTS: usize = 3;
pub(super) const VIEWS: usize = 4;

/// A rule of the page that is broken where the code has no mutant for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// T1: a view is taken for settled once one of its machines is synced.
    SettledByOne,
    /// T2: a record is dropped as soon as its key is somebody else's, settled or not.
    DroppedAtOnce,
    /// S2: nobody is told by machines that are no longer in the ring: they are taken for having told "none".
    FormerOwnersUnheard,
}

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Writes, each under a ballot of its own.
    pub(super) ballots: u8,
    /// Reads, one after the other.
    pub(super) reads: u8,
    /// Restarts of any machine.
    pub(super) restarts: u8,
    /// Views come to be settled, and earlier ones forgotten.
    pub(super) settles: bool,
    /// One tombstone is collected: the writes may be deletes.
    pub(super) collects: bool,
    /// A pass over the keys takes its time: a key is decided first, and the machine is synced later.
    pub(super) slow_passes: bool,
    /// What has happened before anything is tried: for what takes more steps than all orders of them could be gone through.
    pub(super) opening: &'static [Act],
}

impl Size {
    pub(super) const fn settling(self) -> Self {
        Self { settles: true, ..self }
    }

    pub(super) const fn collecting(self) -> Self {
        Self { collects: true, ..self }
    }

    pub(super) const fn with_slow_passes(self) -> Self {
        Self { slow_passes: true, ..self }
    }

    pub(super) const fn after(self, opening: &'static [Act]) -> Self {
        Self { opening, ..self }
    }
}

/// F2: machines that are lost, and that an operator names in a forced view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced {
    /// The first view without them. They do nothing once anybody is in it: the operator's word was true.
    pub(super) view: u8,
    /// A bit each.
    named: u8,
    /// A quorum of the key was theirs: what was answered before that view may be lost with them, and is no claim.
    pub(super) is_loss: bool,
}

impl Forced {
    pub(super) fn names(&self, m: u8) -> bool {
        self.named >> m & 1 == 1
    }
}

/// See the module's caption.
pub(super) struct Ground {
    pub(super) size: Size,
    pub(super) slots: u8,
    pub(super) machines: u8,
    pub(super) presents: Vec<Present>,
    pub(super) owners: Vec<Owners>,
    pub(super) chain: Chain,
    pub(super) rules: Rules,
    pub(super) page: Option<Page>,
    pub(super) forced: Option<Forced>,
    /// `votes[machine][settled][view][synced]`, as the history says it: it is pure.
    votes: Vec<SlotSet>,
}

/// A machine of the model is a letter.
pub(super) fn letter(machine: u8) -> char {
    char::from(b'A' + machine)
}

pub(super) fn machine(number: u8) -> Machine {
    let name: Name = format!("10.0.0.{}", number + 1).parse().expect("a name");
    Machine { name, incarnation: Incarnation::new(u64::from(number) + 1) }
}

pub(super) fn number_of(machine: Machine) -> u8 {
    machine.incarnation.id() as u8 - 1
}

/// Ballot 0 is none.
pub(super) fn ballot(number: u8) -> Ballot {
    match number {
        0 => Ballot::ZERO,
        n => Ballot { time: Hlc::from_nanos(u64::from(n)), by: Incarnation::new(u64::from(n)) },
    }
}

pub(super) fn epoch(view: u8) -> Epoch {
    Epoch { number: u32::from(view) + 1, ..Epoch::FIRST }
}

/// A view of these machines, without those.
pub(super) fn view(number: usize, (members, weight): (&[u8], u32), slots: u8, named: &[u8]) -> View {
    let up = |n: &u8| Member::up(machine(*n), weight);
    let members = members.iter().map(up).collect();
    let forced_out = named.iter().map(|n| machine(*n).incarnation).collect();
    View::new(ClusterId::new(1), epoch(number as u8), slots, members, forced_out).expect("a view")
}

/// `"ABD!C"`: the owners of three slots, and who is forced out.
fn machines_of(table: &str) -> (Vec<u8>, Vec<u8>) {
    let (owners, named) = table.split_once('!').unwrap_or((table, ""));
    let numbers = |letters: &str| letters.bytes().map(|letter| letter - b'A').collect();
    (numbers(owners), numbers(named))
}

impl Ground {
    /// The world whose key has these owners in view after view: `["ABC", "ABD"]` is three slots, of which D takes over
    /// the third. `["ABC", "ABD!C"]`: since an operator has named C.
    pub(super) fn new(tables: &[&str], size: Size, rules: Rules, page: Option<Page>) -> Self {
        let slots = tables[0].len() as u8;
        let (tables, named): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
            tables.iter().map(|table| machines_of(table)).unzip();
        let machines = tables.iter().flatten().max().expect("a machine") + 1;
        assert!(usize::from(machines) <= MACHINES && tables.len() <= VIEWS, "a small world is small");
        assert!(usize::from(size.ballots) <= BALLOTS, "a small world is small");
        let views: Vec<Arc<View>> = tables
            .iter()
            .enumerate()
            .map(|(i, table)| {
                // Slots move between members that stay where positions change.
                let stay = i > 0 && sorted(&tables[i - 1]) == sorted(table);
                let weight = if stay { 2 } else { 1 };
                Arc::new(view(i, (&sorted(table), weight), slots, &named[i]))
            })
            .collect();
        // Only its owner would see itself in it; the history asks for others by name.
        let presents: Vec<Present> = views.iter().map(|v| Present::new(v.clone(), machine(0))).collect();
        let fits = |key: &Key| {
            let chain = presents[0].chain(key);
            presents.iter().zip(&tables).all(|(present, table)| {
                let owners = present.view.ring().owners(&chain);
                (1..=slots).zip(table).all(|(slot, n)| number_of(present.machine(owners.owner(slot))) == *n)
            })
        };
        let mut keys = (0..3_000_000u32).map(|n| Key::new(format!("{n}")).expect("a key"));
        let key = keys.find(fits).expect("no key is placed so");
        let chain = presents[0].chain(&key);
        let owners = presents.iter().map(|p| p.view.ring().owners(&chain)).collect();
        let forced = named.iter().position(|named| !named.is_empty()).map(|view| {
            let owned = tables[view - 1].iter().filter(|owner| named[view].contains(owner)).count() as u8;
            let is_loss = owned >= quorum_of(slots);
            let named = named[view].iter().fold(0, |named, m| named | 1 << m);
            Forced { view: view as u8, named, is_loss }
        });
        let votes = Vec::new();
        let mut ground = Self { size, slots, machines, presents, owners, chain, rules, page, forced, votes };
        ground.votes = ground.all_votes();
        ground
    }

    fn all_votes(&self) -> Vec<SlotSet> {
        let mut votes = Vec::new();
        for (m, settled, view, synced) in indices(self.machines, self.presents.len() as u8) {
            let known = settled <= view;
            votes.push(if known { self.vote(m, settled, view, synced) } else { SlotSet::EMPTY });
        }
        votes
    }

    fn vote(&self, m: u8, settled: u8, view: u8, synced: u8) -> SlotSet {
        let history = self.history(settled, view);
        let track = history.track(machine(m), &account(settled, synced));
        history.votes(&track, self.owners(settled, view))
    }

    /// Q1: the slots of the key that a machine votes for in a view, knowing this one to be settled, and having come to
    /// be synced in those.
    pub(super) fn votes(&self, m: u8, settled: u8, view: u8, synced: u8) -> SlotSet {
        let views = self.presents.len();
        let at = ((usize::from(m) * views + usize::from(settled)) * views + usize::from(view)) << views;
        self.votes[at + usize::from(synced)]
    }

    /// The views since the settled one.
    pub(super) fn history(&self, settled: u8, view: u8) -> History<'_> {
        History { views: &self.presents[usize::from(settled)..=usize::from(view)], rules: self.rules }
    }

    pub(super) fn owners(&self, settled: u8, view: u8) -> &[Owners] {
        &self.owners[usize::from(settled)..=usize::from(view)]
    }

    pub(super) fn last_view(&self) -> u8 {
        self.presents.len() as u8 - 1
    }

    pub(super) fn is_in_ring(&self, m: u8, view: u8) -> bool {
        self.presents[usize::from(view)].ring_members().any(|other| other == machine(m))
    }

    pub(super) fn slots_of(&self, m: u8, view: u8) -> SlotSet {
        let present = &self.presents[usize::from(view)];
        let owners = &self.owners[usize::from(view)];
        present.index_of(machine(m)).map_or(SlotSet::EMPTY, |i| owners.slots_of(i))
    }

    /// The owners of the slots in each view, as the scenario names them.
    pub(super) fn tables(&self) -> String {
        let table = |v: usize| -> String {
            let owner = |slot| letter(number_of(self.presents[v].machine(self.owners[v].owner(slot))));
            let named = self.presents[v].view.forced_out().iter().map(|out| letter(out.id() as u8 - 1));
            let mark = (!self.presents[v].view.forced_out().is_empty()).then_some('!');
            (1..=self.slots).map(owner).chain(mark).chain(named).collect()
        };
        (0..self.presents.len()).map(table).collect::<Vec<String>>().join(", ")
    }
}

/// What a machine can tell of its views.
pub(super) fn account(settled: u8, synced: u8) -> Account {
    let synced = (0..VIEWS as u8).filter(|v| synced >> v & 1 == 1).map(epoch).collect();
    Account { settled: epoch(settled), synced, left: false }
}

fn indices(machines: u8, views: u8) -> impl Iterator<Item = (u8, u8, u8, u8)> {
    (0..machines).flat_map(move |m| {
        (0..views).flat_map(move |settled| {
            (0..views).flat_map(move |view| (0..1u8 << views).map(move |synced| (m, settled, view, synced)))
        })
    })
}

fn sorted(table: &[u8]) -> Vec<u8> {
    let mut members = table.to_vec();
    members.sort_unstable();
    members.dedup();
    members
}
