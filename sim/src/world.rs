//! The world around the nodes: one queue of events in virtual time, one random generator, nothing else.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ennead_ring::effect::{Effect, Input};
use ennead_ring::node::Birth;
use ennead_ring::view::DEFAULT_PORT;
use ennead_ring::{ClusterId, Epoch, Incarnation, Machine, Member, MemberState, Name, View};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::asked::Asked;
use crate::checker::{self, Op};
use crate::chosen::Chosen;
use crate::client::Client;
use crate::computer::{Computer, Role};
use crate::cuts::Cut;
use crate::disaster::{self, Disaster};
use crate::disk::Disk;
use crate::events::{Event, Fault, Queue};
use crate::faults::Profile;
use crate::least::Least;
use crate::lister::Lister;
use crate::measure::{Metrics, Watched};
use crate::probes::forget_rare;
use crate::recorder::Recorder;
use crate::report::{Called, Counts, Failure, Report};
use crate::strike::LONGEST_PAUSE;
use crate::survey::Survey;
use crate::views::{Keys, Views};
use crate::{MS, SEC, places};

/// November 2026: where the wall clocks start.
pub(super) const BIRTH: i128 = 1_795_000_000_000_000_000;
/// However slow, a run's faults end by then.
const LONGEST: u64 = 60 * SEC;
/// Where membership is still, one run in so many compares copies before the audit. In the others the audit finds what faults
/// left behind, and mends it.
const STILL: u64 = 4;
/// Moments of a long run at which it is noted how things stand.
const SAMPLES: u64 = 600;

/// Everything.
pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) lister: Option<Lister>,
    pub(crate) keys: Keys,
    pub(crate) views: Views,
    pub(super) chosen: Vec<Chosen>,
    pub(super) disaster: Disaster,
    /// The founders are members all.
    founded: bool,
    /// Machines that were members once and then were not.
    pub(super) ever: HashSet<Machine>,
    /// What had to move so far.
    pub(super) least: Least,
    /// Dead machines that the operator wants removed.
    pub(super) removals: Vec<Machine>,
    /// The key of each question that a machine asked another.
    pub(super) asked: Asked,
    pub(crate) histories: Vec<Vec<Op>>,
    pub(super) took: Vec<(u64, u64)>,
    /// Puts with an expiry: key, value, start.
    pub(crate) expiring: Vec<(usize, Op)>,
    pub(crate) last_ask: u64,
    pub(crate) counts: Counts,
    pub(super) probes: HashMap<&'static str, u64, foldhash::fast::FixedState>,
    pub(super) computers: Vec<Computer>,
    pub(super) by_name: HashMap<Name, usize, foldhash::fast::FixedState>,
    pub(super) queue: Queue,
    stamps: u64,
    values: u64,
    pub(super) steps: u64,
    pub(super) digest: u64,
    pub(super) cuts: Vec<Cut>,
    /// How often keys are used, added up; empty: all alike.
    pub(super) popularity: Vec<f64>,
    pub(super) metrics: Metrics,
    pub(super) watched: Vec<Watched>,
    pub(super) surveys: Vec<Survey>,
    pub(crate) calls: Vec<Called>,
    pub(super) faulty: bool,
    failure: Option<String>,
    pub(super) effects: Vec<Effect>,
    pub(super) trace: Option<Vec<String>>,
    /// Somebody writes down what happens to the machines.
    pub(super) recorder: Option<Rc<RefCell<Recorder>>>,
}

thread_local! {
    /// How far the run got, should it panic.
    pub(super) static PROGRESS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Runs a cluster through what `profile` says, from this seed.
///
/// # Errors
/// A claim did not hold, or something panicked.
pub fn run(seed: u64, profile: impl FnOnce(&mut StdRng) -> Profile, trace: bool) -> Result<Report, Failure> {
    run_telling(seed, profile, trace, &mut |_| {})
}

/// The same, and tells now and then how far it is.
///
/// # Errors
/// See [`run`].
pub fn run_telling(
    seed: u64,
    profile: impl FnOnce(&mut StdRng) -> Profile,
    trace: bool,
    told: &mut dyn FnMut(&Metrics),
) -> Result<Report, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let profile = profile(&mut rng);
    let moving = profile.moves();
    let left = Rc::new(RefCell::new((Vec::new(), Metrics::default())));
    let kept = left.clone();
    PROGRESS.set((0, 0));
    forget_rare();
    let result = catch_unwind(AssertUnwindSafe(move || {
        let mut world = World::new(rng, profile, trace);
        let result = world.live(told);
        for m in 0..world.computers.len() {
            world.add_moved(m);
        }
        world.look_what_came();
        world.metrics.overdrawn = world.views.overdrawn();
        *kept.borrow_mut() = (world.trace.take().unwrap_or_default(), std::mem::take(&mut world.metrics));
        result.map(|()| Report {
            digest: world.digest,
            steps: world.steps,
            virtual_time: world.now,
            counts: Counts { views: world.views.count().saturating_sub(1), ..world.counts },
            probes: world.rare(),
            trace: Vec::new(),
            metrics: Metrics::default(),
            histories: std::mem::take(&mut world.histories),
            took: std::mem::take(&mut world.took),
            calls: std::mem::take(&mut world.calls),
            surveys: std::mem::take(&mut world.surveys),
        })
    }));
    let (trace, metrics) = left.take();
    let what = match result {
        Ok(Ok(report)) => return Ok(Report { trace, metrics, ..report }),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    let (step, at) = PROGRESS.get();
    Err(Failure { seed, moving, step, at, what, trace, metrics: Box::new(metrics) })
}

/// How often so many keys are used, added up: the first few share a part of all evenly; of the others the n-th is used as
/// often as n^-s says.
fn popularity(keys: usize, s: f64, (hot, share): (usize, f64)) -> Vec<f64> {
    if s == 0.0 && hot == 0 {
        return Vec::new();
    }
    let cold: f64 = (1..=keys.saturating_sub(hot)).map(|n| libm::pow(n as f64, -s)).sum();
    let often = |n: usize| match n.checked_sub(hot) {
        Some(n) if hot == 0 => libm::pow(n as f64, -s),
        None | Some(0) => share / hot as f64,
        Some(n) => (1.0 - share) * libm::pow(n as f64, -s) / cold,
    };
    let add = |sum: &mut f64, n: usize| {
        *sum += often(n);
        Some(*sum)
    };
    (1..=keys).scan(0.0, add).collect()
}

/// 10.0.0.1 is the first.
pub(super) fn address(i: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | i as u32)
}

impl World {
    pub(super) fn new(mut rng: StdRng, mut profile: Profile, trace: bool) -> Self {
        if !profile.moves() {
            profile.founders = profile.machines;
        }
        let names: Vec<Name> =
            (1..=profile.machines).map(|i| Name::new((address(i), DEFAULT_PORT).into())).collect();
        let skew = |rng: &mut StdRng, most: u64| {
            if most == 0 { 0 } else { rng.random_range(-(most as i64)..=most as i64) }
        };
        let computers: Vec<Computer> = names
            .iter()
            .enumerate()
            .map(|(i, &name)| Computer {
                me: Machine { name, incarnation: Incarnation::new(rng.random_range(1..u64::MAX)) },
                role: if i < profile.founders { Role::In } else { Role::Out },
                reborn: None,
                birth: match i {
                    0 => Birth::Init { with: names[1..profile.founders].to_vec(), slots: profile.slots },
                    _ => Birth::Join(vec![names[0]]),
                },
                disk: Disk::default(),
                image: None,
                stands: Epoch::ZERO,
                node: None,
                life: 0,
                mono: 0,
                skew: skew(&mut rng, profile.skew),
                paused_until: 0,
                down_until: 0,
                slow: (1.0, 0),
                place: places::first(&profile, i),
                sending_until: 0,
                due: None,
                wake: None,
                restless: 0,
                waiting: Vec::new(),
            })
            .collect();
        let clients: Vec<Client> = (0..profile.clients)
            .map(|_| Client::new(profile.calls, skew(&mut rng, profile.client_skew)))
            .collect();
        let keys = Keys::new(profile.keys, profile.slots);
        Self {
            now: 0,
            clients,
            lister: profile.lists.then(Lister::default),
            views: Views::default(),
            chosen: keys.iter().map(|_| Chosen::default()).collect(),
            disaster: Disaster { charged: vec![Vec::new(); keys.len()], ..Disaster::default() },
            founded: false,
            ever: HashSet::new(),
            least: Least::default(),
            removals: Vec::new(),
            asked: Asked::default(),
            histories: vec![Vec::new(); keys.len()],
            took: Vec::new(),
            keys,
            expiring: Vec::new(),
            last_ask: 0,
            probes: HashMap::default(),
            counts: Counts::default(),
            by_name: names.iter().enumerate().map(|(i, &n)| (n, i)).collect(),
            computers,
            queue: Queue::default(),
            stamps: 0,
            values: 0,
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            cuts: Vec::new(),
            popularity: popularity(profile.keys, profile.zipf, (profile.hot_keys, profile.hot_share)),
            metrics: Metrics::default(),
            watched: Vec::new(),
            surveys: Vec::new(),
            calls: Vec::new(),
            faulty: profile.dirty_birth,
            failure: None,
            effects: Vec::new(),
            trace: trace.then(Vec::new),
            recorder: None,
            profile,
            rng,
        }
    }

    /// One life of the world: birth, load and faults, healing, audit, judgement.
    pub(super) fn live(&mut self, told: &mut dyn FnMut(&Metrics)) -> Result<(), String> {
        if self.profile.born {
            self.give_birth()?;
        }
        for m in 0..self.profile.founders {
            self.start(m);
        }
        if self.faulty {
            self.start_faults();
        } else {
            self.run_while(10 * SEC, |w| !w.born())?;
            if !self.born() {
                return Err("no cluster was born within 10 s".to_string());
            }
            self.founded = true;
            self.faulty = true;
            self.start_faults();
        }
        for c in 0..self.clients.len() {
            self.client_start(c);
        }
        self.lister_start();
        let span = self.now + self.profile.span;
        if self.profile.endless {
            let between = (self.profile.span / SAMPLES).max(100 * MS);
            while self.now < span {
                self.run_while(between.min(span - self.now), |_| true)?;
                self.sample();
                told(&self.metrics);
            }
        } else {
            self.run_while(LONGEST, |w| w.now < span || !w.clients.iter().all(Client::idle))?;
        }
        self.heal();
        // Whoever had not finished may do so now; then the audit.
        for client in &mut self.clients {
            client.left = 0;
        }
        let grace = self.profile.deadline + self.profile.replay_delay.min(5 * SEC);
        self.run_while(grace, |w| !w.clients.iter().all(Client::idle) || !w.born())?;
        if !self.born() {
            return Err("healed, and yet no cluster was born".to_string());
        }
        // A sync that was slow when all was healed is slow to its end.
        let hung = self.profile.slow_sync_for;
        self.run_while(hung, |_| true)?;
        if self.profile.moves() {
            self.come_to_rest()?;
            // Nobody writes: the comparison of copies alone mends what is left.
            self.even_out()?;
        } else if self.digest.is_multiple_of(STILL) && self.can_compare() {
            // What was late when all was healed comes: a write that five hold is compared next time, not this time.
            self.run_while(self.profile.tail_delay.max(LONGEST_PAUSE), |_| true)?;
            self.even_out()?;
        }
        if !self.profile.doomed && !self.views.overdrawn() {
            self.audit();
        }
        self.run_while(300 * SEC, |w| !w.clients.iter().all(Client::idle))?;
        if !self.clients.iter().all(Client::idle) {
            return Err("claim 3: the audit did not end".to_string());
        }
        if self.profile.moves() || self.can_compare() {
            self.even_out()?;
        }
        self.expire();
        for (key, history) in self.histories.iter_mut().enumerate() {
            history.sort_by_key(|op| op.start);
            for part in disaster::parts(history, &self.disaster.charged[key]) {
                if let Err(fault) = checker::judge(&part) {
                    return Err(format!("claim 1: key {key}: {fault}"));
                }
            }
        }
        Ok(())
    }

    /// The founders begin with view 1 on their disks, as after a birth and a power cut: a thousand would take long to
    /// be born.
    fn give_birth(&mut self) -> Result<(), String> {
        let member = |c: &Computer| Member::new(c.me, c.place, MemberState::Up);
        let members = self.computers[..self.profile.founders].iter().map(member).collect();
        let cluster = ClusterId::new(self.rng.random());
        let view = View::new(cluster, Epoch::FIRST, self.profile.slots, members, Vec::new());
        let view = Arc::new(view.map_err(|error| error.to_string())?);
        self.views.adopted(&view, &self.keys)?;
        for computer in &mut self.computers[..self.profile.founders] {
            computer.disk.views = vec![view.clone()];
            let account = &mut computer.disk.account;
            (account.settled, account.synced) = (Epoch::FIRST, vec![Epoch::FIRST]);
        }
        Ok(())
    }

    pub(super) fn run_while(
        &mut self,
        at_most: u64,
        mut wanted: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let until = self.now.saturating_add(at_most);
        while wanted(self) {
            let Some((at, event)) = self.queue.pop(until) else {
                self.now = until;
                return Ok(());
            };
            self.now = at;
            PROGRESS.set((self.steps, self.now));
            self.happen(event);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        Ok(())
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// The next place in the order of events.
    pub(crate) fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    pub(crate) fn next_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// A wall clock that is off by so much.
    pub(crate) fn wall(&self, skew: i64) -> u64 {
        let exact = (BIRTH + i128::from(self.now) + i128::from(skew)) as u64;
        exact - exact % self.profile.tick
    }

    /// This machine, or the next one that runs and is wanted.
    pub(crate) fn someone_up(&self, m: usize) -> usize {
        let machines = self.computers.len();
        let up = |c: &Computer| c.node.is_some() && c.role == Role::In;
        (m..m + machines).map(|i| i % machines).find(|&i| up(&self.computers[i])).unwrap_or(m)
    }

    /// True once every founder has a view on its disk.
    pub(super) fn born(&self) -> bool {
        // Later, machines that are wiped do not undo it.
        self.views.newest.is_some()
            && (self.founded
                || self.computers[..self.profile.founders].iter().all(|c| !c.disk.views.is_empty()))
    }

    /// Slots of a key whose owners, by the newest view, are so.
    pub(super) fn slots_where(&self, key: usize, wanted: impl Fn(&Self, usize) -> bool) -> u8 {
        let Some(newest) = &self.views.newest else { return 0 };
        newest.owners(key).filter(|machine| wanted(self, self.by_name[&machine.name])).count() as u8
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, envelope } => {
                let awake = self.computers[to].paused_until;
                if awake > self.now {
                    self.schedule(awake - self.now, Event::Deliver { to, from, envelope });
                    return;
                }
                self.feed(to, Input::Message { from, envelope });
            }
            Event::Tell { client, from, envelope } => {
                self.mix(client as u64 + 7_000);
                match client < self.clients.len() {
                    true => self.client_hears(client, from, *envelope),
                    false => self.lister_hears(from, *envelope),
                }
            }
            Event::Inside { machine, life, input } => {
                let computer = &self.computers[machine];
                if computer.life != life || computer.node.is_none() {
                    return;
                }
                if computer.paused_until > self.now {
                    let wait = computer.paused_until - self.now;
                    self.schedule(wait, Event::Inside { machine, life, input });
                    return;
                }
                self.feed(machine, input);
            }
            Event::Synced { machine, life } => self.synced(machine, life),
            Event::Wake { machine, life } => self.wake(machine, life),
            Event::Client { client, token } if client < self.clients.len() => {
                self.client_wakes(client, token)
            }
            Event::Client { token, .. } => self.lister_wakes(token),
            Event::Operator => self.operate(),
            Event::Look => self.look(),
            Event::Survey => self.survey(),
            Event::Fault(fault) => {
                if self.faulty || matches!(fault, Fault::Restart(_) | Fault::Ails(_)) {
                    self.strike(fault);
                }
            }
        }
    }
}
