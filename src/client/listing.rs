//! Lists keys: asks the machines for page after page, has them counted, and reads what the count does not settle.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennead_ring::gathering::{Gathering, Heard, Next, Verdict};
use ennead_ring::message::{ListPage, ListRecord, ListRequest, ListValue, Message, Outcome};
use ennead_ring::quorum_of;
use ennead_ring::view::{Epoch, Name};
use ennead_ring::{Hlc, Key, key};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::link::{Known, Link, Replies, Reply};
use super::{Error, Record, read, record};
use crate::clock;
use crate::crash::rfc3339;

/// Bytes of pages on their way at once, over all machines, and of one page.
const PAGES: usize = 4 << 20;
const PAGE: (usize, usize) = (4 << 10, 20 << 10);
/// Keys settled by a read at once, and bytes of values that wait to be taken.
const AT_ONCE: usize = 64;
const WAITING: u64 = 8 << 20;
/// What the value of a key is taken to have whose copies differ: nobody knows before it is read.
const UNKNOWN: u64 = 256 << 10;
/// How long a page may take before one more machine is asked, too; and before it is asked for again.
const WIDEN_AFTER: Duration = Duration::from_millis(250);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The pause before a machine that cannot tell at present is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// A listing in the making; [`begin`](Self::begin) it.
///
/// **What it tells.** Every key whose last write ended before the listing began, and which nobody wrote since, is in it,
/// once, in the order of the keys' bytes; and only keys are in it that had a value at some time while it ran. Of keys
/// that are written while it runs, each is listed as it was at some moment of that time, or is not, if there was a
/// moment at which it had no value. It is no snapshot: two keys may be told as of two moments. A value that has expired
/// is not listed. A listing that goes on after a cursor tells this of the keys after the cursor, from when it went on.
///
/// **What it costs.** It is streamed: here and on the machines it takes some MiB of memory however many keys there are,
/// and no faster than its entries are taken. Five of nine machines read their keys once; a key whose copies differ (it
/// is just being written, say) takes a read of its own.
///
/// It goes on while as many machines are silent as may be lost at once (any four of nine; of three zones a whole one, and a
/// machine besides), and through changes of the ring.
#[must_use = "a listing does nothing until it is begun"]
#[derive(Clone, Debug)]
pub struct List {
    link: Arc<Link>,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    values: bool,
    patience: Duration,
}

/// A key that has a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The key: also the cursor after which a later listing goes on.
    pub key: Vec<u8>,
    /// As [`Record::version`].
    pub version: u64,
    /// When the value expires, if it does.
    pub expires: Option<SystemTime>,
    /// The value, where values were asked for.
    pub value: Option<Arc<[u8]>>,
}

impl Listed {
    /// For programs: `key`, `version`, and where they are, `value` and `expires`; what is no text is base64, under
    /// `key_base64` and `value_base64`.
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "version": self.version });
        let mut put = |name: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => object[name] = json!(text),
            Err(_) => object[format!("{name}_base64")] = json!(STANDARD.encode(bytes)),
        };
        put("key", &self.key);
        if let Some(value) = &self.value {
            put("value", value);
        }
        if let Some(expires) = self.expires {
            let ms = expires.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64);
            object["expires"] = json!(rfc3339(ms));
        }
        object
    }
}

impl List {
    pub(super) fn new(link: &Arc<Link>, prefix: &[u8]) -> Self {
        let patience = link.options.timeout;
        Self { link: link.clone(), prefix: prefix.to_vec(), after: None, values: false, patience }
    }

    /// Tells the values too.
    pub fn values(mut self) -> Self {
        self.values = true;
        self
    }

    /// Goes on after this key, which need not exist (any more).
    pub fn after(mut self, cursor: impl AsRef<[u8]>) -> Self {
        self.after = Some(cursor.as_ref().to_vec());
        self
    }

    /// How long it waits for machines without getting any further. Default: the client's timeout. More lets it wait for
    /// machines that restart, and for changes of the ring that take their time.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Begins: what was written before this is in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prefix or a cursor that is no part of a key, or that is the cluster's own;
    /// [`Error::Unreachable`] if no machine tells its view.
    pub async fn begin(self) -> Result<Listing, Error> {
        if self.prefix.first() == Some(&0) {
            return Err(Error::Invalid(
                "keys that begin with a zero byte are the cluster's own, and are not listed".to_owned(),
            ));
        }
        if self.prefix.len() > key::MAX_KEY {
            let (bytes, most) = (self.prefix.len(), key::MAX_KEY);
            return Err(Error::Invalid(format!("the prefix has {bytes} bytes; a key has at most {most}")));
        }
        let after = self.after.as_ref().map(Key::new).transpose();
        let after = after.map_err(|e| Error::Invalid(format!("the cursor is no key: {e}")))?;
        let known = self.link.view(Instant::now() + self.patience).await?;
        let gathering = Gathering::new(known.view.clone(), &self.prefix, after);
        let mut listing = Listing {
            replies: self.link.question(),
            cursor: self.after.clone(),
            list: self,
            known,
            gathering,
            asked: BTreeMap::new(),
            reserve: VecDeque::new(),
            due: VecDeque::new(),
            waiting: 0,
            totals: BTreeMap::new(),
        };
        listing.choose();
        Ok(listing)
    }
}

/// A listing under way. Dropped, it ends.
pub struct Listing {
    list: List,
    known: Arc<Known>,
    gathering: Gathering,
    replies: Replies,
    /// The members that are asked, and the page that each owes.
    asked: BTreeMap<u32, Question>,
    /// Members of the ring that need not be asked, best first, as long as the others answer.
    reserve: VecDeque<u32>,
    /// Keys that are settled, or about to be, in their order; and bytes of their values.
    due: VecDeque<(Key, Due)>,
    waiting: u64,
    /// Keys that each machine has in all.
    totals: BTreeMap<Name, u64>,
    cursor: Option<Vec<u8>>,
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("prefix", &self.list.prefix).finish_non_exhaustive()
    }
}

/// What a member is asked.
#[derive(Debug)]
struct Question {
    /// Its page after this key is on its way; `None`: no page is.
    after: Option<Option<Key>>,
    sent: Instant,
    /// Not to be asked (again) before this.
    again: Instant,
    /// One more machine is asked since this one is late, or cannot tell.
    made_up_for: bool,
}

#[derive(Debug)]
enum Due {
    Ready(Listed),
    /// Its copies differ, its value is long or has expired: a read of its own.
    Reading(u64, Reading),
}

/// A read under way. Dropped, it ends.
#[derive(Debug)]
struct Reading(JoinHandle<Result<Option<Record>, Error>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listing {
    /// The next key; `None` at the end. Losing this future loses no key.
    ///
    /// # Errors
    /// [`Error::NoQuorum`] where machines are silent, more than may be lost, for longer than the listing has patience.
    /// It may be called again, and goes on where it was; so does a listing after [`cursor`](Self::cursor).
    pub async fn next(&mut self) -> Result<Option<Listed>, Error> {
        let mut since = Instant::now();
        loop {
            let over = self.count();
            if let Some((_, due)) = self.due.front_mut() {
                let found = match due {
                    Due::Ready(listed) => Some(listed.clone()),
                    Due::Reading(_, reading) => {
                        let read =
                            (&mut reading.0).await.map_err(|e| Error::Refused(format!("a read ended: {e}")));
                        match read.and_then(|read| read) {
                            Ok(found) => found.map(|found| self.listed(found)),
                            Err(why) => {
                                self.read_again();
                                return Err(why);
                            }
                        }
                    }
                };
                if let Some(listed) = self.take(found) {
                    return Ok(Some(listed));
                }
                since = Instant::now();
                continue;
            }
            if over {
                return Ok(None);
            }
            let before = self.gathering.done().cloned();
            self.ask();
            self.hear(since + self.list.patience).await?;
            self.count();
            if self.gathering.done() != before.as_ref() || !self.due.is_empty() {
                since = Instant::now();
            }
            if since.elapsed() >= self.list.patience {
                return Err(self.no_quorum());
            }
        }
    }

    /// The last key that [`next`](Self::next) told, or what the listing went on after: where another one goes on.
    pub fn cursor(&self) -> Option<&[u8]> {
        self.cursor.as_deref()
    }

    /// How many keys the cluster has in all, roughly, whatever the prefix; 0 while nobody has said so.
    pub fn keys_in_all(&self) -> u64 {
        let told = self.totals.len().max(1) as u64;
        let machines = self.known.view.members().iter().filter(|m| m.in_ring()).count() as u64;
        let copies = machines.min(u64::from(self.known.view.slots())).max(1);
        self.totals.values().sum::<u64>() / told * machines / copies
    }

    /// The same as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Listed, Error>> + Send {
        futures_util::stream::try_unfold(self, async |mut listing| {
            Ok(listing.next().await?.map(|listed| (listed, listing)))
        })
    }

    // -- what is told --------------------------------------------------------------------------------

    /// Moves what can be counted to what is due; true once there is nothing more to count.
    fn count(&mut self) -> bool {
        while self.due.len() < AT_ONCE && self.waiting < WAITING {
            match self.gathering.next() {
                Next::Key(key, verdict) => {
                    let (due, bytes) = match verdict {
                        Verdict::None => continue,
                        Verdict::Settled(record) => self.settled(&key, record),
                        Verdict::Unclear => (self.reading(&key, UNKNOWN), UNKNOWN),
                    };
                    self.waiting += bytes;
                    self.due.push_back((key, due));
                }
                Next::Wait => return false,
                Next::End => return true,
            }
        }
        false
    }

    fn settled(&self, key: &Key, told: ListRecord) -> (Due, u64) {
        let (value, bytes) = match told.value {
            ListValue::Whole(value) => (Some(value.clone()), value.len() as u64),
            ListValue::Bytes(bytes) if self.list.values => (None, bytes),
            ListValue::Bytes(_) | ListValue::None => (None, 0),
        };
        // G4: its deletion must be settled before it is left out.
        let expired = told.expires.is_some_and(|at| at <= Hlc::from_nanos(clock::unix_ns()));
        if expired || (self.list.values && value.is_none()) {
            return (self.reading(key, bytes), bytes);
        }
        let found = record(value.clone().unwrap_or_default(), told.version, told.expires);
        let listed =
            Listed { key: key.as_bytes().to_vec(), version: told.version, expires: found.expires, value };
        (Due::Ready(listed), bytes)
    }

    /// D1 to D4, for this key alone.
    fn reading(&self, key: &Key, bytes: u64) -> Due {
        let (link, key) = (self.list.link.clone(), key.clone());
        let deadline = Instant::now() + self.list.patience;
        let read = tokio::spawn(async move { read::quorum(&link, &key, deadline).await });
        Due::Reading(bytes, Reading(read))
    }

    /// The first of those that are due could not be read.
    fn read_again(&mut self) {
        if let Some((key, Due::Reading(bytes, _))) = self.due.pop_front() {
            let due = self.reading(&key, bytes);
            self.due.push_front((key, due));
        }
    }

    fn listed(&self, found: Record) -> Listed {
        let key = self.due.front().map(|(key, _)| key.as_bytes().to_vec()).unwrap_or_default();
        let value = self.list.values.then_some(found.value);
        Listed { key, version: found.version, expires: found.expires, value }
    }

    /// The first of those that are due goes out, or turned out to be no key.
    fn take(&mut self, found: Option<Listed>) -> Option<Listed> {
        if let Some((key, due)) = self.due.pop_front() {
            self.waiting -= match due {
                Due::Ready(listed) => listed.value.map_or(0, |value| value.len() as u64),
                Due::Reading(bytes, _) => bytes,
            };
            self.cursor = Some(key.as_bytes().to_vec());
        }
        found
    }

    // -- who is asked --------------------------------------------------------------------------------

    /// Asks the machines that are needed, the best of them; the others when one of these is late.
    fn choose(&mut self) {
        let members = self.known.view.members().iter().enumerate().filter(|(_, m)| m.in_ring());
        let ranked = self.list.link.ranked_of(&self.known, members.map(|(i, _)| i as u32));
        self.reserve = ranked.into_iter().map(|(_, member)| member).collect();
        self.asked.clear();
        self.widen();
    }

    /// Asks as many more as it takes, so that those who are not late are enough: of zones, that may be more than one for one
    /// that is; all there are, if they are too few.
    fn widen(&mut self) {
        let in_time =
            self.asked.iter().filter(|(_, question)| !question.made_up_for).map(|(member, _)| *member);
        let mut all: Vec<u32> = in_time.collect();
        let asked = all.len();
        all.extend(&self.reserve);
        let needed = self.gathering.needed(&all).unwrap_or(all.len());
        let now = Instant::now();
        for member in self.reserve.drain(..needed.saturating_sub(asked)) {
            let question = Question { after: None, sent: now, again: now, made_up_for: false };
            self.asked.insert(member, question);
        }
    }

    /// One more is asked in place of this one, which is not asked before `pause` is over.
    fn make_up_for(&mut self, member: u32, pause: Duration) {
        let Some(question) = self.asked.get_mut(&member) else { return };
        question.after = None;
        question.again = Instant::now() + pause;
        if !std::mem::replace(&mut question.made_up_for, true) {
            self.widen();
        }
    }

    /// Asks for what is wanted and not on its way.
    fn ask(&mut self) {
        let now = Instant::now();
        let bytes = (PAGES / self.asked.len().max(1)).clamp(PAGE.0, PAGE.1) as u32;
        let within = self.list.patience.max(AGAIN_AFTER).as_millis() as u32;
        let values = self.list.values.then(|| self.left_out());
        let late: Vec<u32> = self.asked.iter().filter(|(_, q)| q.is_late(now)).map(|(m, _)| *m).collect();
        let is_late = !late.is_empty();
        for member in late {
            if let Some(question) = self.asked.get_mut(&member) {
                question.made_up_for = true;
            }
        }
        if is_late {
            self.widen();
        }
        for (member, question) in &mut self.asked {
            let Some(after) = self.gathering.wants(*member) else { continue };
            if question.again > now {
                continue;
            }
            let request = ListRequest {
                after: after.clone(),
                prefix: self.list.prefix.clone(),
                bytes,
                within,
                values: values.clone(),
            };
            let message = Message::List { ask: self.replies.ask, request: Box::new(request) };
            self.list.link.send(self.known.name(*member), message);
            if question.after.as_ref() != Some(&after) {
                question.sent = now;
            }
            question.after = Some(after);
            question.again = now + AGAIN_AFTER;
        }
    }

    /// Machines whose values are not waited for: the next owner tells them.
    fn left_out(&self) -> Vec<Name> {
        let members = self.known.view.members().iter().enumerate();
        let out = |member: u32| self.asked.get(&member).is_none_or(|q| q.made_up_for);
        members.filter(|(i, _)| out(*i as u32)).map(|(_, m)| m.machine.name).collect()
    }

    // -- what they answer ----------------------------------------------------------------------------

    /// Waits for one answer, or for when somebody is to be asked again.
    async fn hear(&mut self, deadline: Instant) -> Result<(), Error> {
        let due = self.asked.iter().filter_map(|(member, question)| {
            self.gathering.wants(*member)?;
            Some(question.due())
        });
        let until = due.min().map_or(deadline, |due| due.min(deadline));
        let Ok((name, reply)) = tokio::time::timeout_at(until.into(), self.replies.next()).await else {
            return Ok(());
        };
        let Some(member) = self.known.view.index_of(name).map(|i| i as u32) else { return Ok(()) };
        match reply {
            Reply::Ring(envelope) => {
                let epoch = envelope.epoch;
                match envelope.message {
                    Message::Listed { page, .. } => self.on_page(name, member, epoch, *page).await?,
                    Message::Outcome { outcome: Outcome::Overloaded { retry_after }, .. } => {
                        self.make_up_for(member, Duration::from_millis(retry_after.into()).max(PAUSE));
                    }
                    Message::Outcome { outcome: Outcome::Refused(why), .. } => {
                        return Err(Error::Refused(why.into()));
                    }
                    // It is in no view at present.
                    _ => self.make_up_for(member, PAUSE),
                }
            }
            Reply::Down(_) => self.make_up_for(member, AGAIN_AFTER),
            Reply::Status(_) | Reply::Check { .. } | Reply::Why(_) => {}
        }
        Ok(())
    }

    async fn on_page(&mut self, name: Name, member: u32, epoch: Epoch, page: ListPage) -> Result<(), Error> {
        let (after, total) = (page.after.clone(), page.total);
        match self.gathering.hear(member, epoch, page) {
            Heard::Taken => {
                self.totals.insert(name, total);
                if let Some(question) = self.asked.get_mut(&member)
                    && question.after.as_ref() == Some(&after)
                {
                    question.after = None;
                    question.again = Instant::now();
                }
            }
            Heard::Stray => {}
            Heard::Behind | Heard::NotSynced => self.make_up_for(member, PAUSE),
            Heard::Malformed => self.make_up_for(member, AGAIN_AFTER),
            Heard::Ahead => self.see_view(epoch).await?,
        }
        Ok(())
    }

    /// L4: begins again in the newer view, from where the gathering has got to.
    async fn see_view(&mut self, epoch: Epoch) -> Result<(), Error> {
        let link = self.list.link.clone();
        let known = link.fetch_view(Instant::now() + self.list.patience).await?;
        if known.view.epoch() < epoch {
            // Others have not heard of it yet.
            tokio::time::sleep(PAUSE).await;
        }
        if known.view.epoch() > self.known.view.epoch() {
            let after = self.gathering.done().cloned();
            self.gathering = Gathering::new(known.view.clone(), &self.list.prefix, after);
            self.known = known;
            self.choose();
        }
        Ok(())
    }

    fn no_quorum(&self) -> Error {
        let silent = self.gathering.silent().into_iter().map(|member| self.known.name(member)).collect();
        Error::NoQuorum {
            votes: self.gathering.votes(),
            needed: quorum_of(self.known.view.slots()),
            silent,
            within: self.list.patience,
        }
    }
}

impl Question {
    fn is_late(&self, now: Instant) -> bool {
        self.after.is_some() && !self.made_up_for && self.sent + WIDEN_AFTER <= now
    }

    /// When something is to be done about it.
    fn due(&self) -> Instant {
        match self.after {
            Some(_) if !self.made_up_for => (self.sent + WIDEN_AFTER).min(self.again),
            _ => self.again,
        }
    }
}
