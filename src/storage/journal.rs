//! What was made durable last: a few preallocated files written in a circle, one fsync per group.
//!
//! A group is written only after the one before it is on disk. So an entry of a later group proves that all
//! earlier groups were whole once: a hole before it is damage (R2), while a hole with nothing behind it is the
//! torn end of a write that nobody was told about.
//!
//! A file is used again once all its entries are in the ordered store; the old ones in it are told apart by
//! their sequence numbers. Names and sizes then stay as they are, and an fsync has only data to write.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, Disks, sync_directory};
use super::entry::{self, ALIGN, Header, Kind};
use super::error::StorageError;

/// Where the ordered store has got to: the last entry it holds, and that entry's group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) group: u64,
}

/// An entry read back.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Recovered {
    pub(super) kind: Kind,
    pub(super) key: Vec<u8>,
    /// With the key's checksum; `None` is a record that cannot be read.
    pub(super) body: Option<(u32, Vec<u8>)>,
}

/// One file of the circle.
struct Segment {
    path: PathBuf,
    disk: Box<dyn Disk>,
    /// Bytes preallocated.
    size: u64,
    /// Where the next entry goes.
    end: u64,
    /// The highest sequence number in it.
    last: u64,
}

impl Segment {
    /// Writes what it holds from this offset on once more.
    fn write_again(&mut self, from: u64) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(self.end.saturating_sub(from)).read_to_end(&mut bytes)?;
        self.disk.write(from, &bytes)
    }
}

/// The journal, open for appending.
pub(super) struct Journal {
    salt: u64,
    circle: Arc<Circle>,
    /// Segments with entries the ordered store may lack, oldest first; the last one is written to.
    live: VecDeque<Segment>,
    /// The last entry on disk.
    at: Place,
}

/// The files that are free to be written, and how to make more. Shared with the thread that makes them ahead
/// of need: writing 4 MiB of zeros would hold up an acknowledgement.
pub(super) struct Circle {
    folder: PathBuf,
    disks: Disks,
    segment_bytes: u64,
    /// The highest number a file has.
    created: AtomicU64,
    spare: Mutex<Vec<Segment>>,
}

/// A group being put together.
#[derive(Default)]
pub(super) struct Group {
    bytes: Vec<u8>,
    last_start: usize,
    last_key_len: usize,
    count: u64,
}

impl Group {
    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Entries so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl Journal {
    /// The journal in `folder`, which is empty on a blank directory, and every entry beyond `applied`.
    ///
    /// # Errors
    /// Damage that cannot be blamed on one record; any failure to read or write.
    pub(super) fn open(
        folder: &Path,
        disks: Disks,
        salt: u64,
        segment_bytes: u64,
        applied: Place,
    ) -> Result<(Self, Vec<Recovered>), StorageError> {
        let mut scan = Scan::default();
        for path in files(folder)? {
            scan.read(salt, path, applied.sequence)?;
        }
        let (entries, at) = scan.settle(folder, applied)?;
        scan.erase_tail(at.sequence)?;
        let ends = scan.ends(at.sequence);
        let last_group = scan.begins(at.group);

        let circle = Circle {
            folder: folder.to_owned(),
            disks,
            segment_bytes,
            created: AtomicU64::new(scan.files.iter().filter_map(|path| number_of(path)).max().unwrap_or(0)),
            spare: Mutex::default(),
        };
        let (mut live, mut spare) = (Vec::new(), Vec::new());
        for (path, (end, sequence)) in scan.files.drain(..).zip(ends) {
            let segment = circle.attach(path, end, sequence)?;
            // The one with the last entry stays, whatever the ordered store holds: it shows how far we got.
            if sequence > applied.sequence || (sequence == at.sequence && sequence > 0) {
                live.push(segment);
            } else {
                spare.push(segment);
            }
        }
        live.sort_by_key(|segment| segment.last);
        if live.is_empty() && spare.is_empty() {
            spare.push(circle.create()?);
        }
        circle.spare().append(&mut spare);
        // What a killed process wrote and did not fsync was read back from the system's memory just now. It
        // will be told of, so it must be on the disk first. Only the last group can be like that. After an fsync that
        // failed the system takes what it has in memory for written, and another fsync writes nothing (R2): so it is
        // written again.
        if let Some(segment) = live.last_mut() {
            segment
                .write_again(last_group)
                .map_err(|e| StorageError::io(&segment.path, "writing the journal", e))?;
            segment.disk.sync().map_err(|e| StorageError::io(&segment.path, "fsync of the journal", e))?;
        }
        sync_directory(folder).map_err(|e| StorageError::io(folder, "fsync", e))?;
        let journal = Self { salt, circle: Arc::new(circle), live: live.into(), at };
        Ok((journal, entries))
    }

    /// The last entry on disk.
    pub(super) fn at(&self) -> Place {
        self.at
    }

    /// Files, used or not.
    pub(super) fn segments(&self) -> usize {
        self.live.len() + self.circle.spare().len()
    }

    /// The files to come.
    pub(super) fn circle(&self) -> Arc<Circle> {
        self.circle.clone()
    }

    /// Adds an entry to the group that [`append`](Self::append) will write next.
    pub(super) fn add(&self, group: &mut Group, kind: Kind, key: &[u8], body: &[u8], checksum: u32) {
        group.count += 1;
        let header = Header {
            sequence: self.at.sequence + group.count,
            group: self.at.group + 1,
            kind,
            last: false,
            key_len: key.len(),
            body_len: body.len(),
            checksum,
        };
        group.last_start = group.bytes.len();
        group.last_key_len = key.len();
        entry::write(self.salt, &header, key, body, &mut group.bytes);
    }

    /// Writes the group and returns once it is on disk; empties it.
    ///
    /// # Errors
    /// A full disk: all is as before, and the same group may be tried again. Any other: the journal must not be used
    /// again then.
    pub(super) fn append(&mut self, group: &mut Group) -> Result<(), StorageError> {
        assert!(group.count > 0, "an empty group");
        entry::mark_last(self.salt, group.last_start, group.last_key_len, &mut group.bytes);
        let bytes = group.bytes.len() as u64;
        if self.live.back().is_none_or(|segment| segment.end > 0 && segment.end + bytes > segment.size) {
            let spare = self.circle.spare().pop();
            let next = match spare {
                Some(spare) => spare,
                None => self.circle.create()?,
            };
            self.live.push_back(Segment { end: 0, ..next });
        }
        let Some(segment) = self.live.back_mut() else { unreachable!("a segment was just pushed") };
        // A group larger than a whole segment makes its file longer: rare, and then fsync writes metadata too.
        // What a full disk took of it lies behind the end, as a torn write does, and is written over.
        segment
            .disk
            .write(segment.end, &group.bytes)
            .map_err(|e| StorageError::io(&segment.path, "writing the journal", e))?;
        segment.disk.sync().map_err(|e| StorageError::fsync(&segment.path, e))?;
        self.at.sequence += group.count;
        self.at.group += 1;
        segment.end += bytes;
        segment.size = segment.size.max(segment.end);
        segment.last = self.at.sequence;
        group.bytes.clear();
        // One huge value must not be remembered as a huge buffer.
        group.bytes.shrink_to(1 << 20);
        group.count = 0;
        Ok(())
    }

    /// Lets go of files whose entries the ordered store holds durably, to be written again.
    pub(super) fn release(&mut self, applied: u64) {
        // Never the last: it shows how far the journal got.
        while self.live.len() > 1 && self.live[0].last <= applied {
            self.circle.spare().extend(self.live.pop_front());
        }
    }
}

impl Circle {
    /// True if the next full file has no successor yet.
    pub(super) fn is_short(&self) -> bool {
        self.spare().is_empty()
    }

    /// Makes one more file, for when the present one is full.
    ///
    /// # Errors
    /// Any failure of the disk: a full one, most likely.
    pub(super) fn extend(&self) -> Result<(), StorageError> {
        let segment = self.create()?;
        self.spare().push(segment);
        Ok(())
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Segment>> {
        // A list of files is never half changed.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self) -> Result<Segment, StorageError> {
        let number = self.created.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.folder.join(format!("{number:06}"));
        let make = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            // Written, not only reserved: else the first fsync of each block would have metadata to write.
            let zeros = vec![0; 1 << 16];
            let mut left = self.segment_bytes;
            while left > 0 {
                let step = left.min(zeros.len() as u64);
                file.write_all(&zeros[..step as usize])?;
                left -= step;
            }
            file.sync_all()?;
            sync_directory(&self.folder)
        };
        make().map_err(|e| {
            // Half a file would keep the room that others wait for.
            let _ = fs::remove_file(&path);
            StorageError::io(&path, "creating a journal file", e)
        })?;
        self.attach(path, 0, 0)
    }

    fn attach(&self, path: PathBuf, end: u64, last: u64) -> Result<Segment, StorageError> {
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = open().map_err(|e| StorageError::io(&path, "opening a journal file", e))?;
        let disk = (self.disks)(file, &path);
        Ok(Segment { path, disk, size, end, last })
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            if number_of(&path).is_some() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    match list() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(StorageError::damaged(folder, "the journal is missing"))
        }
        other => other.map_err(|e| StorageError::io(folder, "listing the journal", e)),
    }
}

/// An entry found in a file.
struct Held {
    file: usize,
    offset: u64,
    header: Header,
    /// Only of entries beyond the ordered store.
    content: Option<Recovered>,
}

impl Held {
    fn end(&self) -> u64 {
        self.offset + self.header.entry_len() as u64
    }
}

/// All that the files hold, damaged or not.
#[derive(Default)]
struct Scan {
    files: Vec<PathBuf>,
    held: Vec<Held>,
}

impl Scan {
    fn read(&mut self, salt: u64, path: PathBuf, applied: u64) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|e| StorageError::io(&path, "reading the journal", e))?;
        let file = self.files.len();
        self.files.push(path);
        let mut at = 0;
        while at + entry::HEADER <= bytes.len() {
            let Some(header) = entry::read_header(salt, &bytes[at..]) else {
                at += ALIGN;
                continue;
            };
            let content = (header.sequence > applied).then(|| {
                let (key, body) = entry::read_parts(&header, &bytes[at..]);
                let body = body.map(|body| (header.checksum, body.to_vec()));
                Recovered { kind: header.kind, key: key.to_vec(), body }
            });
            // Only an entry that is new and whole is jumped over. In an old one or a torn one, parts of a torn
            // group may show through: they must be found, to be erased.
            let whole = content.as_ref().is_some_and(|c| c.body.is_some());
            self.held.push(Held { file, offset: at as u64, header, content });
            at += if whole { header.entry_len() } else { ALIGN };
        }
        Ok(())
    }

    /// The entries that count, and where they end; decides what is a torn end and what is damage.
    fn settle(&mut self, folder: &Path, applied: Place) -> Result<(Vec<Recovered>, Place), StorageError> {
        self.held.sort_by_key(|held| held.header.sequence);
        if self.held.last().map_or(0, |held| held.header.sequence) < applied.sequence {
            let what = format!("the journal ends before entry {}, which was acknowledged", applied.sequence);
            return Err(StorageError::damaged(folder, what));
        }
        let newest_group = self.held.iter().map(|held| held.header.group).max().unwrap_or(0);
        let mut entries = Vec::new();
        let mut at = applied;
        // Whether the entry at `at` is the last of its group: the ordered store always stops at such a one.
        let mut group_over = true;
        for held in &mut self.held {
            let Some(content) = held.content.take() else { continue };
            let expected = Place { sequence: at.sequence + 1, group: at.group + u64::from(group_over) };
            let found = Place { sequence: held.header.sequence, group: held.header.group };
            // Was the group that this entry belongs to on disk as a whole?
            let was_whole = newest_group > expected.group;
            if found != expected {
                if was_whole {
                    let what = format!(
                        "entry {} is missing, and entries of later groups are there",
                        expected.sequence
                    );
                    return Err(StorageError::damaged(&self.files[held.file], what));
                }
                break;
            }
            if content.body.is_none() {
                if !was_whole {
                    break;
                }
                if content.kind != Kind::Record {
                    let what = format!("entry {} ({:?}) cannot be read", found.sequence, content.kind);
                    return Err(StorageError::damaged(&self.files[held.file], what));
                }
            }
            entries.push(content);
            at = found;
            group_over = held.header.last;
        }
        if !group_over {
            // The whole group goes: it was never acknowledged, and half of it would be neither old nor new.
            let torn = at.group;
            let kept = self.held.iter().filter(|h| h.header.sequence > applied.sequence);
            let kept = kept.filter(|h| h.header.group < torn).count();
            entries.truncate(kept);
            at = Place { sequence: applied.sequence + kept as u64, group: torn - 1 };
        }
        Ok((entries, at))
    }

    /// For each file, where its last entry up to `last` ends, and that entry's number.
    fn ends(&self, last: u64) -> Vec<(u64, u64)> {
        let mut ends = vec![(0, 0); self.files.len()];
        for held in self.held.iter().filter(|held| held.header.sequence <= last) {
            if held.header.sequence > ends[held.file].1 {
                ends[held.file] = (held.end(), held.header.sequence);
            }
        }
        ends
    }

    /// Where a group begins in its file.
    fn begins(&self, group: u64) -> u64 {
        let of_it = self.held.iter().filter(|held| held.header.group == group);
        of_it.map(|held| held.offset).min().unwrap_or(0)
    }

    /// Wipes what lies beyond the last entry that counts, before anything new is written: else a later
    /// recovery could take the rest of a torn group for entries of a group after it.
    fn erase_tail(&self, last: u64) -> Result<(), StorageError> {
        let mut beyond: Vec<&Held> = self.held.iter().filter(|held| held.header.sequence > last).collect();
        beyond.sort_by_key(|held| (held.file, held.offset));
        beyond.dedup_by_key(|held| held.file);
        for held in beyond {
            let path = &self.files[held.file];
            let erase = || -> io::Result<()> {
                let mut file = OpenOptions::new().write(true).open(path)?;
                let size = file.metadata()?.len();
                file.seek(SeekFrom::Start(held.offset))?;
                io::copy(&mut io::repeat(0).take(size.saturating_sub(held.offset)), &mut file)?;
                file.sync_all()
            };
            erase().map_err(|e| StorageError::io(path, "erasing a torn end of the journal", e))?;
        }
        Ok(())
    }
}
