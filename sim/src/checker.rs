//! Was the key one register? Two judges of what its callers saw.
//!
//! A history is linearizable if every call can be given one instant between its start and its end so that, in the
//! order of the instants, each reply is what a plain register would have said. Keys are independent, so a history
//! is judged key by key. A call of unknown outcome may take effect at any later time, or never.
//!
//! [`judge`] is fast: versions rise over a key's life, so they give the order of the writes, and little is left to
//! search. [`exhaust`] is slow and naive (Wing and Gong): it tries every order. The tests hold one against the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::counting;

/// Every put of a run stores another value, so a value names its write.
pub type Value = u64;

/// When a write applies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum If {
    /// In any case.
    Any,
    /// If there is no value.
    Absent,
    /// If the key has this version.
    Version(u64),
}

/// What a client asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// This value is to be the key's.
    Put(Value, If),
    /// Of any value, or of one version.
    Delete(If),
    /// What is the key's value?
    Get,
    /// The value's expiry is to be another, and nothing else of it.
    Touch(If),
    /// This is to be added to the key's number. Who counts a key up does not put or delete it.
    Incr(i64),
}

/// What it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Applied, as this version.
    Done(u64),
    /// An incr: the key's number is this now, of this version.
    Counted(i64, u64),
    /// A get: this value, of this version.
    Found(Value, u64),
    /// A get: no value; the tombstone's version if it was told (0: never written).
    Nothing(Option<u64>),
    /// The condition does not hold: the key has this version, or no value.
    Mismatch(Option<u64>),
    /// There was nothing to delete, or to touch.
    Absent,
    /// Said not to have been applied, and never to be.
    Never,
    /// May take effect at any time after its start, or never.
    Unknown,
}

/// One call on one key. `start` and `end` are places in the one order of all events of a run; no two are equal.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The client.
    pub who: u32,
    /// What it asked.
    pub call: Call,
    /// What it was told.
    pub reply: Reply,
    /// When it asked.
    pub start: u64,
    /// When it was told; the end of time if it never was.
    pub end: u64,
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}..{}] client {}: {:?} -> {:?}", self.start, self.end, self.who, self.call, self.reply)
    }
}

/// Why a history is no register's.
pub type Fault = String;

/// What a version was.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// `Some(Some(x))`: value x. `Some(None)`: a tombstone. `None`: some value nobody read.
    state: Option<Option<Value>>,
    /// The write that made it, where replies tell.
    writer: Option<usize>,
    /// Calls that saw it and nothing else.
    seen: u32,
}

/// What a call asks of the order of things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// It made this version.
    Made(u64),
    /// It saw this version.
    Saw(u64),
    /// It saw that there was no value.
    SawNothing,
    /// It may have been applied; no reply tells under which version.
    Hidden,
}

struct Judge<'a> {
    ops: &'a [Op],
    roles: Vec<Role>,
    versions: Vec<(u64, Epoch)>,
    /// Calls that must be placed, by start and by end.
    by_start: Vec<usize>,
    by_end: Vec<usize>,
    hidden: Vec<usize>,
    placed: Vec<bool>,
    /// Identifies the set of the placed: an xor of a random number for each.
    set: u128,
    failed: HashSet<(u128, usize, bool, u64)>,
    budget: u32,
    /// How many calls found a place at best, and the call that then had none.
    furthest: (usize, Option<u64>, usize),
}

/// Where the register is: how many of the known versions it has passed, the version if known, whether it has a value.
#[derive(Clone, Copy)]
struct At {
    passed: usize,
    version: Option<u64>,
    low: u64,
    value: bool,
    first_start: usize,
    first_end: usize,
    count: usize,
}

/// Judges one key's history by its versions. Near-linear, but where calls of unknown outcome must have intervened.
pub fn judge(ops: &[Op]) -> Result<(), Fault> {
    if ops.iter().any(|op| matches!(op.call, Call::Incr(_))) {
        return counting::judge(ops);
    }
    let (roles, versions) = read_replies(ops)?;
    let mut must: Vec<usize> =
        (0..ops.len()).filter(|&i| roles[i] != Some(Role::Hidden) && roles[i].is_some()).collect();
    must.sort_by_key(|&i| ops[i].start);
    let by_start = must.clone();
    must.sort_by_key(|&i| ops[i].end);
    let hidden = (0..ops.len()).filter(|&i| roles[i] == Some(Role::Hidden)).collect();
    let mut judge = Judge {
        ops,
        roles: roles.into_iter().map(|r| r.unwrap_or(Role::Hidden)).collect(),
        versions: versions.into_iter().collect(),
        by_start,
        by_end: must,
        hidden,
        placed: vec![false; ops.len()],
        set: 0,
        failed: HashSet::new(),
        budget: 200_000,
        furthest: (0, None, 0),
    };
    let start =
        At { passed: 0, version: Some(0), low: 0, value: false, first_start: 0, first_end: 0, count: 0 };
    if judge.go(start) {
        return Ok(());
    }
    let spent = if judge.budget == 0 { " (search cut short)" } else { "" };
    let (_, version, stuck) = judge.furthest;
    let state = match version {
        Some(version) => format!("at version {version}"),
        None => "after a write of unknown outcome".to_string(),
    };
    Err(format!("not one register: {state}, no place for {}{spent}", ops[stuck]))
}

/// Gives each call its role and each version its maker; `None` for a call that says nothing.
#[expect(clippy::type_complexity, reason = "two tables, used once")]
fn read_replies(ops: &[Op]) -> Result<(Vec<Option<Role>>, BTreeMap<u64, Epoch>), Fault> {
    let mut maker: HashMap<Value, usize> = HashMap::new();
    for (i, op) in ops.iter().enumerate() {
        if let (Call::Put(value, _), Reply::Done(_) | Reply::Unknown) = (op.call, op.reply) {
            maker.insert(value, i);
        }
    }
    let mut roles: Vec<Option<Role>> = vec![None; ops.len()];
    let mut versions: BTreeMap<u64, Epoch> = BTreeMap::new();
    for (i, op) in ops.iter().enumerate() {
        let Reply::Done(version) = op.reply else { continue };
        let state = match op.call {
            Call::Put(value, _) => Some(value),
            Call::Delete(_) => None,
            Call::Touch(_) => continue,
            Call::Get | Call::Incr(_) => return Err(format!("a get was told of a write: {op}")),
        };
        if version == 0 {
            return Err(format!("version 0 is that of no write: {op}"));
        }
        let epoch = Epoch { state: Some(state), writer: Some(i), seen: 0 };
        if let Some(former) = versions.insert(version, epoch) {
            let other = ops[former.writer.unwrap_or(i)];
            return Err(format!("one version for two writes: {op}; and {other}"));
        }
        roles[i] = Some(Role::Made(version));
    }
    for (i, op) in ops.iter().enumerate() {
        let Reply::Found(value, version) = op.reply else { continue };
        let Some(&writer) = maker.get(&value) else {
            return Err(format!("a value that nobody can have written: {op}"));
        };
        match roles[writer] {
            None => roles[writer] = Some(Role::Made(version)),
            Some(Role::Made(v)) if v == version => {}
            _ => return Err(format!("one write, two versions: {op}; written by {}", ops[writer])),
        }
        let epoch = versions.entry(version).or_insert(Epoch {
            state: Some(Some(value)),
            writer: Some(writer),
            seen: 0,
        });
        if epoch.state != Some(Some(value)) {
            return Err(format!("one version, two states: {op}; the other is {:?}", epoch.state));
        }
        epoch.seen += 1;
        roles[i] = Some(Role::Saw(version));
    }
    // Versions that are only spoken of: some write of unknown outcome made them.
    fn spoken(map: &mut BTreeMap<u64, Epoch>, version: u64, value: bool, op: &Op) -> Result<(), Fault> {
        let state = if value { None } else { Some(None) };
        let epoch = map.entry(version).or_insert(Epoch { state, writer: None, seen: 0 });
        if (epoch.state != Some(None)) != value {
            return Err(format!("one version with and without a value: {op}"));
        }
        Ok(())
    }
    for (i, op) in ops.iter().enumerate() {
        let condition = match op.call {
            Call::Put(_, condition) | Call::Delete(condition) | Call::Touch(condition) => condition,
            Call::Get | Call::Incr(_) => If::Any,
        };
        let saw = match (op.call, op.reply) {
            (Call::Get, Reply::Found(..)) => continue,
            (Call::Get, Reply::Nothing(Some(0))) => Role::Saw(0),
            (Call::Get, Reply::Nothing(Some(version))) => {
                spoken(&mut versions, version, false, op)?;
                Role::Saw(version)
            }
            (Call::Get, Reply::Nothing(None)) => Role::SawNothing,
            (_, Reply::Mismatch(Some(version))) if condition != If::Any => {
                if condition == If::Version(version) || version == 0 {
                    return Err(format!("refused although the condition held: {op}"));
                }
                spoken(&mut versions, version, true, op)?;
                Role::Saw(version)
            }
            (_, Reply::Mismatch(None)) if matches!(condition, If::Version(_)) => Role::SawNothing,
            (Call::Delete(_) | Call::Touch(_), Reply::Absent) => Role::SawNothing,
            // I5: the value and its version stay, so it is as if they had been read.
            (Call::Touch(_), Reply::Done(version)) => {
                if matches!(condition, If::Version(wanted) if wanted != version) || version == 0 {
                    return Err(format!("touched although the condition did not hold: {op}"));
                }
                spoken(&mut versions, version, true, op)?;
                Role::Saw(version)
            }
            (Call::Put(..) | Call::Delete(_), Reply::Unknown) if roles[i].is_none() => {
                roles[i] = Some(Role::Hidden);
                continue;
            }
            (Call::Put(..) | Call::Delete(_), Reply::Done(_) | Reply::Unknown) => {
                if let (If::Version(before), Some(Role::Made(version))) = (condition, roles[i]) {
                    if before >= version || before == 0 {
                        return Err(format!("applied to a version that is not lower: {op}"));
                    }
                    spoken(&mut versions, before, true, op)?;
                }
                continue;
            }
            (_, Reply::Never) | (Call::Get | Call::Touch(_), Reply::Unknown) => continue,
            _ => return Err(format!("no answer to that call: {op}")),
        };
        if let Role::Saw(version) = saw
            && let Some(epoch) = versions.get_mut(&version)
        {
            epoch.seen += 1;
        }
        roles[i] = Some(saw);
    }
    Ok((roles, versions))
}

impl Judge<'_> {
    fn place(&mut self, i: usize, trail: &mut Vec<usize>) {
        self.placed[i] = true;
        self.set ^= number(i);
        if let Role::Saw(version) = self.roles[i]
            && let Ok(at) = self.versions.binary_search_by_key(&version, |(v, _)| *v)
        {
            self.versions[at].1.seen -= 1;
        }
        trail.push(i);
    }

    fn undo(&mut self, trail: &[usize]) {
        for &i in trail {
            self.placed[i] = false;
            self.set ^= number(i);
            if let Role::Saw(version) = self.roles[i]
                && let Ok(at) = self.versions.binary_search_by_key(&version, |(v, _)| *v)
            {
                self.versions[at].1.seen += 1;
            }
        }
    }

    /// True if a write of this kind applies to the register as it stands.
    fn applies(&self, i: usize, at: &At) -> bool {
        match self.ops[i].call {
            Call::Put(_, If::Any) => true,
            Call::Put(_, If::Absent) => !at.value,
            Call::Delete(If::Any) => at.value,
            Call::Put(_, If::Version(v)) | Call::Delete(If::Version(v)) => {
                at.value && at.version.map_or(v >= at.low, |version| version == v)
            }
            Call::Delete(If::Absent) | Call::Get | Call::Touch(_) | Call::Incr(_) => false,
        }
    }

    /// True if this call of unknown outcome may have made the next version, which others only spoke of.
    fn made_next(&self, h: usize, next: Option<(u64, Epoch)>, at: &At) -> bool {
        let puts = matches!(self.ops[h].call, Call::Put(..));
        next.is_some_and(|(version, e)| {
            e.writer.is_none() && version > at.low && puts == (e.state != Some(None))
        })
    }

    /// True if somebody would see it at once, had this call made a version that nobody spoke of. If nobody does,
    /// it may as well not have happened.
    fn useful(&self, h: usize, next: Option<(u64, Epoch)>, wants_nothing: bool, at: &At) -> bool {
        let call = next.and_then(|(_, e)| e.writer).map(|w| self.ops[w].call);
        let unnamed = |tombstone: bool| {
            next.is_some_and(|(_, e)| e.writer.is_none() && (e.state == Some(None)) == tombstone)
        };
        // Another of unknown outcome may depend on it: on a value of a version in this gap, or on there being none.
        let gap = at.low + 1..next.map_or(u64::MAX, |(version, _)| version);
        let named = |condition| matches!(condition, If::Version(v) if gap.contains(&v));
        let other = |wanted: &dyn Fn(Call) -> bool| {
            self.hidden.iter().any(|&i| i != h && !self.placed[i] && wanted(self.ops[i].call))
        };
        match self.ops[h].call {
            Call::Put(..) => {
                matches!(call, Some(Call::Delete(If::Any)))
                    || unnamed(true)
                    || other(&|c| matches!(c, Call::Put(_, c) | Call::Delete(c) if named(c)))
            }
            _ => {
                wants_nothing
                    || matches!(call, Some(Call::Put(_, If::Absent)))
                    || unnamed(false)
                    || !gap.is_empty() && other(&|c| matches!(c, Call::Put(_, If::Absent)))
            }
        }
    }

    /// True once every call has its instant. Choices are few: most steps are forced.
    fn go(&mut self, mut at: At) -> bool {
        let mut trail = Vec::new();
        let found = self.forced(&mut at, &mut trail);
        if found != Some(true) {
            self.undo(&trail);
        }
        found == Some(true)
    }

    /// The instants that nobody loses by; then the choices, each tried in turn.
    fn forced(&mut self, at: &mut At, trail: &mut Vec<usize>) -> Option<bool> {
        loop {
            // What has ended must be placed before anything that had not started by then.
            while at.first_end < self.by_end.len() && self.placed[self.by_end[at.first_end]] {
                at.first_end += 1;
            }
            if at.first_end == self.by_end.len() {
                return Some(true);
            }
            let horizon = self.ops[self.by_end[at.first_end]].end;
            while self.placed[self.by_start[at.first_start]] {
                at.first_start += 1;
            }
            // Reads change nothing: each is placed as soon as it fits.
            let mut wants_nothing = false;
            for k in at.first_start..self.by_start.len() {
                let i = self.by_start[k];
                if self.ops[i].start > horizon {
                    break;
                }
                if self.placed[i] {
                    continue;
                }
                match self.roles[i] {
                    Role::Saw(version) if at.version == Some(version) => {
                        self.place(i, trail);
                        at.count += 1;
                    }
                    Role::SawNothing if !at.value => {
                        self.place(i, trail);
                        at.count += 1;
                    }
                    Role::SawNothing => wants_nothing = true,
                    _ => {}
                }
            }
            if self.placed[self.by_end[at.first_end]] {
                continue;
            }
            if at.count >= self.furthest.0 {
                self.furthest = (at.count, at.version, self.by_end[at.first_end]);
            }
            // A version is left for ever: all who saw it must have been placed.
            let left = at.passed.checked_sub(1).map(|k| self.versions[k]);
            if at.version.is_some() && left.is_some_and(|(v, e)| at.version == Some(v) && e.seen > 0) {
                return Some(false);
            }
            if at.version == Some(0)
                && self.by_start.iter().any(|&i| !self.placed[i] && self.roles[i] == Role::Saw(0))
            {
                return Some(false);
            }
            let next = self.versions.get(at.passed).copied();
            let known = next.is_some_and(|(version, epoch)| {
                version > at.low
                    && epoch.writer.is_some_and(|w| self.ops[w].start < horizon && self.applies(w, at))
            });
            let hidden: Vec<usize> = self
                .hidden
                .iter()
                .copied()
                .filter(|&h| !self.placed[h] && self.ops[h].start < horizon && self.applies(h, at))
                .filter(|&h| self.made_next(h, next, at) || self.useful(h, next, wants_nothing, at))
                .collect();
            if hidden.is_empty() {
                if !known {
                    return Some(false);
                }
                let (version, epoch) = next?;
                self.step(at, version, epoch, epoch.writer?, trail);
                continue;
            }
            return Some(self.choose(*at, next, known, wants_nothing, &hidden));
        }
    }

    /// The next known version is made.
    fn step(&mut self, at: &mut At, version: u64, epoch: Epoch, writer: usize, trail: &mut Vec<usize>) {
        self.place(writer, trail);
        at.count += 1;
        at.passed += 1;
        at.version = Some(version);
        at.low = version;
        at.value = epoch.state != Some(None);
    }

    fn choose(
        &mut self,
        at: At,
        next: Option<(u64, Epoch)>,
        known: bool,
        wants_nothing: bool,
        hidden: &[usize],
    ) -> bool {
        let here = (self.set, at.passed, at.value, at.low);
        if self.budget == 0 || self.failed.contains(&here) {
            return false;
        }
        self.budget -= 1;
        if known
            && let Some((version, epoch)) = next
            && let Some(writer) = epoch.writer
        {
            let (mut then, mut trail) = (at, Vec::new());
            self.step(&mut then, version, epoch, writer, &mut trail);
            if self.go(then) {
                return true;
            }
            self.undo(&trail);
        }
        // Two writes that do the same under the same condition are as good as each other.
        let mut tried: HashSet<(bool, If)> = HashSet::new();
        for &h in hidden {
            let (puts, condition) = match self.ops[h].call {
                Call::Put(_, condition) => (true, condition),
                Call::Delete(condition) => (false, condition),
                Call::Get | Call::Touch(_) | Call::Incr(_) => continue,
            };
            if !tried.insert((puts, condition)) {
                continue;
            }
            // It made the next version that was spoken of,
            if self.made_next(h, next, &at)
                && let Some((version, epoch)) = next
            {
                let (mut then, mut trail) = (at, Vec::new());
                self.step(&mut then, version, epoch, h, &mut trail);
                if self.go(then) {
                    return true;
                }
                self.undo(&trail);
            }
            // or one that nobody spoke of.
            if !self.useful(h, next, wants_nothing, &at) {
                continue;
            }
            let mut trail = Vec::new();
            self.place(h, &mut trail);
            let low = if let If::Version(before) = condition { before } else { at.low };
            let then = At { version: None, low: low + 1, value: puts, ..at };
            if self.go(then) {
                return true;
            }
            self.undo(&trail);
        }
        self.failed.insert(here);
        false
    }
}

/// A number for each call, so that sets of calls can be told apart by the xor.
fn number(i: usize) -> u128 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let i = i as u64 + 1;
    u128::from(mix(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))) << 64 | u128::from(mix(!i))
}

/// The register as the naive judge keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Register {
    value: Option<Value>,
    /// Its version if known, and the least it can be.
    exact: Option<u64>,
    low: u64,
}

impl Register {
    /// The register, if it is of this version.
    fn of(self, version: u64) -> Option<Self> {
        match self.exact {
            Some(exact) => (exact == version).then_some(self),
            None => (version >= self.low).then_some(Self { exact: Some(version), ..self }),
        }
    }

    /// The register after this call, if it could have been answered so.
    fn after(self, op: &Op, versions: bool, read: &HashMap<u64, Value>) -> Option<Self> {
        let of = |register: Self, version: u64| {
            if versions {
                return register.of(version);
            }
            match read.get(&version) {
                Some(value) => (register.value == Some(*value)).then_some(register),
                None => Some(register),
            }
        };
        let (condition, value) = match op.call {
            Call::Get => {
                return match op.reply {
                    Reply::Found(value, version) if self.value == Some(value) => of(self, version),
                    Reply::Nothing(version) if self.value.is_none() => match version {
                        Some(version) if versions => self.of(version),
                        _ => Some(self),
                    },
                    Reply::Unknown => Some(self),
                    _ => None,
                };
            }
            Call::Touch(condition) => {
                let holds = match condition {
                    If::Any => self.value.is_some(),
                    If::Absent => self.value.is_none(),
                    If::Version(version) => self.value.is_some() && of(self, version).is_some(),
                };
                return match op.reply {
                    Reply::Done(version) if holds => self.value.and_then(|_| of(self, version)),
                    Reply::Mismatch(Some(version)) => {
                        let other = condition != If::Version(version);
                        self.value.filter(|_| other).and_then(|_| of(self, version))
                    }
                    Reply::Mismatch(None) | Reply::Absent => self.value.is_none().then_some(self),
                    Reply::Unknown => Some(self),
                    _ => None,
                };
            }
            Call::Incr(by) => {
                let value = (self.value.unwrap_or(0) as i64).wrapping_add(by);
                let low = self.exact.unwrap_or(self.low) + 1;
                // The first version may be any (I4); from then on nothing but these calls makes versions.
                let exact = self.exact.filter(|_| self.value.is_some()).map(|before| before + 1);
                let next = Self { value: Some(value as u64), exact, low };
                return match op.reply {
                    Reply::Unknown => Some(next),
                    Reply::Counted(number, _) if number != value => None,
                    Reply::Counted(_, version) if versions => next.of(version),
                    Reply::Counted(..) => Some(next),
                    _ => None,
                };
            }
            Call::Put(value, condition) => (condition, Some(value)),
            Call::Delete(condition) => (condition, None),
        };
        let before = match condition {
            If::Any if value.is_none() => self.value.map(|_| self),
            If::Any => Some(self),
            If::Absent => self.value.is_none().then_some(self),
            If::Version(version) => self.value.and_then(|_| of(self, version)),
        };
        match op.reply {
            Reply::Done(_) | Reply::Unknown => {
                let before = before?;
                let low = before.exact.unwrap_or(before.low) + 1;
                let Reply::Done(version) = op.reply else { return Some(Self { value, exact: None, low }) };
                (!versions || version >= low).then_some(Self { value, exact: Some(version), low: version })
            }
            Reply::Mismatch(None) => self.value.is_none().then_some(self),
            Reply::Mismatch(Some(version)) => {
                self.value?;
                if condition == If::Version(version) { None } else { of(self, version) }
            }
            Reply::Absent => self.value.is_none().then_some(self),
            _ => None,
        }
    }
}

/// Tries every order: at most some twenty calls. Without `versions`, a version is only another name for the value
/// it was read with, and nothing is asked of its order.
pub fn exhaust(ops: &[Op], versions: bool) -> bool {
    assert!(ops.len() <= 64, "too many calls to try every order");
    let mut read = HashMap::new();
    for op in ops {
        match (op.call, op.reply) {
            (Call::Put(value, _), Reply::Done(version)) | (Call::Get, Reply::Found(value, version)) => {
                read.insert(version, value);
            }
            (Call::Incr(_), Reply::Counted(number, version)) => {
                read.insert(version, number as u64);
            }
            _ => {}
        }
    }
    fn go(
        ops: &[Op],
        done: u64,
        register: Register,
        versions: bool,
        read: &HashMap<u64, Value>,
        seen: &mut HashSet<(u64, Register)>,
    ) -> bool {
        let open = |op: &Op| !matches!(op.reply, Reply::Unknown | Reply::Never);
        let left = || ops.iter().enumerate().filter(move |(i, _)| done >> i & 1 == 0);
        let Some(horizon) = left().filter(|(_, op)| open(op)).map(|(_, op)| op.end).min() else {
            return true;
        };
        if !seen.insert((done, register)) {
            return false;
        }
        left().filter(|(_, op)| op.start < horizon).any(|(i, op)| {
            register
                .after(op, versions, read)
                .is_some_and(|then| go(ops, done | 1 << i, then, versions, read, seen))
        })
    }
    let start = Register { value: None, exact: Some(0), low: 0 };
    go(ops, 0, start, versions, &read, &mut HashSet::new())
}
