//! Crash reports: what is known of a panic, or of a machine's end, kept where it survives both.
//!
//! A panic hook notes a report, a thread of its own writes it to `DATA/crashes` and fsyncs, and an errand puts it into
//! the ring (see `errands`). Nothing here waits for a lock or a disk for longer than a moment: a machine that can go on
//! goes on.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ennead_ring::view::Machine;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;

use crate::clock::unix_ms;
use crate::program;
use crate::supervisor::last_words;

/// Longest report, in bytes of JSON: a backtrace is cut in its middle to fit.
pub const MAX_REPORT: usize = 32 << 10;
/// Files kept, the newest.
const KEPT: usize = 16;
/// Lines of the log in a report.
const LINES: usize = 100;
/// Longest of them, in bytes.
const LINE: usize = 400;
/// Longest message of a panic, in bytes.
const MESSAGE: usize = 4 << 10;
/// How long a panicking thread waits for its report to be on disk: the process may abort right after.
const MOMENT: Duration = Duration::from_millis(100);
/// Reports that may wait to be written.
const WAITING: usize = 16;

/// What is known of a crash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Unique: the incarnation, and `at_ms`.
    pub id: String,
    /// Whether a part panicked, which is begun again, or the machine ended.
    pub kind: Kind,
    /// What ended the machine, or `panic`.
    pub cause: Cause,
    /// What the panic said, or why the machine ended.
    pub message: String,
    /// Where in the source the panic was.
    pub location: Option<String>,
    /// Of the panic; of an end, that of the last panic before it.
    pub backtrace: String,
    /// The thread.
    pub thread: String,
    /// The part of the machine, as far as the thread tells.
    pub part: String,
    /// What was logged last.
    pub log: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Milliseconds since the machine started.
    pub uptime_ms: u64,
    /// Restarts of its parts before this.
    pub restarts: u32,
    /// Its name.
    pub machine: String,
    /// Its incarnation.
    pub incarnation: String,
    /// Which run of the program, as peers know it.
    pub run: String,
    /// Milliseconds since 1970, by its clock.
    pub at_ms: u64,
}

/// What a report is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A part panicked.
    Panic,
    /// The machine ended because it could not go on.
    End,
}

/// What was the trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A panic, or too many.
    Panic,
    /// The disk or what is on it.
    Storage,
    /// The network's part.
    Transport,
}

impl Report {
    /// As JSON of at most [`MAX_REPORT`] bytes.
    pub fn to_json(&self) -> String {
        let print = |report: &Self| serde_json::to_string(report).unwrap_or_default();
        let mut text = print(self);
        if text.len() <= MAX_REPORT {
            return text;
        }
        let mut report = self.clone();
        // What escapes need is not known beforehand: halve what is kept until it fits.
        let mut room = self.backtrace.len();
        while text.len() > MAX_REPORT && room > 0 {
            room = if room > 2_048 { room / 2 + room / 4 } else { 0 };
            report.backtrace = cut_in_the_middle(&self.backtrace, room);
            text = print(&report);
        }
        while text.len() > MAX_REPORT && !report.log.is_empty() {
            report.log.drain(..report.log.len().div_ceil(2));
            text = print(&report);
        }
        if text.len() > MAX_REPORT {
            report.message = cut(&report.message, 256);
            text = print(&report);
        }
        text
    }

    /// From JSON: at most [`MAX_REPORT`] bytes, and a report.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let text = text.get(..).filter(|text| text.len() <= MAX_REPORT)?;
        serde_json::from_slice(text).ok()
    }
}

/// The first so many bytes, in whole characters.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn cut_in_the_middle(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let head = cut(text, bytes / 2);
    let mut from = text.len() - bytes / 2;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    format!("{head}\n... {} bytes of the middle are left out ...\n{}", from - head.len(), &text[from..])
}

// -- lists in the ring -------------------------------------------------------------------------------

/// Reports of one machine that the ring keeps.
const IN_RING: usize = 8;
/// Bytes of all of them.
const IN_RING_BYTES: usize = 256 << 10;
/// Names of machines with reports that the ring keeps.
const NAMES: usize = 1000;

/// Reads what `with_report` wrote, newest first.
pub fn reports(list: &[u8]) -> Vec<Report> {
    serde_json::from_slice(list).unwrap_or_default()
}

/// Reads what `with_name` wrote.
pub fn names(list: &[u8]) -> Vec<String> {
    serde_json::from_slice(list).unwrap_or_default()
}

/// The list with this report in it; `None` if it is there already, or older than all that are kept. One that was told before
/// the names of its backtrace were found makes room for itself with them.
pub(crate) fn with_report(list: Option<&[u8]>, report: &Report) -> Option<Vec<u8>> {
    let mut all = list.map(reports).unwrap_or_default();
    let more = |known: &Report| known.backtrace.is_empty() && !report.backtrace.is_empty();
    if all.iter().any(|known| known.id == report.id && !more(known)) {
        return None;
    }
    all.retain(|known| known.id != report.id);
    let report = Report::from_json(report.to_json().as_bytes())?;
    let id = report.id.clone();
    all.push(report);
    all.sort_by_key(|r| std::cmp::Reverse(r.at_ms));
    all.truncate(IN_RING);
    loop {
        let text = serde_json::to_vec(&all).ok()?;
        if text.len() <= IN_RING_BYTES {
            return all.iter().any(|r| r.id == id).then_some(text);
        }
        all.pop();
    }
}

/// The list with this name in it; `None` if it is there already, or the list is full.
pub(crate) fn with_name(list: Option<&[u8]>, name: &str) -> Option<Vec<u8>> {
    let mut all = list.map(names).unwrap_or_default();
    if all.len() >= NAMES || all.iter().any(|n| n == name) {
        return None;
    }
    all.push(name.to_owned());
    all.sort();
    serde_json::to_vec(&all).ok()
}

// -- the log's last lines ----------------------------------------------------------------------------

static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Keeps the last lines of the log for crash reports: a layer of `tracing`, which never waits. While one thread adds
/// a line, another's is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastLines;

impl<S: Subscriber> Layer<S> for LastLines {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let Ok(mut last) = LAST.try_lock() else { return };
        let meta = event.metadata();
        let mut line = Line(format!("{} {} {}:", rfc3339(unix_ms()), meta.level(), meta.target()));
        event.record(&mut line);
        if last.len() >= LINES {
            last.pop_front();
        }
        last.push_back(cut(&line.0, LINE));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if self.0.len() < LINE {
            let _ = match field.name() {
                "message" => write!(self.0, " {value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }
}

fn last_lines() -> Vec<String> {
    // Whoever panicked may hold it.
    LAST.try_lock().map(|last| last.iter().cloned().collect()).unwrap_or_default()
}

/// A time as people and programs read it, in UTC.
pub fn rfc3339(ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp((ms / 1000) as i64);
    let Ok(at) = at else { return format!("{ms} ms") };
    let (date, clock) = (at.date(), at.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

// -- the machine of this thread ----------------------------------------------------------------------

/// Whose crash it would be.
#[derive(Debug)]
pub(crate) struct Context {
    machine: Machine,
    run: u64,
    started: Instant,
    dir: PathBuf,
    restarts: AtomicU32,
    writer: SyncSender<Job>,
    last_panic: Mutex<Option<Report>>,
    /// Rung when there is a report to be put into the ring.
    pub(crate) new: Arc<Notify>,
}

#[derive(Debug)]
struct Job {
    report: Report,
    backtrace: Option<Backtrace>,
    /// Dropped when it is on disk.
    done: SyncSender<()>,
}

thread_local! {
    /// The data directory of the machine that the thread works for.
    static OF_THREAD: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Panics of this thread are, from now on, those of the machine with this data directory.
pub(crate) fn belongs_to(data: &Path) {
    OF_THREAD.with(|of| *of.borrow_mut() = Some(data.join(FOLDER)));
}

/// All machines of this process.
static ALL: Mutex<Vec<Weak<Context>>> = Mutex::new(Vec::new());
/// Times of reports, so that no two are alike.
static LATEST: AtomicU64 = AtomicU64::new(0);

impl Context {
    /// Makes reports of this machine be written to `data/crashes`; starts the thread that does so.
    ///
    /// # Errors
    /// A thread or a folder that the system refuses.
    pub(crate) fn new(machine: Machine, run: u64, data: &Path) -> io::Result<Arc<Self>> {
        install();
        let dir = data.join(FOLDER);
        fs::create_dir_all(&dir)?;
        let new = Arc::new(Notify::new());
        let (writer, jobs) = sync_channel(WAITING);
        let (folder, bell) = (dir.clone(), new.clone());
        thread::Builder::new().name("crash-reports".into()).spawn(move || write(&folder, &jobs, &bell))?;
        let context = Arc::new(Self {
            machine,
            run,
            started: Instant::now(),
            dir,
            restarts: AtomicU32::new(0),
            writer,
            last_panic: Mutex::new(None),
            new,
        });
        if let Ok(mut all) = ALL.lock() {
            all.retain(|context| context.strong_count() > 0);
            all.push(Arc::downgrade(&context));
        }
        Ok(context)
    }

    /// Says how often its parts have been begun again.
    pub(crate) fn set_restarts(&self, restarts: u32) {
        self.restarts.store(restarts, Relaxed);
    }

    fn report(&self, kind: Kind, cause: Cause, message: &str) -> Report {
        let now = unix_ms();
        let at_ms = LATEST
            .fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1)))
            .map_or(now, |last| now.max(last + 1));
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        Report {
            id: format!("{}-{at_ms}", self.machine.incarnation),
            kind,
            cause,
            message: cut(message, MESSAGE),
            location: None,
            backtrace: String::new(),
            part: part_of(&thread).to_owned(),
            thread,
            log: last_lines(),
            version: program::version().to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            restarts: self.restarts.load(Relaxed),
            machine: self.machine.name.to_string(),
            incarnation: self.machine.incarnation.to_string(),
            run: format!("{:016x}", self.run),
            at_ms,
        }
    }

    /// The report of the machine's end. It takes over where the last panic was, if that was the cause.
    pub(crate) fn end(&self, cause: Cause, message: &str) -> Report {
        let mut report = self.report(Kind::End, cause, message);
        if cause == Cause::Panic
            && let Ok(last) = self.last_panic.try_lock()
            && let Some(last) = &*last
        {
            report.location.clone_from(&last.location);
            report.backtrace.clone_from(&last.backtrace);
            (report.thread, report.part) = (last.thread.clone(), last.part.clone());
        }
        report
    }

    /// Waits up to so long for the backtrace of the last panic, where the report of its end lacks it. True if it was found.
    pub(crate) async fn find_backtrace(&self, report: &mut Report, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        // Without a place there was no panic.
        while report.backtrace.is_empty() && report.location.is_some() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Ok(last) = self.last_panic.try_lock()
                && let Some(last) = &*last
                && !last.backtrace.is_empty()
            {
                report.backtrace.clone_from(&last.backtrace);
                return true;
            }
        }
        false
    }

    /// Hands a report in to be written. What comes back ends when it is on disk.
    fn hand_in(&self, report: Report, backtrace: Option<Backtrace>) -> Receiver<()> {
        let (done, wait) = sync_channel(0);
        // Full: sixteen panics within a moment say no more than fifteen.
        let _ = self.writer.try_send(Job { report, backtrace, done });
        wait
    }

    /// Writes a report, and waits up to so long until it is on disk.
    pub(crate) async fn write(&self, report: Report, patience: Duration) {
        let wait = self.hand_in(report, None);
        let until = Instant::now() + patience;
        while Instant::now() < until && wait.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The reports that are not in the ring yet, oldest first. Reads the disk.
    pub(crate) fn untold(&self) -> Vec<(PathBuf, Report)> {
        let paths = files(&self.dir, "json").into_iter().map(|(_, path)| path);
        paths.filter_map(|path| Some((of_file(&path)?, path))).map(|(report, path)| (path, report)).collect()
    }

    /// A report is in the ring as it was read from there. If its backtrace has been written since, it is yet to be told.
    pub(crate) fn told(path: &Path, report: &Report) {
        if of_file(path).as_ref() == Some(report) {
            // If it stays, it is found to be in the ring already.
            let _ = fs::rename(path, path.with_extension("told"));
        }
    }
}

fn of_file(path: &Path) -> Option<Report> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_REPORT as u64 + 1).read_to_end(&mut text).ok()?;
    Report::from_json(&text)
}

/// The folder of reports in a data directory.
pub(crate) const FOLDER: &str = "crashes";

/// Files of the folder with this extension and their times, oldest first.
fn files(dir: &Path, extension: &str) -> Vec<(u64, PathBuf)> {
    let Ok(items) = fs::read_dir(dir) else { return Vec::new() };
    let of = |path: PathBuf| {
        let time = path.file_stem()?.to_str()?.parse().ok()?;
        (path.extension()? == extension).then_some((time, path))
    };
    let mut files: Vec<_> = items.filter_map(|item| of(item.ok()?.path())).collect();
    files.sort();
    files
}

/// Writes reports until nobody is left to hand one in.
fn write(dir: &Path, jobs: &Receiver<Job>, new: &Notify) {
    while let Ok(Job { mut report, backtrace, done }) = jobs.recv() {
        let path = dir.join(format!("{}.json", report.at_ms));
        // Twice: to find the names of a backtrace takes longer than a dying process may have.
        let mut written = store(&path, &report);
        drop(done);
        if let Some(backtrace) = backtrace {
            report.backtrace = backtrace.to_string();
            written = written.and_then(|()| store(&path, &report));
            remember(&report);
        }
        match written {
            Ok(()) => {
                prune(dir);
                new.notify_one();
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a crash report cannot be written");
            }
        }
    }
}

fn store(path: &Path, report: &Report) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(report.to_json().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Keeps the newest.
fn prune(dir: &Path) {
    let mut all = files(dir, "json");
    all.extend(files(dir, "told"));
    all.sort();
    for (_, path) in all.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}

/// The last panic of a machine may turn out to be its end.
fn remember(report: &Report) {
    let Ok(all) = ALL.lock() else { return };
    for context in all.iter().filter_map(Weak::upgrade) {
        let same = context.machine.name.to_string() == report.machine;
        if same && let Ok(mut last) = context.last_panic.lock() {
            *last = Some(report.clone());
        }
    }
}

fn part_of(thread: &str) -> &str {
    match thread {
        "ennead-core" => "core loop",
        "storage-writer" => "storage writer",
        "http" => "HTTP server",
        other => other,
    }
}

/// Makes panics be reported, once for this process, whoever calls it first. What was done at a panic before is done
/// still, after that.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info);
            previous(info);
        }));
    });
}

/// In the hook: nothing here may panic, and nothing waits for long.
fn note(info: &PanicHookInfo<'_>) {
    let own = OF_THREAD.try_with(|of| of.try_borrow().ok().and_then(|of| of.clone()));
    let Some(dir) = own.ok().flatten() else { return };
    let all = ALL.try_lock().map(|all| all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>());
    let Some(context) = all.ok().and_then(|all| all.into_iter().find(|c| c.dir == dir)) else { return };
    let payload: &(dyn Any + Send) = info.payload();
    let mut report = context.report(Kind::Panic, Cause::Panic, &last_words(payload));
    report.location = info.location().map(ToString::to_string);
    if report.location.as_ref().is_some_and(|at| at.contains("transport")) {
        report.part = "transport".to_owned();
    }
    if let Ok(mut last) = context.last_panic.try_lock() {
        *last = Some(report.clone());
    }
    // Captured here, and read by the writer: that takes longer.
    let wait = context.hand_in(report, Some(Backtrace::force_capture()));
    let _ = wait.recv_timeout(MOMENT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ennead_ring::{Incarnation, Name};

    fn machine() -> Machine {
        let name: Name = "10.0.0.1".parse().unwrap();
        Machine { name, incarnation: Incarnation::new(7) }
    }

    fn report(at_ms: u64) -> Report {
        Report {
            id: format!("7-{at_ms}"),
            kind: Kind::Panic,
            cause: Cause::Panic,
            message: "no".into(),
            location: None,
            backtrace: String::new(),
            thread: "t".into(),
            part: "core loop".into(),
            log: vec![],
            version: "1".into(),
            uptime_ms: 1,
            restarts: 0,
            machine: "10.0.0.1".into(),
            incarnation: "7".into(),
            run: "1".into(),
            at_ms,
        }
    }

    #[test]
    fn a_report_fits_its_bound_and_says_what_is_left_out() {
        let mut long = report(1);
        long.backtrace = "frame \"ä\"\n".repeat(20_000);
        long.log = vec!["\n".repeat(LINE); LINES];
        let text = long.to_json();
        assert!(text.len() <= MAX_REPORT, "{}", text.len());
        let back = Report::from_json(text.as_bytes()).unwrap();
        assert_eq!(back.message, "no");
        long.log = vec![];
        let back = Report::from_json(long.to_json().as_bytes()).unwrap();
        assert!(back.backtrace.contains("bytes of the middle are left out"));
        assert!(back.backtrace.ends_with("frame \"ä\"\n") && back.backtrace.starts_with("frame"));
        assert!(
            back.backtrace.len() > MAX_REPORT / 3,
            "no more is cut than need be: {}",
            back.backtrace.len()
        );
        assert_eq!(Report::from_json(&vec![b' '; MAX_REPORT + 1]), None);
    }

    #[test]
    fn the_ring_keeps_the_last_eight_newest_first_and_each_once() {
        let mut list = None;
        for at in [3, 1, 2, 9, 8, 7, 6, 5, 4, 10] {
            list = with_report(list.as_deref(), &report(at)).or(list);
            assert_eq!(with_report(list.as_deref(), &report(at)), None, "it is there, or too old");
        }
        let kept: Vec<u64> = reports(list.as_deref().unwrap()).iter().map(|r| r.at_ms).collect();
        assert_eq!(kept, [10, 9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(with_report(list.as_deref(), &report(2)), None);
        // Its backtrace came later; and nothing takes it away again.
        let whole = Report { backtrace: "at last".to_owned(), ..report(9) };
        let list = with_report(list.as_deref(), &whole).expect("there is more to say");
        let kept = reports(&list);
        assert_eq!((kept.len(), kept[1].backtrace.as_str()), (8, "at last"));
        assert_eq!(with_report(Some(&list), &report(9)), None);

        let mut long = report(20);
        long.backtrace = "x".repeat(MAX_REPORT);
        let mut list = None;
        for at in 0..20 {
            long.id = format!("7-{at}");
            long.at_ms = at;
            list = with_report(list.as_deref(), &long).or(list);
            assert!(list.as_ref().unwrap().len() <= IN_RING_BYTES);
        }
        assert_eq!(reports(list.as_deref().unwrap())[0].at_ms, 19);
        assert!(with_report(Some(b"rubbish"), &report(1)).is_some(), "a list nobody can read is begun anew");
    }

    #[test]
    fn names_are_kept_once_and_up_to_a_thousand() {
        let mut list = None;
        for i in 0..1_100 {
            list = with_name(list.as_deref(), &format!("m{i:04}")).or(list);
        }
        assert_eq!(names(list.as_deref().unwrap()).len(), NAMES);
        assert_eq!(with_name(list.as_deref(), "m0001"), None);
    }

    #[test]
    fn a_panic_leaves_a_report_on_disk_with_its_backtrace_and_a_bounded_number_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context::new(machine(), 5, dir.path()).unwrap();
        for i in 0..KEPT + 4 {
            let data = dir.path().to_owned();
            let died = thread::Builder::new().name("storage-writer".into()).spawn(move || {
                belongs_to(&data);
                panic!("slot {i}")
            });
            died.unwrap().join().unwrap_err();
        }
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let untold = context.untold();
            let last = untold.last().map(|(_, report)| report.clone());
            if let Some(last) = last.filter(|last| last.message == "slot 19" && !last.backtrace.is_empty()) {
                assert!(untold.len() <= KEPT + 1, "{}", untold.len());
                assert_eq!((last.part.as_str(), last.run.as_str()), ("storage writer", "0000000000000005"));
                assert!(last.location.unwrap().contains("crash.rs"));
                break;
            }
            assert!(Instant::now() < until, "no report: {untold:#?}");
            thread::sleep(Duration::from_millis(20));
        }
        let (path, report) = context.untold().pop().unwrap();
        let before = context.untold().len();
        // What was told is not what is there by now.
        Context::told(&path, &Report { backtrace: String::new(), ..report.clone() });
        assert_eq!(context.untold().len(), before);
        Context::told(&path, &report);
        assert_eq!(context.untold().len(), before - 1);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn a_cut_text_ends_on_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 9), "aä");
    }
}
