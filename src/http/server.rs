//! Connections: bounded in number, size and time. Whoever is one too many waits with the system, and costs nothing here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Shared;
use super::routes::{Web, answer};

/// Connections served at once.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, an idle wait for it included.
const HEAD: Duration = Duration::from_secs(3);
/// How long a connection lives: then it answers what was asked, and is closed; a little later it is cut.
const LIFE: Duration = Duration::from_secs(30);
const AFTERLIFE: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and of what is read ahead.
const BUFFER: usize = 32 << 10;
/// Lines of a request's head.
const HEADERS: usize = 64;
/// The pause after the system would give no connection: it has no descriptors left, say.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at whether a test wants a panic.
const LOOK: Duration = Duration::from_millis(50);

/// An answer whole in memory: the longest is a value.
pub(super) type Answer = Response<Full<Bytes>>;

/// Takes connections, until the listener cannot be used.
pub(super) async fn serve(listener: TcpListener, web: Arc<Web>, shared: &Shared) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = broken(shared) => panic!("asked to panic by a test"),
        };
        let (stream, peer) = tokio::select! {
            taken = listener.accept() => match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::debug!(%error, "no connection taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = broken(shared) => panic!("asked to panic by a test"),
        };
        let web = web.clone();
        tokio::spawn(async move {
            let _place = place;
            connection(stream, peer, web).await;
        });
    }
}

async fn broken(shared: &Shared) {
    while !shared.broken.swap(false, Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, web: Arc<Web>) {
    let Ok(here) = stream.local_addr() else { return };
    // Answers are short, and each is one write.
    let _ = stream.set_nodelay(true);
    web.note_connection(1);
    let service = service_fn(|request| {
        let web = web.clone();
        async move { Ok::<Answer, std::convert::Infallible>(answer(&web, (peer, here), request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER).max_headers(HEADERS);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = tokio::time::sleep(LIFE) => {
            serving.as_mut().graceful_shutdown();
            // Whoever reads nothing is cut.
            tokio::time::timeout(AFTERLIFE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended");
    }
    web.note_connection(-1);
}
