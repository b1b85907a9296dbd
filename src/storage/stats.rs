//! What storage is doing and how the disk does, for metrics and for naming a slow disk.

use std::time::Duration;

/// Buckets by powers of two: bucket i counts what is at least 2^i and below 2^(i+1); zero counts as one.
pub type Histogram = [u64; 32];

/// A reading of the counters. They start at zero when the storage is opened.
#[derive(Clone, Debug, Default)]
pub struct StorageStats {
    /// Changes handed in and not durable yet.
    pub queued: u64,
    /// Changes made durable.
    pub durable: u64,
    /// Groups written: one fsync each.
    pub groups: u64,
    /// Changes per group.
    pub group_sizes: Histogram,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Journal files, used or not.
    pub journal_files: u64,
    /// How long the last write and fsync of the journal took.
    pub fsync_last: Duration,
    /// The longest one.
    pub fsync_max: Duration,
    /// All of them together.
    pub fsync_total: Duration,
    /// Their times in microseconds.
    pub fsync_micros: Histogram,
    /// How long the one now under way has been going on: a disk that hangs shows here first.
    pub fsync_running: Option<Duration>,
    /// Memory, roughly, of what is durable in the journal and not yet in the ordered store.
    pub overlay_bytes: u64,
    /// Batches applied to the ordered store.
    pub applied: u64,
    /// How long the last batch took.
    pub apply_last: Duration,
    /// How often acknowledgements waited for the ordered store: the disk cannot keep up.
    pub slowed: u64,
    /// Times that tables of the ordered store were merged.
    pub merges: u64,
    /// A table could not be merged because it cannot be read: a rotten disk. Merging stops until a restart.
    pub merge_blocked: bool,
    /// Loads answered from the disk, or by its silence.
    pub disk_loads: u64,
    /// Loads that found a record nobody can read (R3).
    pub unreadable: u64,
    /// Records kept, roughly: one that was replaced may count twice for a while.
    pub records: u64,
    /// Bytes of the ordered store on disk.
    pub record_bytes: u64,
}

/// Counts `value` in its bucket.
pub(super) fn count(histogram: &mut Histogram, value: u64) {
    histogram[(value.max(1).ilog2() as usize).min(31)] += 1;
}
