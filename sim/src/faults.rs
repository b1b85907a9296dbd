//! What may go wrong in a run, and how often. Each seed draws its own subset and rates (swarm testing): a run in
//! which everything fails at once rarely gets anywhere interesting.

use ennead_ring::mutant::Rules;
use ennead_ring::node::Tuning;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::schedule::Timed;
use crate::{MS, SEC, US, places};

/// One run's cluster, load and faults.
#[derive(Clone, Debug)]
pub struct Profile {
    /// All that there ever are, and those that are view 1 where membership changes; the others may join later.
    pub machines: usize,
    /// The first so many of them are view 1.
    pub founders: usize,
    /// Of a key.
    pub slots: u8,
    /// Positions of each machine.
    pub weight: u32,
    /// As every machine has it.
    pub tuning: Tuning,
    /// All of them, but in a test of what notices.
    pub rules: Rules,

    /// That clients use.
    pub keys: usize,
    /// How much more often the first keys are used than the last (Zipf); 0: all alike.
    pub zipf: f64,
    /// The first so many keys get `hot_share` of all calls, each as much; the others the rest. 0: no such keys.
    pub hot_keys: usize,
    /// See `hot_keys`; 0 to 1.
    pub hot_share: f64,
    /// Bytes of each value, at least eight.
    pub value_size: usize,
    /// Clients go on for as long as the faults do.
    pub endless: bool,
    /// Each makes one call at a time.
    pub clients: usize,
    /// Calls of each client.
    pub calls: u32,
    /// Longest pause between two calls of a client.
    pub think: u64,
    /// How long a client waits for one answer before it tries the next owner, and in all.
    pub patience: u64,
    /// In all.
    pub deadline: u64,
    /// How often a client goes to any machine, not to an owner.
    pub stray: f64,
    /// Of 100 calls.
    pub deletes: u32,
    /// Of 100 calls: another expiry for a value.
    pub touches: u32,
    /// Which keys are counted up, read and touched, and nothing else.
    pub counters: Counters,
    /// Of 100 calls that write, those that compare.
    pub compares: u32,
    /// Of 100 calls: through a coordinator.
    pub reads: u32,
    /// Of 100 calls: by counting votes.
    pub direct_reads: u32,
    /// Of 100 calls: from one copy, whichever answers first. What it holds may be old, so nobody judges it.
    pub ones: u32,
    /// One more client lists all keys, again and again.
    pub lists: bool,
    /// How far the clients' clocks are off.
    pub client_skew: u64,
    /// How often a client gives up at once, so that outcomes are unknown.
    pub gives_up: f64,

    /// How often a put has an expiry.
    pub ttl: f64,
    /// The longest one, in milliseconds.
    pub longest_ttl: u64,

    /// Longest that a message usually takes.
    pub delay: u64,
    /// Machines are spread over so many zones, which are further from each other by this.
    pub zones: usize,
    /// See `zones`.
    pub zone_delay: u64,
    /// What the way from each zone to each other adds, and within it; empty: `zone_delay` between any two.
    pub distances: Vec<Vec<u64>>,
    /// Machines name their zones, and keys are spread over them; else they only stand there.
    pub named: bool,
    /// All machines of a zone lose power at once.
    pub zone_every: u64,
    /// Longest that it is down then, and ten times the shortest.
    pub zone_down: u64,
    /// Bytes a second that one machine can send; 0: any number.
    pub bandwidth: u64,
    /// How often one takes up to `tail_delay`.
    pub tail: f64,
    /// See `tail`.
    pub tail_delay: u64,
    /// How often one is lost.
    pub drop: f64,
    /// How often one comes twice.
    pub duplicate: f64,
    /// How often a copy comes once more, much later.
    pub replay: f64,
    /// How much later.
    pub replay_delay: u64,

    /// How often a message is followed by a forgery of it: from a client, from a namesake of the sender under another
    /// incarnation, or in another cluster's name.
    pub forge: f64,

    /// Mean time between faults of a kind; 0: never.
    pub cut_every: u64,
    /// Only single machines are cut off; else also camps, and links at random.
    pub cut_single: bool,
    /// Longest time that links stay cut.
    pub cut_for: u64,
    /// Processes die.
    pub crash_every: u64,
    /// Longest time until one that died runs again.
    pub down_for: u64,
    /// How often a machine dies between two effects of one input.
    pub crash_in_handle: f64,
    /// How often a crash takes all machines at once.
    pub power_cut: f64,
    /// Processes stand still for up to three seconds.
    pub pause_every: u64,
    /// Wall clocks jump.
    pub jump_every: u64,
    /// How far clocks are off, and jump, either way.
    pub skew: u64,
    /// Wall clocks advance by steps of this much: coarse ones, or ones that stand still.
    pub tick: u64,
    /// Wrong hints about who can be reached.
    pub lie_every: u64,
    /// How often hints are given at all when something changes.
    pub hints: f64,

    /// Longest that a sync of the disk usually takes.
    pub sync: u64,
    /// How often one takes up to `slow_sync_for`.
    pub slow_sync: f64,
    /// See `slow_sync`.
    pub slow_sync_for: u64,
    /// The fsyncs of this machine hang, from this time on and until that one; it answers whatever needs none.
    pub hang: Option<(usize, u64, u64)>,
    /// Longest that reading a record takes.
    pub load: u64,
    /// How often a crash leaves a part of the unsynced changes on disk.
    pub survive: f64,
    /// How often a restart finds a key's record unreadable.
    pub rot: f64,
    /// The founders begin as members of view 1; else it is born first.
    pub born: bool,
    /// Every node looks at its whole state after every input.
    pub check: bool,
    /// Faults during birth too.
    pub dirty_birth: bool,
    /// Clocks so far off that nothing can be promised about progress.
    pub doomed: bool,
    /// Some machines stay down when the rest is healed.
    pub stay_down: bool,

    /// Membership changes; the faults of this kind go on for at least so long.
    pub span: u64,
    /// Machines join.
    pub join_every: u64,
    /// How often all that are out join at once.
    pub together: f64,
    /// Machines are told to leave.
    pub leave_every: u64,
    /// Fewer machines than this are never wanted.
    pub fewest: usize,
    /// Machines die for good.
    pub die_every: u64,
    /// How often the operator says that a dead machine is gone; else the others find out.
    pub remove: f64,
    /// Machines lose their disks.
    pub wipe_every: u64,
    /// How often what comes back is a backup.
    pub restore: f64,
    /// Pauses and cuts longer than the machines' patience.
    pub freeze_every: u64,
    /// See `freeze_every`.
    pub split_every: u64,
    /// An operator changes a machine's weight or zone.
    pub place_every: u64,
    /// More machines than may be lost are, and an operator forces the others on (F2).
    pub disaster_every: u64,
    /// Machines join, leave, die and are wiped, all in all.
    pub churn_every: u64,
    /// One of a tenth of the machines stands still for up to half a minute.
    pub stall_every: u64,
    /// An fsync fails: the process ends, and all that it wrote is in the system's memory, for the next one to read.
    pub fail_every: u64,
    /// A disk has no room for values, for up to a minute.
    pub full_every: u64,
    /// What happens at set times, besides. Machines that come or go for good ask for a `span`.
    pub schedule: Vec<Timed>,
    /// When to write down how all stand, in nanoseconds since the faults began.
    pub surveys: Vec<u64>,
    /// More machines are lost for good than claim 4 allows: then only safety is promised.
    pub overdraw: bool,
}

/// Which keys are counted up: the first key has number 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counters {
    /// None.
    None,
    /// Every other one.
    Odd,
    /// All.
    All,
}

/// Between `low` and `high`, each order of magnitude as likely as another.
pub(crate) fn log_uniform(rng: &mut StdRng, low: u64, high: u64) -> u64 {
    if high <= low {
        return low;
    }
    let (a, b) = (libm::log(low.max(1) as f64), libm::log(high as f64));
    (libm::exp(rng.random_range(a..b)) as u64).clamp(low, high)
}

impl Profile {
    /// No fault at all, nine machines.
    pub fn calm() -> Self {
        Self {
            machines: 9,
            founders: 9,
            slots: 9,
            weight: 4,
            tuning: Tuning::default(),
            rules: Rules::default(),
            keys: 2,
            zipf: 0.0,
            hot_keys: 0,
            hot_share: 0.0,
            value_size: 8,
            endless: false,
            clients: 4,
            calls: 40,
            think: 20 * MS,
            patience: 300 * MS,
            deadline: 5 * SEC,
            stray: 0.1,
            deletes: 10,
            touches: 0,
            counters: Counters::None,
            compares: 15,
            reads: 25,
            direct_reads: 15,
            ones: 0,
            lists: false,
            client_skew: 0,
            gives_up: 0.0,
            ttl: 0.0,
            longest_ttl: 3_000,
            delay: MS,
            zones: 1,
            zone_delay: 0,
            distances: Vec::new(),
            named: true,
            zone_every: 0,
            zone_down: 0,
            bandwidth: 0,
            tail: 0.0,
            tail_delay: 100 * MS,
            drop: 0.0,
            duplicate: 0.0,
            replay: 0.0,
            replay_delay: 10 * SEC,
            forge: 0.0,
            cut_every: 0,
            cut_single: false,
            cut_for: SEC,
            crash_every: 0,
            down_for: SEC,
            crash_in_handle: 0.0,
            power_cut: 0.0,
            pause_every: 0,
            jump_every: 0,
            skew: 0,
            tick: 1,
            lie_every: 0,
            hints: 0.5,
            sync: MS,
            slow_sync: 0.0,
            slow_sync_for: 200 * MS,
            hang: None,
            load: 200 * US,
            survive: 0.5,
            rot: 0.0,
            born: false,
            check: true,
            dirty_birth: false,
            doomed: false,
            stay_down: false,
            span: 0,
            join_every: 0,
            together: 0.2,
            leave_every: 0,
            fewest: 1,
            die_every: 0,
            remove: 0.3,
            wipe_every: 0,
            restore: 0.0,
            freeze_every: 0,
            split_every: 0,
            place_every: 0,
            disaster_every: 0,
            churn_every: 0,
            stall_every: 0,
            fail_every: 0,
            full_every: 0,
            schedule: Vec::new(),
            surveys: Vec::new(),
            overdraw: false,
        }
    }

    /// True if membership may change.
    pub fn moves(&self) -> bool {
        self.span > 0
    }

    /// True if this key is counted up. Of a counter that was lost nobody can say where it goes on: there are none then.
    pub(crate) fn is_counter(&self, key: usize) -> bool {
        self.disaster_every == 0
            && match self.counters {
                Counters::None => false,
                Counters::Odd => key % 2 == 1,
                Counters::All => true,
            }
    }

    /// What this seed draws.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut p = Self::calm();
        (p.machines, p.slots) = match rng.random_range(0..20) {
            0 => (1, 9),
            1 => (2, 9),
            2 => (4, 9),
            3 => (5, 9),
            4 => (7, 9),
            5 => (12, 9),
            6..9 => (3, 3),
            9 => (4, 3),
            10..12 => (5, 5),
            12 => (3, 5),
            13 => (3, 9),
            _ => (9, 9),
        };
        p.weight = [1, 4, 16][rng.random_range(0..3)];
        p.keys = [1, 1, 2, 3, 5][rng.random_range(0..5)];
        p.clients = rng.random_range(1..=6);
        p.calls = rng.random_range(15..60);
        p.think = log_uniform(rng, MS, 500 * MS);
        p.patience = log_uniform(rng, 20 * MS, SEC);
        p.deadline = p.patience * rng.random_range(2..15);
        p.stray = [0.0, 0.1, 0.5, 1.0][rng.random_range(0..4)];
        p.deletes = rng.random_range(0..30);
        p.compares = rng.random_range(0..40);
        p.reads = rng.random_range(5..40);
        p.direct_reads = rng.random_range(0..30);
        if rng.random_bool(0.3) {
            p.client_skew = log_uniform(rng, MS, 3_600 * SEC);
        }
        if rng.random_bool(0.3) {
            p.gives_up = rng.random_range(0.0..0.3);
        }
        if rng.random_bool(0.15) {
            p.ttl = rng.random_range(0.0..0.5);
        }
        if rng.random_bool(0.05) {
            // A crowd: batches are full.
            (p.clients, p.calls, p.keys) = (rng.random_range(10..60), 12, 1);
            p.think = p.think.min(20 * MS);
        }
        p.tuning.pipeline = rng.random_range(1..=4);
        // Values have eight bytes: each is long for some.
        p.tuning.inline = if rng.random_bool(0.3) { 0 } else { 64 << 10 };
        if rng.random_bool(0.3) {
            p.tuning.cells = rng.random_range(1..4);
        }
        if rng.random_bool(0.1) {
            p.tuning.waiting_per_key = rng.random_range(1..4);
        }
        p.tuning.ceiling_ahead = log_uniform(rng, 10 * MS, 3 * SEC);
        p.tuning.resend_after = log_uniform(rng, 10 * MS, 200 * MS);

        p.delay = log_uniform(rng, 50 * US, 20 * MS);
        if rng.random_bool(0.5) {
            p.tail = rng.random_range(0.0..0.2);
            p.tail_delay = log_uniform(rng, 10 * MS, 5 * SEC);
        }
        if rng.random_bool(0.5) {
            p.drop = rng.random_range(0.0..0.25);
        }
        if rng.random_bool(0.5) {
            p.duplicate = rng.random_range(0.0..0.2);
        }
        if rng.random_bool(0.5) {
            p.replay = rng.random_range(0.0..0.1);
            p.replay_delay = log_uniform(rng, 100 * MS, 30 * SEC);
        }
        if rng.random_bool(0.15) {
            p.forge = rng.random_range(0.0..0.1);
        }
        if rng.random_bool(0.4) {
            p.cut_every = log_uniform(rng, 100 * MS, 5 * SEC);
            p.cut_for = log_uniform(rng, 50 * MS, 3 * SEC);
        }
        if rng.random_bool(0.5) {
            p.crash_every = log_uniform(rng, 100 * MS, 5 * SEC);
            p.down_for = log_uniform(rng, 10 * MS, 3 * SEC);
            if rng.random_bool(0.3) {
                p.power_cut = rng.random_range(0.0..0.5);
            }
        }
        if rng.random_bool(0.3) {
            p.crash_in_handle = rng.random_range(0.0..0.02);
        }
        if rng.random_bool(0.2) {
            p.pause_every = log_uniform(rng, 100 * MS, 5 * SEC);
        }
        if rng.random_bool(0.5) {
            p.skew = log_uniform(rng, MS, 10 * SEC);
            if rng.random_bool(0.1) {
                p.skew = 365 * 86_400 * SEC;
            }
            if rng.random_bool(0.5) {
                p.jump_every = log_uniform(rng, 100 * MS, 5 * SEC);
            }
        }
        if rng.random_bool(0.2) {
            p.tick = log_uniform(rng, MS, 3_600 * SEC);
        }
        if rng.random_bool(0.2) {
            p.lie_every = log_uniform(rng, 50 * MS, SEC);
        }
        p.hints = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        p.sync = log_uniform(rng, 50 * US, 20 * MS);
        if rng.random_bool(0.3) {
            p.slow_sync = rng.random_range(0.0..0.2);
            p.slow_sync_for = log_uniform(rng, 20 * MS, 2 * SEC);
        }
        p.load = log_uniform(rng, 10 * US, 20 * MS);
        p.survive = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        if rng.random_bool(0.25) {
            p.rot = rng.random_range(0.0..0.3);
        }
        p.dirty_birth = rng.random_bool(0.1);
        p.stay_down = p.rot == 0.0 && rng.random_bool(0.2);
        // Drawn beside the others, so that they are what they were.
        let mut beside = StdRng::seed_from_u64(p.think ^ p.delay.rotate_left(32));
        p.touches = [0, 5, 20][beside.random_range(0..3)];
        p.counters = [Counters::None, Counters::Odd, Counters::All][beside.random_range(0..3)];
        p
    }

    /// What this seed draws where membership changes: fewer faults of the other kinds, for longer.
    pub fn moving(rng: &mut StdRng) -> Self {
        let mut p = Self::draw(rng);
        (p.dirty_birth, p.stay_down, p.rot) = (false, false, 0.0);
        p.slots = [9, 9, 9, 9, 5, 3][rng.random_range(0..6)];
        (p.founders, p.machines) = [
            (1, 3),
            (1, 5),
            (2, 4),
            (3, 3),
            (3, 4),
            (3, 5),
            (3, 9),
            (4, 6),
            (5, 5),
            (5, 7),
            (7, 9),
            (9, 9),
            (9, 10),
            (9, 12),
            (1, 9),
            (11, 13),
        ][rng.random_range(0..16)];
        p.fewest = rng.random_range(1..=p.founders);
        p.span = rng.random_range(8..25) * SEC;
        p.tuning.probe_every = log_uniform(rng, 50 * MS, 300 * MS);
        p.tuning.down_after = log_uniform(rng, 100 * MS, SEC);
        p.tuning.patience = log_uniform(rng, 500 * MS, 4 * SEC);
        p.tuning.check_every = log_uniform(rng, 500 * MS, 5 * SEC);
        p.tuning.collect_after = log_uniform(rng, 100 * MS, 5 * SEC);
        p.clients = rng.random_range(1..=4);
        p.think = log_uniform(rng, 50 * MS, SEC);
        p.calls = ((2 * p.span / p.think) as u32 + 5).min(100);
        // Membership is what is tried here: the rest goes wrong less often.
        p.crash_every *= 4;
        p.cut_every *= 4;
        p.pause_every *= 4;
        p.crash_in_handle /= 10.0;
        let mut some = |odds: f64, low: u64, high: u64| {
            if rng.random_bool(odds) { log_uniform(rng, low, high) } else { 0 }
        };
        p.join_every = some(0.8, SEC, 8 * SEC);
        p.leave_every = some(0.5, SEC, 10 * SEC);
        p.die_every = some(0.4, 2 * SEC, 15 * SEC);
        p.wipe_every = some(0.5, SEC, 15 * SEC);
        p.freeze_every = some(0.25, 2 * SEC, 20 * SEC);
        p.split_every = some(0.25, 2 * SEC, 20 * SEC);
        p.restore = [0.0, 0.5][rng.random_range(0..2)];
        p.together = [0.1, 0.5, 1.0][rng.random_range(0..3)];
        p.remove = [0.0, 0.3, 1.0][rng.random_range(0..3)];
        p.overdraw = rng.random_bool(0.03);
        // Drawn beside the others, so that they are what they were.
        let mut beside = StdRng::seed_from_u64(p.span ^ p.think.rotate_left(32));
        if !p.overdraw && beside.random_bool(0.12) {
            p.disaster_every = log_uniform(&mut beside, 3 * SEC, 15 * SEC);
        }
        places::draw(&mut p, &mut beside);
        if beside.random_bool(0.5) {
            // As among hundreds.
            p.tuning.roll_above = 0;
        }
        p
    }
}
