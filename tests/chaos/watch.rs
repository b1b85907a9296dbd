//! Who may be taken away now, so that no more is ever missing than the protocol allows: else what is lost is our mistake.
//!
//! Claim 4 of PROTOCOL: as many as the table says, counted in each view not yet settled. Who is a member and not synced
//! counts as missing; whose data is gone is missing in every view that has that incarnation, for good.

use std::collections::{BTreeMap, BTreeSet};

use ennead::Name;
use ennead::client::Client;
use ennead::status::MachineStatus;
use ennead_ring::view::Epoch;
use ennead_ring::{Machine, View};

/// What was last seen of the ring.
pub(crate) struct Watch {
    client: Client,
    /// The rings of the views since the last settled one that any machine knows of.
    views: BTreeMap<Epoch, Vec<Machine>>,
    /// Members of the newest view, and of them who does not vote for all it owns.
    members: BTreeSet<Name>,
    unsynced: BTreeSet<Name>,
    settled: bool,
    /// Incarnations whose data is gone.
    lost: BTreeSet<Machine>,
}

/// Machines that may be lost at once, of so many (PROTOCOL, section 2).
fn table(machines: usize) -> usize {
    [0, 0, 0, 1, 1, 2, 2, 2, 3].get(machines).copied().unwrap_or(4)
}

impl Watch {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            views: BTreeMap::new(),
            members: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            settled: false,
            lost: BTreeSet::new(),
        }
    }

    /// Looks; `None` if nobody tells enough to judge by.
    pub(crate) async fn look(&mut self) -> Option<()> {
        let view = self.client.view().await.ok()?;
        let accounts = self.client.status().await.ok()?;
        let told = || accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
        let settled = told().map(|account| account.settled).max()?;
        self.views.insert(view.epoch(), in_ring(&view));
        self.views.retain(|epoch, _| *epoch >= settled);
        let votes = |account: &&MachineStatus| {
            account.epoch == view.epoch() && account.slots > 0 && account.slots == account.synced_slots
        };
        let synced: BTreeSet<Name> = told().filter(votes).map(|account| account.machine.name).collect();
        self.members = view.members().iter().map(|m| m.machine.name).collect();
        self.unsynced = in_ring(&view).iter().map(|m| m.name).filter(|name| !synced.contains(name)).collect();
        self.settled = settled == view.epoch();
        // There may be a view that we have not seen.
        let unseen = told().any(|account| account.epoch > view.epoch()) || !self.views.contains_key(&settled);
        (!unseen).then_some(())
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    pub(crate) fn is_member(&self, name: Name) -> bool {
        self.members.contains(&name)
    }

    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Whether these may be missing as well as those who are.
    pub(crate) fn may_miss(&self, missing: &BTreeSet<Name>, more: &[Name]) -> bool {
        let newest = self.views.keys().next_back();
        self.views.iter().all(|(epoch, machines)| {
            let is_missing = |m: &&Machine| {
                missing.contains(&m.name)
                    || more.contains(&m.name)
                    || self.lost.contains(m)
                    || Some(epoch) == newest && self.unsynced.contains(&m.name)
            };
            machines.iter().filter(is_missing).count() <= table(machines.len())
        })
    }

    /// The data of this one is gone, whichever of its incarnations it was.
    pub(crate) fn lose(&mut self, name: Name) {
        let gone = self.views.values().flatten().filter(|m| m.name == name);
        self.lost.extend(gone);
    }
}

fn in_ring(view: &View) -> Vec<Machine> {
    view.members().iter().filter(|m| m.in_ring()).map(|m| m.machine).collect()
}
