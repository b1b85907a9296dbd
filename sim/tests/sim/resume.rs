//! Fresh seeds for as long as one likes, and where to go on: a file says which seed is next, and which failed.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Kind;

/// Seeds below this are those of the fixed sets.
const FIRST: u64 = 1_000_000;
/// How often the file is written.
const OFTEN: Duration = Duration::from_secs(1);

/// The kinds of runs: what they are called in the file, and what stands before their seeds elsewhere.
const KINDS: [(Kind, &str, &str); 4] = [
    (Kind::Still, "still", ""),
    (Kind::Moving, "moving", "m"),
    (Kind::Listing, "listing", "l"),
    (Kind::Fetching, "fetching", "f"),
];

/// Where a soak is: the next seed of each kind, and what failed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    next: [u64; KINDS.len()],
    failed: Vec<String>,
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let mut place = Self { next: [FIRST; KINDS.len()], failed: Vec::new() };
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            match KINDS.iter().position(|(_, kind, _)| *kind == name) {
                Some(kind) => {
                    let wrong = |_| format!("line {}: \"{rest}\" is no seed", i + 1);
                    place.next[kind] = rest.parse().map_err(wrong)?;
                }
                None if name == "failed" => place.failed.push(rest.to_owned()),
                None => return Err(format!("line {}: \"{line}\" is not from a soak", i + 1)),
            }
        }
        Ok(place)
    }

    fn text(&self) -> String {
        let next = KINDS.iter().zip(self.next).map(|((_, kind, _), next)| format!("{kind} {next}\n"));
        next.chain(self.failed.iter().map(|what| format!("failed {what}\n"))).collect()
    }
}

struct Soak {
    place: Place,
    file: PathBuf,
    saved: Instant,
}

impl Soak {
    /// A kill in between leaves the former file.
    fn save(&mut self) {
        let new = self.file.with_extension("new");
        let written =
            std::fs::write(&new, self.place.text()).and_then(|()| std::fs::rename(&new, &self.file));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        self.saved = Instant::now();
    }

    fn over(&mut self, kind: usize, failure: Option<String>) {
        self.place.next[kind] += 1;
        let failed = failure.is_some();
        self.place.failed.extend(failure);
        if failed || self.saved.elapsed() >= OFTEN {
            self.save();
        }
    }
}

/// Runs seeds of every kind, a thread each, from where the file says; for so long, or until it is stopped.
pub(crate) fn soak(file: &Path, limit: Option<Duration>) {
    let place = match std::fs::read_to_string(file) {
        Ok(text) => Place::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Place::parse("").expect("empty"),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    println!("goes on from:\n{}", place.text());
    let (begun, before) = (Instant::now(), place.clone());
    let soak = Mutex::new(Soak { place, file: file.to_owned(), saved: begun });
    let go_on = |number: usize| {
        let (kind, _, prefix) = KINDS[number];
        while limit.is_none_or(|limit| begun.elapsed() < limit) {
            let seed = soak.lock().expect("no thread panicked").place.next[number];
            let failure = kind.run(seed, false).err();
            if let Some(failure) = &failure {
                println!("{failure}");
            }
            let what =
                failure.map(|f| format!("{prefix}{seed}: {}", f.what.lines().next().unwrap_or_default()));
            soak.lock().expect("no thread panicked").over(number, what);
        }
    };
    let go_on = &go_on;
    std::thread::scope(|threads| {
        for number in 0..KINDS.len() {
            threads.spawn(move || go_on(number));
        }
    });
    let mut soak = soak.into_inner().expect("no thread panicked");
    soak.save();
    for ((_, kind, _), (next, former)) in KINDS.iter().zip(soak.place.next.iter().zip(before.next)) {
        println!("{kind}: {} seeds, the next is {next}", next - former);
    }
    let failed = &soak.place.failed[before.failed.len()..];
    println!("{} failed in {:.0} s", failed.len(), begun.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_soak_goes_on_where_it_was_and_takes_no_other_file() {
    let place = Place { next: [5, 7, 9, 11], failed: vec!["m6: claim 1: lost".to_owned()] };
    assert_eq!(Place::parse(&place.text()), Ok(place));
    assert_eq!(Place::parse("").map(|place| place.next), Ok([FIRST; KINDS.len()]));
    let refused = Place::parse("still 5\nmoving x\n");
    assert_eq!(refused, Err("line 2: \"x\" is no seed".to_owned()));
    assert!(Place::parse("[package]").is_err());
}
