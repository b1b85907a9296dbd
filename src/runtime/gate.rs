//! What leaves the machine only once something is durable (A2).

use std::collections::BTreeMap;

use ennead_ring::effect::Ticket;

/// Holds back what waits for the disk. The protocol counts what it persists from 1 in each core loop; storage counts all
/// that was ever handed in, whichever core loop did it.
#[derive(Debug)]
pub(super) struct Gate<T> {
    /// Added to the protocol's tickets to make the storage's: what earlier core loops handed in.
    before: u64,
    durable: u64,
    held: BTreeMap<u64, Vec<T>>,
}

impl<T> Gate<T> {
    /// Of a core loop that begins when so much has been handed in, and so much of it is durable.
    pub(super) fn new(handed_in: u64, durable: u64) -> Self {
        Self { before: handed_in, durable, held: BTreeMap::new() }
    }

    /// The storage's number of the protocol's ticket.
    pub(super) fn ticket(&self, ticket: Ticket) -> Ticket {
        Ticket(self.before + ticket.0)
    }

    /// Gives it back if it may leave at once. What waits for nothing of this core loop waits for all that earlier ones
    /// handed in: storage reads back what is queued, so that it may rest on any of it (FOUND 8).
    pub(super) fn pass(&mut self, after: Option<Ticket>, what: T) -> Option<T> {
        let Ticket(ticket) = self.ticket(after.unwrap_or_default());
        if ticket <= self.durable {
            return Some(what);
        }
        self.held.entry(ticket).or_default().push(what);
        None
    }

    /// All up to this one, of the storage's, is durable: what may leave now, in its order.
    pub(super) fn open(&mut self, Ticket(durable): Ticket) -> impl Iterator<Item = T> + use<T> {
        self.durable = self.durable.max(durable);
        let waits = self.held.split_off(&(self.durable + 1));
        std::mem::replace(&mut self.held, waits).into_values().flatten()
    }

    /// How many are held back.
    pub(super) fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_leaves_in_order_once_that_is_durable() {
        let mut gate = Gate::new(0, 0);
        assert_eq!(gate.pass(None, "nothing is waited for"), Some("nothing is waited for"));
        assert_eq!(gate.pass(Some(Ticket(2)), "b"), None);
        assert_eq!(gate.pass(Some(Ticket(1)), "a"), None);
        assert_eq!(gate.pass(Some(Ticket(2)), "c"), None);
        assert_eq!(gate.open(Ticket(1)).collect::<Vec<_>>(), ["a"]);
        assert_eq!(gate.open(Ticket(3)).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(gate.pass(Some(Ticket(3)), "d"), Some("d"));
        // Told late: nothing is less durable for it.
        assert_eq!(gate.open(Ticket(1)).count(), 0);
        assert_eq!(gate.pass(Some(Ticket(3)), "e"), Some("e"));
    }

    /// A2, FOUND 8: the core loop died when storage had 7 and 5 of them were durable. The next one loads a record that is
    /// the 6th or 7th, and knows of no ticket to wait for.
    #[test]
    fn a2_a_vote_on_what_an_earlier_core_loop_queued_waits_for_the_disk() {
        let mut gate = Gate::new(7, 5);
        assert_eq!(gate.pass(None, "a promise"), None, "told before it is on disk");
        assert_eq!(gate.ticket(Ticket(1)), Ticket(8));
        assert_eq!(gate.pass(Some(Ticket(1)), "an accept"), None);
        assert_eq!(gate.open(Ticket(6)).count(), 0);
        assert_eq!(gate.open(Ticket(7)).collect::<Vec<_>>(), ["a promise"]);
        assert_eq!(gate.pass(None, "another"), Some("another"));
        assert_eq!(gate.open(Ticket(8)).collect::<Vec<_>>(), ["an accept"]);
    }
}
