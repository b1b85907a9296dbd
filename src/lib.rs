//! ennead: a replicated key-value store without a leader. Nine slots hold each key; five must agree.

pub mod client;
pub mod status;
pub mod storage;

pub use client::Client;
pub use ennead_ring::Name;
