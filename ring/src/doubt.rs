//! What a machine learns of itself from the views that others tell: that it may take part no more under its incarnation
//! (F2, R2). It falls silent then, for good; its next start draws another incarnation.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use crate::mutant::{Mutant, Rules};
use crate::view::{Epoch, Machine, View};

/// F2: why this machine cannot go on, if these views, told by a member, say so. The caller has adopted what follows its
/// own.
pub(crate) fn cast_out(me: Machine, own: &View, views: &[Arc<View>], rules: Rules) -> Option<String> {
    let newest = views.last()?;
    let same = own.epoch() == newest.epoch() || own.is_in_past_of(newest);
    let ahead = same || newest.epoch().generation > own.epoch().generation;
    if own.cluster() != newest.cluster() || !ahead || own.is_apart_from(newest) {
        return None;
    }
    if newest.has_forced_out(me.incarnation) && !rules.broken(Mutant::F2Returns) {
        return Some(format!(
            "forced out of the cluster by an operator (epoch {}): a new incarnation is needed",
            newest.epoch()
        ));
    }
    // It may have voted in views that the operator's does not know of.
    (!same).then(|| {
        format!(
            "left behind by a forced recovery: this machine's view, epoch {}, is not in the past of epoch {}: a new \
             incarnation is needed",
            own.epoch(),
            newest.epoch()
        )
    })
}

/// R2: a settled view has this machine in its ring, so it has said, durably, that it was synced there (T1); and it does
/// not know that view. So its disk is older than its word: a copy that was put back, say.
pub(crate) fn forgotten(
    me: Machine,
    own: Option<&View>,
    views: &[Arc<View>],
    settled: Epoch,
    rules: Rules,
) -> Option<String> {
    let view = views.iter().find(|view| view.epoch() == settled)?;
    let unknown = own.is_none_or(|own| own.is_in_past_of(view));
    let owner = view.members().iter().any(|m| m.machine == me && m.in_ring());
    // View 1 is settled by `init`'s word alone (F1).
    let said = settled > Epoch::FIRST && owner && !rules.broken(Mutant::R2Stale);
    (unknown && said).then(|| {
        format!(
            "the data directory has forgotten what this machine said: it was synced in epoch {settled}, which is settled, \
             and its newest view is epoch {}. An old copy of the directory may have been put back: a new incarnation is \
             needed",
            own.map(View::epoch).unwrap_or_default()
        )
    })
}
