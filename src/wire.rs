//! Bytes to frames and back, versioned. Outside `ring`, everything that knows bincode is here.
//!
//! A frame on a stream is its length (u32, little-endian, without these four bytes), then its bincode. The
//! version is the ALPN of the connection: what changes a byte here takes a new [`ALPN`], so that two versions
//! part at the handshake and never guess at each other's bytes.

use std::time::Duration;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use bytes::{Buf, Bytes, BytesMut};
use ennead_ring::message::{Envelope, Message};
use ennead_ring::view::{ClusterId, Machine, Name};

use crate::status::{CheckStatus, MachineStatus};
use crate::verdict::Testimony;

/// The version of the wire, as the handshake of a connection names it.
pub const ALPN: &[u8] = b"ennead/7";
/// Longest frame that any endpoint takes, in bytes: a value of 64 MiB and what goes around it.
pub const MAX_FRAME: usize = 64 * 1024 * 1024 + AROUND;
/// Room for what goes around a value in a frame, in bytes: the longest key, the requests remembered, the ids.
pub const AROUND: usize = 64 * 1024;
/// Longest first frame of a connection, in bytes: nobody has said yet who he is.
pub const MAX_HELLO: usize = 4 * 1024;

const PREFIX: usize = 4;
/// Capacity, in bytes, that a buffer keeps between frames: more is given back after a large one.
const KEPT: usize = 64 * 1024;

/// What travels between two endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Frame {
    /// Who speaks: the first frame of a connection, both ways, and never again.
    Hello(Hello),
    /// What the protocol says.
    Ring(Box<Envelope>),
    /// Are you there? The transport answers, so this says that the process runs, and no more.
    Ping(u64),
    /// Yes.
    Pong {
        /// The number of the ping.
        number: u64,
        /// What the clock says there, in milliseconds since 1970.
        wall_ms: u64,
    },
    /// How are you?
    StatusAsk {
        /// Ties the answer to this.
        ask: u64,
    },
    /// Like this.
    StatusTold {
        /// What was asked.
        ask: u64,
        /// The answer.
        status: Box<MachineStatus>,
    },
    /// Compare your copies with everybody's, now and to the end.
    CheckAsk {
        /// Ties the answer to this.
        ask: u64,
    },
    /// It is begun, if it was not under way; its status tells how it goes.
    CheckTold {
        /// What was asked.
        ask: u64,
        /// How it stood before.
        before: CheckStatus,
        /// Why not, if not.
        refused: Option<String>,
    },
    /// Whom should I ask last?
    HealthAsk,
    /// These: they do not answer, or are not well. Who tells this may be one of them.
    HealthTold {
        /// By name.
        shunned: Vec<Name>,
    },
    /// I end, and this is my crash report, as JSON: keep it for me.
    LastWords {
        /// The report.
        report: String,
    },
    /// What do you know of this machine's failures?
    WhyAsk {
        /// Ties the answer to this.
        ask: u64,
        /// Which: maybe the one asked.
        of: Name,
    },
    /// This.
    WhyTold {
        /// What was asked.
        ask: u64,
        /// The answer.
        testimony: Box<Testimony>,
    },
}

impl Frame {
    /// One word, for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ring(envelope) => envelope.message.kind(),
            Self::Ping(_) => "ping",
            Self::Pong { .. } => "pong",
            Self::StatusAsk { .. } => "status_ask",
            Self::StatusTold { .. } => "status_told",
            Self::CheckAsk { .. } => "check_ask",
            Self::CheckTold { .. } => "check_told",
            Self::HealthAsk => "health_ask",
            Self::HealthTold { .. } => "health_told",
            Self::LastWords { .. } => "last_words",
            Self::WhyAsk { .. } => "why_ask",
            Self::WhyTold { .. } => "why_told",
        }
    }

    /// It has waited for so long to be written, which is part of the time for its answer. False if nobody waits for that
    /// any more: then it need not be written at all.
    pub(crate) fn waited(&mut self, waited: Duration) -> bool {
        if let Self::Ring(envelope) = self
            && let Message::Request { within, .. } = &mut envelope.message
        {
            let waited = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX);
            if waited > 0 && waited >= *within {
                return false;
            }
            *within -= waited;
        }
        true
    }

    /// Bytes of values it carries: those are not copied until it is written, and they decide its stream.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Ring(envelope) => envelope.message.value_bytes(),
            _ => 0,
        }
    }
}

/// Who opens or takes a connection.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Hello {
    /// A machine or a client.
    pub role: Role,
    /// Its cluster, if it has one.
    pub cluster: Option<ClusterId>,
    /// Version of the program, for people to read.
    pub version: String,
    /// Which run of the program: drawn when it starts, so that a restart is told from a second connection.
    pub run: u64,
}

/// What an endpoint is to the one it talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Role {
    /// A machine; its certificate must name it.
    Machine(Machine),
    /// A client: it asks, and is asked nothing.
    Client,
}

/// Why some bytes are no frame, or a frame cannot be sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The length before it, or the frame to be sent, is above the limit.
    #[error(
        "a frame of {len} bytes, and at most {limit} are taken here; send smaller values or raise the cap"
    )]
    TooLarge {
        /// As announced.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {have} of {want} bytes")]
    Truncated {
        /// Bytes that came, the four of the length included.
        have: usize,
        /// Bytes that were announced.
        want: usize,
    },
    /// The bytes are no frame of this version.
    #[error("not a frame of this version of the wire: {0}")]
    Malformed(String),
    /// A frame, and something after it.
    #[error("{left} bytes after the end of a frame")]
    Trailing {
        /// How many.
        left: usize,
    },
}

type Limited<const N: usize> = Configuration<LittleEndian, Varint, Limit<N>>;

fn limited<const N: usize>() -> Limited<N> {
    bincode::config::standard().with_limit::<N>()
}

struct Out<'a>(&'a mut BytesMut);

impl Writer for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a frame, with its length before it.
///
/// # Errors
/// [`WireError::TooLarge`] above [`MAX_FRAME`]; `out` is then as it was.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), WireError> {
    encode_within(frame, MAX_FRAME, out)
}

/// As [`encode`], with a lower limit: what the other end would close the connection for is better not sent.
///
/// # Errors
/// [`WireError::TooLarge`] above the limit; `out` is then as it was.
pub fn encode_within(frame: &Frame, limit: usize, out: &mut BytesMut) -> Result<(), WireError> {
    let limit = limit.min(MAX_FRAME);
    let values = frame.value_bytes();
    if values > limit {
        // Known before it is copied. The rest of a frame is small next to a value, and checked below.
        return Err(WireError::TooLarge { len: values, limit });
    }
    let start = out.len();
    out.reserve(PREFIX + 64 + values);
    out.extend_from_slice(&[0; PREFIX]);
    let encoded = bincode::encode_into_writer(frame, Out(out), bincode::config::standard());
    let checked = match (encoded, out.len() - start - PREFIX) {
        (Err(error), _) => Err(WireError::Malformed(error.to_string())),
        (Ok(()), len) if len > limit => Err(WireError::TooLarge { len, limit }),
        (Ok(()), len) => Ok(len as u32),
    };
    match checked {
        Ok(len) => out[start..start + PREFIX].copy_from_slice(&len.to_le_bytes()),
        Err(_) => out.truncate(start),
    }
    checked.map(|_| ())
}

/// Reads one frame from exactly these bytes: those after the length.
///
/// Allocates no more than about 256 times the bytes given, and never more than [`MAX_FRAME`], whatever lengths
/// they claim within.
///
/// # Errors
/// Whatever is no frame, to the last byte.
pub fn decode(bytes: &[u8]) -> Result<Frame, WireError> {
    // bincode makes room for a claimed number of elements before it reads them, up to its limit, which is a
    // constant: so the limit is the smallest of these that holds the elements' size in memory (up to 16 times
    // that on the wire). One large limit would let ten bytes claim 64 MiB.
    let (frame, used) = match bytes.len() {
        n if n <= 4 << 10 => bincode::decode_from_slice(bytes, limited::<{ 64 << 10 }>()),
        n if n <= 64 << 10 => bincode::decode_from_slice(bytes, limited::<{ 1 << 20 }>()),
        n if n <= 1 << 20 => bincode::decode_from_slice(bytes, limited::<{ 16 << 20 }>()),
        n if n <= MAX_FRAME => bincode::decode_from_slice(bytes, limited::<MAX_FRAME>()),
        len => return Err(WireError::TooLarge { len, limit: MAX_FRAME }),
    }
    .map_err(|e| WireError::Malformed(told(&e)))?;
    match bytes.len() - used {
        0 => Ok(frame),
        left => Err(WireError::Trailing { left }),
    }
}

/// What the decoder found, in few words. Its own texts name types of ours and say little to an operator.
fn told(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends too early".to_string(),
        DecodeError::LimitExceeded => "a length in it is beyond all bounds".to_string(),
        DecodeError::UnexpectedVariant { found, .. } => format!("unknown variant {found}"),
        DecodeError::Utf8 { .. } => "a text that is not UTF-8".to_string(),
        DecodeError::Other(text) => (*text).to_string(),
        DecodeError::OtherString(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Cuts a stream of bytes into frames. Holds at most one unfinished frame, and of that only what has come.
#[derive(Debug)]
pub struct Inbox {
    limit: usize,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// Bytes not looked at yet.
    chunk: Bytes,
}

impl Inbox {
    /// An inbox that refuses frames of more than so many bytes, or of more than [`MAX_FRAME`].
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.min(MAX_FRAME), partial: Vec::new(), chunk: Bytes::new() }
    }

    /// Takes frames of up to so many bytes from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_FRAME);
    }

    /// Takes what came. To be called when [`next`](Self::next) has returned `None`.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "frames are taken out before more bytes are put in");
        self.chunk = chunk;
    }

    /// The next whole frame and its size on the wire; `None` until more bytes come.
    ///
    /// # Errors
    /// A frame above the limit (found at its length, before room is made for it), or bytes that are no frame.
    /// The stream is useless from then on.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be pushed into between items")]
    pub fn next(&mut self) -> Result<Option<(Frame, usize)>, WireError> {
        if self.partial.is_empty() {
            // The usual case: whole frames in what just came, read where they lie.
            let Some(len) = self.length(&self.chunk)? else {
                self.partial.extend_from_slice(&self.chunk);
                self.chunk.clear();
                return Ok(None);
            };
            if self.chunk.len() >= PREFIX + len {
                let frame = decode(&self.chunk[PREFIX..PREFIX + len])?;
                self.chunk.advance(PREFIX + len);
                return Ok(Some((frame, PREFIX + len)));
            }
        }
        self.fill(PREFIX);
        let Some(len) = self.length(&self.partial)? else { return Ok(None) };
        self.fill(PREFIX + len);
        if self.partial.len() < PREFIX + len {
            return Ok(None);
        }
        let frame = decode(&self.partial[PREFIX..])?;
        self.partial.clear();
        self.partial.shrink_to(KEPT);
        Ok(Some((frame, PREFIX + len)))
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// [`WireError::Truncated`] inside a frame.
    pub fn end(&self) -> Result<(), WireError> {
        match self.partial.len() {
            0 => Ok(()),
            have => {
                let want = self.length(&self.partial)?.map_or(PREFIX, |len| PREFIX + len);
                Err(WireError::Truncated { have, want })
            }
        }
    }

    /// Moves bytes over until `partial` has so many, or none are left.
    fn fill(&mut self, want: usize) {
        let n = want.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..n]);
        self.chunk.advance(n);
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        match u32::from_le_bytes(*prefix) as usize {
            len if len > self.limit => Err(WireError::TooLarge { len, limit: self.limit }),
            len => Ok(Some(len)),
        }
    }
}

#[cfg(test)]
mod tests;
