//! Fresh seeds for as long as one likes, and where to go on: a file says which seed is next, and which failed.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Kind;

/// Seeds below this are those of the fixed sets.
const FIRST: u64 = 1_000_000;
/// How often the file is written.
const OFTEN: Duration = Duration::from_secs(1);

/// Where a soak is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    still: u64,
    moving: u64,
    failed: Vec<String>,
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let mut place = Self { still: FIRST, moving: FIRST, failed: Vec::new() };
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let number =
                |rest: &str| rest.parse().map_err(|_| format!("line {}: \"{rest}\" is no seed", i + 1));
            match line.split_once(' ') {
                Some(("still", rest)) => place.still = number(rest)?,
                Some(("moving", rest)) => place.moving = number(rest)?,
                Some(("failed", rest)) => place.failed.push(rest.to_owned()),
                _ => return Err(format!("line {}: \"{line}\" is not from a soak", i + 1)),
            }
        }
        Ok(place)
    }

    fn text(&self) -> String {
        let failed: String = self.failed.iter().map(|what| format!("failed {what}\n")).collect();
        format!("still {}\nmoving {}\n{failed}", self.still, self.moving)
    }

    fn next(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Still => &mut self.still,
            Kind::Moving => &mut self.moving,
        }
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

    fn over(&mut self, kind: Kind, failure: Option<String>) {
        *self.place.next(kind) += 1;
        let failed = failure.is_some();
        self.place.failed.extend(failure);
        if failed || self.saved.elapsed() >= OFTEN {
            self.save();
        }
    }
}

/// Runs seeds of both kinds, a thread each, from where the file says; for so long, or until it is stopped.
pub(crate) fn soak(file: &Path, limit: Option<Duration>) {
    let place = match std::fs::read_to_string(file) {
        Ok(text) => Place::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Place::parse("").expect("empty"),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    println!(
        "goes on from seeds {} and m{}; {} failed before",
        place.still,
        place.moving,
        place.failed.len()
    );
    let (begun, before) = (Instant::now(), place.clone());
    let soak = Mutex::new(Soak { place, file: file.to_owned(), saved: begun });
    let go_on = |kind: Kind| {
        while limit.is_none_or(|limit| begun.elapsed() < limit) {
            let seed = *soak.lock().expect("no thread panicked").place.next(kind);
            let failure = kind.run(seed, false).err();
            if let Some(failure) = &failure {
                println!("{failure}");
            }
            let m = if kind == Kind::Moving { "m" } else { "" };
            let what = failure.map(|f| format!("{m}{seed}: {}", f.what.lines().next().unwrap_or_default()));
            soak.lock().expect("no thread panicked").over(kind, what);
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| go_on(Kind::Still));
        threads.spawn(|| go_on(Kind::Moving));
    });
    let mut soak = soak.into_inner().expect("no thread panicked");
    soak.save();
    let failed = &soak.place.failed[before.failed.len()..];
    println!(
        "{} seeds and {} with machines that come and go in {:.0} s; {} failed. Next: {} and m{}",
        soak.place.still - before.still,
        soak.place.moving - before.moving,
        begun.elapsed().as_secs_f64(),
        failed.len(),
        soak.place.still,
        soak.place.moving
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_soak_goes_on_where_it_was_and_takes_no_other_file() {
    let place = Place { still: 5, moving: 7, failed: vec!["m6: claim 1: lost".to_owned()] };
    assert_eq!(Place::parse(&place.text()), Ok(place));
    assert_eq!(Place::parse("").map(|place| place.still), Ok(FIRST));
    let refused = Place::parse("still 5\nmoving x\n");
    assert_eq!(refused, Err("line 2: \"x\" is no seed".to_owned()));
    assert!(Place::parse("[package]").is_err());
}
