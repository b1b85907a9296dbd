//! One change as bytes in the journal: a header that can be trusted alone, a key, a body.
//!
//! ```text
//!  0 magic u32          "enj1"
//!  4 header checksum    of the salt, the header from 8 on, and the key
//!  8 sequence u64       rises by one from entry to entry, over restarts too
//! 16 group u64          rises by one from fsync to fsync
//! 24 body length u32
//! 28 key length u16
//! 30 kind u8            1 record, 2 limits, 3 view, 4 forget (no body), 5 account, 6 decree
//! 31 last u8            1 on the last entry of a group
//! 32 body checksum u32  of the key and the body: it goes with the record into the ordered store
//! 36 zero u32
//! 40 key, body, zeros up to a multiple of 8
//! ```
//! The two checksums are apart so that a rotten body can be blamed on its key (R3). The salt is a secret of
//! the directory: without it, a value that looks like an entry could pass for one.

/// Bytes before the key.
pub(super) const HEADER: usize = 40;
/// Entries begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Longest body: a value of 8 MiB and its stamp fit many times; a length beyond it is rot.
pub(super) const MAX_BODY: usize = 256 * 1024 * 1024;
const MAGIC: u32 = u32::from_le_bytes(*b"enj1");

/// What an entry changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Record,
    Limits,
    View,
    Forget,
    Account,
    Decree,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Record,
            2 => Self::Limits,
            3 => Self::View,
            4 => Self::Forget,
            5 => Self::Account,
            6 => Self::Decree,
            _ => return None,
        })
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Limits => 2,
            Self::View => 3,
            Self::Forget => 4,
            Self::Account => 5,
            Self::Decree => 6,
        }
    }
}

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) group: u64,
    pub(super) kind: Kind,
    pub(super) last: bool,
    pub(super) key_len: usize,
    pub(super) body_len: usize,
    pub(super) checksum: u32,
}

impl Header {
    /// Bytes of the whole entry, padding included.
    pub(super) fn entry_len(&self) -> usize {
        padded(HEADER + self.key_len + self.body_len)
    }
}

/// Bytes of an entry with `unpadded` bytes.
pub(super) fn padded(unpadded: usize) -> usize {
    unpadded.next_multiple_of(ALIGN)
}

/// The end-to-end checksum of a record: computed when it is handed in, checked whenever it is read back.
pub(super) fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

fn header_checksum(salt: u64, fields: &[u8], key: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), fields), key)
}

/// Appends the entry to `out`. The lengths in `header` are those of `key` and `body`.
pub(super) fn write(salt: u64, header: &Header, key: &[u8], body: &[u8], out: &mut Vec<u8>) {
    assert!(out.len().is_multiple_of(ALIGN), "an entry would begin off its boundary");
    assert!(header.key_len == key.len() && header.body_len == body.len(), "a header of another entry");
    assert!(body.len() <= MAX_BODY, "a change of {} bytes", body.len());
    let start = out.len();
    out.reserve(header.entry_len());
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.group.to_le_bytes());
    // Both fit: a key has at most 16 KiB, and the body was checked above.
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.push(header.kind.to_byte());
    out.push(u8::from(header.last));
    out.extend_from_slice(&header.checksum.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let sum = header_checksum(salt, &out[start + 8..start + HEADER], key);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(body);
    out.resize(start + header.entry_len(), 0);
}

/// Marks the entry that begins at `start` as the last of its group: known only once the group is full.
pub(super) fn mark_last(salt: u64, start: usize, key_len: usize, out: &mut [u8]) {
    out[start + 31] = 1;
    let sum = header_checksum(salt, &out[start + 8..start + HEADER], &out[start + HEADER..][..key_len]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The header of an entry at the beginning of `bytes`, if there is a sound one and the entry ends within.
pub(super) fn read_header(salt: u64, bytes: &[u8]) -> Option<Header> {
    let fields = bytes.get(..HEADER)?;
    let u32_at = |at: usize| fields[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let u64_at = |at: usize| fields[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    if u32_at(0)? != MAGIC {
        return None;
    }
    let key_len = usize::from(u16::from_le_bytes([fields[28], fields[29]]));
    let body_len = u32_at(24)? as usize;
    let key = bytes.get(HEADER..HEADER + key_len)?;
    if header_checksum(salt, &fields[8..], key) != u32_at(4)? || body_len > MAX_BODY {
        return None;
    }
    let header = Header {
        sequence: u64_at(8)?,
        group: u64_at(16)?,
        kind: Kind::from_byte(fields[30])?,
        last: fields[31] == 1,
        key_len,
        body_len,
        checksum: u32_at(32)?,
    };
    Some(header)
}

/// The key and the body of the entry at the beginning of `bytes`. The body is `None` if it is cut short or
/// its checksum fails.
pub(super) fn read_parts<'a>(header: &Header, bytes: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let key = &bytes[HEADER..HEADER + header.key_len];
    let body = bytes.get(HEADER + header.key_len..HEADER + header.key_len + header.body_len);
    (key, body.filter(|body| checksum(key, body) == header.checksum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(key: &[u8], body: &[u8]) -> (Header, Vec<u8>) {
        let header = Header {
            sequence: 7,
            group: 3,
            kind: Kind::Record,
            last: false,
            key_len: key.len(),
            body_len: body.len(),
            checksum: checksum(key, body),
        };
        let mut bytes = Vec::new();
        write(99, &header, key, body, &mut bytes);
        (header, bytes)
    }

    #[test]
    fn an_entry_reads_back_as_written() {
        let (header, mut bytes) = sample(b"key", b"the body");
        assert_eq!(read_header(99, &bytes), Some(header));
        assert_eq!(read_parts(&header, &bytes), (&b"key"[..], Some(&b"the body"[..])));
        mark_last(99, 0, 3, &mut bytes);
        assert_eq!(read_header(99, &bytes), Some(Header { last: true, ..header }));
        assert_eq!(read_header(98, &bytes), None, "another directory's salt");
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_a_body_is_blamed_on_its_key() {
        let (header, bytes) = sample(b"key", b"the body");
        for bit in 0..bytes.len() * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            match (bit / 8, read_header(99, &rotten)) {
                (byte, found) if byte < HEADER + 3 => assert_eq!(found, None, "bit {bit}"),
                (byte, found) => {
                    assert_eq!(found, Some(header), "bit {bit}");
                    let (key, body) = read_parts(&header, &rotten);
                    assert_eq!(key, b"key");
                    assert_eq!(body.is_none(), byte < HEADER + 3 + 8, "bit {bit}: padding does not matter");
                }
            }
        }
    }

    #[test]
    fn a_cut_entry_is_no_entry() {
        let (header, bytes) = sample(b"key", b"the body");
        for length in 0..HEADER + 3 {
            assert_eq!(read_header(99, &bytes[..length]), None);
        }
        for length in HEADER + 3..HEADER + 3 + 8 {
            assert_eq!(read_header(99, &bytes[..length]), Some(header));
            assert_eq!(read_parts(&header, &bytes[..length]).1, None);
        }
    }
}
