//! Why a connection ends: the codes we close with, and what to make of the ends of others.

use ennead_ring::view::Name;
use quinn::{ConnectionError, TransportErrorCode, VarInt};

use crate::certs::plain;

/// Longest reason that we send or believe, in characters.
const LONGEST: usize = 200;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal;)*) => {
        /// Why an endpoint ends a connection, or does not take one. The number travels in QUIC's close, with a
        /// text for people; the label is what counters are kept under.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u32)]
        pub enum CloseCode { $($(#[$doc])* $name = $code,)* }

        impl CloseCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// One word, for counters.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

codes! {
    /// The process ends.
    Shutdown = 1, "shutdown";
    /// The other end belongs to another cluster (V4, F1).
    AnotherCluster = 2, "another_cluster";
    /// Bytes that are no frame, or a frame out of place.
    BadFrame = 3, "bad_frame";
    /// A frame above the limit.
    TooLarge = 4, "too_large";
    /// No version of the wire in common: found in the handshake.
    WrongVersion = 5, "wrong_version";
    /// The other end is not who it was taken for.
    WrongName = 6, "wrong_name";
    /// The other end may not do what it tried.
    NotAllowed = 7, "not_allowed";
    /// The other end said nothing for too long where it had to speak.
    Idle = 8, "idle";
    /// Another connection between the same two is in use.
    Replaced = 9, "replaced";
    /// Nothing is heard of the other end, and it could not be dialled anew either.
    Silent = 10, "silent";
    /// A certificate that is expired, of another authority, or missing: found in the handshake.
    Certificate = 11, "certificate";
    /// Too many connections, in all or from one address.
    Crowded = 12, "crowded";
    /// A handshake that failed for another reason.
    Handshake = 13, "handshake";
    /// An earlier run of the machine that the other end says it is lives beside it.
    Twin = 14, "twin";
}

impl CloseCode {
    pub(super) fn number(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// The code of this number, if it is one of ours.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| *c as u32 as u64 == number)
    }

    /// True if closing for this reason says that the other end did wrong: those are counted as refusals.
    pub const fn is_refusal(self) -> bool {
        !matches!(self, Self::Shutdown | Self::Replaced | Self::Silent)
    }
}

/// What the end of a connection, or a dial that failed, says of the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Its process said that it ends.
    Farewell,
    /// There is somebody, and for this reason we do not belong together.
    Refused(CloseCode),
    /// Nothing came back.
    Silence,
    /// Nothing much: another connection is in use, or it is back already.
    Other,
}

impl Ended {
    fn of(code: Option<CloseCode>, shutdown: bool) -> Self {
        match code {
            Some(CloseCode::Shutdown) if shutdown => Self::Farewell,
            Some(CloseCode::Silent) => Self::Silence,
            Some(
                code @ (CloseCode::AnotherCluster
                | CloseCode::WrongVersion
                | CloseCode::WrongName
                | CloseCode::NotAllowed
                | CloseCode::Twin
                | CloseCode::Certificate),
            ) => Self::Refused(code),
            _ => Self::Other,
        }
    }
}

/// A reason short enough to travel.
pub(super) fn cut(reason: &str) -> String {
    plain(reason.as_bytes(), LONGEST)
}

/// What an end means: which of our codes it comes under, if any, and what to tell people.
pub(super) struct End {
    pub(super) code: Option<CloseCode>,
    pub(super) text: String,
    pub(super) how: Ended,
}

impl End {
    /// The end of a connection that we ended.
    pub(super) fn ours(code: CloseCode, text: String) -> Self {
        Self { code: Some(code), text, how: Ended::of(Some(code), false) }
    }
}

/// What to make of the end of a connection with `name`. The text begins with what it is about:
/// `NAME closed: ...` in the peer's own words, or `certificate: ...`, `refused: ...`, `timed out`.
pub(super) fn end_of(name: &str, error: &ConnectionError) -> End {
    let end = |code, text: String| End { code, text, how: Ended::of(code, true) };
    match error {
        ConnectionError::ApplicationClosed(close) => end(
            CloseCode::from_number(close.error_code.into_inner()),
            match plain(&close.reason, LONGEST) {
                text if text.is_empty() => format!("{name} closed without a word"),
                text => format!("{name} closed: {text}"),
            },
        ),
        ConnectionError::ConnectionClosed(close) => {
            let reason = plain(&close.reason, LONGEST);
            match close.error_code {
                TransportErrorCode::CONNECTION_REFUSED => {
                    let text = format!("refused: {name} takes no more connections now; try again later");
                    end(Some(CloseCode::Crowded), text)
                }
                code => match alert_of(code) {
                    Some(alert) => of_alert(alert, &format!("as {name} says: {reason}")),
                    None => end(None, format!("refused: {name} broke off: {code} {reason}")),
                },
            }
        }
        ConnectionError::TransportError(error) => match alert_of(error.code) {
            Some(alert) => {
                of_alert(alert, &format!("of {name}: {}", plain(error.reason.as_bytes(), LONGEST)))
            }
            None => end(None, format!("{name} does not speak QUIC as it should: {error}")),
        },
        ConnectionError::VersionMismatch => end(
            Some(CloseCode::WrongVersion),
            format!("wrong version: {name} speaks no QUIC version of ours"),
        ),
        ConnectionError::Reset => end(None, format!("{name} restarted")),
        ConnectionError::TimedOut => End { how: Ended::Silence, ..end(None, "timed out".to_string()) },
        ConnectionError::LocallyClosed => end(None, "closed here".to_string()),
        ConnectionError::CidsExhausted => end(None, "too many connections in this process".to_string()),
    }
}

/// The TLS alert in a QUIC error code, if it is one (RFC 9001, section 4.8).
fn alert_of(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then(|| (code - 0x100) as u8)
}

/// What a TLS alert says (RFC 8446, section 6), with what else is known of it.
fn of_alert(alert: u8, detail: &str) -> End {
    let (code, text) = match alert {
        120 => (CloseCode::WrongVersion, "wrong version: no version of the wire in common".to_string()),
        45 => (CloseCode::Certificate, "certificate: expired or not yet valid".to_string()),
        48 => (CloseCode::Certificate, "certificate: signed by another authority".to_string()),
        116 => (CloseCode::Certificate, "certificate: none was shown".to_string()),
        42 | 43 | 44 | 46 | 51 => (CloseCode::Certificate, "certificate: not accepted".to_string()),
        other => (CloseCode::Handshake, format!("handshake failed (TLS alert {other})")),
    };
    End { code: Some(code), text: format!("{text} ({detail})"), how: Ended::of(Some(code), false) }
}

/// The reason for which a dial of `name` failed before there was any answer.
pub(super) fn no_answer(name: Name) -> String {
    format!("timed out: nothing answers at {}", name.address())
}
