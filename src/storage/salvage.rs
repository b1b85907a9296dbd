//! Moves a damaged directory's content aside, for a person to look at, so that a new incarnation can begin (R2).
//!
//! Whenever this is cut off, the next process finds the directory damaged still and goes on into the same folder,
//! or finds it blank: the journal goes first and the mark last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::sync_directory;
use super::error::StorageError;
use super::home::{DAMAGED, DOUBT, Home, JOURNAL, MARK, MARK_NEW, RECORDS, damaged_at};

/// Moves what there is of a machine into `damaged-<Unix time>`, drops what was moved aside before, and returns
/// where it is now. The names of the members stay.
///
/// # Errors
/// In use by another process; any failure of the disk. What was moved by then will be found where it is.
pub(crate) fn move_aside(folder: &Path) -> Result<PathBuf, StorageError> {
    let home = Home::lock(folder)?;
    let moved = (|| {
        let (aside, older) = choose(folder)?;
        fs::create_dir_all(&aside)?;
        sync_directory(folder)?;
        for name in [JOURNAL, RECORDS, DOUBT] {
            rename(folder, &aside, name)?;
        }
        // Before the mark goes: a creation under way, and so still a directory of ours.
        File::create(folder.join(MARK_NEW))?.sync_all()?;
        sync_directory(folder)?;
        rename(folder, &aside, MARK)?;
        Ok((aside, older))
    })();
    let (aside, older) = moved.map_err(|e| StorageError::io(folder, "moving the damaged data aside", e))?;
    home.unlock();
    for old in older {
        if let Err(error) = fs::remove_dir_all(&old) {
            tracing::warn!(path = %old.display(), %error, "what was moved aside earlier cannot be removed");
        }
    }
    Ok(aside)
}

/// Where to, and what was moved aside before.
fn choose(folder: &Path) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let mut times = Vec::new();
    for item in fs::read_dir(folder)? {
        times.extend(item?.file_name().to_str().and_then(damaged_at));
    }
    times.sort_unstable();
    let path = |time: u64| folder.join(format!("{DAMAGED}{time}"));
    // The mark goes last, so one without it was cut off.
    let unfinished = times.pop_if(|newest| !path(*newest).join(MARK).exists());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A clock that was set back must not make the newest look older than the others.
    let after = times.last().map_or(0, |newest| newest.saturating_add(1));
    let to = unfinished.unwrap_or(now.max(after));
    Ok((path(to), times.into_iter().map(path).collect()))
}

/// Moves it, if it is there, and returns once that is on disk.
fn rename(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    match fs::rename(from.join(name), to.join(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_directory(to)?;
    sync_directory(from)
}
