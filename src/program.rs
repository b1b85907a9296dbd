//! Which program this is: its own version, for people, and the version of the wire that it speaks, for its peers.

use crate::{faults, wire};

/// Version of the program.
pub(crate) fn version() -> &'static str {
    faults::program().unwrap_or(env!("CARGO_PKG_VERSION"))
}

/// The version of the wire, as the handshake of a connection names it.
pub(crate) fn speaks() -> Vec<u8> {
    faults::wire().map_or_else(|| wire::ALPN.to_vec(), |version| version.as_bytes().to_vec())
}
