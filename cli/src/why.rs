//! Why a machine failed: the verdict in a sentence, what it rests on, and the crash report. Or, in a line each, what
//! happened last to every machine of the cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ennead::crash::{Report, rfc3339};
use ennead::units::show_duration;
use ennead::verdict::Verdict as Judgement;
use ennead::{Client, Name};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::{Global, Watch};
use crate::failure::Failure;
use crate::output::{Colour, Output, table};
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Lines of a backtrace and of the log that a person is shown; all of them are in the JSON.
const SHOWN: usize = 20;
/// Names in a line; more are counted.
const NAMED: usize = 4;
/// Machines that are asked about at once: each question goes to all.
const AT_ONCE: usize = 16;

/// Prints the verdict on one machine, or on all.
pub(crate) async fn run(
    machine: Option<Name>,
    watch: Watch,
    global: &Global,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    show(watch, output, async |output: &Output| match machine {
        Some(machine) => of_one(&client, machine, output).await,
        None => of_all(&client, output).await,
    })
    .await
}

/// "No" if nothing is known of such a machine.
async fn of_one(client: &Client, machine: Name, output: &Output) -> Result<Look, Failure> {
    let judgement = client.why(machine).await?;
    let known = judgement.up || judgement.word.is_some();
    Ok(Look {
        text: to_text(&judgement, now_ms(), output),
        json: judgement.to_json(),
        verdict: if known { Verdict::Yes } else { Verdict::No },
    })
}

/// "No" if something is wrong with any of them now.
async fn of_all(client: &Client, output: &Output) -> Result<Look, Failure> {
    let view = client.view().await?;
    let names: Vec<Name> = view.members().iter().map(|member| member.machine.name).collect();
    let mut all = judge(client, &names).await;
    // What lasts first, then the newest.
    all.sort_by_key(|j| (!is_ill(j), std::cmp::Reverse(j.until_ms.or(j.at_ms)), j.machine));
    let machines: Vec<_> = all.iter().map(Judgement::to_json).collect();
    Ok(Look {
        text: all_to_text(&all, now_ms(), output),
        json: json!({ "machines": machines }),
        verdict: if all.iter().any(is_ill) { Verdict::No } else { Verdict::Yes },
    })
}

/// True if something is wrong with it now, or it does not answer and nobody knows why.
fn is_ill(judgement: &Judgement) -> bool {
    judgement.lasts() || !judgement.up
}

async fn judge(client: &Client, names: &[Name]) -> Vec<Judgement> {
    let mut all = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let mut asking = JoinSet::new();
        for name in some.iter().copied() {
            let client = client.clone();
            asking.spawn(async move { client.why(name).await });
        }
        all.extend(asking.join_all().await.into_iter().flatten());
    }
    all
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn time(ms: u64) -> String {
    show_duration(Duration::from_millis(ms))
}

fn word_of(judgement: &Judgement, output: &Output) -> String {
    let (colour, word) = match (judgement.word, judgement.up) {
        (None, true) => (Colour::Green, "up"),
        (None, false) => (Colour::Red, "nothing known"),
        (Some(word), true) => (Colour::Yellow, word.word()),
        (Some(word), false) => (Colour::Red, word.word()),
    };
    output.paint(colour, word)
}

/// `since TIME (for 3 s)`, or `from TIME to TIME (3 s; over for 2 min)`; nothing if nobody knows.
fn when(judgement: &Judgement, now: u64) -> Option<String> {
    let at = judgement.at_ms?;
    Some(match judgement.until_ms {
        None => format!("since {} (for {})", rfc3339(at), time(now.saturating_sub(at))),
        Some(until) if until == at => format!("at {} ({} ago)", rfc3339(at), time(now.saturating_sub(at))),
        Some(until) => {
            let (lasted, over) = (time(until.saturating_sub(at)), time(now.saturating_sub(until)));
            format!("from {} to {} ({lasted}; over for {over})", rfc3339(at), rfc3339(until))
        }
    })
}

fn named(names: &[Name]) -> String {
    let first: Vec<String> = names.iter().take(NAMED).map(ToString::to_string).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn to_text(judgement: &Judgement, now: u64, output: &Output) -> String {
    let mut text = format!("{}: {}\n", word_of(judgement, output), judgement.sentence);
    let mut facts: Vec<String> = when(judgement, now).into_iter().collect();
    if !judgement.detected_by.is_empty() {
        facts.push(format!("noticed by {}", named(&judgement.detected_by)));
    }
    if !facts.is_empty() {
        text.push_str(&format!("{}\n", output.paint(Colour::Dim, &facts.join("; "))));
    }
    if !judgement.evidence.is_empty() {
        text.push_str("\nwhat it rests on\n");
        for line in alike(&judgement.evidence) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if !judgement.earlier.is_empty() {
        text.push_str("\nbefore that\n");
        let row = |h: &ennead::verdict::Happened| {
            vec![format!("  {}", rfc3339(h.from_ms)), h.word.word().to_string(), h.what.clone()]
        };
        text.push_str(&table(&judgement.earlier.iter().map(row).collect::<Vec<_>>()));
    }
    if let Some(report) = &judgement.report {
        text.push('\n');
        text.push_str(&report_to_text(report));
    }
    text
}

/// Lines of several machines that differ in their times alone, as one: the first, and who says the same.
fn alike(lines: &[String]) -> Vec<String> {
    let mut groups: Vec<(Option<String>, Vec<&str>, &str)> = Vec::new();
    for line in lines {
        let (by, told) = line.split_once(": ").unwrap_or(("", line));
        let same = by.parse::<Name>().is_ok().then(|| without_times(told));
        match groups.iter_mut().find(|(other, ..)| same.is_some() && *other == same) {
            Some((_, machines, _)) => machines.push(by),
            None => groups.push((same, vec![by], line)),
        }
    }
    let told = groups.into_iter().map(|(_, machines, line)| match &machines[1..] {
        [] => line.to_owned(),
        [one] => format!("{line}; {one} likewise"),
        more => format!("{line}; {} others likewise", more.len()),
    });
    told.collect()
}

/// `met a new run of it 1.2 s ago` without the time, which every machine measures for itself.
fn without_times(told: &str) -> String {
    const UNITS: [&str; 6] = ["ms", "s", "min", "h", "d", "days"];
    let word = |word: &&str| {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        bare.parse::<f64>().is_err() && !UNITS.contains(&bare)
    };
    told.split(' ').filter(word).collect::<Vec<_>>().join(" ")
}

fn all_to_text(all: &[Judgement], now: u64, output: &Output) -> String {
    let (machines, ill) = (all.len(), all.iter().filter(|j| is_ill(j)).count());
    let (colour, headline) = match (machines, ill) {
        (1, 0) => (Colour::Green, "the one machine is well".to_string()),
        (_, 0) => (Colour::Green, format!("all {machines} machines are well")),
        (_, 1) => (Colour::Yellow, format!("1 of {machines} machines is not well")),
        _ => (Colour::Yellow, format!("{ill} of {machines} machines are not well")),
    };
    let head = ["MACHINE", "VERDICT", "WHEN", "WHAT HAPPENED LAST"].map(String::from).to_vec();
    let row = |j: &Judgement| {
        let when = match (j.at_ms, j.until_ms) {
            (_, Some(until)) => format!("{} ago", time(now.saturating_sub(until))),
            (Some(at), None) => format!("for {}", time(now.saturating_sub(at))),
            (None, None) => "-".to_string(),
        };
        vec![j.machine.to_string(), word_of(j, output), when, j.sentence.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(row)).collect();
    format!("{}\n\n{}", output.paint(colour, &headline), table(&rows))
}

/// A crash report for a person.
pub(crate) fn report_to_text(report: &Report) -> String {
    let what = match report.kind {
        ennead::crash::Kind::Panic => "a part panicked and was begun again",
        ennead::crash::Kind::End => "the machine ended",
    };
    let at = report.location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let mut text = format!(
        "crash report {} of {}, {}: {what}\n  {}\n  in the {} (thread {}){at}\n  version {}, up for {}, {} restarts of its parts before, incarnation {}\n",
        report.id,
        report.machine,
        rfc3339(report.at_ms),
        report.message,
        report.part,
        report.thread,
        report.version,
        time(report.uptime_ms),
        report.restarts,
        report.incarnation,
    );
    let mut lines = |what: &str, lines: Vec<&str>, last: bool| {
        if lines.is_empty() {
            return;
        }
        let shown =
            if last { &lines[lines.len().saturating_sub(SHOWN)..] } else { &lines[..lines.len().min(SHOWN)] };
        text.push_str(&format!("  {what} ({} of {} lines):\n", shown.len(), lines.len()));
        for line in shown {
            text.push_str(&format!("    {line}\n"));
        }
    };
    // The hook itself and the machinery of panics come first in every backtrace, and tell nothing.
    let frames: Vec<&str> = report.backtrace.lines().collect();
    let begin = frames.iter().position(|line| line.contains("panicking::panic_fmt")).unwrap_or(0);
    lines("backtrace", frames.into_iter().skip(begin).collect(), false);
    lines("log", report.log.iter().map(String::as_str).collect(), true);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_machines_say_alike_is_one_line() {
        let lines = [
            "10.0.0.2 answers: up for 1.2 s, version 0.1.0",
            "10.0.0.1: met a new run of it 1.2 s ago, without a farewell before",
            "10.0.0.3: met a new run of it 980 ms ago, without a farewell before",
            "10.0.0.4: it was silent for 4.2 s, until 1.0 s ago",
            "10.0.0.5: met a new run of it 1.1 s ago, without a farewell before",
        ];
        let lines = lines.map(String::from);
        let told = alike(&lines);
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], lines[0]);
        assert_eq!(told[1], format!("{}; 2 others likewise", lines[1]));
        assert_eq!(told[2], lines[3]);
    }
}
