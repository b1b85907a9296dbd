//! A read from the client: ask five in parallel, hedge to the rest, or have a coordinator settle it (D1 to D4).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ennead_ring::message::{Answer, Copied, Message, Op, Outcome};
use ennead_ring::stamp::{Hlc, Stamp, State};
use ennead_ring::view::Name;
use ennead_ring::{Key, Owners, Reader, SlotSet, quorum_of};

use super::link::{Known, Link, Replies, Reply};
use super::{CopyAnswer, CopyReport, Error, Record, record};
use crate::clock;

/// Values up to this long come with every answer; longer ones from one machine only. An answer of this size
/// still fits one datagram.
const INLINE: u32 = 1_024;
/// How long a machine may take to send a long value before another is asked for it, too.
const FETCH_WITHIN: Duration = Duration::from_millis(250);

/// One read's questions and answers.
struct Asking {
    known: Arc<Known>,
    owners: Owners,
    replies: Replies,
    reader: Reader,
    asked: Vec<(Name, Instant)>,
    answered: Vec<(Name, Duration)>,
    refused: Vec<Name>,
    /// Somebody has too much to do, and says when to come back.
    busy: Option<Duration>,
    hedged: bool,
}

impl Asking {
    fn new(link: &Arc<Link>, known: Arc<Known>, owners: Owners) -> Self {
        let reader = Reader::new(known.view.slots());
        let replies = link.question();
        Self {
            known,
            owners,
            replies,
            reader,
            asked: vec![],
            answered: vec![],
            refused: vec![],
            busy: None,
            hedged: false,
        }
    }

    fn ask(&mut self, link: &Link, key: &Key, name: Name, inline: u32) {
        link.send(name, Message::Read { ask: self.replies.ask, key: key.clone(), inline });
        self.asked.push((name, Instant::now()));
    }

    /// Asks those, too, whom a read that goes well does not ask. Counted once for each read.
    fn hedge(&mut self, link: &Link, key: &Key, names: impl IntoIterator<Item = Name>, inline: u32) {
        if !std::mem::replace(&mut self.hedged, true) {
            link.hedged.fetch_add(1, Relaxed);
        }
        for name in names {
            self.ask(link, key, name, inline);
        }
    }

    /// Takes one reply into account.
    fn take(&mut self, link: &Arc<Link>, name: Name, reply: Reply) {
        let Some((_, sent)) = self.asked.iter().find(|(n, _)| *n == name) else { return };
        match reply {
            Reply::Ring(envelope) => {
                link.refresh(envelope.epoch);
                let took = sent.elapsed();
                match envelope.message {
                    Message::Answer { votes, answer: Answer::Copy(copied), .. } => {
                        // Nobody votes for slots that are not his, whatever he says. Whose they are in another
                        // view is not known here: a coordinator settles it then.
                        let votes = match self.known.view.index_of(name) {
                            Some(i) if envelope.epoch == self.known.view.epoch() => {
                                votes.intersection(self.owners.slots_of(i as u32))
                            }
                            _ => SlotSet::EMPTY,
                        };
                        self.reader.hear(name, envelope.epoch, votes, copied);
                        link.was_taken(name, None);
                    }
                    Message::Answer { answer: Answer::Busy { retry_after }, .. } => {
                        let later = Duration::from_millis(retry_after.into());
                        link.was_taken(name, Some(later));
                        self.busy = self.busy.max(Some(later));
                        self.refused.push(name);
                    }
                    _ => self.refused.push(name),
                }
                self.answered.retain(|(n, _)| *n != name);
                self.answered.push((name, took));
            }
            Reply::Down(_) if !self.answered.iter().any(|(n, _)| *n == name) => self.refused.push(name),
            Reply::Down(_) | Reply::Status(_) | Reply::Check { .. } | Reply::Why(_) => {}
        }
    }

    fn all_answered(&self) -> bool {
        self.asked.iter().all(|(n, _)| self.refused.contains(n) || self.answered.iter().any(|(a, _)| a == n))
    }

    fn silent(&self) -> Vec<Name> {
        let machines = self.owners.machines().map(|m| self.known.name(m));
        machines.filter(|n| !self.answered.iter().any(|(a, _)| a == n)).collect()
    }
}

/// The settled value. Machines that are too busy are asked again when they said, within the budget and the deadline; and
/// not while many operations are under way: whoever waits to ask again keeps out another.
pub(super) async fn quorum(link: &Arc<Link>, key: &Key, deadline: Instant) -> Result<Option<Record>, Error> {
    loop {
        let later = match once(link, key, deadline).await {
            Err(Error::Overloaded { retry_after }) => retry_after,
            other => return other,
        };
        let pause = later.mul_f64(rand::random_range(1.0..1.5));
        if Instant::now() + pause >= deadline || link.limit.is_crowded() || !link.may_retry() {
            return Err(Error::Overloaded { retry_after: later });
        }
        tokio::time::sleep(pause).await;
    }
}

async fn once(link: &Arc<Link>, key: &Key, deadline: Instant) -> Result<Option<Record>, Error> {
    let known = link.view(deadline).await?;
    let owners = known.owners(key);
    let mut asking = Asking::new(link, known.clone(), owners);
    let begun = Instant::now();

    // The five that answer fastest; suspects, and who is not well, last.
    let mut covered = SlotSet::EMPTY;
    let mut rest = Vec::new();
    let ranked = link.ranked(&known, &owners);
    if let Some(retry_after) = ranked.first().and_then(|(name, _)| link.stay_away(*name)) {
        return Err(Error::Overloaded { retry_after });
    }
    for (name, member) in ranked {
        if covered.len() >= quorum_of(known.view.slots()) {
            rest.push(name);
            continue;
        }
        // The first tells the value however long it is.
        let inline = if covered.is_empty() { u32::MAX } else { INLINE };
        covered = covered.union(owners.slots_of(member));
        asking.ask(link, key, name, inline);
    }

    // A slow one is tried beside them now and then: nobody waits for it, and its answer is measured.
    if let Some(name) = link.stale(&rest) {
        let ask = asking.replies.another();
        link.send(name, Message::Read { ask, key: key.clone(), inline: INLINE });
    }

    let hedge = begun + link.hedge_after();
    // Long after the hedge, whoever has not answered will not: a coordinator asks more insistently.
    let settle = hedge + link.hedge_after() * 4 + Duration::from_millis(20);
    loop {
        if let Some(stamp) = asking.reader.settled() {
            link.read_took(begun.elapsed());
            link.succeeded();
            return deliver(link, key, asking, stamp, deadline).await;
        }
        if asking.all_answered() && rest.is_empty() {
            break;
        }
        let early = asking.all_answered();
        let until = if rest.is_empty() { settle } else { hedge }.min(deadline);
        let reply = if early {
            None
        } else {
            tokio::time::timeout_at(until.into(), asking.replies.next()).await.ok()
        };
        match reply {
            Some((name, reply)) => {
                // A machine that is down will not answer: do not wait for the hedge.
                let down = matches!(reply, Reply::Down(_)) && asking.asked.iter().any(|(n, _)| *n == name);
                asking.take(link, name, reply);
                if down && !rest.is_empty() {
                    asking.hedge(link, key, rest.drain(..), INLINE);
                }
            }
            None if !rest.is_empty() => asking.hedge(link, key, rest.drain(..), INLINE),
            None => break,
        }
    }
    if let Some(retry_after) = asking.busy {
        return Err(Error::Overloaded { retry_after });
    }
    // Copies differ, or too few spoke: D3 and D4 are a coordinator's work.
    let votes = asking.reader.votes();
    let silent = asking.silent();
    drop(asking);
    by_coordinator(link, key, deadline, votes, silent).await
}

/// The record of the settled stamp: told already, or fetched from a machine that voted for it.
async fn deliver(
    link: &Arc<Link>,
    key: &Key,
    asking: Asking,
    stamp: Option<Stamp>,
    deadline: Instant,
) -> Result<Option<Record>, Error> {
    match asking.reader.copy_of(stamp) {
        Some(Copied::Whole(copy)) => tell(link, key, &copy.state, deadline).await,
        Some(Copied::Summary { .. }) => fetch(link, key, asking, stamp, deadline).await,
        Some(Copied::None) | None => Ok(None),
    }
}

async fn tell(
    link: &Arc<Link>,
    key: &Key,
    state: &State,
    deadline: Instant,
) -> Result<Option<Record>, Error> {
    if state.value.is_some() && state.expires.is_some_and(|at| at <= wall()) {
        // G4: its deletion must be settled before anyone is told that it is gone.
        return by_coordinator(link, key, deadline, 0, Vec::new()).await;
    }
    Ok(state.value.clone().map(|value| record(value, state.version, state.expires)))
}

/// A long value whose stamp is settled, from one after the other of those who told it; the one that was asked for
/// it at first may still be on its way with it.
async fn fetch(
    link: &Arc<Link>,
    key: &Key,
    mut asking: Asking,
    stamp: Option<Stamp>,
    deadline: Instant,
) -> Result<Option<Record>, Error> {
    let holders = asking.reader.heard().iter().filter(|h| h.copied.stamp() == stamp);
    let mut holders: Vec<Name> = holders.map(|h| h.machine).collect();
    let mut next = Instant::now() + FETCH_WITHIN;
    loop {
        if let Ok((name, reply)) =
            tokio::time::timeout_at(next.min(deadline).into(), asking.replies.next()).await
        {
            asking.take(link, name, reply);
            if let Some(Copied::Whole(copy)) = asking.reader.copy_of(stamp) {
                return tell(link, key, &copy.state, deadline).await;
            }
        } else if let Some(holder) = holders.pop()
            && Instant::now() < deadline
        {
            asking.ask(link, key, holder, u32::MAX);
            next = Instant::now() + FETCH_WITHIN;
        } else {
            // None of them has it any more: it was overwritten meanwhile. Or it takes too long.
            return by_coordinator(link, key, deadline, 0, Vec::new()).await;
        }
    }
}

async fn by_coordinator(
    link: &Arc<Link>,
    key: &Key,
    deadline: Instant,
    votes: u8,
    silent: Vec<Name>,
) -> Result<Option<Record>, Error> {
    match super::write::through_coordinators(link, key, &Op::Read, deadline).await {
        Ok(Outcome::Value(found)) => Ok(found.map(|f| record(f.value, f.version, f.expires))),
        Ok(other) => Err(Error::Refused(format!("a read was answered with {other:?}"))),
        // What the copies told is nearer the truth than a coordinator that was never reached.
        Err(Error::NoQuorum { votes: v, needed, silent: s, within }) => {
            let silent = if s.is_empty() { silent } else { s };
            Err(Error::NoQuorum { votes: votes.max(v), needed, silent, within })
        }
        Err(other) => Err(other),
    }
}

/// What one copy holds, from the first machine that answers: a dirty read.
pub(super) async fn one(
    link: &Arc<Link>,
    key: &Key,
    deadline: Instant,
) -> Result<(Name, Option<Record>), Error> {
    let known = link.view(deadline).await?;
    let owners = known.owners(key);
    let mut asking = Asking::new(link, known.clone(), owners);
    let mut next = link.ranked(&known, &owners).into_iter().map(|(name, _)| name);
    loop {
        let pause = match next.next() {
            Some(name) => {
                match asking.asked.is_empty() {
                    true => asking.ask(link, key, name, u32::MAX),
                    false => asking.hedge(link, key, [name], u32::MAX),
                }
                Instant::now() + link.hedge_after()
            }
            None => deadline,
        };
        while let Ok((name, reply)) =
            tokio::time::timeout_at(pause.min(deadline).into(), asking.replies.next()).await
        {
            let down = matches!(reply, Reply::Down(_));
            asking.take(link, name, reply);
            if let Some(heard) = asking.reader.heard().first() {
                let found = match &heard.copied {
                    Copied::Whole(r) => {
                        r.state.value.clone().map(|v| record(v, r.state.version, r.state.expires))
                    }
                    _ => None,
                };
                return Ok((heard.machine, found));
            }
            if down {
                break;
            }
        }
        if Instant::now() >= deadline {
            let (needed, within) = (1, link.options.timeout);
            return Err(Error::NoQuorum { votes: 0, needed, silent: asking.silent(), within });
        }
    }
}

/// The settled value, and every copy's own answer.
pub(super) async fn copies(
    link: &Arc<Link>,
    key: &Key,
    deadline: Instant,
) -> Result<(Option<Record>, Vec<CopyReport>), Error> {
    let known = link.view(deadline).await?;
    let owners = known.owners(key);
    let mut asking = Asking::new(link, known.clone(), owners);
    for member in owners.machines() {
        asking.ask(link, key, known.name(member), INLINE);
    }
    let mut until = deadline;
    while !asking.all_answered() {
        let Ok((name, reply)) = tokio::time::timeout_at(until.into(), asking.replies.next()).await else {
            break;
        };
        asking.take(link, name, reply);
        if asking.reader.settled().is_some() {
            // The rest get a little longer, so that the picture is whole.
            until = until.min(Instant::now() + link.hedge_after() * 4 + Duration::from_millis(100));
        }
    }
    let (value, settled) = match asking.reader.settled() {
        Some(stamp) => {
            let version = asking.reader.copy_of(stamp).map_or(0, Copied::version);
            (quorum(link, key, deadline).await?, version)
        }
        None => {
            let value = by_coordinator(link, key, deadline, asking.reader.votes(), asking.silent()).await?;
            let version = value.as_ref().map_or(0, |r| r.version);
            (value, version)
        }
    };
    let report = |member: u32| {
        let machine = known.name(member);
        let took = asking.answered.iter().find(|(n, _)| *n == machine).map(|(_, took)| *took);
        let heard = asking.reader.heard().iter().find(|h| h.machine == machine);
        let answer = match heard {
            None if took.is_some() => CopyAnswer::Refused,
            None => CopyAnswer::Silent,
            Some(h) if h.votes.is_empty() => CopyAnswer::NotSynced,
            Some(h) if matches!(h.copied, Copied::None) => CopyAnswer::Absent,
            Some(h) => match h.copied.version().cmp(&settled) {
                std::cmp::Ordering::Less => CopyAnswer::Older,
                std::cmp::Ordering::Equal => CopyAnswer::Same,
                std::cmp::Ordering::Greater => CopyAnswer::Newer,
            },
        };
        let version = heard.filter(|h| h.copied.has_value()).map(|h| h.copied.version());
        CopyReport { machine, slots: owners.slots_of(member).iter().collect(), version, answer, took }
    };
    Ok((value, owners.machines().map(report).collect()))
}

fn wall() -> Hlc {
    Hlc::from_nanos(clock::unix_ns())
}
