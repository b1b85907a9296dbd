//! A cluster in one thread: real nodes; virtual time, network, disks, clocks and clients; one seed.
//!
//! | module | one idea |
//! |---|---|
//! | `checker` | was the key one register? |
//! | `faults` | what may go wrong in a run, and how often: each seed draws its own |
//! | `disk` | what survives a crash |
//! | `client` | who calls, retries, and notes what it was told |
//! | `world` | all of these, one event at a time |
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod faults;
pub(crate) mod world;

pub(crate) use faults::Profile;
pub(crate) use world::run;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SEC: u64 = 1_000_000_000;
