//! All machines on one screen: can any four fail now? Who is up, suspect or down, since when and why. The same for
//! `kvctl status` and for HTTP.

use std::time::Duration;

use ennead_ring::{Epoch, Member, MemberState, Shares, View, Zone, quorum_of};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Name;
use crate::client::Client;
use crate::clock::unix_ms;
use crate::crash::rfc3339;
use crate::moving::{self, Accounts, Move};
use crate::plan::tolerable;
use crate::status::{MachineStatus, PeerState, PeerStatus};
use crate::units::show_duration;
use crate::verdict::{Verdict, Word};
use crate::zones::{self, Stand, ZoneState};

/// Most machines of a summary that are asked about; in a larger ring only those that do not seem well.
const EXPLAINED: usize = 32;

/// How serious a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// All is well.
    Good,
    /// To be looked at.
    Warning,
    /// To be seen to now.
    Bad,
}

impl Mood {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// How a machine is, seen from here and by the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It answers us, and the others reach it.
    Up,
    /// Some reach it, some do not, or it answers us and not their probes.
    Suspect,
    /// It does not answer us, and nobody says otherwise.
    Down,
    /// On its way in.
    Joining,
    /// On its way out.
    Leaving,
}

impl Health {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
        }
    }

    /// How serious that is.
    pub fn mood(self) -> Mood {
        match self {
            Self::Up => Mood::Good,
            Self::Down => Mood::Bad,
            Self::Suspect | Self::Joining | Self::Leaving => Mood::Warning,
        }
    }
}

/// What is known of one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Who.
    pub name: Name,
    /// How it is.
    pub health: Health,
    /// True if it owns slots: what the first line counts.
    in_ring: bool,
    /// Its zone.
    pub zone: Zone,
    /// How long it has been so; `None` if nobody knows.
    pub since: Option<Duration>,
    /// Why it is not up, if it is not.
    pub reason: Option<String>,
    /// What is wrong with it now, in a word of `kvctl why`.
    pub verdict: Option<Word>,
    /// The crash report that belongs to what happened to it last, by its id. It may be over.
    pub crash_report: Option<String>,
    /// Version of its program, if it answered.
    pub version: Option<String>,
    /// Records it holds.
    pub records: Option<u64>,
    /// Its positions on the ring, and for how many of them it votes.
    pub slots: Option<(u32, u32)>,
    /// Its newest view.
    pub epoch: Option<Epoch>,
    /// How long it has run.
    pub uptime: Option<Duration>,
}

/// What there is to say.
pub struct Summary {
    /// A line for each member, in the view's order.
    pub lines: Vec<Line>,
    /// Slots of a key.
    pub slots: u8,
    /// True if all have what they own in the newest view, so that no earlier one is needed (T1).
    pub settled: bool,
    /// What machines were told and cannot be so.
    pub objections: Vec<String>,
    shares: Shares,
}

impl Summary {
    /// What the accounts say of the members of a view.
    pub fn of(view: &View, accounts: &Accounts) -> Self {
        let lines = view.members().iter().map(|member| {
            let name = member.machine.name;
            let account = accounts.iter().find(|(n, _)| *n == name).map(|(_, account)| account);
            line(member, account, accounts)
        });
        let settled = |(_, account): &(Name, Result<MachineStatus, String>)| {
            account.as_ref().is_ok_and(|account| account.settled >= view.epoch())
        };
        let settled = accounts.iter().any(settled);
        let told = accounts.iter().filter_map(|(name, account)| Some((name, account.as_ref().ok()?)));
        let objections =
            told.flat_map(|(name, account)| account.objections.iter().map(move |o| format!("{name}: {o}")));
        let objections = objections.collect();
        let shares = view.ring().shares().clone();
        Self { lines: lines.collect(), slots: view.slots(), settled, objections, shares }
    }

    /// Finds out why machines are not well, and returns all verdicts; one whose disk hangs is not well, whatever it
    /// answers.
    pub async fn explain(&mut self, client: &Client) -> Vec<Verdict> {
        let few = self.lines.len() <= EXPLAINED;
        let whom = self.lines.iter().filter(|line| few || line.health != Health::Up).map(|line| line.name);
        let whom: Vec<Name> = whom.take(EXPLAINED).collect();
        let mut asking = JoinSet::new();
        for name in whom {
            let client = client.clone();
            asking.spawn(async move { client.why(name).await });
        }
        let judged: Vec<Verdict> = asking.join_all().await.into_iter().flatten().collect();
        for verdict in &judged {
            for line in self.lines.iter_mut().filter(|line| line.name == verdict.machine) {
                line.crash_report = verdict.report.as_ref().map(|report| report.id.clone());
                let Some((word, reason)) = trouble(verdict) else { continue };
                (line.verdict, line.reason) = (Some(word), Some(reason.clone()));
                if line.health == Health::Up && word == Word::DiskStalled {
                    line.health = Health::Suspect;
                }
            }
        }
        judged
    }

    fn machines(&self) -> usize {
        self.lines.iter().filter(|l| l.in_ring).count()
    }

    /// Machines that own slots and cannot be counted on, by their index in the view.
    fn lost(&self) -> impl Iterator<Item = u32> {
        let lost = |l: &Line| l.in_ring && matches!(l.health, Health::Down | Health::Suspect);
        (0..).zip(&self.lines).filter(move |(_, l)| lost(l)).map(|(i, _)| i)
    }

    /// Machines that may fail from here on, whichever they are, with every key still served.
    /// `None` if some keys may be stopped already. Of those that stand in one zone, more may be lost than the table says.
    pub fn tolerates(&self) -> Option<usize> {
        self.shares.spare(self.lost())
    }

    /// True if some machine names its zone.
    pub fn has_zones(&self) -> bool {
        self.lines.iter().any(|line| !line.zone.is_none())
    }

    /// For each zone, whether all of it can fail now, besides what is down or does not vote for all it owns.
    pub fn zones(&self) -> Vec<ZoneState> {
        let stand = |line: &Line| {
            let unsynced = line.slots.is_some_and(|(slots, synced)| synced < slots);
            let lost = match line.health {
                Health::Down | Health::Suspect => Some(line.health.word()),
                _ => unsynced.then_some("not synced"),
            };
            line.in_ring.then_some(Stand { name: line.name, zone: line.zone, lost })
        };
        zones::zones(&self.shares, self.slots, &self.lines.iter().map(stand).collect::<Vec<_>>())
    }

    /// True if none is down or suspect.
    pub fn healthy(&self) -> bool {
        self.lines.iter().all(|l| matches!(l.health, Health::Up | Health::Joining | Health::Leaving))
    }

    /// The first line: what an operator wants to know before going to sleep.
    pub fn headline(&self) -> (Mood, String) {
        let (machines, lost) = (self.machines(), self.lost().count());
        let all = tolerable(machines, self.slots);
        let gone = match lost {
            0 => "all are up".to_string(),
            1 => "1 is not up".to_string(),
            n => format!("{n} are not up"),
        };
        match self.tolerates() {
            Some(0) if lost == 0 => {
                let needed = (2..=usize::from(self.slots)).find(|&m| tolerable(m, self.slots) > 0);
                let advice = needed.map(|n| format!("; {n} machines would bear one")).unwrap_or_default();
                (Mood::Warning, format!("no machine may fail: {gone} of {machines}{advice}"))
            }
            Some(0) => {
                (Mood::Bad, format!("no more machines may fail: {gone} of {machines}; every key still works"))
            }
            Some(n) if lost == 0 => {
                (Mood::Good, format!("any {n} of {machines} machines can fail now: {gone}"))
            }
            Some(n) => (Mood::Warning, format!("any {n} more of {machines} machines can fail now: {gone}")),
            None => (
                Mood::Bad,
                format!(
                    "keys are stopped: {gone} of {machines}, and no more than {all} may fail at once; nothing on disk is lost"
                ),
            ),
        }
    }

    /// Whom a change of the ring waits for.
    pub fn waits_for(&self, view: &View, moves: &[Move]) -> Vec<Name> {
        let answers = |name| self.lines.iter().any(|line| line.name == name && line.version.is_some());
        moving::waits_for(view, moves, answers)
    }

    /// As `kvctl status --json` prints it.
    pub fn to_json(&self, view: &View, moves: &[Move]) -> Value {
        json!({
            "cluster": view.cluster().to_string(),
            "epoch": view.epoch().number,
            "generation": view.epoch().generation,
            "settled": self.settled,
            "slots": self.slots,
            "quorum": quorum_of(self.slots),
            "tolerates": self.tolerates().unwrap_or(0),
            "healthy": self.healthy(),
            "summary": self.headline().1,
            "mood": self.headline().0.word(),
            "machines": self.lines.iter().map(machine_to_json).collect::<Vec<_>>(),
            "zones": zones::to_json(&self.zones()),
            "moves": moving::to_json(moves),
            "waits_for": self.waits_for(view, moves).iter().map(Name::to_string).collect::<Vec<_>>(),
            "objections": self.objections,
        })
    }
}

/// One machine as `kvctl status --json` prints it.
pub fn machine_to_json(line: &Line) -> Value {
    let since = line.since.map(|since| rfc3339(unix_ms().saturating_sub(since.as_millis() as u64)));
    json!({
        "name": line.name.to_string(),
        "state": line.health.word(),
        "zone": (!line.zone.is_none()).then(|| line.zone.as_str()),
        "since": since,
        "reason": line.reason,
        "verdict": line.verdict.map(Word::word),
        "crash_report": line.crash_report,
        "synced_slots": line.slots.map(|(_, synced)| synced),
        "slots": line.slots.map(|(slots, _)| slots),
        "version": line.version,
        "records": line.records,
    })
}

/// What is wrong with a machine now, in a word and a sentence; what it has got over is for `kvctl why` to tell.
fn trouble(verdict: &Verdict) -> Option<(Word, String)> {
    let word = verdict.word?;
    verdict.lasts().then(|| (word, format!("{}: {}", word.word(), verdict.sentence)))
}

/// What is known of one machine: its own word, and what the others that answer say of it.
fn line(member: &Member, account: Option<&Result<MachineStatus, String>>, accounts: &Accounts) -> Line {
    let (name, state) = (member.machine.name, member.state);
    // Who answers to that name without the member's disk is somebody else (V6).
    let stranger = account.and_then(|a| a.as_ref().ok()).filter(|own| own.machine != member.machine);
    let account = account.filter(|_| stranger.is_none());
    let others = accounts.iter().filter(|(n, _)| *n != name).filter_map(|(_, account)| account.as_ref().ok());
    let seen: Vec<_> = others.flat_map(|a| a.peers.iter().filter(|p| p.name == name)).collect();
    let answers = matches!(account, Some(Ok(_)));
    let missed: Vec<_> = seen.iter().filter(|p| !p.reachable || is_doubted(p, answers)).collect();
    // The first to miss it knows best since when; the last to hear from it may know why.
    let missed_for = missed.iter().map(|p| missed_for(p)).max();
    let told = missed.iter().filter(|p| !p.reachable && p.reason.is_some()).min_by_key(|p| p.since_ms);
    let told = told.and_then(|p| p.reason.clone());
    let silence = silence(&missed);
    let told = match (told, silence) {
        (Some(why), Some(silence)) => Some(format!("{why}; {silence}")),
        (why, silence) => why.or(silence),
    };
    let in_ring = !matches!(state, MemberState::Joining);
    let (health, since, reason) = match account {
        _ if stranger.is_some() => {
            let reason = "its disk was lost or replaced: a new incarnation answers, and joins in its place";
            (Health::Down, missed_for, Some(reason.to_owned()))
        }
        Some(Ok(own)) if missed.is_empty() => (Health::Up, Some(Duration::from_millis(own.uptime_ms)), None),
        Some(Ok(_)) => {
            let count = format!("{} of {} others do not reach it", missed.len(), seen.len());
            let reason = told.map_or_else(|| count.clone(), |why| format!("{count}: {why}"));
            (Health::Suspect, missed_for, Some(reason))
        }
        Some(Err(_)) | None => {
            let to_us = match account {
                Some(Err(why)) => why.clone(),
                _ => "it was not asked".to_string(),
            };
            (Health::Down, missed_for, Some(told.unwrap_or(to_us)))
        }
    };
    let health = match (health, state) {
        (Health::Up, MemberState::Joining) => Health::Joining,
        (Health::Up, MemberState::Leaving) => Health::Leaving,
        (health, _) => health,
    };
    let own = account.and_then(|a| a.as_ref().ok());
    Line {
        name,
        health,
        in_ring,
        zone: member.zone,
        since,
        reason,
        verdict: None,
        crash_report: None,
        version: own.map(|o| o.version.clone()),
        records: own.map(|o| o.records),
        slots: own.map(|o| (o.slots, o.synced_slots)),
        epoch: own.map(|o| o.epoch),
        uptime: own.map(|o| Duration::from_millis(o.uptime_ms)),
    }
}

/// True if this says that a machine is not there. Against its own answer to us, one machine that has missed a probe
/// or two says little: it will be refuted in a moment.
fn is_doubted(peer: &PeerStatus, answers: bool) -> bool {
    match peer.state {
        PeerState::Up => false,
        PeerState::Suspect => !answers || peer.by.len() > 1,
        PeerState::Down => true,
    }
}

/// For how long a machine has been missing to whoever says this.
fn missed_for(peer: &PeerStatus) -> Duration {
    let unreached = if peer.reachable { 0 } else { peer.since_ms };
    Duration::from_millis(unreached.max(peer.silent_ms))
}

/// Who gets no answer from a machine, and for how long; `None` if nobody says so.
fn silence(missed: &[&&PeerStatus]) -> Option<String> {
    let silent: Vec<_> = missed.iter().filter(|p| p.state != PeerState::Up).collect();
    let longest = silent.iter().map(|p| p.silent_ms).max()?;
    let mut by: Vec<Name> = silent.iter().flat_map(|p| p.by.iter().copied()).collect();
    by.sort();
    by.dedup();
    let word = if silent.iter().any(|p| p.state == PeerState::Down) { "given up" } else { "suspected" };
    let machines = if by.len() == 1 { "1 machine".to_string() } else { format!("{} machines", by.len()) };
    let time = show_duration(Duration::from_millis(longest));
    Some(format!("{word} by {machines}, no answer to probes for {time}"))
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
