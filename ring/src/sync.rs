//! Which slots this machine may vote for.
//!
//! On one settled view it is every slot it owns: nobody voted before view 1, so its owners are synced from
//! birth (PROTOCOL section 6). A machine that comes to own a slot in a later view is not, until S4 to S7 say so.

use crate::quorum::SlotSet;
use crate::view::{Epoch, View};

/// What this machine is synced for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Synced {
    whole_view: bool,
}

impl Synced {
    /// Synced for all it owns in view 1, and in no later view: that is for S1 to S7 to establish.
    pub(crate) fn at_birth(view: &View) -> Self {
        Self { whole_view: view.epoch() == Epoch::FIRST }
    }

    /// Those of the slots owned that it votes for (Q1).
    pub(crate) fn voting(self, owned: SlotSet) -> SlotSet {
        if self.whole_view { owned } else { SlotSet::EMPTY }
    }
}
