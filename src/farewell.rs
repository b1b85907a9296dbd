//! A note in the data directory of a machine that has left its ring, for whoever would start it again.
//!
//! Supervisors (a unit's `ConditionPathExists=`, `ennead dev`) look for it. What counts is in the directory's own
//! account: a note that cannot be written or erased changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use ennead_ring::view::Epoch;

/// Where the note is.
pub(crate) fn note(data: &Path) -> PathBuf {
    data.join("left")
}

/// True if the machine of this directory has left its ring.
pub(crate) fn is_written(data: &Path) -> bool {
    note(data).exists()
}

pub(crate) fn write(data: &Path, epoch: Epoch) {
    let text = format!(
        "This machine has left its ring (epoch {epoch}); the others have all that it held.\n\
         'ennead serve --join IP' lets it come in again. Otherwise this directory may be removed.\n"
    );
    if let Err(error) = fs::write(note(data), text) {
        tracing::warn!(path = %note(data).display(), %error, "cannot leave a note that this machine has left");
    }
}

/// It starts again, so it has not left, or comes back.
pub(crate) fn erase(data: &Path) {
    if is_written(data)
        && let Err(error) = fs::remove_file(note(data))
    {
        tracing::warn!(path = %note(data).display(), %error, "cannot erase the note that this machine has left");
    }
}
