//! Crash reports that the ring keeps: of one machine, or of all that have any.

use ennead::crash::{Report, rfc3339};
use ennead::{Client, Name};
use serde_json::json;

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::watch::{Look, show};
use crate::why::report_to_text;
use crate::{Verdict, connect};

/// Prints them, newest first. "No" if there are none.
pub(crate) async fn run(
    machine: Option<Name>,
    watch: Watch,
    global: &Global,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let verdict = show(watch, output, async |_: &Output| look(&client, machine, watch).await).await?;
    if verdict == Verdict::No && !output.json {
        output.say(NONE);
    }
    Ok(verdict)
}

const NONE: &str = "no crash reports";

async fn look(client: &Client, machine: Option<Name>, watch: Watch) -> Result<Look, Failure> {
    let of = match machine {
        Some(name) => vec![name],
        None => client.crashed().await?,
    };
    let mut all: Vec<Report> = Vec::new();
    for name in of {
        all.extend(client.crashes(name).await?);
    }
    all.sort_by_key(|report| std::cmp::Reverse(report.at_ms));
    let text = match machine {
        // Said beside the data, which is none.
        _ if all.is_empty() => {
            if watch.watch {
                format!("{NONE}\n")
            } else {
                String::new()
            }
        }
        Some(_) => all.iter().map(report_to_text).collect::<Vec<_>>().join("\n"),
        None => {
            let head = ["MACHINE", "AT", "KIND", "PART", "MESSAGE"].map(String::from).to_vec();
            let row = |r: &Report| {
                let kind = if r.kind == ennead::crash::Kind::End { "end" } else { "panic" };
                let message = r.message.lines().next().unwrap_or_default();
                vec![r.machine.clone(), rfc3339(r.at_ms), kind.into(), r.part.clone(), message.into()]
            };
            let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(row)).collect();
            table(&rows)
        }
    };
    let verdict = if all.is_empty() { Verdict::No } else { Verdict::Yes };
    Ok(Look { text, json: json!({ "crashes": all }), verdict })
}
