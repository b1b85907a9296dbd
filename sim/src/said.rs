//! What a message says, in the words of a script: the same for two that say the same.

use std::sync::Arc;

use ennead_ring::message::{Addr, Answer, Ask, Copied, DecreeAnswer, Envelope, Message, Outcome};
use ennead_ring::{Ballot, Epoch, Incarnation, Key, Record, Stamp, View};

use crate::script::{Cast, Seconds, Who};
use crate::views::brief;
use crate::world::BIRTH;

/// Who is who by now.
pub(crate) struct Known {
    /// Of each machine, one after the other.
    incarnations: Vec<Vec<Incarnation>>,
    keys: usize,
}

impl Known {
    pub(crate) fn of(cast: &Cast) -> Self {
        let incarnations = cast.incarnations.iter().map(|id| vec![Incarnation::new(*id)]).collect();
        Self { incarnations, keys: cast.keys }
    }

    /// A machine has begun anew.
    pub(crate) fn anew(&mut self, machine: usize, incarnation: Incarnation) {
        self.incarnations[machine].push(incarnation);
    }

    pub(crate) fn who(&self, incarnation: Incarnation) -> Option<Who> {
        let which = |all: &Vec<Incarnation>| all.iter().position(|one| *one == incarnation);
        let mut all = self.incarnations.iter().enumerate();
        all.find_map(|(machine, all)| Some(Who(machine, which(all)?)))
    }

    pub(crate) fn incarnation(&self, Who(machine, which): Who) -> Option<Incarnation> {
        self.incarnations.get(machine)?.get(which).copied()
    }

    /// By the time it was taken, since the run began, and by whom.
    fn ballot(&self, ballot: Ballot) -> String {
        if ballot.by == Incarnation::new(u64::MAX) {
            return "a floor".to_owned();
        }
        let by = self.who(ballot.by).map_or("?".to_owned(), |who| who.to_string());
        format!("{}@{by}", Seconds(i128::from(ballot.time.nanos()) - BIRTH))
    }

    fn stamp(&self, stamp: Stamp) -> String {
        format!("{}#{}", self.ballot(stamp.ballot), stamp.n)
    }

    fn record(&self, record: &Record) -> String {
        format!(
            "{} version {}, {}",
            self.stamp(record.stamp),
            record.state.version,
            value(&record.state.value)
        )
    }

    /// Between machines with the last digits of the question's number: many a question sounds like another.
    pub(crate) fn said(
        &self,
        envelope: &Envelope,
        to: Addr,
        place: impl Fn(&Key) -> Option<usize>,
    ) -> String {
        let message = &envelope.message;
        let mut said = match message {
            Message::Prepare { ballot, .. } => format!("prepare {}", self.ballot(*ballot)),
            Message::Accept { stamp, state, .. } => {
                format!("accept {} version {}, {}", self.stamp(*stamp), state.version, value(&state.value))
            }
            Message::Answer { answer, votes, .. } => {
                let votes: Vec<String> = votes.iter().map(|slot| slot.to_string()).collect();
                let votes = if votes.is_empty() { "none".to_owned() } else { votes.join(" ") };
                let answer = match answer {
                    Answer::Promised { ballot, record, .. } => {
                        let had = record.as_ref().map_or("nothing".to_owned(), |r| self.record(r));
                        format!("promised {}, holds {had}", self.ballot(*ballot))
                    }
                    Answer::Held { stamp } => format!("held {}", self.stamp(*stamp)),
                    Answer::Refused { beat } => format!("refused by {}", self.ballot(*beat)),
                    Answer::Copy(Copied::None) => "copy: nothing".to_owned(),
                    Answer::Copy(Copied::Whole(record)) => format!("copy: {}", self.record(record)),
                    Answer::Copy(Copied::Summary { stamp, version, .. }) => {
                        format!("copy: {} version {version}, a long value", self.stamp(*stamp))
                    }
                    Answer::Mute => "mute".to_owned(),
                    Answer::NoRoom => "no room".to_owned(),
                    Answer::Busy { retry_after } => format!("busy, ask again after {retry_after} ms"),
                };
                format!("{answer}; votes {votes}")
            }
            Message::Request { handed: true, op, .. } => format!("handed over: {}", op_of(op)),
            Message::Outcome { outcome, .. } => told(outcome),
            other => self.of_views(other),
        };
        // Votes count where they were given (Q2).
        if envelope.epoch > Epoch::FIRST {
            said += &format!(", in e{}", envelope.epoch);
        }
        if self.keys > 1
            && let Some(key) = message.key().and_then(place)
        {
            said += &format!(", key {key}");
        }
        if let (Addr::Machine(_), Some(Ask(number))) = (to, ask_of(message)) {
            said += &format!("{NUMBER}{:03})", number % 1_000);
        }
        said
    }

    /// Of views, and of what follows from them: the words first, so that one of a kind is told from another.
    fn of_views(&self, message: &Message) -> String {
        let yes = |yes: bool, what: &str| if yes { format!(" {what}") } else { String::new() };
        match message {
            Message::Birth { view } | Message::ViewTold { view, .. } => {
                format!("{} {}", message.kind(), brief(view))
            }
            Message::ViewsTold { views, settled } => {
                let all: Vec<String> = views.iter().map(|view: &Arc<View>| brief(view)).collect();
                format!("{} {}, settled e{settled}", message.kind(), all.join(" "))
            }
            Message::ViewsAsk { after } => format!("{} after e{after}", message.kind()),
            Message::DecreePrepare { ballot, .. } => format!("{} {}", message.kind(), self.ballot(*ballot)),
            Message::DecreeAccept { ballot, view, .. } => {
                format!("{} {} {}", message.kind(), self.ballot(*ballot), brief(view))
            }
            Message::DecreeAnswer { answer, .. } => {
                let answer = match answer {
                    DecreeAnswer::Promised { ballot, .. } => format!("promised {}", self.ballot(*ballot)),
                    DecreeAnswer::Accepted { ballot } => format!("accepted {}", self.ballot(*ballot)),
                    DecreeAnswer::Refused { beat } => format!("refused by {}", self.ballot(*beat)),
                };
                format!("{} {answer}", message.kind())
            }
            Message::Word { synced, warm } => {
                format!("{}{}{}", message.kind(), yes(*synced, "synced"), yes(*warm, "warm"))
            }
            Message::Settled { epoch } => format!("{} e{epoch}", message.kind()),
            Message::Tell { request, .. } => format!("{} for {:?}", message.kind(), request.purpose),
            Message::Told { page, .. } => format!("{} of {} keys", message.kind(), page.entries.len()),
            other => other.kind().to_owned(),
        }
    }
}

/// Before the number of a question.
const NUMBER: &str = " (";

/// The same without its number.
pub(crate) fn without_number(said: &str) -> &str {
    said.rsplit_once(NUMBER).map_or(said, |(said, _)| said)
}

fn ask_of(message: &Message) -> Option<Ask> {
    match message {
        Message::Prepare { ask, .. }
        | Message::Accept { ask, .. }
        | Message::Read { ask, .. }
        | Message::Answer { ask, .. }
        | Message::Request { ask, .. }
        | Message::Outcome { ask, .. }
        | Message::ViewAsk { ask }
        | Message::ViewTold { ask, .. }
        | Message::DecreePrepare { ask, .. }
        | Message::DecreeAccept { ask, .. }
        | Message::DecreeAnswer { ask, .. }
        | Message::Wish { ask, .. }
        | Message::Wished { ask, .. }
        | Message::Tell { ask, .. }
        | Message::Told { ask, .. }
        | Message::Fetch { ask, .. }
        | Message::Fetched { ask, .. }
        | Message::Probe { ask, .. }
        | Message::ProbeFor { ask, .. }
        | Message::Alive { ask, .. }
        | Message::RollCall { ask, .. }
        | Message::RollNoted { ask, .. }
        | Message::RollAsk { ask, .. }
        | Message::Roll { ask, .. } => Some(*ask),
        _ => None,
    }
}

fn op_of(op: &ennead_ring::message::Op) -> String {
    use ennead_ring::message::{Change, Op, Write};
    match op {
        Op::Read => "get".to_owned(),
        Op::Settle => "settle".to_owned(),
        Op::Write(Write { change: Change::Put { value: bytes, .. }, .. }) => {
            format!("put {}", number(bytes))
        }
        Op::Write(Write { change: Change::Delete, .. }) => "delete".to_owned(),
        Op::Write(Write { change: Change::Touch { .. }, .. }) => "touch".to_owned(),
        Op::Write(Write { change: Change::Incr { by }, .. }) => format!("add {by}"),
    }
}

/// A value is eight bytes or more, or the text of a counter.
fn number(bytes: &[u8]) -> String {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    bytes.first_chunk().map_or_else(text, |eight| u64::from_be_bytes(*eight).to_string())
}

fn value(value: &Option<std::sync::Arc<[u8]>>) -> String {
    value.as_deref().map_or("no value".to_owned(), |bytes| format!("value {}", number(bytes)))
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { version, .. } => format!("done, version {version}"),
        Outcome::Counted { version, value, .. } => format!("counted {value}, version {version}"),
        Outcome::Value(None) => "no value".to_owned(),
        Outcome::Value(Some(found)) => format!("value {}, version {}", number(&found.value), found.version),
        Outcome::Mismatch { version: Some(version) } => format!("mismatch, the version is {version}"),
        Outcome::Mismatch { version: None } => "mismatch, there is no value".to_owned(),
        other => crate::report::said(other).to_owned(),
    }
}
