//! A script acted out: real nodes and disks, and nothing that draws lots. Whatever of a script is left out is still a run
//! that may happen: what is not delivered is lost, what is not synced is not on disk, who does not start is down.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ennead_ring::effect::{Change, Effect, Input, Mono, Now, Scan, Ticket};
use ennead_ring::message::{
    Addr, Answer, Ask, Change as Wrote, Condition, Copied, Envelope, Found, Message, Op as Asked, Outcome,
    Wish as Wanted, Write,
};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup};
use ennead_ring::{
    Epoch, Health, Hlc, Incarnation, Key, Loaded, Machine, Name, Node, Reader, RequestId, Zone,
};

use crate::SEC;
use crate::bystander::Bystander;
use crate::checker::{self, Call, Op, Reply};
use crate::client::{bytes_of, condition_of, value_of};
use crate::disk::Disk;
use crate::members::OPERATOR;
use crate::said::{Known, without_number};
use crate::script::{Cast, Script, Step, What, Who, Wish};
use crate::views::Keys;
use crate::world::BIRTH;

/// What the timers' clock of each machine shows when the script begins: none has just been switched on.
const STARTED: u64 = 1_000_000 * SEC;

/// A machine, while the script is acted out.
struct Actor {
    me: Machine,
    disk: Disk,
    node: Option<Node>,
    waiting: Vec<(Ticket, Addr, Box<Envelope>)>,
    reads: Vec<(Key, Loaded)>,
    scans: Vec<(Scan, Input)>,
    /// A backup.
    image: Option<Disk>,
}

/// To whom something is said. Whoever has a machine's address hears what is sent to that.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum To {
    Machine(usize),
    Client(u64),
}

/// A message on its way, for as long as anybody may hear it: it may come twice.
struct Letter {
    /// Who says it: the machine that it was then.
    by: Machine,
    said: String,
    envelope: Box<Envelope>,
    heard: bool,
}

/// A call, as its caller sees it.
struct Caller {
    key: usize,
    call: Call,
    start: u64,
    /// Questions that are not answered with certainty.
    open: u32,
    /// Whoever still has the request will find that it has been answered.
    settled: bool,
    reader: Reader,
    done: Option<(Reply, u64)>,
}

/// See the module's caption.
struct Stage<'a> {
    cast: &'a Cast,
    rules: Rules,
    keys: Keys,
    actors: Vec<Actor>,
    known: Known,
    bystander: Bystander,
    /// By who speaks, and to whom.
    post: HashMap<(usize, To), Vec<Letter>>,
    callers: HashMap<usize, Caller>,
    /// Of each question of a client: its call, and whether it was not the first.
    asks: Vec<(usize, bool)>,
    /// Keys that are counted up.
    counters: BTreeSet<usize>,
    stamps: u64,
    /// What did happen.
    acted: Vec<Step>,
}

impl Script {
    /// Acts it out under these rules. A step that needs what another one was to bring about, and did not, is passed over.
    ///
    /// # Errors
    /// What its callers saw was no register; a claim on views or votes did not hold; or a node panicked.
    pub fn play(&self, rules: Rules) -> Result<(), String> {
        let mut acted = Vec::new();
        self.act(rules, &mut acted)
    }

    /// The same, and what did happen.
    pub(crate) fn act(&self, rules: Rules, acted: &mut Vec<Step>) -> Result<(), String> {
        let mut stage = Stage::set(&self.cast, rules);
        let played = catch_unwind(AssertUnwindSafe(|| {
            for step in &self.steps {
                stage.act(step);
                // What comes after that is not needed.
                if stage.bystander.failure.is_some() {
                    break;
                }
            }
            stage.judge()
        }));
        *acted = stage.acted;
        played.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panic: {}", text.unwrap_or_default()))
        })
    }
}

impl<'a> Stage<'a> {
    /// All founders are members of view 1, and down.
    fn set(cast: &'a Cast, rules: Rules) -> Self {
        let machines = cast.machines();
        let view = Arc::new(cast.view().expect("what is read as a script makes a view"));
        let founders = cast.founders;
        let actor = |(m, me): (usize, &Machine)| {
            let mut disk = Disk::default();
            if m < founders {
                disk.views.push(view.clone());
                (disk.account.settled, disk.account.synced) = (Epoch::FIRST, vec![Epoch::FIRST]);
            }
            let (waiting, reads, scans) = (Vec::new(), Vec::new(), Vec::new());
            Actor { me: *me, disk, node: None, waiting, reads, scans, image: None }
        };
        let keys = Keys::new(cast.keys, cast.slots);
        Self {
            cast,
            rules,
            known: Known::of(cast),
            bystander: Bystander::new(&view, &keys),
            keys,
            actors: machines.iter().enumerate().map(actor).collect(),
            post: HashMap::new(),
            callers: HashMap::new(),
            asks: Vec::new(),
            counters: BTreeSet::new(),
            stamps: 0,
            acted: Vec::new(),
        }
    }

    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    fn act(&mut self, step: &Step) {
        let m = step.machine;
        let wall = (BIRTH + i128::from(step.at) + i128::from(step.off)).max(0) as u64;
        let now = Now { mono: Mono(STARTED + step.at), wall };
        // Before it is acted: it may be the last, where a node panics.
        self.acted.push(step.clone());
        let acted = match &step.what {
            What::Starts { seed, unreadable, joins } => self.start(m, now, *seed, unreadable, joins),
            What::Dies { survive } => self.die(m, *survive),
            What::Syncs => self.sync(m),
            What::HasRead(key) => {
                let key = self.keys.get(*key);
                let at = self.actors[m].reads.iter().position(|(read, _)| read == key);
                let read = at.map(|at| self.actors[m].reads.remove(at));
                read.map(|(key, found)| self.feed(m, now, Input::Loaded { key, found })).is_some()
            }
            What::HasScanned(number) => {
                let scans = &mut self.actors[m].scans;
                // Where less has happened before, it has another number.
                let at = scans.iter().position(|(scan, _)| scan.0 == *number).unwrap_or(0);
                let scan = (at < scans.len()).then(|| scans.remove(at));
                scan.map(|(_, input)| self.feed(m, now, input)).is_some()
            }
            What::Wakes => {
                let node = self.actors[m].node.as_ref();
                let due = node.and_then(Node::wake_at).is_some_and(|(at, _)| at <= now.mono);
                due.then(|| self.feed(m, now, Input::Wake)).is_some()
            }
            What::Hint { of, reachable } => {
                let name = self.actors.get(*of).map(|actor| actor.me.name);
                name.map(|name| self.feed(m, now, Input::Reachable { name, reachable: *reachable })).is_some()
            }
            What::Room(room) => {
                let runs = self.actors[m].node.is_some();
                self.feed(m, now, Input::Health(Health { full: !room, ..Health::default() }));
                runs
            }
            What::Compares => {
                self.at_node(m, |node, effects| node.start_check(now, effects));
                self.actors[m].node.is_some()
            }
            What::Leaves(who) => self.wish(m, now, *who, |machine| Wanted::Leave { machine }),
            What::Gone(who) => self.wish(m, now, *who, |machine| Wanted::Remove { machine }),
            What::Wanted => std::mem::take(&mut self.actors[m].disk.account.left),
            What::BackedUp => {
                self.actors[m].image = Some(self.actors[m].disk.image());
                true
            }
            What::Lost => {
                self.bystander.lose(self.actors[m].me);
                true
            }
            What::Anew { incarnation, restored } => self.anew(m, *incarnation, *restored),
            What::Asked { call, wish } => self.ask(m, now, *call, wish),
            What::Hears { from, said } => self.hear(m, now, *from, said).is_some(),
            What::Tells { call, said } => self.tell(m, *call, said),
        };
        if !acted {
            self.acted.pop();
        }
    }

    // -- machines ------------------------------------------------------------------------------------

    fn start(&mut self, m: usize, now: Now, seed: u64, unreadable: &[usize], joins: &[usize]) -> bool {
        let to: Vec<Name> = joins.iter().filter_map(|to| Some(self.actors.get(*to)?.me.name)).collect();
        let actor = &mut self.actors[m];
        if actor.node.is_some() {
            return false;
        }
        for key in unreadable {
            actor.disk.rot(self.keys.get(*key));
        }
        let setup = Setup {
            me: actor.me,
            weight: self.cast.weight,
            zone: Zone::NONE,
            limits: actor.disk.limits,
            views: actor.disk.views.clone(),
            account: actor.disk.account.clone(),
            decree: actor.disk.decree.clone(),
            birth: if to.is_empty() { Birth::None } else { Birth::Join(to) },
            tuning: self.cast.tuning(),
            seed,
            rules: self.rules,
        };
        actor.node = Some(Node::new(setup, now));
        true
    }

    fn die(&mut self, m: usize, survive: usize) -> bool {
        let actor = &mut self.actors[m];
        if actor.node.take().is_none() {
            return false;
        }
        actor.waiting.clear();
        actor.reads.clear();
        actor.scans.clear();
        let notes = actor.disk.crash(survive);
        // What it said to itself died with it.
        self.post.remove(&(m, To::Machine(m)));
        self.durable(m, notes);
        true
    }

    /// Another disk, that of its backup or a blank one; another incarnation.
    fn anew(&mut self, m: usize, incarnation: u64, restored: bool) -> bool {
        let actor = &mut self.actors[m];
        if actor.node.is_some() || restored && actor.image.is_none() {
            return false;
        }
        let image = actor.image.take().filter(|_| restored);
        self.bystander.lose(actor.me);
        actor.disk = image.unwrap_or_default();
        actor.me.incarnation = Incarnation::new(incarnation);
        self.known.anew(m, actor.me.incarnation);
        true
    }

    /// This is on a machine's disk now.
    fn durable(&mut self, m: usize, notes: Vec<Change>) {
        let actor = &self.actors[m];
        if self.bystander.durable((actor.me, &actor.disk), notes, &self.keys) {
            let actors = &self.actors;
            let disk_of =
                |machine: Machine| actors.iter().find(|actor| actor.me == machine).map(|actor| &actor.disk);
            self.bystander.look(&self.keys, disk_of);
        }
    }

    fn sync(&mut self, m: usize) -> bool {
        let actor = &mut self.actors[m];
        if actor.node.is_none() || !actor.disk.is_syncing() {
            return false;
        }
        let notes = actor.disk.sync_done();
        self.durable(m, notes);
        let actor = &mut self.actors[m];
        actor.disk.start_sync();
        let (free, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut actor.waiting)
            .into_iter()
            .partition(|(ticket, ..)| actor.disk.is_durable(*ticket));
        actor.waiting = waiting;
        for (_, to, envelope) in free {
            self.send(m, to, envelope);
        }
        true
    }

    fn feed(&mut self, m: usize, now: Now, input: Input) {
        self.at_node(m, |node, effects| node.handle(now, input, effects));
    }

    fn at_node(&mut self, m: usize, does: impl FnOnce(&mut Node, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let Some(node) = &mut self.actors[m].node else { return };
        does(node, &mut effects);
        node.check();
        for effect in effects {
            let actor = &mut self.actors[m];
            match effect {
                Effect::Persist { ticket, change } => drop(actor.disk.write(ticket, change)),
                Effect::Send { to, envelope, after } => match after {
                    Some(ticket) if !actor.disk.is_durable(ticket) => {
                        actor.waiting.push((ticket, to, envelope))
                    }
                    _ => self.send(m, to, envelope),
                },
                Effect::Load { key } => {
                    let found = actor.disk.load(&key);
                    actor.reads.push((key, found));
                }
                Effect::Scan { scan, after, keys, bytes } => {
                    let (found, end, total) = actor.disk.scan(after.as_ref(), keys, bytes);
                    actor.scans.push((scan, Input::Scanned { scan, found, end, total }));
                }
            }
        }
    }

    fn send(&mut self, m: usize, to: Addr, envelope: Box<Envelope>) {
        let by = self.actors[m].me;
        self.bystander.hears(by, &envelope, &self.keys);
        let said = self.known.said(&envelope, to, |key| self.keys.place(key));
        let to = match to {
            Addr::Machine(machine) => {
                self.actors.iter().position(|a| a.me.name == machine.name).map(To::Machine)
            }
            Addr::Client(number) => Some(To::Client(number)),
        };
        if let Some(to) = to {
            self.post.entry((m, to)).or_default().push(Letter { by, said, envelope, heard: false });
        }
    }

    /// One that says so: the first that was not heard yet, or the last that was, again. Where there is none, the last one
    /// that says so under another number, or at least something of its kind: where less has happened before, numbers,
    /// versions and ballots are others.
    fn letter(&mut self, from: usize, to: To, said: &str) -> Option<(Machine, String, Box<Envelope>)> {
        let letters = self.post.get_mut(&(from, to))?;
        let bare = without_number(said);
        let kind = bare.split(' ').next();
        let same = |letter: &Letter| letter.said == said;
        let numbered = |letter: &Letter| without_number(&letter.said) == bare;
        let like = |letter: &Letter| letter.said.split(' ').next() == kind;
        let new = |fits: &dyn Fn(&Letter) -> bool| letters.iter().rposition(|l| !l.heard && fits(l));
        let at = letters.iter().position(|letter| !letter.heard && same(letter));
        let at = at
            .or_else(|| letters.iter().rposition(same))
            .or_else(|| new(&numbered))
            .or_else(|| new(&like))?;
        let letter = &mut letters[at];
        letter.heard = true;
        Some((letter.by, letter.said.clone(), letter.envelope.clone()))
    }

    fn hear(&mut self, m: usize, now: Now, from: usize, said: &str) -> Option<()> {
        self.actors[m].node.as_ref()?;
        let (by, said, envelope) = self.letter(from, To::Machine(m), said)?;
        if let Some(step) = self.acted.last_mut() {
            step.what = What::Hears { from, said };
        }
        self.feed(m, now, Input::Message { from: Addr::Machine(by), envelope });
        Some(())
    }

    /// An operator tells a machine what is to become of one.
    fn wish(&mut self, m: usize, now: Now, who: Who, wish: impl FnOnce(Machine) -> Wanted) -> bool {
        let (Some(actor), Some(incarnation)) = (self.actors.get(who.0), self.known.incarnation(who)) else {
            return false;
        };
        let wish = wish(Machine { incarnation, ..actor.me });
        let message = Message::Wish { ask: Ask(0), wish };
        let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message });
        self.feed(m, now, Input::Message { from: Addr::Client(OPERATOR), envelope });
        self.actors[m].node.is_some()
    }

    // -- clients -------------------------------------------------------------------------------------

    /// Each call is a client of its own.
    fn ask(&mut self, m: usize, now: Now, number: usize, wish: &Wish) -> bool {
        if self.actors[m].node.is_none() {
            return false;
        }
        let (key, call, again) = match wish {
            Wish::Copy { key } => (*key, Call::Get, false),
            Wish::Of { key, call, again, .. } => (*key, *call, *again),
        };
        if key >= self.keys.len() {
            return false;
        }
        let (start, slots) = (self.stamp(), self.cast.slots);
        let reader = || Reader::new(slots);
        let caller = self.callers.entry(number).or_insert_with(|| Caller {
            key,
            call,
            start,
            open: 0,
            settled: false,
            reader: reader(),
            done: None,
        });
        self.asks.push((number, again));
        if matches!(call, Call::Incr(_)) {
            self.counters.insert(key);
        }
        let (ask, key) = (Ask(self.asks.len() as u64), self.keys.get(key).clone());
        let message = match wish {
            Wish::Copy { .. } => Message::Read { ask, key, inline: 1 << 20 },
            Wish::Of { id, within, .. } => {
                caller.open += 1;
                let id = RequestId {
                    time: Hlc::from_nanos((BIRTH + i128::from(*id)).max(0) as u64),
                    random: number as u64,
                };
                let write = |condition, change| Asked::Write(Write { id, again, condition, change });
                let op = match call {
                    Call::Get => Asked::Read,
                    Call::Put(value, condition) => {
                        write(condition_of(condition), Wrote::Put { value: bytes_of(value, 8), ttl: None })
                    }
                    Call::Delete(condition) => write(condition_of(condition), Wrote::Delete),
                    Call::Touch(condition) => write(condition_of(condition), Wrote::Touch { ttl: None }),
                    Call::Incr(by) => write(Condition::Any, Wrote::Incr { by }),
                };
                Message::Request { ask, key, op, within: *within, handed: false }
            }
        };
        let envelope = Box::new(Envelope { cluster: None, epoch: Epoch::ZERO, message });
        self.feed(m, now, Input::Message { from: Addr::Client(number as u64), envelope });
        true
    }

    fn tell(&mut self, m: usize, number: usize, said: &str) -> bool {
        let Some((_, said, envelope)) = self.letter(m, To::Client(number as u64), said) else { return false };
        if let Some(step) = self.acted.last_mut() {
            step.what = What::Tells { call: number, said };
        }
        let (name, end) = (self.actors[m].me.name, self.stamp());
        let Some(caller) = self.callers.get_mut(&number).filter(|caller| caller.done.is_none()) else {
            return false;
        };
        let counter = self.counters.contains(&caller.key);
        let reply = match envelope.message {
            Message::Answer { votes, answer: Answer::Copy(copied), .. } => {
                caller.reader.hear(name, envelope.epoch, votes, copied);
                caller.copied(counter)
            }
            Message::Outcome { ask, outcome } => {
                let again = self.asks.get(ask.0 as usize - 1).is_some_and(|(_, again)| *again);
                caller.told(again, outcome, counter)
            }
            _ => return false,
        };
        caller.done = reply.map(|reply| (reply, end));
        true
    }

    /// Did all claims hold that somebody could see, and was each key one register?
    fn judge(&self) -> Result<(), String> {
        if let Some(what) = &self.bystander.failure {
            return Err(what.clone());
        }
        for key in 0..self.keys.len() {
            let callers = self.callers.iter().filter(|(_, caller)| caller.key == key);
            let mut ops: Vec<Op> = callers.flat_map(|(number, caller)| caller.ops(*number as u32)).collect();
            ops.sort_by_key(|op| op.start);
            checker::judge(&ops).map_err(|fault| format!("key {key}: {fault}"))?;
        }
        Ok(())
    }
}

impl Caller {
    /// D1: five votes for one copy.
    fn copied(&self, counter: bool) -> Option<Reply> {
        let stamp = self.reader.settled()?;
        match self.reader.copy_of(stamp)? {
            Copied::None => Some(Reply::Nothing(None)),
            Copied::Whole(record) => Some(match &record.state.value {
                Some(value) => Reply::Found(value_of(value, counter), record.state.version),
                None => Reply::Nothing(Some(record.state.version)),
            }),
            Copied::Summary { .. } => None,
        }
    }

    fn told(&mut self, again: bool, outcome: Outcome, counter: bool) -> Option<Reply> {
        self.open -= u32::from(!matches!(outcome, Outcome::Unknown { .. }) && self.open > 0);
        match outcome {
            Outcome::Done { version, .. } => Some(Reply::Done(version)),
            Outcome::Value(Some(Found { value, version, .. })) => {
                Some(Reply::Found(value_of(&value, counter), version))
            }
            Outcome::Counted { version, value, .. } => Some(Reply::Counted(value, version)),
            Outcome::Value(None) => Some(Reply::Nothing(None)),
            Outcome::Mismatch { version } => {
                self.settled |= again;
                Some(Reply::Mismatch(version))
            }
            Outcome::Absent => {
                self.settled |= again;
                Some(Reply::Absent)
            }
            _ => None,
        }
    }

    fn ops(&self, who: u32) -> Vec<Op> {
        let Self { call, start, .. } = *self;
        let open = Op { who, call, reply: Reply::Unknown, start, end: u64::MAX };
        match self.done {
            None if call == Call::Get => Vec::new(),
            None if self.open == 0 => vec![Op { reply: Reply::Never, ..open }],
            None => vec![open],
            // Another try may be under way, and the write may yet be applied.
            Some((reply @ (Reply::Mismatch(_) | Reply::Absent), end)) if self.open > 0 && !self.settled => {
                vec![Op { reply, end, ..open }, open]
            }
            Some((reply, end)) => vec![Op { reply, end, ..open }],
        }
    }
}
