//! As much of HTTP as a test needs, without a library: what is sent is what is seen.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer: its code, its head as it came, its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The value of the metric with these labels.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let line = self.body.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {sample} in\n{}", self.body))
    }
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(at, "GET", path, &[], b"").await
}

pub(crate) async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {at}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.write_all(body).await?;
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await?;
        Ok::<_, io::Error>(told)
    };
    let told = match tokio::time::timeout(Duration::from_secs(20), exchange).await {
        Ok(told) => told?,
        Err(_) => return Err(io::Error::other("no answer within 20 s")),
    };
    let text = String::from_utf8_lossy(&told).into_owned();
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("no head: {text:?}")))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::other(format!("no code: {head:?}")))?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}
