//! What a script is judged by besides what its callers saw: a few of the claims on views and votes, by somebody who sees
//! every disk and hears every word.

use std::sync::Arc;

use ennead_ring::effect::Change;
use ennead_ring::message::{Envelope, Message};
use ennead_ring::{Epoch, Machine, View};

use crate::asked::Asked;
use crate::chosen::{Chosen, forgotten, takes_part};
use crate::disk::Disk;
use crate::views::{Keys, Views};

/// See the module's caption.
pub(crate) struct Bystander {
    views: Views,
    chosen: Vec<Chosen>,
    asked: Asked,
    slots: u8,
    /// The first thing that was wrong.
    pub(crate) failure: Option<String>,
}

impl Bystander {
    /// Of a cluster that is in view 1.
    pub(crate) fn new(view: &Arc<View>, keys: &Keys) -> Self {
        let mut views = Views::default();
        let failure = views.adopted(view, keys).err();
        let chosen = keys.iter().map(|_| Chosen::default()).collect();
        Self { views, chosen, asked: Asked::default(), slots: view.slots(), failure }
    }

    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// This is on a machine's disk now. Returns true if claim 2 is due.
    pub(crate) fn durable(&mut self, (me, disk): (Machine, &Disk), notes: Vec<Change>, keys: &Keys) -> bool {
        let due = notes.iter().any(|note| !matches!(note, Change::Decree(_)));
        for note in notes {
            match note {
                Change::View(view) => {
                    if let Err(what) = self.views.adopted(&view, keys) {
                        self.fail(what);
                    }
                }
                Change::Account(account) => {
                    for &epoch in &account.synced {
                        self.synced((me, disk), epoch, keys);
                    }
                    if let Err(what) = self.views.settled(account.settled) {
                        self.fail(what);
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
        due
    }

    /// A machine notes that it is synced for all that it owns in a view.
    fn synced(&mut self, (me, disk): (Machine, &Disk), epoch: Epoch, keys: &Keys) {
        if !self.views.remembers(epoch) {
            return;
        }
        let Some(seen) = self.views.get(epoch).cloned() else {
            return self.fail(format!("S7: {me} is synced in e{epoch}, which nobody adopted"));
        };
        if seen.in_ring(me)
            && self.views.synced(me.incarnation, epoch)
            && epoch == disk.epoch()
            && let Some(what) = takes_part(&self.views, &seen, (me, disk), keys, &self.chosen)
        {
            self.fail(what);
        }
    }

    /// Claim 2: nothing that was chosen is lacking where a quorum votes.
    pub(crate) fn look<'a>(&mut self, keys: &Keys, disk_of: impl Fn(Machine) -> Option<&'a Disk>) {
        let all = keys.iter().zip(&self.chosen).enumerate();
        let lost = all
            .filter_map(|(k, (key, chosen))| forgotten(&self.views, (k, key, chosen), self.slots, &disk_of))
            .last();
        if let Some(what) = lost {
            self.fail(what);
        }
    }

    /// A machine will not run again as what it was.
    pub(crate) fn lose(&mut self, machine: Machine) {
        self.views.lose(machine);
    }

    /// A machine says this now: nothing holds it back any more.
    pub(crate) fn hears(&mut self, me: Machine, envelope: &Envelope, keys: &Keys) {
        let epoch = envelope.epoch;
        match &envelope.message {
            Message::Answer { ask, votes, answer } if !votes.is_empty() => {
                let Some(key) = self.asked.get(ask.0).filter(|_| self.views.remembers(epoch)) else { return };
                let may = self.views.may_vote(me, epoch, key);
                if !votes.is_subset(may) {
                    return self.fail(format!(
                        "Q1: {me} votes for slots {votes:?} of key {key} in e{epoch}, and may vote for {may:?}"
                    ));
                }
                self.chosen[key].voted(epoch, *votes, answer, self.slots, self.views.settled);
            }
            Message::Prepare { ask, key, .. }
            | Message::Accept { ask, key, .. }
            | Message::Read { ask, key, .. } => {
                if let Some(key) = keys.place(key) {
                    self.asked.insert(ask.0, key);
                }
            }
            _ => {}
        }
    }
}
