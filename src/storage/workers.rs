//! The threads: one makes changes durable, one applies them, one merges, one reads, one scans. All sleep when idle.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ennead_ring::{Change, Key, Limits, Loaded, Scan, Ticket, View};

use super::entry::Kind;
use super::error::StorageError;
use super::home;
use super::journal::{Circle, Group, Journal};
use super::ordered::{Kept, Ordered, encode_into, keep, panic_text, read_kept};
use super::overlay::{Found, Overlay};
use super::room::Room;
use super::stats::{StorageStats, count};
use super::{Options, StorageEvent, entry, peers};

/// Records moved at a time while others wait for the lock.
const HANDFUL: usize = 128;

/// A disk that takes longer for a piece of a batch is not helped by waiting as long again.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A change on its way to the disk, with its own number: tickets are the owner's.
pub(super) struct Queued {
    pub(super) ticket: Ticket,
    pub(super) number: u64,
    pub(super) change: Change,
}

/// A page asked for.
pub(super) struct Asked {
    pub(super) scan: Scan,
    pub(super) after: Option<Key>,
    pub(super) keys: usize,
    pub(super) bytes: usize,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) folder: PathBuf,
    pub(super) ordered: Ordered,
    pub(super) state: Mutex<State>,
    /// Something is queued.
    pub(super) queued: Condvar,
    /// A layer was frozen, or was applied.
    pub(super) layers: Condvar,
    /// The ordered store is untidy, the journal short of files, or a view new.
    pub(super) chores: Condvar,
    /// A load is waiting.
    pub(super) asked: Condvar,
    /// A scan is waiting.
    pub(super) scans: Condvar,
    /// Room on the disk is looked for.
    pub(super) rooms: Condvar,
    pub(super) room: Room,
    /// Bytes of records handed in and not on their way to the disk yet.
    pub(super) backlog: AtomicUsize,
    /// Held while an event that concerns durability is told: after `Failed` there is no `Durable`.
    pub(super) failed: Mutex<bool>,
    pub(super) events: Box<dyn Fn(StorageEvent) + Send + Sync>,
}

/// What they share under the lock. Nobody touches the disk while holding it.
#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Queued>,
    /// Changes ever queued.
    pub(super) number: u64,
    pub(super) overlay: Overlay,
    /// The ordered store holds every change up to here durably.
    pub(super) applied: u64,
    pub(super) asked: VecDeque<Key>,
    /// As many as the owner has under way: it asks for a page once it has the one before.
    pub(super) pages: VecDeque<Asked>,
    /// The newest view, if its members are not noted yet.
    pub(super) members: Option<Arc<View>>,
    pub(super) merge_wanted: bool,
    pub(super) file_wanted: bool,
    /// Writing a table failed: what it left behind is to go.
    pub(super) leftovers: bool,
    pub(super) fsync_since: Option<Instant>,
    /// Nothing more will be handed in.
    pub(super) closing: bool,
    /// Test-only: the writer panics at its next turn.
    pub(super) break_writer: bool,
    /// Nor will the writer need anyone: it is done.
    pub(super) written: bool,
    pub(super) failed: bool,
    pub(super) stats: StorageStats,
}

impl Shared {
    /// The state. A panic elsewhere is told by its own thread; the state is consistent between statements
    /// that can panic, so what it left is used on.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_a_while<'a>(
        &self,
        on: &Condvar,
        state: MutexGuard<'a, State>,
        most: Duration,
    ) -> MutexGuard<'a, State> {
        on.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells the owner once that nothing more becomes durable.
    fn fail(&self, error: StorageError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().failed = true;
        self.layers.notify_all();
        self.queued.notify_all();
        self.scans.notify_all();
        self.rooms.notify_all();
        if !std::mem::replace(&mut *failed, true) {
            (self.events)(StorageEvent::Failed(error));
        }
    }

    fn acknowledge(&self, ticket: Ticket) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*failed {
            (self.events)(StorageEvent::Durable(ticket));
        }
    }

    /// Runs a thread's work; an error or a panic in it is told as the failure it is.
    pub(super) fn run(
        self: &Arc<Self>,
        thread: &'static str,
        work: impl FnOnce(&Self) -> Result<(), StorageError>,
    ) {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(panic) => self.fail(StorageError::Panicked { thread, what: panic_text(&*panic) }),
        }
    }
}

/// Journals what is queued, group by group, until storage closes or fails.
pub(super) fn write(shared: &Shared, mut journal: Journal) -> Result<(), StorageError> {
    let circle = journal.circle();
    let mut waiting = VecDeque::new();
    let mut group = Group::default();
    let mut scratch = Vec::new();
    loop {
        let mut state = shared.state();
        loop {
            if std::mem::take(&mut state.break_writer) {
                drop(state);
                panic!("asked to panic by a test");
            }
            freeze_if_due(shared, &mut state);
            if state.failed {
                return Ok(());
            }
            waiting.append(&mut state.queue);
            if waiting.is_empty() && state.closing {
                let limits = state.overlay.active.meta.limits;
                let written = state.stats.groups > 0;
                drop(state);
                return match written.then(|| seal(&mut journal, &limits)) {
                    // What was acknowledged is on the disk all the same.
                    Some(Err(error)) if !error.is_full() => Err(error),
                    _ => Ok(()),
                };
            }
            let full = is_over(shared, &state, 2);
            if !waiting.is_empty() && !full {
                break;
            }
            // Memory is bounded by letting those who wait for an acknowledgement wait longer.
            state = if full {
                state.stats.slowed += 1;
                shared.wait(&shared.layers, state)
            } else {
                shared.wait(&shared.queued, state)
            };
        }
        journal.release(state.applied);
        let begun = Instant::now();
        state.fsync_since = Some(begun);
        drop(state);

        let mut records: Vec<(u64, Key, Option<Kept>)> = Vec::new();
        let (mut limits, mut account, mut decree) = (None, None, None);
        let mut views = Vec::new();
        let mut last = Ticket(0);
        while group.len() < shared.options.group_bytes {
            let Some(Queued { ticket, number, change }) = waiting.pop_front() else { break };
            last = ticket;
            shared.backlog.fetch_sub(cost(&change), Relaxed);
            let mut add = |kind, key: &[u8], body: &[u8]| {
                let sum = entry::checksum(key, body);
                journal.add(&mut group, kind, key, body, sum);
                sum
            };
            match change {
                Change::Record { key, record } => {
                    encode_into(&record, &mut scratch);
                    let sum = add(Kind::Record, key.as_bytes(), &scratch);
                    records.push((number, key, Some(keep(sum, &scratch))));
                }
                Change::Forget { key } => {
                    add(Kind::Forget, key.as_bytes(), &[]);
                    records.push((number, key, None));
                }
                Change::Limits(new) => {
                    encode_into(&new, &mut scratch);
                    add(Kind::Limits, &[], &scratch);
                    limits = Some(new);
                }
                Change::View(view) => {
                    encode_into(&*view, &mut scratch);
                    add(Kind::View, &[], &scratch);
                    views.push((journal.at().sequence + group.count(), view));
                }
                Change::Account(new) => {
                    encode_into(&new, &mut scratch);
                    add(Kind::Account, &[], &scratch);
                    account = Some(new);
                }
                Change::Decree(new) => {
                    encode_into(&new, &mut scratch);
                    add(Kind::Decree, &[], &scratch);
                    decree = Some(new);
                }
            }
        }
        scratch.shrink_to(1 << 16);
        let (bytes, changes) = (group.len(), group.count());
        let Some(took) = append(shared, &mut journal, &mut group, begun)? else { return Ok(()) };

        // In handfuls: whoever hands a change in must not wait for thousands to be moved.
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let overlay = &mut shared.state().overlay;
            for (number, key, kept) in records.by_ref().take(HANDFUL) {
                if overlay.pending.get(&key).is_some_and(|(newest, _)| *newest == number) {
                    overlay.pending.remove(&key);
                }
                overlay.active.insert(key, kept);
            }
        }
        let mut state = shared.state();
        let State { overlay, stats, .. } = &mut *state;
        let newest = views.last().map(|(_, view)| view.clone());
        overlay.active.views.append(&mut views);
        overlay.active.account = account.or(overlay.active.account.take());
        overlay.active.decree = decree.or(overlay.active.decree.take());
        overlay.active.meta.limits = limits.unwrap_or(overlay.active.meta.limits);
        overlay.active.meta.place = journal.at();
        overlay.active.journalled += bytes;
        stats.durable += changes;
        stats.groups += 1;
        count(&mut stats.group_sizes, changes);
        stats.journal_bytes += bytes as u64;
        stats.journal_files = journal.segments() as u64;
        stats.fsync_last = took;
        stats.fsync_max = stats.fsync_max.max(took);
        stats.fsync_total += took;
        count(&mut stats.fsync_micros, took.as_micros() as u64);
        state.fsync_since = None;
        if newest.is_some() {
            state.members = newest;
            shared.chores.notify_all();
        }
        if circle.is_short() && !std::mem::replace(&mut state.file_wanted, true) {
            shared.chores.notify_all();
        }
        drop(state);
        shared.acknowledge(last);
    }
}

/// Memory that a change takes while it waits for its fsync, roughly.
pub(super) fn cost(change: &Change) -> usize {
    const FRAME: usize = 256;
    match change {
        Change::Record { record, .. } => FRAME + record.state.value.as_ref().map_or(0, |value| value.len()),
        _ => FRAME,
    }
}

/// Writes the group, and tells how long that took; waits for room where there is none. `None` if it came to nothing, as
/// storage is closing.
fn append(
    shared: &Shared,
    journal: &mut Journal,
    group: &mut Group,
    mut begun: Instant,
) -> Result<Option<Duration>, StorageError> {
    loop {
        match journal.append(group) {
            Ok(()) => return Ok(Some(begun.elapsed())),
            Err(error) if error.is_full() => {
                // It is the room that is missing: the disk does not hang.
                shared.state().fsync_since = None;
                if !shared.wait_for_room(&error) {
                    return Ok(None);
                }
                begun = Instant::now();
                shared.state().fsync_since = Some(begun);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Ends the journal with a group that changes nothing: it proves that the group before it was whole, so that
/// rot there is found for what it is, and not taken for the torn end of a write.
fn seal(journal: &mut Journal, limits: &Limits) -> Result<(), StorageError> {
    let mut bytes = Vec::new();
    encode_into(limits, &mut bytes);
    let mut group = Group::default();
    journal.add(&mut group, Kind::Limits, &[], &bytes, entry::checksum(&[], &bytes));
    journal.append(&mut group)
}

/// True if the active layer is so many times as large as it should be when it is applied.
fn is_over(shared: &Shared, state: &State, times: usize) -> bool {
    let active = &state.overlay.active;
    active.bytes >= times * shared.options.overlay_bytes
        || active.journalled >= times * shared.options.unapplied_bytes
}

fn freeze_if_due(shared: &Shared, state: &mut State) {
    if state.overlay.frozen.is_none() && is_over(shared, state, 1) {
        state.overlay.frozen = Some(Arc::new(state.overlay.active.take()));
        shared.layers.notify_all();
    }
}

/// Applies each frozen layer to the ordered store.
pub(super) fn apply(shared: &Shared) -> Result<(), StorageError> {
    let mut state = shared.state();
    loop {
        if state.failed || (state.written && state.overlay.frozen.is_none()) {
            return Ok(());
        }
        let Some(layer) = state.overlay.frozen.clone() else {
            state = shared.wait(&shared.layers, state);
            continue;
        };
        drop(state);
        let begun = Instant::now();
        let mut records = layer.records.iter().peekable();
        loop {
            let begun = Instant::now();
            let piece = shared.ordered.apply(&mut records, &layer)?;
            while let Err(error) = shared.ordered.flush(&piece) {
                if !error.is_full() {
                    return Err(error);
                }
                shared.state().leftovers = true;
                shared.chores.notify_all();
                if !shared.wait_for_room(&error) {
                    return Ok(());
                }
            }
            if piece.last {
                break;
            }
            // The journal shares the disk: leave it half of the time, unless the writer waits for us anyway.
            let state = shared.state();
            let hurry = state.closing || state.failed || is_over(shared, &state, 2);
            drop(state);
            if !hurry {
                thread::sleep(begun.elapsed().min(LONGEST_PAUSE));
            }
        }
        let untidy = shared.ordered.is_untidy();
        state = shared.state();
        // Only now: until here loads find these records in the layer.
        let frozen = state.overlay.frozen.take();
        state.applied = layer.meta.place.sequence;
        state.stats.applied += 1;
        state.stats.apply_last = begun.elapsed();
        if untidy {
            state.merge_wanted = true;
            shared.chores.notify_all();
        }
        shared.layers.notify_all();
        drop(state);
        // Freeing thousands of records takes a while: not under the lock.
        drop((frozen, layer));
        state = shared.state();
    }
}

/// Makes journal files ahead of need, merges the tables of the ordered store when there are too many, removes what writes
/// that failed have left of them, and notes the names of the members.
pub(super) fn tidy(shared: &Shared, circle: &Circle) -> Result<(), StorageError> {
    let mut state = shared.state();
    loop {
        if let Some(view) = state.members.take() {
            drop(state);
            peers::note(&shared.folder, &view);
            state = shared.state();
            continue;
        }
        if state.failed || state.written {
            return Ok(());
        }
        if std::mem::take(&mut state.file_wanted) {
            drop(state);
            if circle.is_short() {
                match circle.extend() {
                    // Whoever needs it makes it, and waits.
                    Err(error) if error.is_full() => shared.room.note_full(),
                    made => made?,
                }
            }
            state = shared.state();
            continue;
        }
        if std::mem::take(&mut state.leftovers) {
            drop(state);
            shared.ordered.remove_leftovers();
            state = shared.state();
            continue;
        }
        // A merge needs room before it makes any.
        let may_merge = !state.stats.merge_blocked && !shared.room.is_short();
        if !may_merge || !std::mem::take(&mut state.merge_wanted) {
            state = shared.wait(&shared.chores, state);
            continue;
        }
        drop(state);
        let merged = match shared.ordered.tidy() {
            Err(error) if error.is_full() => {
                shared.room.note_full();
                state = shared.state();
                state.merge_wanted = true;
                continue;
            }
            merged => merged?,
        };
        // A merge may make the level below too large in turn.
        let more = merged && shared.ordered.is_untidy();
        state = shared.state();
        state.stats.merges += u64::from(merged);
        state.merge_wanted |= more;
        // Trying again would read the same rotten block again.
        state.stats.merge_blocked = !merged;
    }
}

/// Answers the loads that the overlay could not.
pub(super) fn read(shared: &Shared) -> Result<(), StorageError> {
    let mut state = shared.state();
    loop {
        let Some(key) = state.asked.pop_front() else {
            if state.written {
                return Ok(());
            }
            state = shared.wait(&shared.asked, state);
            continue;
        };
        drop(state);
        let found = match shared.ordered.get(&key) {
            Ok(None) => Loaded::Nothing,
            Ok(Some(kept)) => read_kept(&key, &kept),
            // Mute for the key, never blind (R3).
            Err(_) => Loaded::Unreadable,
        };
        let unreadable = found == Loaded::Unreadable;
        (shared.events)(StorageEvent::Loaded { key, found });
        state = shared.state();
        state.stats.disk_loads += 1;
        state.stats.unreadable += u64::from(unreadable);
    }
}

/// Answers the scans: page by page, whatever comes in between.
pub(super) fn scan(shared: &Shared) -> Result<(), StorageError> {
    let mut state = shared.state();
    loop {
        // Side work: nobody waits for it at the end.
        if state.closing || state.failed {
            return Ok(());
        }
        let Some(asked) = state.pages.pop_front() else {
            state = shared.wait(&shared.scans, state);
            continue;
        };
        drop(state);
        let (found, end) = match page(shared, &asked) {
            Ok(page) => page,
            Err(error) => {
                if error.is_damage() {
                    // Records are lost, and nobody knows which (R2): it must not come back as it was.
                    home::note_doubt(&shared.folder, &error);
                }
                return Err(error);
            }
        };
        let stored = shared.ordered.records();
        let total = stored + shared.state().overlay.active.records.len() as u64;
        (shared.events)(StorageEvent::Scanned { scan: asked.scan, found, end, total });
        state = shared.state();
    }
}

/// The next keys in order with what is there for each, and whether they are the last ones.
fn page(shared: &Shared, asked: &Asked) -> Result<(Vec<(Key, Loaded)>, bool), StorageError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut after = asked.after.clone();
    loop {
        // The overlay first, and both anew for each stretch: a record that moves to the ordered store in between
        // is then seen twice, not missed.
        let stretch = shared.state().overlay.after(after.as_ref(), HANDFUL);
        let within = |key: &Key| stretch.upto.as_ref().is_none_or(|upto| key <= upto);
        let mut recent = stretch.found.into_iter().peekable();
        let mut stored = shared.ordered.scan(after.as_ref().map(Key::as_bytes));
        let mut kept = stored.next().transpose()?;
        loop {
            let order = match (&kept, recent.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some((old, _)), None) if within(old) => Ordering::Less,
                (_, Some(_)) => Ordering::Greater,
                (_, None) => break,
            };
            let mut next = None;
            if order.is_le() {
                next = kept.take().map(|(key, kept)| (key, Found::Kept(kept)));
                kept = stored.next().transpose()?;
            }
            if order.is_ge() {
                // Of a key that both have, what the overlay says counts.
                next = recent.next();
            }
            let Some((key, there)) = next.filter(|(_, there)| !matches!(there, Found::Forgotten)) else {
                continue;
            };
            if found.len() >= asked.keys.max(1) || (bytes >= asked.bytes && !found.is_empty()) {
                return Ok((found, false));
            }
            bytes += key.as_bytes().len() + there.bytes();
            let there = there.read(&key);
            found.push((key, there));
        }
        let Some(upto) = stretch.upto else { return Ok((found, true)) };
        after = Some(upto);
    }
}
