//! ennead: a replicated key-value store without a leader. Nine slots hold each key; five must agree.

mod admission;
pub mod arcs;
pub mod backup;
pub mod certs;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod crash;
#[doc(hidden)]
pub mod decoders;
mod diary;
mod errands;
mod evidence;
mod farewell;
#[doc(hidden)]
pub mod faults;
mod health;
pub mod http;
mod knock;
pub mod moving;
pub mod node;
mod place;
pub mod plan;
mod program;
mod progress;
mod recovery;
mod run_file;
mod runtime;
mod snapshot;
pub mod status;
pub mod storage;
pub mod summary;
mod supervisor;
pub mod transport;
pub mod units;
pub mod verdict;
pub mod wire;
pub mod zones;

pub use client::Client;
pub use ennead_ring::Name;
pub use node::{Node, NodeConfig, StartError, StopReason};

/// The examples of the book, so that they are compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/src/programs.md")]
mod book {}
