//! One screen: can any four fail now? Who is up, suspect or down, since when and why.

use std::time::Instant;

use ennead::Name;
use ennead::moving::{Move, Rates};
use ennead::summary::{Health, Line, Mood, Summary, machine_to_json};
use ennead::units::show_duration;
use ennead::zones::ZoneState;
use ennead_ring::{View, quorum_of};
use serde_json::json;

use crate::args::{Global, Status};
use crate::failure::Failure;
use crate::output::{Colour, Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect, moves};

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
            return Ok(of_one(&summary, machine, output));
        }
        let moves = rates.look(&accounts, Instant::now());
        let verdict = if summary.healthy() { Verdict::Yes } else { Verdict::No };
        let text = to_text(&summary, &view, &moves, output);
        Ok(Look { text, json: summary.to_json(&view, &moves), verdict })
    })
    .await
}

/// The colour of a mood.
pub(crate) fn colour(mood: Mood) -> Colour {
    match mood {
        Mood::Good => Colour::Green,
        Mood::Warning => Colour::Yellow,
        Mood::Bad => Colour::Red,
    }
}

fn to_text(summary: &Summary, view: &View, moves: &[Move], output: &Output) -> String {
    let (mood, headline) = summary.headline();
    let zoned = summary.has_zones();
    let zone = zoned.then_some("ZONE");
    let head = ["MACHINE", "STATE"].into_iter().chain(zone).chain(["SINCE", "RECORDS", "REASON"]);
    let head = head.map(String::from).collect();
    let row = |l: &Line| {
        let first = [l.name.to_string(), output.paint(colour(l.health.mood()), l.health.word())];
        let rest = [
            l.since.map_or_else(|| "-".to_string(), show_duration),
            l.records.map_or_else(|| "-".to_string(), |n| n.to_string()),
            l.reason.clone().unwrap_or_default(),
        ];
        first.into_iter().chain(zoned.then(|| l.zone.to_string())).chain(rest).collect()
    };
    let rows: Vec<_> = std::iter::once(head).chain(summary.lines.iter().map(row)).collect();
    let facts = format!(
        "cluster {}, epoch {} ({}), {} slots a key, {} must agree",
        view.cluster(),
        view.epoch(),
        if summary.settled { "settled" } else { "not settled yet" },
        summary.slots,
        quorum_of(summary.slots)
    );
    let moves = moves::summary(moves, &summary.waits_for(view, moves))
        .map(|line| format!("\n{line}\n"))
        .unwrap_or_default();
    let objections = summary.objections.iter().map(|o| format!("{}\n", output.paint(Colour::Red, o)));
    let objections: String = objections.collect();
    format!(
        "{}\n{}\n{objections}\n{}{}{moves}",
        output.paint(colour(mood), &headline),
        output.paint(Colour::Dim, &facts),
        table(&rows),
        zones_to_text(&summary.zones(), output)
    )
}

/// Can a whole zone fail now? Nothing where there are none.
fn zones_to_text(zones: &[ZoneState], output: &Output) -> String {
    let row = |zone: &ZoneState| {
        let may = match &zone.reason {
            None => output.paint(Colour::Green, "can fail as a whole"),
            Some(why) => format!("{}: {why}", output.paint(Colour::Yellow, "cannot fail as a whole")),
        };
        let size = zone.machines.len();
        vec![zone.name.to_string(), format!("{size} machine{}", if size == 1 { "" } else { "s" }), may]
    };
    let head = ["ZONE", "HAS", "NOW"].map(String::from).to_vec();
    match zones {
        [] => String::new(),
        zones => {
            format!("\n{}", table(&std::iter::once(head).chain(zones.iter().map(row)).collect::<Vec<_>>()))
        }
    }
}

/// One machine: is it up, and does it vote for all it owns?
fn of_one(summary: &Summary, machine: Name, output: &Output) -> Look {
    let Some(line) = summary.lines.iter().find(|line| line.name == machine) else {
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
    let health = output.paint(colour(line.health.mood()), line.health.word());
    Look {
        text: format!("{machine} is {health}{since}{votes}{reason}\n"),
        json: machine_to_json(line),
        verdict: if line.health == Health::Up && all { Verdict::Yes } else { Verdict::No },
    }
}
