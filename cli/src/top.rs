//! What each machine does now, and how fast: operations, latencies, queues, from two looks a second apart.

use std::time::{Duration, Instant};

use ennead::Name;
use ennead::moving::Accounts;
use ennead::status::{Figures, MachineStatus};
use ennead::summary::{Health, Summary};
use ennead_ring::View;
use ennead_ring::counts::Histogram;
use serde_json::{Value, json};

use crate::args::{Global, Top, Watch};
use crate::failure::Failure;
use crate::moves::show_bytes;
use crate::output::{Colour, Output, table};
use crate::status::colour;
use crate::watch::{Look, show};
use crate::{Verdict, connect};

/// Between the two looks that a first one takes.
const APART: Duration = Duration::from_secs(1);

/// Shows it: again and again on a terminal, once elsewhere.
pub(crate) async fn run(args: Top, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let mut before: Option<(Instant, Vec<(Name, MachineStatus)>)> = None;
    let watch = Watch { watch: args.watch || (output.stdout_is_terminal && !output.json && !args.once) };
    show(watch, output, async |output: &Output| {
        if before.is_none() {
            before = Some((Instant::now(), known(&client.status().await?)));
            tokio::time::sleep(APART).await;
        }
        let view = client.view().await?;
        let accounts = client.status().await?;
        let now = Instant::now();
        let lines = lines(&view, &accounts, before.as_ref(), now);
        before = Some((now, known(&accounts)));
        Ok(Look { text: to_text(&lines, output), json: to_json(&lines), verdict: Verdict::Yes })
    })
    .await
}

fn known(accounts: &Accounts) -> Vec<(Name, MachineStatus)> {
    accounts.iter().filter_map(|(name, account)| Some((*name, account.as_ref().ok()?.clone()))).collect()
}

/// One machine, or all of them together.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    name: String,
    health: Option<Health>,
    pace: Option<Pace>,
}

/// What a machine did between two looks.
#[derive(Clone, PartialEq, Default, Debug)]
struct Pace {
    seconds: f64,
    writes: u64,
    reads: u64,
    copies: u64,
    failed: u64,
    bytes_in: u64,
    bytes_out: u64,
    write_micros: Histogram,
    fsync_micros: Histogram,
    /// Of now.
    waiting: u64,
    /// Of now.
    queued: u64,
}

impl Pace {
    /// A count that is lower than before has begun anew since.
    fn between(now: &Figures, before: &Figures, seconds: f64) -> Self {
        let one = |now: u64, before: u64| if now >= before { now - before } else { now };
        let all = |now: &Histogram, before: &Histogram| -> Histogram {
            std::array::from_fn(|i| one(now[i], before[i]))
        };
        Self {
            seconds,
            writes: one(now.writes, before.writes),
            reads: one(now.reads, before.reads),
            copies: one(now.copies, before.copies),
            failed: one(now.failed, before.failed),
            bytes_in: one(now.bytes_in, before.bytes_in),
            bytes_out: one(now.bytes_out, before.bytes_out),
            write_micros: all(&now.write_micros, &before.write_micros),
            fsync_micros: all(&now.fsync_micros, &before.fsync_micros),
            waiting: now.waiting,
            queued: now.queued,
        }
    }

    fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        let counts = [
            (&mut self.writes, other.writes),
            (&mut self.reads, other.reads),
            (&mut self.copies, other.copies),
            (&mut self.failed, other.failed),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.waiting, other.waiting),
            (&mut self.queued, other.queued),
        ];
        counts.into_iter().for_each(|(mine, theirs)| *mine = mine.saturating_add(theirs));
        self.write_micros.iter_mut().zip(other.write_micros).for_each(|(mine, theirs)| *mine += theirs);
        self.fsync_micros.iter_mut().zip(other.fsync_micros).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn a_second(&self, n: u64) -> f64 {
        n as f64 / self.seconds.max(0.001)
    }
}

/// All machines together first, then each.
fn lines(
    view: &View,
    accounts: &Accounts,
    before: Option<&(Instant, Vec<(Name, MachineStatus)>)>,
    now: Instant,
) -> Vec<Line> {
    let mut all = Pace::default();
    let mut lines = Vec::new();
    for line in Summary::of(view, accounts).lines {
        let of = |accounts: &Accounts| -> Option<Figures> {
            let (_, account) = accounts.iter().find(|(name, _)| *name == line.name)?;
            Some(account.as_ref().ok()?.figures.clone())
        };
        let pace = before.and_then(|(at, accounts_before)| {
            let (_, earlier) = accounts_before.iter().find(|(name, _)| *name == line.name)?;
            let seconds = now.duration_since(*at).as_secs_f64();
            Some(Pace::between(&of(accounts)?, &earlier.figures, seconds))
        });
        pace.iter().for_each(|pace| all.add(pace));
        lines.push(Line { name: line.name.to_string(), health: Some(line.health), pace });
    }
    lines.insert(0, Line { name: "all".to_owned(), health: None, pace: Some(all) });
    lines
}

/// Milliseconds that so many of a hundred took less than; `None` of nothing. Within a bucket, evenly.
fn quantile(micros: &Histogram, percent: f64) -> Option<f64> {
    let all: u64 = micros.iter().sum();
    let mut left = all as f64 * percent / 100.0;
    for (i, count) in micros.iter().enumerate().filter(|(_, count)| **count > 0) {
        if left <= *count as f64 {
            return Some(2f64.powf(i as f64 + left / *count as f64) / 1e3);
        }
        left -= *count as f64;
    }
    None
}

fn to_text(lines: &[Line], output: &Output) -> String {
    let head = [
        "MACHINE",
        "STATE",
        "WRITES/s",
        "READS/s",
        "COPIES/s",
        "FAILED/s",
        "P50 ms",
        "P99 ms",
        "FSYNC P99",
        "WAITING",
        "QUEUED",
        "IN/s",
        "OUT/s",
    ];
    let dash = || "-".to_string();
    let row = |line: &Line| {
        let state = match line.health {
            Some(health) => output.paint(colour(health.mood()), health.word()),
            None => String::new(),
        };
        let Some(pace) = &line.pace else {
            let mut row = vec![line.name.clone(), state];
            row.resize_with(head.len(), dash);
            return row;
        };
        let rate = |n: u64| format!("{:.0}", pace.a_second(n));
        let ms = |found: Option<f64>| found.map_or_else(dash, |ms| format!("{ms:.1}"));
        let failed = rate(pace.failed);
        vec![
            line.name.clone(),
            state,
            rate(pace.writes),
            rate(pace.reads),
            rate(pace.copies),
            if pace.failed > 0 { output.paint(Colour::Red, &failed) } else { failed },
            ms(quantile(&pace.write_micros, 50.0)),
            ms(quantile(&pace.write_micros, 99.0)),
            ms(quantile(&pace.fsync_micros, 99.0)),
            pace.waiting.to_string(),
            pace.queued.to_string(),
            show_bytes(pace.a_second(pace.bytes_in)),
            show_bytes(pace.a_second(pace.bytes_out)),
        ]
    };
    let head = head.map(String::from).to_vec();
    let note = "writes and reads: coordinated there; copies: told to readers, five for a get; P50, P99: of writes; waiting: in lines, or for an answer";
    let table = table(&std::iter::once(head).chain(lines.iter().map(row)).collect::<Vec<_>>());
    format!("{table}\n{}\n", output.paint(Colour::Dim, note))
}

fn to_json(lines: &[Line]) -> Value {
    let one = |line: &Line| {
        let mut object = json!({"machine": line.name, "state": line.health.map(Health::word)});
        if let Some(pace) = &line.pace {
            let rounded = |n: u64| (pace.a_second(n) * 10.0).round() / 10.0;
            let figures = json!({
                "writes_per_s": rounded(pace.writes),
                "reads_per_s": rounded(pace.reads),
                "copies_per_s": rounded(pace.copies),
                "failed_per_s": rounded(pace.failed),
                "write_p50_ms": quantile(&pace.write_micros, 50.0),
                "write_p99_ms": quantile(&pace.write_micros, 99.0),
                "fsync_p99_ms": quantile(&pace.fsync_micros, 99.0),
                "waiting": pace.waiting,
                "queued": pace.queued,
                "bytes_in_per_s": rounded(pace.bytes_in),
                "bytes_out_per_s": rounded(pace.bytes_out),
            });
            for (name, value) in figures.as_object().into_iter().flatten() {
                object[name] = value.clone();
            }
        }
        object
    };
    json!({"all": lines.first().map(one), "machines": lines.iter().skip(1).map(one).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_between_is_told_and_a_machine_that_began_anew_counts_from_nothing() {
        let before = Figures { writes: 100, copies: 50, waiting: 9, ..Figures::default() };
        let now = Figures { writes: 140, copies: 10, waiting: 2, ..Figures::default() };
        let pace = Pace::between(&now, &before, 2.0);
        assert_eq!((pace.a_second(pace.writes), pace.a_second(pace.copies), pace.waiting), (20.0, 5.0, 2));
        let mut all = pace.clone();
        all.add(&pace);
        assert_eq!((all.writes, all.seconds, all.a_second(all.writes)), (80, 2.0, 40.0));
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let mut micros = Histogram::default();
        (micros[10], micros[13]) = (99, 1);
        let p50 = quantile(&micros, 50.0).expect("a time");
        let p100 = quantile(&micros, 100.0).expect("a time");
        assert!((1.024..=2.048).contains(&p50) && (8.192..=16.384).contains(&p100), "{p50} {p100}");
        assert_eq!(quantile(&Histogram::default(), 99.0), None);
    }
}
