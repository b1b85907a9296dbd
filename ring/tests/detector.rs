//! Who is suspected, when, and who is not: the detector in a small world of its own, from one seed.
#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::sync::Arc;

use ennead_ring::effect::Effect;
use ennead_ring::gossip::{Gossip, MAX_NEWS, News, Said};
use ennead_ring::message::{Addr, Envelope, Message};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, PROBE_EVERY, Setup, Tuning};
use ennead_ring::view::{ClusterId, Epoch, Incarnation, Machine, Member};
use ennead_ring::{Account, Decree, Input, Limits, Mono, Name, Node, Now, Standing, View, Zone};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;

/// A message or a lost connection on its way: when, a number that makes the order total, to whom, what.
type Flight = Reverse<(u64, u64, usize)>;

struct World {
    nodes: Vec<Node>,
    machines: Vec<Machine>,
    now: u64,
    flights: BinaryHeap<Flight>,
    inputs: Vec<Option<Input>>,
    /// When each wants to be woken, as last seen: one that is out of date is looked at again in its turn. What is not as in
    /// `queued` is void.
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    queued: Vec<u64>,
    rng: StdRng,
    /// Until when a machine does nothing; what comes meanwhile waits. `u64::MAX`: it has crashed.
    still: Vec<u64>,
    /// Added to every message of this machine and to it.
    slow: Vec<u64>,
    /// One-way: from, to.
    cut: Vec<(usize, usize)>,
    sent: Vec<u64>,
    longest: usize,
    /// What was said, where it is wanted.
    trace: Option<String>,
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        let machine = |i: usize| Machine {
            name: Name::new(([10, 0, (i / 250) as u8, (i % 250) as u8 + 1], 9595).into()),
            incarnation: Incarnation::new(i as u64 + 1),
        };
        let machines: Vec<Machine> = (0..count).map(machine).collect();
        let member = |machine: &Machine| Member::up(*machine, 4);
        let members = machines.iter().map(member).collect();
        let view = Arc::new(View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).unwrap());
        let node = |i: usize| {
            let setup = Setup {
                me: machines[i],
                weight: 4,
                zone: Zone::NONE,
                limits: Limits::default(),
                views: vec![view.clone()],
                account: Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false },
                decree: Decree::default(),
                birth: Birth::None,
                tuning: Tuning { probe_every: PROBE_EVERY, ..Tuning::default() },
                seed: seed * 1_000 + i as u64,
                rules: Rules::default(),
            };
            Node::new(setup, Now::default())
        };
        let mut world = Self {
            nodes: (0..count).map(node).collect(),
            wakes: BinaryHeap::new(),
            queued: vec![u64::MAX; count],
            machines: machines.clone(),
            now: SEC,
            flights: BinaryHeap::new(),
            inputs: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            still: vec![0; count],
            slow: vec![0; count],
            cut: Vec::new(),
            sent: vec![0; count],
            longest: 0,
            trace: Some(String::new()),
        };
        (0..count).for_each(|i| world.set_wake(i));
        world
    }

    /// Too many to write down what all say.
    fn crowd(count: usize, seed: u64) -> Self {
        Self { trace: None, ..Self::new(count, seed) }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", line());
        }
    }

    fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    fn index(&self, addr: Addr) -> usize {
        let Addr::Machine(machine) = addr else { panic!("only machines here") };
        let at = self.machines.binary_search_by_key(&machine.incarnation, |m| m.incarnation).unwrap();
        assert_eq!(self.machines[at], machine);
        at
    }

    /// The clocks of no two machines agree.
    fn clock(&self, i: usize) -> Now {
        let skew = (i as u64 * 37) % 11 * SEC;
        Now { mono: Mono(self.now + skew), wall: 1_700_000_000 * SEC + self.now + 2 * skew }
    }

    fn feed(&mut self, i: usize, input: Input) {
        let mut effects = Vec::new();
        let before = self.trace.is_some().then(|| self.nodes[i].suspects().len());
        let (clock, now) = (self.clock(i), self.now);
        self.nodes[i].handle(clock, input, &mut effects);
        self.nodes[i].check();
        for effect in effects {
            let Effect::Send { to, envelope, .. } = effect else {
                // Nothing is stored here, and nobody asks for keys: the sweep at a start looks, and finds none.
                assert!(matches!(effect, Effect::Scan { .. }), "{effect:?}");
                continue;
            };
            let to = self.index(to);
            self.sent[i] += 1;
            self.longest = self.longest.max(news(&envelope));
            self.note(|| format!("{now} {i} {to} {}", envelope.message));
            if self.cut.contains(&(i, to)) {
                continue;
            }
            let at = self.now + self.rng.random_range(MS / 10..MS) + self.slow[i] + self.slow[to];
            let input = Input::Message { from: Addr::Machine(self.machines[i]), envelope };
            self.later(at, to, input);
        }
        if let Some(before) = before {
            let suspects = self.nodes[i].suspects();
            if suspects.len() != before {
                self.note(|| format!("{now} {i} suspects {suspects:?}"));
            }
        }
        self.set_wake(i);
    }

    fn set_wake(&mut self, i: usize) {
        let wake = self.wake(i);
        if wake != self.queued[i] {
            self.queued[i] = wake;
            self.wakes.push(Reverse((wake, i)));
        }
    }

    /// The first that does something by itself, and when: it stays queued.
    fn next_wake(&mut self) -> (u64, usize) {
        while let Some(&Reverse((at, i))) = self.wakes.peek() {
            if self.queued[i] == at && self.wake(i) == at {
                return (at, i);
            }
            self.wakes.pop();
            if self.queued[i] == at {
                self.queued[i] = u64::MAX;
                self.set_wake(i);
            }
        }
        (u64::MAX, 0)
    }

    fn later(&mut self, at: u64, to: usize, input: Input) {
        self.flights.push(Reverse((at, self.inputs.len() as u64, to)));
        self.inputs.push(Some(input));
    }

    /// When machine `i` next does something by itself.
    fn wake(&self, i: usize) -> u64 {
        let skew = (i as u64 * 37) % 11 * SEC;
        let due = self.nodes[i].wake_at().map_or(u64::MAX, |(at, _)| at.0.saturating_sub(skew));
        due.max(self.still[i])
    }

    fn run(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            let wake = self.next_wake();
            let flight = self.flights.peek().map_or(u64::MAX, |f| f.0.0);
            if wake.0.min(flight) > end {
                self.now = end;
                return;
            }
            if flight < wake.0 {
                let Reverse((at, number, to)) = self.flights.pop().unwrap();
                self.now = self.now.max(at);
                if self.still[to] == u64::MAX {
                    continue;
                }
                if self.still[to] > self.now {
                    // It waits in the socket, in its order.
                    self.flights.push(Reverse((self.still[to], number, to)));
                    continue;
                }
                let input = self.inputs[number as usize].take().unwrap();
                self.feed(to, input);
            } else {
                self.now = self.now.max(wake.0);
                self.feed(wake.1, Input::Wake);
            }
        }
    }

    fn crash(&mut self, i: usize) {
        self.still[i] = u64::MAX;
    }

    fn pause(&mut self, i: usize, time: u64) {
        self.still[i] = self.now + time;
    }

    fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|i| self.still[*i] != u64::MAX)
    }

    fn standing(&self, by: usize, of: usize) -> Option<Standing> {
        let suspects = self.nodes[by].suspects();
        suspects.iter().find(|s| s.name == self.machines[of].name).map(|s| s.state)
    }

    /// Who suspects whom, among those who have not crashed.
    fn slanders(&self) -> Vec<(usize, usize)> {
        let pairs = self.alive().flat_map(|by| self.alive().map(move |of| (by, of)));
        pairs.filter(|(by, of)| self.standing(*by, *of).is_some()).collect()
    }

    /// How long until all others suspect machine `of`.
    fn suspected_by_all(&mut self, of: usize, within: u64) -> u64 {
        let since = self.now;
        while self.alive().any(|by| self.standing(by, of).is_none()) {
            assert!(self.now - since < within, "not suspected by all in {} ms", within / MS);
            self.run(10 * MS);
        }
        self.now - since
    }
}

fn news(envelope: &Envelope) -> usize {
    match &envelope.message {
        Message::Probe { gossip, .. } | Message::ProbeFor { gossip, .. } | Message::Alive { gossip, .. } => {
            gossip.news().len()
        }
        _ => 0,
    }
}

fn crash(count: usize, seed: u64, within: u64) -> u64 {
    let mut world = World::new(count, seed);
    world.run(15 * SEC + seed * 17 * MS);
    assert_eq!(world.slanders(), [], "seed {seed}");
    world.crash(3);
    let took = world.suspected_by_all(3, within);
    assert_eq!(world.slanders(), [], "seed {seed}");
    took
}

#[test]
fn a_crash_among_nine_is_suspected_by_all_within_a_second() {
    let took: Vec<u64> = (0..100).map(|seed| crash(9, seed, 2 * SEC)).collect();
    let late = took.iter().filter(|took| **took >= SEC).count();
    let longest = took.iter().max().unwrap() / MS;
    assert!(late <= 1, "{late} of 100 took a second or more, the longest {longest} ms");
}

#[test]
fn a_crash_among_fifty_is_suspected_by_all_within_three_seconds() {
    for seed in 0..10 {
        crash(50, seed, 3 * SEC);
    }
}

#[test]
fn four_of_nine_crash_at_once_and_count_as_down_two_seconds_later() {
    for seed in 0..20 {
        let mut world = World::new(9, seed);
        world.run(5 * SEC);
        (0..4).for_each(|i| world.crash(i));
        for of in 0..4 {
            world.suspected_by_all(of, 4 * SEC);
        }
        world.run(3 * SEC);
        for (by, of) in (4..9).flat_map(|by| (0..4).map(move |of| (by, of))) {
            assert_eq!(world.standing(by, of), Some(Standing::Down), "seed {seed}: {by} of {of}");
        }
        assert_eq!(world.slanders(), [], "seed {seed}");
    }
}

#[test]
fn a_suspect_names_who_missed_it_and_since_when() {
    let mut world = World::new(9, 1);
    world.run(5 * SEC);
    let crashed = world.clock(0);
    world.crash(8);
    world.run(3 * SEC);
    let suspects = world.nodes[0].suspects();
    let [suspect] = &suspects[..] else { panic!("{suspects:?}") };
    assert_eq!(suspect.name, world.machines[8].name);
    assert!(suspect.by.len() >= 3, "several witnesses: {suspect:?}");
    assert!(!suspect.by.contains(&suspect.name));
    // An age is rounded up to a millisecond wherever it is passed on.
    let after = suspect.since.mono.0.abs_diff(crashed.mono.0);
    assert!(after < SEC, "{} ms from the crash", after / MS);
    assert_eq!(suspect.since.wall - crashed.wall, suspect.since.mono.0 - crashed.mono.0);
}

#[test]
fn pauses_and_a_link_lost_one_way_leave_no_suspicion_behind() {
    for seed in 0..10 {
        let mut world = World::new(9, seed);
        world.cut.push((1, 2));
        world.run(5 * SEC);
        let mut suspected = 0;
        for _ in 0..20 {
            world.pause(5, 300 * MS);
            // 300 ms of pause, and as long to refute what was said meanwhile.
            world.run(700 * MS);
            assert_eq!(world.slanders(), [], "seed {seed}");
            for _ in 0..23 {
                world.run(100 * MS);
                suspected += world.slanders().len();
            }
        }
        assert_eq!(suspected, 0, "seed {seed}");
    }
}

#[test]
fn a_machine_back_from_a_long_pause_is_alive_at_once_and_blames_nobody() {
    let mut world = World::new(9, 4);
    world.run(5 * SEC);
    world.pause(6, 5 * SEC);
    world.run(4_900 * MS);
    assert!((0..9).filter(|by| *by != 6).all(|by| world.standing(by, 6) == Some(Standing::Down)));
    world.run(400 * MS);
    assert_eq!(world.slanders(), []);
    world.run(10 * SEC);
    assert_eq!(world.slanders(), []);
}

#[test]
fn a_suspicion_is_refuted_among_those_whom_the_suspect_has_not_spoken_to() {
    for seed in 0..5 {
        let mut world = World::new(50, seed);
        world.run(15 * SEC);
        world.pause(6, 2 * SEC);
        world.run(1_990 * MS);
        assert_eq!((0..50).filter(|by| world.standing(*by, 6).is_some()).count(), 49, "seed {seed}");
        // Its own words alone would take a whole round of probes to reach them all: twelve seconds.
        world.run(SEC);
        assert_eq!(world.slanders(), [], "seed {seed}");
    }
}

#[test]
fn who_stood_still_waits_again_for_the_answer_it_slept_through() {
    let mut world = World::new(9, 3);
    world.run(5 * SEC);
    let last = |world: &World| world.trace().lines().last().unwrap_or_default().to_string();
    while !(last(&world).split(' ').nth(1) == Some("6") && last(&world).ends_with(" probe")) {
        world.run(MS / 10);
    }
    world.pause(6, 3 * SEC);
    world.run(2_999 * MS);
    let slept = world.trace().len();
    world.run(200 * MS);
    let asked = world.trace()[slept..].lines().filter(|l| l.split(' ').nth(1) == Some("6"));
    assert_eq!(asked.filter(|l| l.ends_with("probe_for")).count(), 0, "it asked nobody about its own sleep");
}

#[test]
fn a_slow_machine_doubts_itself_before_all_others() {
    for seed in 0..10 {
        let mut world = World::new(9, seed);
        world.run(5 * SEC);
        world.slow[2] = 400 * MS;
        for _ in 0..300 {
            world.run(100 * MS);
            let blamed = (0..9).filter(|of| world.standing(2, *of).is_some()).count();
            assert!(blamed <= 1, "seed {seed}: it suspects {blamed}");
            let others = world.slanders().iter().filter(|(_, of)| *of != 2).count();
            assert!(others <= 9, "seed {seed}: {others}");
        }
    }
}

/// Whose every wake-up is late takes longer to judge, and still does; with nobody else there to tell it.
#[test]
fn a_machine_that_is_always_late_still_notices_a_crash() {
    let mut world = World::new(2, 2);
    world.run(5 * SEC);
    world.crash(0);
    for _ in 0..100 {
        // 138 ms of every 140 it stands still.
        world.pause(1, 138 * MS);
        world.run(140 * MS);
    }
    assert!(world.standing(1, 0).is_some());
    assert_eq!(world.slanders(), []);
}

#[test]
fn a_lost_connection_is_looked_into_at_once() {
    let mut world = World::new(9, 7);
    world.run(5 * SEC);
    world.crash(0);
    let name = world.machines[0].name;
    world.feed(1, Input::Reachable { name, reachable: false });
    assert!(world.suspected_by_all(0, SEC) <= 250 * MS);
    // One that lives, and only lost its connection, is not suspected.
    let name = world.machines[4].name;
    world.feed(1, Input::Reachable { name, reachable: false });
    world.run(SEC);
    assert_eq!(world.slanders(), []);
}

/// Of each ten machines one stands still now and then, for a tenth of a second up to half a minute.
struct Stalls {
    next: Vec<(usize, u64)>,
    count: u64,
}

impl Stalls {
    fn among(world: &mut World) -> Self {
        let of = (0..world.nodes.len()).filter(|i| i % 10 == 5);
        let next = of.map(|i| (i, world.now + world.rng.random_range(0..20 * SEC))).collect();
        Self { next, count: 0 }
    }

    /// As [`World::run`], with whoever is due to stand still.
    fn run(&mut self, world: &mut World, time: u64) {
        let end = world.now + time;
        while world.now < end {
            let now = world.now;
            for (i, at) in self.next.iter_mut().filter(|(_, at)| *at <= now) {
                let longest: f64 = 300.0;
                let stall = (world.rng.random_range(0.0..longest.ln()).exp() * 100.0) as u64 * MS;
                world.pause(*i, stall);
                *at = now + stall + world.rng.random_range(SEC..20 * SEC);
                self.count += 1;
            }
            world.run(50 * MS);
        }
    }

    fn is_one(&self, i: usize) -> bool {
        self.next.iter().any(|(of, _)| *of == i)
    }
}

/// How long until all who never stand still suspect machine `of`.
fn agreed(world: &mut World, stalls: &mut Stalls, of: usize) -> u64 {
    let since = world.now;
    while world.alive().any(|by| !stalls.is_one(by) && world.standing(by, of).is_none()) {
        assert!(world.now - since < 20 * SEC, "not suspected by all in 20 s");
        stalls.run(world, 50 * MS);
    }
    world.now - since
}

fn quantiles(took: &mut [u64]) -> String {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)] / MS;
    format!("p50 {} ms, p99 {} ms, of {}", at(50), at(99), took.len())
}

/// A drop would be a decree, which a machine has to write down: `World::feed` lets nobody do that.
#[test]
fn among_a_hundred_ten_stand_still_now_and_then_and_nobody_is_dropped_for_it() {
    let mut world = World::crowd(100, 1);
    world.run(10 * SEC);
    let mut stalls = Stalls::among(&mut world);
    let (mut looks, mut slandered) = (0, 0);
    for _ in 0..60 {
        stalls.run(&mut world, SEC);
        let steady: Vec<usize> = (0..100).filter(|i| !stalls.is_one(*i)).collect();
        looks += steady.len() * (steady.len() - 1);
        for by in &steady {
            let suspects = world.nodes[*by].suspects();
            slandered += suspects
                .iter()
                .filter(|s| steady.iter().any(|of| world.machines[*of].name == s.name))
                .count();
        }
    }
    println!(
        "{} stalls in a minute; of {looks} looks at one that never stood still, {slandered} saw it suspected",
        stalls.count
    );
    assert!(slandered * 1_000 <= looks, "{slandered} of {looks}");
    for i in 0..100 {
        assert_eq!(world.nodes[i].view().unwrap().members().len(), 100);
    }
    // The last one awakes.
    world.run(35 * SEC);
    assert_eq!(world.slanders(), []);
}

#[test]
fn a_crash_among_a_hundred_is_agreed_upon_whoever_stands_still() {
    let mut took: Vec<u64> = Vec::new();
    for seed in 0..5 {
        let mut world = World::crowd(100, seed);
        world.run(10 * SEC);
        let mut stalls = Stalls::among(&mut world);
        for of in [3, 33, 63, 93] {
            stalls.run(&mut world, 3 * SEC + seed * 37 * MS);
            world.crash(of);
            took.push(agreed(&mut world, &mut stalls, of));
        }
    }
    println!("100 machines, 10 of them stalling: crash to agreed suspicion {}", quantiles(&mut took));
    assert!(took[took.len() / 2] <= 3 * SEC);
}

/// Minutes: `MACHINES=1000 cargo test --release -p ennead-ring --test detector hundreds -- --ignored --nocapture`.
#[test]
#[ignore = "minutes"]
fn a_crash_among_hundreds_is_agreed_upon_whoever_stands_still() {
    let count = std::env::var("MACHINES").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut took: Vec<u64> = Vec::new();
    let mut world = World::crowd(count, 1);
    world.run(10 * SEC);
    let mut stalls = Stalls::among(&mut world);
    for of in 0..8 {
        stalls.run(&mut world, SEC + of as u64 * 37 * MS);
        world.crash(of * 20);
        took.push(agreed(&mut world, &mut stalls, of * 20));
    }
    println!("{count} machines, a tenth stalling: crash to agreed suspicion {}", quantiles(&mut took));
    assert!(took[took.len() / 2] <= 3 * SEC);
}

#[test]
fn the_load_of_a_machine_does_not_grow_with_their_number() {
    for count in [2, 9, 50, 150] {
        let mut world = World::new(count, 1);
        world.run(5 * SEC);
        world.sent.iter_mut().for_each(|sent| *sent = 0);
        world.run(20 * SEC);
        let all: u64 = world.sent.iter().sum();
        let each = all / count as u64 / 20;
        assert!((6..=9).contains(&each), "{count} machines: {each} messages a second each");
        let most = world.sent.iter().max().unwrap() / 20;
        assert!(most <= 12, "{count} machines: {most} messages a second at most");
        assert!(world.longest <= MAX_NEWS);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(9, seed);
        world.run(3 * SEC);
        world.crash(2);
        world.pause(3, 300 * MS);
        world.run(3 * SEC);
        world.trace().to_owned()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

#[test]
fn without_probes_nothing_is_said() {
    let tuning = Tuning::default();
    assert_eq!(tuning.probe_every, 0, "golden conversations and the simulator's seeds rest on it");
}

#[test]
fn more_news_than_a_message_may_carry_is_refused() {
    let config = bincode::config::standard();
    let machine = World::new(1, 0).machines[0];
    let said = Said::Silent { by: machine.name, age: 7 };
    let full = Gossip::new(vec![News { of: machine, refuted: 3, said }; MAX_NEWS + 5]);
    assert_eq!(full.news().len(), MAX_NEWS);
    let mut bytes = bincode::encode_to_vec(&full, config).unwrap();
    let (back, _): (Gossip, usize) = bincode::decode_from_slice(&bytes, config).unwrap();
    assert_eq!(back, full);
    bytes[0] += 1;
    assert!(bincode::decode_from_slice::<Gossip, _>(&bytes, config).is_err());
}
