//! Peers that are not there yet, are killed, come back, or fall silent.

use std::net::UdpSocket;
use std::time::Duration;

use ennead::transport::{Config, Event, To};

use super::{Authority, End, free_name, machine, peer_config, ring, talk, until};

#[tokio::test]
async fn nobody_there_is_told_and_what_waits_is_dropped() {
    let authority = Authority::new();
    let nobody = free_name(9);
    let mut a = End::start(Config {
        dial_timeout: Duration::from_millis(200),
        ..peer_config(&authority, free_name(1))
    });
    for ask in 0..1000 {
        a.transport.send(To::Machine(nobody), ring(None, ask));
    }
    assert_eq!(a.down().await, format!("timed out: nothing answers at {}", nobody.address()));
    until(|| a.transport.stats().dropped == 1000).await;
    // With nothing left to send, it is not dialled any more.
    until(|| a.transport.stats().dials == a.transport.stats().dials_failed).await;
}

#[tokio::test]
async fn a_machine_that_was_down_is_dialled_at_once_after_a_while() {
    let authority = Authority::new();
    let name = free_name(2);
    let a = End::start(Config {
        dial_timeout: Duration::from_millis(100),
        ..peer_config(&authority, free_name(1))
    });
    a.transport.send(To::Machine(name), ring(None, 0));
    until(|| a.transport.stats().dropped == 1).await;
    let mut b = End::peer(&authority, name);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The wait after the failed dial is long over: this frame is neither late nor lost.
    a.transport.send(To::Machine(name), ring(None, 1));
    assert_eq!(b.frame().await.1, ring(None, 1));
}

#[tokio::test]
async fn a_peer_that_comes_late_is_reached() {
    let authority = Authority::new();
    let late = free_name(2);
    let a = End::start(Config {
        dial_timeout: Duration::from_millis(200),
        ..peer_config(&authority, free_name(1))
    });
    a.transport.send(To::Machine(late), ring(None, 0));
    until(|| a.transport.stats().dials_failed > 0).await;
    let mut b = End::peer(&authority, late);
    talk(&a, &mut b).await;
}

/// An endpoint in a thread of its own that dies without a word when it is killed, as by `kill -9`.
struct Doomed {
    end: End,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Doomed {
    async fn start(config: Config) -> Self {
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = tell.send(End::start(config));
                let _ = killed.await;
            });
            // Dropping the runtime drops every task where it stands: nothing is said any more.
        });
        Self { end: told.await.unwrap(), kill, thread }
    }

    /// Kills it, and waits until its socket is closed.
    async fn kill(self) {
        let Self { end, kill, thread } = self;
        kill.send(()).unwrap();
        thread.join().unwrap();
        let address = end.name().address();
        drop(end);
        until(|| UdpSocket::bind(address).is_ok()).await;
    }
}

#[tokio::test]
async fn a_killed_peer_that_is_back_is_noticed_by_who_sends_to_it() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::peer(&authority, free_name(1));
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    b.kill().await;
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    // Not by the idle timeout: by the reset that the new process signed with the old one's key.
    assert_eq!(a.down().await, format!("{name} restarted"));
    assert!(matches!(a.next().await, Event::Up { machine: up, .. } if up == machine(name)));
    b.kill().await;
}

#[tokio::test]
async fn a_killed_peer_that_is_back_and_dials_replaces_its_old_connection() {
    for (mine, other) in [(1, 2), (2, 1)] {
        let authority = Authority::new();
        let name = free_name(other);
        let mut a = End::peer(&authority, free_name(mine));
        let mut b = Doomed::start(peer_config(&authority, name)).await;
        talk(&a, &mut b.end).await;
        b.kill().await;
        let mut b = Doomed::start(peer_config(&authority, name)).await;
        talk(&b.end, &mut a).await;
        talk(&a, &mut b.end).await;
        until(|| a.transport.stats().connections == 1).await;
        b.kill().await;
    }
}

#[tokio::test]
async fn a_silent_peer_is_declared_down_long_before_the_idle_timeout() {
    let authority = Authority::new();
    let name = free_name(2);
    let mut a = End::start(Config {
        silence: Duration::from_millis(200),
        dial_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(3600),
        ..peer_config(&authority, free_name(1))
    });
    let mut b = Doomed::start(peer_config(&authority, name)).await;
    talk(&a, &mut b.end).await;
    b.kill().await;
    a.transport.send(To::Machine(name), ring(None, 1));
    assert_eq!(a.down().await, format!("nothing heard from {name}"));
    assert_eq!(a.transport.stats().connections, 0);
}
