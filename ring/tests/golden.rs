//! Golden conversations: what machines say to each other, as text, reviewed as a diff.
//!
//! Each file in `golden/` is a list of commands, `----`, and what comes of them. `GOLDEN=rewrite cargo test -p
//! ennead-ring --test golden` writes the second part anew. Nothing is lost, late or random here unless a command
//! says so: messages arrive in order, disks are at once durable, time passes only where somebody waits.
//!
//! | command | what |
//! |---|---|
//! | `cluster 9 slots=9` | so many machines, s1 to s9, born by init |
//! | `put s1 KEY VALUE [if=absent or if=N] [id=7 [again]]` | a client's request at s1 |
//! | `delete s1 KEY ...`, `get s1 KEY` | likewise |
//! | `... deliver=s1,s2` | its Accepts reach only these |
//! | `... keep=NAME:s3` | a copy of its Accept to s3 is kept under this name |
//! | `... crash` | s1 dies once it has nothing more to say |
//! | `replay NAME` | the copy arrives, late |
//! | `prepare s1 s2 KEY +2s` | a Prepare from s1 to s2, of a ballot that far ahead of the clock |
//! | `crash s1`, `restart s1`, `wait 2s`, `show KEY` | as they say |

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ennead_ring::effect::{self, Effect};
use ennead_ring::message::{
    Addr, Answer, Ask, Change, Condition, Copied, Envelope, Message, Op, Outcome, Write as Request,
};
use ennead_ring::mutant::Rules;
use ennead_ring::node::{Birth, Setup, Tuning};
use ennead_ring::{
    Account, Ballot, Decree, Hlc, Incarnation, Input, Key, Limits, Loaded, Machine, Mono, Name, Node, Now,
    Record, RequestId, Stamp, View, Zone,
};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;

/// A machine and its disk.
struct Computer {
    me: Machine,
    birth: Birth,
    node: Option<Node>,
    records: BTreeMap<Key, Record>,
    account: Account,
    decree: Decree,
    limits: Limits,
    views: Vec<Arc<View>>,
}

/// What is under way.
enum Flight {
    Message { from: Addr, to: Addr, envelope: Box<Envelope> },
    Inside { machine: usize, input: Input },
}

/// One line of output that more machines may join.
struct Line {
    from: Vec<usize>,
    to: Vec<usize>,
    said: String,
}

#[derive(Default)]
struct Stage {
    computers: Vec<Computer>,
    flights: VecDeque<Flight>,
    now: u64,
    asks: u64,
    /// Ballots get short names, in order of appearance.
    ballots: Vec<Ballot>,
    kept: BTreeMap<String, (Addr, Addr, Box<Envelope>)>,
    /// Accepts of this command reach only these.
    deliver: Option<Vec<usize>>,
    keep: Option<(String, usize)>,
    told: Option<Outcome>,
    lines: Vec<Line>,
    out: String,
    quiet: bool,
}

impl Stage {
    fn number(word: &str) -> usize {
        word.strip_prefix('s')
            .and_then(|n| n.parse::<usize>().ok())
            .unwrap_or_else(|| panic!("{word}: no machine"))
            - 1
    }

    fn ballot(&mut self, ballot: Ballot) -> String {
        if ballot.by == Incarnation::new(u64::MAX) {
            return "its floor".to_string();
        }
        let nth = self.ballots.iter().position(|b| *b == ballot).unwrap_or_else(|| {
            self.ballots.push(ballot);
            self.ballots.len() - 1
        });
        format!("b{}.s{}", nth + 1, ballot.by.id())
    }

    fn stamp(&mut self, stamp: Stamp) -> String {
        format!("{}#{}", self.ballot(stamp.ballot), stamp.n)
    }

    fn at(&self) -> Now {
        Now { mono: Mono(self.now), wall: self.now }
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.flush();
        let _ = writeln!(self.out, "{}", line.as_ref());
    }

    fn flush(&mut self) {
        for Line { from, to, said } in std::mem::take(&mut self.lines) {
            let list = |machines: &[usize]| {
                machines.iter().map(|m| format!("s{}", m + 1)).collect::<Vec<_>>().join(" ")
            };
            let _ = writeln!(self.out, "  {} -> {}: {said}", list(&from), list(&to));
        }
    }

    /// Notes a message; one that says the same to another, or the same from another, joins its line.
    fn note(&mut self, from: usize, to: usize, said: String) {
        if self.quiet {
            return;
        }
        if let Some(line) = self.lines.iter_mut().find(|l| l.said == said) {
            if line.from == [from] && !line.to.contains(&to) {
                return line.to.push(to);
            }
            if line.to == [to] && !line.from.contains(&from) {
                return line.from.push(from);
            }
        }
        self.lines.push(Line { from: vec![from], to: vec![to], said });
    }

    fn describe(&mut self, message: &Message) -> String {
        let held = |stage: &mut Self, record: &Record| {
            let value = record
                .state
                .value
                .as_deref()
                .map_or("no value".to_string(), |v| String::from_utf8_lossy(v).into());
            format!("{} version {} {value}", stage.stamp(record.stamp), record.state.version)
        };
        match message {
            Message::Prepare { ballot, .. } => format!("prepare {}", self.ballot(*ballot)),
            Message::Accept { stamp, state, .. } => {
                format!("accept {} version {}", self.stamp(*stamp), state.version)
            }
            Message::Answer { answer, .. } => match answer {
                Answer::Promised { ballot, record, .. } => {
                    let had = record.as_ref().map_or("nothing".to_string(), |r| held(self, r));
                    format!("promised {}, holds {had}", self.ballot(*ballot))
                }
                Answer::Held { stamp } => format!("held {}", self.stamp(*stamp)),
                Answer::Refused { beat } => format!("refused by {}", self.ballot(*beat)),
                Answer::Copy(Copied::None) => "copy: nothing".to_string(),
                Answer::Copy(Copied::Whole(record)) => format!("copy: {}", held(self, record)),
                Answer::Copy(Copied::Summary { stamp, version, .. }) => {
                    format!("copy: {} version {version}", self.stamp(*stamp))
                }
                Answer::Mute => "mute".to_string(),
                Answer::NoRoom => "no room".to_string(),
                Answer::Busy { .. } => "busy".to_string(),
            },
            Message::Request { handed: true, .. } => "request, handed over".to_string(),
            Message::Outcome { outcome, .. } => tell(outcome),
            other => other.kind().to_string(),
        }
    }

    fn start(&mut self, m: usize) {
        let now = self.at();
        let computer = &mut self.computers[m];
        let setup = Setup {
            me: computer.me,
            weight: 8,
            zone: Zone::NONE,
            limits: computer.limits,
            views: computer.views.clone(),
            account: computer.account.clone(),
            decree: computer.decree.clone(),
            birth: computer.birth.clone(),
            tuning: Tuning::default(),
            seed: m as u64,
            rules: Rules::default(),
        };
        computer.node = Some(Node::new(setup, now));
    }

    fn feed(&mut self, m: usize, input: Input) {
        // Time passes a little with everything that happens.
        self.now += 10_000;
        let now = self.at();
        let Some(node) = &mut self.computers[m].node else { return };
        let mut effects = Vec::new();
        node.handle(now, input, &mut effects);
        node.check();
        for effect in effects {
            match effect {
                Effect::Persist { change, .. } => match change {
                    effect::Change::Record { key, record } => {
                        self.computers[m].records.insert(key, record);
                    }
                    effect::Change::Limits(limits) => self.computers[m].limits = limits,
                    effect::Change::Forget { key } => drop(self.computers[m].records.remove(&key)),
                    effect::Change::View(view) => self.computers[m].views.push(view),
                    effect::Change::Account(account) => self.computers[m].account = account,
                    effect::Change::Decree(decree) => self.computers[m].decree = decree,
                },
                Effect::Send { to, envelope, .. } => {
                    let from = Addr::Machine(self.computers[m].me);
                    self.flights.push_back(Flight::Message { from, to, envelope });
                }
                Effect::Scan { scan, after, .. } => {
                    let records = &self.computers[m].records;
                    let rest = records.iter().filter(|(key, _)| after.as_ref().is_none_or(|a| *key > a));
                    let found: Vec<_> = rest.map(|(k, r)| (k.clone(), Loaded::Record(r.clone()))).collect();
                    let input = Input::Scanned { scan, found, end: true, total: records.len() as u64 };
                    self.flights.push_back(Flight::Inside { machine: m, input });
                }
                Effect::Load { key } => {
                    let found =
                        self.computers[m].records.get(&key).cloned().map_or(Loaded::Nothing, Loaded::Record);
                    self.flights
                        .push_back(Flight::Inside { machine: m, input: Input::Loaded { key, found } });
                }
            }
        }
    }

    fn index(&self, machine: Machine) -> usize {
        self.computers.iter().position(|c| c.me.name == machine.name).expect("a machine of the cluster")
    }

    /// Until nobody has anything more to say.
    fn settle(&mut self) {
        while let Some(flight) = self.flights.pop_front() {
            match flight {
                Flight::Inside { machine, input } => self.feed(machine, input),
                Flight::Message { from: Addr::Machine(from), to: Addr::Client(_), envelope } => {
                    let from = self.index(from);
                    if let Message::Outcome { outcome, .. } = envelope.message {
                        self.say(format!("  s{} answers: {}", from + 1, tell(&outcome)));
                        self.told = Some(outcome);
                    }
                }
                Flight::Message { from, to: Addr::Machine(to), envelope } => {
                    let to = self.index(to);
                    if let Addr::Machine(from) = from {
                        let from = self.index(from);
                        let mut said = self.describe(&envelope.message);
                        let accept = matches!(envelope.message, Message::Accept { .. });
                        if accept && self.keep.as_ref().is_some_and(|(_, m)| *m == to) {
                            let (name, _) = self.keep.take().expect("it is there");
                            let ends = (
                                Addr::Machine(self.computers[from].me),
                                Addr::Machine(self.computers[to].me),
                            );
                            self.kept.insert(name, (ends.0, ends.1, envelope.clone()));
                        }
                        let lost = accept && self.deliver.as_ref().is_some_and(|d| !d.contains(&to));
                        if lost || self.computers[to].node.is_none() {
                            said.push_str(", lost");
                            self.note(from, to, said);
                            continue;
                        }
                        self.note(from, to, said);
                    }
                    self.feed(to, Input::Message { from, envelope });
                }
                Flight::Message { .. } => {}
            }
        }
        self.flush();
    }

    /// The next timer of anyone, if it is due by then.
    fn wake(&mut self, until: u64) -> bool {
        let due = (0..self.computers.len())
            .filter_map(|m| Some((self.computers[m].node.as_ref()?.wake_at()?.0, m)))
            .min();
        match due {
            Some((at, m)) if at.0 <= until => {
                self.now = self.now.max(at.0);
                self.feed(m, Input::Wake);
                true
            }
            _ => false,
        }
    }

    fn wait(&mut self, until: u64, mut enough: impl FnMut(&Self) -> bool) {
        self.settle();
        while !enough(self) && self.wake(until) {
            self.settle();
        }
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let option = |name: &str| words.iter().find_map(|w| w.strip_prefix(name));
        let (deliver, keep) = (option("deliver="), option("keep="));
        self.deliver = deliver.map(|list| list.split(',').map(Self::number).collect());
        self.keep = keep.and_then(|k| k.split_once(':')).map(|(name, m)| (name.to_string(), Self::number(m)));
        match words[0] {
            "cluster" => {
                let machines: usize = words[1].parse().expect("a number of machines");
                let slots = option("slots=").map_or(9, |s| s.parse().expect("a number of slots"));
                self.bear(machines, slots);
            }
            "put" | "delete" | "get" => {
                let (m, key) = (Self::number(words[1]), Key::new(words[2]).expect("a key"));
                let id: u64 = option("id=").map_or(1_000 + self.asks, |n| n.parse().expect("an id"));
                // An id says when it was made: in the order of the ids.
                let id = RequestId { time: Hlc::from_nanos(SEC + id), random: id };
                let condition = match option("if=") {
                    None => Condition::Any,
                    Some("absent") => Condition::Absent,
                    Some(version) => Condition::Version(version.parse().expect("a version")),
                };
                let change = match words[0] {
                    "put" => Change::Put { value: words[3].as_bytes().into(), ttl: None },
                    _ => Change::Delete,
                };
                let op = match words[0] {
                    "get" => Op::Read,
                    _ => Op::Write(Request { id, again: words.contains(&"again"), condition, change }),
                };
                self.asks += 1;
                self.told = None;
                let message = Message::Request { ask: Ask(self.asks), key, op, within: 2_000, handed: false };
                let view = self.computers[m].views.last().expect("it was born").clone();
                let envelope =
                    Box::new(Envelope { cluster: Some(view.cluster()), epoch: view.epoch(), message });
                self.feed(m, Input::Message { from: Addr::Client(1), envelope });
                if words.contains(&"crash") {
                    self.settle();
                    self.computers[m].node = None;
                    self.say(format!("  s{} is down", m + 1));
                } else {
                    let until = self.now + 3 * SEC;
                    self.wait(until, |stage| stage.told.is_some());
                }
            }
            "prepare" => {
                let (from, to) = (Self::number(words[1]), Self::number(words[2]));
                let ahead = span(words[4].trim_start_matches('+'));
                let ballot = Ballot {
                    time: Hlc::from_nanos(self.now + ahead),
                    by: self.computers[from].me.incarnation,
                };
                let message =
                    Message::Prepare { ask: Ask(0), key: Key::new(words[3]).expect("a key"), ballot };
                let view = self.computers[from].views.last().expect("it was born").clone();
                let envelope =
                    Box::new(Envelope { cluster: Some(view.cluster()), epoch: view.epoch(), message });
                let ends = (Addr::Machine(self.computers[from].me), Addr::Machine(self.computers[to].me));
                self.flights.push_back(Flight::Message { from: ends.0, to: ends.1, envelope });
                self.settle();
            }
            "replay" => {
                let (from, to, envelope) = self.kept[words[1]].clone();
                self.flights.push_back(Flight::Message { from, to, envelope });
                self.settle();
            }
            "crash" => self.computers[Self::number(words[1])].node = None,
            "restart" => {
                let m = Self::number(words[1]);
                self.computers[m].node = None;
                self.start(m);
            }
            "wait" => {
                let until = self.now + span(words[1]);
                self.wait(until, |_| false);
                self.now = until;
            }
            "show" => {
                let key = Key::new(words[1]).expect("a key");
                for m in 0..self.computers.len() {
                    let line = match self.computers[m].records.get(&key).cloned() {
                        None => "nothing".to_string(),
                        Some(record) => {
                            let value = record.state.value.as_deref();
                            let value =
                                value.map_or("no value".to_string(), |v| String::from_utf8_lossy(v).into());
                            format!("{} version {} {value}", self.stamp(record.stamp), record.state.version)
                        }
                    };
                    self.say(format!("  s{}: {line}", m + 1));
                }
            }
            other => panic!("{other}: no command"),
        }
        self.flush();
    }

    /// F1, without a word of it in the output.
    fn bear(&mut self, machines: usize, slots: u8) {
        let names: Vec<Name> =
            (1..=machines).map(|i| format!("10.0.0.{i}").parse().expect("a name")).collect();
        self.now = 10 * SEC;
        for (i, &name) in names.iter().enumerate() {
            self.computers.push(Computer {
                // Its incarnation is its number: ballots print as that.
                me: Machine { name, incarnation: Incarnation::new(i as u64 + 1) },
                birth: match i {
                    0 => Birth::Init { with: names[1..].to_vec(), slots },
                    _ => Birth::Join(vec![names[0]]),
                },
                node: None,
                records: BTreeMap::new(),
                account: Account::default(),
                decree: Decree::default(),
                limits: Limits::default(),
                views: Vec::new(),
            });
        }
        self.quiet = true;
        for m in 0..machines {
            self.start(m);
        }
        let until = self.now + 10 * SEC;
        self.wait(until, |stage| stage.computers.iter().all(|c| !c.views.is_empty()));
        self.settle();
        self.quiet = false;
    }
}

fn tell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { version, .. } => format!("done, version {version}"),
        Outcome::Value(None) => "no value".to_string(),
        Outcome::Value(Some(found)) => {
            format!("{}, version {}", String::from_utf8_lossy(&found.value), found.version)
        }
        Outcome::Mismatch { version: Some(version) } => format!("mismatch, the version is {version}"),
        Outcome::Mismatch { version: None } => "mismatch, there is no value".to_string(),
        Outcome::Counted { version, value, .. } => format!("{value}, version {version}"),
        Outcome::Uncountable { version, why } => format!("cannot be counted, version {version}: {why:?}"),
        Outcome::Absent => "there was nothing to delete".to_string(),
        Outcome::TooLate { .. } => "too late".to_string(),
        Outcome::NoQuorum { votes, needed, .. } => {
            format!("no quorum, {votes} of {needed}; nothing was changed")
        }
        Outcome::Unknown { votes, needed, .. } => format!("unknown, {votes} of {needed}"),
        Outcome::Overloaded { .. } => "overloaded".to_string(),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::NotHere => "not here".to_owned(),
        Outcome::NoRoom { .. } => "no room".to_owned(),
    }
}

fn span(text: &str) -> u64 {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse::<u64>().expect("milliseconds") * MS;
    }
    text.strip_suffix('s').and_then(|s| s.parse::<u64>().ok()).expect("a time such as 2s or 10ms") * SEC
}

#[test]
fn machines_say_what_they_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let rewrite = std::env::var("GOLDEN").is_ok_and(|v| v == "rewrite");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "conversations are missing");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        let (script, expected) = text.split_once("----\n").unwrap_or((&text, ""));
        let mut stage = Stage::default();
        for line in script.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let _ = writeln!(stage.out, "> {line}");
            stage.command(line);
        }
        if rewrite {
            std::fs::write(&file, format!("{script}----\n{}", stage.out)).expect("it is written");
        } else {
            assert_eq!(expected, stage.out, "{}: GOLDEN=rewrite accepts this", file.display());
        }
    }
}
