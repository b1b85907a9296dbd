//! What this machine has seen of each other: the material of `kvctl why`.
//!
//! Bounded: the last of each kind, for members and for a few who were. Written as things happen, read when asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ennead_ring::view::{MemberState, Name, View};

use crate::knock::{knock, knock_for_long};
use crate::transport::Ended;
use crate::verdict::{EndKind, Ending, FAR_OFF, Knock, Knocked, Met, Offset, Seen, Silence};

/// Machines that are no members any more, and are remembered.
const GONE: usize = 64;
/// Machines whose last words are kept.
const WORDS: usize = 16;
/// Between two knocks at one machine.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long the answer to a long knock counts.
const LONG_FOR: Duration = Duration::from_secs(6);
/// A silence that was over sooner was a doubt, and no more.
const DOUBT: Duration = Duration::from_millis(1_500);
/// Knocks under way at once.
const AT_ONCE: usize = 16;
/// What one said of its clock is of now for so long: of a thousand machines, each is asked every four minutes.
const TOLD: Duration = Duration::from_secs(300);

/// Shared by the core loop and the one who knocks; locked for a few lines at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    of: BTreeMap<Name, Of>,
    /// Whom to knock at.
    silent: Vec<Name>,
}

#[derive(Debug, Default)]
struct Of {
    runs: Vec<Run>,
    /// When it was first found that there is no connection, though one is wanted.
    lost: Option<Instant>,
    end: Option<(EndKind, String, Instant)>,
    farewell: Option<(String, Instant)>,
    knock: Option<(Knocked, Knocked, Instant)>,
    knocked: Option<Instant>,
    /// What the last long knock said: it takes seconds to find out, each time.
    long: Option<(Knocked, Instant)>,
    knocking: bool,
    last_words: Option<String>,
    member: Option<MemberState>,
    gone: Option<(bool, Instant)>,
    /// Since when it is silent.
    silent: Option<Instant>,
    /// What the first knock in it said: the last may have come when it was heard again already.
    first: Option<(Knocked, Knocked, Instant)>,
    /// Its last silence.
    silence: Option<Silent>,
    clock: Option<Clock>,
}

/// A silence that is over.
#[derive(Clone, Copy, Debug)]
struct Silent {
    since: Instant,
    until: Instant,
    /// Which run fell silent.
    run: u64,
    /// What the first knock said.
    knock: Option<(Knocked, Knocked, Instant)>,
}

/// How far its clock is ahead of ours.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ahead_ms: i64,
    at: Instant,
    /// Since when it is far off.
    far: Option<Instant>,
}

impl Of {
    /// It is heard again.
    fn heard(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.silent.take().filter(|since| now.duration_since(*since) >= DOUBT) {
            let run = self.runs.first().map_or(0, |run| run.run);
            self.silence = Some(Silent { since, until: now, run, knock: self.first });
        }
        // What they said is over.
        (self.first, self.knock, self.long) = (None, None, None);
    }
}

#[derive(Debug)]
struct Run {
    run: u64,
    version: String,
    met: Instant,
    farewell: bool,
}

/// What only the core loop knows, of one machine.
pub(crate) struct Heard {
    pub(crate) state: crate::status::PeerState,
    pub(crate) silent_ms: u64,
    pub(crate) by: Vec<Name>,
    pub(crate) heard_ms: Option<u64>,
    pub(crate) unwell: Option<(u32, u8, u64)>,
}

fn age(at: Instant) -> u64 {
    at.elapsed().as_millis() as u64
}

fn kind_of(how: Ended) -> EndKind {
    match how {
        Ended::Farewell => EndKind::Farewell,
        Ended::Refused(_) => EndKind::Incompatible,
        Ended::Silence => EndKind::Silence,
        Ended::Other => EndKind::Other,
    }
}

impl Evidence {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a connection, with this run of its program.
    pub(crate) fn met(&self, name: Name, run: u64, version: &str) {
        let mut table = self.table();
        let of = table.of.entry(name).or_default();
        of.heard();
        (of.lost, of.end, of.farewell, of.knock, of.long) = (None, None, None, None, None);
        if of.runs.first().is_none_or(|r| r.run != run) {
            let met = Run { run, version: version.to_owned(), met: Instant::now(), farewell: false };
            of.clock = None;
            of.runs.insert(0, met);
            of.runs.truncate(2);
            of.last_words = None;
        }
    }

    /// The last connection ended, or a dial failed.
    pub(crate) fn ended(&self, name: Name, how: Ended, text: &str) {
        let mut table = self.table();
        let of = table.of.entry(name).or_default();
        let (now, kind) = (Instant::now(), kind_of(how));
        of.lost.get_or_insert(now);
        of.end = Some((kind, text.to_owned(), now));
        if kind == EndKind::Farewell {
            of.farewell.get_or_insert((text.to_owned(), now));
            if let Some(run) = of.runs.first_mut() {
                run.farewell = true;
            }
        }
    }

    /// It ends, and said why at length.
    pub(crate) fn last_words(&self, name: Name, report: String) {
        let mut table = self.table();
        if table.of.values().filter(|of| of.last_words.is_some()).count() >= WORDS {
            return;
        }
        table.of.entry(name).or_default().last_words = Some(report);
    }

    /// A view was adopted: who came, who went, and whether that was to be expected.
    pub(crate) fn adopted(&self, view: &View) {
        let mut table = self.table();
        let now = Instant::now();
        for member in view.members() {
            let of = table.of.entry(member.machine.name).or_default();
            (of.member, of.gone) = (Some(member.state), None);
        }
        for (name, of) in &mut table.of {
            if view.index_of(*name).is_none()
                && let Some(state) = of.member.take()
            {
                of.gone = Some((state == MemberState::Leaving, now));
            }
        }
        let mut gone: Vec<_> = table.of.iter().filter_map(|(n, of)| Some((of.gone?.1, *n))).collect();
        gone.sort();
        for (_, name) in gone.iter().rev().skip(GONE) {
            table.of.remove(name);
        }
    }

    /// Who does not answer at present: whom to knock at.
    pub(crate) fn silent(&self, names: Vec<Name>) {
        let mut table = self.table();
        for (name, of) in &mut table.of {
            match names.contains(name) {
                true => _ = of.silent.get_or_insert_with(Instant::now),
                false => of.heard(),
            }
        }
        table.silent = names;
    }

    /// So far its clock is ahead of ours. True if it has just been found to be far off.
    pub(crate) fn clock(&self, name: Name, ahead_ms: i64) -> bool {
        let mut table = self.table();
        let of = table.of.entry(name).or_default();
        let (now, was) = (Instant::now(), of.clock.and_then(|clock| clock.far));
        let far = (ahead_ms.abs() >= FAR_OFF).then(|| was.unwrap_or(now));
        of.clock = Some(Clock { ahead_ms, at: now, far });
        far.is_some() && was.is_none()
    }

    /// How far others' clocks are ahead of this machine's, and behind it, at most, as they told lately: in milliseconds.
    pub(crate) fn clocks(&self) -> [u64; 2] {
        let table = self.table();
        let told = table.of.values().filter_map(|of| of.clock.filter(|clock| clock.at.elapsed() < TOLD));
        told.fold([0, 0], |[ahead, behind], clock| match u64::try_from(clock.ahead_ms) {
            Ok(ms) => [ahead.max(ms), behind],
            Err(_) => [ahead, behind.max(clock.ahead_ms.unsigned_abs())],
        })
    }

    /// How far this machine's own clock is ahead of the middle of all, if enough others have told theirs.
    pub(crate) fn own_clock(&self) -> Option<i64> {
        let table = self.table();
        let mut all: Vec<i64> = table.of.values().filter_map(|of| Some(of.clock?.ahead_ms)).collect();
        if all.len() < 2 {
            return None;
        }
        all.push(0);
        all.sort_unstable();
        all.get(all.len() / 2).map(|middle| -middle)
    }

    /// All that has been seen of a machine.
    pub(crate) fn seen(&self, name: Name, heard: Heard) -> Seen {
        let table = self.table();
        let Heard { state, silent_ms, by, heard_ms, unwell } = heard;
        let mut seen = Seen {
            state,
            silent_ms,
            by,
            heard_ms,
            runs: Vec::new(),
            lost_ms: None,
            end: None,
            farewell: None,
            knock: None,
            silence: None,
            clock: None,
            unwell,
            last_words: None,
            gone: None,
        };
        if let Some(of) = table.of.get(&name) {
            let met = |r: &Run| Met {
                run: r.run,
                version: r.version.clone(),
                ago_ms: age(r.met),
                farewell: r.farewell,
            };
            seen.lost_ms = of.lost.map(age);
            seen.runs = of.runs.iter().map(met).collect();
            seen.end = of.end.as_ref().map(|(kind, text, at)| Ending {
                kind: *kind,
                text: text.clone(),
                ago_ms: age(*at),
            });
            seen.farewell = of.farewell.as_ref().map(|(text, at)| Ending {
                kind: EndKind::Farewell,
                text: text.clone(),
                ago_ms: age(*at),
            });
            seen.knock = of.knock.map(|(port, host, at)| Knock { port, host, ago_ms: age(at) });
            seen.silence = of.silence.map(|Silent { since, until, run, knock }| Silence {
                for_ms: until.duration_since(since).as_millis() as u64,
                ago_ms: age(until),
                run,
                knock: knock.map(|(port, host, at)| Knock { port, host, ago_ms: age(at) }),
            });
            seen.clock = of.clock.map(|clock| Offset {
                ms: clock.ahead_ms,
                ago_ms: age(clock.at),
                far_ms: clock.far.map(age),
            });
            seen.last_words.clone_from(&of.last_words);
            seen.gone = of.gone.map(|(planned, at)| (planned, age(at)));
        }
        seen
    }

    /// Whom to knock at now.
    fn due(&self) -> Vec<Name> {
        let mut table = self.table();
        let (now, silent) = (Instant::now(), table.silent.clone());
        let mut due = Vec::new();
        for name in silent {
            let of = table.of.entry(name).or_default();
            if of.knocked.is_none_or(|at| now.duration_since(at) >= BETWEEN) && due.len() < AT_ONCE {
                of.knocked = Some(now);
                due.push(name);
            }
        }
        due
    }

    /// Notes what came of a knock. True if it should be followed by a long one.
    fn knocked(&self, name: Name, port: Knocked, mut host: Knocked) -> bool {
        let mut table = self.table();
        if !table.silent.contains(&name) {
            return false;
        }
        let of = table.of.entry(name).or_default();
        if let Some((said, at)) = of.long.filter(|_| host == Knocked::Silent)
            && at.elapsed() < LONG_FOR
        {
            host = said;
        }
        of.knock = Some((port, host, Instant::now()));
        of.first = of.first.or(of.knock);
        host != Knocked::Refused && !std::mem::replace(&mut of.knocking, true)
    }

    /// Knocks at those who are silent, once a second at each, for as long as they are.
    pub(crate) async fn knock(self, from: std::net::IpAddr) {
        loop {
            tokio::time::sleep(BETWEEN / 4).await;
            for name in self.due() {
                let this = self.clone();
                tokio::spawn(async move {
                    let (port, host) = knock(from, name.address()).await;
                    if this.knocked(name, port, host) {
                        let said = knock_for_long(from, name.address()).await;
                        let mut table = this.table();
                        let of = table.of.entry(name).or_default();
                        of.knocking = false;
                        of.long = Some((said, Instant::now()));
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_told_by_how_far_they_are_ahead_and_behind_at_most() {
        let evidence = Evidence::default();
        assert_eq!(evidence.clocks(), [0, 0]);
        for (host, ahead_ms) in [(1, 20), (2, -7_000), (3, 350), (4, -1)] {
            let name = format!("10.0.0.{host}").parse().expect("a name");
            evidence.clock(name, ahead_ms);
        }
        assert_eq!((evidence.clocks(), evidence.own_clock()), ([350, 7_000], Some(0)));
    }
}
