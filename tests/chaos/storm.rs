//! The storm: carries out what the seed draws, where it may, says so, and undoes it in time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::Client;
use ennead_ring::message::Wish;

use crate::draw::{Draw, Draws, Fault, KINDS};
use crate::load::Load;
use crate::namespaces;
use crate::ring::Ring;
use crate::watch::Watch;

/// The size of each machine's disk.
const DISK: &str = "size=256m";
/// How long a call to the ring may take that only looks.
const LOOK: Duration = Duration::from_secs(1);

/// The places where the machines are: what of them can be cut and filled.
pub(crate) struct Places {
    /// The beginning of the names of their networks.
    prefix: Option<String>,
    disks: bool,
}

impl Places {
    /// Mounts disks, where networks of their own say that this process may do such things.
    pub(crate) fn make(prefix: Option<String>, ring: &Ring, machines: usize) -> Self {
        let mount = |i: usize| {
            let disk = ring.disk(i);
            Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(disk).status()
        };
        let disks = prefix.is_some() && (0..machines).all(|i| mount(i).is_ok_and(|s| s.success()));
        if prefix.is_some() && !disks {
            eprintln!("NOT TESTED: full disks, since none can be mounted here");
        }
        Self { prefix, disks }
    }
}

/// What a process is meant to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// Nothing: it is no member, or has left.
    Out,
    Up,
    /// It was killed, or ended with its disk full, and is started again.
    Down,
    Frozen,
    /// It was told to leave, and ends by itself.
    Leaving,
}

/// What undoes a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Undo {
    Start(usize),
    Thaw(usize),
    Free(usize),
    Quicken(usize),
    Mend,
}

pub(crate) struct Storm {
    ring: Ring,
    places: Places,
    draws: Draws,
    watch: Watch,
    client: Client,
    runs: Vec<Run>,
    full: BTreeSet<usize>,
    /// On the lesser side of a cut, or deaf.
    cut: BTreeSet<usize>,
    undo: Vec<(Instant, Undo)>,
    counts: BTreeMap<&'static str, usize>,
    begun: Instant,
}

impl Storm {
    /// Over a ring whose first few machines are its members.
    pub(crate) async fn new(ring: Ring, places: Places, seed: u64, members: usize) -> Self {
        let (client, watch) = (ring.client(LOOK).await, Watch::new(ring.client(LOOK).await));
        let runs = (0..ring.machines()).map(|i| if i < members { Run::Up } else { Run::Out }).collect();
        Self {
            ring,
            places,
            draws: Draws::of(seed),
            watch,
            client,
            runs,
            full: BTreeSet::new(),
            cut: BTreeSet::new(),
            undo: Vec::new(),
            counts: BTreeMap::new(),
            begun: Instant::now(),
        }
    }

    fn say(&self, what: &str) {
        println!("[{:7.1} s] {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Faults that came about, by their kind.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, usize> {
        &self.counts
    }

    /// A fault of a kind that has not come about yet, and can here.
    fn owed(&self) -> Option<Fault> {
        let can = |fault: &Fault| match fault {
            Fault::Full(_) => self.places.disks,
            Fault::Cut { .. } | Fault::Deaf(_) => self.places.prefix.is_some(),
            _ => true,
        };
        KINDS.into_iter().find(|fault| can(fault) && !self.counts.contains_key(fault.kind()))
    }

    /// For so long; and until each kind of fault has come about that can here, in as long again at most. From the half on,
    /// those are struck that have not.
    pub(crate) async fn rage(&mut self, length: Duration, load: &Load) {
        let (mut next, mut told) = (self.draws.next(), Instant::now());
        let mut at = Instant::now() + next.pause;
        while self.begun.elapsed() < length || self.owed().is_some() {
            let owed = self.owed().filter(|_| self.begun.elapsed() > length / 2);
            assert!(self.begun.elapsed() < length * 2, "no chance for {owed:?}");
            self.undo_what_is_due();
            self.see_who_ended();
            if at <= Instant::now() {
                if self.watch.look().await.is_some() {
                    self.strike(owed.map_or(next, |fault| Draw { fault, ..next })).await;
                }
                next = self.draws.next();
                at = Instant::now() + next.pause;
            }
            if told.elapsed() > Duration::from_secs(20) {
                self.say(&format!("{} calls, {} failed", load.calls(), load.failures()));
                load.judge_what_is_past();
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who does not serve, for a reason that we know.
    fn missing(&self) -> BTreeSet<Name> {
        let ill = |i: &usize| {
            !matches!(self.runs[*i], Run::Up | Run::Leaving) || self.full.contains(i) || self.cut.contains(i)
        };
        (0..self.runs.len()).filter(ill).map(|i| self.ring.name(i)).collect()
    }

    /// The first from this number on that is in question.
    fn pick(&self, who: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let machines = self.runs.len();
        (0..machines).map(|i| (who + i) % machines).find(|i| fits(*i))
    }

    /// One that is well, and whose absence can be borne.
    fn victim(&self, who: usize) -> Option<usize> {
        let missing = self.missing();
        let well = |i: usize| self.runs[i] == Run::Up && !missing.contains(&self.ring.name(i));
        self.pick(who, |i| well(i) && self.watch.may_miss(&missing, &[self.ring.name(i)]))
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    async fn strike(&mut self, draw: Draw) {
        let Draw { fault, who, .. } = draw;
        let done = match fault {
            Fault::Join => self.join(who),
            Fault::Leave => self.leave(who).await,
            Fault::Blackout => self.blackout(),
            Fault::Cut { machines, lasts } => self.cut(who, machines, lasts),
            Fault::Clock(seconds) => self.pick(who, |i| self.runs[i] == Run::Up).map(|i| {
                fs::write(self.ring.clock(i), seconds.to_string()).expect("a file");
                format!("{} has its clock wrong by {seconds} s", self.ring.name(i))
            }),
            _ => self.victim(who).and_then(|i| self.hit(i, fault)),
        };
        if let Some(done) = done {
            self.say(&done);
            *self.counts.entry(fault.kind()).or_default() += 1;
        }
    }

    /// What befalls one machine that can be spared.
    fn hit(&mut self, i: usize, fault: Fault) -> Option<String> {
        let name = self.ring.name(i);
        let (what, lasts) = match fault {
            Fault::Kill(lasts) => {
                self.ring.kill(i);
                self.runs[i] = Run::Down;
                self.later(lasts, Undo::Start(i));
                ("killed", lasts)
            }
            Fault::Wipe(lasts) => {
                self.ring.kill(i);
                self.watch.lose(name);
                fs::remove_dir_all(self.ring.data(i)).expect("its data");
                self.runs[i] = Run::Down;
                self.later(lasts, Undo::Start(i));
                ("killed and emptied", lasts)
            }
            Fault::Freeze(lasts) => {
                self.ring.freeze(i);
                self.runs[i] = Run::Frozen;
                self.later(lasts, Undo::Thaw(i));
                ("frozen", lasts)
            }
            Fault::Full(lasts) if self.places.disks => {
                self.ring.fill_disk(i);
                self.full.insert(i);
                self.later(lasts, Undo::Free(i));
                ("without room on its disk", lasts)
            }
            Fault::Slow { by, lasts } => {
                self.ring.slow_disk(i, by);
                self.later(lasts, Undo::Quicken(i));
                ("slow to fsync", lasts)
            }
            Fault::Deaf(lasts) => {
                let prefix = self.places.prefix.clone().filter(|_| self.cut.is_empty())?;
                let others = self.addresses(|j| j != i);
                namespaces::iptables(&prefix, i as u8 + 1, &format!("-A INPUT -s {others} -j DROP"));
                self.cut.insert(i);
                self.later(lasts, Undo::Mend);
                ("deaf to the others", lasts)
            }
            _ => return None,
        };
        Some(format!("{name} is {what} for {lasts:.1?}"))
    }

    fn addresses(&self, which: impl Fn(usize) -> bool) -> String {
        let ips = (0..self.runs.len()).filter(|i| which(*i)).map(|i| self.ring.name(i).address().ip());
        ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Some hear the others no more, nor they them. The clients hear all.
    fn cut(&mut self, who: usize, machines: usize, lasts: Duration) -> Option<String> {
        let prefix = self.places.prefix.clone().filter(|_| self.cut.is_empty())?;
        let missing = self.missing();
        let mut lesser: Vec<usize> = Vec::new();
        for i in (0..self.runs.len()).map(|i| (who + i) % self.runs.len()) {
            let names: Vec<Name> = lesser.iter().chain([&i]).map(|j| self.ring.name(*j)).collect();
            if lesser.len() < machines && self.runs[i] == Run::Up && self.watch.may_miss(&missing, &names) {
                lesser.push(i);
            }
        }
        if lesser.is_empty() {
            return None;
        }
        let others = self.addresses(|i| !lesser.contains(&i));
        for i in &lesser {
            namespaces::iptables(&prefix, *i as u8 + 1, &format!("-A INPUT -s {others} -j DROP"));
            namespaces::iptables(&prefix, *i as u8 + 1, &format!("-A OUTPUT -d {others} -j DROP"));
        }
        let names = self.addresses(|i| lesser.contains(&i));
        self.cut.extend(lesser);
        self.later(lasts, Undo::Mend);
        Some(format!("{names} and the others do not hear each other for {lasts:.1?}"))
    }

    fn join(&mut self, who: usize) -> Option<String> {
        let out = |i: usize| self.runs[i] == Run::Out && !self.watch.is_member(self.ring.name(i));
        let i = self.pick(who, out)?;
        self.runs[i] = Run::Up;
        self.ring.start(i);
        Some(format!("{} joins", self.ring.name(i)))
    }

    async fn leave(&mut self, who: usize) -> Option<String> {
        let missing = self.missing();
        let i = self.victim(who).filter(|_| self.watch.is_settled() && self.watch.members() > 7)?;
        let view = self.client.view().await.ok()?;
        view.index_of(self.ring.name(i))?;
        let machine = self.ring.machine(&view, i);
        self.client.wish(Wish::Leave { machine }).await.ok()?;
        self.runs[i] = Run::Leaving;
        Some(format!("{} is told to leave, with {} missing", self.ring.name(i), missing.len()))
    }

    /// Nothing of it is lost, so it may always be.
    fn blackout(&mut self) -> Option<String> {
        for i in 0..self.runs.len() {
            if self.runs[i] != Run::Out && self.ring.is_running(i) {
                self.ring.kill(i);
                self.undo.retain(|(_, undo)| !matches!(undo, Undo::Start(j) | Undo::Thaw(j) if *j == i));
                self.runs[i] = Run::Down;
                self.later(Duration::from_millis(300 * i as u64), Undo::Start(i));
            }
        }
        Some("all are killed at once, and started one after the other".to_owned())
    }

    fn undo_what_is_due(&mut self) {
        let now = Instant::now();
        let (due, later) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Instant, Undo)> = due;
        due.into_iter().for_each(|(_, undo)| self.undo(undo));
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(i) if self.runs[i] == Run::Down => {
                self.runs[i] = Run::Up;
                self.ring.start(i);
                self.say(&format!("{} is started again", self.ring.name(i)));
            }
            Undo::Thaw(i) if self.runs[i] == Run::Frozen => {
                self.runs[i] = Run::Up;
                self.ring.thaw(i);
                self.say(&format!("{} goes on", self.ring.name(i)));
            }
            Undo::Free(i) => {
                self.ring.free_disk(i);
                self.full.remove(&i);
                self.say(&format!("{} has room again", self.ring.name(i)));
            }
            Undo::Quicken(i) => self.ring.slow_disk(i, Duration::ZERO),
            Undo::Mend => {
                let prefix = self.places.prefix.clone().unwrap_or_default();
                std::mem::take(&mut self.cut)
                    .into_iter()
                    .for_each(|i| namespaces::iptables(&prefix, i as u8 + 1, "-F"));
                self.say("all hear each other");
            }
            Undo::Start(_) | Undo::Thaw(_) => {}
        }
    }

    /// Supervises: who has left is out; whose disk was full is started again until it runs; nobody else ends by himself.
    fn see_who_ended(&mut self) {
        for i in 0..self.runs.len() {
            let Some(status) = self.ring.has_ended(i) else { continue };
            let (name, log) = (self.ring.name(i), self.ring.log(i));
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            let no_room = ["disk full", "No space left", "os error 28"];
            if status.success() && self.ring.data(i).join("left").exists() {
                self.say(&format!("{name} has left"));
                self.runs[i] = Run::Out;
                // The next one of this name is new, or the old one with what it had.
                if self.counts.values().sum::<usize>() % 2 == 0 {
                    fs::remove_dir_all(self.ring.data(i)).expect("its data");
                }
            } else if last.iter().any(|line| no_room.iter().any(|word| line.contains(word))) {
                self.say(&format!("{name} has ended: its disk is full"));
                self.runs[i] = Run::Down;
                self.later(Duration::from_secs(1), Undo::Start(i));
            } else {
                panic!("{name} ended by itself, {status}: {last:#?}");
            }
        }
    }

    /// Ends every fault.
    pub(crate) fn undo_all(&mut self) {
        self.say("all is undone");
        for i in 0..self.runs.len() {
            let _ = fs::remove_file(self.ring.clock(i));
        }
        std::mem::take(&mut self.undo).into_iter().for_each(|(_, undo)| self.undo(undo));
    }

    /// Waits until whoever runs is a member that votes for all it owns, and nobody else is. Tells how many.
    pub(crate) async fn until_all_rest(&mut self, client: &Client, within: Duration) -> usize {
        let begun = Instant::now();
        loop {
            self.see_who_ended();
            self.undo_what_is_due();
            let running: Vec<usize> = (0..self.runs.len()).filter(|i| self.runs[*i] != Run::Out).collect();
            match self.ring.rests(client, &running).await {
                Ok(_) => return running.len(),
                Err(said) => assert!(begun.elapsed() < within, "no rest: {said}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// No machine has panicked, even in a part that was begun again.
    pub(crate) fn nothing_else_went_wrong(&self) {
        for i in 0..self.runs.len() {
            let log = self.ring.log(i);
            let bad = log.lines().find(|line| line.contains("panicked"));
            assert!(bad.is_none(), "{}: {bad:?}", self.ring.name(i));
        }
    }
}
