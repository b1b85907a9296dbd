//! ttl, touch and incr: what is kept for how long, and a number counted up.

use std::time::{Duration, Instant, SystemTime};

use ennead::units::show_duration;
use serde_json::json;

use crate::args::{Global, Incr, Touch};
use crate::data::{check_key, millis, rfc3339};
use crate::failure::Failure;
use crate::output::{Output, untold};
use crate::{Verdict, connect};

/// How long the value is still kept, by this computer's clock.
pub(crate) async fn ttl(key: String, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&key)?;
    let record = connect(global).await?.get(&key).await?;
    let Some(record) = record else { return Err(Failure::Absent { key, copies: None }) };
    let left = record.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
    match (output.json, left) {
        (true, left) => output.print_json(&json!({
            "key": key,
            "version": record.version,
            "expires": record.expires.map(rfc3339),
            "ttl_ms": left.map(millis),
        }))?,
        (false, Some(left)) => output.line(&show_duration(left))?,
        (false, None) => output.line("never expires")?,
    }
    Ok(Verdict::Yes)
}

/// Gives the value another expiry.
pub(crate) async fn touch(args: Touch, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&args.key)?;
    let client = connect(global).await?;
    let began = Instant::now();
    let mut touch = client.touch(&args.key);
    if let Some(ttl) = args.ttl {
        touch = touch.ttl(ttl);
    }
    if let Some(version) = args.if_version {
        touch = touch.if_version(version);
    }
    let Some(version) = touch.await? else {
        return Err(Failure::Absent { key: args.key, copies: None });
    };
    match output.json {
        true => output
            .print_json(&json!({"key": args.key, "version": version, "ms": millis(began.elapsed())}))
            .map_err(|failure| untold(failure, version))?,
        false => output.version("touched", version)?,
    }
    Ok(Verdict::Yes)
}

/// Counts up.
pub(crate) async fn incr(args: Incr, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&args.key)?;
    let client = connect(global).await?;
    let began = Instant::now();
    let counter = client.incr(&args.key, args.by).await?;
    let told = match output.json {
        true => output.print_json(&json!({
            "key": args.key,
            "value": counter.value,
            "version": counter.version,
            "votes": counter.votes,
            "ms": millis(began.elapsed()),
        })),
        false => output.line(&counter.value.to_string()),
    };
    told.map_err(|failure| untold(failure, counter.version))?;
    Ok(Verdict::Yes)
}
