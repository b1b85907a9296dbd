//! How much room the disk of the data directory has. A disk may hang: then the last answer stands, and nobody waits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

/// How long an answer stands.
const EVERY: Duration = Duration::from_secs(2);
/// How long the first answer is waited for.
const MOMENT: Duration = Duration::from_millis(100);

/// Bytes free for this process, and bytes in all.
pub(super) type Room = (u64, u64);

/// Looks at the disk, one look at a time.
pub(super) struct Space {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    last: Option<(Instant, Room)>,
    looking: bool,
}

impl Space {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, state: Arc::default() }
    }

    /// The room there is; `None` if the disk has never told.
    pub(super) async fn room(&self) -> Option<Room> {
        {
            let mut state = lock(&self.state);
            let fresh = state.last.is_some_and(|(at, _)| at.elapsed() < EVERY);
            if fresh || state.looking {
                return state.last.map(|(_, room)| room);
            }
            state.looking = true;
        }
        let (path, state) = (self.path.clone(), self.state.clone());
        let look = tokio::task::spawn_blocking(move || {
            let told = statvfs(&path).ok();
            let mut state = lock(&state);
            state.looking = false;
            if let Some(told) = told {
                let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
                state.last = Some((Instant::now(), (bytes(told.f_bavail), bytes(told.f_blocks))));
            }
        });
        // One that takes longer is not given up: it leaves its answer for the next who asks.
        let _ = tokio::time::timeout(MOMENT, look).await;
        lock(&self.state).last.map(|(_, room)| room)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_has_room_and_none_has_none() {
        let (free, all) = Space::of(std::env::temp_dir()).room().await.expect("a disk");
        assert!(free <= all && all > 0);
        assert_eq!(Space::of("/nowhere/at/all".into()).room().await, None);
    }
}
