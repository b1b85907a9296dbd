//! Lists keys in their order, one a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennead::client::Listed;

use crate::args::{Global, List};
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};

/// Lines that are written at once while keys come quickly.
const TOGETHER: usize = 16 << 10;

/// Lists them.
pub(crate) async fn run(args: List, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let mut list = client.list(&args.prefix).patience(global.patience_of_a_pass());
    if let Some(cursor) = cursor(&args)? {
        list = list.after(cursor);
    }
    if args.values {
        list = list.values();
    }
    let mut listing = list.begin().await?;
    let mut lines = Vec::new();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let ended = loop {
        if left == 0 {
            break Ok(());
        }
        match listing.next().await {
            Ok(Some(listed)) => {
                left -= 1;
                line(&listed, output.json, &mut lines);
                if lines.len() >= TOGETHER || output.stdout_is_terminal {
                    output.data(&lines)?;
                    lines.clear();
                }
            }
            Ok(None) => break Ok(()),
            Err(why) => break Err(why),
        }
    };
    output.data(&lines)?;
    if let Some(cursor) = listing.cursor().filter(|_| ended.is_err() || left == 0) {
        let hint = match std::str::from_utf8(cursor) {
            Ok(key) => format!("to go on: --after '{}'", key.replace('\'', "'\\''")),
            Err(_) => format!("to go on: --after-base64 {}", STANDARD.encode(cursor)),
        };
        output.say(&hint);
    }
    ended?;
    Ok(Verdict::Yes)
}

fn cursor(args: &List) -> Result<Option<Vec<u8>>, Failure> {
    match (&args.after, &args.after_base64) {
        (Some(key), _) => Ok(Some(key.as_bytes().to_vec())),
        (None, Some(text)) => {
            let decoded = STANDARD.decode(text);
            decoded.map(Some).map_err(|e| Failure::Usage(format!("--after-base64 is no base64: {e}")))
        }
        (None, None) => Ok(None),
    }
}

/// A key, and after a tab its value; with escapes where a line would not stay one.
fn line(listed: &Listed, json: bool, out: &mut Vec<u8>) {
    if json {
        out.extend(listed.to_json().to_string().bytes());
    } else {
        out.extend(printable(&listed.key).bytes());
        if let Some(value) = &listed.value {
            out.push(b'\t');
            out.extend(printable(value).bytes());
        }
    }
    out.push(b'\n');
}

fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() || c == '\\') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_key_stays_on_its_line() {
        let listed = |key: &[u8], value: Option<&[u8]>| Listed {
            key: key.to_vec(),
            version: 7,
            expires: None,
            value: value.map(Into::into),
        };
        let told = |listed: &Listed, json| {
            let mut out = Vec::new();
            line(listed, json, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(told(&listed(b"mail/1", None), false), "mail/1\n");
        assert_eq!(told(&listed(b"a\nb", Some(b"c\td")), false), "a\\nb\tc\\td\n");
        assert_eq!(told(&listed("\u{fc}".as_bytes(), Some(b"")), false), "\u{fc}\t\n");
        let json: Value = serde_json::from_str(&told(&listed(&[0xff], Some(b"v")), true)).expect("JSON");
        assert_eq!(json, json!({"key_base64": "/w==", "value": "v", "version": 7}));
    }
}
