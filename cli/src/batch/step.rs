//! One line: what it asks for, and what came of it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennead::client::Client;
use ennead::units;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::data::{check_key, check_value, record_json};
use crate::failure::Failure;

/// An operation on one key, as a line of JSON says it.
#[derive(Deserialize, PartialEq, Eq, Debug)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Step {
    Put {
        key: String,
        value: Option<String>,
        value_base64: Option<String>,
        ttl: Option<String>,
        if_version: Option<u64>,
        #[serde(default)]
        if_absent: bool,
    },
    Get {
        key: String,
    },
    Del {
        key: String,
        if_version: Option<u64>,
    },
    Incr {
        key: String,
        #[serde(default = "one")]
        by: i64,
    },
    Touch {
        key: String,
        ttl: Option<String>,
        #[serde(default)]
        keep: bool,
        if_version: Option<u64>,
    },
}

fn one() -> i64 {
    1
}

fn usage(why: impl ToString) -> Failure {
    Failure::Usage(format!("{}; nothing was changed", why.to_string()))
}

fn time(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    match text.map(units::duration).transpose().map_err(usage)? {
        Some(Duration::ZERO) => Err(usage("ttl: a time above zero, such as \"1h\"")),
        ttl => Ok(ttl),
    }
}

impl Step {
    /// What the line asks for. Whatever is wrong with it is found before anybody is asked.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Failure> {
        let step: Self = serde_json::from_slice(line).map_err(|e| usage(format!("no operation: {e}")))?;
        check_key(step.key())?;
        match &step {
            Self::Put { ttl, if_version, if_absent, .. } => {
                time(ttl.as_deref())?;
                step.value()?;
                if if_version.is_some() && *if_absent {
                    return Err(usage("if_version or if_absent, not both"));
                }
            }
            Self::Touch { ttl, keep, .. } => {
                if time(ttl.as_deref())?.is_some() == *keep {
                    return Err(usage("a touch has either a ttl or \"keep\": true"));
                }
            }
            Self::Get { .. } | Self::Del { .. } | Self::Incr { .. } => {}
        }
        Ok(step)
    }

    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put { key, .. }
            | Self::Get { key }
            | Self::Del { key, .. }
            | Self::Incr { key, .. }
            | Self::Touch { key, .. } => key,
        }
    }

    pub(super) const fn op(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Get { .. } => "get",
            Self::Del { .. } => "del",
            Self::Incr { .. } => "incr",
            Self::Touch { .. } => "touch",
        }
    }

    /// The bytes that a put stores.
    fn value(&self) -> Result<Vec<u8>, Failure> {
        let Self::Put { value, value_base64, .. } = self else { return Ok(Vec::new()) };
        let bytes = match (value, value_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|e| usage(format!("value_base64: {e}")))?,
            _ => return Err(usage("a put has either a value or a value_base64")),
        };
        check_value(&bytes)?;
        Ok(bytes)
    }

    /// Does it, and tells what came of it: what the command of the same name does.
    pub(super) async fn carry_out(&self, client: &Client) -> Result<Value, Failure> {
        let absent = |key: &str| Failure::Absent { key: key.to_owned(), copies: None };
        match self {
            Self::Put { key, ttl, if_version, if_absent, .. } => {
                let mut put = client.put(key, self.value()?);
                if let Some(version) = if_version {
                    put = put.if_version(*version);
                }
                if *if_absent {
                    put = put.if_absent();
                }
                if let Some(ttl) = time(ttl.as_deref())? {
                    put = put.ttl(ttl);
                }
                let written = put.receipt().await?;
                Ok(json!({"version": written.version, "votes": written.votes}))
            }
            Self::Get { key } => match client.get(key).await? {
                Some(record) => Ok(record_json(key, &record)),
                None => Err(absent(key)),
            },
            Self::Del { key, if_version } => {
                let mut delete = client.delete(key);
                if let Some(version) = if_version {
                    delete = delete.if_version(*version);
                }
                Ok(json!({"version": delete.await?.ok_or_else(|| absent(key))?}))
            }
            Self::Incr { key, by } => {
                let counter = client.incr(key, *by).await?;
                Ok(json!({"value": counter.value, "version": counter.version, "votes": counter.votes}))
            }
            Self::Touch { key, ttl, if_version, .. } => {
                let mut touch = client.touch(key);
                if let Some(ttl) = time(ttl.as_deref())? {
                    touch = touch.ttl(ttl);
                }
                if let Some(version) = if_version {
                    touch = touch.if_version(*version);
                }
                Ok(json!({"version": touch.await?.ok_or_else(|| absent(key))?}))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_command_says() {
        let put = br#"{"op": "put", "key": "k", "value": "v", "ttl": "1h", "if_absent": true}"#;
        let step = Step::parse(put).expect("a put");
        assert_eq!((step.key(), step.op(), step.value().ok()), ("k", "put", Some(b"v".to_vec())));
        let incr = Step::parse(br#"{"op":"incr","key":"n"}"#).expect("an incr");
        assert_eq!(incr, Step::Incr { key: "n".to_owned(), by: 1 });
        Step::parse(br#"{"op":"touch","key":"k","keep":true}"#).expect("a touch");
        Step::parse(br#"{"op":"put","key":"k","value_base64":"/w=="}"#).expect("bytes");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        for (line, said) in [
            ("", "EOF"),
            ("{", "EOF"),
            (r#"{"op":"pop","key":"k"}"#, "unknown variant `pop`"),
            (r#"{"op":"get"}"#, "missing field `key`"),
            (r#"{"op":"get","key":""}"#, "empty"),
            (r#"{"op":"get","key":"k","tll":"1h"}"#, "unknown field `tll`"),
            (r#"{"op":"put","key":"k"}"#, "either a value or a value_base64"),
            (r#"{"op":"put","key":"k","value":"v","value_base64":""}"#, "either a value or"),
            (r#"{"op":"put","key":"k","value_base64":"?"}"#, "value_base64"),
            (r#"{"op":"put","key":"k","value":"v","ttl":"soon"}"#, "\"soon\" is not a time"),
            (r#"{"op":"put","key":"k","value":"v","ttl":"0s"}"#, "above zero"),
            (r#"{"op":"put","key":"k","value":"v","if_version":1,"if_absent":true}"#, "not both"),
            (r#"{"op":"incr","key":"k","by":"1"}"#, "invalid type"),
            (r#"{"op":"incr","key":"k","by":9223372036854775808}"#, "9223372036854775808"),
            (r#"{"op":"touch","key":"k"}"#, "either a ttl or"),
            (r#"{"op":"touch","key":"k","ttl":"1h","keep":true}"#, "either a ttl or"),
        ] {
            let why = Step::parse(line.as_bytes()).expect_err(line).to_string();
            assert!(why.contains(said), "{line}: {why}");
        }
    }
}
