//! The data over HTTP: open to nobody, to callers on this computer, or to anyone. There is no certificate here, so who
//! may call is who may read and write everything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, ETAG, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, ORIGIN, RETRY_AFTER,
};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::cluster::Cluster;
use super::list;
use super::routes::{error, json, typed};
use super::server::Answer;
use crate::client::{Client, Error};
use crate::crash::rfc3339;
use crate::units;

/// Before the key.
pub(super) const PREFIX: &str = "/v1/kv/";
/// Requests under way at once: each may hold a value of the longest kind in memory.
const AT_ONCE: usize = 32;
/// How long a value may take to come in.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// When a value expires, if it does.
const EXPIRES: &str = "ennead-expires";

/// Who may read and write the data over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Access {
    /// Nobody.
    #[default]
    Off,
    /// Callers on this computer, and no web page in its browsers.
    Local,
    /// Whoever reaches the address.
    Anyone,
}

/// Answers for keys.
pub(super) struct Kv {
    access: Access,
    cluster: Arc<Cluster>,
    max_value: usize,
    room: Semaphore,
}

/// What the comparison headers ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compare {
    Nothing,
    Version(u64),
    Absent,
    /// Of a get: not if it has this version.
    Other(u64),
}

impl Kv {
    pub(super) fn new(access: Access, cluster: Arc<Cluster>, max_value: usize) -> Self {
        Self { access, cluster, max_value, room: Semaphore::new(AT_ONCE) }
    }

    /// Answers a request for a page of keys.
    pub(super) async fn list(&self, between: (SocketAddr, SocketAddr), request: Request<Incoming>) -> Answer {
        if let Err(why) = may(self.access, between, request.headers()) {
            return error(StatusCode::FORBIDDEN, "refused", why);
        }
        let Ok(_room) = self.room.try_acquire() else {
            return failure(&Error::Overloaded { retry_after: Duration::from_secs(1) });
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer =
                error(StatusCode::METHOD_NOT_ALLOWED, "invalid", "keys are only listed: GET or HEAD");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let asked = match list::asked(request.uri().query().unwrap_or_default()) {
            Ok(asked) => asked,
            Err(why) => return error(StatusCode::BAD_REQUEST, "invalid", &why),
        };
        match self.cluster.client().await {
            Ok(client) => list::page(client, asked).await.unwrap_or_else(|why| failure(&why)),
            Err(why) => failure(&why),
        }
    }

    /// Answers a request for a key, as it is written in the path.
    pub(super) async fn answer(
        &self,
        key: &str,
        between: (SocketAddr, SocketAddr),
        request: Request<Incoming>,
    ) -> Answer {
        if let Err(why) = may(self.access, between, request.headers()) {
            return error(StatusCode::FORBIDDEN, "refused", why);
        }
        let Ok(_room) = self.room.try_acquire() else {
            return failure(&Error::Overloaded { retry_after: Duration::from_secs(1) });
        };
        let bad = |why: &str| error(StatusCode::BAD_REQUEST, "invalid", why);
        let Some(key) = decoded(key) else {
            return bad("the key in the path is not percent-encoded; nothing was changed");
        };
        let compare = match compare(request.headers(), request.method()) {
            Ok(compare) => compare,
            Err(why) => return bad(why),
        };
        let ttl = match ttl(request.uri().query(), request.method()) {
            Ok(ttl) => ttl,
            Err(why) => return bad(&why),
        };
        let client = match self.cluster.client().await {
            Ok(client) => client,
            Err(why) => return failure(&why),
        };
        match *request.method() {
            Method::GET | Method::HEAD => get(client, &key, compare).await,
            Method::PUT => {
                let body = Limited::new(request.into_body(), self.max_value).collect();
                let value = match tokio::time::timeout(BODY_WITHIN, body).await {
                    Ok(Ok(body)) => body.to_bytes(),
                    Ok(Err(why)) if why.is::<LengthLimitError>() => {
                        let most = units::show_size(self.max_value as u64);
                        let why = format!("a value has at most {most}; nothing was changed");
                        return error(StatusCode::PAYLOAD_TOO_LARGE, "invalid", &why);
                    }
                    Ok(Err(why)) => {
                        return bad(&format!("the value did not come whole: {why}; nothing was changed"));
                    }
                    Err(_) => {
                        let why = "the value did not come within 10 s; nothing was changed";
                        return error(StatusCode::REQUEST_TIMEOUT, "timeout", why);
                    }
                };
                put(client, &key, &value, compare, ttl).await
            }
            Method::DELETE => delete(client, &key, compare).await,
            _ => {
                let mut answer =
                    error(StatusCode::METHOD_NOT_ALLOWED, "invalid", "a key takes GET, PUT and DELETE");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, PUT, DELETE"));
                answer
            }
        }
    }
}

/// Whether this caller may; else why not.
fn may(
    access: Access,
    (peer, here): (SocketAddr, SocketAddr),
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    match access {
        Access::Off => {
            Err("the data is not open over HTTP, as whoever reaches this address could change it without a \
             certificate: use kvctl, or start the machine with --http-kv local; nothing was changed")
        }
        Access::Anyone => Ok(()),
        Access::Local => {
            let caller = peer.ip().to_canonical();
            if !caller.is_loopback() && caller != here.ip().to_canonical() {
                return Err(
                    "the data is open over HTTP to callers on this computer only (--http-kv local); \
                     nothing was changed",
                );
            }
            // A page from elsewhere in a browser here is no caller from here, whatever name it has for this address.
            let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let name = host
                .rsplit_once(':')
                .filter(|(_, port)| port.parse::<u16>().is_ok())
                .map_or(host, |(n, _)| n);
            let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
            if headers.contains_key(ORIGIN) || !(address || name == "localhost") {
                return Err("the data is not open to web pages; nothing was changed");
            }
            Ok(())
        }
    }
}

/// A key as it is written in a path.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut key = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'%' => {
                let digit = |b: u8| (b as char).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    Some(key)
}

fn compare(headers: &HeaderMap, method: &Method) -> Result<Compare, &'static str> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let version = |text: &str| text.trim_matches('"').parse::<u64>().ok();
    let wrong = Err("write If-Match: \"VERSION\" or If-None-Match: *, and not both; nothing was changed");
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Compare::Nothing),
        (Some(tag), None) if *method == Method::PUT || *method == Method::DELETE => {
            version(tag).map_or(wrong, |version| Ok(Compare::Version(version)))
        }
        (None, Some("*")) if *method == Method::PUT => Ok(Compare::Absent),
        (None, Some(tag)) if *method == Method::GET || *method == Method::HEAD => {
            version(tag).map_or(wrong, |version| Ok(Compare::Other(version)))
        }
        _ => wrong,
    }
}

fn ttl(query: Option<&str>, method: &Method) -> Result<Option<Duration>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    match query.strip_prefix("ttl=") {
        Some(ttl) if *method == Method::PUT => match units::duration(ttl) {
            Ok(ttl) => Ok(Some(ttl)),
            Err(why) => Err(format!("ttl: {why}; nothing was changed")),
        },
        _ => Err("of parameters there is ?ttl=TIME of a PUT alone, such as ttl=60s; nothing was changed"
            .to_owned()),
    }
}

async fn get(client: &Client, key: &[u8], compare: Compare) -> Answer {
    let record = match client.get(key).await {
        Ok(Some(record)) => record,
        Ok(None) => return absent(),
        Err(why) => return failure(&why),
    };
    let mut answer = match compare {
        Compare::Other(version) if version == record.version => {
            typed(StatusCode::NOT_MODIFIED, "application/octet-stream", Vec::new())
        }
        _ => typed(StatusCode::OK, "application/octet-stream", record.value.to_vec()),
    };
    tag(&mut answer, record.version);
    if let Some(expires) = record.expires {
        let ms = expires.duration_since(std::time::UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64);
        if let Ok(value) = HeaderValue::from_str(&rfc3339(ms)) {
            answer.headers_mut().insert(EXPIRES, value);
        }
    }
    answer
}

async fn put(client: &Client, key: &[u8], value: &[u8], compare: Compare, ttl: Option<Duration>) -> Answer {
    let mut put = client.put(key, value);
    put = match compare {
        Compare::Version(version) => put.if_version(version),
        Compare::Absent => put.if_absent(),
        Compare::Nothing | Compare::Other(_) => put,
    };
    if let Some(ttl) = ttl {
        put = put.ttl(ttl);
    }
    match put.receipt().await {
        Ok(written) => {
            let told = json!({"version": written.version, "votes": written.votes});
            let mut answer = json(StatusCode::OK, &told);
            tag(&mut answer, written.version);
            answer
        }
        Err(why) => failure(&why),
    }
}

async fn delete(client: &Client, key: &[u8], compare: Compare) -> Answer {
    let mut delete = client.delete(key);
    if let Compare::Version(version) = compare {
        delete = delete.if_version(version);
    }
    match delete.await {
        Ok(Some(version)) => json(StatusCode::OK, &json!({"version": version})),
        Ok(None) => absent(),
        Err(why) => failure(&why),
    }
}

fn absent() -> Answer {
    error(StatusCode::NOT_FOUND, "not_found", "the key has no value")
}

fn tag(answer: &mut Answer, version: u64) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{version}\"")) {
        answer.headers_mut().insert(ETAG, value);
    }
}

/// What the client says, with the status that HTTP has for it.
fn failure(why: &Error) -> Answer {
    let status = match why {
        Error::VersionMismatch { .. } => StatusCode::PRECONDITION_FAILED,
        Error::Invalid(_) | Error::Refused(_) => StatusCode::BAD_REQUEST,
        // The only one after which the value may have changed.
        Error::Unknown { .. } => StatusCode::GATEWAY_TIMEOUT,
        Error::Setup(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut answer = json(status, &why.to_json());
    if let Error::Overloaded { retry_after } = why {
        let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Error::VersionMismatch { found: Some(version) } = why {
        tag(&mut answer, *version);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header's value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_key_in_a_path_is_bytes() {
        assert_eq!(decoded("mail-23412").as_deref(), Some(b"mail-23412".as_slice()));
        assert_eq!(decoded("a%2Fb%00c/d").as_deref(), Some(b"a/b\0c/d".as_slice()));
        assert_eq!((decoded("100%"), decoded("%4"), decoded("%zz")), (None, None, None));
    }

    #[test]
    fn comparisons_are_the_headers_of_http() {
        let said = |pairs: &[(&'static str, &str)], method: Method| compare(&headers(pairs), &method);
        assert_eq!(said(&[], Method::PUT), Ok(Compare::Nothing));
        assert_eq!(said(&[("if-match", "\"7\"")], Method::PUT), Ok(Compare::Version(7)));
        assert_eq!(said(&[("if-match", "7")], Method::DELETE), Ok(Compare::Version(7)));
        assert_eq!(said(&[("if-none-match", "*")], Method::PUT), Ok(Compare::Absent));
        assert_eq!(said(&[("if-none-match", "\"7\"")], Method::GET), Ok(Compare::Other(7)));
        for (pairs, method) in [
            (&[("if-match", "W/\"x\"")][..], Method::PUT),
            (&[("if-match", "*")], Method::PUT),
            (&[("if-match", "7")], Method::GET),
            (&[("if-none-match", "*")], Method::DELETE),
            (&[("if-match", "7"), ("if-none-match", "*")], Method::PUT),
        ] {
            assert!(said(pairs, method.clone()).is_err(), "{pairs:?} {method}: ignored, it would overwrite");
        }
    }

    #[test]
    fn a_parameter_that_means_nothing_is_refused() {
        assert_eq!(ttl(Some("ttl=60s"), &Method::PUT), Ok(Some(Duration::from_secs(60))));
        assert_eq!(ttl(None, &Method::PUT), Ok(None));
        for query in ["ttl=", "ttl=x", "tll=60s", "prefix=a"] {
            assert!(ttl(Some(query), &Method::PUT).is_err(), "{query}");
        }
        assert!(ttl(Some("ttl=60s"), &Method::GET).is_err());
    }

    #[test]
    fn the_data_is_open_to_whom_it_was_said_to_be() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let here = at("10.0.0.1:9596");
        let own = headers(&[("host", "10.0.0.1:9596")]);
        let asks = |access, peer: &str, headers: &HeaderMap| may(access, (at(peer), here), headers).is_ok();
        assert!(!asks(Access::Off, "127.0.0.1:5", &own));
        assert!(asks(Access::Anyone, "10.0.0.2:5", &own));
        assert!(!asks(Access::Local, "10.0.0.2:5", &own));
        assert!(asks(Access::Local, "127.0.0.1:5", &own) && asks(Access::Local, "10.0.0.1:5", &own));
        assert!(asks(Access::Local, "[::ffff:127.0.0.1]:5", &headers(&[("host", "[::1]:9596")])));
        assert!(asks(Access::Local, "127.0.0.1:5", &headers(&[("host", "localhost")])));
        // A name that somebody made point here, and a page that calls.
        assert!(!asks(Access::Local, "127.0.0.1:5", &headers(&[("host", "evil.example:9596")])));
        assert!(!asks(Access::Local, "127.0.0.1:5", &HeaderMap::new()));
        let page = headers(&[("host", "127.0.0.1:9596"), ("origin", "http://evil.example")]);
        assert!(!asks(Access::Local, "127.0.0.1:5", &page));
    }
}
