//! What must be true at every moment, whatever fails: views (V2, V3, T1), and who may vote (Q1, S1, S7).

use ennead_ring::effect::Change;
use ennead_ring::message::{Addr, Answer, DecreeAnswer, Envelope, Message, Purpose};
use ennead_ring::{Account, Epoch, MemberState, View};

use crate::views::{brief, ring_of};
use crate::world::World;

impl World {
    /// A machine hands this to storage.
    pub(super) fn writes(&mut self, m: usize, change: &Change) {
        match change {
            Change::View(view) => self.follows(m, view),
            Change::Record { key, record } => {
                let me = self.computers[m].me;
                let key = self.keys.place(key);
                let Some(newest) = self.views.get(self.computers[m].stands) else { return };
                let Some(key) = key else { return };
                let owned = newest.owned(me, key);
                if !owned.is_subset(record.votes) {
                    self.met("hearsay taken");
                } else if !owned.is_empty()
                    && let Some(former) = self.computers[m].disk.durable_record(self.keys.get(key))
                    && former.stamp == record.stamp
                    && !owned.is_subset(former.votes)
                {
                    self.met("hearsay made a vote");
                }
            }
            _ => {}
        }
    }

    /// V3: views are adopted one by one; only one who was behind the last settled view starts from that one.
    fn follows(&mut self, m: usize, view: &View) {
        let computer = &mut self.computers[m];
        let (me, before, next) = (computer.me, computer.stands, view.epoch());
        computer.stands = next;
        let one_on = self.views.get(before).is_some_and(|seen| seen.view.is_before(view));
        if before == Epoch::ZERO && next == Epoch::FIRST || before != Epoch::ZERO && one_on {
            return;
        }
        if next <= before {
            return self.fail(format!("V3: s{} stood in e{before} and adopts e{next}", m + 1));
        }
        if next > self.views.settled {
            return self.fail(format!(
                "V3: s{} stood in e{before} and skips to e{next}; settled is e{}",
                m + 1,
                self.views.settled
            ));
        }
        if ring_of(view).any(|one| one == me) {
            return self.fail(format!("V3: s{} skips to e{next}, in whose ring it is", m + 1));
        }
        if before != Epoch::ZERO {
            self.met("skipped to a settled view");
        }
    }

    /// This is on a machine's disk now.
    pub(super) fn durable(&mut self, m: usize, notes: Vec<Change>) {
        for note in notes {
            match note {
                Change::View(view) => {
                    let before = self.views.newest.clone();
                    let out = before.as_ref().map_or(0, |seen| seen.view.forced_out().len());
                    if self.views.get(view.epoch()).is_none() && view.forced_out().len() > out {
                        self.met(if view.parent().is_some() {
                            "forced by all who stay"
                        } else {
                            "forced by decree"
                        });
                        self.charge();
                    }
                    match self.views.adopted(&view, &self.keys) {
                        Err(what) => self.fail(what),
                        Ok(None) => {}
                        Ok(Some(seen)) => {
                            self.note(|| format!("a new view, first at s{}: {}", m + 1, brief(&seen.view)));
                            if let Some(before) = before {
                                self.compare(&before.view, &seen.view);
                                self.weigh(&before, &seen);
                            }
                            self.nothing_is_forgotten(0..self.keys.len());
                        }
                    }
                }
                Change::Account(account) => self.accounts(m, &account),
                Change::Forget { key } => {
                    if let Some(key) = self.keys.place(&key) {
                        self.nothing_is_forgotten([key]);
                    }
                }
                Change::Decree(decree) => {
                    if let Some((_, view)) = &decree.accepted {
                        self.views.proposed(view);
                    }
                }
                _ => {}
            }
        }
    }

    fn accounts(&mut self, m: usize, account: &Account) {
        let me = self.computers[m].me;
        for &epoch in account.synced.iter().filter(|epoch| self.views.remembers(**epoch)).collect::<Vec<_>>()
        {
            let Some(seen) = self.views.get(epoch).cloned() else {
                return self.fail(format!("S7: s{} is synced in e{epoch}, which nobody adopted", m + 1));
            };
            if !seen.in_ring(me) {
                // Nothing to be synced for; the claim is empty.
                continue;
            }
            if self.views.synced(me.incarnation, epoch) {
                self.note(|| format!("s{} is synced in e{epoch}", m + 1));
                self.nothing_is_forgotten(seen.keys_of(me));
                if epoch == self.computers[m].stands {
                    self.knows_promises(m, &seen);
                }
            }
        }
        match self.views.settled(account.settled) {
            Ok(true) => {
                let epoch = account.settled;
                self.note(|| format!("e{epoch} is settled, as s{} notes first", m + 1));
                self.met("view settled");
            }
            Ok(false) => {}
            Err(what) => self.fail(what),
        }
    }

    /// What a new view changed.
    fn compare(&mut self, before: &View, after: &View) {
        for member in after.members() {
            let former = before.index_of(member.machine.name).map(|i| before.members()[i]);
            match former {
                Some(former) if former.machine != member.machine => self.met("wiped and taken in again"),
                Some(former) if former.state == member.state => {}
                Some(former) if former.state == MemberState::Joining && member.in_ring() => {
                    self.met("joined")
                }
                Some(_) => {}
                None if self.ever.contains(&member.machine) => self.met("rejoined with data"),
                None => {}
            }
            if former.is_none() && member.state == MemberState::Up {
                self.met("joined at once");
            }
        }
        for member in before.members() {
            if !after.has(member.machine) {
                self.ever.insert(member.machine);
                match member.state {
                    MemberState::Leaving => self.met("left"),
                    MemberState::Up => self.met("dropped"),
                    MemberState::Joining => self.met("gave up joining"),
                }
            }
        }
        if before.epoch() > self.views.settled {
            self.met("view after an unsettled one");
        }
    }

    /// A machine says this now: nothing holds it back any more.
    pub(super) fn speaks(&mut self, m: usize, to: Addr, envelope: &Envelope) {
        let computer = &self.computers[m];
        let (me, epoch) = (computer.me, envelope.epoch);
        if epoch > computer.disk.epoch() {
            let durable = computer.disk.epoch();
            return self.fail(format!("V3: s{} speaks in e{epoch}; durable is e{durable}", m + 1));
        }
        match &envelope.message {
            Message::Answer { ask, votes, answer } if !votes.is_empty() => {
                let Some(key) = self.asked.get(ask.0).filter(|_| self.views.remembers(epoch)) else { return };
                let may = self.views.may_vote(me, epoch, key);
                if !votes.is_subset(may) {
                    let what = format!(
                        "Q1: s{} votes for slots {votes:?} of key {key} in e{epoch}, and may vote for {may:?}",
                        m + 1
                    );
                    return self.fail(what);
                }
                let (slots, settled) = (self.profile.slots, self.views.settled);
                self.chosen[key].voted(epoch, *votes, answer, slots, settled);
                if matches!(answer, Answer::Held { .. }) && !self.views.is_synced(me.incarnation, epoch) {
                    self.met("voted before all was synced");
                }
            }
            Message::Answer { votes, .. } if votes.is_empty() && epoch > Epoch::FIRST => {
                self.met("answered without a vote");
            }
            Message::Prepare { ask, key, .. }
            | Message::Accept { ask, key, .. }
            | Message::Read { ask, key, .. } => {
                if let Some(key) = self.keys.place(key) {
                    self.asked.insert(ask.0, key);
                }
            }
            Message::Word { synced: true, .. } if !self.views.is_synced(me.incarnation, epoch) => {
                // One who owns nothing is synced for all of that.
                let in_ring = self.views.get(epoch).is_some_and(|seen| seen.in_ring(me));
                if in_ring {
                    self.fail(format!(
                        "T1: s{} says that it is synced in e{epoch}; its disk does not",
                        m + 1
                    ));
                }
            }
            Message::DecreeAnswer { answer: DecreeAnswer::Refused { .. }, .. } => {
                self.met("decree contention")
            }
            Message::Tell { request, .. } => {
                let what = match request.purpose {
                    Purpose::Ahead => "copies ahead",
                    Purpose::Copy => "copies first",
                    Purpose::Check => "checks",
                    Purpose::Sync if !request.without.is_empty() => "sync by recovery",
                    Purpose::Sync if request.handoff => "sync by handoff",
                    Purpose::Sync => "sync over several views",
                };
                self.met(what);
            }
            Message::Told { page, .. } if page.upto.is_some() => self.met("a telling in pages"),
            Message::NotTaken { .. } => self.met("not taken"),
            Message::Wished { refused: Some(_), .. } if matches!(to, Addr::Client(_)) => {
                self.met("wish refused")
            }
            _ => {}
        }
    }
}
