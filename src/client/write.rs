//! A request through coordinators: the owner of the lowest slot believed alive, then on to the next, always
//! under one request id (section 12, I3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::message::{Ask, Change, Message, Op, Outcome, Write};
use ennead_ring::stamp::{Hlc, RequestId};
use ennead_ring::view::Name;
use ennead_ring::{Key, quorum_of};

use super::link::{Link, Replies, Reply};
use super::{Error, Written};

/// How long a coordinator that lives may take before the next one is tried beside it; longer while operations take long,
/// as many times what they take: where much is asked, two coordinators at one key are more work for the same.
const PATIENCE: Duration = Duration::from_millis(400);
const PATIENT: u32 = 8;
/// How long after the deadline coordinators are listened to: they know better than we what came of it.
const LAST_WORDS: Duration = Duration::from_millis(60);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
/// With less than this left, another try would only be cut short; a first one is made with any time at all.
const TOO_LATE: Duration = Duration::from_millis(10);
const MOMENT: Duration = Duration::from_nanos(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// What came of a write that was carried out.
#[derive(Debug)]
pub(super) enum Wrote {
    Done(Written),
    /// There was nothing to delete, or to touch.
    Absent,
    /// I6: and the counter became this number.
    Counted(i64, Written),
}

/// Carries out one write. The deadline covers everything.
pub(super) async fn write(
    link: &Arc<Link>,
    key: &Key,
    write: Write,
    deadline: Instant,
) -> Result<Wrote, Error> {
    let mut op = Op::Write(write);
    loop {
        return match through_coordinators(link, key, &op, deadline).await? {
            Outcome::Done { version, votes } => Ok(Wrote::Done(Written { version, votes })),
            Outcome::Counted { version, value, votes } => {
                Ok(Wrote::Counted(value, Written { version, votes }))
            }
            Outcome::Absent => Ok(Wrote::Absent),
            Outcome::Uncountable { version, why } => Err(Error::Uncountable { version, why }),
            Outcome::Mismatch { version } => Err(Error::VersionMismatch { found: version }),
            // I3: "too late" on a first try is a matter of clocks: a later id is as good.
            Outcome::TooLate { horizon } => {
                if let Op::Write(write) = &mut op {
                    write.id = link.request_id(horizon);
                }
                continue;
            }
            other => Err(Error::Refused(format!("a write was answered with {other:?}"))),
        };
    }
}

/// One coordinator that was asked.
struct Try {
    name: Name,
    /// Its own question: a late answer to an earlier try at the same machine is not the answer to this one.
    ask: Ask,
    sent: Instant,
    /// Whether an earlier try was under way when this one was sent.
    again: bool,
    stands: Stands,
}

#[derive(PartialEq)]
enum Stands {
    /// No answer yet.
    Open,
    /// It changed nothing, and will not.
    Unchanged,
    /// It proposed the request and does not know what came of it.
    Unknown,
}

/// The tries of one request.
struct Tries<'a> {
    link: &'a Arc<Link>,
    key: &'a Key,
    op: &'a Op,
    deadline: Instant,
    replies: Replies,
    all: Vec<Try>,
    votes: u8,
    silent: Vec<Name>,
    overloaded: Option<Duration>,
    refused: Option<Error>,
    /// The newest try is lost with its machine: going on to the next one burdens nobody twice, and costs nothing of
    /// the budget.
    lost: bool,
}

/// Sends a request to one coordinator after the other until one has an answer to it: `Done`, `Value`,
/// `Mismatch`, `Absent`, or `TooLate` where no other try can have changed anything.
pub(super) async fn through_coordinators(
    link: &Arc<Link>,
    key: &Key,
    op: &Op,
    deadline: Instant,
) -> Result<Outcome, Error> {
    let mut tries = Tries {
        link,
        key,
        op,
        deadline,
        replies: link.question(),
        all: vec![],
        votes: 0,
        silent: vec![],
        overloaded: None,
        refused: None,
        lost: false,
    };
    let mut backoff = FIRST_BACKOFF;
    let mut patience = PATIENCE.max(link.limit.usual() * PATIENT) + travel(op);
    loop {
        let known = link.view(deadline).await?;
        let mut untried: Vec<Name> = known.owners(key).machines().map(|m| known.name(m)).collect();
        while !untried.is_empty() {
            // While much is under way, others are not asked for what one has turned away: they have as much to do.
            if tries.overloaded.is_some() && link.limit.is_crowded() {
                break;
            }
            // The owner of the lowest slot that is believed to be well; beliefs change while we wait.
            let name = untried.remove(link.best(&untried));
            let retry = !tries.all.is_empty();
            let late =
                deadline.saturating_duration_since(Instant::now()) < if retry { TOO_LATE } else { MOMENT };
            if late || (retry && !tries.lost && !link.may_retry()) {
                return tries.last_words(quorum_of(known.view.slots())).await;
            }
            if let Some(later) = link.stay_away(name) {
                tries.overloaded = Some(later);
                continue;
            }
            if let Err(why) = link.reach(name, deadline).await {
                tracing::debug!(peer = %name, why, "not reached");
                tries.not_reached(name);
                continue;
            }
            tries.send(name);
            // A coordinator that lives but takes long gets company, not a successor.
            let company = (Instant::now() + patience).min(deadline);
            patience = (patience * 2).min(LONGEST_PATIENCE);
            if let Some(outcome) = tries.wait(company).await {
                link.succeeded();
                return Ok(outcome);
            }
            if tries.refused.is_some() && tries.all.iter().all(|t| t.stands == Stands::Unchanged) {
                break;
            }
        }
        if let Some(reason) =
            tries.refused.take_if(|_| tries.all.iter().all(|t| t.stands == Stands::Unchanged))
        {
            return Err(reason);
        }
        // Everyone was tried. A random part of the pause, so that clients do not come back together; whoever was told when
        // to come back does not come sooner, and not at all while he would wait in the place of another.
        let pause = match tries.overloaded {
            Some(later) => later.mul_f64(rand::random_range(1.0..1.5)),
            None => backoff.mul_f64(rand::random_range(0.5..1.0)),
        };
        let in_time = Instant::now() + pause < deadline && !link.limit.is_crowded();
        if tries.overloaded.is_some() && !in_time {
            return tries.last_words(quorum_of(known.view.slots())).await;
        }
        if let Some(outcome) = tries.wait((Instant::now() + pause).min(deadline)).await {
            link.succeeded();
            return Ok(outcome);
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// How long the value that a request carries may be on its way through nine machines: 2.5 MB a second.
fn travel(op: &Op) -> Duration {
    match op {
        Op::Write(Write { change: Change::Put { value, .. }, .. }) => {
            Duration::from_nanos(400 * value.len() as u64)
        }
        _ => Duration::ZERO,
    }
}

impl Tries<'_> {
    fn send(&mut self, name: Name) {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now).as_millis();
        // A little less than we wait, so that its last word is here in time.
        let within = u32::try_from(left - left / 20).unwrap_or(u32::MAX).max(1);
        let again = self.all.iter().any(|t| t.stands != Stands::Unchanged);
        let mut op = self.op.clone();
        if let Op::Write(write) = &mut op {
            write.again = again;
        }
        let ask = if self.all.is_empty() { self.replies.ask } else { self.replies.another() };
        let key = self.key.clone();
        self.link.send(name, Message::Request { ask, key, op, within, handed: false });
        self.all.push(Try { name, ask, sent: now, again, stands: Stands::Open });
    }

    fn not_reached(&mut self, name: Name) {
        if !self.silent.contains(&name) {
            self.silent.push(name);
        }
    }

    /// Waits for an answer until `until`, or until nobody is left who could give one.
    async fn wait(&mut self, until: Instant) -> Option<Outcome> {
        self.lost = false;
        let newest = self.all.last().map(|t| (t.name, t.sent));
        let (link, slack) = (self.link.clone(), travel(self.op) / 8);
        let silence = async move {
            match newest {
                Some((name, sent)) => link.silence_of(name, sent, slack).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(silence);
        loop {
            tokio::select! {
                (name, reply) = self.replies.next() => match self.take(name, reply) {
                    Taken::Answer(outcome) => return Some(outcome),
                    Taken::Closed if newest.is_some_and(|(n, _)| n == name) => return None,
                    Taken::Closed | Taken::Nothing => {}
                },
                () = &mut silence => {
                    newest.inspect(|(name, _)| self.not_reached(*name));
                    self.lost = true;
                    return None;
                }
                () = tokio::time::sleep_until(until.into()) => return None,
            }
        }
    }

    fn take(&mut self, name: Name, reply: Reply) -> Taken {
        let (asked, outcome) = match reply {
            Reply::Ring(envelope) => {
                self.link.refresh(envelope.epoch);
                match envelope.message {
                    Message::Outcome { ask, outcome } => (ask, outcome),
                    _ => return Taken::Nothing,
                }
            }
            // Sent, and lost or not.
            Reply::Down(_) if self.all.iter().any(|t| t.name == name) => {
                self.not_reached(name);
                self.lost = self.all.last().is_some_and(|t| t.name == name);
                return Taken::Closed;
            }
            Reply::Down(_) | Reply::Status(_) | Reply::Check { .. } | Reply::Why(_) => return Taken::Nothing,
        };
        let others_changed_nothing = self.all.iter().all(|t| t.ask == asked || t.stands == Stands::Unchanged);
        let Some(this) = self.all.iter_mut().find(|t| t.ask == asked) else { return Taken::Nothing };
        let turned = match &outcome {
            Outcome::Overloaded { retry_after } => Some(Duration::from_millis(u64::from(*retry_after))),
            _ => None,
        };
        self.link.was_taken(name, turned);
        match outcome {
            Outcome::NoQuorum { votes, silent, .. } => {
                this.stands = Stands::Unchanged;
                self.votes = self.votes.max(votes);
                self.silent = silent;
                Taken::Closed
            }
            Outcome::Unknown { votes, silent, .. } => {
                this.stands = Stands::Unknown;
                self.votes = self.votes.max(votes);
                self.silent = silent;
                Taken::Closed
            }
            Outcome::Overloaded { .. } => {
                this.stands = Stands::Unchanged;
                self.overloaded = turned;
                Taken::Closed
            }
            // In no view, or no longer in it: another one is. A newer view says who.
            Outcome::NotHere => {
                this.stands = Stands::Unchanged;
                Taken::Closed
            }
            Outcome::Refused(reason) => {
                this.stands = Stands::Unchanged;
                self.refused = Some(Error::Refused(reason.into()));
                Taken::Closed
            }
            // One that knows better than the others, or worse; it will be seen at the next try.
            Outcome::NoRoom { full } => {
                this.stands = Stands::Unchanged;
                self.refused = Some(Error::DiskFull { machines: full });
                Taken::Closed
            }
            Outcome::Done { .. } | Outcome::Counted { .. } | Outcome::Value(_) => Taken::Answer(outcome),
            // A failure stands if no other try can still succeed, or if it was remembered.
            Outcome::Mismatch { .. } | Outcome::Absent | Outcome::Uncountable { .. }
                if others_changed_nothing || this.again =>
            {
                Taken::Answer(outcome)
            }
            Outcome::Mismatch { .. } | Outcome::Absent | Outcome::Uncountable { .. } => {
                this.stands = Stands::Unchanged;
                Taken::Nothing
            }
            // I3: on a retry, whether it was applied before is forgotten.
            Outcome::TooLate { .. } if others_changed_nothing => Taken::Answer(outcome),
            Outcome::TooLate { .. } => {
                this.stands = Stands::Unknown;
                Taken::Closed
            }
        }
    }

    /// The deadline has passed, or too much was retried. Coordinators that live say now what came of it.
    async fn last_words(mut self, needed: u8) -> Result<Outcome, Error> {
        let until = Instant::now().max(self.deadline) + LAST_WORDS;
        while self.all.iter().any(|t| t.stands == Stands::Open && !self.silent.contains(&t.name)) {
            let Ok((name, reply)) = tokio::time::timeout_at(until.into(), self.replies.next()).await else {
                break;
            };
            if let Taken::Answer(outcome) = self.take(name, reply) {
                return Ok(outcome);
            }
        }
        let within = self.link.options.timeout;
        self.silent.sort();
        let (votes, silent) = (self.votes, self.silent);
        let unchanged = self.all.iter().all(|t| t.stands == Stands::Unchanged);
        Err(match (self.op, self.overloaded) {
            (Op::Write(Write { id, .. }), _) if !unchanged => {
                Error::Unknown { id: *id, votes, needed, silent, within }
            }
            (_, Some(retry_after)) => Error::Overloaded { retry_after },
            _ => Error::NoQuorum { votes, needed, silent, within },
        })
    }
}

enum Taken {
    /// The request's answer.
    Answer(Outcome),
    /// This coordinator has no answer.
    Closed,
    /// Not of interest.
    Nothing,
}

/// A write's parts, with an id of its own.
pub(super) fn new_write(link: &Link, condition: ennead_ring::message::Condition, change: Change) -> Write {
    let id: RequestId = link.request_id(Hlc::ZERO);
    Write { id, again: false, condition, change }
}
