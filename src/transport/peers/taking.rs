//! Connections that come in: how many, who may, and what each has to show first.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use quinn::{Connection, Incoming};
use tokio::time::timeout;

use super::{Refused, Shared, certificate_names};
use crate::certs::Who;
use crate::supervisor;
use crate::transport::close::{CloseCode, cut, end_of};
use crate::transport::link::{MainStream, NoHello, hear_hello, say_hello};
use crate::transport::{proof, versions};
use crate::wire::{Hello, Role};

/// Counts a connection that came in for as long as it lives.
struct Place {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.lock();
        table.incoming_in_all -= 1;
        if let Some(n) = table.incoming.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                table.incoming.remove(&self.ip);
            }
        }
    }
}

/// Counts a handshake for as long as it takes.
struct Handshake(Arc<Shared>);

impl Handshake {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.handshakes.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Relaxed);
    }
}

/// Closes a connection whose hello did not come, when the wait for it is given up.
struct CutOff<'a>(Option<&'a Connection>);

impl CutOff<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            // After another close, this one says nothing.
            connection.close(CloseCode::Idle.number(), b"no hello came in time");
        }
    }
}

impl Shared {
    /// Takes connections until the endpoint closes, whatever a single one does to us.
    pub(in crate::transport) async fn listen(self: Arc<Self>) {
        let ended = supervisor::keep(&self.listener_restarts, || self.clone().accept()).await;
        self.part_ended(ended).await;
    }

    async fn accept(self: Arc<Self>) {
        let _life = self.listening.begin();
        while let Some(incoming) = self.endpoint.accept().await {
            assert!(!self.broken_listener.swap(false, Relaxed), "asked to panic by a test");
            let validated = incoming.remote_address_validated();
            if !validated && self.handshakes.load(Relaxed) >= self.config.retry_above {
                // Whoever forges addresses never sees the token, and costs us one packet.
                let _ = incoming.retry();
                continue;
            }
            match self.place(incoming.remote_address().ip()) {
                Some(place) => {
                    let handshake = Handshake::new(&self);
                    self.runtime.spawn(self.clone().welcome(incoming, place, handshake));
                }
                None => {
                    self.counters.refused(CloseCode::Crowded);
                    incoming.refuse();
                }
            }
        }
    }

    fn place(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut table = self.lock();
        let here = table.incoming.get(&ip).copied().unwrap_or(0);
        if self.closing.load(Relaxed)
            || table.incoming_in_all >= self.config.max_incoming
            || here >= self.config.max_per_address
        {
            return None;
        }
        table.incoming_in_all += 1;
        table.incoming.insert(ip, here + 1);
        Some(Place { shared: self.clone(), ip })
    }

    async fn welcome(self: Arc<Self>, incoming: Incoming, place: Place, handshake: Handshake) {
        let from = incoming.remote_address();
        let met = timeout(self.config.dial_timeout, self.meet(incoming)).await;
        drop(handshake);
        match met {
            Ok(Ok((connection, hello, main))) => {
                match hello.role {
                    Role::Machine(machine) => {
                        self.serve_machine(connection, machine, hello, false, main).await;
                    }
                    Role::Client => self.serve_client(connection, hello, main).await,
                }
                drop(place);
            }
            Ok(Err(refused)) => {
                self.counters.refused(refused.code.unwrap_or(CloseCode::Handshake));
                tracing::warn!(%from, reason = refused.reason, "connection not taken");
            }
            Err(_) => {
                self.counters.refused(CloseCode::Idle);
                tracing::warn!(%from, "connection not taken: no hello in time");
            }
        }
    }

    async fn meet(&self, incoming: Incoming) -> Result<(Connection, Hello, MainStream), Refused> {
        let from = incoming.remote_address().to_string();
        let ended = |error: &quinn::ConnectionError| {
            let end = end_of(&from, error);
            Refused { code: end.code, reason: end.text, how: end.how }
        };
        let connection = incoming.accept().map_err(|e| ended(&e))?.await.map_err(|e| ended(&e))?;
        // A caller that never says hello is cut off by the timeout around this: it is told so here.
        let cut_off = CutOff(Some(&connection));
        let refuse = |code: CloseCode, reason: String| {
            connection.close(code.number(), cut(&reason).as_bytes());
            Refused::by_us(code, reason)
        };
        if versions::differ(&connection) {
            let why = versions::hear(&connection, &self.config.wire).await;
            return Err(refuse(CloseCode::WrongVersion, why));
        }
        let lost = |error: NoHello| match error {
            NoHello::Bad(code, why) => refuse(code, why),
            NoHello::Ended => match connection.close_reason() {
                Some(error) => ended(&error),
                None => refuse(CloseCode::BadFrame, "the stream was stopped before a hello".to_string()),
            },
        };
        let who = match certificate_names(&connection) {
            Ok(who) => who,
            Err(why) => return Err(refuse(CloseCode::NotAllowed, format!("certificate: {why}"))),
        };
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|e| ended(&e))?;
        let (hello, mut inbox) = hear_hello(&mut recv).await.map_err(lost)?;
        if let Role::Machine(machine) = hello.role {
            let name = machine.name;
            match who {
                Who::Peer(found) if found == name && Some(name) != self.me() => {}
                Who::Peer(found) if found == name => {
                    let why = format!("{name} is my own name: two live machines must not share one");
                    self.tell_impostor(name, &why);
                    return Err(refuse(CloseCode::NotAllowed, why));
                }
                Who::Peer(found) => {
                    let why = format!("certificate: you say you are {name}, and it names {found}");
                    return Err(refuse(CloseCode::WrongName, why));
                }
                Who::Client(found) => {
                    let why = format!("certificate: client {found} cannot speak for machine {name}");
                    return Err(refuse(CloseCode::NotAllowed, why));
                }
            }
        }
        if let Some(why) = self.other_cluster(hello.cluster) {
            return Err(refuse(CloseCode::AnotherCluster, why));
        }
        if let Role::Machine(machine) = hello.role
            && let Err((code, why)) =
                proof::prove(self, connection.remote_address(), machine, hello.run).await
        {
            self.tell_impostor(machine.name, &why);
            return Err(refuse(code, why));
        }
        say_hello(&mut send, self.hello()).await.map_err(lost)?;
        inbox.set_limit(self.config.max_frame());
        cut_off.keep();
        Ok((connection, hello, MainStream { send, recv, inbox }))
    }
}
