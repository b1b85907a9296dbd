//! What a machine tells others of what it holds (S3): pages, each from a scan of its storage, in the order of the keys.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::{Effect, Loaded, Scan};
use crate::history::Concern;
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Entry, Held, Message, Page, TellRequest};
use crate::view::{Epoch, Machine};

/// Bytes of a page, roughly; a longer value makes a page of its own.
const PAGE: usize = 256 << 10;
/// Keys of one scan, and its bytes.
const SCAN: (usize, usize) = (1024, 1 << 20);
/// Scans for one page: then it goes out however few of the keys concern the asker, so that he sees that we live.
const SCANS: u32 = 16;
/// Pages in the making at once; further requests are lost, and asked again.
const AT_ONCE: usize = 64;
/// What an entry costs beside its key and state, roughly.
const ENTRY: usize = 40;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Tellings(BTreeMap<Scan, Making>);

#[derive(Debug)]
struct Making {
    to: Machine,
    ask: Ask,
    /// The view for which it is told.
    epoch: Epoch,
    request: Box<TellRequest>,
    entries: Vec<Entry>,
    bytes: usize,
    looked: u32,
    scans: u32,
    upto: Option<Key>,
}

impl Tellings {
    /// A machine wants to be told. The caller has seen to it that this machine's view is the asker's (S3).
    pub(crate) fn begin(
        &mut self,
        local: &mut Local,
        to: Machine,
        ask: Ask,
        request: Box<TellRequest>,
        effects: &mut Vec<Effect>,
    ) {
        // Asked again: the page is in the making.
        if self.0.values().any(|m| m.to == to && m.ask == ask) {
            return;
        }
        self.0.retain(|_, m| m.to != to || m.request.purpose != request.purpose);
        if self.0.len() >= AT_ONCE {
            return;
        }
        let upto = request.after.clone();
        let making = Making {
            to,
            ask,
            epoch: local.epoch(),
            request,
            entries: Vec::new(),
            bytes: 0,
            looked: 0,
            scans: 0,
            upto,
        };
        self.scan(local, making, effects);
    }

    fn scan(&mut self, local: &mut Local, making: Making, effects: &mut Vec<Effect>) {
        let scan = Scan(local.number().0);
        let after = making.upto.clone();
        self.0.insert(scan, making);
        effects.push(Effect::Scan { scan, after, keys: SCAN.0, bytes: SCAN.1 });
    }

    /// Storage has looked. False if the scan was not for a page.
    pub(crate) fn on_scanned(
        &mut self,
        local: &mut Local,
        scan: Scan,
        found: &mut Vec<(Key, Loaded)>,
        end: bool,
        total: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(mut making) = self.0.remove(&scan) else { return false };
        if making.epoch != local.epoch() {
            // A newer view: the asker begins anew.
            return true;
        }
        making.scans += 1;
        let mut full = false;
        let tracks = local.tracks_of(making.to, making.request.since);
        for (key, loaded) in core::mem::take(found) {
            if making.bytes >= PAGE {
                full = true;
                break;
            }
            making.looked += 1;
            let concern = Concern {
                purpose: making.request.purpose,
                handoff: making.request.handoff,
                without: &making.request.without,
                asker: making.to,
                track: &tracks,
            };
            if local.tells(&concern, &key) {
                let held = held(loaded, making.request.whole);
                making.bytes += ENTRY + key.as_bytes().len() + state_bytes(&held);
                making.entries.extend(held.map(|held| Entry { key: key.clone(), held }));
            }
            making.upto = Some(key);
        }
        let over = end && !full;
        if !over && !full && making.bytes < PAGE && making.scans < SCANS {
            self.scan(local, making, effects);
            return true;
        }
        let page = Page {
            account: local.account.clone(),
            promised: local.highest_promised(),
            bound: local.limits.bound,
            entries: making.entries,
            upto: if over { None } else { making.upto },
            looked: making.looked,
            total,
        };
        // S3, "durably": what is told is on disk, and so is all that it was read after.
        let after = local.last_ticket();
        let message = Message::Told { ask: making.ask, page: Box::new(page) };
        local.send(Addr::Machine(making.to), message, after, effects);
        true
    }

    /// A newer view, or a restart of the asker: nobody waits for what is in the making.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

fn held(loaded: Loaded, whole: bool) -> Option<Held> {
    match loaded {
        Loaded::Nothing => None,
        Loaded::Unreadable => Some(Held::Unreadable),
        Loaded::Record(record) => Some(Held::Record {
            stamp: record.stamp,
            votes: record.votes,
            tombstone: record.state.value.is_none(),
            state: whole.then_some(record.state),
        }),
    }
}

fn state_bytes(held: &Option<Held>) -> usize {
    match held {
        Some(Held::Record { state: Some(state), .. }) => {
            state.value.as_ref().map_or(0, |v| v.len()) + 24 * state.recent.len() + 32
        }
        _ => 0,
    }
}
