//! Which path is answered by whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::kv::{self, Kv};
use super::server::Answer;
use super::space::Space;
use super::{Opened, Shared, list, metrics, page, ready};
use crate::snapshot::Snapshot;
use crate::supervisor::Alive;

/// What is asked for, as it is counted.
const ROUTES: [&str; 8] = ["livez", "readyz", "metrics", "status", "page", "view", "kv", "other"];

/// All that answers need. One for each life of the server.
pub(super) struct Web {
    opened: Arc<Opened>,
    shared: Arc<Shared>,
    space: Space,
    cluster: Arc<Cluster>,
    kv: Kv,
    connections: AtomicU64,
    requests: [AtomicU64; ROUTES.len()],
}

/// What was served so far.
pub(super) struct Served {
    pub(super) connections: u64,
    pub(super) requests: Vec<(&'static str, u64)>,
    pub(super) restarts: u32,
    /// The core loop and the storage writer.
    pub(super) alive: [bool; 2],
}

impl Web {
    pub(super) fn new(opened: Arc<Opened>, shared: Arc<Shared>) -> Self {
        let cluster = Arc::new(Cluster::new(&opened));
        Self {
            space: Space::of(opened.data.clone()),
            kv: Kv::new(opened.config.kv, cluster.clone(), opened.options.max_value),
            cluster,
            opened,
            shared,
            connections: AtomicU64::new(0),
            requests: Default::default(),
        }
    }

    /// One connection more, or less.
    pub(super) fn note_connection(&self, one: i64) {
        self.connections.fetch_add(one as u64, Relaxed);
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.opened.published.borrow().clone()
    }

    fn served(&self) -> Served {
        let requests = ROUTES.iter().zip(&self.requests).map(|(route, n)| (*route, n.load(Relaxed)));
        Served {
            connections: self.connections.load(Relaxed),
            requests: requests.collect(),
            restarts: self.shared.restarts.load(Relaxed),
            alive: self.opened.alive.each_ref().map(Alive::is_alive),
        }
    }

    fn count(&self, route: &str) {
        if let Some(n) = ROUTES.iter().position(|r| *r == route) {
            self.requests[n].fetch_add(1, Relaxed);
        }
    }

    async fn unready(&self) -> Vec<String> {
        let room = self.space.room().await.map(|(free, _)| free);
        ready::unready(self.snapshot().as_deref(), room, Instant::now())
    }
}

/// Answers one request that came from there to here.
pub(super) async fn answer(
    web: &Arc<Web>,
    (peer, here): (SocketAddr, SocketAddr),
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path().to_owned();
    if let Some(key) = path.strip_prefix(kv::PREFIX) {
        web.count("kv");
        return web.kv.answer(key, (peer, here), request).await;
    }
    if path == list::PATH {
        web.count("kv");
        return web.kv.list((peer, here), request).await;
    }
    let route = match path.as_str() {
        "/" => "page",
        "/livez" | "/readyz" | "/metrics" | "/status" => &path[1..],
        page::VIEW => "view",
        _ => "other",
    };
    web.count(route);
    if route == "other" {
        let there = "there are /, /livez, /readyz, /metrics, /status and, where it is open, /v1/kv/KEY and /v1/kv?prefix=";
        return error(StatusCode::NOT_FOUND, "not_found", &format!("there is no {path:.100} here; {there}"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "invalid", "this is only read: GET or HEAD");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match route {
        "livez" => match ready::dead(web.snapshot().as_deref(), Instant::now()) {
            None => text(StatusCode::OK, "alive\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not alive: {why}\n")),
        },
        "readyz" => match web.unready().await.join("; ") {
            why if why.is_empty() => text(StatusCode::OK, "ready\n".to_owned()),
            why => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "metrics" => {
            let (room, ready) = (web.space.room().await, web.unready().await.is_empty());
            let (snapshot, served) = (web.snapshot(), web.served());
            let told = metrics::metrics(snapshot.as_deref(), ready, room, &served, Instant::now());
            typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", told)
        }
        "status" => match web.cluster.look().await {
            Ok(told) => json(StatusCode::OK, &told.status),
            Err(error) => json(StatusCode::SERVICE_UNAVAILABLE, &error.to_json()),
        },
        "view" => match web.cluster.look().await {
            Ok(told) => typed(StatusCode::OK, "application/json", told.page.clone()),
            Err(error) => json(StatusCode::SERVICE_UNAVAILABLE, &error.to_json()),
        },
        _ => page::page(),
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    typed(status, "text/plain; charset=utf-8", text)
}

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    typed(status, "application/json", format!("{value}\n"))
}

/// An error as `kvctl --json` prints it. Nothing was changed.
pub(super) fn error(status: StatusCode, word: &str, message: &str) -> Answer {
    json(status, &json!({"error": word, "message": message, "outcome": "unchanged"}))
}

pub(super) fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}
