//! Storage is its model through restarts and power cuts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ennead_ring::{Account, Change, Decree, Limits, Loaded, View};
use proptest::prelude::*;

use super::faulty_disk::{Faults, Torn};
use super::{Rig, account, decree, forget, key, limits, put, record, small, view};
use crate::storage::Options;

/// What a storage should hold after so many changes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    records: BTreeMap<u32, u32>,
    limits: Limits,
    /// Those that a restart may forget are gone at once.
    views: Vec<Arc<View>>,
    account: Account,
    decree: Decree,
}

impl Model {
    fn forget_views(&mut self) {
        let settled = self.account.settled;
        let newest = self.views.last().cloned();
        self.views.retain(|view| view.epoch() >= settled || Some(view) == newest.as_ref());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    Forget(u32),
    Limits,
    View,
    Account { behind: u32 },
    Decree,
    Load(u32),
    Scan { keys: usize },
    Settle,
    Restart,
    PowerCut { after: u64, torn: Torn },
}

fn step() -> impl Strategy<Value = Step> {
    let torn = prop_oneof![
        Just(Torn::Nothing),
        (0..3000usize).prop_map(Torn::Prefix),
        any::<u64>().prop_map(Torn::Sectors)
    ];
    prop_oneof![
        40 => (0..40u32).prop_map(Step::Put),
        15 => (0..40u32).prop_map(Step::Forget),
        3 => Just(Step::Limits),
        2 => Just(Step::View),
        1 => (0..3u32).prop_map(|behind| Step::Account { behind }),
        1 => Just(Step::Decree),
        8 => (0..45u32).prop_map(Step::Load),
        4 => (1..50usize).prop_map(|keys| Step::Scan { keys }),
        4 => Just(Step::Settle),
        1 => Just(Step::Restart),
        2 => (1..6u64, torn).prop_map(|(after, torn)| Step::PowerCut { after, torn }),
    ]
}

/// A storage, and every state it went through since what is known to be durable.
struct Twin {
    dir: tempfile::TempDir,
    faults: Arc<Faults>,
    rig: Option<Rig>,
    /// The state after each change since the last restart; the first is what that restart found.
    states: Vec<Model>,
    written: u32,
}

impl Twin {
    fn new() -> Self {
        let mut twin = Self {
            dir: tempfile::tempdir().unwrap(),
            faults: Arc::default(),
            rig: None,
            states: vec![Model::default()],
            written: 0,
        };
        twin.open();
        twin
    }

    fn open(&mut self) {
        self.faults = Arc::default();
        let options = Options { disks: self.faults.disks(), ..small() };
        self.rig = Some(Rig::open(self.dir.path(), options).unwrap());
    }

    fn now(&self) -> Model {
        self.states.last().unwrap().clone()
    }

    fn persist(&mut self, change: Change, state: Model) {
        self.rig.as_mut().unwrap().persist(change);
        self.states.push(state);
    }

    /// Opens again, after so many changes were acknowledged: finds the state after these or more.
    fn reopen(&mut self, acknowledged: u64) {
        self.rig = None;
        self.open();
        let rig = self.rig.as_mut().unwrap();
        let mut found = Model {
            records: BTreeMap::new(),
            limits: rig.restored.limits,
            views: rig.restored.views.clone(),
            account: rig.restored.account.clone(),
            decree: rig.restored.decree.clone(),
        };
        for n in 0..45 {
            match rig.get(n) {
                Loaded::Nothing => {}
                Loaded::Record(record) => {
                    assert_eq!(record, self::record(record.stamp.n, 50));
                    found.records.insert(n, record.stamp.n);
                }
                Loaded::Unreadable => panic!("key-{n} is unreadable"),
            }
        }
        let from = acknowledged as usize;
        assert!(
            self.states[from..].contains(&found),
            "after {from} acknowledged changes of {}: {found:?}\nexpected {:?}\nor later",
            self.states.len() - 1,
            self.states[from]
        );
        self.states = vec![found];
        self.scan(7);
    }

    fn scan(&mut self, keys: usize) {
        let state = self.now();
        let kept = state.records.iter().map(|(&n, &value)| (key(n), Loaded::Record(record(value, 50))));
        let expected: BTreeMap<_, _> = kept.collect();
        let scanned = self.rig.as_mut().unwrap().scan(keys).unwrap();
        assert_eq!(scanned, expected.into_iter().collect::<Vec<_>>());
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(n) => {
                self.written += 1;
                let mut state = self.now();
                state.records.insert(n, self.written);
                self.persist(put(n, self.written), state);
            }
            Step::Forget(n) => {
                let mut state = self.now();
                state.records.remove(&n);
                self.persist(forget(n), state);
            }
            Step::Limits => {
                self.written += 1;
                let limits = limits(u64::from(self.written));
                let state = Model { limits, ..self.now() };
                self.persist(Change::Limits(limits), state);
            }
            Step::View => {
                self.written += 1;
                let mut state = self.now();
                state.views.push(view(self.written));
                state.forget_views();
                self.persist(Change::View(view(self.written)), state);
            }
            Step::Account { behind } => {
                let mut state = self.now();
                let newest = state.views.last().map_or(0, |view| view.epoch().number);
                // As a machine would, or so that it knows of none.
                let settled =
                    state.views.iter().rev().nth(behind as usize).map_or(newest, |v| v.epoch().number);
                state.account = account(settled.max(state.account.settled.number));
                state.forget_views();
                self.persist(Change::Account(state.account.clone()), state);
            }
            Step::Decree => {
                self.written += 1;
                let state = Model { decree: decree(self.written), ..self.now() };
                self.persist(Change::Decree(decree(self.written)), state);
            }
            Step::Scan { keys } => self.scan(keys),
            Step::Load(n) => {
                let expected = self.now().records.get(&n).map(|&value| record(value, 50));
                let found = self.rig.as_mut().unwrap().get(n);
                assert_eq!(found, expected.map_or(Loaded::Nothing, Loaded::Record));
            }
            Step::Settle => self.rig.as_mut().unwrap().settle().unwrap(),
            Step::Restart => {
                let all = self.states.len() as u64 - 1;
                self.reopen(all);
            }
            Step::PowerCut { after, torn } => {
                self.faults.fail(self.faults.syncs() + after, io::ErrorKind::Other, torn);
                for n in 0..60 {
                    self.run(if n % 7 == 3 { Step::Forget(n % 40) } else { Step::Put(n % 40) });
                }
                let rig = self.rig.as_mut().unwrap();
                let _ = rig.settle();
                let acknowledged = rig.durable.0;
                self.reopen(acknowledged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn storage_is_its_model_through_restarts_and_power_cuts(steps in prop::collection::vec(step(), 1..250)) {
        let mut twin = Twin::new();
        for step in steps {
            twin.run(step);
        }
        twin.run(Step::Restart);
    }
}
