//! What a machine tells a client that lists keys (L1): pages in the order of the keys, read by storage beside all else.
//!
//! A page is asked for and told like any answer; nothing is kept of a client in between. So a listing costs a machine
//! no more than the pages under way, however long the client takes over it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use crate::effect::{Effect, Loaded, Mono, Now, Scan};
use crate::key::{Key, MAX_KEY};
use crate::local::Local;
use crate::message::{Addr, Ask, ListPage, ListRecord, ListRequest, ListValue, Message, Outcome};
use crate::mutant::Mutant;
use crate::stamp::{Record, State};
use crate::view::Epoch;

/// Bytes of a page, at least and at most, whatever the client asks for; and the longest value told in one. A longer one
/// is told by its length, and read by itself. With the longest key and such a value beyond that, a page still fits the
/// smallest frame that anybody takes, however short the longest value is set to be.
const PAGE: (usize, usize) = (4 << 10, 20 << 10);
/// Keys that storage looks at in one go, and bytes: short stretches, so that other scans get their turn in between.
const STRETCH: (usize, usize) = (128, 128 << 10);
/// Stretches looked at for one page: then it goes out however little is in it, so that the client sees that we live.
const LOOKED: u32 = 16;
/// Pages in the making at once, in all and for one client; who asks for more is told to come back.
const AT_ONCE: (usize, usize) = (64, 16);
const RETRY_AFTER: u32 = 100;
/// Machines that a client may leave out: each key's owners are looked for among them.
const LEFT_OUT: usize = 4_096;
/// What a key costs in a page beside its bytes, at most.
const AROUND: usize = 64;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    makings: Vec<Making>,
}

/// A page in the making: storage is looking at its next stretch.
#[derive(Debug)]
struct Making {
    scan: Scan,
    to: Addr,
    ask: Ask,
    request: Box<ListRequest>,
    /// Nobody waits for it any more.
    deadline: Mono,
    /// The view in which the machine was synced when the first stretch was asked for.
    epoch: Epoch,
    keys: Vec<(Key, Option<ListRecord>)>,
    bytes: usize,
    looked: u32,
    upto: Option<Key>,
}

impl Listings {
    /// A client wants a page.
    pub(crate) fn begin(
        &mut self,
        local: &mut Local,
        now: Now,
        to: Addr,
        ask: Ask,
        request: Box<ListRequest>,
        effects: &mut Vec<Effect>,
    ) {
        self.makings.retain(|m| m.deadline > now.mono);
        if self.makings.iter().any(|m| m.to == to && m.ask == ask && m.request.after == request.after) {
            return;
        }
        if let Some(why) = refused(&request) {
            local.send(to, Message::Outcome { ask, outcome: Outcome::Refused(why.into()) }, None, effects);
            return;
        }
        let of_client = self.makings.iter().filter(|m| m.to == to).count();
        if self.makings.len() >= AT_ONCE.0 || of_client >= AT_ONCE.1 {
            let outcome = Outcome::Overloaded { retry_after: RETRY_AFTER };
            local.send(to, Message::Outcome { ask, outcome }, None, effects);
            return;
        }
        let deadline = now.mono.plus(u64::from(request.within) * 1_000_000);
        let making = Making {
            scan: Scan(0),
            to,
            ask,
            request,
            deadline,
            epoch: Epoch::ZERO,
            keys: Vec::new(),
            bytes: 0,
            looked: 0,
            upto: None,
        };
        self.start(making, local, effects);
    }

    /// From its beginning, as what the machine is now.
    fn start(&mut self, mut making: Making, local: &mut Local, effects: &mut Vec<Effect>) {
        if !local.is_synced() {
            // L2: it votes for only some of what it owns; whoever lists has to do without it.
            let page = ListPage {
                synced: false,
                after: making.request.after,
                keys: Vec::new(),
                upto: None,
                total: 0,
            };
            local.send(making.to, Message::Listed { ask: making.ask, page: Box::new(page) }, None, effects);
            return;
        }
        making.epoch = local.epoch();
        making.keys.clear();
        (making.bytes, making.looked) = (0, 0);
        // Where the prefix begins, and never among the cluster's own keys, which begin with a zero.
        let first = if making.request.prefix.is_empty() { &[1][..] } else { &making.request.prefix };
        making.upto = making.request.after.clone().max(Key::last_before(first));
        self.look(making, local, effects);
    }

    fn look(&mut self, mut making: Making, local: &mut Local, effects: &mut Vec<Effect>) {
        making.scan = Scan(local.number().0);
        let after = making.upto.clone();
        effects.push(Effect::Scan { scan: making.scan, after, keys: STRETCH.0, bytes: STRETCH.1 });
        self.makings.push(making);
    }

    /// Storage has looked. False if the scan was not for a listing.
    pub(crate) fn on_scanned(
        &mut self,
        local: &mut Local,
        now: Now,
        scan: Scan,
        (found, end, total): (&mut Vec<(Key, Loaded)>, bool, u64),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(at) = self.makings.iter().position(|m| m.scan == scan) else { return false };
        let mut making = self.makings.swap_remove(at);
        if making.deadline <= now.mono {
            return true;
        }
        // L1: what was read in another view, or before the machine was synced in this one, may lack what it has been
        // told since: its silence about a key is no vote of this view.
        let same = local.is_synced() && local.epoch() == making.epoch;
        if !same && !local.rules.broken(Mutant::L1Late) {
            self.start(making, local, effects);
            return true;
        }
        match making.take(local, mem::take(found), end) {
            Progress::More => self.look(making, local, effects),
            Progress::Full => making.send(local, false, total, effects),
            Progress::End => making.send(local, true, total, effects),
        }
        true
    }
}

enum Progress {
    /// There is room for more.
    More,
    /// It is to be sent.
    Full,
    /// It is the last one.
    End,
}

impl Making {
    fn take(&mut self, local: &Local, found: Vec<(Key, Loaded)>, end: bool) -> Progress {
        self.looked += 1;
        let most = (self.request.bytes as usize).clamp(PAGE.0, PAGE.1);
        for (key, loaded) in found {
            if !key.as_bytes().starts_with(&self.request.prefix) {
                // Nothing that begins so comes after what begins otherwise.
                return Progress::End;
            }
            let record = match loaded {
                Loaded::Record(record) => Some(self.told(local, &key, record)),
                Loaded::Unreadable => None,
                Loaded::Nothing => continue,
            };
            self.bytes += AROUND + key.as_bytes().len() + record.as_ref().map_or(0, ListRecord::value_bytes);
            self.upto = Some(key.clone());
            self.keys.push((key, record));
            if self.bytes >= most {
                return Progress::Full;
            }
        }
        match end {
            true => Progress::End,
            false if self.looked >= LOOKED => Progress::Full,
            false => Progress::More,
        }
    }

    fn told(&self, local: &Local, key: &Key, record: Record) -> ListRecord {
        let Record { stamp, state, votes } = record;
        let State { version, expires, ref value, .. } = *state;
        let value = match value {
            None => ListValue::None,
            Some(value) if value.len() <= PAGE.1 && self.tells_value(local, key) => {
                ListValue::Whole(value.clone())
            }
            Some(value) => ListValue::Bytes(value.len() as u64),
        };
        ListRecord { stamp, votes, version, expires, value }
    }

    /// True if this machine is the first of the key's owners that are asked for values: each value is sent once.
    fn tells_value(&self, local: &Local, key: &Key) -> bool {
        let Some(without) = &self.request.values else { return false };
        let first = local.owners_of(key).machines().find(|member| {
            let name = local.present().machine(*member).name;
            !without.contains(&name)
        });
        first.is_some() && first == local.present().me
    }

    fn send(self, local: &mut Local, end: bool, total: u64, effects: &mut Vec<Effect>) {
        let page = ListPage {
            synced: true,
            after: self.request.after,
            keys: self.keys,
            upto: self.upto.filter(|_| !end),
            total,
        };
        // As for any answer: what is told is on disk.
        let after = local.last_ticket();
        local.send(self.to, Message::Listed { ask: self.ask, page: Box::new(page) }, after, effects);
    }
}

impl ListRecord {
    /// Bytes of the value that it carries.
    pub(crate) fn value_bytes(&self) -> usize {
        match &self.value {
            ListValue::Whole(value) => value.len(),
            ListValue::None | ListValue::Bytes(_) => 0,
        }
    }
}

/// Why this is not listed.
fn refused(request: &ListRequest) -> Option<&'static str> {
    match &request.prefix[..] {
        [0, ..] => Some("keys that begin with a zero byte are the cluster's own, and are not listed"),
        prefix if prefix.len() > MAX_KEY => Some("the prefix is longer than any key"),
        _ if request.values.as_ref().is_some_and(|without| without.len() > LEFT_OUT) => {
            Some("more machines are left out than 4096")
        }
        _ => None,
    }
}
