//! Connections to machines: who is dialled and when, and whom that has to be.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ennead_ring::view::Machine;
use quinn::Connection;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Peer, Refused, Shared, certificate_names};
use crate::certs::Who;
use crate::supervisor;
use crate::transport::close::{CloseCode, Ended, cut, end_of, no_answer};
use crate::transport::counters::Counters;
use crate::transport::link::{MainStream, NoHello, hear_hello, say_hello};
use crate::transport::{Event, Name, proof, versions};
use crate::wire::{Hello, Role};

/// Frames that still make sense when a wait between dials ends: those younger than this.
const FRESH: Duration = Duration::from_millis(200);

impl Shared {
    pub(super) fn dial_soon(self: &Arc<Self>, name: Name, peer: &mut Peer) {
        if !peer.dialling && !self.closing.load(Relaxed) {
            peer.dialling = true;
            let (this, again) = (self.clone(), self.clone());
            self.runtime.spawn(async move {
                let ended = supervisor::keep(&this.dialler_restarts, || again.clone().dialler(name)).await;
                this.part_ended(ended).await;
            });
        }
    }

    /// Dials a machine until there is a connection, or nothing left to send.
    async fn dialler(self: Arc<Self>, name: Name) {
        loop {
            assert!(!self.broken_dialler.swap(false, Relaxed), "asked to panic by a test");
            let not_before = self.lock().peers.get(&name).and_then(|p| p.not_before);
            let waits = not_before.filter(|t| *t > Instant::now());
            if let Some(then) = waits {
                sleep_until(then).await;
            }
            {
                let mut table = self.lock();
                let Some(peer) = table.peers.get_mut(&name) else { return };
                if waits.is_some() {
                    Counters::add(&self.counters.dropped, peer.lanes.drop_older_than(FRESH));
                }
                let needed = !peer.lanes.is_empty() || !peer.links.is_empty();
                if peer.well() || !needed || self.closing.load(Relaxed) {
                    peer.dialling = false;
                    return;
                }
            }
            Counters::add(&self.counters.dials, 1);
            let dialled = match timeout(self.config.dial_timeout, self.dial(name)).await {
                Ok(dialled) => dialled,
                Err(_) => Err(Refused { code: None, reason: no_answer(name), how: Ended::Silence }),
            };
            match dialled {
                Ok((connection, machine, hello, main)) => {
                    if let Err(why) = proof::outlives(&self, machine, hello.run).await {
                        // The earlier run keeps its connections: they are heard.
                        connection.close(CloseCode::Twin.number(), cut(&why).as_bytes());
                        self.counters.refused(CloseCode::Twin);
                        self.tell_impostor(name, &why);
                        if let Some(peer) = self.lock().peers.get_mut(&name) {
                            peer.lost(peer.failures.saturating_add(1));
                        }
                        continue;
                    }
                    self.runtime.spawn(self.clone().serve_machine(connection, machine, hello, true, main));
                    return;
                }
                Err(refused) => self.dial_failed(name, refused).await,
            }
        }
    }

    async fn dial_failed(self: &Arc<Self>, name: Name, refused: Refused) {
        Counters::add(&self.counters.dials_failed, 1);
        if let Some(code) = refused.code {
            self.counters.refused(code);
        }
        tracing::debug!(%name, reason = refused.reason, "dial failed");
        let silent = {
            let mut table = self.lock();
            let Some(peer) = table.peers.get_mut(&name) else { return };
            if peer.well() {
                return; // It dialled us meanwhile.
            }
            peer.lost(peer.failures.saturating_add(1));
            if peer.links.is_empty() {
                peer.note(Event::Down { name, reason: refused.reason, how: refused.how });
            }
            peer.links.clone()
        };
        // Silent, and not to be dialled either: it is down, and its end is told when the connection's is.
        for link in silent {
            link.close(CloseCode::Silent, &format!("nothing heard from {name}"));
        }
        self.tell(name).await;
    }

    async fn dial(&self, name: Name) -> Result<(Connection, Machine, Hello, MainStream), Refused> {
        self.dial_as(name, self.hello()).await
    }

    /// Who answers at a machine's address: as a client asks, so that it is answered whoever we are to it.
    pub(in crate::transport) async fn who_is_at(&self, name: Name) -> Result<(Machine, u64), String> {
        let hello = Hello { role: Role::Client, ..self.hello() };
        let (connection, machine, hello, _) =
            self.dial_as(name, hello).await.map_err(|refused| refused.reason)?;
        connection.close(CloseCode::Replaced.number(), b"asked who is there");
        Ok((machine, hello.run))
    }

    async fn dial_as(
        &self,
        name: Name,
        own: Hello,
    ) -> Result<(Connection, Machine, Hello, MainStream), Refused> {
        let text = name.ip().to_string();
        let how = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connecting = self.endpoint.connect_with(how, name.address(), &text).map_err(|e| {
            let reason = format!("cannot be dialled from here: {e}");
            Refused { code: None, reason, how: Ended::Other }
        })?;
        let ended = |error: &quinn::ConnectionError| {
            let end = end_of(&name.to_string(), error);
            // What the other end counted and refused is not ours to count.
            let code = end.code.filter(|_| matches!(error, quinn::ConnectionError::TransportError(_)));
            Refused { code, reason: end.text, how: end.how }
        };
        let connection = connecting.await.map_err(|e| ended(&e))?;
        if versions::differ(&connection) {
            return Err(ended(&versions::say(&connection, &self.config.wire).await));
        }
        let refuse = |code: CloseCode, reason: String| {
            connection.close(code.number(), cut(&reason).as_bytes());
            Refused::by_us(code, reason)
        };
        let lost = |error: NoHello| match error {
            NoHello::Bad(code, why) => refuse(code, why),
            NoHello::Ended => match connection.close_reason() {
                Some(error) => ended(&error),
                None => refuse(CloseCode::BadFrame, "the stream was stopped before a hello".to_string()),
            },
        };
        match certificate_names(&connection) {
            Ok(Who::Peer(found)) if found == name => {}
            Ok(found) => {
                return Err(refuse(
                    CloseCode::WrongName,
                    format!("certificate: I dialled {name}, and it names {found}"),
                ));
            }
            Err(why) => return Err(refuse(CloseCode::WrongName, format!("certificate: {why}"))),
        }
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ended(&error))?;
        say_hello(&mut send, own).await.map_err(lost)?;
        let (hello, mut inbox) = hear_hello(&mut recv).await.map_err(lost)?;
        let machine = match hello.role {
            Role::Machine(machine) if machine.name == name => machine,
            _ => {
                return Err(refuse(
                    CloseCode::WrongName,
                    format!("I dialled {name}, and you say you are another"),
                ));
            }
        };
        if let Some(why) = self.other_cluster(hello.cluster) {
            return Err(refuse(CloseCode::AnotherCluster, why));
        }
        inbox.set_limit(self.config.max_frame());
        Ok((connection, machine, hello, MainStream { send, recv, inbox }))
    }
}
