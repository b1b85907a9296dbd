//! Keys: what a register is called.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::position::Position;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 16 * 1024;

/// A key: 1 byte to 16 KiB, any bytes. Those that begin with `\0` are reserved for the cluster itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// Why some bytes cannot be a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// A key has at least one byte.
    Empty,
    /// A key has at most [`MAX_KEY`] bytes; this one has so many.
    TooLong(usize),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the key is empty; a key has 1 to {MAX_KEY} bytes"),
            Self::TooLong(n) => write!(f, "the key has {n} bytes; a key has 1 to {MAX_KEY}"),
        }
    }
}

impl core::error::Error for KeyError {}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// Empty, or longer than [`MAX_KEY`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            n if n > MAX_KEY => Err(KeyError::TooLong(n)),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The last key before all those that begin with `prefix`: after it, a pass over these begins. `None` where no key
    /// is before them, as with the empty prefix. A prefix has at most [`MAX_KEY`] bytes.
    pub fn last_before(prefix: &[u8]) -> Option<Self> {
        let (last, front) = prefix.split_last()?;
        let mut bytes = front.to_vec();
        if let Some(lower) = last.checked_sub(1) {
            bytes.push(lower);
            bytes.resize(MAX_KEY, 0xff);
        }
        Self::new(bytes).ok()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the cluster's own keys, which begin with `\0` and which clients may not write.
    pub fn is_reserved(&self) -> bool {
        self.0[0] == 0
    }

    /// The first 32 bits of the key's MD5: what logs show, so that they never carry user data.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest((Position::of(&self.0).to_u128() >> 96) as u32)
    }
}

/// What a log shows of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(u32);

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Printable keys as text, others with escapes.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Encode for Key {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.as_ref().encode(encoder)
    }
}

/// Refuses foreign bytes that are no key, so that every `Key` in memory is one.
impl<Context> Decode<Context> for Key {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        Self::new(bytes).map_err(|_| DecodeError::Other("a key has 1 to 16384 bytes"))
    }
}

bincode::impl_borrow_decode!(Key);
