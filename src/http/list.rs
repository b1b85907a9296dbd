//! Keys over HTTP, as lines of JSON: a page of them, and in a header where the next one begins.
//!
//! A page and not a stream, since connections here live for half a minute only.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use super::kv::decoded;
use super::routes::typed;
use super::server::Answer;
use crate::client::{Client, Error};

/// What is asked for here.
pub(super) const PATH: &str = "/v1/kv";
/// The key to go on after, percent-encoded; where there is no such header, there are no more.
const AFTER: HeaderName = HeaderName::from_static("ennead-after");
/// Keys of a page where nobody says otherwise, and at most; and bytes after which there is no further line.
const KEYS: (usize, usize) = (1_000, 10_000);
const BYTES: usize = 4 << 20;

/// What of the keys is wanted.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Asked {
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    limit: usize,
    values: bool,
}

/// `prefix=a%2F&after=a%2Fb&limit=100&values=true`: each at most once, all of them optional.
pub(super) fn asked(query: &str) -> Result<Asked, String> {
    let (mut prefix, mut after, mut limit, mut values) = (None, None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let bytes = || decoded(text).ok_or_else(|| format!("{name} is not percent-encoded"));
        let known = match name {
            "prefix" => prefix.replace(bytes()?).is_none(),
            "after" => after.replace(bytes()?).is_none(),
            "limit" => match text.parse() {
                Ok(n) if (1..=KEYS.1).contains(&n) => limit.replace(n).is_none(),
                _ => return Err(format!("limit is a number from 1 to {}", KEYS.1)),
            },
            "values" => match text {
                "true" => values.replace(true).is_none(),
                "false" => values.replace(false).is_none(),
                _ => return Err("values is true or false".to_owned()),
            },
            _ => return Err(format!("there are prefix, after, limit and values, and no {name:.40}")),
        };
        if !known {
            return Err(format!("{name} is said twice"));
        }
    }
    Ok(Asked {
        prefix: prefix.unwrap_or_default(),
        after,
        limit: limit.unwrap_or(KEYS.0),
        values: values.unwrap_or(false),
    })
}

/// A page of keys.
pub(super) async fn page(client: &Client, asked: Asked) -> Result<Answer, Error> {
    let mut list = client.list(&asked.prefix);
    if asked.values {
        list = list.values();
    }
    if let Some(after) = &asked.after {
        list = list.after(after);
    }
    let mut listing = list.begin().await?;
    let (mut lines, mut keys) = (String::new(), 0);
    let mut next = None;
    while let Some(listed) = listing.next().await? {
        lines += &format!("{}\n", listed.to_json());
        keys += 1;
        if keys >= asked.limit || lines.len() >= BYTES {
            next = listing.cursor().map(encoded);
            break;
        }
    }
    let mut answer = typed(StatusCode::OK, "application/jsonl", lines);
    if let Some(value) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        answer.headers_mut().insert(AFTER, value);
    }
    Ok(answer)
}

fn encoded(key: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    key.iter().map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_or_refused() {
        let whole = asked("prefix=a%2F&after=a%2Fb&limit=7&values=true").expect("it is well-formed");
        let wanted = Asked { prefix: b"a/".to_vec(), after: Some(b"a/b".to_vec()), limit: 7, values: true };
        assert_eq!(whole, wanted);
        assert_eq!(asked("").map(|asked| (asked.prefix, asked.limit)), Ok((Vec::new(), 1_000)));
        for wrong in
            ["limit=0", "limit=10001", "limit=x", "values=1", "prefix=%z", "prefix=a&prefix=b", "pre=a"]
        {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_in_a_header_is_read_as_it_was_written() {
        let key: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&key)), Some(key));
    }
}
