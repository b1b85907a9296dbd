//! What becomes of a machine whose disk is doubtful (R2), and of a blank one: whom it joins, if it may.
//!
//! A machine that lost something it had voted must not vote again as who it was. So what is left of it is moved
//! aside, a new incarnation is drawn, and it joins as any blank machine does; V6 then drops the old one. That
//! needs no person as long as it knows somebody to ask. Where it knows nobody, nothing is touched: what is
//! there may be all that there is.

use std::path::Path;

use ennead_ring::node::Birth;
use ennead_ring::view::{Incarnation, Name};
use tokio::sync::mpsc::UnboundedSender;

use crate::node::{NodeConfig, StartError};
use crate::storage::{Options, Restored, Storage, StorageError, StorageEvent, known_peers, move_aside};

/// How many of the machines noted are asked: each is, several times a second, until one takes us along.
const ASKED: usize = 16;

/// The note of a machine that was forced out (F2).
const FORCED_OUT: &str = "forced-out";

/// Opens the data directory; a damaged one as that of a new incarnation, if that one will know whom to join.
///
/// # Errors
/// Those of [`Storage::open`]: damage only where this machine knows no other, or was told to `init` alone.
pub(crate) fn open(
    config: &NodeConfig,
    events: &UnboundedSender<StorageEvent>,
) -> Result<(Storage, Restored), StorageError> {
    let opened = open_storage(config, events);
    let damage = match opened {
        // F2: what it holds is whole, and may vote no more.
        Ok((storage, restored)) => {
            let Some(why) = forced_out(&config.data, restored.incarnation) else {
                return Ok((storage, restored));
            };
            let others = may_ask(config);
            if others.is_empty() {
                return Ok((storage, restored));
            }
            drop(storage);
            let aside = move_aside(&config.data)?;
            erase_note(&config.data);
            let (storage, restored) = open_storage(config, events)?;
            tracing::error!(
                reason = %why,
                moved_to = %aside.display(),
                incarnation = %restored.incarnation,
                joins = ?others,
                "this machine begins again under a new incarnation and joins the cluster. What was there is kept, to be \
                 looked at and removed by hand"
            );
            return Ok((storage, restored));
        }
        Err(error) if error.is_damage() => error,
        other => return other,
    };
    let others = may_ask(config);
    if others.is_empty() {
        return Err(damage);
    }
    let aside = move_aside(&config.data)?;
    let (storage, restored) = open_storage(config, events)?;
    tracing::error!(
        reason = %damage.what(),
        moved_to = %aside.display(),
        incarnation = %restored.incarnation,
        joins = ?others,
        "the data directory is damaged and this machine may have forgotten votes: it begins again under a new \
         incarnation and joins the cluster. What was there is kept, to be looked at and removed by hand"
    );
    Ok((storage, restored))
}

/// How this machine comes to a cluster: as it was told to, and if it has no view, also by asking those that it
/// was with before its directory was emptied.
///
/// # Errors
/// Nobody told it, or it was told to make a cluster of its own where it seems to have been in one (F1).
pub(crate) fn birth(config: &NodeConfig, restored: &Restored) -> Result<Birth, StartError> {
    if !restored.views.is_empty() {
        return Ok(config.birth.clone());
    }
    let others = others(config, &config.birth);
    match &config.birth {
        // F1: it finds out by itself whether those that it is to take along are in a cluster.
        Birth::Init { with, .. } if others.is_empty() || !with.is_empty() => Ok(config.birth.clone()),
        Birth::Init { .. } => Err(StartError::WasMember(config.data.clone())),
        Birth::None if others.is_empty() => Err(StartError::NeedsBirth(config.data.clone())),
        Birth::None | Birth::Join(_) => Ok(Birth::Join(others)),
    }
}

/// The machines that one with a doubtful disk may join. F1: a lone init is refused where there was a cluster.
fn may_ask(config: &NodeConfig) -> Vec<Name> {
    match &config.birth {
        Birth::Init { with, .. } if with.is_empty() => Vec::new(),
        birth => others(config, birth),
    }
}

/// The machines to ask: those it was told to, then some of those noted in the directory.
fn others(config: &NodeConfig, birth: &Birth) -> Vec<Name> {
    let mut noted = known_peers(&config.data);
    // Any of them will do, and another choice at the next start.
    noted.sort_by_cached_key(|_| rand::random::<u64>());
    let mut others: Vec<Name> = match birth {
        Birth::Join(seeds) | Birth::Init { with: seeds, .. } => {
            seeds.iter().copied().filter(|name| *name != config.advertise).collect()
        }
        Birth::None => Vec::new(),
    };
    let most = others.len() + ASKED;
    for name in noted {
        if name != config.advertise && !others.contains(&name) && others.len() < most {
            others.push(name);
        }
    }
    others
}

/// Why the machine of this directory may take part no more under its incarnation (F2), if it may not. A note on
/// another incarnation is about what was moved aside.
fn forced_out(data: &Path, incarnation: Incarnation) -> Option<String> {
    let note = std::fs::read_to_string(data.join(FORCED_OUT)).ok()?;
    let why = note.strip_prefix(&incarnation.to_string())?.strip_prefix(' ')?;
    Some(why.trim().to_owned())
}

/// Notes it, for the next start. Where that fails, the machine hears it from the others once more.
pub(crate) fn note_forced_out(data: &Path, incarnation: Incarnation, why: &str) {
    let path = data.join(FORCED_OUT);
    if let Err(error) = std::fs::write(&path, format!("{incarnation} {why}\n")) {
        tracing::warn!(path = %path.display(), %error, "cannot note that this machine needs a new incarnation");
    }
}

/// It has done its work.
fn erase_note(data: &Path) {
    let path = data.join(FORCED_OUT);
    if path.exists()
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot erase the note that this machine needs a new incarnation");
    }
}

/// Opens the directory as it is.
pub(crate) fn open_storage(
    config: &NodeConfig,
    events: &UnboundedSender<StorageEvent>,
) -> Result<(Storage, Restored), StorageError> {
    let events = events.clone();
    Storage::open(&config.data, Options::with_reserve(config.disk_reserve), move |event| {
        // After the core loop has ended there is nobody to tell.
        let _ = events.send(event);
    })
}

#[cfg(test)]
mod tests;
