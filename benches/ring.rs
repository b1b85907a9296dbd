//! The protocol's own costs: positions, placement, counting, and one acceptor's step. `cargo bench --bench ring`

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::print_stderr, reason = "a bench talks to the person who runs it")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ennead_ring::effect::{Account, Decree, Effect, Input, Limits, Loaded, Mono, Now};
use ennead_ring::message::{Addr, Ask, Envelope, Message};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::{
    Ballot, Chain, ClusterId, Epoch, Hlc, Incarnation, Key, Machine, Member, MemberState, Name, Node,
    Position, Ring, SlotSet, Stamp, State, Tally, View, Zone,
};

fn name(number: u32) -> Name {
    let [_, a, b, c] = number.to_be_bytes();
    Name::new(([10, a, b, c], 9595).into())
}

fn view(machines: u32, weight: u32, zones: u32) -> View {
    let member = |number: u32| {
        let machine = Machine { name: name(number), incarnation: Incarnation::new(u64::from(number)) };
        let zone = format!("zone-{}", number % zones).parse().expect("a zone");
        Member::new(machine, (weight, zone), MemberState::Up)
    };
    View::new(ClusterId::new(1), Epoch::FIRST, 9, (1..=machines).map(member).collect(), vec![])
        .expect("a valid view")
}

fn positions(c: &mut Criterion) {
    c.bench_function("position/md5 of 16 bytes", |b| {
        let position = Position::of(b"mail-23412");
        b.iter(|| black_box(position).next());
    });
    c.bench_function("position/chain of nine", |b| b.iter(|| Chain::of(black_box(b"mail-23412"), 9)));
}

fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    for (machines, weight, zones) in [(16, 64, 1), (1_563, 64, 1), (1_563, 64, 3), (10_000, 1_000, 1)] {
        let view = view(machines, weight, zones);
        let total = u64::from(machines) * u64::from(weight);
        let id = if zones > 1 { format!("{total} in {zones} zones") } else { total.to_string() };
        group.throughput(Throughput::Elements(total));
        if total <= 200_000 {
            group
                .bench_with_input(BenchmarkId::new("build", &id), &view, |b, view| b.iter(|| Ring::of(view)));
        }
        let ring = Ring::of(&view);
        // Printed, not asserted: the assertion is `ring/tests/placement.rs`'s.
        eprintln!("{} positions: {:.1} MiB", ring.positions(), ring.bytes() as f64 / f64::from(1 << 20));
        let chains: Vec<Chain> = (0..4_096u32).map(|i| Chain::of(&i.to_be_bytes(), 9)).collect();
        group.throughput(Throughput::Elements(1));
        let mut next = 0;
        group.bench_function(BenchmarkId::new("nine owners", &id), |b| {
            b.iter(|| {
                next = (next + 1) % chains.len();
                ring.owners(black_box(&chains[next]))
            });
        });
    }
}

fn counting(c: &mut Criterion) {
    c.bench_function("quorum/five votes of one epoch", |b| {
        b.iter(|| {
            let mut tally = Tally::default();
            for slot in 1..=5 {
                tally.add(black_box(Epoch::FIRST), SlotSet::EMPTY.with(slot));
            }
            tally.reached(9)
        });
    });
}

/// A member of a cluster of nine that has one key in memory.
fn acceptor() -> (Node, Addr, Key) {
    let view = view(9, 64, 1);
    let me = view.members()[0].machine;
    let from = Addr::Machine(view.members()[1].machine);
    let setup = Setup {
        me,
        weight: 64,
        zone: Zone::NONE,
        limits: Limits::default(),
        views: vec![Arc::new(view)],
        account: Account { settled: Epoch::FIRST, synced: vec![Epoch::FIRST], left: false },
        decree: Decree::default(),
        birth: Birth::None,
        tuning: Tuning::default(),
        seed: 1,
        rules: Rules::default(),
    };
    let key = Key::new("mail-23412").expect("a key");
    (Node::new(setup, Now::default()), from, key)
}

fn acceptor_step(c: &mut Criterion) {
    let (mut node, from, key) = acceptor();
    let now = Now { mono: Mono(1), wall: 1_000_000_000 };
    let state = Arc::new(State { version: 1, value: Some(vec![7; 256].into()), ..State::default() });
    let mut effects: Vec<Effect> = Vec::new();
    let mut n = 0;
    let mut accept = move || {
        n += 1;
        let ballot = Ballot { time: Hlc::from_nanos(2_000_000_000), by: Incarnation::new(2) };
        let (key, stamp, state) = (key.clone(), Stamp { ballot, n }, state.clone());
        let message = Message::Accept { ask: Ask(1), key, stamp, state };
        let envelope = Envelope { cluster: Some(ClusterId::new(1)), epoch: Epoch::FIRST, message };
        Input::Message { from, envelope: Box::new(envelope) }
    };
    node.handle(now, accept(), &mut effects);
    for effect in effects.split_off(0) {
        if let Effect::Load { key } = effect {
            node.handle(now, Input::Loaded { key, found: Loaded::Nothing }, &mut effects);
        }
    }
    effects.clear();
    c.bench_function("acceptor/accept of 256 bytes, key in memory", |b| {
        b.iter_batched(
            &mut accept,
            |input| {
                node.handle(now, input, &mut effects);
                effects.drain(..).count()
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(ring, positions, placement, counting, acceptor_step);
criterion_main!(ring);
