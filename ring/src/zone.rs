//! A zone: machines that may fail together, by the name that each of them gives.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

/// Longest name of a zone, in bytes.
pub const MAX_ZONE: usize = 32;

/// The name of a zone: 1 to 32 of `a-z A-Z 0-9 . _ -`, or [`NONE`](Self::NONE). Machines that name none are a zone
/// together, the one without a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zone {
    /// Padded with zeros, so that equal names are equal bytes.
    bytes: [u8; MAX_ZONE],
}

impl Zone {
    /// That of a machine that names none.
    pub const NONE: Self = Self { bytes: [0; MAX_ZONE] };

    /// True for [`NONE`](Self::NONE).
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Its name, empty for [`NONE`](Self::NONE).
    pub fn as_str(&self) -> &str {
        let length = self.bytes.iter().position(|b| *b == 0).unwrap_or(MAX_ZONE);
        core::str::from_utf8(&self.bytes[..length]).unwrap_or_default()
    }

    fn of(name: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
        let mut bytes = [0; MAX_ZONE];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        name.iter().all(plain).then_some(Self { bytes })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.is_none() { "-" } else { self.as_str() })
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text names no zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneError(String);

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} names no zone: write 1 to {MAX_ZONE} letters, digits, dots, dashes or underscores",
            self.0
        )
    }
}

impl core::error::Error for ZoneError {}

impl FromStr for Zone {
    type Err = ZoneError;

    /// `-` alone is how no zone is shown, and read.
    fn from_str(text: &str) -> Result<Self, ZoneError> {
        match text {
            "-" => Ok(Self::NONE),
            "" => Err(ZoneError(text.into())),
            name => Self::of(name.as_bytes()).ok_or_else(|| ZoneError(text.into())),
        }
    }
}

/// Its length in a byte, and its name.
impl Encode for Zone {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for Zone {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = u64::decode(decoder)?;
        if length > MAX_ZONE as u64 {
            return Err(DecodeError::Other("a zone's name is longer than 32 bytes"));
        }
        let mut name = [0; MAX_ZONE];
        let name = &mut name[..length as usize];
        for byte in name.iter_mut() {
            *byte = u8::decode(decoder)?;
        }
        Self::of(name)
            .filter(|zone| zone.as_str() != "-")
            .ok_or(DecodeError::Other("a zone's name is letters, digits, . _ -"))
    }
}
bincode::impl_borrow_decode!(Zone);
