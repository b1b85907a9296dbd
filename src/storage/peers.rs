//! The names of the members, in a file of their own: whom to ask should the rest of the directory be lost.
//!
//! A hint, never state: what is wrong in it costs a question to the wrong machine, and what is missing is asked
//! of a person.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use ennead_ring::View;
use ennead_ring::view::{MAX_MEMBERS, Name};

use super::disk::sync_directory;
use super::home::{PEERS, PEERS_NEW};

/// Bytes of the longest name and its end of line, and more.
const LONGEST: usize = 64;
const CAPTION: &str =
    "# The machines of this cluster, as of the newest view: whom to join should the data here be damaged.";

/// Notes the members of a view, in place of those of the former one.
pub(super) fn note(folder: &Path, view: &View) {
    let write = || -> io::Result<()> {
        let mut text = format!("{CAPTION}\n");
        for member in view.members() {
            text.push_str(&format!("{}\n", member.machine.name));
        }
        let new = folder.join(PEERS_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, folder.join(PEERS))?;
        sync_directory(folder)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the names of the members could not be noted in the data directory");
    }
}

/// The machines noted in this directory; none if there is no such note.
pub(crate) fn known(folder: &Path) -> Vec<Name> {
    let mut text = Vec::new();
    let most = (MAX_MEMBERS * LONGEST) as u64;
    match File::open(folder.join(PEERS)).and_then(|file| file.take(most).read_to_end(&mut text)) {
        // A line that is no name is a comment, or rot.
        Ok(_) => String::from_utf8_lossy(&text).lines().filter_map(|line| line.trim().parse().ok()).collect(),
        Err(_) => Vec::new(),
    }
}
