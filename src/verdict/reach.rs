//! Who reaches a machine and who misses it: the two sides of a cut.

use ennead_ring::view::Name;

use super::Case;
use super::testimony::{EndKind, Knocked, Seen};
use crate::status::PeerState;

/// How lately a machine was heard by one who reaches it, in milliseconds.
const LATELY: u64 = 3_000;
/// How long a machine is missed before those who miss it are on another side, in milliseconds.
pub(super) const MISSED: u64 = 1_500;

/// True if this machine gets no answer from it. Its detector may have been told by others that it lives; then no
/// connection and no answer to knocks say the same.
pub(super) fn misses(seen: &Seen) -> bool {
    let unanswered = seen.end.as_ref().is_some_and(|end| end.kind == EndKind::Silence)
        && seen.knock.is_some_and(|knock| knock.host != Knocked::Refused && knock.ago_ms <= LATELY);
    seen.state != PeerState::Up || unanswered
}

/// For how long it has got none.
pub(super) fn missed_for(seen: &Seen) -> u64 {
    seen.silent_ms.max(seen.lost_ms.unwrap_or(0))
}

/// Who reaches it: has heard it lately, and after those who miss it did last.
pub(super) fn reaching(case: &Case, seen: &[(Name, &Seen)]) -> Vec<Name> {
    let missed = seen.iter().filter(|(_, s)| misses(s)).map(|(_, s)| missed_for(s)).max().unwrap_or(u64::MAX);
    let reaches = |s: &Seen| {
        !misses(s) && s.heard_ms.is_some_and(|ms| ms <= LATELY && ms.saturating_add(MISSED) <= missed)
    };
    let mut names: Vec<Name> = seen.iter().filter(|(_, s)| reaches(s)).map(|(by, _)| *by).collect();
    if case.own.is_some() {
        // The one who asks reaches it, and that is somebody.
        names.dedup();
    }
    names
}

pub(super) fn sides(name: Name, missing: &[Name], reaching: &[Name]) -> String {
    let list = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let reached = if reaching.is_empty() { "the one who asks".to_owned() } else { list(reaching) };
    format!("{name} is cut off from some: {} get no answer from it; {reached} reach it", list(missing))
}
