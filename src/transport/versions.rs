//! Two versions of the wire that meet: each tells the other which it speaks, and they part.
//!
//! TLS says that there is no version in common, and not which there were; and which is what an operator needs. So
//! everybody offers, after the version that it speaks, one that never changes. Where that is all that two ends have in
//! common, the caller says in one line of text what it speaks, and the other end closes with both.

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError};

use crate::certs::plain;
use crate::program;

/// What every version offers last. It never changes.
pub(super) const INTRODUCTION: &[u8] = b"ennead";
/// Longest line taken, in bytes; two of them fit into a close.
const LONGEST: usize = 80;

/// True if the two ends have no version in common.
pub(super) fn differ(connection: &Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(INTRODUCTION))
}

fn line(wire: &[u8]) -> String {
    format!("{} (program {})", plain(wire, LONGEST / 4), plain(program::version().as_bytes(), LONGEST / 4))
}

/// The caller's part. Ends when the other end has closed, with how.
pub(super) async fn say(connection: &Connection, wire: &[u8]) -> ConnectionError {
    match connection.open_bi().await {
        Ok((mut send, _unused)) => {
            // If it cannot be written, the connection's end says why.
            let _ = send.write_all(line(wire).as_bytes()).await;
            let _ = send.finish();
            connection.closed().await
        }
        Err(error) => error,
    }
}

/// The other end's part: the reason to close with.
pub(super) async fn hear(connection: &Connection, wire: &[u8]) -> String {
    let theirs = match connection.accept_bi().await {
        Ok((_unused, mut recv)) => recv.read_to_end(LONGEST).await.ok(),
        Err(_) => None,
    };
    let theirs = theirs.map_or_else(|| "another version".to_owned(), |line| plain(&line, LONGEST));
    format!("wrong version: I speak {}, you {theirs}", line(wire))
}
