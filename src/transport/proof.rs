//! Whether a process that comes in under a machine's name is that machine: a certificate can be copied, a data directory
//! too, but a name is an address, and one process answers there.
//!
//! Whoever calls from the machine's own address is believed, unless another run of the machine is connected: the system
//! lets one process have the address. Who calls from elsewhere (a copy on another host or port; also a machine behind an
//! address translation), or while another run lives, is believed if the machine's address, dialled, answers with the
//! same run. So a twin of a machine that lives never ends the connections of that one, nor speaks for it, and one of a
//! machine that is dead speaks for nobody. Beyond this lies whoever can take the address itself.

use std::net::SocketAddr;

use ennead_ring::view::Machine;
use tokio::time::timeout;

use super::close::no_answer;
use super::peers::Shared;

/// Lets it in, or says why not.
pub(super) async fn prove(
    shared: &Shared,
    from: SocketAddr,
    machine: Machine,
    run: u64,
) -> Result<(), String> {
    let name = machine.name;
    // A socket for both families says an IPv4 address in the words of IPv6.
    let at_home = SocketAddr::new(from.ip().to_canonical(), from.port()) == name.address();
    let (same, others) = shared.connected(machine, run);
    if same || at_home && !others {
        return Ok(());
    }
    // Within the time that the caller waits for our hello.
    let found = timeout(shared.config.dial_timeout / 2, shared.who_is_at(name)).await;
    match found.unwrap_or_else(|_| Err(no_answer(name))) {
        Ok(found) if found == (machine, run) => Ok(()),
        Ok((found, _)) => {
            let what = match found.incarnation == machine.incarnation {
                true => "of the same incarnation: its data directory was copied",
                false => "of another incarnation",
            };
            Err(format!(
                "another process lives at {name}, {what}: two must not share a name. You called from {from}; end one of \
                 the two"
            ))
        }
        Err(why) => Err(format!(
            "you say you are {name} and call from {from}, and {name} cannot be asked whether that is so: {why}"
        )),
    }
}
