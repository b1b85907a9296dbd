//! Restarts the parts of a node that panic, and says when that is no use (OTP's intensity and period).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many restarts of one part are bearable within how long. More end the node, with the last panic as its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intensity {
    pub(crate) restarts: usize,
    pub(crate) within: Duration,
}

impl Default for Intensity {
    /// Five within a minute: a part that dies of one bad input lives on, one that dies at every start does not.
    fn default() -> Self {
        Self { restarts: 5, within: Duration::from_secs(60) }
    }
}

/// The restarts of one part.
#[derive(Debug)]
pub(crate) struct Restarts {
    part: &'static str,
    intensity: Intensity,
    recent: VecDeque<Instant>,
    total: u32,
}

impl Restarts {
    pub(crate) fn of(part: &'static str) -> Self {
        Self { part, intensity: Intensity::default(), recent: VecDeque::new(), total: 0 }
    }

    /// A part has died. Reports it, and says whether it may be started again.
    ///
    /// # Errors
    /// The reason to end the node with, once there were too many.
    pub(crate) fn another(&mut self, last_words: &str, now: Instant) -> Result<(), String> {
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= self.intensity.within) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.total += 1;
        let (part, Intensity { restarts, within }) = (self.part, self.intensity);
        if self.recent.len() > restarts {
            return Err(format!(
                "the {part} died {} times within {within:?}, the last time of: {last_words}",
                self.recent.len()
            ));
        }
        tracing::error!(
            part,
            last_words,
            restart = self.total,
            "a part of this node died and is started again"
        );
        Ok(())
    }

    /// Restarts since the node started.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }
}

/// Runs a part as a task of its own, and begins it again after each panic, until it ends by itself.
///
/// # Errors
/// The reason to end the node with, once it has died too often.
pub(crate) async fn keep<F>(restarts: &Mutex<Restarts>, mut begin: impl FnMut() -> F) -> Result<(), String>
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Err(end) = tokio::spawn(begin()).await else { return Ok(()) };
        // Cancelled: the runtime itself is ending.
        let Ok(panic) = end.try_into_panic() else { return Ok(()) };
        restarts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .another(&last_words(&*panic), Instant::now())?;
    }
}

/// Whether a part lives: kept by who begins it, seen by whoever looks, though the part that they would ask may be dead.
#[derive(Clone, Default, Debug)]
pub(crate) struct Alive(Arc<AtomicBool>);

impl Alive {
    /// It lives from now until this is dropped: by a panic, too.
    pub(crate) fn begin(&self) -> Life {
        self.0.store(true, Relaxed);
        Life(self.clone())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// One life of a part, of which there is one at a time.
#[derive(Debug)]
pub(crate) struct Life(Alive);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.0.store(false, Relaxed);
    }
}

/// What a panic said.
pub(crate) fn last_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_die_now_and_then_but_not_again_and_again() {
        let mut restarts = Restarts::of("core loop");
        let start = Instant::now();
        for minute in 0..20 {
            assert_eq!(restarts.another("now and then", start + Duration::from_secs(60 * minute)), Ok(()));
        }
        let later = start + Duration::from_secs(7_200);
        for second in 0..5 {
            assert_eq!(restarts.another("again", later + Duration::from_secs(second)), Ok(()));
        }
        let reason = restarts.another("and again", later + Duration::from_secs(6)).unwrap_err();
        assert_eq!(reason, "the core loop died 6 times within 60s, the last time of: and again");
        assert_eq!(restarts.total(), 26);
    }

    #[tokio::test]
    async fn a_part_is_begun_again_until_it_ends_by_itself_or_dies_too_often() {
        let restarts = Mutex::new(Restarts::of("listener"));
        let mut begun = 0;
        let ended = keep(&restarts, || {
            begun += 1;
            let life = begun;
            async move { assert!(life == 3, "life {life}") }
        });
        assert_eq!(ended.await, Ok(()));
        assert_eq!((begun, restarts.lock().unwrap().total()), (3, 2));

        let restarts = Mutex::new(Restarts::of("listener"));
        let reason = keep(&restarts, || async { panic!("always") }).await.unwrap_err();
        assert_eq!(reason, "the listener died 6 times within 60s, the last time of: always");
    }

    #[tokio::test]
    async fn a_part_is_alive_until_it_ends_whether_by_itself_or_by_a_panic() {
        let (alive, restarts) = (Alive::default(), Mutex::new(Restarts::of("listener")));
        assert!(!alive.is_alive(), "it has not begun");
        let mut begun = 0;
        let ended = keep(&restarts, || {
            assert!(!alive.is_alive(), "the one before is dead");
            begun += 1;
            let (life, alive) = (begun, alive.clone());
            async move {
                let _life = alive.begin();
                assert!(life == 3 && alive.is_alive(), "life {life}");
            }
        });
        assert_eq!(ended.await, Ok(()));
        assert!(!alive.is_alive());
    }

    #[test]
    fn last_words_are_kept_whatever_was_thrown() {
        let panic = std::panic::catch_unwind(|| panic!("slot {}", 3)).unwrap_err();
        assert_eq!(last_words(&*panic), "slot 3");
        let panic = std::panic::catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(last_words(&*panic), "a panic without words");
    }
}
