//! What a machine does for the next view: gathers wishes and words, says when a view is settled, proposes (V7, T1).
//!
//! Words go from every member to the wardens until they answer that the view is settled; wishes go to all wardens, and
//! the one that owns the lowest slot of `\0view` among those believed alive acts on them. Another takes its place, one
//! after the other, where it does not.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decree::{Decrees, warden_key, wardens};
use crate::effect::{Decree, Effect, Mono, Now};
use crate::history::Present;
use crate::local::Local;
use crate::membership::{self, Situation};
use crate::message::{Addr, Ask, Message, Wish};
use crate::placement::Owners;
use crate::rare::{Rare, met_if};
use crate::view::{Epoch, MAX_POSITIONS, MAX_WEIGHT, Machine, Member, MemberState, View, ViewError};
use crate::zone::Zone;

const MS: u64 = 1_000_000;
/// How often a warden looks whether there is something to do.
const TICK: u64 = 100 * MS;
/// How soon a member says again how far it is, where that has not changed; doubles each time, up to the second. All
/// members say so to all wardens: what is said ten times a second by nine is too much from a thousand.
const SAY_AGAIN: (u64, u64) = (100 * MS, 3_200 * MS);
/// How long a wish is kept unless it is said again.
const KEEP_WISH: u64 = 10_000 * MS;
/// How long a wish waits for others, so that one view serves them all.
const GATHER: u64 = 300 * MS;
/// The same where one machine is all there is: to grow from one to three in one view (section 11).
const GATHER_ALONE: u64 = 2_000 * MS;
/// How long the next warden waits for the one before it to act.
const STAND_BY: u64 = 2_000 * MS;
/// How long the dead stay in a view of which many that live are not synced yet, and how many those are: one of so many.
const SYNC_FIRST: u64 = 10_000 * MS;
const MANY: usize = 8;
/// Most wishes kept.
const MAX_WISHES: usize = 1_000;

/// See the module's caption.
#[derive(Debug)]
pub(crate) struct Warden {
    pub(crate) decrees: Decrees,
    wishes: BTreeMap<Wish, Heard>,
    words: Words,
    /// The wardens of the present view, once they were looked up.
    seats: Option<(Epoch, Owners)>,
    tick: Mono,
    /// When the present view was adopted.
    began: Mono,
    /// What this machine has said of itself in the present view, and when it says so again.
    said: Option<Standing>,
    say_at: Mono,
    say_gap: u64,
    /// Since when a change is due that nobody has made.
    due_since: Option<Mono>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    first: Mono,
    last: Mono,
}

/// Who has said what of the present view, by their places in it; and how many of its ring that they are synced.
#[derive(Debug, Default)]
struct Words {
    of: Vec<Standing>,
    synced: usize,
    ring: usize,
}

/// What a machine is to others in the present view.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Standing {
    pub(crate) synced: bool,
    pub(crate) warm: bool,
}

impl Words {
    /// True if with this word all of the ring are synced.
    fn hear(&mut self, view: &View, member: u32, word: Standing) -> bool {
        if self.of.is_empty() {
            self.of.resize(view.members().len(), Standing::default());
            self.ring = view.members().iter().filter(|m| m.in_ring()).count();
        }
        let member = member as usize;
        let before = core::mem::replace(&mut self.of[member], word);
        if view.members()[member].in_ring() {
            self.synced = self.synced + usize::from(word.synced) - usize::from(before.synced);
        }
        self.synced == self.ring
    }

    fn is_warm(&self, member: usize) -> bool {
        self.of.get(member).is_some_and(|word| word.warm)
    }
}

impl Warden {
    pub(crate) fn new(decree: Decree, now: Now) -> Self {
        Self {
            decrees: Decrees::new(decree),
            wishes: BTreeMap::new(),
            words: Words::default(),
            seats: None,
            tick: now.mono,
            began: now.mono,
            said: None,
            say_at: now.mono,
            say_gap: SAY_AGAIN.0,
            due_since: None,
        }
    }

    /// A view has been adopted.
    pub(crate) fn begin_anew(&mut self, local: &Local, now: Now) {
        self.decrees.begin_anew();
        self.words = Words::default();
        self.due_since = None;
        (self.tick, self.began) = (now.mono, now.mono);
        (self.said, self.say_at, self.say_gap) = (None, now.mono, SAY_AGAIN.0);
        let view = &local.present().view;
        met_if(self.wishes.keys().any(|wish| !is_fulfilled(view, wish)), Rare::V7WishOutlivesView);
        self.wishes.retain(|wish, _| !is_fulfilled(view, wish));
    }

    pub(crate) fn wake_at(&self, local: &Local, standing: Standing) -> Option<Mono> {
        let present = local.newest()?;
        present.me?;
        let tells = !local.is_settled() || present.view.next_ring().is_some();
        let say =
            tells.then(|| if self.said == Some(standing) { self.say_at.max(self.tick) } else { self.tick });
        let busy = tells || !self.wishes.is_empty() || !local.doubted.is_empty();
        let seat = self.seats.is_none_or(|(epoch, seats)| {
            epoch != present.epoch() || present.me.is_some_and(|me| !seats.slots_of(me).is_empty())
        });
        let tick = (busy && seat).then_some(self.tick);
        Mono::first([say, tick, self.decrees.wake_at()])
    }

    // -- wishes --------------------------------------------------------------------------------------

    /// Somebody wants the membership changed: passed on to the wardens, or refused with a reason.
    pub(crate) fn on_wish(
        &mut self,
        local: &mut Local,
        now: Now,
        from: Addr,
        ask: Ask,
        wish: Wish,
        effects: &mut Vec<Effect>,
    ) {
        let relayed =
            matches!(from, Addr::Machine(m) if local.present().index_of(m).is_some()) && ask == Ask(0);
        if relayed {
            self.note(local, now, wish);
            return;
        }
        // A member that nobody starts would hold up all others that want to come or go.
        let not_its_own = matches!((from, wish), (Addr::Client(_), Wish::Join { .. }))
            .then(|| "only a machine itself asks to be taken in: start it with --join".into());
        let refused = refusal(local, &wish).or(not_its_own);
        met_if(refused.is_some(), Rare::V7WishRefused);
        if refused.is_none() {
            self.relay(local, now, wish, effects);
        }
        local.send(from, Message::Wished { ask, refused }, None, effects);
    }

    /// A machine that is not in the view offers itself. Says why it is not taken, if it is not.
    pub(crate) fn on_offer(
        &mut self,
        local: &mut Local,
        now: Now,
        machine: Machine,
        (weight, zone): (u32, Zone),
        effects: &mut Vec<Effect>,
    ) -> Option<String> {
        let wish = Wish::Join { machine, weight, zone };
        let refused = refusal(local, &wish);
        met_if(refused.is_some(), Rare::V6NamesakeLives);
        if refused.is_none() {
            self.relay(local, now, wish, effects);
        }
        refused
    }

    pub(crate) fn relay(&mut self, local: &mut Local, now: Now, wish: Wish, effects: &mut Vec<Effect>) {
        self.note(local, now, wish);
        let me = local.present().me;
        for member in wardens(local).machines().filter(|m| Some(*m) != me) {
            local.send_to(member, Message::Wish { ask: Ask(0), wish }, None, effects);
        }
    }

    fn note(&mut self, local: &Local, now: Now, wish: Wish) {
        if is_fulfilled(&local.present().view, &wish) {
            return;
        }
        if self.wishes.is_empty() {
            self.tick = now.mono.plus(TICK);
        }
        // A place wished later is wished instead.
        if let Wish::Place { machine, .. } = wish {
            let other = |w: &Wish| matches!(w, Wish::Place { machine: m, .. } if *m == machine) && *w != wish;
            self.wishes.retain(|w, _| !other(w));
        }
        let room = self.wishes.len() < MAX_WISHES;
        match self.wishes.get_mut(&wish) {
            Some(heard) => heard.last = now.mono,
            None if room => drop(self.wishes.insert(wish, Heard { first: now.mono, last: now.mono })),
            None => {}
        }
    }

    // -- words ---------------------------------------------------------------------------------------

    /// T1: a member of the present view says how far it is. True if the view is settled by this.
    pub(crate) fn on_word(
        &mut self,
        local: &mut Local,
        from: u32,
        word: Standing,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let all = self.words.hear(&local.present().view, from, word);
        if local.is_settled() {
            met_if(!word.synced, Rare::T1SettledBeforeItsWord);
            let epoch = local.epoch();
            local.send_to(from, Message::Settled { epoch }, None, effects);
        }
        all && !local.is_settled()
    }

    /// T1: the word spreads.
    pub(crate) fn tell_settled(&self, local: &mut Local, effects: &mut Vec<Effect>) {
        let epoch = local.epoch();
        let me = local.present().me;
        for member in 0..local.present().view.members().len() as u32 {
            if Some(member) != me {
                local.send_to(member, Message::Settled { epoch }, None, effects);
            }
        }
    }

    // -- time ----------------------------------------------------------------------------------------

    /// Says how far this machine is; acts as a warden. `dead`: members that are down for good, as far as is known.
    pub(crate) fn on_time(
        &mut self,
        local: &mut Local,
        now: Now,
        standing: Standing,
        dead: impl FnOnce(&mut Local, &mut Vec<Effect>) -> Vec<Machine>,
        effects: &mut Vec<Effect>,
    ) {
        self.decrees.on_time(local, now, effects);
        if self.tick > now.mono {
            return;
        }
        self.tick = now.mono.plus(TICK);
        self.wishes.retain(|_, heard| heard.last.plus(KEEP_WISH) > now.mono);
        let Some(me) = local.present().me else { return };
        let seats = self.seats(local);
        self.say(local, now, standing, &seats, effects);
        // Who acts: the first warden believed alive; each further one waits longer.
        let alive = seats.machines().filter(|m| *m == me || local.is_alive(*m));
        let Some(rank) = alive.into_iter().position(|m| m == me) else { return };
        let silent = silent(local);
        let dead = dead(local, effects);
        let Some(view) = self.wanted(local, now, dead, silent.clone()) else {
            self.due_since = None;
            return;
        };
        let since = *self.due_since.get_or_insert(now.mono);
        let turn = since.plus(STAND_BY * rank as u64) <= now.mono && self.decrees.is_free(now);
        // Only when it would act: its ring has to be computed for it.
        let heard = turn && is_heard(local, &view, &silent);
        met_if(turn && !heard, Rare::V7WithoutFiveWardens);
        met_if(heard && rank > 0, Rare::V7NextWardenActs);
        if heard {
            self.decrees.propose(local, now, view, effects);
        }
    }

    /// True if many that live are about to be synced: were the next view to come before they are, they would not know what they
    /// lack, and each would ask everybody (section 14).
    fn is_syncing(&self, local: &Local, now: Now) -> bool {
        if local.is_settled() || self.began.plus(SYNC_FIRST) <= now.mono {
            return false;
        }
        let ring = (0..).zip(local.present().view.members()).filter(|(_, member)| member.in_ring());
        let (mut all, mut lack) = (0, 0);
        for (member, _) in ring {
            let synced = self.words.of.get(member as usize).is_some_and(|word| word.synced);
            (all, lack) = (all + 1, lack + usize::from(!synced && local.is_alive(member)));
        }
        lack * MANY > all
    }

    fn seats(&mut self, local: &Local) -> Owners {
        match self.seats {
            Some((epoch, seats)) if epoch == local.epoch() => seats,
            _ => self.seats.insert((local.epoch(), wardens(local))).1,
        }
    }

    /// T1, M2: at once what is new, and again until the view is settled and nothing moves.
    fn say(
        &mut self,
        local: &mut Local,
        now: Now,
        standing: Standing,
        seats: &Owners,
        effects: &mut Vec<Effect>,
    ) {
        let new = self.said != Some(standing);
        let tells = !local.is_settled() || local.present().view.next_ring().is_some();
        if !tells || !new && self.say_at > now.mono {
            return;
        }
        self.said = Some(standing);
        self.say_gap = if new { SAY_AGAIN.0 } else { (self.say_gap * 2).min(SAY_AGAIN.1) };
        self.say_at = now.mono.plus(self.say_gap);
        let Standing { synced, warm } = standing;
        for member in seats.machines() {
            // To itself too: it comes back as a message.
            local.send_to(member, Message::Word { synced, warm }, None, effects);
        }
    }

    /// The view that should come next.
    fn wanted(&self, local: &Local, now: Now, dead: Vec<Machine>, silent: Vec<Machine>) -> Option<Arc<View>> {
        let present = local.present();
        let members = present.view.members();
        let alone = members.iter().filter(|m| m.in_ring()).count() == 1;
        let joining = self.wishes.keys().filter(|w| matches!(w, Wish::Join { .. })).count();
        let gather = if alone && joining == 1 { GATHER_ALONE } else { GATHER };
        let mut wishes: Vec<(Mono, Wish)> =
            self.wishes.iter().map(|(wish, heard)| (heard.first, *wish)).collect();
        wishes.sort();
        let ripe = wishes.first().is_some_and(|(first, _)| first.plus(gather) <= now.mono);
        met_if(ripe && joining > 1, Rare::M1SeveralJoin);
        met_if(ripe && alone, Rare::F1OneGrows);
        // Who said that it is warm and died since is no owner to wait for: it is dropped first.
        let comes = |m: &Member| m.state != MemberState::Joining || !silent.contains(&m.machine);
        let situation = Situation {
            settled: local.is_settled(),
            warm: present.view.next_ring().is_some()
                && (0..members.len())
                    .all(|i| !stays(&members[i]) || self.words.is_warm(i) && comes(&members[i])),
            wishes: if ripe { wishes.into_iter().map(|(_, wish)| wish).collect() } else { Vec::new() },
            syncing: (!dead.is_empty() || ripe) && self.is_syncing(local, now),
            dead,
            silent,
        };
        let (members, forced_out) = membership::next(&present.view, &situation)?;
        let view = present.view.successor(members, forced_out).ok()?;
        Some(Arc::new(view))
    }
}

/// Members that are not believed alive.
fn silent(local: &Local) -> Vec<Machine> {
    let present = local.present();
    let members = present.view.members().iter().map(|m| m.machine);
    // Nobody doubts himself.
    members.filter(|m| *m != local.me && local.doubted.contains(&m.name)).collect()
}

/// V7: no view is proposed without five of its own warden slots.
fn is_heard(local: &Local, view: &Arc<View>, silent: &[Machine]) -> bool {
    let next = Present::new(view.clone(), local.me);
    let owners = next.owners(&warden_key());
    let mut tally = local.tally();
    for member in owners.machines() {
        let machine = next.machine(member);
        if machine == local.me || !silent.contains(&machine) {
            tally.add(next.epoch(), owners.slots_of(member));
        }
    }
    tally.reached(owners.slots())
}

/// In the next ring.
fn stays(member: &Member) -> bool {
    member.state != MemberState::Leaving
}

fn is_fulfilled(view: &View, wish: &Wish) -> bool {
    match wish {
        Wish::Join { machine, .. } => view.has(*machine),
        Wish::Leave { machine } => {
            let member = view.members().iter().find(|m| m.machine == *machine);
            member.is_none_or(|m| m.state == MemberState::Leaving)
        }
        Wish::Remove { machine } => !view.has(*machine),
        Wish::Force { machine } => view.has_forced_out(machine.incarnation),
        Wish::Place { machine, weight, zone } => {
            let member = view.members().iter().find(|m| m.machine == *machine);
            member.is_none_or(|m| m.next_place() == (*weight, *zone))
        }
    }
}

/// Why a wish cannot be fulfilled, in words for whoever wished it.
fn refusal(local: &Local, wish: &Wish) -> Option<String> {
    let present = local.present();
    let view = &present.view;
    if present.me.is_none() {
        return Some("this machine is not in the view: ask one that is".into());
    }
    let member = |machine: &Machine| view.members().iter().find(|m| m.machine == *machine);
    match wish {
        Wish::Join { machine, zone, .. } => {
            if view.forced_out().contains(&machine.incarnation) {
                return Some(alloc::format!(
                    "incarnation {} was forced out of the cluster: empty the data directory, or move it aside, to join anew",
                    machine.incarnation
                ));
            }
            if zone.is_none() && names_zones(view, *machine) {
                return Some(NAMELESS.into());
            }
            let namesake = view.index_of(machine.name).map(|i| i as u32)?;
            let same = present.machine(namesake) == *machine;
            let alive = Some(namesake) == present.me || local.is_alive(namesake);
            (!same && alive).then(|| {
                alloc::format!(
                    "a machine called {} lives in cluster {} under another incarnation: two machines must not share a \
                     name; if its data directory was just emptied or replaced, this passes within seconds",
                    machine.name,
                    view.cluster()
                )
            })
        }
        Wish::Leave { machine } => match member(machine) {
            None => Some(alloc::format!("{} is not in the view of epoch {}", machine.name, view.epoch())),
            Some(m) if m.state == MemberState::Joining => {
                Some(alloc::format!("{} is still joining: stop it, and it is dropped", machine.name))
            }
            Some(_) => {
                let others = view.members().iter().filter(|m| m.in_ring() && m.machine != *machine).count();
                (others == 0)
                    .then(|| "it is the last machine of the cluster: nobody would take its data over".into())
            }
        },
        Wish::Remove { machine } => match view.index_of(machine.name).map(|i| i as u32) {
            Some(m) if present.machine(m) == *machine => {
                let alive = Some(m) == present.me || local.is_alive(m);
                alive.then(|| {
                    alloc::format!("{} answers: let it leave, which hands its data over first", machine.name)
                })
            }
            _ => Some(alloc::format!("{} is not in the view of epoch {}", machine.name, view.epoch())),
        },
        Wish::Force { machine } => no_force(local, *machine),
        Wish::Place { machine, zone, .. } if zone.is_none() && names_zones(view, *machine) => {
            Some(NAMELESS.into())
        }
        Wish::Place { machine, weight, .. } => no_place(view, *machine, *weight),
    }
}

/// One machine that names no zone, and keys would be spread over none: most data would move, for a flag forgotten.
const NAMELESS: &str = "every machine of this cluster names its zone, so that keys are spread over them: start this one with --zone, too";

/// True if there are others than this machine, and all of them name their zones.
fn names_zones(view: &View, but: Machine) -> bool {
    let mut others = view.members().iter().filter(|m| m.machine.name != but.name).peekable();
    others.peek().is_some() && others.all(|m| !m.next_zone.is_none())
}

/// Why this member cannot have so many positions.
fn no_place(view: &View, machine: Machine, weight: u32) -> Option<String> {
    let Some(member) = view.members().iter().find(|m| m.machine == machine) else {
        return Some(alloc::format!("{} is not in the view of epoch {}", machine.name, view.epoch()));
    };
    if member.state != MemberState::Up {
        let doing = if member.state == MemberState::Joining { "joining" } else { "leaving" };
        return Some(alloc::format!("{} is {doing}: it can be moved once it is up", machine.name));
    }
    let others = view.members().iter().filter(|m| m.machine != machine);
    let all = others.map(|m| u64::from(m.weight.max(m.next_weight))).sum::<u64>();
    let error = match all + u64::from(weight.max(member.weight)) {
        _ if !(1..=MAX_WEIGHT).contains(&weight) => ViewError::Weight(machine, weight),
        all if all > MAX_POSITIONS => ViewError::TooHeavy(all),
        _ => return None,
    };
    Some(error.to_string())
}

/// F2: why this machine cannot be forced out. One that was dropped before may still be missed: of a view that is not
/// settled, nobody else may be able to tell what it voted.
pub(crate) fn no_force(local: &Local, machine: Machine) -> Option<String> {
    let present = local.present();
    if let Some(member) = present.index_of(machine) {
        let alive = Some(member) == present.me || local.is_alive(member);
        return alive.then(|| {
            alloc::format!("{} answers: only machines that are lost for good can be forced out", machine.name)
        });
    }
    let known = present.view.has_forced_out(machine.incarnation)
        || local.history().views.iter().any(|p| p.view.has(machine));
    (!known).then(|| {
        let epoch = present.epoch();
        alloc::format!(
            "{}, incarnation {}, is in no view up to epoch {epoch} that is not settled",
            machine.name,
            machine.incarnation
        )
    })
}
