//! A knock at a silent machine's door: is there a process, is there a host?
//!
//! A host that lives refuses a datagram to a port where nobody listens, and the system tells whoever sent it. A
//! frozen process keeps its port open and says nothing. So three small datagrams tell a dead process, a frozen one and
//! a lost host apart, and nothing needs to run at the other end.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use crate::verdict::Knocked;

/// How long to wait for a word of the host.
const WAIT: Duration = Duration::from_millis(300);
/// How long to wait for a word of the network.
const LONG: Duration = Duration::from_millis(4_000);
/// Ports after the machine's own that nobody should listen at. Two: one of them may be somebody's.
const CLOSED: [u16; 2] = [3, 7];

/// Knocks at a machine's own port and at others of its host, from this address.
pub(crate) async fn knock(from: IpAddr, machine: SocketAddr) -> (Knocked, Knocked) {
    let port = |step: u16| {
        let port = machine.port().checked_add(step).unwrap_or(machine.port() - step);
        SocketAddr::new(machine.ip(), port)
    };
    let (own, first, second) =
        tokio::join!(one(from, machine), one(from, port(CLOSED[0])), one(from, port(CLOSED[1])),);
    let host = match (first, second) {
        (Knocked::Refused, _) | (_, Knocked::Refused) => Knocked::Refused,
        (Knocked::NoRoute, _) | (_, Knocked::NoRoute) => Knocked::NoRoute,
        _ if own == Knocked::Refused => Knocked::Refused,
        _ => Knocked::Silent,
    };
    (own, host)
}

/// Knocks with TCP as well, and waits for longer: where no host answers to the address, the system finds that out after
/// three tries of a second each, and tells only TCP of it.
pub(crate) async fn knock_for_long(from: IpAddr, machine: SocketAddr) -> Knocked {
    let talk = async {
        let socket = if machine.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((from, 0).into())?;
        socket.connect(machine).await
    };
    match timeout(LONG, talk).await {
        // Somebody listens there: not this program, but a host.
        Ok(Ok(_)) => Knocked::Refused,
        Ok(Err(error)) => of_error(&error),
        Err(_) => Knocked::Silent,
    }
}

fn of_error(error: &std::io::Error) -> Knocked {
    match error.kind() {
        ErrorKind::ConnectionRefused => Knocked::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Knocked::NoRoute,
        _ => Knocked::Silent,
    }
}

async fn one(from: IpAddr, to: SocketAddr) -> Knocked {
    let talk = async {
        let socket = UdpSocket::bind((from, 0)).await?;
        // Connected: only then does the system tell what the network answers.
        socket.connect(to).await?;
        // Shorter than any packet of QUIC: a machine that lives ignores it.
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 8]).await
    };
    match timeout(WAIT, talk).await {
        Ok(Err(error)) => of_error(&error),
        Ok(Ok(_)) | Err(_) => Knocked::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_and_a_silent_one_are_told_apart() {
        let here: IpAddr = [127, 0, 0, 1].into();
        let silent = UdpSocket::bind((here, 0)).await.unwrap();
        let at = silent.local_addr().unwrap();
        assert_eq!(knock(here, at).await, (Knocked::Silent, Knocked::Refused));
        drop(silent);
        assert_eq!(knock(here, at).await, (Knocked::Refused, Knocked::Refused));
        assert_eq!(knock_for_long(here, at).await, Knocked::Refused);
    }
}
