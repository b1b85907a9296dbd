//! What others say, sorted by who says it: a member, another machine, a client.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Node, Work};
use crate::doubt;
use crate::effect::{Effect, Now};
use crate::forced;
use crate::key::Key;
use crate::message::{Addr, Envelope, Message, Outcome};
use crate::mutant::Mutant;
use crate::rare::{Rare, met, met_if};
use crate::stamp::Ballot;
use crate::turn::Vote;
use crate::view::{Epoch, Machine};
use crate::warden::Standing;

/// What is said aloud of a machine that claims votes it cannot have.
fn false_votes(machine: Machine) -> String {
    format!(
        "{machine} votes for slots that are not its own: its answers count without those. Its program is wrong, or its \
         certificate's key is in other hands: look at its log"
    )
}

impl Node {
    pub(super) fn on_message(&mut self, now: Now, from: Addr, envelope: Envelope, effects: &mut Vec<Effect>) {
        let Envelope { cluster, epoch, message } = envelope;
        let Some(present) = self.local.newest() else {
            self.on_message_to_blank(now, from, message, effects);
            return;
        };
        // V4: another cluster's word is nothing to us. The transport has refused it already.
        if cluster.is_some_and(|c| c != present.view.cluster()) && !self.local.rules.broken(Mutant::V4Cluster)
        {
            met(Rare::V4OtherCluster);
            return;
        }
        // F2: two forced generations are two clusters that never mix.
        let own = present.epoch();
        if let Addr::Machine(machine) = from
            && epoch.generation == own.generation
            && epoch.fork != own.fork
        {
            self.objection = Some(forced::apart(own, machine, epoch));
            return;
        }
        let member = match from {
            Addr::Machine(machine) => present.index_of(machine),
            Addr::Client(_) => None,
        };
        // F2: who was forced out is told so, and nothing else.
        if let Addr::Machine(machine) = from
            && present.view.has_forced_out(machine.incarnation)
            && !matches!(message, Message::Blank { .. })
        {
            met(Rare::F2ForcedOutSpeaks);
            if epoch < own {
                self.tell_views(machine, epoch, effects);
            }
            return;
        }
        if let Some(member) = member {
            self.detector.heard(&mut self.local, now, member);
        }
        let Addr::Machine(machine) = from else {
            self.on_client(now, from, message, effects);
            return;
        };
        match message {
            Message::Blank { weight, zone, .. } => {
                self.on_offer(now, machine, epoch, (weight, zone), effects)
            }
            Message::ViewAsk { .. } => self.on_client(now, from, message, effects),
            Message::ViewsAsk { after } => self.tell_views(machine, after, effects),
            Message::ViewsTold { views, settled } => self.on_views(now, machine, &views, settled, effects),
            // V4: who is behind fetches the missing views before it answers. Until then it is silent.
            _ if epoch > self.local.epoch() => {
                if cluster.is_some() {
                    met(Rare::V4Behind);
                    let after = self.local.epoch();
                    self.local.send(from, Message::ViewsAsk { after }, None, effects);
                }
            }
            // V4: who is not a member of our view should know it.
            _ if member.is_none() && epoch < self.local.epoch() && cluster.is_some() => {
                met(Rare::V4NoMemberAnyMore);
                self.tell_views(machine, epoch, effects);
            }
            // Between members and those who were members (S2).
            Message::Tell { .. }
            | Message::Told { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::RollCall { .. }
            | Message::RollNoted { .. }
            | Message::RollAsk { .. }
            | Message::Roll { .. } => {
                self.on_telling(now, machine, epoch, message, effects);
            }
            Message::Settled { epoch: settled } if member.is_some() => self.settle(now, settled, effects),
            // Only members take part in rounds, under the incarnation that the view names (V5, V6).
            message => match member {
                Some(member) => self.on_member(now, machine, member, epoch, message, effects),
                None if self.local.rules.broken(Mutant::V5Stranger) => {
                    if let Message::Prepare { ref key, .. } | Message::Accept { ref key, .. } = message {
                        let key = key.clone();
                        self.route(now, key, Work::Message { from, message, came: now.mono }, effects);
                    }
                }
                None => met(Rare::V5StrangerUnheard),
            },
        }
    }

    /// True if this machine votes for some slot of the key, or has been told all that it has to know of it.
    fn may_hold(&self, key: &Key, ballot: Ballot) -> bool {
        let local = &self.local;
        local.is_synced()
            || local.rules.broken(Mutant::S5HoldsAll)
            || !local.voting(key, &local.owners_of(key)).is_empty()
            || self.sync.may_hold(local, key, ballot)
    }

    /// A member of the present view speaks, of this epoch or of an earlier one.
    fn on_member(
        &mut self,
        now: Now,
        machine: Machine,
        member: u32,
        epoch: Epoch,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let from = Addr::Machine(machine);
        let current = epoch == self.local.epoch();
        match message {
            // F2: what it rests on may have been lost.
            Message::Prepare { .. } | Message::Accept { .. }
                if self.local.history().forced_at().is_some_and(|forced| epoch < forced)
                    && !self.local.rules.broken(Mutant::F2Late) =>
            {
                met(Rare::F2AskedBeforeIt);
                self.tell_views(machine, epoch, effects);
            }
            Message::Answer { ask, votes, answer } => {
                self.local.answers.answered(now.mono, member, ask, &answer);
                if let Some(key) = self.local.asked.get(&ask).cloned() {
                    let vote = Vote { by: member, epoch, ask, slots: votes };
                    let before = self.local.counts.false_votes;
                    self.at(now, &key, effects, |cell, turn| cell.on_answer(turn, vote, answer));
                    if self.local.counts.false_votes > before {
                        self.objection = Some(false_votes(machine));
                    }
                }
            }
            Message::Outcome { ask, outcome } => {
                if let Some(key) = self.local.asked.get(&ask).cloned() {
                    self.at(now, &key, effects, |cell, turn| cell.coordinator.on_outcome(turn, ask, outcome));
                } else {
                    self.sync.on_outcome(&self.local, now, ask, &outcome);
                }
            }
            // S5: what is still told of the key may be newer, or collected since.
            Message::Accept { ref key, stamp, .. } if !self.may_hold(key, stamp.ballot) => {
                met(Rare::S5HoldsNothingYet);
            }
            Message::Prepare { ref key, .. }
            | Message::Accept { ref key, .. }
            | Message::Read { ref key, .. }
            | Message::Request { ref key, .. } => {
                met_if(!current, Rare::Q2QuestionOfAnOlderView);
                let key = key.clone();
                // Its own requests settle what was found unlike: that is side work itself.
                if machine != self.local.me {
                    self.local.note_served(now);
                }
                self.route(now, key, Work::Message { from, message, came: now.mono }, effects);
            }
            Message::Collect { ref key, epoch: settled, .. } => {
                let key = key.clone();
                // G2: whoever has adopted that view notes that it is settled.
                if settled <= self.local.epoch() {
                    self.settle(now, settled, effects);
                    self.route(now, key, Work::Message { from, message, came: now.mono }, effects);
                }
            }
            Message::Probe { .. } | Message::ProbeFor { .. } | Message::Alive { .. } => {
                self.detector.on_message(&mut self.local, now, member, message, effects);
            }
            Message::Wish { ask, wish } => {
                self.warden.on_wish(&mut self.local, now, from, ask, wish, effects);
            }
            Message::Word { synced, warm } if current => {
                let word = Standing { synced, warm };
                let settled = self.warden.on_word(&mut self.local, member, word, effects);
                if settled {
                    let epoch = self.local.epoch();
                    self.settle(now, epoch, effects);
                    self.warden.tell_settled(&mut self.local, effects);
                }
            }
            // V2: a warden answers about the next view only while this is its own, and who asks has to be in it.
            Message::DecreePrepare { .. } | Message::DecreeAccept { .. }
                if current || self.local.rules.broken(Mutant::V2Stale) =>
            {
                self.warden.decrees.on_question(&mut self.local, machine, message, effects);
            }
            Message::DecreePrepare { .. } | Message::DecreeAccept { .. } | Message::Word { .. } => {
                met_if(!matches!(message, Message::Word { .. }), Rare::V2AnsweredWithTheView);
                met_if(matches!(message, Message::Word { .. }), Rare::T1WordOfAnOlderView);
                self.tell_views(machine, epoch, effects);
            }
            Message::DecreeAnswer { ask, answer } if current => {
                let local = &mut self.local;
                if let Some(view) = self.warden.decrees.on_answer(local, now, member, ask, answer, effects) {
                    self.decided(now, view, effects);
                }
            }
            // F1 is over for this machine, and the rest has its own road.
            _ => {}
        }
    }

    /// A client asks; so does whoever offers nothing but a question.
    pub(super) fn on_client(&mut self, now: Now, from: Addr, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::ViewAsk { ask } => {
                let view = self.local.present().view.clone();
                self.local.send(from, Message::ViewTold { ask, view }, None, effects);
            }
            Message::Read { ref key, .. } | Message::Request { ref key, .. } => {
                self.local.note_served(now);
                let key = key.clone();
                self.route(now, key, Work::Message { from, message, came: now.mono }, effects);
            }
            Message::Force { ask, machines } => self.on_force(now, from, ask, &machines, effects),
            Message::List { ask, request } if matches!(from, Addr::Client(_)) => {
                self.listings.begin(&mut self.local, now, from, ask, request, effects);
            }
            Message::Wish { ask, wish } => {
                // What is told to the wardens under number 0 is told by machines.
                self.warden.on_wish(&mut self.local, now, from, ask, wish, effects);
            }
            _ => {}
        }
    }

    // -- sync ----------------------------------------------------------------------------------------

    fn on_telling(
        &mut self,
        now: Now,
        machine: Machine,
        epoch: Epoch,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let local = &mut self.local;
        // S3: told at the asker's view or later, and for no other.
        if epoch != local.epoch() {
            met(Rare::S3OfAnotherView);
            return;
        }
        let mut wants = Vec::new();
        match message {
            Message::Tell { ask, request } if local.present().index_of(machine).is_some() => {
                self.tellings.begin(local, now, machine, ask, request, effects);
            }
            Message::Told { ask, page } => {
                self.sync.on_page(local, now, machine, ask, *page, &mut wants);
            }
            Message::Fetch { ask, keys } if local.present().index_of(machine).is_some() => {
                let (number, keys) = self.fetchings.begin(machine, ask, keys);
                for key in keys {
                    self.route(now, key, Work::Give(number), effects);
                }
            }
            Message::Fetched { ask, records } => {
                self.sync.on_fetched(local, machine, ask, records, &mut wants);
            }
            Message::RollCall { ask, check } if local.present().index_of(machine).is_some() => {
                self.rolls.on_call(local, now, machine, (ask, check), effects);
            }
            Message::RollNoted { ask, note } => self.rolls.on_note(local, machine, ask, &note, effects),
            Message::RollAsk { ask, purpose } if local.present().index_of(machine).is_some() => {
                self.rolls.on_ask(local, now, machine, (ask, purpose), effects);
            }
            Message::Roll { ask, roll } => self.sync.on_roll(local, machine, ask, &roll, &mut wants),
            _ => {}
        }
        self.carry_out(now, wants, effects);
    }

    /// Whatever can go on without waiting goes on.
    /// F1: a blank machine knows nothing and votes for nothing.
    pub(super) fn on_message_to_blank(
        &mut self,
        now: Now,
        from: Addr,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        match (from, message) {
            (Addr::Machine(machine), Message::Blank { weight, zone, gathers }) => {
                self.birth.on_blank(&mut self.local, machine, (weight, zone), gathers, effects);
                self.born(now, effects);
            }
            (Addr::Machine(_), Message::Birth { view }) => {
                self.birth.on_views(&mut self.local, &[view], Epoch::FIRST, effects);
                self.born(now, effects);
            }
            (Addr::Machine(_), Message::ViewsTold { views, settled }) => {
                let (me, rules) = (self.local.me, self.local.rules);
                self.cast_out = doubt::forgotten(me, None, &views, settled, rules);
                if self.cast_out.is_none() {
                    self.birth.on_views(&mut self.local, &views, settled, effects);
                    self.born(now, effects);
                }
            }
            (
                _,
                Message::Request { ask, .. }
                | Message::ViewAsk { ask }
                | Message::Read { ask, .. }
                | Message::List { ask, .. },
            ) => {
                let outcome = Outcome::NotHere;
                self.local.send(from, Message::Outcome { ask, outcome }, None, effects);
            }
            _ => {}
        }
    }
}
