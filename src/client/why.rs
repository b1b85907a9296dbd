//! What the cluster knows of a machine's failures: testimonies from all who answer, and the crash reports in the ring.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ennead_ring::Key;
use ennead_ring::view::Name;

use super::link::Reply;
use super::{Client, Error, read};
use crate::clock::unix_ms;
use crate::crash::{self, Report};
use crate::errands::{CRASHES, crash_key};
use crate::transport::To;
use crate::verdict::{Case, Testimony, Verdict, judge};
use crate::wire::Frame;

/// How long those who have not answered are waited for when most have.
const LINGER: Duration = Duration::from_millis(400);

impl Client {
    /// Why a machine failed, or is not well: the verdict on what all who answer know.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn why(&self, machine: Name) -> Result<Verdict, Error> {
        let case = self.case(machine).await?;
        Ok(judge(&case))
    }

    /// What all who answer know of a machine, and its crash reports.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn case(&self, machine: Name) -> Result<Case, Error> {
        let deadline = self.deadline();
        let view = self.link.fetch_view(deadline).await?.view.clone();
        let mut whom: Vec<Name> = view.members().iter().map(|m| m.machine.name).collect();
        let member = whom.contains(&machine);
        if !member {
            // It may be there all the same.
            whom.push(machine);
        }
        let (told, reports) = tokio::join!(self.testimonies(machine, &whom, deadline), self.crashes(machine));
        let mut case = Case {
            name: machine,
            member,
            own: None,
            others: Vec::new(),
            unanswered: Vec::new(),
            // Without a quorum there are the testimonies.
            reports: reports.unwrap_or_default(),
            now_ms: unix_ms(),
        };
        for (name, told) in told {
            match told {
                Ok(testimony) if name == machine => case.own = Some(testimony),
                Ok(testimony) => case.others.push(testimony),
                Err(why) => case.unanswered.push((name, why)),
            }
        }
        Ok(case)
    }

    async fn testimonies(
        &self,
        of: Name,
        whom: &[Name],
        deadline: Instant,
    ) -> Vec<(Name, Result<Testimony, String>)> {
        let mut replies = self.link.question();
        let mut told: BTreeMap<Name, Result<Testimony, String>> = BTreeMap::new();
        for name in whom {
            told.insert(*name, Err("no answer".to_owned()));
            self.link.transport.send(To::Machine(*name), Frame::WhyAsk { ask: replies.ask.0, of });
        }
        let mut open: BTreeSet<Name> = whom.iter().copied().collect();
        let mut until = deadline;
        while !open.is_empty() {
            let Ok((name, reply)) = tokio::time::timeout_at(until.into(), replies.next()).await else {
                break;
            };
            match reply {
                // A machine speaks for itself.
                Reply::Why(testimony) if testimony.by == name => {
                    told.insert(name, Ok(*testimony));
                    open.remove(&name);
                    if 2 * open.len() < whom.len() {
                        until = until.min(Instant::now() + LINGER);
                    }
                }
                Reply::Down(reason) if open.remove(&name) => {
                    told.insert(name, Err(reason));
                }
                Reply::Down(_) | Reply::Ring(_) | Reply::Status(_) | Reply::Why(_) | Reply::Check { .. } => {}
            }
        }
        told.into_iter().collect()
    }

    /// The crash reports of a machine that the ring keeps, newest first.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn crashes(&self, machine: Name) -> Result<Vec<Report>, Error> {
        Ok(self
            .reserved(&crash_key(&machine.to_string()))
            .await?
            .map_or_else(Vec::new, |l| crash::reports(&l)))
    }

    /// The machines of which the ring keeps crash reports.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn crashed(&self) -> Result<Vec<Name>, Error> {
        let names = self.reserved(CRASHES).await?.map_or_else(Vec::new, |l| crash::names(&l));
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Reads a key of the cluster's own. Only machines write them.
    async fn reserved(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = Key::new(key).map_err(|e| Error::Invalid(e.to_string()))?;
        let record = read::quorum(&self.link, &key, self.deadline()).await?;
        Ok(record.map(|record| record.value.to_vec()))
    }
}
