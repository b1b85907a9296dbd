//! Writes down what happens to the machines of a run, as a script.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ennead_ring::effect::Input;
use ennead_ring::message::{Addr, Ask, Envelope, Message, Op, Wish as Wanted};
use ennead_ring::node::Birth;
use ennead_ring::{Machine, Name};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::checker::Call;
use crate::faults::Profile;
use crate::said::Known;
use crate::script::{Cast, Script, Step, What, Who, Wish};
use crate::world::{BIRTH, World};

/// See the module's caption.
pub(crate) struct Recorder {
    script: Script,
    known: Known,
    /// Calls that were begun: key, and what was asked.
    calls: Vec<(usize, Call)>,
    /// The one that each client is at.
    at: HashMap<usize, usize>,
    /// The call that each question of a client is for.
    asks: HashMap<Ask, usize>,
}

/// Runs a seed, and writes down what happens. `None` if it does not fail.
pub(crate) fn record(seed: u64, profile: impl FnOnce(&mut StdRng) -> Profile) -> Option<(String, Script)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let profile = profile(&mut rng);
    let mut world = World::new(rng, profile, false);
    let cast = Cast {
        incarnations: world.computers.iter().map(|c| c.me.incarnation.id()).collect(),
        founders: world.profile.founders,
        cluster: 0,
        slots: world.profile.slots,
        weight: world.profile.weight,
        keys: world.keys.len(),
        tuned: Cast::tuned(&world.profile.tuning),
    };
    let recorder = Rc::new(RefCell::new(Recorder {
        known: Known::of(&cast),
        script: Script { cast, steps: Vec::new() },
        calls: Vec::new(),
        at: HashMap::new(),
        asks: HashMap::new(),
    }));
    world.recorder = Some(recorder.clone());
    let result = catch_unwind(AssertUnwindSafe(|| {
        let result = world.live(&mut |_| {});
        if let Some(view) = &world.views.newest {
            recorder.borrow_mut().script.cast.cluster = view.view.cluster().id();
        }
        result
    }));
    let what = match result {
        Ok(Ok(())) => return None,
        Ok(Err(what)) => what,
        Err(_) => "panic".to_owned(),
    };
    let script = recorder.borrow().script.clone();
    Some((what, script))
}

impl World {
    /// This happens to a machine now.
    pub(super) fn record(&mut self, machine: usize, what: impl FnOnce(&Self) -> Option<What>) {
        let Some(recorder) = self.recorder.clone() else { return };
        let Some(what) = what(self) else { return };
        let wall = i128::from(self.wall(self.computers[machine].skew));
        let off = (wall - BIRTH - i128::from(self.now)) as i64;
        recorder.borrow_mut().script.steps.push(Step { at: self.now, off, machine, what });
    }

    pub(super) fn starts(&self, m: usize, seed: u64) -> What {
        let rotten = |key: &usize| self.computers[m].disk.is_rotten(self.keys.get(*key));
        let joins = match self.birth_of(m) {
            Birth::Join(to) => to.iter().filter_map(|name| self.by_name.get(name).copied()).collect(),
            Birth::None | Birth::Init { .. } => Vec::new(),
        };
        What::Starts { seed, unreadable: (0..self.keys.len()).filter(rotten).collect(), joins }
    }

    /// A machine has another incarnation.
    pub(super) fn record_anew(&mut self, m: usize, restored: bool) {
        let incarnation = self.computers[m].me.incarnation;
        self.record(m, |_| Some(What::Anew { incarnation: incarnation.id(), restored }));
        if let Some(recorder) = &self.recorder {
            recorder.borrow_mut().known.anew(m, incarnation);
        }
    }

    fn who(&self, machine: Machine) -> Option<Who> {
        self.recorder.as_ref()?.borrow().known.who(machine.incarnation)
    }

    pub(super) fn record_input(&mut self, m: usize, input: &Input) {
        self.record(m, |world| match input {
            Input::Message { from: Addr::Machine(machine), envelope } => {
                let from = *world.by_name.get(&machine.name)?;
                // A forgery is nobody's word; that of a machine which has begun anew since is its own.
                world.who(*machine).filter(|who| who.0 == from)?;
                Some(What::Hears { from, said: world.said(envelope, Addr::Machine(*machine)) })
            }
            Input::Message { from: Addr::Client(_), envelope } => world.asked(&envelope.message),
            Input::Loaded { key, .. } => world.keys.place(key).map(What::HasRead),
            Input::Scanned { scan, .. } => Some(What::HasScanned(scan.0)),
            Input::Reachable { name, reachable } => {
                Some(What::Hint { of: world.by_name[name], reachable: *reachable })
            }
            Input::Wake => Some(What::Wakes),
            Input::Health(health) => Some(What::Room(!health.full)),
        });
    }

    fn said(&self, envelope: &Envelope, to: Addr) -> String {
        let recorder = self.recorder.as_ref().expect("somebody records");
        recorder.borrow().known.said(envelope, to, |key| self.keys.place(key))
    }

    fn asked(&self, message: &Message) -> Option<What> {
        match message {
            Message::Wish { wish: Wanted::Leave { machine }, .. } => {
                return self.who(*machine).map(What::Leaves);
            }
            Message::Wish { wish: Wanted::Remove { machine }, .. } => {
                return self.who(*machine).map(What::Gone);
            }
            _ => {}
        }
        let recorder = self.recorder.as_ref()?.borrow();
        let (ask, wish) = match message {
            Message::Read { ask, key, .. } => (ask, Wish::Copy { key: self.keys.place(key)? }),
            Message::Request { ask, key, op, within, .. } => {
                let call = recorder.calls.get(*recorder.asks.get(ask)?)?.1;
                let (id, again) = match op {
                    Op::Write(write) => (write.id.time.nanos(), write.again),
                    Op::Read | Op::Settle => (BIRTH as u64, false),
                };
                let id = (i128::from(id) - BIRTH) as i64;
                (ask, Wish::Of { key: self.keys.place(key)?, call, id, within: *within, again })
            }
            _ => return None,
        };
        Some(What::Asked { call: *recorder.asks.get(ask)?, wish })
    }

    /// A client begins a call.
    pub(crate) fn record_call(&mut self, client: usize, key: usize, call: Call) {
        let Some(recorder) = &self.recorder else { return };
        let mut recorder = recorder.borrow_mut();
        recorder.calls.push((key, call));
        let last = recorder.calls.len() - 1;
        recorder.at.insert(client, last);
    }

    /// It asks somebody, for that.
    pub(crate) fn record_ask(&mut self, client: usize, ask: Ask) {
        let Some(recorder) = &self.recorder else { return };
        let mut recorder = recorder.borrow_mut();
        if let Some(call) = recorder.at.get(&client).copied() {
            recorder.asks.insert(ask, call);
        }
    }

    /// It hears something.
    pub(crate) fn record_told(&mut self, from: Name, envelope: &Envelope) {
        let from = self.by_name[&from];
        self.record(from, |world| {
            let (Message::Outcome { ask, .. } | Message::Answer { ask, .. }) = &envelope.message else {
                return None;
            };
            let call = *world.recorder.as_ref()?.borrow().asks.get(ask)?;
            Some(What::Tells { call, said: world.said(envelope, Addr::Client(0)) })
        });
    }
}
