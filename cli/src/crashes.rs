//! Crash reports that the ring keeps: of one machine, or of all that have any.

use ennead::Name;
use ennead::crash::{Report, rfc3339};
use serde_json::json;

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::why::report_to_text;
use crate::{Verdict, connect};

/// Prints them, newest first. "No" if there are none.
pub(crate) async fn run(
    machine: Option<Name>,
    global: &Global,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let of = match machine {
        Some(name) => vec![name],
        None => client.crashed().await?,
    };
    let mut all: Vec<Report> = Vec::new();
    for name in of {
        all.extend(client.crashes(name).await?);
    }
    all.sort_by_key(|report| std::cmp::Reverse(report.at_ms));
    let none = all.is_empty();
    match (output.json, machine) {
        (true, _) => output.print_json(&json!({ "crashes": all }))?,
        (false, _) if none => output.say("no crash reports"),
        (false, Some(_)) => {
            let texts: Vec<String> = all.iter().map(report_to_text).collect();
            output.data(texts.join("\n").as_bytes())?;
        }
        (false, None) => {
            let head = ["MACHINE", "AT", "KIND", "PART", "MESSAGE"].map(String::from).to_vec();
            let row = |r: &Report| {
                let kind = if r.kind == ennead::crash::Kind::End { "end" } else { "panic" };
                let message = r.message.lines().next().unwrap_or_default();
                vec![r.machine.clone(), rfc3339(r.at_ms), kind.into(), r.part.clone(), message.into()]
            };
            let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(row)).collect();
            output.data(table(&rows).as_bytes())?;
        }
    }
    Ok(if none { Verdict::No } else { Verdict::Yes })
}
