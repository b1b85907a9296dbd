//! What all machines say. They are asked at most once a second, whoever asks us, and not at all while nobody does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::{Opened, page};
use crate::Name;
use crate::certs::Identity;
use crate::client::{Client, ClientOptions, Error};
use crate::moving::Rates;
use crate::summary::Summary;
use crate::verdict::Verdict;

/// How long an answer stands.
const FRESH: Duration = Duration::from_millis(900);
/// Failures that are remembered.
const FAILURES: usize = 32;

/// What was said at one time.
pub(super) struct Told {
    /// As `kvctl status --json` prints it.
    pub(super) status: Value,
    /// What the status page shows.
    pub(super) page: String,
}

/// Asks them.
pub(super) struct Cluster {
    me: Name,
    options: ClientOptions,
    identity: Identity,
    client: OnceCell<Client>,
    /// Held while they are asked: who comes meanwhile gets the same answer.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    told: Option<Result<Arc<Told>, Error>>,
    rates: Rates,
    failures: Failures,
}

impl Cluster {
    pub(super) fn new(opened: &Opened) -> Self {
        let me = opened.options.peers.first().copied().unwrap_or(Name::new(opened.config.listen));
        Self {
            me,
            options: opened.options.clone(),
            identity: opened.identity.clone(),
            client: OnceCell::new(),
            last: Mutex::default(),
        }
    }

    /// A client of the cluster, made when it is first needed: most machines are only scraped.
    pub(super) async fn client(&self) -> Result<&Client, Error> {
        self.client
            .get_or_try_init(|| async { Client::unconnected(self.options.clone(), self.identity.clone()) })
            .await
    }

    /// How all machines are.
    pub(super) async fn look(&self) -> Result<Arc<Told>, Error> {
        let mut last = self.last.lock().await;
        if let Some(told) = &last.told
            && last.at.is_some_and(|at| at.elapsed() < FRESH)
        {
            return told.clone();
        }
        let told = self.ask(&mut last).await.map(Arc::new);
        last.at = Some(Instant::now());
        last.told = Some(told.clone());
        told
    }

    async fn ask(&self, last: &mut Last) -> Result<Told, Error> {
        let client = self.client().await?;
        let view = client.view().await?;
        let accounts = client.status().await?;
        let mut summary = Summary::of(&view, &accounts);
        let verdicts = summary.explain(client).await;
        let moves = last.rates.look(&accounts, Instant::now());
        last.failures.note(verdicts, |name| view.index_of(name).is_some());
        let status = summary.to_json(&view, &moves);
        let page = page::view(self.me, &status, &view, &accounts, last.failures.all());
        Ok(Told { status, page: page.to_string() })
    }
}

/// The last failure of each machine that had one while somebody looked, or that others remember.
#[derive(Default)]
struct Failures(BTreeMap<Name, (Option<u64>, Value)>);

impl Failures {
    /// Takes in what is known now. Of those that are no members any more, nothing new is told.
    fn note(&mut self, verdicts: Vec<Verdict>, is_member: impl Fn(Name) -> bool) {
        for (name, (_, told)) in &mut self.0 {
            told["member"] = json!(is_member(*name));
        }
        for verdict in verdicts {
            if verdict.word.is_some() {
                let mut told = verdict.to_json();
                // Long, and for `kvctl why`.
                told["report"] = Value::Null;
                told["member"] = json!(is_member(verdict.machine));
                self.0.insert(verdict.machine, (verdict.at_ms, told));
            } else if let Some((_, told)) = self.0.get_mut(&verdict.machine) {
                told["up"] = json!(true);
            }
        }
        while self.0.len() > FAILURES {
            let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| *name) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }

    /// Those of now first, then the newest.
    fn all(&self) -> Vec<&Value> {
        let mut all: Vec<_> = self.0.values().collect();
        let over = |told: &Value| told["up"] == json!(true) || told["member"] == json!(false);
        all.sort_by_key(|(at, told)| (over(told), std::cmp::Reverse(*at)));
        all.into_iter().map(|(_, told)| told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Word;

    fn verdict(n: u8, word: Option<Word>, up: bool, at_ms: u64) -> Verdict {
        Verdict {
            machine: format!("10.0.0.{n}").parse().expect("a name"),
            word,
            up,
            at_ms: Some(at_ms),
            sentence: "it is so".to_owned(),
            detected_by: Vec::new(),
            evidence: Vec::new(),
            report: None,
            until_ms: None,
            earlier: Vec::new(),
        }
    }

    #[test]
    fn a_failure_is_remembered_when_it_is_over_and_those_of_now_come_first() {
        let mut failures = Failures::default();
        let killed = verdict(2, Some(Word::Killed), false, 5);
        failures.note(vec![verdict(1, Some(Word::Paused), false, 9), killed.clone()], |_| true);
        failures.note(vec![verdict(1, None, true, 20), killed], |_| true);
        let all = failures.all();
        assert_eq!((&all[0]["machine"], &all[0]["up"]), (&json!("10.0.0.2"), &json!(false)));
        assert_eq!((&all[1]["verdict"], &all[1]["up"]), (&json!("paused"), &json!(true)));
        // The ring does without it.
        failures.note(vec![verdict(1, None, true, 40)], |name| name.to_string() != "10.0.0.2");
        let gone = |told: &&Value| told["member"] == json!(false);
        assert_eq!(failures.all().into_iter().filter(gone).count(), 1);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut failures = Failures::default();
        failures.note((0..99).map(|n| verdict(n, Some(Word::Exit), false, n.into())).collect(), |_| true);
        let all = failures.all();
        assert_eq!((all.len(), &all[0]["machine"]), (FAILURES, &json!("10.0.0.98")));
    }
}
