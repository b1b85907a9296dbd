//! Whether a process that comes in under a machine's name is that machine: a certificate can be copied, a data directory
//! too, but a name is an address, and one process answers there.
//!
//! Whoever calls from the machine's own address is believed, unless another run of the machine is connected: the system
//! lets one process have the address. Who calls from elsewhere (a copy on another host or port; also a machine behind an
//! address translation), or while another run lives, is believed if the machine's address, dialled, answers with the
//! same run. So a twin of a machine that lives never ends the connections of that one, nor speaks for it, and one of a
//! machine that is dead speaks for nobody.
//!
//! Two hosts that carry one address (a duplicated container) both are where the name says: the network leads now to one,
//! now to the other. But a run that was ended says nothing any more. So while an earlier run is connected, another is
//! believed only if nothing is heard of that one after it came. Beyond this lies who keeps the address for good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ennead_ring::view::Machine;
use quinn::ConnectionError;
use tokio::time::{Instant, sleep, timeout};

use super::close::{CloseCode, no_answer};
use super::link::Link;
use super::peers::Shared;

/// How long an earlier run is taken to live that was heard beside another, then found us silent, and ended its connection
/// for that; and how long before that the other may have been refused.
pub(super) const LIVES_FOR: Duration = Duration::from_secs(5);
/// Between two looks at whether an earlier run is heard.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lets it in, or says why not.
pub(super) async fn prove(
    shared: &Shared,
    from: SocketAddr,
    machine: Machine,
    run: u64,
) -> Result<(), (CloseCode, String)> {
    let name = machine.name;
    // A socket for both families says an IPv4 address in the words of IPv6.
    let at_home = SocketAddr::new(from.ip().to_canonical(), from.port()) == name.address();
    let (same, others) = shared.connected(machine, run);
    if same || at_home && !others {
        return Ok(());
    }
    // Within the time that the caller waits for our hello.
    let found = timeout(shared.config.dial_timeout / 2, shared.who_is_at(name)).await;
    let why = match found.unwrap_or_else(|_| Err(no_answer(name))) {
        Ok(found) if found == (machine, run) => {
            return outlives(shared, machine, run).await.map_err(|why| (CloseCode::Twin, why));
        }
        Ok((found, _)) => {
            let what = match found.incarnation == machine.incarnation {
                true => "of the same incarnation: its data directory was copied",
                false => "of another incarnation",
            };
            format!(
                "another process lives at {name}, {what}: two must not share a name. You called from {from}; end one of \
                 the two"
            )
        }
        Err(why) => format!(
            "you say you are {name} and call from {from}, and {name} cannot be asked whether that is so: {why}"
        ),
    };
    Err((CloseCode::NotAllowed, why))
}

/// Whether the run that the network leads to is the only one, as far as those show that were connected before.
///
/// One that was ended where this one runs is known to be gone in a round trip: this one answers for it that nobody knows
/// the connection. Of any other, it takes the time in which it would be heard.
pub(super) async fn outlives(shared: &Shared, machine: Machine, run: u64) -> Result<(), String> {
    if is_alone(shared, machine, run).await {
        return Ok(());
    }
    let name = machine.name;
    shared.note_twin(name, run);
    Err(format!(
        "another process lives with the address of {name}, and was heard after you called: two must not share a name; end \
         one of the two"
    ))
}

async fn is_alone(shared: &Shared, machine: Machine, run: u64) -> bool {
    let name = machine.name;
    let (others, lately) = shared.earlier(machine, run);
    if lately || others.is_empty() {
        return !lately;
    }
    shared.provoke(name);
    let ended = |link: &&Arc<Link>| link.connection.close_reason().is_some();
    let begun = Instant::now();
    // What it said before its end may be on its way, or wait for us, for a moment.
    let (under_way, long) = (shared.config.dial_timeout / 8, shared.config.dial_timeout / 2);
    while begun.elapsed() < under_way {
        if others.iter().all(|link| ended(&link)) {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    let heard: Vec<(&Arc<Link>, u64)> =
        others.iter().filter(|link| !ended(link)).map(|link| (link, frames(link))).collect();
    // What it answers to this, it says now.
    shared.provoke(name);
    while begun.elapsed() < long && heard.iter().any(|(link, _)| !ended(link)) {
        sleep(LOOK_EVERY).await;
        if heard.iter().any(|(link, before)| frames(link) > *before) {
            return false;
        }
    }
    !heard.iter().any(|(link, _)| found_us_silent(link))
}

/// What was heard of it so far, and could be read: nobody else can have said that.
fn frames(link: &Arc<Link>) -> u64 {
    let frames = link.connection.stats().frame_rx;
    frames.acks + frames.ping + frames.stream
}

/// True if the other end ended the connection since it heard nothing: so it lived.
pub(super) fn found_us_silent(link: &Arc<Link>) -> bool {
    let silent = CloseCode::Silent.number();
    matches!(link.connection.close_reason(), Some(ConnectionError::ApplicationClosed(close)) if close.error_code == silent)
}
