//! Every decoder of bytes that come from outside, by name: for `fuzz/` and `tests/hostile.rs`, which feed the same.

use bytes::{Bytes, BytesMut};
use ennead_ring::{Account, Decree, Limits, Record, View};
use rustls::pki_types::CertificateDer;

use crate::crash::{self, Report};
use crate::run_file::Run;
use crate::wire::{self, Inbox};
use crate::{backup, certs, storage};

/// Reads bytes, and writes what it read anew; `None` if it refuses them.
pub type Decoder = fn(&[u8]) -> Option<Vec<u8>>;

/// All of them.
pub const ALL: &[(&str, Decoder)] = &[
    ("frame", frame),
    ("stream", stream),
    ("entry", storage::reread_entry),
    ("record", storage::reread_body::<Record>),
    ("view", storage::reread_body::<View>),
    ("account", storage::reread_body::<Account>),
    ("decree", storage::reread_body::<Decree>),
    ("limits", storage::reread_body::<Limits>),
    ("certificate", certificate),
    ("report", |bytes| Report::from_json(bytes).map(|report| report.to_json().into_bytes())),
    ("reports", |bytes| serde_json::to_vec(&crash::reports(bytes)).ok()),
    ("run", |bytes| serde_json::to_vec(&serde_json::from_slice::<Run>(bytes).ok()?).ok()),
    ("backup_header", backup::reread_header),
    ("backup_block", backup::reread_block),
    ("backup_trailer", backup::reread_trailer),
];

/// What the decoders of backups take, for a corpus.
pub fn backups() -> Vec<(&'static str, Vec<u8>)> {
    backup::samples()
}

/// One frame, without its length.
fn frame(bytes: &[u8]) -> Option<Vec<u8>> {
    let frame = wire::decode(bytes).ok()?;
    let mut out = BytesMut::new();
    wire::encode(&frame, &mut out).ok()?;
    Some(out[size_of::<u32>()..].to_vec())
}

/// Frames with their lengths, as they come in: cut anywhere.
fn stream(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut inbox = Inbox::new(wire::MAX_HELLO * 16);
    let mut out = BytesMut::new();
    for piece in bytes.chunks(7) {
        inbox.push(Bytes::copy_from_slice(piece));
        while let Some((frame, _)) = inbox.next().ok()? {
            wire::encode(&frame, &mut out).ok()?;
        }
    }
    inbox.end().ok()?;
    Some(out.to_vec())
}

/// Of a certificate only the names are read: what it is written as anew is itself.
fn certificate(bytes: &[u8]) -> Option<Vec<u8>> {
    certs::names(&CertificateDer::from(bytes)).ok().map(|_| bytes.to_vec())
}

/// Feeds bytes to a decoder. What it takes it takes again once written anew, and makes the same of it.
///
/// # Panics
/// If that is not so, or if the decoder does: which is what its callers look for.
pub fn check(name: &str, bytes: &[u8]) -> bool {
    let (_, decoder) = ALL.iter().find(|(n, _)| *n == name).expect("a decoder of this name");
    let Some(written) = decoder(bytes) else { return false };
    assert_eq!(decoder(&written).as_ref(), Some(&written), "{name} does not read what it wrote");
    true
}
