//! Who belongs: members, incarnations, epochs.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::placement::{Ring, Rings};
use crate::quorum::MAX_SLOTS;
use crate::zone::Zone;

/// The UDP port a machine listens on where its name has none.
pub const DEFAULT_PORT: u16 = 9595;
/// Positions of a machine on the ring where nobody said otherwise.
pub const DEFAULT_WEIGHT: u32 = 64;
/// Most positions one machine may have.
pub const MAX_WEIGHT: u32 = 65_536;
/// Most positions on a ring.
pub const MAX_POSITIONS: u64 = 50_000_000;
/// Most members of a view.
pub const MAX_MEMBERS: usize = 100_000;

/// What a machine is called: its advertised IP address, with the port where that is not the default.
///
/// The ring hashes its text, so `10.0.0.1` and `10.0.0.1:9595` are the same name: `10.0.0.1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(SocketAddr);

/// IPv4 before IPv6, then by address, then by port. Views are searched by name: as two numbers, names are compared in no time.
impl Ord for Name {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |name: &Self| match name.0 {
            SocketAddr::V4(a) => (false, u128::from(a.ip().to_bits()), a.port()),
            SocketAddr::V6(a) => (true, a.ip().to_bits(), a.port()),
        };
        number(self).cmp(&number(other))
    }
}

impl PartialOrd for Name {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Encode for Name {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        match self.0.ip() {
            IpAddr::V4(ip) => (4u8, ip.octets(), self.0.port()).encode(encoder),
            IpAddr::V6(ip) => (6u8, ip.octets(), self.0.port()).encode(encoder),
        }
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let ip = match u8::decode(decoder)? {
            4 => IpAddr::from(<[u8; 4]>::decode(decoder)?),
            6 => IpAddr::from(<[u8; 16]>::decode(decoder)?),
            _ => return Err(DecodeError::Other("an address is IPv4 or IPv6")),
        };
        match u16::decode(decoder)? {
            0 => Err(DecodeError::Other("port 0 names no machine")),
            port => Ok(Self(SocketAddr::new(ip, port))),
        }
    }
}
bincode::impl_borrow_decode!(Name);

impl Name {
    /// The name of the machine that listens there.
    pub const fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Where it listens.
    pub const fn address(self) -> SocketAddr {
        self.0
    }

    /// The IP address alone: what its certificate must name.
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == DEFAULT_PORT { write!(f, "{}", self.0.ip()) } else { write!(f, "{}", self.0) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is no machine's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a machine: write IP or IP:PORT, such as 10.0.0.1 or [fd00::1]:9605", self.0)
    }
}

impl core::error::Error for NameError {}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let address = match text.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, DEFAULT_PORT),
            Err(_) => text.parse::<SocketAddr>().map_err(|_| NameError(text.to_string()))?,
        };
        // A port nobody can listen on, or a scope that another machine would read otherwise, is no name.
        match address {
            a if a.port() == 0 => Err(NameError(text.to_string())),
            SocketAddr::V6(a) if a.scope_id() != 0 || a.flowinfo() != 0 => Err(NameError(text.to_string())),
            a => Ok(Self(a)),
        }
    }
}

/// One life of a member's data directory: a random id written once on it. An emptied, restored, cloned or
/// badly damaged directory gets a new one, so amnesia never hides behind an old name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Incarnation(u64);

impl Incarnation {
    /// No machine's: below all others.
    pub const NONE: Self = Self(0);

    /// The incarnation with this id.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The id.
    pub const fn id(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A random id drawn by `init`: two inits are two clusters that refuse each other (F1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ClusterId(u64);

impl ClusterId {
    /// The cluster with this id.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The id.
    pub const fn id(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which view: a number within a generation. A forced recovery (F2) opens a new generation, which also
/// carries a random id so that two forced ones never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Epoch {
    /// 0 until a forced recovery.
    pub generation: u32,
    /// The generation's random id; 0 in generation 0.
    pub fork: u32,
    /// 1 for the view that `init` makes.
    pub number: u32,
}

impl Epoch {
    /// Before every view: the epoch of a blank machine.
    pub const ZERO: Self = Self { generation: 0, fork: 0, number: 0 };
    /// The epoch of the view that `init` makes.
    pub const FIRST: Self = Self { generation: 0, fork: 0, number: 1 };

    /// True if the two are of one generation, and of one that was forced once.
    pub const fn is_beside(self, other: Self) -> bool {
        self.generation == other.generation && self.fork == other.fork
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.number),
            g => write!(f, "{g}.{:08x}.{}", self.fork, self.number),
        }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{self}")
    }
}

/// A machine: one incarnation of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Machine {
    /// Its address, so to speak.
    pub name: Name,
    /// Who it is.
    pub incarnation: Incarnation,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.incarnation)
    }
}

/// Whether a member is in the ring, on its way in or on its way out (V1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MemberState {
    /// Copies data ahead; owns nothing yet.
    Joining,
    /// Owns slots.
    Up,
    /// Owns slots; its heirs copy ahead.
    Leaving,
}

/// One machine's place in a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which machine.
    pub machine: Machine,
    /// Its positions in the ring (V): its weight.
    pub weight: u32,
    /// Its positions in the next ring.
    pub next_weight: u32,
    /// Joining, up or leaving.
    pub state: MemberState,
    /// Its zone in the ring.
    pub zone: Zone,
    /// Its zone in the next ring.
    pub next_zone: Zone,
}

impl Member {
    /// A machine in this state, of this place, that is to stay there.
    pub const fn new(machine: Machine, (weight, zone): (u32, Zone), state: MemberState) -> Self {
        Self { machine, weight, next_weight: weight, state, zone, next_zone: zone }
    }

    /// A machine that is up, in no zone.
    pub const fn up(machine: Machine, weight: u32) -> Self {
        Self::new(machine, (weight, Zone::NONE), MemberState::Up)
    }

    /// Its place in the ring: weight and zone.
    pub const fn place(&self) -> (u32, Zone) {
        (self.weight, self.zone)
    }

    /// Its place in the next ring.
    pub const fn next_place(&self) -> (u32, Zone) {
        (self.next_weight, self.next_zone)
    }

    /// True if it is in the view's ring: up or leaving.
    pub const fn in_ring(&self) -> bool {
        matches!(self.state, MemberState::Up | MemberState::Leaving)
    }
}

/// The agreed membership at one epoch (V1). Every `View` in memory is [valid](View::new).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    cluster: ClusterId,
    epoch: Epoch,
    slots: u8,
    members: Vec<Member>,
    forced_out: Vec<Incarnation>,
    /// Of each generation before its own, the last view: the one after which the next generation was forced (F2).
    roots: Vec<Epoch>,
    /// Computed from the above.
    rings: Rings,
}

/// Why some members make no view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewError {
    /// The number of slots is even, zero or above [`MAX_SLOTS`].
    Slots(u8),
    /// Nobody is in the ring.
    Empty,
    /// More than [`MAX_MEMBERS`].
    TooMany(usize),
    /// Two members of one name (V6) or of one incarnation.
    Twice(Machine),
    /// No position on the ring, or more than [`MAX_WEIGHT`].
    Weight(Machine, u32),
    /// More than [`MAX_POSITIONS`] in all.
    TooHeavy(u64),
    /// An incarnation that was forced out (F2) is a member.
    ForcedOut(Machine),
    /// Its epoch is none that a view can come to after the views that it names as its past (F2).
    Past(Epoch),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots(n) => write!(f, "{n} slots: a cluster has an odd number of slots, 1 to {MAX_SLOTS}"),
            Self::Empty => write!(f, "a view needs a machine in its ring"),
            Self::TooMany(n) => write!(f, "{n} members; a view has at most {MAX_MEMBERS}"),
            Self::Twice(m) => {
                write!(f, "two machines are called {} or are incarnation {}", m.name, m.incarnation)
            }
            Self::Weight(m, v) => write!(f, "{m} has {v} virtual peers; a machine has 1 to {MAX_WEIGHT}"),
            Self::TooHeavy(n) => write!(f, "{n} virtual peers in all; a ring has at most {MAX_POSITIONS}"),
            Self::ForcedOut(m) => write!(f, "{m:?} was forced out and may not return under this incarnation"),
            Self::Past(epoch) => {
                write!(f, "no view of epoch {epoch} can follow those that it names as its past")
            }
        }
    }
}

impl core::error::Error for ViewError {}

impl View {
    /// A view of the first generation with these members, in any order. Later generations are [forced](Self::forced).
    ///
    /// # Errors
    /// Whatever would make placement ambiguous or impossible: see [`ViewError`].
    pub fn new(
        cluster: ClusterId,
        epoch: Epoch,
        slots: u8,
        members: Vec<Member>,
        forced_out: Vec<Incarnation>,
    ) -> Result<Self, ViewError> {
        Self::with_past(cluster, epoch, slots, members, forced_out, Vec::new())
    }

    fn with_past(
        cluster: ClusterId,
        epoch: Epoch,
        slots: u8,
        mut members: Vec<Member>,
        forced_out: Vec<Incarnation>,
        roots: Vec<Epoch>,
    ) -> Result<Self, ViewError> {
        if !is_past_of(&roots, epoch) {
            return Err(ViewError::Past(epoch));
        }
        if slots.is_multiple_of(2) || slots as usize > MAX_SLOTS {
            return Err(ViewError::Slots(slots));
        }
        if members.len() > MAX_MEMBERS {
            return Err(ViewError::TooMany(members.len()));
        }
        if !members.iter().any(Member::in_ring) {
            return Err(ViewError::Empty);
        }
        // Looked up for each member: a list of both lengths would otherwise cost their product.
        let out: BTreeSet<Incarnation> = forced_out.iter().copied().collect();
        for member in &members {
            if !(1..=MAX_WEIGHT).contains(&member.weight) {
                return Err(ViewError::Weight(member.machine, member.weight));
            }
            if !(1..=MAX_WEIGHT).contains(&member.next_weight) {
                return Err(ViewError::Weight(member.machine, member.next_weight));
            }
            if out.contains(&member.machine.incarnation) {
                return Err(ViewError::ForcedOut(member.machine));
            }
        }
        let positions: u64 = members.iter().map(|m| u64::from(m.weight.max(m.next_weight))).sum();
        if positions > MAX_POSITIONS {
            return Err(ViewError::TooHeavy(positions));
        }
        members.sort_by_key(|m| m.machine.incarnation);
        if let Some(pair) = members.windows(2).find(|p| p[0].machine.incarnation == p[1].machine.incarnation)
        {
            return Err(ViewError::Twice(pair[1].machine));
        }
        members.sort_by_key(|m| m.machine.name);
        if let Some(pair) = members.windows(2).find(|p| p[0].machine.name == p[1].machine.name) {
            return Err(ViewError::Twice(pair[1].machine));
        }
        Ok(Self { cluster, epoch, slots, members, forced_out, roots, rings: Rings::default() })
    }

    /// The view after this one, with these members.
    ///
    /// # Errors
    /// As [`new`](Self::new); the last number of an epoch has none after it.
    pub fn successor(&self, members: Vec<Member>, forced_out: Vec<Incarnation>) -> Result<Self, ViewError> {
        let number = self.epoch.number.checked_add(1).ok_or(ViewError::Empty)?;
        let epoch = Epoch { number, ..self.epoch };
        Self::with_past(self.cluster, epoch, self.slots, members, forced_out, self.roots.clone())
    }

    /// F2: the view that an operator forces after this one where its wardens are lost: it opens a generation, whose
    /// random id keeps it apart from what anybody else forces after this view, or after a later one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn forced(
        &self,
        members: Vec<Member>,
        forced_out: Vec<Incarnation>,
        fork: u32,
    ) -> Result<Self, ViewError> {
        let next = |n: u32| n.checked_add(1).ok_or(ViewError::Empty);
        let (generation, number) = (next(self.epoch.generation)?, next(self.epoch.number)?);
        let epoch = Epoch { generation, fork, number };
        let roots = self.roots.iter().copied().chain([self.epoch]).collect();
        Self::with_past(self.cluster, epoch, self.slots, members, forced_out, roots)
    }

    /// True if `other` can be the view after this one: of the same cluster, with the next number, and decided (V2), or
    /// forced after exactly this one (F2).
    pub fn is_before(&self, other: &Self) -> bool {
        let (a, b) = (self.epoch, other.epoch);
        self.slots == other.slots && a.number.checked_add(1) == Some(b.number) && self.is_in_past_of(other)
    }

    /// True if `other` comes after this view, however many are between the two: in the same generation, or in one forced
    /// after a view that is not before this one. Only then may a machine of this view ever come to that one (F2).
    pub fn is_in_past_of(&self, other: &Self) -> bool {
        let own = self.epoch;
        let past = self.cluster == other.cluster && other.roots.starts_with(&self.roots);
        past && match other.roots.get(self.roots.len()) {
            None => own.is_beside(other.epoch) && own.number < other.epoch.number,
            Some(root) => own.is_beside(*root) && own.number <= root.number,
        }
    }

    /// F2: true if two operators forced, each without the other's view: nobody but an operator can say which of the two
    /// goes on.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        let forks = |view: &Self| -> Vec<u32> {
            view.roots.iter().chain([&view.epoch]).map(|epoch| epoch.fork).collect()
        };
        self.cluster == other.cluster && forks(self).iter().zip(&forks(other)).any(|(a, b)| a != b)
    }

    /// True if a decree or an operator can make `next` of this view: nobody forced out comes back (F2), nobody owns a slot
    /// who was not announced (M1), no place comes from nowhere, and a forced view takes away and changes nothing else.
    pub fn may_become(&self, next: &Self) -> bool {
        let opens = next.epoch.generation != self.epoch.generation;
        let lawful = |member: &Member| {
            let before = self.index_of(member.machine.name).map(|i| &self.members[i]);
            match before.filter(|b| b.machine == member.machine) {
                None => member.state == MemberState::Joining && !opens,
                Some(before) if opens => member == before,
                Some(before) => {
                    (member.state != MemberState::Joining || before.state == MemberState::Joining)
                        && (member.place() == before.place() || member.place() == before.next_place())
                }
            }
        };
        self.is_before(next)
            && next.forced_out.starts_with(&self.forced_out)
            && next.members.iter().all(lawful)
    }

    /// What it would be with these members: nobody's view, but a plan's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_members(&self, members: Vec<Member>) -> Result<Self, ViewError> {
        let roots = self.roots.clone();
        Self::with_past(self.cluster, self.epoch, self.slots, members, Vec::new(), roots)
    }

    /// True if the rings of the two are the same: nobody gains a slot between them.
    pub fn same_ring(&self, other: &Self) -> bool {
        fn ring(view: &View) -> impl Iterator<Item = (Machine, (u32, Zone))> + '_ {
            view.members.iter().filter(|m| m.in_ring()).map(|m| (m.machine, m.place()))
        }
        core::ptr::eq(self, other) || ring(self).eq(ring(other))
    }

    /// Which cluster's.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which view.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Slots of each key (S).
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// The members, in order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The incarnations ever forced out (F2).
    pub fn forced_out(&self) -> &[Incarnation] {
        &self.forced_out
    }

    /// True if this incarnation was ever forced out (F2).
    pub fn has_forced_out(&self, incarnation: Incarnation) -> bool {
        self.forced_out.contains(&incarnation)
    }

    /// The view that it follows, where it opens a generation (F2).
    pub fn parent(&self) -> Option<Epoch> {
        self.roots.last().copied().filter(|root| root.number.checked_add(1) == Some(self.epoch.number))
    }

    /// Which machine owns which slot: its up and leaving members with their present weights.
    pub fn ring(&self) -> &Ring {
        self.rings.now(self)
    }

    /// The ring towards which data is copied ahead, where it is another (M1).
    pub fn next_ring(&self) -> Option<&Ring> {
        self.rings.next(self)
    }

    /// The place of the machine of this name in [`members`](Self::members).
    pub fn index_of(&self, name: Name) -> Option<usize> {
        // Few are found sooner without a table.
        match self.members.len() {
            0..16 => self.members.iter().position(|m| m.machine.name == name),
            _ => self.rings.places(self).get(&name).map(|place| *place as usize),
        }
    }

    /// True if exactly this incarnation is a member: its namesake is not (V6).
    pub fn has(&self, machine: Machine) -> bool {
        self.index_of(machine.name).is_some_and(|i| self.members[i].machine == machine)
    }
}

/// True if a view of this epoch can follow these, each the last of its generation (F2): numbers go on from one generation
/// to the next, and every generation but the first has a random id.
fn is_past_of(roots: &[Epoch], epoch: Epoch) -> bool {
    let all = || roots.iter().chain([&epoch]);
    roots.len() == epoch.generation as usize
        && all().zip(0u32..).all(|(e, n)| e.generation == n && (e.fork == 0) == (n == 0))
        && all().zip(all().skip(1)).all(|(before, after)| before.number < after.number)
}

/// Set in the byte of the slots where members are in zones.
const ZONED: u8 = 0x80;

/// A view of the first generation is written as it was before there were others, and one without zones likewise.
impl Encode for View {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.cluster.encode(encoder)?;
        self.epoch.encode(encoder)?;
        let zoned = self.members.iter().any(|m| !m.zone.is_none() || !m.next_zone.is_none());
        (self.slots | if zoned { ZONED } else { 0 }).encode(encoder)?;
        let plain = |m: &Member| (m.machine, m.weight, m.next_weight, m.state);
        self.members.iter().map(plain).collect::<Vec<_>>().encode(encoder)?;
        if zoned {
            self.members.iter().map(|m| (m.zone, m.next_zone)).collect::<Vec<_>>().encode(encoder)?;
        }
        self.forced_out.encode(encoder)?;
        match self.epoch.generation {
            0 => Ok(()),
            _ => self.roots.encode(encoder),
        }
    }
}

/// Decodes and checks, so that a peer's lie or a rotten byte never becomes a `View`.
impl<Context> Decode<Context> for View {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let cluster = Decode::decode(decoder)?;
        let epoch: Epoch = Decode::decode(decoder)?;
        let slots = u8::decode(decoder)?;
        let plain: Vec<(Machine, u32, u32, MemberState)> = Decode::decode(decoder)?;
        let member = |(machine, weight, next_weight, state)| Member {
            next_weight,
            ..Member::new(machine, (weight, Zone::NONE), state)
        };
        let mut members: Vec<Member> = plain.into_iter().map(member).collect();
        if slots & ZONED != 0 {
            let zones: Vec<(Zone, Zone)> = Decode::decode(decoder)?;
            if zones.len() != members.len() {
                return Err(DecodeError::Other("a view names a zone for each of its members, or for none"));
            }
            for (member, zones) in members.iter_mut().zip(zones) {
                (member.zone, member.next_zone) = zones;
            }
        }
        let slots = slots & !ZONED;
        let forced_out = Decode::decode(decoder)?;
        let roots = if epoch.generation == 0 { Vec::new() } else { Decode::decode(decoder)? };
        Self::with_past(cluster, epoch, slots, members, forced_out, roots)
            .map_err(|e| DecodeError::OtherString(e.to_string()))
    }
}
bincode::impl_borrow_decode!(View);
