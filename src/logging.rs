//! The log: text or JSON, written by a thread of its own that never makes the node wait.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use ennead::crash::LastLines;

use crate::config::{Log, LogFormat};

/// Lines that may wait to be written. When a disk or terminal is slower than that, lines are dropped: a log
/// is not worth a stalled machine.
const WAITING_LINES: usize = 16_384;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot open the log file {0}: {1}")]
    Open(String, io::Error),
    #[error("cannot start the log: {0}")]
    Start(String),
}

/// Starts the log. What is waiting is written when the guard is dropped.
pub(crate) fn start(log: &Log) -> Result<WorkerGuard, LogError> {
    let (target, ansi): (Box<dyn Write + Send>, bool) = match &log.file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            (Box::new(file.map_err(|e| LogError::Open(path.display().to_string(), e))?), false)
        }
        None => (Box::new(io::stderr()), io::stderr().is_terminal()),
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(target);
    let filter = EnvFilter::builder().parse(&log.level).map_err(|e| LogError::Start(e.to_string()))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => Box::new(lines.with_filter(filter)),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_filter(filter)),
    };
    // What crash reports tell of the log is the same however little of it is written.
    let last = LastLines.with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines)
        .with(last)
        .try_init()
        .map_err(|e| LogError::Start(e.to_string()))?;
    Ok(guard)
}
