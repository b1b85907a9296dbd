//! A seed that fails, made small: first its world (fewer machines, keys, calls, kinds of faults), then what happens in it,
//! step by step, for as long as it still fails (delta debugging).

use std::collections::BTreeSet;

use ennead_ring::mutant::Rules;
use ennead_ring::node::Tuning;
use rand::rngs::StdRng;

use crate::SEC;
use crate::faults::{Counters, Profile};
use crate::recorder::record;
use crate::script::{ROUND, Script, Step, What};
use crate::world::run;

/// A way to a simpler world, in a word or two.
type Less = (&'static str, fn(&mut Profile));

/// The first is needed: a script begins with view 1 on every founder's disk; nobody lists keys in it, changes what a machine
/// weighs, forces anybody out or forges a message, and no zone has a name.
const BORN: Less = ("born", |p| {
    (p.born, p.dirty_birth, p.lists) = (true, false, false);
    (p.named, p.place_every, p.disaster_every, p.overdraw) = (false, 0, 0, false);
    p.forge = 0.0;
});
/// The biggest steps first.
const LESS: &[Less] = &[
    ("three machines", |p| {
        (p.machines, p.founders, p.slots) = (3, 3, 3);
        p.fewest = p.fewest.min(2);
    }),
    ("three slots", |p| p.slots = 3),
    ("a second or two", |p| p.span = p.span.min(2 * SEC)),
    ("nobody comes", |p| p.join_every = 0),
    ("nobody leaves", |p| p.leave_every = 0),
    ("nobody dies for good", |p| p.die_every = 0),
    ("nobody is told to be gone", |p| p.remove = 0.0),
    ("no disk is lost", |p| p.wipe_every = 0),
    ("no backups", |p| p.restore = 0.0),
    ("no long pauses", |p| p.freeze_every = 0),
    ("no long cuts", |p| p.split_every = 0),
    ("no zones", |p| (p.zones, p.zone_every) = (1, 0)),
    ("no comparison unasked", |p| p.tuning.check_every = 0),
    ("no roll", |p| p.tuning.roll_above = Tuning::default().roll_above),
    ("one key", |p| p.keys = 1),
    ("ten calls", |p| p.calls = p.calls.min(10)),
    ("three clients", |p| p.clients = p.clients.min(3)),
    ("two clients", |p| p.clients = p.clients.min(2)),
    ("four calls", |p| p.calls = p.calls.min(4)),
    ("nothing tuned", |p| p.tuning = Tuning::default()),
    ("no expiry", |p| p.ttl = 0.0),
    ("no cuts", |p| p.cut_every = 0),
    ("no crashes", |p| (p.crash_every, p.crash_in_handle) = (0, 0.0)),
    ("no crashes at an effect", |p| p.crash_in_handle = 0.0),
    ("no power cuts", |p| p.power_cut = 0.0),
    ("no pauses", |p| p.pause_every = 0),
    ("right clocks", |p| (p.skew, p.jump_every, p.tick) = (0, 0, 1)),
    ("right clocks of clients", |p| p.client_skew = 0),
    ("no hints", |p| (p.hints, p.lie_every) = (0.0, 0)),
    ("no rot", |p| p.rot = 0.0),
    ("no slow disks", |p| p.slow_sync = 0.0),
    ("nothing twice", |p| (p.duplicate, p.replay) = (0.0, 0.0)),
    ("nothing lost", |p| p.drop = 0.0),
    ("nothing late", |p| p.tail = 0.0),
    ("patient clients", |p| p.gives_up = 0.0),
    ("no votes counted by clients", |p| p.direct_reads = 0),
    ("nothing counted", |p| p.counters = Counters::None),
    ("no touches", |p| p.touches = 0),
    ("no deletes", |p| p.deletes = 0),
    ("no comparisons", |p| p.compares = 0),
    ("short values", |p| p.tuning.inline = 64 << 10),
    ("one position each", |p| p.weight = 1),
    ("all come back", |p| p.stay_down = false),
];

/// A seed made small.
#[derive(Debug)]
pub struct Shrunk {
    /// Of the smaller world.
    pub seed: u64,
    /// What that world is without.
    pub less: Vec<&'static str>,
    /// What failed.
    pub what: String,
    /// Things that happened to machines there, and in the script.
    pub steps: (usize, usize),
    /// Which fails as well.
    pub script: Script,
}

/// Makes a failing seed small. For each smaller world it tries the seed and so many after it; a script is acted out at most
/// `plays` times.
///
/// # Errors
/// Why it cannot: it does not fail, or only where a cluster is born under faults, keys are listed, weights change,
/// messages are forged or machines are forced out, or by something else than what callers saw and a [script](Script) is judged by.
pub fn shrink(
    seed: u64,
    profile: &dyn Fn(&mut StdRng) -> Profile,
    tries: u64,
    plays: usize,
) -> Result<Shrunk, String> {
    let fails = |less: &[Less], seed: u64| {
        run(seed, |rng| smaller(profile, less, rng), false).is_err_and(|failure| is_judged(&failure.what))
    };
    let find = |less: &[Less], from: u64| (from..=from + tries).find(|seed| fails(less, *seed));
    let mut less = vec![BORN];
    let mut seed = find(&less, seed).ok_or(
        "in a cluster that is born without faults, neither it nor any of the next fails by what a script is judged by",
    )?;
    for further in LESS {
        less.push(*further);
        match find(&less, seed) {
            Some(found) => seed = found,
            None => drop(less.pop()),
        }
    }
    let mut rules = Rules::default();
    let (what, script) = record(seed, |rng| {
        let p = smaller(profile, &less, rng);
        rules = p.rules;
        p
    })
    .ok_or("it fails now and then")?;
    let before = script.len();
    let mut acted = Vec::new();
    if script.act(rules, &mut acted).is_ok() {
        // A caller may have had its answer already.
        let of_machines = |step: &&Step| !matches!(step.what, What::Tells { .. });
        let mut both = script.steps.iter().filter(of_machines).zip(acted.iter().filter(of_machines));
        let other = both.find(|(step, acted)| step != acted);
        let other = other.map_or("the end".to_owned(), |(step, _)| format!("\"{step}\""));
        return Err(format!("acted out, what happened does not fail (the same up to {other}): {what}"));
    }
    let mut shrinking = Shrinking { rules, plays };
    let script = shrinking.without_sorts(script);
    let mut script = shrinking.cut(script);
    shrinking.simplify(&mut script);
    let what = script.play(rules).err().unwrap_or(what);
    let less = less.into_iter().skip(1).map(|(name, _)| name).collect();
    Ok(Shrunk { seed, less, what, steps: (before, script.len()), script })
}

/// True of what a script can show: what is wrong at some moment, not what has not come after a long time.
fn is_judged(what: &str) -> bool {
    ["claim 1", "claim 2", "V2", "Q1", "S5", "S7", "T1", "F1", "panic"]
        .iter()
        .any(|claim| what.starts_with(claim))
}

fn smaller(profile: &dyn Fn(&mut StdRng) -> Profile, less: &[Less], rng: &mut StdRng) -> Profile {
    let mut p = profile(rng);
    less.iter().for_each(|(_, apply)| apply(&mut p));
    p
}

/// Steps that go together. At which machine; `None`: at all of them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Said(Option<usize>, String),
    Alone(Option<usize>, &'static str),
    Call(usize),
}

impl Sort {
    fn of(step: &Step, wide: bool) -> Option<Self> {
        let at = (!wide).then_some(step.machine);
        let word = |said: &str| said.split(' ').next().unwrap_or_default().to_owned();
        Some(match &step.what {
            What::Hears { said, .. } => Self::Said(at, word(said)),
            What::Asked { call, .. } | What::Tells { call, .. } => Self::Call(*call),
            What::Wakes => Self::Alone(at, "wakes"),
            What::HasScanned(_) => Self::Alone(at, "scans"),
            What::Hint { .. } => Self::Alone(at, "hints"),
            What::BackedUp => Self::Alone(at, "backs up"),
            _ => return None,
        })
    }
}

struct Shrinking {
    rules: Rules,
    /// So many more times.
    plays: usize,
}

impl Shrinking {
    /// What happened in truth, if it fails.
    fn fails(&mut self, script: &Script) -> Option<Script> {
        self.plays = self.plays.saturating_sub(1);
        let mut steps = Vec::new();
        let failed = script.act(self.rules, &mut steps).is_err();
        failed.then(|| Script { cast: script.cast.clone(), steps })
    }

    /// Leaves out sorts of steps that it does not need, a call and all that belongs to it among them: what is said of one
    /// kind, everywhere or at one machine. Most of what is said where membership changes is said in passing.
    fn without_sorts(&mut self, mut script: Script) -> Script {
        for wide in [true, false] {
            let sorts: BTreeSet<Sort> = script.steps.iter().filter_map(|step| Sort::of(step, wide)).collect();
            for sort in sorts {
                if self.plays == 0 {
                    return script;
                }
                let kept = script.steps.iter().filter(|step| Sort::of(step, wide).as_ref() != Some(&sort));
                let shorter = Script { cast: script.cast.clone(), steps: kept.cloned().collect() };
                if let Some(shorter) = self.fails(&shorter) {
                    script = shorter;
                }
            }
        }
        script
    }

    /// Leaves out what it does not need: runs of steps, half as long each time, until no single one can go.
    fn cut(&mut self, mut script: Script) -> Script {
        let mut length = script.len() / 2;
        while length > 0 && self.plays > 0 {
            let (mut end, before) = (script.len(), script.len());
            // From the end: what comes late needs most of what came before it.
            while end > 0 && self.plays > 0 {
                let from = end.saturating_sub(length);
                let kept = script.steps[..from].iter().chain(&script.steps[end..]);
                let shorter = Script { cast: script.cast.clone(), steps: kept.cloned().collect() };
                if let Some(shorter) = self.fails(&shorter) {
                    script = shorter;
                }
                end = from.min(script.len());
            }
            if length > 1 {
                length /= 2;
            } else if script.len() == before {
                break;
            }
        }
        script
    }

    /// Right clocks and round times, if it fails with them too.
    fn simplify(&mut self, script: &mut Script) {
        let right = |step: &Step| Step { off: 0, ..step.clone() };
        self.adopt(script, right);
        for round in ROUND {
            if self.adopt(script, |step| Step { at: step.at / round * round, ..step.clone() }) {
                break;
            }
        }
    }

    fn adopt(&mut self, script: &mut Script, change: impl Fn(&Step) -> Step) -> bool {
        let steps = script.steps.iter().map(change).collect();
        let other = self.fails(&Script { cast: script.cast.clone(), steps });
        other.map(|other| *script = other).is_some()
    }
}
