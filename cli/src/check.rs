//! Compares every copy of every key, on every machine, to the end; says who found what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::CheckAnswer;
use ennead::status::{CheckStatus, PeerState};
use ennead::units::show_duration;
use ennead_ring::message::Purpose;
use serde_json::{Value, json};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::{Verdict, connect};
use ennead::moving::Accounts;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// A machine that has begun and is heard no more for so long is given up. A busy one may miss a look or two.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// Looks after a round in which what it found unlike may still be settled.
const GRACE: u32 = 10;

/// Runs it on all machines; "no" if copies were not alike, or not all could be looked at.
pub(crate) async fn run(global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let began = Instant::now();
    let deadline = began + global.patience();
    let mut found: BTreeMap<Name, Found> =
        client.check().await?.into_iter().map(|(name, answer)| (name, Found::new(answer))).collect();
    while found.values().any(|found| found.is_open()) {
        if Instant::now() >= deadline {
            output.no_progress();
            let time = show_duration(global.patience());
            let word =
                "the comparison goes on by itself, 'kvctl moves' shows it; no copy is the worse for it";
            return Err(Failure::TimeOver(format!("after {time} not every copy has been compared; {word}")));
        }
        tokio::time::sleep(EVERY).await;
        // Nobody reached for a moment: the deadline is the end of that.
        if let Ok(accounts) = client.status().await {
            let now = Instant::now();
            found.iter_mut().for_each(|(name, found)| found.look(*name, &accounts, now));
        }
        let keys: u64 = found.values().map(|found| found.told.keys).sum();
        let open = found.values().filter(|found| found.is_open()).count();
        let waits: BTreeSet<Name> =
            found.values().flat_map(|found| found.waits_for.iter().copied()).collect();
        let waits: Vec<String> = waits.iter().map(ToString::to_string).collect();
        let waits =
            if waits.is_empty() { String::new() } else { format!("; waits for {}", waits.join(", ")) };
        output.progress(&format!("{keys} keys compared; {open} machines go on{waits}"));
    }
    output.no_progress();
    match output.json {
        true => output.print_json(&to_json(&found, began.elapsed()))?,
        false => output.data(to_text(&found, began.elapsed()).as_bytes())?,
    }
    Ok(if found.values().all(Found::is_alike) { Verdict::Yes } else { Verdict::No })
}

/// What one machine found of the keys whose first slot it owns.
struct Found {
    /// How it stood before this round.
    before: CheckStatus,
    /// Why it looked at nothing, or not to the end.
    trouble: Option<String>,
    /// Since when it does not say how far it is.
    silent: Option<Instant>,
    done: bool,
    /// Looks for which what was unlike may still be mended after the round.
    grace: u32,
    told: CheckStatus,
    waits_for: Vec<Name>,
}

impl Found {
    fn new(answer: CheckAnswer) -> Self {
        let (before, trouble) = match answer {
            CheckAnswer::Begun(before) => (before, None),
            CheckAnswer::Refused(why) | CheckAnswer::Silent(why) => (CheckStatus::default(), Some(why)),
        };
        Self {
            before,
            trouble,
            silent: None,
            done: false,
            grace: GRACE,
            told: CheckStatus::default(),
            waits_for: Vec::new(),
        }
    }

    fn is_open(&self) -> bool {
        !self.done && self.trouble.is_none()
    }

    fn is_alike(&self) -> bool {
        self.done && self.told.unlike == 0
    }

    fn look(&mut self, name: Name, accounts: &Accounts, now: Instant) {
        if !self.is_open() {
            return;
        }
        let account = accounts.iter().find(|(n, _)| *n == name).map(|(_, account)| account);
        let silent = matches!(account, Some(Err(_))).then(|| self.silent.unwrap_or(now));
        self.silent = silent;
        match account {
            // Begun again meanwhile, its counts too: what it looks at now it does to the end as well.
            Some(Ok(account)) if account.check.rounds < self.before.rounds => {
                self.before = CheckStatus::default()
            }
            Some(Ok(account)) => {
                self.told = CheckStatus {
                    mended: account.check.mended.saturating_sub(self.before.mended),
                    collected: account.check.collected.saturating_sub(self.before.collected),
                    ..account.check
                };
                // A round that was under way then is followed by a whole one.
                let over = account.check.rounds > self.before.rounds + u64::from(self.before.running);
                self.grace -= u32::from(over && self.grace > 0);
                self.done = over && (self.told.mended >= self.told.unlike || self.grace == 0);
                let checks: Vec<_> = account.moves.iter().filter(|m| m.purpose == Purpose::Check).collect();
                if !over {
                    self.told.keys = checks.iter().map(|m| m.keys).sum();
                }
                // Copies are compared while everybody is there: until then it waits for whom it misses.
                let missed = account.peers.iter().filter(|p| p.state != PeerState::Up).map(|p| p.name);
                self.waits_for =
                    checks.iter().flat_map(|m| m.waits_for.iter().copied()).chain(missed).collect();
            }
            Some(Err(why)) if silent.is_some_and(|since| since + SILENT_FOR <= now) => {
                self.trouble = Some(why.clone());
            }
            Some(Err(_)) => {}
            None => self.trouble = Some("it is no member any more".to_string()),
        }
    }

    fn result(&self) -> String {
        match (&self.trouble, self.told.unlike) {
            (Some(why), _) => format!("not compared: {why}"),
            (None, 0) => "all alike".to_string(),
            (None, unlike) if self.told.mended >= unlike => "alike again".to_string(),
            (None, unlike) => format!("{} are still unlike", unlike - self.told.mended),
        }
    }
}

fn to_text(found: &BTreeMap<Name, Found>, took: Duration) -> String {
    let head = ["MACHINE", "KEYS", "UNLIKE", "MENDED", "COLLECTED", "RESULT"].map(String::from).to_vec();
    let row = |(name, found): (&Name, &Found)| {
        let CheckStatus { keys, unlike, mended, collected, .. } = found.told;
        let counts = [keys, unlike, mended, collected].map(|n| n.to_string());
        [vec![name.to_string()], counts.to_vec(), vec![found.result()]].concat()
    };
    let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
    let sum = |of: fn(&CheckStatus) -> u64| found.values().map(|found| of(&found.told)).sum::<u64>();
    let left = found.values().filter(|found| found.trouble.is_some()).count();
    let missing = match left {
        0 => String::new(),
        1 => "; 1 machine compared nothing".to_string(),
        n => format!("; {n} machines compared nothing"),
    };
    format!(
        "{}\n{} keys compared in {}: {} unlike, {} mended{missing}\n",
        table(&rows),
        sum(|c| c.keys),
        show_duration(took),
        sum(|c| c.unlike),
        sum(|c| c.mended)
    )
}

fn to_json(found: &BTreeMap<Name, Found>, took: Duration) -> Value {
    let machine = |(name, found): (&Name, &Found)| {
        json!({
            "name": name.to_string(),
            "keys": found.told.keys,
            "unlike": found.told.unlike,
            "mended": found.told.mended,
            "collected": found.told.collected,
            "error": found.trouble,
        })
    };
    json!({
        "alike": found.values().all(Found::is_alike),
        "machines": found.iter().map(machine).collect::<Vec<_>>(),
        "seconds": took.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_misses_a_look_is_waited_for_and_who_is_silent_is_given_up() {
        let name: Name = "10.0.0.1".parse().expect("a name");
        let begun = || Found::new(CheckAnswer::Begun(CheckStatus::default()));
        let silent = [(name, Err("no answer".to_owned()))];
        let (start, moment) = (Instant::now(), Duration::from_millis(1));

        let mut found = begun();
        found.look(name, &silent, start);
        found.look(name, &silent, start + SILENT_FOR - moment);
        assert!(found.is_open(), "a busy machine may be late");
        found.look(name, &silent, start + SILENT_FOR);
        assert_eq!((found.is_open(), found.trouble.as_deref()), (false, Some("no answer")));

        let mut found = begun();
        found.look(name, &[], start);
        assert_eq!(found.trouble.as_deref(), Some("it is no member any more"));
    }
}
