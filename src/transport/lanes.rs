//! Frames that wait to be written to one other end: three bounded queues, one stream for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::wire::Frame;

/// Values above so many bytes go on a stream of their own, where small frames do not wait behind them.
pub(super) const LARGE: usize = 16 * 1024;

/// Frames whose room an empty queue keeps: that of a burst is given back.
const KEPT: usize = 1024;

/// Which stream of a connection a frame travels on. Order is kept within one only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Nearly everything; opened with the connection.
    Main,
    /// Large values.
    Large,
    /// Pings and their answers: never behind what the core has not taken yet.
    Prompt,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Main, Self::Large, Self::Prompt];

    fn of(frame: &Frame) -> Self {
        match frame {
            Frame::Ping(_) | Frame::Pong { .. } => Self::Prompt,
            frame if frame.value_bytes() > LARGE => Self::Large,
            _ => Self::Main,
        }
    }
}

/// How many frames wait on each lane, towards all other ends together.
pub(super) type Lengths = [AtomicU64; Lane::ALL.len()];

/// The queues towards one machine or client. They outlive a connection: what waits is written to the next one.
pub(super) struct Lanes {
    queues: [Queue; 3],
    /// Kept up with every change, so that to look costs no more with ten thousand of these.
    all: Arc<Lengths>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    /// Something was put in, or the queue was given to another connection.
    stirred: Notify,
    most: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<(Instant, Frame)>,
    /// Bytes of the values in `frames`.
    bytes: usize,
    /// The connection whose writer empties the queue; 0: none.
    owner: u64,
    /// True once nothing more is to come: a writer that finds the queue empty is done.
    ending: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked in here left the queue whole: no step in between can fail.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Queues of at most so many frames each, and so many bytes of values; what waits is counted in `all`, too.
    pub(super) fn new(most: usize, most_bytes: usize, all: Arc<Lengths>) -> Self {
        let queue =
            || Queue { waiting: Mutex::default(), stirred: Notify::new(), most: most.max(1), most_bytes };
        Self { queues: [queue(), queue(), queue()], all }
    }

    /// Puts a frame in its lane. False if it does not fit: then it is dropped.
    pub(super) fn push(&self, frame: Frame) -> bool {
        let lane = Lane::of(&frame) as usize;
        let queue = &self.queues[lane];
        let bytes = frame.value_bytes();
        {
            let mut waiting = queue.lock();
            // One value always fits, however large: the frame limit is another's business.
            let full = waiting.frames.len() >= queue.most
                || (waiting.bytes > 0 && waiting.bytes + bytes > queue.most_bytes);
            if full {
                return false;
            }
            waiting.bytes += bytes;
            waiting.frames.push_back((Instant::now(), frame));
            self.all[lane].fetch_add(1, Relaxed);
        }
        // All are woken, one or two: a writer whose lane is another's now must not swallow the call.
        queue.stirred.notify_waiters();
        true
    }

    /// Takes up to `most` frames out of a lane for the writer of connection `owner`, waiting until the lane is
    /// that connection's and has any. Requests for whose answers nobody waits any more are left out. False once nothing
    /// more is to come.
    pub(super) async fn take(&self, lane: Lane, owner: u64, most: usize, out: &mut Vec<Frame>) -> bool {
        let queue = &self.queues[lane as usize];
        loop {
            // Made before looking, so that nothing that happens after the look is missed.
            let stirred = queue.stirred.notified();
            {
                let mut waiting = queue.lock();
                let n = if waiting.owner == owner { waiting.frames.len().min(most) } else { 0 };
                if n > 0 {
                    let (now, mut bytes) = (Instant::now(), 0);
                    out.extend(waiting.frames.drain(..n).filter_map(|(came, mut frame)| {
                        bytes += frame.value_bytes();
                        frame.waited(now.saturating_duration_since(came)).then_some(frame)
                    }));
                    waiting.bytes -= bytes;
                    self.all[lane as usize].fetch_sub(n as u64, Relaxed);
                    if waiting.frames.is_empty() && waiting.frames.capacity() > KEPT {
                        waiting.frames = VecDeque::new();
                    }
                    return true;
                }
                if waiting.ending {
                    return false;
                }
            }
            stirred.await;
        }
    }

    /// From now on the writers of this connection empty the queues; 0: nobody does.
    pub(super) fn give_to(&self, owner: u64) {
        for queue in &self.queues {
            let changed = std::mem::replace(&mut queue.lock().owner, owner) != owner;
            if changed {
                queue.stirred.notify_waiters();
            }
        }
    }

    /// Lets the writers end when they have written what waits.
    pub(super) fn end(&self) {
        for queue in &self.queues {
            queue.lock().ending = true;
            queue.stirred.notify_waiters();
        }
    }

    /// Drops what has waited longer than this. Returns how many frames that were.
    pub(super) fn drop_older_than(&self, age: Duration) -> usize {
        let now = Instant::now();
        let mut dropped = 0;
        for (queue, all) in self.queues.iter().zip(&*self.all) {
            let mut waiting = queue.lock();
            // They lie in the order of their coming.
            while waiting.frames.front().is_some_and(|(came, _)| now.duration_since(*came) > age) {
                if let Some((_, frame)) = waiting.frames.pop_front() {
                    all.fetch_sub(1, Relaxed);
                    waiting.bytes -= frame.value_bytes();
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// Makes room: drops the oldest until no lane has more than so many. Returns how many frames that were.
    pub(super) fn keep_newest(&self, most: usize) -> usize {
        let mut dropped = 0;
        for (queue, all) in self.queues.iter().zip(&*self.all) {
            let mut waiting = queue.lock();
            while waiting.frames.len() > most {
                if let Some((_, frame)) = waiting.frames.pop_front() {
                    all.fetch_sub(1, Relaxed);
                    waiting.bytes -= frame.value_bytes();
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|q| q.lock().frames.is_empty())
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for (queue, all) in self.queues.iter().zip(&*self.all) {
            all.fetch_sub(queue.lock().frames.len() as u64, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(lanes: &Lanes, owner: u64) -> Option<Vec<Frame>> {
        let mut out = Vec::new();
        lanes.take(Lane::Prompt, owner, 256, &mut out).await.then_some(out)
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_taken() {
        let lanes = Lanes::new(2, 100, Arc::default());
        assert_eq!([1, 2, 3].map(|n| lanes.push(Frame::Ping(n))), [true, true, false]);
        lanes.give_to(1);
        assert_eq!(taken(&lanes, 1).await, Some(vec![Frame::Ping(1), Frame::Ping(2)]));
        assert!(lanes.push(Frame::Ping(4)) && !lanes.is_empty());
    }

    #[tokio::test]
    async fn a_writer_waits_while_the_queue_is_anothers() {
        let lanes = Arc::new(Lanes::new(10, 100, Arc::default()));
        lanes.give_to(1);
        let first = tokio::spawn({
            let lanes = lanes.clone();
            async move { taken(&lanes, 1).await }
        });
        tokio::task::yield_now().await;
        lanes.give_to(2);
        lanes.push(Frame::Ping(1));
        assert_eq!(taken(&lanes, 2).await, Some(vec![Frame::Ping(1)]));
        // The other connection is gone: the first is used again.
        lanes.give_to(1);
        lanes.push(Frame::Ping(2));
        assert_eq!(first.await.unwrap(), Some(vec![Frame::Ping(2)]));
        lanes.push(Frame::Ping(3));
        lanes.end();
        assert_eq!(taken(&lanes, 1).await, Some(vec![Frame::Ping(3)]));
        assert_eq!(taken(&lanes, 1).await, None);
    }

    #[tokio::test]
    async fn what_waits_is_counted_until_it_is_taken_or_dropped() {
        let all = Arc::new(Lengths::default());
        let waiting = || all.each_ref().map(|n| n.load(Relaxed));
        let (one, other) = (Lanes::new(10, 100, all.clone()), Lanes::new(10, 100, all.clone()));
        for n in 0..11 {
            one.push(Frame::Ping(n));
            other.push(Frame::HealthAsk);
        }
        assert_eq!(waiting(), [10, 0, 10], "the eleventh finds no room");
        one.give_to(1);
        assert_eq!((taken(&one, 1).await.map(|frames| frames.len()), waiting()), (Some(10), [10, 0, 0]));
        assert_eq!((other.keep_newest(7), waiting()), (3, [7, 0, 0]));
        drop(other);
        assert_eq!(waiting(), [0, 0, 0]);
        one.push(Frame::Ping(1));
        assert_eq!((one.drop_older_than(Duration::ZERO), waiting()), (1, [0, 0, 0]));
    }

    #[test]
    fn the_old_goes_first() {
        let lanes = Lanes::new(10, 100, Arc::default());
        for n in 0..10 {
            lanes.push(Frame::Ping(n));
        }
        assert_eq!(lanes.drop_older_than(Duration::from_secs(3600)), 0);
        assert_eq!(lanes.keep_newest(3), 7);
        assert_eq!(lanes.drop_older_than(Duration::ZERO), 3);
        assert!(lanes.is_empty());
    }
}
