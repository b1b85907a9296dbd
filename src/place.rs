//! The weight and the zone with which a machine was started: asked for where they are other than at its last start.
//!
//! What counts is the view, which an operator may have changed since (`kvctl weight`): so the machine notes what it was
//! started with, in `DATA/place`, once a view shows it, and asks for nothing while that stays so. A note that is lost or
//! damaged costs a wish for what the settings say.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ennead_ring::message::Wish;
use ennead_ring::{Machine, MemberState, Zone};

use crate::client::Client;

/// Between two looks at the view: the wardens keep a wish for ten seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sees to it that the view has this machine with the weight and in the zone that it was started with.
pub(crate) async fn keep(client: Client, machine: Machine, place: (u32, Zone), data: PathBuf) {
    let note = data.join("place");
    if read(&note) == Some(place) {
        return;
    }
    let (weight, zone) = place;
    let mut said = false;
    loop {
        let view = client.view().await.ok();
        let member = view.and_then(|view| view.members().iter().find(|m| m.machine == machine).copied());
        match member {
            Some(member) if member.next_place() == place => {
                if let Err(error) = fs::write(&note, print(place)) {
                    tracing::warn!(path = %note.display(), %error, "cannot note weight and zone of this start");
                }
                return;
            }
            Some(member) if member.state == MemberState::Up => {
                let asked = client.wish(Wish::Place { machine, weight, zone }).await;
                if !said {
                    let refused = asked.err().map(|error| error.to_string());
                    tracing::info!(weight, %zone, refused, "the settings differ from the view: asking for them");
                    said = true;
                }
            }
            _ => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print((weight, zone): (u32, Zone)) -> String {
    format!("{weight} {zone}\n")
}

fn read(note: &Path) -> Option<(u32, Zone)> {
    let text = fs::read_to_string(note).ok()?;
    let (weight, zone) = text.trim_end().split_once(' ')?;
    Some((weight.parse().ok()?, zone.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written_and_rot_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let note = dir.path().join("place");
        assert_eq!(read(&note), None);
        for place in [(64, Zone::NONE), (1, "rack-7".parse().expect("a zone"))] {
            fs::write(&note, print(place)).expect("a note");
            assert_eq!(read(&note), Some(place));
        }
        for rot in ["", "64", "64 two words", "many -"] {
            fs::write(&note, rot).expect("a note");
            assert_eq!(read(&note), None, "{rot:?}");
        }
    }
}
