//! One screen: can any four fail now? Who is up, suspect or down, since when and why.

use std::time::{Duration, Instant, SystemTime};

use ennead::Client;
use ennead::Name;
use ennead::plan::tolerable;
use ennead::status::{MachineStatus, PeerState, PeerStatus};
use ennead::units::show_duration;
use ennead::verdict::Word;
use ennead_ring::{Epoch, MemberState, View, quorum_of};
use serde_json::{Value, json};

use crate::args::{Global, Status};
use crate::data::rfc3339;
use crate::failure::Failure;
use crate::moves::{self, Accounts, Move, Rates};
use crate::output::{Colour, Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect, why};

/// Prints it; "no" if not every machine is up, or the one that was asked for.
pub(crate) async fn run(args: Status, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let mut rates = Rates::default();
    show(args.watch, output, async |output: &Output| {
        let view = client.view().await?;
        let accounts = client.status().await?;
        let mut summary = Summary::of(&view, &accounts);
        summary.explain(&client).await;
        if let Some(machine) = args.machine {
            return Ok(summary.of_one(machine, output));
        }
        let moves = rates.look(&accounts, Instant::now());
        let verdict = if summary.healthy() { Verdict::Yes } else { Verdict::No };
        let text = summary.to_text(&view, &moves, output);
        Ok(Look { text, json: summary.to_json(&view, &moves), verdict })
    })
    .await
}

/// How a machine is, seen from here and by the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
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
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
        }
    }

    pub(crate) fn colour(self) -> Colour {
        match self {
            Self::Up => Colour::Green,
            Self::Down => Colour::Red,
            Self::Suspect | Self::Joining | Self::Leaving => Colour::Yellow,
        }
    }
}

/// What is known of one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) name: Name,
    pub(crate) health: Health,
    /// True if it owns slots: what the first line counts.
    in_ring: bool,
    /// How long it has been so; `None` if nobody knows.
    since: Option<Duration>,
    pub(crate) reason: Option<String>,
    /// What is wrong with it now, in a word of `kvctl why`.
    verdict: Option<Word>,
    /// Version of its program, if it answered.
    pub(crate) version: Option<String>,
    pub(crate) records: Option<u64>,
    /// Its positions on the ring, and for how many of them it votes.
    pub(crate) slots: Option<(u32, u32)>,
    /// Its newest view.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) uptime: Option<Duration>,
}

/// What there is to say.
pub(crate) struct Summary {
    pub(crate) lines: Vec<Line>,
    slots: u8,
    /// True if all have what they own in the newest view, so that no earlier one is needed (T1).
    pub(crate) settled: bool,
    /// What machines were told and cannot be so.
    objections: Vec<String>,
}

impl Summary {
    pub(crate) fn of(view: &View, accounts: &Accounts) -> Self {
        let lines = view.members().iter().map(|member| {
            let name = member.machine.name;
            let account = accounts.iter().find(|(n, _)| *n == name).map(|(_, account)| account);
            line(name, member.state, account, accounts)
        });
        let settled = |(_, account): &(Name, Result<MachineStatus, String>)| {
            account.as_ref().is_ok_and(|account| account.settled >= view.epoch())
        };
        let settled = accounts.iter().any(settled);
        let told = accounts.iter().filter_map(|(name, account)| Some((name, account.as_ref().ok()?)));
        let objections =
            told.flat_map(|(name, account)| account.objections.iter().map(move |o| format!("{name}: {o}")));
        let objections = objections.collect();
        Self { lines: lines.collect(), slots: view.slots(), settled, objections }
    }

    /// Finds out why machines are not well; one whose disk hangs is not, whatever it answers.
    pub(crate) async fn explain(&mut self, client: &Client) {
        // In a large cluster, those that are up come last, and not all are asked about.
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.health == Health::Up);
        let names: Vec<Name> = lines.into_iter().map(|line| line.name).collect();
        for (name, word, reason) in why::explain(client, &names).await {
            for line in self.lines.iter_mut().filter(|line| line.name == name) {
                (line.verdict, line.reason) = (Some(word), Some(reason.clone()));
                if line.health == Health::Up && word == Word::DiskStalled {
                    line.health = Health::Suspect;
                }
            }
        }
    }

    /// One machine: is it up, and does it vote for all it owns?
    fn of_one(&self, machine: Name, output: &Output) -> Look {
        let Some(line) = self.lines.iter().find(|line| line.name == machine) else {
            return Look {
                text: format!("{machine} is no member of this cluster\n"),
                json: json!({"name": machine.to_string(), "state": "stranger"}),
                verdict: Verdict::No,
            };
        };
        let all = line.slots.is_some_and(|(slots, synced)| slots == synced);
        let votes = match line.slots {
            Some(_) if all => ", votes for all it owns".to_string(),
            Some((slots, synced)) => format!(", votes for {synced} of its {slots} positions"),
            None => String::new(),
        };
        let since = line.since.map(|since| format!(" for {}", show_duration(since))).unwrap_or_default();
        let reason = line.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let health = output.paint(line.health.colour(), line.health.word());
        Look {
            text: format!("{machine} is {health}{since}{votes}{reason}\n"),
            json: machine_to_json(line),
            verdict: if line.health == Health::Up && all { Verdict::Yes } else { Verdict::No },
        }
    }

    fn machines(&self) -> usize {
        self.lines.iter().filter(|l| l.in_ring).count()
    }

    /// Machines that own slots and cannot be counted on.
    fn lost(&self) -> usize {
        let lost = |l: &&Line| l.in_ring && matches!(l.health, Health::Down | Health::Suspect);
        self.lines.iter().filter(lost).count()
    }

    /// Machines that may fail from here on, whichever they are, with every key still served.
    /// `None` if some keys may be stopped already.
    fn tolerates(&self) -> Option<usize> {
        tolerable(self.machines(), self.slots).checked_sub(self.lost())
    }

    fn healthy(&self) -> bool {
        self.lines.iter().all(|l| matches!(l.health, Health::Up | Health::Joining | Health::Leaving))
    }

    /// The first line: what an operator wants to know before going to sleep.
    fn headline(&self) -> (Colour, String) {
        let (machines, lost) = (self.machines(), self.lost());
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
                (Colour::Yellow, format!("no machine may fail: {gone} of {machines}{advice}"))
            }
            Some(0) => (
                Colour::Red,
                format!("no more machines may fail: {gone} of {machines}; every key still works"),
            ),
            Some(n) if n == all => {
                (Colour::Green, format!("any {n} of {machines} machines can fail now: {gone}"))
            }
            Some(n) => (Colour::Yellow, format!("any {n} more of {machines} machines can fail now: {gone}")),
            None => (
                Colour::Red,
                format!(
                    "keys are stopped: {gone} of {machines}, and no more than {all} may fail at once; nothing on disk is lost"
                ),
            ),
        }
    }

    fn to_text(&self, view: &View, moves: &[Move], output: &Output) -> String {
        let (colour, headline) = self.headline();
        let head = ["MACHINE", "STATE", "SINCE", "RECORDS", "REASON"].map(String::from).to_vec();
        let row = |l: &Line| {
            vec![
                l.name.to_string(),
                output.paint(l.health.colour(), l.health.word()),
                l.since.map_or_else(|| "-".to_string(), show_duration),
                l.records.map_or_else(|| "-".to_string(), |n| n.to_string()),
                l.reason.clone().unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.lines.iter().map(row)).collect();
        let facts = format!(
            "cluster {}, epoch {} ({}), {} slots a key, {} must agree",
            view.cluster(),
            view.epoch(),
            if self.settled { "settled" } else { "not settled yet" },
            self.slots,
            quorum_of(self.slots)
        );
        let moves = moves::summary(moves).map(|line| format!("\n{line}\n")).unwrap_or_default();
        let objections: String =
            self.objections.iter().map(|o| format!("{}\n", output.paint(Colour::Red, o))).collect();
        format!(
            "{}\n{}\n{objections}\n{}{moves}",
            output.paint(colour, &headline),
            output.paint(Colour::Dim, &facts),
            table(&rows)
        )
    }

    fn to_json(&self, view: &View, moves: &[Move]) -> Value {
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
            "machines": self.lines.iter().map(machine_to_json).collect::<Vec<_>>(),
            "moves": moves::to_json(moves),
            "objections": self.objections,
        })
    }
}

fn machine_to_json(line: &Line) -> Value {
    let now = SystemTime::now();
    json!({
        "name": line.name.to_string(),
        "state": line.health.word(),
        "since": line.since.and_then(|s| now.checked_sub(s)).map(rfc3339),
        "reason": line.reason,
        "verdict": line.verdict.map(Word::word),
        "synced_slots": line.slots.map(|(_, synced)| synced),
        "slots": line.slots.map(|(slots, _)| slots),
        "version": line.version,
        "records": line.records,
    })
}

/// What is known of one machine: its own word, and what the others that answer say of it.
fn line(
    name: Name,
    state: MemberState,
    account: Option<&Result<MachineStatus, String>>,
    accounts: &Accounts,
) -> Line {
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
        since,
        reason,
        verdict: None,
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
#[path = "status_tests.rs"]
mod tests;
