//! What a machine tells others of what it holds (S3): pages in the order of the keys, made of chunks of its storage.
//!
//! When a view changes, everybody asks everybody. So a chunk is read once, and who owns its keys is computed once, for
//! all that ask for it: pages begin and end with chunks, and the last few chunks are kept.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::mem;

use crate::digest::{Answered, Checking};
use crate::effect::{Effect, Loaded, Mono, Now, Scan};
use crate::history::Concern;
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Entry, Held, Message, Page, Purpose, TellRequest};
use crate::mutant::Mutant;
use crate::placement::Owners;
use crate::rare::{Rare, met, met_if};
use crate::stamp::State;
use crate::view::{Epoch, Machine};

/// A page is sent once it has so many bytes; a chunk more may be in it.
const PAGE: usize = 128 << 10;
/// Keys of a chunk, and its bytes.
const CHUNK: (usize, usize) = (512, 512 << 10);
/// Chunks looked at for one page: then it goes out however few of the keys concern the asker, so that he sees that we
/// live. The first number once they took so long, the second in any case.
const LOOKED: (u32, u32) = (16, 128);
const LOOKED_FOR: u64 = 50_000_000;
/// Chunks kept: so many, of so many bytes together, and for how long. Everybody who asks after a change of the view
/// should find them, however far apart they are: to compute the owners again costs more than all else.
const KEPT: (usize, usize) = (256, 16 << 20);
const KEPT_FOR: u64 = 3_000_000_000;
/// How old a chunk may be for a comparison of copies: what one machine told of before a settling round and another after
/// it would seem unlike, and be settled again, for ever.
const ALIKE_FOR: u64 = 100_000_000;
/// Pages in the making at once; further requests are lost, and asked again.
const AT_ONCE: usize = 64;
/// What an entry costs beside its key and state, roughly.
const ENTRY: usize = 40;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Tellings {
    /// The first and the last of the views that the chunks' owners are computed for: T2 forgets earlier ones.
    views: (Epoch, Epoch),
    /// Newest first.
    chunks: VecDeque<Rc<Chunk>>,
    scans: Vec<Asked>,
    makings: Vec<Making>,
}

/// A chunk that storage is asked for.
#[derive(Debug)]
struct Asked {
    scan: Scan,
    after: Option<Key>,
    synced: bool,
}

/// A run of keys, from storage, and who owns their slots in each view since the last settled one.
#[derive(Debug)]
struct Chunk {
    after: Option<Key>,
    keys: Vec<Told>,
    end: bool,
    total: u64,
    made: Mono,
    /// Of memory, roughly.
    bytes: usize,
    /// The machine was synced in the present view when storage was asked. If not, it tells "never voted" with this
    /// chunk, whatever it is by then: what it held before is no vote of that view (S5).
    synced: bool,
}

#[derive(Debug)]
struct Told {
    key: Key,
    owners: Vec<Owners>,
    /// In the next ring, where one is announced.
    next: Option<Owners>,
    loaded: Loaded,
}

impl Chunk {
    /// True if the key after this one is in here, or is known to be none.
    fn goes_on_from(&self, upto: Option<&Key>) -> bool {
        let last = self.keys.last().map(|told| &told.key);
        self.after.as_ref() <= upto && (self.end || last > upto)
    }
}

impl Told {
    fn bytes(&self) -> usize {
        let state = match &self.loaded {
            Loaded::Record(record) => record_bytes(&record.state),
            Loaded::Nothing | Loaded::Unreadable => 0,
        };
        size_of::<Self>() + self.key.as_bytes().len() + self.owners.len() * size_of::<Owners>() + state
    }
}

#[derive(Debug)]
struct Making {
    to: Machine,
    ask: Ask,
    request: Box<TellRequest>,
    checking: Checking,
    entries: Vec<Entry>,
    bytes: usize,
    looked: u32,
    chunks: u32,
    synced: bool,
    /// Told, or looked at, up to this key.
    upto: Option<Key>,
    /// No chunk made before this will do.
    since: Mono,
    began: Mono,
}

impl Tellings {
    /// A machine wants to be told. The caller has seen to it that this machine's view is the asker's (S3).
    pub(crate) fn begin(
        &mut self,
        local: &mut Local,
        now: Now,
        to: Machine,
        ask: Ask,
        mut request: Box<TellRequest>,
        effects: &mut Vec<Effect>,
    ) {
        self.chunks.retain(|chunk| chunk.made.plus(KEPT_FOR) > now.mono);
        self.see_views(local);
        // Asked again: the page is in the making.
        if self.makings.iter().any(|m| m.to == to && m.ask == ask) {
            met(Rare::S3PageInTheMaking);
            return;
        }
        self.makings.retain(|m| m.to != to || m.request.purpose != request.purpose);
        if self.makings.len() >= AT_ONCE {
            return;
        }
        let upto = request.after.clone();
        let claims = mem::take(&mut request.claims);
        let old = if request.purpose == Purpose::Check { ALIKE_FOR } else { KEPT_FOR };
        let since = Mono(now.mono.0.saturating_sub(old));
        self.makings.push(Making {
            to,
            ask,
            checking: Checking::new(request.salt, claims, local.rules),
            request,
            entries: Vec::new(),
            bytes: 0,
            looked: 0,
            chunks: 0,
            synced: true,
            upto,
            since,
            began: now.mono,
        });
        self.go_on(local, now, effects);
    }

    /// Storage has looked. False if the scan was not for a page.
    pub(crate) fn on_scanned(
        &mut self,
        local: &mut Local,
        now: Now,
        scan: Scan,
        (found, end, total): (&mut Vec<(Key, Loaded)>, bool, u64),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(at) = self.scans.iter().position(|asked| asked.scan == scan) else { return false };
        let Asked { after, synced, .. } = self.scans.swap_remove(at);
        self.see_views(local);
        let told = |(key, loaded): (Key, Loaded)| {
            let chain = local.present().chain(&key);
            let history = local.history();
            Told { key, owners: history.owners(&chain), next: history.next_owners(&chain), loaded }
        };
        let keys: Vec<Told> = mem::take(found).into_iter().map(told).collect();
        let bytes = keys.iter().map(Told::bytes).sum();
        self.chunks.push_front(Rc::new(Chunk { after, keys, end, total, made: now.mono, synced, bytes }));
        let mut bytes = 0;
        let fits = |chunk: &&Rc<Chunk>| {
            bytes += chunk.bytes;
            bytes <= KEPT.1
        };
        let kept = self.chunks.iter().take(KEPT.0).take_while(fits).count();
        self.chunks.truncate(kept.max(1));
        self.go_on(local, now, effects);
        true
    }

    /// Makes what can be made of the chunks there are; asks for those that are missing.
    fn go_on(&mut self, local: &mut Local, now: Now, effects: &mut Vec<Effect>) {
        let mut at = 0;
        while let Some(making) = self.makings.get_mut(at) {
            let fits = |c: &&Rc<Chunk>| c.made >= making.since && c.goes_on_from(making.upto.as_ref());
            let Some(chunk) = self.chunks.iter().find(fits).cloned() else {
                let coming = self.scans.iter().any(|asked| asked.after == making.upto);
                met_if(coming, Rare::S3ChunkIsShared);
                if !coming {
                    let scan = Scan(local.number().0);
                    let after = making.upto.clone();
                    self.scans.push(Asked { scan, after: after.clone(), synced: local.is_synced() });
                    effects.push(Effect::Scan { scan, after, keys: CHUNK.0, bytes: CHUNK.1 });
                }
                at += 1;
                continue;
            };
            making.add(local, &chunk);
            let long = making.chunks >= LOOKED.0 && making.began.plus(LOOKED_FOR) <= now.mono;
            let full = making.bytes >= PAGE || making.chunks >= LOOKED.1 || long;
            if chunk.end || full || making.checking.is_over() {
                let making = self.makings.swap_remove(at);
                making.send(local, &chunk, effects);
            }
        }
    }

    /// Owners that were computed for other views are no use.
    fn see_views(&mut self, local: &Local) {
        let views = (local.account.settled, local.epoch());
        if mem::replace(&mut self.views, views) != views {
            self.chunks.clear();
        }
    }

    /// A newer view: nobody waits for what is in the making.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Making {
    fn add(&mut self, local: &Local, chunk: &Chunk) {
        let request = &*self.request;
        let track = local.tracks_of(self.to, request.since);
        let concern = Concern {
            purpose: request.purpose,
            handoff: request.handoff,
            without: &request.without,
            asker: self.to,
            track: &track,
        };
        let history = local.history();
        let places = local.places_of(local.me);
        let listed = self.entries.len();
        // What the asker is to hold, and does not hold so, it wants with its state.
        let states = matches!(request.purpose, Purpose::Ahead | Purpose::Copy);
        let from = chunk.keys.partition_point(|told| Some(&told.key) <= self.upto.as_ref());
        for Told { key, owners, next, loaded } in &chunk.keys[from..] {
            self.checking.come_to(key, &mut self.entries);
            if self.checking.is_over() {
                break;
            }
            self.looked += 1;
            if history.is_told(&concern, (owners, next.as_ref()), (local.me, &places))
                && let Some(held) = held(loaded, states || self.checking.is_whole())
            {
                let covered = history.digested(request.purpose, owners, &places);
                let entry = Entry { key: key.clone(), held };
                self.checking.add(entry, covered, &mut self.entries);
            }
        }
        self.synced &= chunk.synced;
        self.chunks += 1;
        self.upto = match chunk.keys.last() {
            _ if self.checking.is_over() => self.checking.upto().cloned(),
            Some(told) => Some(told.key.clone()),
            None => self.upto.take(),
        };
        self.bytes += self.entries[listed..].iter().map(Entry::bytes).sum::<usize>();
    }

    fn send(mut self, local: &mut Local, last: &Chunk, effects: &mut Vec<Effect>) {
        let end = last.end && !self.checking.is_over();
        let begins = self.checking.break_off(self.upto.as_ref().filter(|_| !end), &mut self.entries);
        // After the last key, what is open may turn out to be too much.
        let end = end && !self.checking.breaks_off();
        let upto = if self.checking.is_over() { self.checking.upto().cloned() } else { begins.or(self.upto) };
        let Answered { agreed, differs, beyond } = self.checking.answered;
        let mut account = local.account.clone();
        if !self.synced && !local.rules.broken(Mutant::S3Late) {
            met_if(local.is_synced(), Rare::S3ReadBeforeItWasSynced);
            let present = local.epoch();
            account.synced.retain(|epoch| *epoch != present);
        }
        let page = Page {
            account,
            promised: local.highest_promised(),
            bound: local.limits.bound,
            agreed,
            differs,
            beyond,
            entries: self.entries,
            upto: upto.filter(|_| !end),
            looked: self.looked,
            total: last.total,
        };
        // S3, "durably": what is told is on disk, and so is all that it was read after.
        let after = local.last_ticket();
        let message = Message::Told { ask: self.ask, page: Box::new(page) };
        local.send(Addr::Machine(self.to), message, after, effects);
    }
}

fn held(loaded: &Loaded, whole: bool) -> Option<Held> {
    match loaded {
        Loaded::Nothing => None,
        Loaded::Unreadable => Some(Held::Unreadable),
        Loaded::Record(record) => Some(Held::Record {
            stamp: record.stamp,
            votes: record.votes,
            tombstone: record.state.value.is_none(),
            state: whole.then(|| record.state.clone()),
        }),
    }
}

impl Entry {
    /// Bytes that it takes in a page, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let state = match &self.held {
            Held::Record { state: Some(state), .. } => record_bytes(state),
            _ => 0,
        };
        ENTRY + self.key.as_bytes().len() + state
    }
}

/// Bytes that a record takes where all of it is told, roughly: what a machine takes in that has none of it.
pub fn told_bytes(key: &Key, state: &State) -> u64 {
    (ENTRY + key.as_bytes().len() + record_bytes(state)) as u64
}

/// Bytes that a state takes in a page, roughly.
pub(crate) fn record_bytes(state: &State) -> usize {
    state.value.as_ref().map_or(0, |v| v.len()) + 24 * state.recent.len() + 32
}
