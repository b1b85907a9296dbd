//! More is asked than can be done: how much is done, and how soon latency is usual again.
//!
//! Real processes on loopback addresses, and clients on threads of this one. They share the processors of the computer, so
//! each line says what share of them the generator took, what the machines took, and what was left to others or to nobody:
//! a goodput that falls by as much as the generator's share grows is the generator's doing, not the cluster's.
//!
//! 1. *usual*: 8 operations under way, each begun when another ends; half puts, half gets of 256 bytes (`--puts`: puts
//!    alone; `--value`), over 10,000 keys.
//! 2. *peak*: the same with 64, 256 and 1,024 under way; the best of these.
//! 3. *overload*: so many times the peak (`--times 2,5,10`) is asked for `--seconds`, by the clock: each operation has its
//!    moment, whatever became of those before, and its latency is counted from that moment. Nothing is asked again: whatever
//!    is refused or fails is counted, and gone. What is answered after the end does not count.
//! 4. *afterwards*: 8 under way again, in rounds of half a second, until the p99 is at most twice the usual one; and the
//!    peak once more, since what else runs on the computer changes: goodput is compared with the mean of both.
//!
//! What is kept of an operation is a few counters, and a histogram of those done. So many are under way as the clients let
//! in (`--bound` and `--least`: `max_under_way` and `min_under_way` of each), and nothing else grows with the load.
//!
//! `--machines 3`, `--seconds 5` a phase, `--clients 8` with connections of their own, on `--generators` threads (one for
//! each processor).
#![allow(missing_docs, clippy::print_stdout)]

mod generator;
mod processors;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ennead::client::ClientOptions;
use ennead::cluster::{Base, Cluster, Options};

use self::generator::{Came, Generators, Load, Work};
use self::processors::Used;

/// Operations under way while latency is measured, and while the peak is.
const CALM: usize = 8;
const BUSY: [usize; 3] = [64, 256, 1_024];

fn flag<T: FromStr>(name: &str, default: T) -> T {
    let mut words: VecDeque<String> = std::env::args().collect();
    while let Some(word) = words.pop_front() {
        if word == name {
            let word = words.pop_front().unwrap_or_default();
            return word.parse().unwrap_or_else(|_| panic!("{name} {word}: that is no such value"));
        }
    }
    default
}

fn main() {
    let time = Duration::from_secs(flag("--seconds", 5));
    let times = flag("--times", "10".to_owned());
    let times: Vec<f64> = times.split(',').map(|n| n.parse().expect("--times: numbers, as 2,5,10")).collect();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ennead")),
        dir: dir.path().join("cluster"),
        peers: Some(flag("--machines", 3)),
        base: Base::at(Ipv4Addr::new(127, 0, 134, 121), 9595),
        flags: vec!["--http".to_owned(), "off".to_owned()],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
    cluster.start_all().expect("processes");
    runtime.block_on(cluster.wait_until_up(Duration::from_secs(60))).expect("machines up");

    let mut options = ClientOptions::new(cluster.names(), cluster.certs());
    options.identity = Some("local".to_owned());
    options.timeout = Duration::from_secs(2);
    options.max_under_way = flag("--bound", options.max_under_way);
    options.min_under_way = flag("--least", options.min_under_way);
    let load = Load { puts: std::env::args().any(|word| word == "--puts"), value: flag("--value", 256) };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let generators = Generators::start(flag("--generators", threads), flag("--clients", 8), &options, load);
    let bench = Bench { cluster, generators };
    bench.run(time, &times);
    drop(bench.generators);
    runtime.block_on(bench.cluster.stop());
}

struct Bench {
    cluster: Cluster,
    generators: Generators,
}

impl Bench {
    fn run(&self, time: Duration, times: &[f64]) {
        // Every key once, and every connection.
        self.generators.work(Work::Closed { under_way: BUSY[1] }, Duration::from_secs(2));
        let usual = self.generators.work(Work::Closed { under_way: CALM }, time).percentile(99.0);
        println!("usual: {CALM} under way, p99 {usual:?}");
        let mut before = self.peak(time);
        for &times in times {
            let mean = before;
            let used = self.used();
            let came = self.generators.work(Work::Open { rate: mean * times }, time);
            let used = self.used().since(&used);
            let over = Instant::now();
            println!(
                "{times} times the peak: {:.0} asked a second ({:.1} times); {:.0} % done, {:.0} % refused by their client \
                 and {:.1} % by the machines as overloaded, {:.2} % failed otherwise, {} not answered yet; p99 of those done {:?}",
                came.asked as f64 / time.as_secs_f64(),
                came.asked as f64 / time.as_secs_f64() / mean,
                came.share(came.ok()),
                came.share(came.refused),
                came.share(came.turned),
                came.share(came.other),
                came.asked.saturating_sub(came.ok() + came.refused + came.turned + came.other),
                came.percentile(99.0),
            );
            println!("    {used}");
            let usual_again = self.until_usual(usual, over);
            let after = self.peak(time);
            let goodput = came.ok() as f64 / time.as_secs_f64();
            let [puts, gets] = [came.puts, came.gets].map(|n| n as f64 / time.as_secs_f64());
            println!(
                "{times} times the peak: goodput {goodput:.0} a second ({puts:.0} puts, {gets:.0} gets), {:.0} % of the peak ({before:.0} before, {after:.0} \
                 after); {usual_again}",
                goodput / f64::midpoint(before, after) * 100.0,
            );
            before = after;
        }
    }

    /// Operations a second, at most.
    fn peak(&self, time: Duration) -> f64 {
        let mut best: Option<(f64, String)> = None;
        for under_way in BUSY {
            let used = self.used();
            let came = self.generators.work(Work::Closed { under_way }, time);
            let used = self.used().since(&used);
            let [rate, puts] = [came.ok(), came.puts].map(|n| n as f64 / time.as_secs_f64());
            let p99 = came.percentile(99.0);
            let told = format!(
                "peak: {rate:.0} a second ({puts:.0} puts) with {under_way} under way, p99 {p99:?}\n    {used}"
            );
            if best.as_ref().is_none_or(|(other, _)| rate > *other) {
                best = Some((rate, told));
            }
        }
        let (rate, told) = best.expect("one of them");
        println!("{told}");
        rate
    }

    fn until_usual(&self, usual: Duration, over: Instant) -> String {
        loop {
            let came = self.generators.work(Work::Closed { under_way: CALM }, Duration::from_millis(500));
            let (now, waited) = (came.percentile(99.0), over.elapsed().as_secs_f64());
            if came.ok() > 0 && now <= usual * 2 {
                return format!("p99 usual again ({now:?}) after {waited:.1} s");
            }
            if waited > 60.0 {
                return format!("p99 still {now:?} after {waited:.0} s");
            }
        }
    }

    fn used(&self) -> Used {
        let machines = (0..self.cluster.names().len()).filter_map(|i| self.cluster.pid(i));
        Used::now(machines)
    }
}

impl Came {
    fn share(&self, of: u64) -> f64 {
        of as f64 / self.asked.max(1) as f64 * 100.0
    }
}
