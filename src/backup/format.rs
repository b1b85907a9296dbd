//! The bytes of a backup. All numbers are little-endian.
//!
//! ```text
//! file     "ENNEADBK", then parts: a header, any number of blocks, a trailer
//! part     kind (1 byte), length of the body (4), CRC-32C of kind, length and body (4), body
//! header   format (2), cluster (8), generation (4), fork (4), begun in ms since 1970 (8),
//!          length of the prefix (2), prefix, base (0, or 1 and the base's digest: 32)
//! block    length of what is compressed (4), LZ4 of items
//! item     flags (1: has a value, 2: expires), length of the key (2), version (8), [expiry in ns since 1970 (8)],
//!          [length of the value (4)], key, [value]
//! trailer  keys with a value (8), keys without (8), bytes of keys and values (8), blocks (8), ended in ms (8),
//!          SHA-256 of every byte before the trailer (32)
//! ```
//!
//! Keys rise strictly through the file. An item without a value is a key that the base has and that is gone.

use ennead_ring::key::MAX_KEY;

/// What a backup begins with.
pub(super) const MAGIC: &[u8; 8] = b"ENNEADBK";
/// The format described above.
const FORMAT: u16 = 1;
/// Bytes before a part's body.
pub(super) const HEAD: usize = 9;
/// Longest body of a part, and most bytes that a block is unpacked to: the longest value that the wire takes, with what
/// goes around it.
pub(super) const MOST: usize = 65 << 20;
/// LZ4 makes at most so many bytes of one.
const MOST_FROM_ONE: usize = 255;
/// Bytes of a trailer's body.
pub(super) const TRAILER: usize = 5 * 8 + 32;

/// A digest by which a backup is known.
pub(super) type Digest = [u8; 32];

/// What a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Header = 1,
    Block = 2,
    Trailer = 3,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::Block, Self::Trailer].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Of which cluster a backup is, and from when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cluster's id.
    pub cluster: u64,
    /// Forced recoveries before it (F2), and the last one's random id: versions are not comparable across one.
    pub generation: (u32, u32),
    /// When it was begun, in milliseconds since 1970, by the clock of who took it: all that was written before is in it.
    pub begun_ms: u64,
    /// What its keys begin with.
    pub prefix: Vec<u8>,
    /// The digest of the backup that it goes on from: it has only what changed since.
    pub base: Option<[u8; 32]>,
}

/// A key, as it was at some moment while the backup was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// When the value expires, in nanoseconds since 1970.
    pub expires: Option<u64>,
    /// The value; `None`: the base has one, and it is gone.
    pub value: Option<Vec<u8>>,
}

/// What a backup has in all; the mark that it is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailer {
    /// Keys with a value.
    pub keys: u64,
    /// Keys that are gone since the base.
    pub gone: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// When it was ended, in milliseconds since 1970.
    pub ended_ms: u64,
    /// By which it is known: of every byte before the trailer.
    pub digest: [u8; 32],
}

impl Item {
    /// Bytes of its key and value.
    pub(super) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.as_ref().map_or(0, Vec::len)) as u64
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.value.is_some()) | u8::from(self.expires.is_some()) << 1;
        out.push(flags);
        // A key has at most 16 KiB, and a value at most what the wire takes.
        out.extend((self.key.len() as u16).to_le_bytes());
        out.extend(self.version.to_le_bytes());
        out.extend(self.expires.iter().flat_map(|at| at.to_le_bytes()));
        out.extend(self.value.iter().flat_map(|value| (value.len() as u32).to_le_bytes()));
        out.extend(&self.key);
        out.extend(self.value.iter().flatten());
    }
}

/// A part, ready to be written.
pub(super) fn part(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.push(kind as u8);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(checksum(&out[..5], body).to_le_bytes());
    out.extend(body);
    out
}

/// What a part's head says: its kind, the length of its body, the checksum.
pub(super) fn head(head: &[u8; HEAD]) -> Result<(Kind, usize, u32), String> {
    let kind = Kind::of(head[0]).ok_or_else(|| format!("there is no part of kind {}", head[0]))?;
    let mut rest = Bytes(&head[1..]);
    let (len, sum) = (rest.u32()? as usize, rest.u32()?);
    if len > MOST {
        return Err(format!("it says that it has {len} bytes, and a part has at most {MOST}"));
    }
    Ok((kind, len, sum))
}

/// Of a part: of the beginning of its head, and of its body.
pub(super) fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

pub(super) fn write_header(header: &Header) -> Vec<u8> {
    let mut out = FORMAT.to_le_bytes().to_vec();
    out.extend(header.cluster.to_le_bytes());
    out.extend(header.generation.0.to_le_bytes());
    out.extend(header.generation.1.to_le_bytes());
    out.extend(header.begun_ms.to_le_bytes());
    out.extend((header.prefix.len() as u16).to_le_bytes());
    out.extend(&header.prefix);
    out.push(header.base.is_some().into());
    out.extend(header.base.iter().flatten());
    out
}

pub(super) fn read_header(body: &[u8]) -> Result<Header, String> {
    let mut body = Bytes(body);
    match body.u16()? {
        FORMAT => {}
        other => return Err(format!("it is of format {other}, and this program reads format {FORMAT}")),
    }
    let (cluster, generation) = (body.u64()?, (body.u32()?, body.u32()?));
    let begun_ms = body.u64()?;
    let prefix = body.u16()?;
    let prefix = body.take(prefix.into())?.to_vec();
    let base = match body.u8()? {
        0 => None,
        1 => Some(body.digest()?),
        other => return Err(format!("{other} stands where 0 or 1 must")),
    };
    body.end()?;
    Ok(Header { cluster, generation, begun_ms, prefix, base })
}

pub(super) fn write_trailer(trailer: &Trailer) -> Vec<u8> {
    let numbers = [trailer.keys, trailer.gone, trailer.bytes, trailer.blocks, trailer.ended_ms];
    numbers.iter().flat_map(|number| number.to_le_bytes()).chain(trailer.digest).collect()
}

pub(super) fn read_trailer(body: &[u8]) -> Result<Trailer, String> {
    let mut body = Bytes(body);
    let trailer = Trailer {
        keys: body.u64()?,
        gone: body.u64()?,
        bytes: body.u64()?,
        blocks: body.u64()?,
        ended_ms: body.u64()?,
        digest: body.digest()?,
    };
    body.end()?;
    Ok(trailer)
}

/// The body of a block of these items, written one after the other.
pub(super) fn pack(items: &[u8]) -> Vec<u8> {
    let mut out = (items.len() as u32).to_le_bytes().to_vec();
    out.extend(lz4_flex::block::compress(items));
    out
}

/// Takes no more memory than 255 times the bytes given, whatever they claim.
pub(super) fn unpack(body: &[u8]) -> Result<Vec<Item>, String> {
    let mut body = Bytes(body);
    let len = body.u32()? as usize;
    let packed = body.0;
    if len > MOST || len > packed.len().saturating_mul(MOST_FROM_ONE) {
        return Err(format!("{} bytes cannot have been {len}", packed.len()));
    }
    let mut raw = vec![0; len];
    match lz4_flex::block::decompress_into(packed, &mut raw) {
        Ok(n) if n == len => {}
        Ok(n) => return Err(format!("{n} bytes were packed, and it says {len}")),
        Err(why) => return Err(why.to_string()),
    }
    let (mut raw, mut items) = (Bytes(&raw), Vec::new());
    while !raw.0.is_empty() {
        items.push(raw.item()?);
    }
    Ok(items)
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn digest(&mut self) -> Result<Digest, String> {
        self.array()
    }

    fn end(&self) -> Result<(), String> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes after its end")),
        }
    }

    fn item(&mut self) -> Result<Item, String> {
        let flags = self.u8()?;
        if flags > 3 {
            return Err(format!("an item has the flags {flags}"));
        }
        let key = usize::from(self.u16()?);
        if key == 0 || key > MAX_KEY {
            return Err(format!("a key has {key} bytes"));
        }
        let version = self.u64()?;
        let expires = (flags & 2 != 0).then(|| self.u64()).transpose()?;
        let value = (flags & 1 != 0).then(|| self.u32()).transpose()?;
        let key = self.take(key)?.to_vec();
        let value = value.map(|len| self.take(len as usize).map(<[u8]>::to_vec)).transpose()?;
        Ok(Item { key, version, expires, value })
    }
}

/// One of each, for those who spoil them.
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let header = Header {
        cluster: 7,
        generation: (1, 2),
        begun_ms: 3,
        prefix: b"mail/".to_vec(),
        base: Some([4; 32]),
    };
    let mut items = Vec::new();
    for n in 0..9u8 {
        let value = (n % 3 > 0).then(|| vec![n; 40]);
        let item = Item { key: vec![b'k', n], version: n.into(), expires: (n > 5).then_some(6), value };
        item.write(&mut items);
    }
    let trailer = Trailer { keys: 6, gone: 3, bytes: 258, blocks: 1, ended_ms: 5, digest: [6; 32] };
    vec![
        ("backup_header", write_header(&header)),
        ("backup_block", pack(&items)),
        ("backup_trailer", write_trailer(&trailer)),
    ]
}

/// For those who feed the decoders what nobody meant well: what was read, written anew.
pub(crate) fn reread_header(bytes: &[u8]) -> Option<Vec<u8>> {
    read_header(bytes).ok().map(|header| write_header(&header))
}

/// The same of a block.
pub(crate) fn reread_block(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    unpack(bytes).ok()?.iter().for_each(|item| item.write(&mut raw));
    Some(pack(&raw))
}

/// The same of a trailer.
pub(crate) fn reread_trailer(bytes: &[u8]) -> Option<Vec<u8>> {
    read_trailer(bytes).ok().map(|trailer| write_trailer(&trailer))
}
