//! A run as a list of what happened to its machines, one thing after the other: enough to have it again without a world
//! that draws lots. It is written as text, as a conversation, and read back.
//!
//! | line, after the time in seconds | what |
//! |---|---|
//! | `s1 starts, seed 7` | a process starts from what is on its disk (`, key 0 unreadable`; `, joins s2 s3`) |
//! | `s1 dies, 2 unsynced changes survive` | it dies |
//! | `s1 syncs` | all that it has written is durable |
//! | `s1 has read key 0`, `s1 has scanned (3)` | its storage answers |
//! | `s1 wakes` | a timer of its goes off |
//! | `s1 hears that s2 can be reached`, `cannot` | a hint |
//! | `s1 has no room`, `has room` | its disk is full, or no longer |
//! | `s1 compares all` | somebody there wants all copies compared |
//! | `s1 is told that s2 leaves`, `s2 is gone` | an operator says so to it |
//! | `s4 is wanted again` | who left may come back |
//! | `s4 is backed up`, `s4 is lost` | its disk is copied; it will not run again as the machine that it was |
//! | `s4 begins anew as 991`, `from its backup as 991` | another incarnation, of a blank disk or of the copy: `s4.2` from then on |
//! | `call 3 -> s1: put 17 at key 0, id 0.25, within 300 ms` | a client asks; also `if absent`, `if version 2`, `again` |
//! | `s1 -> s2: prepare 0.25@s1` | a message arrives: of those on their way, one that says so |
//! | `s1 -> call 3: done, version 1` | a client hears |
//!
//! A message that does not arrive is lost. `0.25(-0.1)` is the time by a wall clock that is a tenth of a second behind.

use std::fmt;
use std::str::FromStr;

use ennead_ring::node::Tuning;
use ennead_ring::view::DEFAULT_PORT;
use ennead_ring::{ClusterId, Epoch, Incarnation, Machine, Member, Name, View};

use crate::checker::{Call, If};
use crate::world::address;
use crate::{MS, SEC};

/// Who plays, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Of each machine, at first.
    pub(crate) incarnations: Vec<u64>,
    /// So many of them, the first ones, are in view 1.
    pub(crate) founders: usize,
    pub(crate) cluster: u64,
    pub(crate) slots: u8,
    pub(crate) weight: u32,
    pub(crate) keys: usize,
    /// What is tuned otherwise than by default.
    pub(crate) tuned: Vec<(String, u64)>,
}

/// A cast, and what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub(crate) cast: Cast,
    pub(crate) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: u64,
    /// How far the machine's wall clock is off.
    pub(crate) off: i64,
    pub(crate) machine: usize,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Starts { seed: u64, unreadable: Vec<usize>, joins: Vec<usize> },
    Dies { survive: usize },
    Syncs,
    HasRead(usize),
    HasScanned(u64),
    Wakes,
    Hint { of: usize, reachable: bool },
    Room(bool),
    Compares,
    Leaves(Who),
    Gone(Who),
    Wanted,
    BackedUp,
    Lost,
    Anew { incarnation: u64, restored: bool },
    Asked { call: usize, wish: Wish },
    Hears { from: usize, said: String },
    Tells { call: usize, said: String },
}

/// A machine, by its number, and which of its incarnations, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who(pub(crate) usize, pub(crate) usize);

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// One machine, for its copy.
    Copy {
        key: usize,
    },
    Of {
        key: usize,
        call: Call,
        id: i64,
        within: u32,
        again: bool,
    },
}

impl Script {
    /// How many things happen.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// True if nothing does.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

type Knob = (&'static str, fn(&Tuning) -> u64, fn(&mut Tuning, u64));

/// What may be tuned in a script.
const KNOBS: [Knob; 13] = [
    ("resend_after", |t| t.resend_after, |t, n| t.resend_after = n),
    ("ceiling_ahead", |t| t.ceiling_ahead, |t, n| t.ceiling_ahead = n),
    ("backoff", |t| t.backoff, |t, n| t.backoff = n),
    ("pipeline", |t| t.pipeline as u64, |t, n| t.pipeline = n as usize),
    ("inline", |t| u64::from(t.inline), |t, n| t.inline = n as u32),
    ("cells", |t| t.cells as u64, |t, n| t.cells = n as usize),
    ("waiting_per_key", |t| t.waiting_per_key as u64, |t, n| t.waiting_per_key = n as usize),
    ("probe_every", |t| t.probe_every, |t, n| t.probe_every = n),
    ("down_after", |t| t.down_after, |t, n| t.down_after = n),
    ("patience", |t| t.patience, |t, n| t.patience = n),
    ("check_every", |t| t.check_every, |t, n| t.check_every = n),
    ("collect_after", |t| t.collect_after, |t, n| t.collect_after = n),
    ("roll_above", |t| t.roll_above as u64, |t, n| t.roll_above = n as usize),
];

impl Cast {
    /// As they are at first.
    pub(crate) fn machines(&self) -> Vec<Machine> {
        let machine = |(i, incarnation): (usize, &u64)| Machine {
            name: Name::new((address(i + 1), DEFAULT_PORT).into()),
            incarnation: Incarnation::new(*incarnation),
        };
        self.incarnations.iter().enumerate().map(machine).collect()
    }

    /// View 1, of the founders.
    ///
    /// # Errors
    /// They make none.
    pub(crate) fn view(&self) -> Result<View, String> {
        let Self { founders, slots, weight, .. } = *self;
        let machines = self.machines();
        let Some(first) = machines.get(..founders) else {
            return Err(format!("founders is {founders}, and there are {} machines", machines.len()));
        };
        let members = first.iter().map(|machine| Member::up(*machine, weight)).collect();
        View::new(ClusterId::new(self.cluster), Epoch::FIRST, slots, members, Vec::new())
            .map_err(|error| format!("these machines, slots and weights make no view: {error}"))
    }

    pub(crate) fn tuned(tuning: &Tuning) -> Vec<(String, u64)> {
        let usual = Tuning::default();
        let other = KNOBS.iter().filter(|(_, get, _)| get(tuning) != get(&usual));
        other.map(|(name, get, _)| ((*name).to_owned(), get(tuning))).collect()
    }

    pub(crate) fn tuning(&self) -> Tuning {
        let mut tuning = Tuning::default();
        for (name, number) in &self.tuned {
            if let Some((.., set)) = KNOBS.iter().find(|(knob, ..)| knob == name) {
                set(&mut tuning, *number);
            }
        }
        tuning
    }
}

// -- as text -----------------------------------------------------------------------------------------------

/// Seconds, with as many digits as it takes.
pub(crate) struct Seconds(pub(crate) i128);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (s, ns) = (self.0.unsigned_abs() / u128::from(SEC), self.0.unsigned_abs() % u128::from(SEC));
        let digits = format!("{ns:09}");
        let digits = digits.trim_end_matches('0');
        write!(f, "{sign}{s}.{}", if digits.is_empty() { "0" } else { digits })
    }
}

fn seconds(text: &str) -> Result<i128, String> {
    let wrong = || format!("\"{text}\" is no time in seconds");
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (s, ns) = digits.split_once('.').unwrap_or((digits, "0"));
    let (whole, part) = (s.parse::<u64>().ok(), format!("{ns:0<9}").parse::<u64>().ok());
    let (whole, part) = whole.zip(part.filter(|_| ns.len() <= 9)).ok_or_else(wrong)?;
    Ok(sign * (i128::from(whole) * i128::from(SEC) + i128::from(part)))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cast { incarnations, founders, cluster, slots, weight, keys, tuned } = &self.cast;
        let all: Vec<String> = incarnations.iter().map(u64::to_string).collect();
        writeln!(f, "machines {}", all.join(" "))?;
        if *founders < incarnations.len() {
            writeln!(f, "founders {founders}")?;
        }
        writeln!(f, "cluster {cluster}")?;
        writeln!(f, "slots {slots}")?;
        writeln!(f, "weight {weight}")?;
        writeln!(f, "keys {keys}")?;
        for (name, number) in tuned {
            writeln!(f, "tuned {name} {number}")?;
        }
        writeln!(f, "----")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut time = Seconds(i128::from(self.at)).to_string();
        if self.off != 0 {
            time += &format!("({})", Seconds(i128::from(self.off)));
        }
        let m = self.machine + 1;
        write!(f, "{time:<12} ")?;
        match &self.what {
            What::Starts { seed, unreadable, joins } => {
                write!(f, "s{m} starts, seed {seed}")?;
                if !joins.is_empty() {
                    write!(f, ", joins")?;
                    joins.iter().try_for_each(|to| write!(f, " s{}", to + 1))?;
                }
                unreadable.iter().try_for_each(|key| write!(f, ", key {key} unreadable"))
            }
            What::Dies { survive } => write!(f, "s{m} dies, {survive} unsynced changes survive"),
            What::Syncs => write!(f, "s{m} syncs"),
            What::HasRead(key) => write!(f, "s{m} has read key {key}"),
            What::HasScanned(scan) => write!(f, "s{m} has scanned ({scan})"),
            What::Wakes => write!(f, "s{m} wakes"),
            What::Hint { of, reachable } => {
                write!(
                    f,
                    "s{m} hears that s{} {} be reached",
                    of + 1,
                    if *reachable { "can" } else { "cannot" }
                )
            }
            What::Room(true) => write!(f, "s{m} has room"),
            What::Room(false) => write!(f, "s{m} has no room"),
            What::Compares => write!(f, "s{m} compares all"),
            What::Leaves(who) => write!(f, "s{m} is told that {who} leaves"),
            What::Gone(who) => write!(f, "s{m} is told that {who} is gone"),
            What::Wanted => write!(f, "s{m} is wanted again"),
            What::BackedUp => write!(f, "s{m} is backed up"),
            What::Lost => write!(f, "s{m} is lost"),
            What::Anew { incarnation, restored: false } => write!(f, "s{m} begins anew as {incarnation}"),
            What::Anew { incarnation, restored: true } => {
                write!(f, "s{m} begins from its backup as {incarnation}")
            }
            What::Asked { call, wish } => write!(f, "call {call} -> s{m}: {wish}"),
            What::Hears { from, said } => write!(f, "s{} -> s{m}: {said}", from + 1),
            What::Tells { call, said } => write!(f, "s{m} -> call {call}: {said}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(machine, which) = self;
        write!(f, "s{}", machine + 1)?;
        if *which > 0 { write!(f, ".{}", which + 1) } else { Ok(()) }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, call, id, within, again) = match self {
            Self::Copy { key } => return write!(f, "your copy of key {key}?"),
            Self::Of { key, call, id, within, again } => (key, call, id, within, again),
        };
        let condition = match call {
            Call::Put(value, condition) => {
                write!(f, "put {value} at key {key}")?;
                *condition
            }
            Call::Delete(condition) => {
                write!(f, "delete key {key}")?;
                *condition
            }
            Call::Touch(condition) => {
                write!(f, "touch key {key}")?;
                *condition
            }
            Call::Incr(by) => {
                write!(f, "add {by} at key {key}")?;
                If::Any
            }
            Call::Get => {
                write!(f, "get key {key}")?;
                If::Any
            }
        };
        write!(f, ", id {}, within {within} ms", Seconds(i128::from(*id)))?;
        match condition {
            If::Any => {}
            If::Absent => write!(f, ", if absent")?,
            If::Version(version) => write!(f, ", if version {version}")?,
        }
        if *again { write!(f, ", again") } else { Ok(()) }
    }
}

impl FromStr for Script {
    type Err = String;

    /// Lines that begin with `#` say nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cast = Cast {
            incarnations: Vec::new(),
            founders: usize::MAX,
            cluster: 1,
            slots: 9,
            weight: 1,
            keys: 1,
            tuned: Vec::new(),
        };
        let mut steps = Vec::new();
        let mut acting = false;
        for (i, line) in text.lines().enumerate() {
            let said = line.trim();
            let in_line = |what: String| format!("line {}: {what}", i + 1);
            match said {
                "" => {}
                "----" => acting = true,
                _ if said.starts_with('#') => {}
                _ if acting => steps.push(step(said).map_err(in_line)?),
                _ => setting(&mut cast, said).map_err(in_line)?,
            }
        }
        if cast.founders == usize::MAX {
            cast.founders = cast.incarnations.len();
        }
        cast.view()?;
        let known = |machine: usize| machine < cast.incarnations.len();
        if let Some(lost) = steps.iter().find(|step| !known(step.machine)) {
            return Err(format!("\"{lost}\": there are {} machines", cast.incarnations.len()));
        }
        Ok(Self { cast, steps })
    }
}

fn setting(cast: &mut Cast, line: &str) -> Result<(), String> {
    let (name, rest) = line.split_once(' ').ok_or_else(|| format!("\"{line}\" is no setting"))?;
    match name {
        "machines" => cast.incarnations = rest.split(' ').map(number).collect::<Result<_, _>>()?,
        "founders" => cast.founders = number(rest)?,
        "cluster" => cast.cluster = number(rest)?,
        "slots" => cast.slots = number(rest)?,
        "weight" => cast.weight = number(rest)?,
        "keys" => cast.keys = number(rest)?,
        "tuned" => {
            let (knob, to) = rest.split_once(' ').ok_or_else(|| format!("\"{rest}\" tunes nothing"))?;
            if !KNOBS.iter().any(|(known, ..)| *known == knob) {
                return Err(format!("{knob} cannot be tuned in a script"));
            }
            cast.tuned.push((knob.to_owned(), number(to)?));
        }
        _ => {
            return Err(format!(
                "\"{name}\" is no setting: there are machines, founders, cluster, slots, weight, keys, \
                 tuned"
            ));
        }
    }
    Ok(())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no number here"))
}

fn machine(text: &str) -> Result<usize, String> {
    let number = text.strip_prefix('s').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0);
    number.map(|n| n - 1).ok_or_else(|| format!("\"{text}\" is no machine"))
}

fn who(text: &str) -> Option<Who> {
    let (name, which) = text.split_once('.').unwrap_or((text, "1"));
    Some(Who(machine(name).ok()?, which.parse::<usize>().ok()?.checked_sub(1)?))
}

fn key(text: &str) -> Result<usize, String> {
    number(text.strip_prefix("key ").ok_or_else(|| format!("\"{text}\" is no key"))?)
}

fn step(line: &str) -> Result<Step, String> {
    let unknown = || format!("\"{line}\" is nothing that happens");
    let (time, rest) = line.split_once(' ').ok_or_else(unknown)?;
    let (at, off) = match time.strip_suffix(')').and_then(|time| time.split_once('(')) {
        Some((at, off)) => (seconds(at)?, seconds(off)?),
        None => (seconds(time)?, 0),
    };
    let at = u64::try_from(at).map_err(|_| format!("{time} is before the beginning"))?;
    let off = i64::try_from(off).map_err(|_| format!("{time}: no clock is so far off"))?;
    let rest = rest.trim_start();
    let (machine, what) = if let Some((from, (to, said))) =
        rest.split_once(" -> ").and_then(|(from, rest)| Some((from, rest.split_once(": ")?)))
    {
        match (from.strip_prefix("call "), to.strip_prefix("call ")) {
            (Some(call), None) => (machine(to)?, What::Asked { call: number(call)?, wish: wish(said)? }),
            (None, Some(call)) => {
                (machine(from)?, What::Tells { call: number(call)?, said: said.to_owned() })
            }
            (None, None) => (machine(to)?, What::Hears { from: machine(from)?, said: said.to_owned() }),
            (Some(_), Some(_)) => return Err(unknown()),
        }
    } else {
        let (who, does) = rest.split_once(' ').ok_or_else(unknown)?;
        (machine(who)?, does_alone(does).ok_or_else(unknown)??)
    };
    Ok(Step { at, off, machine, what })
}

/// What a machine does without a word to others.
fn does_alone(does: &str) -> Option<Result<What, String>> {
    Some(match does {
        "syncs" => Ok(What::Syncs),
        "wakes" => Ok(What::Wakes),
        "has room" => Ok(What::Room(true)),
        "has no room" => Ok(What::Room(false)),
        "compares all" => Ok(What::Compares),
        "is wanted again" => Ok(What::Wanted),
        "is backed up" => Ok(What::BackedUp),
        "is lost" => Ok(What::Lost),
        _ => {
            if let Some(rest) = does.strip_prefix("starts, seed ") {
                starts(rest)
            } else if let Some(rest) = does.strip_prefix("dies, ") {
                number(rest.split(' ').next()?).map(|survive| What::Dies { survive })
            } else if let Some(rest) = does.strip_prefix("has read ") {
                key(rest).map(What::HasRead)
            } else if let Some(scan) = does.strip_prefix("has scanned (") {
                number(scan.trim_end_matches(')')).map(What::HasScanned)
            } else if let Some(id) = does.strip_prefix("begins anew as ") {
                number(id).map(|incarnation| What::Anew { incarnation, restored: false })
            } else if let Some(id) = does.strip_prefix("begins from its backup as ") {
                number(id).map(|incarnation| What::Anew { incarnation, restored: true })
            } else if let Some(told) = does.strip_prefix("is told that ") {
                let (of, what) = told.split_once(' ')?;
                let of = who(of)?;
                Ok(match what {
                    "leaves" => What::Leaves(of),
                    "is gone" => What::Gone(of),
                    _ => return None,
                })
            } else {
                let (of, can) = does.strip_prefix("hears that ")?.split_once(' ')?;
                let reachable = can == "can be reached";
                machine(of).map(|of| What::Hint { of, reachable })
            }
        }
    })
}

fn starts(rest: &str) -> Result<What, String> {
    let mut parts = rest.split(", ");
    let seed = number(parts.next().unwrap_or_default())?;
    let (mut joins, mut unreadable) = (Vec::new(), Vec::new());
    for part in parts {
        match part.strip_prefix("joins ") {
            Some(to) => joins = to.split(' ').map(machine).collect::<Result<_, _>>()?,
            None => unreadable.push(key(part.trim_end_matches(" unreadable"))?),
        }
    }
    Ok(What::Starts { seed, unreadable, joins })
}

fn wish(said: &str) -> Result<Wish, String> {
    if let Some(of) = said.strip_prefix("your copy of ") {
        return Ok(Wish::Copy { key: key(of.trim_end_matches('?'))? });
    }
    let unknown = || format!("\"{said}\" is nothing to ask");
    let mut parts = said.split(", ");
    let what = parts.next().ok_or_else(unknown)?;
    let (mut id, mut within, mut again, mut condition) = (0, 1_000, false, If::Any);
    for part in parts {
        match part.split_once(' ') {
            Some(("id", time)) => id = i64::try_from(seconds(time)?).map_err(|_| unknown())?,
            Some(("within", ms)) => within = number(ms.trim_end_matches(" ms"))?,
            Some(("if", "absent")) => condition = If::Absent,
            Some(("if", version)) => {
                condition = If::Version(number(version.trim_start_matches("version "))?);
            }
            _ if part == "again" => again = true,
            _ => return Err(unknown()),
        }
    }
    let (key, call) = if let Some((value, of)) = what.strip_prefix("put ").and_then(|p| p.split_once(" at "))
    {
        (key(of)?, Call::Put(number(value)?, condition))
    } else if let Some((by, of)) = what.strip_prefix("add ").and_then(|add| add.split_once(" at ")) {
        (key(of)?, Call::Incr(number(by)?))
    } else if let Some(of) = what.strip_prefix("touch ") {
        (key(of)?, Call::Touch(condition))
    } else if let Some(of) = what.strip_prefix("delete ") {
        (key(of)?, Call::Delete(condition))
    } else {
        (key(what.strip_prefix("get ").ok_or_else(unknown)?)?, Call::Get)
    };
    Ok(Wish::Of { key, call, id, within, again })
}

/// Steps at round times, where that is wanted: this many nanoseconds.
pub(crate) const ROUND: [u64; 2] = [MS, 1_000];
