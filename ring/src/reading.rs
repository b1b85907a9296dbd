//! A machine's read on behalf of a client: ask all, help the highest stamp to five (D3), or give it to the
//! coordinator (D4).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::effect::Mono;
use crate::message::{Answer, Ask, Copied, Found, Message, Outcome};
use crate::mutant::Mutant;
use crate::quorum::Tally;
use crate::rare::{Rare, met, met_if};
use crate::reader::Reader;
use crate::register;
use crate::stamp::{Stamp, State};
use crate::turn::{Round, Turn, Vote, Waiting};
use crate::view::Name;

/// The reads of one key on this machine. One round serves all that waited when it began.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// Reads that arrived after the present round began: its answers may be older than they.
    next: VecDeque<Waiting>,
    current: Option<Reading>,
    /// Not later than the first deadline among all reads here.
    deadline: Option<Mono>,
}

#[derive(Debug)]
struct Reading {
    waiting: Vec<Waiting>,
    round: Round,
    reader: Reader,
    help: Option<Help>,
    fetch: Option<Fetch>,
}

/// A long value on its way from one machine that told its stamp.
#[derive(Debug)]
struct Fetch {
    stamp: Stamp,
    round: Round,
    /// Who was asked; the last one is asked now.
    asked: Vec<Name>,
}

/// D3: the highest record seen, on its way to those that lack it, under its own stamp.
#[derive(Debug)]
struct Help {
    stamp: Stamp,
    state: Arc<State>,
    round: Round,
    tally: Tally,
}

impl Readings {
    pub(crate) fn submit(&mut self, turn: &mut Turn<'_>, waiting: Waiting) {
        if self.next.len() >= turn.local.tuning.waiting_per_key {
            turn.answer(&waiting, Outcome::Overloaded { retry_after: 50 });
            return;
        }
        self.deadline = Some(self.deadline.map_or(waiting.deadline, |d| d.min(waiting.deadline)));
        met_if(self.current.is_some(), Rare::D1WaitsForNextRound);
        self.next.push_back(waiting);
        self.start(turn);
    }

    /// A view was adopted: the owners may be others. The reads under way begin anew.
    pub(crate) fn on_view(&mut self, turn: &mut Turn<'_>) {
        if let Some(reading) = &mut self.current {
            met(Rare::V3ReadBeginsAnew);
            for waiting in mem::take(&mut reading.waiting).into_iter().rev() {
                self.next.push_front(waiting);
            }
            if turn.local.present().me.is_none() {
                for waiting in mem::take(&mut self.next) {
                    turn.answer(&waiting, Outcome::NotHere);
                }
            }
            self.end(turn);
        }
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        if self.current.is_some() || self.next.is_empty() {
            return;
        }
        for waiting in &self.next {
            turn.note_queued(waiting);
        }
        met_if(self.next.len() > 1, Rare::D1SharedRound);
        let reading = Reading {
            waiting: mem::take(&mut self.next).into(),
            round: Round::new(turn, 0, self.deadline),
            reader: turn.local.reader(),
            help: None,
            fetch: None,
        };
        reading.ask(turn);
        self.current = Some(reading);
    }

    /// An answer to the reading or to its help. Returns the reads that only a coordinator can settle (D4).
    pub(crate) fn on_answer(&mut self, turn: &mut Turn<'_>, vote: Vote, answer: Answer) -> Vec<Waiting> {
        let Some(reading) = &mut self.current else { return Vec::new() };
        if reading.round.ask == vote.ask {
            reading.round.hear(turn, vote);
            match answer {
                Answer::Copy(copied) => {
                    let name = turn.local.present().machine(vote.by).name;
                    reading.reader.hear(name, vote.epoch, vote.slots, copied);
                }
                Answer::Mute => met(Rare::R3ReaderHearsMute),
                _ => return Vec::new(),
            }
            if let Some(stamp) = reading.reader.settled() {
                met_if(reading.reader.highest() > stamp, Rare::D2SettledBelowTheHighest);
                met_if(stamp.is_none(), Rare::D1None);
                return self.finish(turn, stamp);
            }
            // Whoever is not well is not waited for.
            if reading.help.is_none() && reading.round.heard_enough(turn) {
                return self.help(turn);
            }
        } else if let Some(fetch) = &reading.fetch
            && fetch.round.ask == vote.ask
        {
            if let Answer::Copy(copied @ Copied::Whole(_)) = answer
                && copied.stamp() == Some(fetch.stamp)
            {
                let name = turn.local.present().machine(vote.by).name;
                reading.reader.hear(name, vote.epoch, vote.slots, copied);
                return self.fetched(turn);
            }
            let stamp = fetch.stamp;
            met(Rare::D1HolderHasAnother);
            return self.fetch(turn, stamp);
        } else if let Some(help) = &mut reading.help
            && help.round.ask == vote.ask
        {
            help.round.hear(turn, vote);
            match answer {
                // Exactly this stamp: a later state of the chain holds this one (C2), so it was chosen, but the
                // later one may have been answered before this read began.
                Answer::Held { stamp }
                    if stamp == help.stamp
                        || (stamp.ballot == help.stamp.ballot
                            && turn.local.rules.broken(Mutant::D3Later)) =>
                {
                    help.tally.add(vote.epoch, vote.slots);
                    if help.tally.reached(turn.owners.slots()) {
                        let stamp = help.stamp;
                        return self.finish(turn, Some(stamp));
                    }
                }
                // A higher stamp is about: only a coordinator can tell what comes of it.
                Answer::Refused { .. } => {
                    met(Rare::D3HelpRefused);
                    return self.give_away(turn);
                }
                Answer::Held { .. } => {
                    met(Rare::D3LaterHeld);
                    return self.give_away(turn);
                }
                _ => {}
            }
        }
        Vec::new()
    }

    /// Answers with the settled state, once its value is here, unless it is past its expiry: deleting it is a coordinator's work (G4).
    fn finish(&mut self, turn: &mut Turn<'_>, stamp: Option<Stamp>) -> Vec<Waiting> {
        let Some(reading) = &self.current else { return Vec::new() };
        let found = match reading.reader.copy_of(stamp) {
            Some(Copied::Whole(record)) if register::is_expired(&record.state, turn.wall()) => {
                met(Rare::G4ReadFindsExpired);
                return self.give_away(turn);
            }
            Some(Copied::Whole(record)) => found(&record.state),
            Some(Copied::Summary { stamp, .. }) => {
                let stamp = *stamp;
                return self.need(turn, stamp);
            }
            Some(Copied::None) | None => None,
        };
        let (nanos, votes) = (turn.since(reading.round.begun), reading.reader.votes());
        turn.local.counts.read.note(nanos);
        turn.local.counts.decided(votes);
        turn.local.counts.helped += u64::from(reading.help.is_some());
        met_if(reading.help.is_some(), Rare::D3Helped);
        for waiting in &reading.waiting {
            turn.answer(waiting, Outcome::Value(found.clone()));
        }
        self.end(turn);
        Vec::new()
    }

    /// Everyone has spoken, or it takes too long: D3.
    fn help(&mut self, turn: &mut Turn<'_>) -> Vec<Waiting> {
        let Some(reading) = &mut self.current else { return Vec::new() };
        let highest = reading.reader.highest();
        let record = match highest.and_then(|s| reading.reader.copy_of(Some(s))) {
            Some(Copied::Whole(record)) => record,
            Some(Copied::Summary { stamp, .. }) => {
                let stamp = *stamp;
                return self.need(turn, stamp);
            }
            // Nobody told of a record, and too few told of none: nothing to help; the round goes on asking.
            Some(Copied::None) | None => {
                met(Rare::D3NothingToHelp);
                return Vec::new();
            }
        };
        let (stamp, state) = (record.stamp, record.state.clone());
        if turn.local.rules.broken(Mutant::D3NoHelp) {
            return self.finish(turn, Some(stamp));
        }
        let round = Round::new(turn, state.value.as_ref().map_or(0, |v| v.len()), self.deadline);
        let mut help = Help { stamp, state, round, tally: reading.reader.tally_of(stamp) };
        for holder in reading.reader.heard().iter().filter(|h| h.copied.stamp() == Some(stamp)) {
            if let Some(member) = turn.local.present().view.index_of(holder.machine)
                && !holder.votes.is_empty()
            {
                help.round.note(member as u32);
            }
        }
        help.ask(turn);
        reading.help = Some(help);
        Vec::new()
    }

    /// Sees that the value of this stamp is on its way.
    fn need(&mut self, turn: &mut Turn<'_>, stamp: Stamp) -> Vec<Waiting> {
        let coming = self.current.as_ref().and_then(|r| r.fetch.as_ref()).is_some_and(|f| f.stamp == stamp);
        if coming { Vec::new() } else { self.fetch(turn, stamp) }
    }

    /// Asks the next machine that told this stamp for its value; with none left, a coordinator must settle it.
    fn fetch(&mut self, turn: &mut Turn<'_>, stamp: Stamp) -> Vec<Waiting> {
        let Some(reading) = &mut self.current else { return Vec::new() };
        let mut asked = match reading.fetch.take() {
            Some(fetch) => {
                turn.local.forget(fetch.round.ask);
                if fetch.stamp == stamp { fetch.asked } else { Vec::new() }
            }
            None => Vec::new(),
        };
        let holders = reading.reader.heard().iter().filter(|h| h.copied.stamp() == Some(stamp));
        let view = &turn.local.present().view;
        let left = holders.map(|h| h.machine).filter(|name| !asked.contains(name));
        let left = left.filter_map(|name| Some((name, view.index_of(name)? as u32)));
        // Who is well before who is not; among them, who was quicker.
        let Some((holder, member)) = left.min_by_key(|(_, member)| !turn.local.is_well(*member)) else {
            met(Rare::D1NoHolderLeft);
            return self.give_away(turn);
        };
        let bytes = match reading.reader.copy_of(Some(stamp)) {
            Some(Copied::Summary { bytes, .. }) => *bytes as usize,
            _ => 0,
        };
        met_if(!asked.is_empty(), Rare::D1NextHolderAsked);
        asked.push(holder);
        let round = Round::new(turn, bytes, self.deadline);
        let message = Message::Read { ask: round.ask, key: turn.key.clone(), inline: u32::MAX };
        turn.local.send_to(member, message, None, turn.effects);
        reading.fetch = Some(Fetch { stamp, round, asked });
        Vec::new()
    }

    /// The value is here: on with what it was wanted for.
    fn fetched(&mut self, turn: &mut Turn<'_>) -> Vec<Waiting> {
        let Some(reading) = &mut self.current else { return Vec::new() };
        if let Some(fetch) = reading.fetch.take() {
            turn.local.forget(fetch.round.ask);
        }
        match reading.reader.settled() {
            Some(stamp) => self.finish(turn, stamp),
            None => self.help(turn),
        }
    }

    /// D4: the reads go to the coordinator, which settles whatever there is under a ballot of its own.
    fn give_away(&mut self, turn: &mut Turn<'_>) -> Vec<Waiting> {
        let waiting = self.current.as_mut().map(|r| mem::take(&mut r.waiting)).unwrap_or_default();
        self.end(turn);
        waiting
    }

    fn end(&mut self, turn: &mut Turn<'_>) {
        if let Some(reading) = self.current.take() {
            turn.local.forget(reading.round.ask);
            for round in reading.help.iter().map(|h| &h.round).chain(reading.fetch.iter().map(|f| &f.round)) {
                turn.local.forget(round.ask);
            }
        }
        self.start(turn);
    }

    /// Asks again, helps, gives up: whatever is due. Returns the reads that only a coordinator can settle.
    pub(crate) fn on_time(&mut self, turn: &mut Turn<'_>) -> Vec<Waiting> {
        if self.deadline.is_some_and(|d| d <= turn.now.mono) {
            self.expire(turn);
        }
        let Some(reading) = &mut self.current else { return Vec::new() };
        if let Some(fetch) = &mut reading.fetch {
            if fetch.round.is_due(turn.now) {
                let stamp = fetch.stamp;
                return self.fetch(turn, stamp);
            }
        } else if let Some(help) = &mut reading.help {
            // One attempt; what was lost on the way is not worth a second.
            if help.round.is_due(turn.now) {
                met(Rare::D3HelpUnheard);
                return self.give_away(turn);
            }
        } else if reading.round.is_due(turn.now) {
            met(Rare::D2AsksTheRest);
            reading.ask(turn);
            return self.help(turn);
        }
        Vec::new()
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let alive = |w: &Waiting| w.deadline > now;
        let (stay, gone): (Vec<_>, Vec<_>) = mem::take(&mut self.next).into_iter().partition(alive);
        self.next = stay.into();
        for waiting in &gone {
            turn.give_up(waiting, 0, None);
        }
        if let Some(reading) = &mut self.current {
            let (stay, gone): (Vec<_>, Vec<_>) = mem::take(&mut reading.waiting).into_iter().partition(alive);
            reading.waiting = stay;
            for waiting in &gone {
                turn.give_up(waiting, reading.reader.votes(), Some(&reading.round));
            }
        }
        let current = self.current.iter().flat_map(|r| &r.waiting);
        self.deadline = self.next.iter().chain(current).map(|w| w.deadline).min();
        if self.current.as_ref().is_some_and(|r| r.waiting.is_empty()) {
            self.end(turn);
        }
    }

    /// When `on_time` is due.
    pub(crate) fn wake_at(&self) -> Option<Mono> {
        let round = self.current.as_ref().map(|r| r.present().resend_at);
        Mono::first([round, self.deadline])
    }

    /// True if this is a question of the present round.
    pub(crate) fn expects(&self, ask: Ask) -> bool {
        self.current.as_ref().is_some_and(|r| {
            let further = r.help.iter().map(|h| &h.round).chain(r.fetch.iter().map(|f| &f.round));
            core::iter::once(&r.round).chain(further).any(|round| round.ask == ask)
        })
    }

    /// True if nobody waits here.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.next.is_empty()
    }
}

impl Reading {
    fn ask(&self, turn: &mut Turn<'_>) {
        let inline = turn.local.tuning.inline;
        let message = Message::Read { ask: self.round.ask, key: turn.key.clone(), inline };
        turn.ask_owners(&self.round, &message, None);
    }

    /// The question that is waited for.
    fn present(&self) -> &Round {
        let help = self.help.as_ref().map(|h| &h.round);
        self.fetch.as_ref().map(|f| &f.round).or(help).unwrap_or(&self.round)
    }
}

impl Help {
    fn ask(&self, turn: &mut Turn<'_>) {
        let (ask, key) = (self.round.ask, turn.key.clone());
        let message = Message::Accept { ask, key, stamp: self.stamp, state: self.state.clone() };
        turn.ask_owners(&self.round, &message, None);
    }
}

fn found(state: &State) -> Option<Found> {
    let value = state.value.clone()?;
    Some(Found { value, version: state.version, expires: state.expires })
}
