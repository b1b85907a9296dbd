//! What a run is asked to be: a cluster, its load, its days. From flags, or from a file of TOML.

use ennead_ring::node::Tuning;
use rand::rngs::StdRng;
use serde::Deserialize;

use crate::faults::Profile;
use crate::menu::{Kind, swarm};
use crate::schedule::{self, Act, Timed};
use crate::{MS, SEC, US};

/// A cluster, its load and what befalls it. What a file leaves out is as [`Scenario::default`] has it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Machines.
    pub peers: usize,
    /// Virtual time.
    pub hours: f64,
    /// By which a run is met again.
    pub seed: u64,
    /// Keys that clients use.
    pub keys: usize,
    /// Machines that join, leave, die for good or lose their disks, an hour, all in all.
    pub churn: f64,
    /// What fails.
    pub faults: Faults,
    /// Positions of each machine on the ring.
    pub virtual_peers: u32,
    /// Slots of each key.
    pub slots: u8,
    /// What clients do.
    pub workload: Workload,
    /// What is between machines.
    pub network: Network,
    /// What each machine writes to.
    pub disk: Disk,
    /// What its clock shows.
    pub clock: Clock,
    /// What happens at set times, besides the faults that strike by chance.
    #[serde(deserialize_with = "with_offsets")]
    pub at: Vec<Timed>,
}

/// Which faults.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Faults {
    /// These.
    These(Vec<Kind>),
    /// A set of them: see [`Set`].
    Set(Set),
}

/// Faults that go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// Nothing fails.
    None,
    /// What there is in a data centre on an ordinary day.
    Usual,
    /// Everything there is.
    All,
    /// What the seed draws.
    Swarm,
}

/// What clients do.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Operations a second.
    pub rate: f64,
    /// Of a hundred: reads.
    pub reads: u32,
    /// Of a hundred: deletes.
    pub deletes: u32,
    /// Of a hundred writes: those that compare first.
    pub compares: u32,
    /// Of a hundred puts: those with an expiry, up to five minutes.
    pub expiring: u32,
    /// How much more often the first keys are used than the last (Zipf's exponent); 0: all alike.
    pub zipf: f64,
    /// The first so many keys get `hot_share` of all operations, each as many. 0: no such keys.
    pub hot_keys: usize,
    /// Of a hundred operations: those on hot keys.
    pub hot_share: f64,
    /// Bytes of each value.
    pub value_size: usize,
}

/// What is between machines.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Longest that a message usually takes, in milliseconds.
    pub delay_ms: f64,
    /// Machines are spread over so many zones, and keys over these.
    pub zones: usize,
    /// What the way from one zone to another adds, in milliseconds.
    pub zone_delay_ms: f64,
    /// The same for each pair: a row for each zone, and in it what the way to each zone adds, its own included. Empty:
    /// `zone_delay_ms` for any two.
    pub distances: Vec<Vec<f64>>,
    /// Bytes a second that one machine can send; 0: any number.
    pub bandwidth: u64,
}

/// What each machine writes to.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// Longest that an fsync usually takes, in milliseconds.
    pub sync_ms: f64,
    /// Longest that reading a record takes, in milliseconds.
    pub load_ms: f64,
}

/// What a machine's clock shows. What is not said is as the faults have it.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// How far wall clocks are off at most, either way, in seconds.
    pub skew_s: Option<f64>,
    /// How often a day each of them jumps, to anything within that.
    pub jumps_a_day: Option<f64>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            peers: 9,
            hours: 1.0,
            seed: 1,
            keys: 1_000,
            churn: 0.0,
            faults: Faults::Set(Set::Usual),
            virtual_peers: 64,
            slots: 9,
            workload: Workload::default(),
            network: Network::default(),
            disk: Disk::default(),
            clock: Clock::default(),
            at: Vec::new(),
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            rate: 100.0,
            reads: 50,
            deletes: 5,
            compares: 10,
            expiring: 0,
            zipf: 0.0,
            hot_keys: 0,
            hot_share: 0.0,
            value_size: 256,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { delay_ms: 1.0, zones: 1, zone_delay_ms: 0.0, distances: Vec::new(), bandwidth: 0 }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { sync_ms: 1.0, load_ms: 0.2 }
    }
}

impl Scenario {
    /// A scenario in TOML.
    ///
    /// # Errors
    /// The line and the field that say something else, or a value that cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Err((n, what)) = scenario.check_schedule() {
            let offset = scenario.at[n].offset.unwrap_or(0);
            let line = 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
            return Err(format!("line {line}: {what}"));
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// True of what can be.
    ///
    /// # Errors
    /// What cannot, and what could.
    pub fn check(&self) -> Result<(), String> {
        let Workload { reads, deletes, compares, expiring, zipf, hot_keys, hot_share, value_size, rate } =
            self.workload;
        let Network { delay_ms, zones, zone_delay_ms, ref distances, .. } = self.network;
        let Clock { skew_s, jumps_a_day } = self.clock;
        let Disk { sync_ms, load_ms } = self.disk;
        let within = |what: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{what} is {value}: it is from {low} to {high}"))
            }
        };
        within("peers", self.peers as f64, 1.0, 10_000.0)?;
        within("hours", self.hours, 0.001, 8_760.0)?;
        within("keys", self.keys as f64, 1.0, 1_000_000.0)?;
        within("churn", self.churn, 0.0, 100_000.0)?;
        within("virtual_peers", f64::from(self.virtual_peers), 1.0, 1_024.0)?;
        if self.slots.is_multiple_of(2) || self.slots > 9 {
            return Err(format!("slots is {}: it is 1, 3, 5, 7 or 9", self.slots));
        }
        within("workload.rate", rate, 0.1, 100_000.0)?;
        within(
            "workload.reads and workload.deletes together",
            f64::from(reads) + f64::from(deletes),
            0.0,
            100.0,
        )?;
        within("workload.compares", f64::from(compares), 0.0, 100.0)?;
        within("workload.expiring", f64::from(expiring), 0.0, 100.0)?;
        within("workload.zipf", zipf, 0.0, 5.0)?;
        within("workload.hot_keys", hot_keys as f64, 0.0, self.keys as f64)?;
        within("workload.hot_share", hot_share, 0.0, 100.0)?;
        if (hot_keys > 0) != (hot_share > 0.0) {
            return Err(format!(
                "workload.hot_keys is {hot_keys} and workload.hot_share {hot_share}: so many keys get so many of a \
                 hundred operations, and neither is 0 without the other"
            ));
        }
        within("workload.value_size", value_size as f64, 8.0, 65_536.0)?;
        within("network.delay_ms", delay_ms, 0.001, 1_000.0)?;
        within("network.zones", zones as f64, 1.0, 1_000.0)?;
        within("network.zone_delay_ms", zone_delay_ms, 0.0, 1_000.0)?;
        if !distances.is_empty() {
            if distances.len() != zones || distances.iter().any(|row| row.len() != zones) {
                return Err(format!(
                    "network.distances has rows of {:?}: it has a row for each zone, and in it a number for each \
                     zone, and network.zones is {zones}",
                    distances.iter().map(Vec::len).collect::<Vec<_>>()
                ));
            }
            if zone_delay_ms > 0.0 {
                return Err(
                    "network.distances says it all: network.zone_delay_ms is for two zones of which it \
                            says nothing"
                        .to_string(),
                );
            }
            for ms in distances.iter().flatten() {
                within("each of network.distances", *ms, 0.0, 1_000.0)?;
            }
        }
        within("clock.skew_s", skew_s.unwrap_or(0.0), 0.0, 31_536_000.0)?;
        within("clock.jumps_a_day", jumps_a_day.unwrap_or(0.0), 0.0, 86_400.0)?;
        if jumps_a_day.is_some_and(|jumps| jumps > 0.0) && skew_s.is_none_or(|skew| skew == 0.0) {
            return Err("clock.jumps_a_day needs clock.skew_s: how far clocks jump, in seconds".to_string());
        }
        self.check_schedule().map_err(|(_, what)| what)?;
        within("disk.sync_ms", sync_ms, 0.01, 1_000.0)?;
        within("disk.load_ms", load_ms, 0.001, 1_000.0)
    }

    /// What is wrong with the schedule, and of which place there.
    fn check_schedule(&self) -> Result<(), (usize, String)> {
        schedule::check(&self.at, self.peers, self.hours * 3_600.0)
    }

    /// True if the schedule has a machine stand still, cut off, or with a disk that is of no use, for as long as the others
    /// wait at most: V7 has them drop it, though it lives. What strikes by chance is shorter.
    pub fn keeps_somebody_silent(&self) -> bool {
        let patience = Tuning::default().patience;
        let silent = |act| matches!(act, Act::Pause | Act::Cut | Act::Split | Act::SlowDisk | Act::FullDisk);
        self.at.iter().any(|timed| silent(timed.act) && timed.lasts() >= patience)
    }

    /// The world that is like this.
    pub fn profile(&self, rng: &mut StdRng) -> Profile {
        let mut p = Profile::calm();
        let ms = |ms: f64| (ms * MS as f64) as u64;
        // Some machines are out at first: those that come when others go.
        let spare = if self.churn > 0.0 { self.peers.div_ceil(10) } else { 0 };
        (p.founders, p.machines) = (self.peers, schedule::machines(&self.at, self.peers + spare));
        p.fewest = self.peers - self.peers / 10;
        (p.slots, p.weight, p.keys) = (self.slots, self.virtual_peers, self.keys);
        p.span = (self.hours * 3_600.0 * SEC as f64) as u64;
        (p.born, p.endless, p.check, p.hints, p.together) = (true, true, false, 0.0, 0.0);
        p.tuning.probe_every = ennead_ring::node::PROBE_EVERY;
        p.tuning.cells = p.tuning.cells.max(4 * p.keys);
        if self.churn > 0.0 {
            p.churn_every = (3_600.0 * SEC as f64 / self.churn) as u64;
        }

        // Each client waits for a second on average between two calls.
        let load = &self.workload;
        p.clients = (load.rate.ceil() as usize).max(1);
        p.think = (2.0 * SEC as f64 * p.clients as f64 / load.rate) as u64;
        p.direct_reads = load.reads * 4 / 5;
        p.reads = load.reads - p.direct_reads;
        (p.deletes, p.compares, p.ttl) = (load.deletes, load.compares, f64::from(load.expiring) / 100.0);
        (p.hot_keys, p.hot_share) = (load.hot_keys, load.hot_share / 100.0);
        (p.zipf, p.value_size, p.longest_ttl, p.stray) = (load.zipf, load.value_size, 300_000, 0.0);
        (p.patience, p.deadline) = (SEC / 2, 10 * SEC);

        let Network { delay_ms, zones, zone_delay_ms, ref distances, bandwidth } = self.network;
        p.distances = distances.iter().map(|row| row.iter().copied().map(ms).collect()).collect();
        (p.delay, p.zones, p.zone_delay, p.bandwidth) = (ms(delay_ms), zones, ms(zone_delay_ms), bandwidth);
        (p.sync, p.load, p.survive) =
            (ms(self.disk.sync_ms).max(20 * US), ms(self.disk.load_ms).max(2 * US), 0.0);
        let faults = match &self.faults {
            Faults::These(these) => these.clone(),
            Faults::Set(Set::None) => Vec::new(),
            Faults::Set(Set::Usual) => Kind::USUAL.to_vec(),
            Faults::Set(Set::All) => Kind::ALL.to_vec(),
            Faults::Set(Set::Swarm) => swarm(rng),
        };
        for kind in faults {
            kind.apply(&mut p);
        }
        let nanos = |s: f64| (s * SEC as f64) as u64;
        p.skew = self.clock.skew_s.map_or(p.skew, nanos);
        if let Some(jumps) = self.clock.jumps_a_day {
            let all = jumps * p.machines as f64;
            p.jump_every = if all > 0.0 { nanos(86_400.0 / all).max(1) } else { 0 };
        }
        p.schedule.clone_from(&self.at);
        p
    }
}

/// A list in a file, and where each of it begins.
fn with_offsets<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Timed>, D::Error> {
    let all = Vec::<toml::Spanned<Timed>>::deserialize(deserializer)?;
    let placed = all.into_iter().map(|timed| {
        let offset = Some(timed.span().start);
        Timed { offset, ..timed.into_inner() }
    });
    Ok(placed.collect())
}

impl std::str::FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "none" => Self::Set(Set::None),
            "usual" => Self::Set(Set::Usual),
            "all" => Self::Set(Set::All),
            "swarm" => Self::Set(Set::Swarm),
            list => Self::These(list.split(',').map(str::parse).collect::<Result<_, _>>()?),
        })
    }
}
