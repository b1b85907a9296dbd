//! Every state that can be reached, each once, the nearest first: so what goes wrong is shown on a shortest road.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::Hash;

use hashbrown::HashSet;

/// Something with states and steps between them.
pub(super) trait Small {
    type State: Clone + Hash;
    type Act: Copy;

    fn first(&self) -> Self::State;
    /// All that may happen next.
    fn acts(&self, state: &Self::State, acts: &mut Vec<Self::Act>);
    /// It happens. Says what may never be, if it is so now.
    fn step(&self, state: &mut Self::State, act: Self::Act) -> Result<(), &'static str>;
}

/// What came of it.
pub(super) enum Explored<A> {
    /// Nothing went wrong in any of so many states; these are all there are if `end`.
    Well { states: usize, end: bool },
    /// This road leads to what may never be.
    Ill { states: usize, road: Vec<A>, what: &'static str },
}

/// Looks at all states, or at the first `most` of them.
pub(super) fn explore<S: Small>(small: &S, most: usize) -> Explored<S::Act> {
    let hasher = foldhash::quality::FixedState::with_seed(9);
    // A state is known by 64 bits of it: of some millions, two are taken for one with a chance of one in a million.
    let mut known: HashSet<u64, foldhash::quality::FixedState> = HashSet::with_hasher(hasher.clone());
    let mark = |state: &S::State| core::hash::BuildHasher::hash_one(&hasher, state);
    // How each state was come to: from which, and by what.
    let mut roads: Vec<(u32, Option<S::Act>)> = Vec::from([(0, None)]);
    let first = small.first();
    known.insert(mark(&first));
    let mut waiting = VecDeque::from([(0u32, first)]);
    let mut acts = Vec::new();
    while let Some((at, state)) = waiting.pop_front() {
        acts.clear();
        small.acts(&state, &mut acts);
        for act in &acts {
            let mut next = state.clone();
            let went = small.step(&mut next, *act);
            if went.is_ok() && !known.insert(mark(&next)) {
                continue;
            }
            roads.push((at, Some(*act)));
            let number = roads.len() as u32 - 1;
            if let Err(what) = went {
                return Explored::Ill { states: known.len(), road: road_to(&roads, number), what };
            }
            if known.len() >= most {
                return Explored::Well { states: known.len(), end: false };
            }
            waiting.push_back((number, next));
        }
    }
    Explored::Well { states: known.len(), end: true }
}

fn road_to<A: Copy>(roads: &[(u32, Option<A>)], mut at: u32) -> Vec<A> {
    let mut road = Vec::new();
    while let (before, Some(act)) = roads[at as usize] {
        road.push(act);
        at = before;
    }
    road.reverse();
    road
}
