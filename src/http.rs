//! HTTP: what operators' tools ask a machine, without a certificate; and the data, only where that is asked for.
//!
//! What is read here names machines, versions and numbers, and never a key or a value. It runs on a thread of its own
//! and reads what the core loop has published: whoever scrapes, polls, or connects and never reads makes no operation
//! wait.
//!
//! | module | one idea |
//! |---|---|
//! | `server` | connections: bounded in number, size and time |
//! | `routes` | which path is answered by whom |
//! | `ready` | whether clients should be sent here; pure |
//! | `space` | how much room the disk has |
//! | `text`, `metrics` | the form of metrics, and which there are |
//! | `cluster` | what all machines say, asked at most once a second whoever asks us |
//! | `page` | the status page |
//! | `kv`, `list` | the data, where it is open: a key, and keys in their order |

mod cluster;
mod kv;
mod list;
mod metrics;
mod page;
mod ready;
mod routes;
mod server;
mod space;
mod text;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::certs::Identity;
use crate::client::ClientOptions;
use crate::snapshot::Published;
use crate::supervisor::{Alive, Restarts, last_words};

pub use kv::Access;
use routes::Web;

/// How long the end of the node waits for this thread.
const MOMENT: Duration = Duration::from_millis(300);

/// Where HTTP listens, and what is open there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TCP.
    pub listen: SocketAddr,
    /// Who may read and write the data there: nobody, unless said otherwise.
    pub kv: Access,
}

/// What the server is made with.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) options: ClientOptions,
    pub(crate) identity: Identity,
    /// The data directory: whose disk is looked at.
    pub(crate) data: PathBuf,
    pub(crate) published: Published,
    /// Whether the core loop and the storage writer live.
    pub(crate) alive: [Alive; 2],
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    end: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
    shared: Arc<Shared>,
}

/// What the thread and its owner share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Restarts of the server since the node started.
    restarts: AtomicU32,
    /// Test-only: it panics at its next turn.
    broken: AtomicBool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Takes the address, before anything else is begun: a taken one is the likeliest mistake of all.
pub(crate) fn bind(config: &Config) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(config.listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Begins to answer.
    pub(crate) fn start(listener: TcpListener, opened: Opened) -> io::Result<Self> {
        if opened.config.kv == Access::Anyone && !opened.config.listen.ip().is_loopback() {
            tracing::warn!(listen = %opened.config.listen, "the data is open to whoever reaches this address, without a certificate (--http-kv anyone)");
        }
        let (end, asked) = oneshot::channel();
        let (told, ended) = mpsc::channel::<()>();
        let shared = Arc::new(Shared::default());
        let sharing = shared.clone();
        thread::Builder::new().name("http".into()).spawn(move || {
            let _told = told;
            crate::crash::belongs_to(&opened.data);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    runtime.block_on(keep(&listener, &Arc::new(opened), &sharing, asked));
                    // A look at the disk may hang: nobody waits for it.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "HTTP is not answered; data is served all the same"),
            }
        })?;
        Ok(Self { end: Some(end), ended, shared })
    }

    /// Restarts since the node started.
    pub(crate) fn restarts(&self) -> u32 {
        self.shared.restarts.load(Relaxed)
    }

    /// Test-only: makes it panic, to see what comes of it.
    pub(crate) fn break_it(&self) {
        self.shared.broken.store(true, Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        // Its address is free for the next start then. An error says that the thread is gone.
        let _ = self.ended.recv_timeout(MOMENT);
    }
}

/// Begins again after each panic. After too many it is given up, and the node goes on: it is not here for this.
async fn keep(
    listener: &TcpListener,
    opened: &Arc<Opened>,
    shared: &Arc<Shared>,
    asked: oneshot::Receiver<()>,
) {
    let mut restarts = Restarts::of("HTTP server");
    let mut asked = asked.fuse();
    loop {
        let Ok(listener) = listener.try_clone() else { return };
        let web = Arc::new(Web::new(opened.clone(), shared.clone()));
        let serve = AssertUnwindSafe(server::serve(listener, web, shared)).catch_unwind();
        let panic = tokio::select! {
            _ = &mut asked => return,
            end = serve => match end {
                Ok(error) => {
                    tracing::error!(%error, "HTTP is answered no more; data is served all the same");
                    return;
                }
                Err(panic) => panic,
            },
        };
        if let Err(reason) = restarts.another(&last_words(&*panic), Instant::now()) {
            tracing::error!(reason, "HTTP is answered no more; data is served all the same");
            return;
        }
        shared.restarts.store(restarts.total(), Relaxed);
    }
}
