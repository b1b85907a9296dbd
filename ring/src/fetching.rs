//! Values that another machine asked for after it was told of their stamps: gathered from their cells, sent as one.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::key::Key;
use crate::local::Local;
use crate::message::{Addr, Ask, Message};
use crate::stamp::Record;
use crate::view::Machine;

/// Questions at once; further ones are lost, and asked again.
const AT_ONCE: usize = 256;
/// Keys of one question that are answered; the others are asked for again.
const KEYS: usize = 64;
/// No further record once so many bytes of values have come together.
const BYTES: usize = 1 << 20;

/// See the module's caption.
#[derive(Debug, Default)]
pub(crate) struct Fetchings {
    made: u64,
    under_way: BTreeMap<u64, Fetching>,
}

#[derive(Debug)]
struct Fetching {
    to: Machine,
    ask: Ask,
    left: usize,
    bytes: usize,
    records: Vec<(Key, Option<Record>)>,
}

impl Fetchings {
    /// The keys whose cells are to [give](Self::give) what they hold, and under which number.
    pub(crate) fn begin(&mut self, to: Machine, ask: Ask, mut keys: Vec<Key>) -> (u64, Vec<Key>) {
        keys.truncate(KEYS);
        if self.under_way.len() >= AT_ONCE || self.under_way.values().any(|f| f.to == to && f.ask == ask) {
            keys.clear();
        }
        self.made += 1;
        if !keys.is_empty() {
            let fetching = Fetching { to, ask, left: keys.len(), bytes: 0, records: Vec::new() };
            self.under_way.insert(self.made, fetching);
        }
        (self.made, keys)
    }

    /// What a cell holds; `None` if it cannot say (R3).
    pub(crate) fn give(
        &mut self,
        local: &mut Local,
        number: u64,
        key: Key,
        record: Option<Option<Record>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(fetching) = self.under_way.get_mut(&number) else { return };
        fetching.left -= 1;
        if let Some(record) = record.filter(|_| fetching.bytes < BYTES) {
            fetching.bytes += record.as_ref().and_then(|r| r.state.value.as_ref()).map_or(0, |v| v.len());
            fetching.records.push((key, record));
        }
        if fetching.left == 0
            && let Some(Fetching { to, ask, records, .. }) = self.under_way.remove(&number)
        {
            // "Durably": what is told is on disk.
            let after = local.last_ticket();
            local.send(Addr::Machine(to), Message::Fetched { ask, records }, after, effects);
        }
    }

    /// A newer view: whoever asked asks anew.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
    }
}
