//! The status page: one file with all it needs, and what it shows as JSON.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennead_ring::{Epoch, MemberState, View};
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::routes::typed;
use super::server::Answer;
use crate::Name;
use crate::arcs::{arcs, fraction};
use crate::clock::unix_ms;
use crate::moving::Accounts;
use crate::plan;
use crate::status::MachineStatus;

/// Where the page asks for what it shows.
pub(super) const VIEW: &str = "/v1/view";
/// Parts of the ring that are drawn at most: finer ones would not be seen.
const ARCS: usize = 2_048;

/// The whole page: no build step, nothing from elsewhere.
const PAGE: &str = include_str!("page.html");

/// What a browser may do with it: run this script, apply this style, ask this machine. Nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let from = PAGE.find(&open).map_or(0, |at| at + open.len());
        let to = PAGE.find(&close).unwrap_or(from).max(from);
        STANDARD.encode(digest(&SHA256, &PAGE.as_bytes()[from..to]))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
});

/// The page itself.
pub(super) fn page() -> Answer {
    let mut answer = typed(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = answer.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(CONTENT_SECURITY_POLICY, &POLICY);
    set(REFERRER_POLICY, "no-referrer");
    set(X_FRAME_OPTIONS, "DENY");
    answer
}

/// What it shows.
pub(super) fn view(
    me: Name,
    status: &Value,
    view: &View,
    accounts: &Accounts,
    failures: Vec<&Value>,
) -> Value {
    let members = view.members().iter().zip(plan::shares(view)).map(|(member, share)| {
        let name = member.machine.name;
        let account =
            accounts.iter().find(|(n, _)| *n == name).and_then(|(_, account)| account.as_ref().ok());
        json!({
            "name": name.to_string(),
            "place": match member.state {
                MemberState::Joining => "joining",
                MemberState::Up => "in_ring",
                MemberState::Leaving => "leaving",
            },
            "share": share,
            "account": account.map(account_json),
        })
    });
    json!({
        "me": me.to_string(),
        "now_ms": unix_ms(),
        "status": status,
        "members": members.collect::<Vec<_>>(),
        "arcs": drawn(view),
        "failures": failures,
    })
}

fn account_json(account: &MachineStatus) -> Value {
    let figures = &account.figures;
    json!({
        "uptime_ms": account.uptime_ms,
        "behind": account.epoch == Epoch::ZERO || account.settled > account.epoch,
        "clients": account.clients,
        "part_restarts": account.part_restarts,
        "check": {
            "rounds": account.check.rounds,
            "running": account.check.running,
            "keys": account.check.keys,
            "unlike": account.check.unlike,
        },
        "wall_ms": figures.wall_ms,
        "writes": figures.writes,
        "reads": figures.reads,
        "copies": figures.copies,
        "failed": figures.failed,
        "write_micros": figures.write_micros,
        "fsync_micros": figures.fsync_micros,
        "waiting": figures.waiting,
        "queued": figures.queued,
        "bytes_in": figures.bytes_in,
        "bytes_out": figures.bytes_out,
        "store_bytes": figures.store_bytes,
    })
}

/// The ring's parts: where each begins, 0 to 1 and clockwise from the top, and the index of whose it is.
fn drawn(view: &View) -> Vec<(f64, usize)> {
    let all = arcs(view);
    let mut drawn: Vec<(f64, usize)> = Vec::new();
    if all.len() <= ARCS {
        drawn.extend(all.iter().map(|arc| (rounded(fraction(arc.from)), arc.member)));
    } else {
        drawn.extend((0..ARCS).map(|i| {
            let at = i as f64 / ARCS as f64;
            let above = all.partition_point(|arc| fraction(arc.from) <= at);
            (rounded(at), all[above.checked_sub(1).unwrap_or(all.len() - 1)].member)
        }));
    }
    drawn.dedup_by_key(|(_, member)| *member);
    drawn
}

fn rounded(fraction: f64) -> f64 {
    (fraction * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use ennead_ring::{ClusterId, Incarnation, Machine, Member};

    use super::*;

    #[test]
    fn the_page_asks_nobody_but_this_machine_and_may_do_nothing_else() {
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
        assert!(PAGE.contains("<script>") && PAGE.contains("<style>"), "what the policy hashes");
        let foreign =
            PAGE.match_indices("http").filter(|(at, _)| !PAGE[*at..].starts_with("http://www.w3.org/"));
        assert_eq!(foreign.count(), 0, "a foreign host");
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy refuses these");
        assert!(PAGE.contains(&format!("fetch('{VIEW}'")));
        assert!(POLICY.starts_with("default-src 'none'; script-src 'sha256-"), "{}", *POLICY);
        assert!(!POLICY.contains("unsafe"));
    }

    #[test]
    fn a_ring_of_many_machines_is_drawn_in_so_many_parts() {
        let member = |n: u32| {
            let [_, b, c, d] = n.to_be_bytes();
            let name = format!("10.{b}.{c}.{d}").parse().expect("a name");
            let machine = Machine { name, incarnation: Incarnation::new(u64::from(n) + 1) };
            Member::up(machine, 64)
        };
        let of = |machines: u32| {
            let members = (0..machines).map(member).collect();
            drawn(&View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).expect("a view"))
        };
        let (few, many) = (of(9), of(300));
        assert!(few.len() > 400 && few.len() <= 576, "{}", few.len());
        assert!(many.len() <= ARCS && many.len() > 1_500, "{}", many.len());
        assert!(few.windows(2).all(|p| p[0].0 <= p[1].0 && p[0].1 != p[1].1));
    }
}
