//! Certificates that change while an endpoint lives: it notices, and shows the new ones to whom it meets from then on.
//!
//! Connections that are open go on: they were proven when they were made. What does not fit together (half of a pair, a
//! stranger's, an expired one) is refused with a reason, and the old ones are used on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::peers::Shared;
use crate::certs::{self, Identity, Who};

/// Between two looks at the files. What changed is taken when it has not changed any more since the look before.
const EVERY: Duration = Duration::from_secs(1);

/// How an endpoint stands with its certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificates {
    /// Seconds since 1970 after which those in use are of no use.
    pub expires: i64,
    /// How often they were changed for others since the endpoint was made.
    pub renewed: u64,
    /// Why those in the folder are not used.
    pub refused: Option<String>,
}

/// The certificates in use.
pub(super) struct InUse {
    identity: Identity,
    renewed: u64,
    refused: Option<String>,
}

impl InUse {
    pub(super) fn new(identity: Identity) -> Mutex<Self> {
        Mutex::new(Self { identity, renewed: 0, refused: None })
    }
}

impl Shared {
    pub(super) fn certificates(&self) -> Certificates {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let InUse { identity, renewed, refused } = &*in_use;
        Certificates { expires: identity.expires(), renewed: *renewed, refused: refused.clone() }
    }

    /// False for a machine's own client, which has the same files: one of them says what became of them.
    fn speaks(&self) -> bool {
        self.config.listen.is_some() || matches!(self.config.identity.who(), Who::Client(_))
    }

    /// Takes what is in the folder now, if it is something else and fits.
    fn renew(&self, dir: &Path) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let who = in_use.identity.who().clone();
        let found = Identity::load(dir, who).and_then(|found| found.check(dir).map(|()| found));
        let taken = match found {
            Ok(found) if found.is_same(&in_use.identity) => {
                in_use.refused = None;
                return;
            }
            Ok(found) => self.show(&found).map(|()| found).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(found) => {
                let days = (found.expires() - crate::clock::since_1970().as_secs() as i64) / 86_400;
                if self.speaks() {
                    tracing::info!(who = %found.who(), days, "new certificates are in use");
                }
                *in_use = InUse { identity: found, renewed: in_use.renewed + 1, refused: None };
            }
            Err(why) => {
                if self.speaks() {
                    tracing::error!(
                        why,
                        "the certificates in the folder are not used; those before are used on"
                    );
                }
                in_use.refused = Some(why);
            }
        }
    }
}

/// Looks at the files now and then, for as long as the endpoint lives.
pub(super) async fn watch(shared: Weak<Shared>, dir: PathBuf) {
    let Some(who) = shared.upgrade().map(|shared| shared.config.identity.who().clone()) else { return };
    // What is in use may be older than what is there.
    let (mut taken, mut before) = (None, None);
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let (dir, who) = (dir.clone(), who.clone());
        // A disk that hangs must not keep the loop, which may be on this thread, from its work.
        let look = tokio::task::spawn_blocking(move || {
            let now = Some(certs::stamp(&dir, &who));
            if now == before && now != taken {
                taken = now;
                Arc::clone(&shared).renew(&dir);
            }
            (taken, now)
        });
        let Ok(seen) = look.await else { return };
        (taken, before) = seen;
    }
}
