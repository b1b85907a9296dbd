//! Why a machine failed: the verdict in a sentence, what it rests on, and the crash report.

use ennead::Name;
use ennead::crash::{Report, rfc3339};
use ennead::verdict::{Verdict as Judgement, Word};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use crate::{Verdict, connect};

/// Lines of a backtrace and of the log that a person is shown; all of them are in the JSON.
const SHOWN: usize = 20;

/// Prints the verdict. "No" if nothing is known of such a machine.
pub(crate) async fn run(machine: Name, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let judgement = client.why(machine).await?;
    match output.json {
        true => output.print_json(&judgement.to_json())?,
        false => {
            let text = to_text(&judgement, output);
            output.data(text.as_bytes())?;
        }
    }
    let known = judgement.up || judgement.word.is_some();
    Ok(if known { Verdict::Yes } else { Verdict::No })
}

fn to_text(judgement: &Judgement, output: &Output) -> String {
    let colour = match (judgement.up, judgement.word) {
        (true, None) => Colour::Green,
        (true, Some(_)) => Colour::Yellow,
        (false, _) => Colour::Red,
    };
    let word = judgement.word.map_or(if judgement.up { "up" } else { "nothing known" }, Word::word);
    let since = judgement.at_ms.map(|at| format!(" (since {})", rfc3339(at))).unwrap_or_default();
    let mut text = format!("{}: {}{since}\n", output.paint(colour, word), judgement.sentence);
    if !judgement.detected_by.is_empty() {
        let names: Vec<_> = judgement.detected_by.iter().map(ToString::to_string).collect();
        text.push_str(&format!("noticed by {}\n", names.join(", ")));
    }
    text.push('\n');
    for line in &judgement.evidence {
        text.push_str(&format!("  {line}\n"));
    }
    if let Some(report) = &judgement.report {
        text.push('\n');
        text.push_str(&report_to_text(report));
    }
    text
}

/// A crash report for a person.
pub(crate) fn report_to_text(report: &Report) -> String {
    let what = match report.kind {
        ennead::crash::Kind::Panic => "a part panicked and was begun again",
        ennead::crash::Kind::End => "the machine ended",
    };
    let at = report.location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let mut text = format!(
        "crash report {} of {}, {}: {what}\n  {}\n  in the {} (thread {}){at}\n  version {}, up for {} ms, {} restarts of its parts before, incarnation {}\n",
        report.id,
        report.machine,
        rfc3339(report.at_ms),
        report.message,
        report.part,
        report.thread,
        report.version,
        report.uptime_ms,
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
