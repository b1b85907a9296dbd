//! Lists the machines: their state and view, their share of the data, their program.

use ennead::plan;
use ennead::summary::{Health, Line, Summary};
use ennead::units::show_duration;
use ennead_ring::{Epoch, View};
use serde_json::{Value, json};

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Colour, Output, table};
use crate::status::colour;
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Lists them.
pub(crate) async fn run(args: Watch, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    show(args, output, async |output: &Output| {
        let view = client.view().await?;
        let mut summary = Summary::of(&view, &client.status().await?);
        summary.explain(&client).await;
        let text = to_text(&view, &summary, output);
        Ok(Look { text, json: to_json(&view, &summary), verdict: Verdict::Yes })
    })
    .await
}

/// How far a machine votes for what it owns: "yes", "no", or how much of it.
fn synced(line: &Line) -> String {
    match line.slots {
        None => "-".to_string(),
        Some((0, _)) => "owns nothing".to_string(),
        Some((slots, synced)) if synced >= slots => "yes".to_string(),
        Some((_, 0)) => "no".to_string(),
        Some((slots, synced)) => format!("{:.0} %", 100.0 * f64::from(synced) / f64::from(slots)),
    }
}

fn to_text(view: &View, summary: &Summary, output: &Output) -> String {
    let zoned = summary.has_zones();
    let last = ["EPOCH", "SYNCED", "SHARE", "RECORDS", "VERSION", "UP FOR"];
    let head = ["MACHINE", "STATE"].into_iter().chain(zoned.then_some("ZONE")).chain(last);
    let head = head.map(String::from).collect();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    let row = |(line, share): (&Line, f64)| {
        let first = [line.name.to_string(), output.paint(colour(line.health.mood()), line.health.word())];
        let rest = [
            or_dash(line.epoch.map(|epoch| behind(epoch, view.epoch()))),
            synced(line),
            format!("{:.1} %", share * 100.0),
            or_dash(line.records.map(|n| n.to_string())),
            or_dash(line.version.clone()),
            or_dash(line.uptime.map(show_duration)),
        ];
        first.into_iter().chain(zoned.then(|| line.zone.to_string())).chain(rest).collect()
    };
    let rows = summary.lines.iter().zip(plan::shares(view)).map(row);
    let mut text = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    let has = |health: Health| summary.lines.iter().any(|line| line.health == health);
    let notes = [
        (Health::Joining, "joining: copies data ahead, and owns nothing yet"),
        (Health::Leaving, "leaving: owns its share until the others have copied it"),
        (Health::Suspect, "suspect: some do not reach it; no data moves for that"),
        (Health::Down, "down: nobody reaches it; 'kvctl status' says why"),
    ];
    let notes: Vec<_> = notes.into_iter().filter(|(health, _)| has(*health)).map(|(_, note)| note).collect();
    let settled = if summary.settled { "settled" } else { "not settled yet: data moves, see 'kvctl moves'" };
    text.push_str(&format!(
        "\n{}\n",
        output.paint(Colour::Dim, &format!("epoch {} is {settled}", view.epoch()))
    ));
    notes.iter().for_each(|note| text.push_str(&format!("{}\n", output.paint(Colour::Dim, note))));
    text
}

/// A machine's epoch; marked if it is not the newest.
fn behind(epoch: Epoch, newest: Epoch) -> String {
    if epoch < newest { format!("{epoch} (behind)") } else { epoch.to_string() }
}

fn to_json(view: &View, summary: &Summary) -> Value {
    let machine = |((line, share), member): ((&Line, f64), &ennead_ring::Member)| {
        json!({
            "name": line.name.to_string(),
            "incarnation": member.machine.incarnation.to_string(),
            "state": line.health.word(),
            "reason": line.reason,
            "epoch": line.epoch.map(|epoch| epoch.number),
            "slots": line.slots.map(|(slots, _)| slots),
            "synced_slots": line.slots.map(|(_, synced)| synced),
            "virtual_peers": member.weight,
            "zone": (!member.zone.is_none()).then(|| member.zone.as_str()),
            "share": share,
            "records": line.records,
            "version": line.version,
            "uptime_s": line.uptime.map(|uptime| uptime.as_secs()),
        })
    };
    let machines = summary.lines.iter().zip(plan::shares(view)).zip(view.members());
    json!({
        "cluster": view.cluster().to_string(),
        "epoch": view.epoch().number,
        "generation": view.epoch().generation,
        "settled": summary.settled,
        "machines": machines.map(machine).collect::<Vec<_>>(),
    })
}
