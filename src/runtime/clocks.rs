//! What the others' clocks say: one ping a beat, to each machine that is connected in its turn, so that a clock that is
//! far off is found where nobody asks for it.

use std::time::{Duration, Instant};

use ennead_ring::message::Addr;
use ennead_ring::view::Name;

use super::Core;
use crate::clock::unix_ms;
use crate::transport::To;
use crate::wire::Frame;

/// An answer that took longer says too little: half of that is how wrong it may be.
const MOST: Duration = Duration::from_secs(2);

/// Whom we asked last.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    last: Option<Name>,
    number: u64,
    asked: Option<(Instant, u64)>,
}

impl Core<'_> {
    /// Asks the next machine.
    pub(super) fn ask_a_clock(&mut self) {
        let next = {
            let peers = self.parts.peers.borrow();
            let after = peers.reached().find(|name| self.clocks.last.is_none_or(|last| *name > last));
            after.or_else(|| peers.reached().next())
        };
        let Some(name) = next else { return };
        self.clocks.last = Some(name);
        self.clocks.number += 1;
        self.clocks.asked = Some((Instant::now(), unix_ms()));
        self.parts.transport.send(To::Machine(name), Frame::Ping(self.clocks.number));
    }

    /// What one says.
    pub(super) fn on_clock(&mut self, from: Addr, number: u64, theirs: u64) {
        let Addr::Machine(machine) = from else { return };
        if number != self.clocks.number || self.clocks.last != Some(machine.name) {
            return;
        }
        let Some((at, ours)) = self.clocks.asked.take().filter(|(at, _)| at.elapsed() <= MOST) else {
            return;
        };
        // Taken to be half way between asking and hearing.
        let ours = ours.saturating_add(at.elapsed().as_millis() as u64 / 2);
        let ahead =
            i64::try_from(theirs).unwrap_or(i64::MAX).saturating_sub(i64::try_from(ours).unwrap_or(i64::MAX));
        if self.parts.why.evidence.clock(machine.name, ahead) {
            tracing::error!(
                peer = %machine.name,
                ahead_ms = ahead,
                "its clock and this machine's are far apart: 'kvctl why' of either says whose is off"
            );
        }
    }
}
