//! All keys in a file, and back: what is said of it.

use std::time::{Duration, Instant};

use ennead::backup::{self, BackupError, Header, Progress, Take, Trailer};
use ennead::units::{show_duration, show_size};
use serde_json::{Value, json};

use crate::args::{Backup, BackupCommand, Global, Restore};
use crate::data::{millis, rfc3339};
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};

/// Between two lines of progress.
const EVERY: Duration = Duration::from_millis(200);

/// Takes a backup, or checks one.
pub(crate) async fn backup(args: Backup, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    if let Some(BackupCommand::Verify { file }) = args.command {
        let (header, trailer) = backup::verify(&file)?;
        output_told("whole", &header, &trailer, output)?;
        return Ok(Verdict::Yes);
    }
    let Some(file) = args.file else {
        return Err(Failure::Usage("into which file?".to_string()));
    };
    let client = connect(global).await?;
    let began = Instant::now();
    let take = Take {
        file: file.clone(),
        since: args.since,
        resume: args.resume,
        prefix: args.prefix.into_bytes(),
        patience: global.patience_of_a_pass(),
    };
    let mut watch = Watch::new(began);
    let taken = take.run(&client, |progress| watch.see(progress, "taken", output)).await;
    output.no_progress();
    let taken = taken.inspect_err(|why| {
        if matches!(why, BackupError::Client(_)) {
            output.say(&format!("what was taken is in {}.partial: --resume goes on with it", file.display()));
        }
    })?;
    output_told("taken", &taken.header, &taken.trailer, output)?;
    if !output.json {
        output.say(&format!("{} in {}", file.display(), show_duration(began.elapsed())));
    }
    Ok(Verdict::Yes)
}

/// Puts a backup back.
pub(crate) async fn restore(args: Restore, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let began = Instant::now();
    let mut files = args.since;
    files.push(args.file);
    let restore = backup::Restore { files, overwrite: args.overwrite };
    let mut watch = Watch::new(began);
    let restored = restore.run(&client, |progress| watch.see(progress, "put back", output)).await;
    output.no_progress();
    let restored = restored.inspect_err(|why| {
        if matches!(why, BackupError::Client(_)) {
            output.say("what was restored until then stays; the same command again does the rest");
        }
    })?;
    match output.json {
        true => output.print_json(&json!({
            "restored": restored.restored,
            "kept": restored.kept,
            "expired": restored.expired,
            "failed": restored.failed,
            "why": restored.why,
            "ms": millis(began.elapsed()),
        }))?,
        false => output.line(&format!(
            "{} restored, {} kept as they are, {} expired meanwhile, {} failed",
            restored.restored, restored.kept, restored.expired, restored.failed
        ))?,
    }
    if let Some(why) = &restored.why {
        output.say(&format!("the first that failed: {why}"));
    }
    Ok(if restored.failed == 0 { Verdict::Yes } else { Verdict::No })
}

fn output_told(word: &str, header: &Header, trailer: &Trailer, output: &mut Output) -> Result<(), Failure> {
    match output.json {
        true => output.print_json(&to_json(header, trailer)),
        false => {
            let gone = match header.base {
                None => String::new(),
                Some(_) => format!(" changed and {} gone since the base", trailer.gone),
            };
            let (keys, size) = (trailer.keys, show_size(trailer.bytes));
            output.line(&format!("{word}: {keys} keys{gone}, {size}, digest {}", hex(&trailer.digest)))
        }
    }
}

fn to_json(header: &Header, trailer: &Trailer) -> Value {
    let at = |ms: u64| rfc3339(std::time::UNIX_EPOCH + Duration::from_millis(ms));
    json!({
        "cluster": format!("{:016x}", header.cluster),
        "begun": at(header.begun_ms),
        "ended": at(trailer.ended_ms),
        "keys": trailer.keys,
        "gone": trailer.gone,
        "bytes": trailer.bytes,
        "blocks": trailer.blocks,
        "digest": hex(&trailer.digest),
        "base": header.base.as_ref().map(hex),
    })
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells now and then how far it is, and how long it will take.
struct Watch {
    began: Instant,
    told: Instant,
}

impl Watch {
    fn new(began: Instant) -> Self {
        Self { began, told: began }
    }

    fn see(&mut self, progress: Progress, word: &str, output: &mut Output) {
        if !output.stderr_is_terminal || self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        output.progress(&line(progress, self.began.elapsed(), word));
    }
}

fn line(Progress { keys, of, bytes }: Progress, took: Duration, word: &str) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = keys as f64 / seconds;
    let size = show_size(bytes);
    // More than were thought to be: nobody knows how long it will take.
    if of <= keys || rate <= 0.0 {
        return format!("{keys} keys {word}, {size}, {rate:.0} a second");
    }
    let left = Duration::from_secs_f64((of - keys) as f64 / rate);
    let share = 100 * keys / of;
    format!(
        "{keys} of about {of} keys {word} ({share} %), {size}, {rate:.0} a second, {} left",
        show_duration(left)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_how_long_it_will_take_where_that_is_known() {
        let half = Progress { keys: 500, of: 1_000, bytes: 2_048 };
        let told = line(half, Duration::from_secs(5), "taken");
        assert!(
            told.contains("500 of about 1000") && told.contains("50 %") && told.contains("left"),
            "{told}"
        );
        let unknown = line(Progress { of: 0, ..half }, Duration::from_secs(5), "taken");
        assert!(unknown.starts_with("500 keys taken") && !unknown.contains("left"), "{unknown}");
    }
}
