//! One connection, from its hello to its end: a writer for each stream, a reader for each stream, and a watch
//! over its silence.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use ennead_ring::message::Addr;
use quinn::{Connection, ReadError, RecvStream, SendStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::close::{CloseCode, cut};
use super::counters::Counters;
use super::lanes::{Lane, Lanes};
use super::peers::Shared;
use super::{Event, Name};
use crate::clock::unix_ms;
use crate::wire::{self, Frame, Hello, Inbox, MAX_HELLO, WireError};

/// Frames taken from a queue at a time.
const BATCH: usize = 256;
/// Bytes after which a batch is written, though more frames wait.
const WRITE: usize = 64 << 10;
/// Bytes read at a time.
const READ: usize = 64 << 10;

/// A connection after both hellos.
pub(super) struct Link {
    /// Ours alone; a later connection has a higher number. Never 0.
    pub(super) id: u64,
    pub(super) connection: Connection,
    /// The other end, as its frames are told to come from.
    pub(super) from: Addr,
    /// The other end's hello.
    pub(super) hello: Hello,
    /// True if we dialled it.
    pub(super) ours: bool,
    pub(super) born: Instant,
    /// True while we send and nothing at all comes back.
    pub(super) silent: AtomicBool,
    pub(super) lanes: Arc<Lanes>,
    /// Why we ended it, if we did.
    farewell: OnceLock<(CloseCode, String)>,
    /// Something was written: the watch begins.
    written: Notify,
    /// Writers that are not done.
    writers: AtomicUsize,
    /// True once it has been told that the other end is up: its frames come after that. Pings wait for nothing.
    told_up: watch::Sender<bool>,
}

/// Counts a writer until it is done, or dropped with its connection.
struct Writing(Arc<Link>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Relaxed);
    }
}

/// The first stream of a connection, after the hellos.
pub(super) struct MainStream {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) inbox: Inbox,
}

impl Link {
    pub(super) fn new(
        id: u64,
        connection: Connection,
        from: Addr,
        hello: Hello,
        ours: bool,
        lanes: Arc<Lanes>,
    ) -> Self {
        Self {
            id,
            connection,
            from,
            hello,
            ours,
            born: Instant::now(),
            silent: AtomicBool::new(false),
            lanes,
            farewell: OnceLock::new(),
            written: Notify::new(),
            writers: AtomicUsize::new(Lane::ALL.len()),
            told_up: watch::Sender::new(false),
        }
    }

    /// The machine at the other end; `None` for a client.
    pub(super) fn name(&self) -> Option<Name> {
        match self.from {
            Addr::Machine(machine) => Some(machine.name),
            Addr::Client(_) => None,
        }
    }

    /// Ends it, telling the other end why. The first reason stands.
    pub(super) fn close(&self, code: CloseCode, why: &str) {
        let reason = cut(why);
        let _ = self.farewell.set((code, reason.clone()));
        self.connection.close(code.number(), reason.as_bytes());
    }

    /// Lets its frames be told.
    pub(super) fn set_told_up(&self) {
        self.told_up.send_replace(true);
    }

    /// True once all that waited is written and acknowledged (after [`Lanes::end`]), or the link has ended.
    pub(super) fn is_flushed(&self) -> bool {
        self.writers.load(Relaxed) == 0 || self.connection.close_reason().is_some()
    }

    /// Why we ended it, if it was us.
    pub(super) fn farewell(&self) -> Option<&(CloseCode, String)> {
        self.farewell.get()
    }

    /// Serves it until it ends and all that came in on it has been told.
    pub(super) async fn serve(self: &Arc<Self>, shared: &Arc<Shared>, main: MainStream) {
        let mut writers = JoinSet::new();
        let mut readers = JoinSet::new();
        writers.spawn(self.clone().write(shared.clone(), Lane::Main, Some(main.send)));
        writers.spawn(self.clone().write(shared.clone(), Lane::Large, None));
        writers.spawn(self.clone().write(shared.clone(), Lane::Prompt, None));
        readers.spawn(self.clone().read(shared.clone(), main.recv, main.inbox, None));
        readers.spawn(self.clone().take_streams(shared.clone()));
        tokio::select! {
            _ = self.connection.closed() => {}
            () = self.watch(shared) => {}
        }
        // What came before the end is still told; then the end is.
        while readers.join_next().await.is_some() {}
    }

    /// Marks the link silent while we send and hear nothing, not even an acknowledgement.
    async fn watch(&self, shared: &Arc<Shared>) {
        loop {
            self.written.notified().await;
            loop {
                let heard = self.connection.stats().udp_rx.datagrams;
                tokio::time::sleep(shared.config.silence).await;
                let silent = self.connection.stats().udp_rx.datagrams == heard;
                if self.silent.swap(silent, Relaxed) != silent {
                    shared.silence_changed(self);
                }
                if !silent {
                    break;
                }
            }
        }
    }

    /// Takes the further streams that the other end opens: one for large values, one for pings.
    async fn take_streams(self: Arc<Self>, shared: Arc<Shared>) {
        let mut readers = JoinSet::new();
        let mut taken = 0;
        while let Ok((send, recv)) = self.connection.accept_bi().await {
            taken += 1;
            if taken >= Lane::ALL.len() {
                let why = format!("more than {} streams were opened", Lane::ALL.len());
                shared.refuse(&self, CloseCode::NotAllowed, &why);
                break;
            }
            let inbox = Inbox::new(shared.config.max_frame());
            readers.spawn(self.clone().read(shared.clone(), recv, inbox, Some(send)));
        }
        while readers.join_next().await.is_some() {}
    }

    /// Writes what waits in a lane, whenever the lane is this connection's. The stream is opened at need.
    async fn write(self: Arc<Self>, shared: Arc<Shared>, lane: Lane, main: Option<SendStream>) {
        let _writing = Writing(self.clone());
        let mut stream = main;
        // The other direction of a stream that we opened: nothing comes on it, and dropping it would say so.
        let mut unused = None;
        // Ours stands for theirs: a cluster is set up with one cap.
        let most = shared.config.max_frame();
        let mut frames = Vec::new();
        let mut buffer = BytesMut::new();
        while self.lanes.take(lane, self.id, BATCH, &mut frames).await {
            self.written.notify_one();
            let out = match &mut stream {
                Some(out) => out,
                None => match self.connection.open_bi().await {
                    Ok((send, recv)) => {
                        unused = Some(recv);
                        stream.insert(send)
                    }
                    Err(_) => {
                        Counters::add(&shared.counters.dropped, frames.len());
                        break;
                    }
                },
            };
            let mut waiting = frames.drain(..).peekable();
            while let Some(frame) = waiting.next() {
                let before = buffer.len();
                match wire::encode_within(&frame, most, &mut buffer) {
                    Ok(()) => {
                        Counters::add(&shared.counters.frames_out, 1);
                        Counters::add(&shared.counters.bytes_out, buffer.len() - before);
                    }
                    Err(error) => {
                        Counters::add(&shared.counters.dropped, 1);
                        tracing::warn!(to = %self.from, kind = frame.kind(), %error, "frame not sent");
                    }
                }
                drop(frame);
                if (buffer.len() >= WRITE || waiting.peek().is_none())
                    && out.write_chunk(buffer.split().freeze()).await.is_err()
                {
                    // The connection is gone. What was taken is lost, as on any network.
                    Counters::add(&shared.counters.dropped, waiting.count());
                    return;
                }
            }
            drop(waiting);
            frames.shrink_to(BATCH);
        }
        // What was written is on its way; the writer is done when it has arrived.
        if let Some(mut out) = stream
            && out.finish().is_ok()
        {
            let _ = out.stopped().await;
        }
        drop(unused);
    }

    /// Tells what comes in on a stream, until it ends.
    async fn read(
        self: Arc<Self>,
        shared: Arc<Shared>,
        mut stream: RecvStream,
        mut inbox: Inbox,
        // Held, since dropping our direction of the stream would end it.
        _unused: Option<SendStream>,
    ) {
        loop {
            match self.tell(&shared, &mut inbox).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return shared.refuse(&self, code_of(&error), &error.to_string()),
            }
            match stream.read_chunk(READ, true).await {
                Ok(Some(chunk)) => inbox.push(chunk.bytes),
                // Its end has nothing more to say here; another connection may be in use.
                Ok(None) => match inbox.end() {
                    Ok(()) => return,
                    Err(error) => return shared.refuse(&self, code_of(&error), &error.to_string()),
                },
                Err(_) => return,
            }
        }
    }

    /// Tells the whole frames there are. False once the link is to end, or nobody listens.
    async fn tell(&self, shared: &Arc<Shared>, inbox: &mut Inbox) -> Result<bool, WireError> {
        while let Some((frame, bytes)) = inbox.next()? {
            Counters::add(&shared.counters.frames_in, 1);
            Counters::add(&shared.counters.bytes_in, bytes);
            match frame {
                Frame::Hello(_) => {
                    shared.refuse(self, CloseCode::BadFrame, "a second hello on one connection");
                    return Ok(false);
                }
                Frame::Ping(number) => {
                    if !self.lanes.push(Frame::Pong { number, wall_ms: unix_ms() }) {
                        Counters::add(&shared.counters.dropped, 1);
                    }
                }
                // Never waits: a ping behind it would wait too.
                Frame::Pong { .. } if !*self.told_up.borrow() => Counters::add(&shared.counters.dropped, 1),
                Frame::Pong { .. } => match shared.events.try_send(Event::Frame { from: self.from, frame }) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => Counters::add(&shared.counters.dropped, 1),
                    Err(TrySendError::Closed(_)) => return Ok(false),
                },
                frame => {
                    if let Frame::Ring(envelope) = &frame
                        && let Some(why) = shared.other_cluster(envelope.cluster)
                    {
                        shared.refuse(self, CloseCode::AnotherCluster, &why);
                        return Ok(false);
                    }
                    if !*self.told_up.borrow() {
                        let _ = self.told_up.subscribe().wait_for(|told| *told).await;
                    }
                    if shared.events.send(Event::Frame { from: self.from, frame }).await.is_err() {
                        self.close(CloseCode::Shutdown, "nobody listens here any more");
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Under which code a connection with such bytes ends.
pub(super) fn code_of(error: &WireError) -> CloseCode {
    match error {
        WireError::TooLarge { .. } => CloseCode::TooLarge,
        _ => CloseCode::BadFrame,
    }
}

/// Why no hello came.
pub(super) enum NoHello {
    /// The connection ended first.
    Ended,
    /// What came is none.
    Bad(CloseCode, String),
}

/// Writes our hello.
pub(super) async fn say_hello(stream: &mut SendStream, hello: Hello) -> Result<(), NoHello> {
    let mut buffer = BytesMut::new();
    wire::encode(&Frame::Hello(hello), &mut buffer).map_err(|e| NoHello::Bad(code_of(&e), e.to_string()))?;
    stream.write_chunk(buffer.freeze()).await.map_err(|_| NoHello::Ended)
}

/// Reads the other end's hello: the first frame, and a short one.
pub(super) async fn hear_hello(stream: &mut RecvStream) -> Result<(Hello, Inbox), NoHello> {
    let bad = |e: WireError| NoHello::Bad(code_of(&e), e.to_string());
    let mut inbox = Inbox::new(MAX_HELLO);
    loop {
        match inbox.next().map_err(bad)? {
            Some((Frame::Hello(hello), _)) => return Ok((hello, inbox)),
            Some((other, _)) => {
                let why = format!("the first frame is {}, and must be a hello", other.kind());
                return Err(NoHello::Bad(CloseCode::BadFrame, why));
            }
            None => {}
        }
        match stream.read_chunk(MAX_HELLO, true).await {
            Ok(Some(chunk)) => inbox.push(chunk.bytes),
            Ok(None) => {
                inbox.end().map_err(bad)?;
                return Err(NoHello::Bad(CloseCode::BadFrame, "the stream ended before a hello".to_string()));
            }
            Err(ReadError::ConnectionLost(_)) => return Err(NoHello::Ended),
            Err(error) => return Err(NoHello::Bad(CloseCode::BadFrame, error.to_string())),
        }
    }
}
