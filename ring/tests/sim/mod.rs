//! A cluster in one thread: real nodes; virtual time, network, disks, clocks and clients; one seed.
//!
//! | module | one idea |
//! |---|---|
//! | `world` | all that is below, one event at a time |
//! | `events` | what can happen next, and in which order |
//! | `computer` | a node's process, and the disk that outlives it |
//! | `disk` | what survives a crash |
//! | `network` | what becomes of a message on its way |
//! | `faults` | what may go wrong in a run, and how often: each seed draws its own |
//! | `strike` | faults as they strike |
//! | `members` | machines that come, go, die and come back |
//! | `views` | the views there were, which are settled, who is lost |
//! | `claims` | what must be true at every moment |
//! | `chosen` | what five held, and that no five forget it |
//! | `client` | who calls, retries, and notes what it was told |
//! | `audit` | all is healed, and every key is tried |
//! | `checker` | was the key one register? |
//! | `report` | what a run tells |
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod audit;
pub(crate) mod checker;
pub(crate) mod chosen;
mod claims;
pub(crate) mod client;
mod computer;
pub(crate) mod disk;
mod events;
pub(crate) mod faults;
mod members;
mod network;
pub(crate) mod report;
mod strike;
pub(crate) mod views;
pub(crate) mod world;

pub(crate) use faults::Profile;
pub(crate) use world::run;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SEC: u64 = 1_000_000_000;
