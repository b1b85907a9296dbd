//! The metrics of one machine. Labels come from fixed lists: nobody outside can make them grow.

use std::time::Instant;

use ennead_ring::counts::{KINDS, OUTCOMES, Timings};

use super::routes::Served;
use super::space::Room;
use super::text::Text;
use crate::admission::Reason;
use crate::clock::since_1970;
use crate::snapshot::{Place, Snapshot};
use crate::status::PeerState;

/// Everything there is to tell; little before the core loop has begun.
pub(super) fn metrics(
    snapshot: Option<&Snapshot>,
    ready: bool,
    room: Option<Room>,
    served: &Served,
    now: Instant,
) -> String {
    let mut text = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("ennead_info", "gauge", "The program; always 1.");
    text.sample("ennead_info", &[("version", version)], 1);
    text.gauge("ennead_ready", "1 if clients should be sent here: as /readyz says.", u8::from(ready));
    if let Some(snapshot) = snapshot {
        ring(&mut text, snapshot);
        operations(&mut text, snapshot);
        network(&mut text, snapshot);
        disk(&mut text, snapshot);
        parts(&mut text, snapshot, served, now);
    }
    if let Some((free, all)) = room {
        text.gauge("ennead_disk_free_bytes", "Room left on the disk of the data directory.", free);
        text.gauge("ennead_disk_size_bytes", "Size of the disk of the data directory.", all);
    }
    http(&mut text, served);
    text.done()
}

/// What the machine is in its ring, and how the ring is.
fn ring(text: &mut Text, snapshot: &Snapshot) {
    let status = &snapshot.status;
    text.gauge("ennead_epoch", "Number of the newest view known.", status.epoch.number);
    text.gauge(
        "ennead_epoch_settled",
        "Number of the last view known to be settled (T1).",
        status.settled.number,
    );
    text.gauge("ennead_views_kept", "Views kept since the last settled one.", snapshot.views);
    text.family("ennead_place", "gauge", "Where this machine stands towards its cluster: 1 for where it is.");
    for (word, place) in [
        ("blank", Place::Blank),
        ("outside", Place::Outside),
        ("joining", Place::Joining),
        ("in_ring", Place::InRing),
        ("leaving", Place::Leaving),
    ] {
        text.sample("ennead_place", &[("place", word)], u8::from(place == snapshot.place));
    }
    let members = snapshot.view.as_ref().map_or(0, |view| view.members().len());
    text.gauge("ennead_members", "Members of the newest view.", members);
    text.family(
        "ennead_machines",
        "gauge",
        "Members by their state, as this machine sees them, itself included.",
    );
    let me = u64::from(!matches!(snapshot.place, Place::Blank | Place::Outside));
    let of = |state| status.peers.iter().filter(|p| p.state == state).count() as u64;
    for (word, state, me) in
        [("up", PeerState::Up, me), ("suspect", PeerState::Suspect, 0), ("down", PeerState::Down, 0)]
    {
        text.sample("ennead_machines", &[("state", word)], of(state) + me);
    }
    let unreached = status.peers.iter().filter(|p| !p.reachable).count();
    text.gauge("ennead_machines_unreached", "Members without a connection, though one is wanted.", unreached);
    text.gauge("ennead_positions", "Positions of this machine on the ring.", status.slots);
    let unsynced = status.slots.saturating_sub(status.synced_slots);
    text.gauge("ennead_positions_unsynced", "Of them, those at which it does not vote yet.", unsynced);
    let moves = status.moves.len();
    text.gauge("ennead_moves", "Passes over the data under way: sync, copying ahead, comparison.", moves);
    let waits: usize = status.moves.iter().map(|m| m.waits_for.len()).sum();
    text.gauge("ennead_moves_waiting_for", "Machines that they wait for.", waits);
    text.counter(
        "ennead_moved_bytes_total",
        "Bytes of values taken in from other machines.",
        status.taken_bytes,
    );
    let check = &status.check;
    text.counter(
        "ennead_check_rounds_total",
        "Comparisons of all copies that came to their end.",
        check.rounds,
    );
    text.gauge("ennead_check_running", "1 while one is under way.", u8::from(check.running));
    text.gauge(
        "ennead_check_keys",
        "Keys looked at: in the comparison under way, or in the last.",
        check.keys,
    );
    text.gauge(
        "ennead_keys_short",
        "Keys of that comparison whose copies were not alike, or not voted for by all slots.",
        check.unlike,
    );
    text.counter(
        "ennead_keys_mended_total",
        "Keys brought to all their slots after a comparison.",
        check.mended,
    );
    text.counter(
        "ennead_tombstones_collected_total",
        "Deleted keys forgotten everywhere (G2).",
        check.collected,
    );
    text.counter(
        "ennead_tombstones_total",
        "Tombstones taken, rewritten ones included.",
        snapshot.counts.tombstones,
    );
    text.family(
        "ennead_tombstones",
        "gauge",
        "Tombstones held; roughly. Counted by a sweep after a start and after each change of the ring, and kept up with \
         every change since; not told before the first sweep has come to its end.",
    );
    if let Some(tombstones) = snapshot.tombstones {
        text.sample("ennead_tombstones", &[], tombstones);
    }
    let ahead = snapshot.ahead as f64 / 1e9;
    text.gauge(
        "ennead_clock_ahead_seconds",
        "How far the latest time that others named lately was ahead of this machine's clock.",
        ahead,
    );
    text.family(
        "ennead_clocks_off_seconds",
        "gauge",
        "How far the clocks of other machines are off this one's at most, by direction, as they answered when asked lately.",
    );
    for (direction, ms) in ["ahead", "behind"].iter().zip(snapshot.clocks) {
        text.sample("ennead_clocks_off_seconds", &[("direction", direction)], ms as f64 / 1e3);
    }
    text.family(
        "ennead_clock_offset_seconds",
        "gauge",
        "How far this machine's clock is ahead of the middle of all, or behind it, if negative; not told before two others \
         have told theirs.",
    );
    if let Some(ms) = snapshot.clock {
        text.sample("ennead_clock_offset_seconds", &[], ms as f64 / 1e3);
    }
}

/// What clients ask, and what comes of it.
fn operations(text: &mut Text, snapshot: &Snapshot) {
    let counts = &snapshot.counts;
    text.family(
        "ennead_requests_total",
        "counter",
        "Requests that this machine coordinated, by what came of them.",
    );
    for (kind, answered) in KINDS.iter().zip(&counts.answered) {
        for (outcome, n) in OUTCOMES.iter().zip(answered) {
            text.sample("ennead_requests_total", &[("kind", kind), ("outcome", outcome)], n);
        }
    }
    let seconds = |timings: &Timings| timings.nanos as f64 / 1e9;
    text.family(
        "ennead_request_seconds",
        "histogram",
        "From when a request is looked at to its answer; before that it waits in its line, see ennead_phase_seconds.",
    );
    for (kind, took) in KINDS.iter().zip(&counts.took) {
        text.seconds("ennead_request_seconds", &[("kind", kind)], &took.buckets, seconds(took));
    }
    text.family(
        "ennead_phase_seconds",
        "histogram",
        "line: until a request, or a read of one copy, is looked at. queue: from then until something is asked of the \
         owners. promise: until five promised, the network alone. \
         hold: until five hold it, the network and five disks. read: until five votes settle a read. \
         fsync: one write and fsync of this machine's journal.",
    );
    let phases = [
        ("line", &snapshot.waited),
        ("queue", &counts.queue),
        ("promise", &counts.promise),
        ("hold", &counts.hold),
        ("read", &counts.read),
    ];
    for (phase, took) in phases {
        text.seconds("ennead_phase_seconds", &[("phase", phase)], &took.buckets, seconds(took));
    }
    let storage = &snapshot.storage;
    let fsyncs = storage.fsync_total.as_secs_f64();
    text.seconds("ennead_phase_seconds", &[("phase", "fsync")], &storage.fsync_micros, fsyncs);
    text.family(
        "ennead_votes_total",
        "counter",
        "Questions decided, by the votes there were then. A coordinator asks all owners at once; what clients hedge, they \
         count (Client::hedged_reads).",
    );
    for (votes, n) in counts.votes.iter().enumerate() {
        text.sample("ennead_votes_total", &[("votes", &votes.to_string())], n);
    }
    text.counter("ennead_copies_told_total", "Copies told to readers.", counts.copies);
    text.counter("ennead_retries_total", "Writes that came again under their id.", counts.retries);
    text.counter("ennead_handed_over_total", "Requests passed on to another coordinator.", counts.handed);
    text.counter(
        "ennead_asked_again_total",
        "Questions put again, as too few had answered in time.",
        counts.asked_again,
    );
    text.counter("ennead_ballots_beaten_total", "Ballots given up for a higher one.", counts.beaten);
    text.counter(
        "ennead_reads_helped_total",
        "Reads that brought a record to five votes (D3).",
        counts.helped,
    );
    text.counter(
        "ennead_false_votes_total",
        "Answers with votes for slots that are not their machine's: counted without those.",
        counts.false_votes,
    );
    text.gauge("ennead_requests_waiting", "Requests not answered yet.", counts.waiting);
}

/// Connections, frames, messages.
fn network(text: &mut Text, snapshot: &Snapshot) {
    let transport = &snapshot.transport;
    text.family("ennead_connections", "gauge", "Connections, by who is at the other end.");
    text.sample("ennead_connections", &[("with", "machines")], transport.connections);
    text.sample("ennead_connections", &[("with", "clients")], transport.clients);
    text.counter("ennead_dials_total", "Connections tried.", transport.dials);
    text.counter("ennead_dials_failed_total", "Connections tried in vain.", transport.dials_failed);
    text.family(
        "ennead_refusals_total",
        "counter",
        "Connections ended or not taken because the other end did wrong.",
    );
    for code in crate::transport::CloseCode::ALL.iter().filter(|code| code.is_refusal()) {
        text.sample("ennead_refusals_total", &[("reason", code.label())], transport.refused(*code));
    }
    text.family("ennead_frames_total", "counter", "Frames, by direction.");
    text.sample("ennead_frames_total", &[("direction", "in")], transport.frames_in);
    text.sample("ennead_frames_total", &[("direction", "out")], transport.frames_out);
    text.family("ennead_frame_bytes_total", "counter", "Their bytes.");
    text.sample("ennead_frame_bytes_total", &[("direction", "in")], transport.bytes_in);
    text.sample("ennead_frame_bytes_total", &[("direction", "out")], transport.bytes_out);
    text.counter(
        "ennead_frames_dropped_total",
        "Frames that found no room or no connection.",
        transport.dropped,
    );
    text.family(
        "ennead_frames_waiting",
        "gauge",
        "Frames that wait to be written, by lane: large values and pings have their own.",
    );
    for (lane, n) in ["main", "large", "prompt"].iter().zip(transport.waiting) {
        text.sample("ennead_frames_waiting", &[("lane", lane)], n);
    }
    let certificates = &snapshot.certificates;
    let left = certificates.expires.saturating_sub(since_1970().as_secs() as i64);
    text.gauge(
        "ennead_certificate_expires_seconds",
        "How long the certificates in use are good for; negative once they are not.",
        left,
    );
    text.counter(
        "ennead_certificates_renewed_total",
        "Times that new ones were taken from the folder.",
        certificates.renewed,
    );
    text.gauge(
        "ennead_certificates_refused",
        "1 while those in the folder do not fit, so that older ones are in use.",
        u8::from(certificates.refused.is_some()),
    );
    text.family("ennead_messages_total", "counter", "Messages of the protocol, by kind and direction.");
    for (kind, [heard, said]) in &snapshot.messages {
        text.sample("ennead_messages_total", &[("kind", kind), ("direction", "in")], heard);
        text.sample("ennead_messages_total", &[("kind", kind), ("direction", "out")], said);
    }
    text.gauge("ennead_lines", "Requests and reads of clients that wait for their turn.", snapshot.lines);
    text.family(
        "ennead_lines_turned_total",
        "counter",
        "Of them, those told to come back later, which no outcome counts. full: as many wait as may. memory: so do as \
         many bytes. late: nobody waits for the answer any more. crowded: all wait too long in its line. stuck: none can \
         be served.",
    );
    for (kind, turned) in KINDS.iter().chain(["copy"].iter()).zip(&snapshot.turned) {
        for (why, n) in Reason::ALL.iter().zip(turned) {
            let labels = [("kind", *kind), ("reason", why.label())];
            text.sample("ennead_lines_turned_total", &labels, n);
        }
    }
    text.counter(
        "ennead_accepts_dropped_total",
        "Accepts lost since the disk could not take them.",
        snapshot.swamped,
    );
    text.gauge(
        "ennead_answers_parked",
        "Messages that wait until what they say is on disk.",
        snapshot.parked,
    );
}

/// The journal, and the store behind it.
fn disk(text: &mut Text, snapshot: &Snapshot) {
    let storage = &snapshot.storage;
    text.gauge("ennead_changes_queued", "Changes that are not on disk yet.", storage.queued);
    text.counter("ennead_changes_total", "Changes made durable.", storage.durable);
    text.family("ennead_group_changes", "histogram", "Changes that one fsync made durable.");
    text.sizes("ennead_group_changes", &[], &storage.group_sizes, storage.durable as f64);
    let running = storage.fsync_running.unwrap_or_default().as_secs_f64();
    text.gauge("ennead_fsync_running_seconds", "How long the fsync under way has taken so far.", running);
    text.gauge("ennead_fsync_max_seconds", "The longest fsync.", storage.fsync_max.as_secs_f64());
    let stalled = f64::from(snapshot.health.stalled_ms) / 1e3;
    text.gauge(
        "ennead_disk_stalled_seconds",
        "What an fsync takes while that is far too long; else 0.",
        stalled,
    );
    text.gauge(
        "ennead_disk_full",
        "1 while the disk has no room for values: they are refused.",
        u8::from(snapshot.health.full),
    );
    text.gauge(
        "ennead_load_percent",
        "How busy the core loop is; at 100 it refuses work.",
        snapshot.health.load,
    );
    text.counter("ennead_journal_bytes_total", "Bytes written to the journal.", storage.journal_bytes);
    text.gauge("ennead_journal_files", "Files of the journal, used or not.", storage.journal_files);
    text.gauge(
        "ennead_overlay_bytes",
        "Memory of what the ordered store does not hold yet.",
        storage.overlay_bytes,
    );
    text.gauge("ennead_records", "Records held, tombstones included; roughly.", storage.records);
    text.gauge("ennead_store_bytes", "Bytes of the ordered store on disk.", storage.record_bytes);
    text.counter(
        "ennead_acks_slowed_total",
        "Times that acknowledgements waited for the store.",
        storage.slowed,
    );
    text.counter("ennead_merges_total", "Merges of the store's tables.", storage.merges);
    let blocked = u8::from(storage.merge_blocked);
    text.gauge("ennead_merge_blocked", "1 if a table cannot be read, so that merging stopped.", blocked);
    text.counter("ennead_loads_total", "Records looked up on disk.", storage.disk_loads);
    text.counter("ennead_loads_unreadable_total", "Records that nobody can read (R3).", storage.unreadable);
}

/// What is supervised.
fn parts(text: &mut Text, snapshot: &Snapshot, served: &Served, now: Instant) {
    text.gauge("ennead_uptime_seconds", "Since the program started.", snapshot.status.uptime_ms as f64 / 1e3);
    let age = now.saturating_duration_since(snapshot.at);
    let what = "Since the core loop last told how it is: about one while it is alive.";
    text.gauge("ennead_core_age_seconds", what, age.as_secs_f64());
    text.family("ennead_part_restarts_total", "counter", "Parts that died and were begun again.");
    let [core, writer] = snapshot.restarts;
    for (part, restarts) in [
        ("core_loop", core),
        ("storage_writer", writer),
        ("transport", snapshot.transport.part_restarts),
        ("http_server", served.restarts),
    ] {
        text.sample("ennead_part_restarts_total", &[("part", part)], restarts);
    }
    text.family(
        "ennead_part_alive",
        "gauge",
        "1 for a part that runs (of the transport, its listener), 0 while it is begun again. One that runs and stands still \
         shows in ennead_core_age_seconds, or in ennead_fsync_running_seconds.",
    );
    let [core, writer] = served.alive;
    for (part, alive) in [
        ("core_loop", core),
        ("storage_writer", writer),
        ("transport", snapshot.transport.listening),
        // It says this.
        ("http_server", true),
    ] {
        text.sample("ennead_part_alive", &[("part", part)], u8::from(alive));
    }
}

fn http(text: &mut Text, served: &Served) {
    text.gauge("ennead_http_connections", "Connections to this HTTP server.", served.connections);
    text.family(
        "ennead_http_requests_total",
        "counter",
        "Requests to this HTTP server, by what is asked for.",
    );
    for (route, n) in &served.requests {
        text.sample("ennead_http_requests_total", &[("route", route)], n);
    }
}
