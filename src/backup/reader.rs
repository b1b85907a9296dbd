//! A backup read from its beginning to its end, every checksum compared. One block is in memory at a time.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::error::BackupError;
use super::format::{self, HEAD, Header, Item, Kind, MAGIC, TRAILER, Trailer};

/// A file being read.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    /// Where the next part begins.
    at: u64,
    /// Of all before that.
    digest: Context,
    /// What has been read so far; what the file says of itself must be the same in the end.
    counted: Trailer,
    last: Option<Vec<u8>>,
    trailer: Option<Trailer>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// It cannot be read, is no backup, or is of another format.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io(path, "opening it"))?;
        let foreign = |why: String| BackupError::Foreign { path: path.to_owned(), why };
        let mut magic = [0; MAGIC.len()];
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            header: Header { cluster: 0, generation: (0, 0), begun_ms: 0, prefix: Vec::new(), base: None },
            at: 0,
            digest: Context::new(&SHA256),
            counted: Trailer::default(),
            last: None,
            trailer: None,
        };
        match reader.file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::io(path, "reading it")(e));
            }
            _ => return Err(foreign("it does not begin as one".to_owned())),
        }
        reader.passed(&magic);
        match reader.part() {
            Ok((Kind::Header, body)) => {
                reader.header = format::read_header(&body).map_err(foreign)?;
                Ok(reader)
            }
            Err(BackupError::Io { path, doing, error }) => Err(BackupError::Io { path, doing, error }),
            Ok(_) | Err(_) => Err(foreign("its header is damaged".to_owned())),
        }
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The items of the next block; `None` after the last one, when all that the trailer says was found to be so.
    ///
    /// # Errors
    /// The block is damaged, or the file ends before its trailer. Nothing can be read after that.
    pub fn next_block(&mut self) -> Result<Option<Vec<Item>>, BackupError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let begins = self.at;
        let (digest, counted) = (self.digest.clone(), self.counted);
        let (kind, body) = self.part()?;
        let damaged = |why: String| BackupError::Damaged {
            path: self.path.clone(),
            block: counted.blocks + 1,
            at: begins,
            why,
        };
        let checked = match kind {
            Kind::Block => {
                format::unpack(&body).and_then(|items| rises(self.last.as_deref(), &items).map(|()| items))
            }
            Kind::Trailer => {
                let read = format::read_trailer(&body);
                let trailer = read.and_then(|trailer| agrees(trailer, counted, digest.clone()));
                self.trailer = Some(trailer.map_err(damaged)?);
                self.ends()?;
                // Whoever goes on with the file writes over it.
                (self.at, self.digest) = (begins, digest);
                return Ok(None);
            }
            Kind::Header => Err("a second header".to_owned()),
        };
        let items = match checked {
            Ok(items) => items,
            Err(why) => {
                let error = damaged(why);
                // A whole part, and not what it should be: it does not count as read.
                (self.at, self.digest) = (begins, digest);
                return Err(error);
            }
        };
        self.counted.blocks += 1;
        for item in &items {
            self.counted.bytes += item.bytes();
            match item.value {
                Some(_) => self.counted.keys += 1,
                None => self.counted.gone += 1,
            }
        }
        self.last = items.last().map(|item| item.key.clone()).or(self.last.take());
        Ok(Some(items))
    }

    /// What the file has in all, once [`next_block`](Self::next_block) has come to its end.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// The header, and of the blocks read so far: where they end, their digest, what is in them.
    pub(super) fn into_whole_part(self) -> (Header, u64, Context, Trailer) {
        (self.header, self.at, self.digest, self.counted)
    }

    /// The next part, its checksum compared.
    fn part(&mut self) -> Result<(Kind, Vec<u8>), BackupError> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let damaged = |why: String| BackupError::Damaged {
            path: self.path.clone(),
            block: self.counted.blocks + 1,
            at: self.at,
            why,
        };
        let (kind, len, sum) = format::head(&head).map_err(damaged)?;
        // Only as much room as there are bytes: a length may lie.
        let mut body = Vec::new();
        let read = (&mut self.file).take(len as u64).read_to_end(&mut body);
        match read.map_err(BackupError::io(&self.path, "reading it"))? {
            read if read < len => return Err(self.unfinished()),
            _ => {}
        }
        if format::checksum(&head[..5], &body) != sum {
            return Err(damaged("its checksum is another".to_owned()));
        }
        self.passed(&head);
        self.passed(&body);
        Ok((kind, body))
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.file.read_exact(bytes) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.unfinished()),
            other => other.map_err(BackupError::io(&self.path, "reading it")),
        }
    }

    fn unfinished(&self) -> BackupError {
        BackupError::Unfinished { path: self.path.clone(), blocks: self.counted.blocks, at: self.at }
    }

    /// Nothing may follow the trailer.
    fn ends(&mut self) -> Result<(), BackupError> {
        let mut more = [0; 1];
        match self.file.read(&mut more).map_err(BackupError::io(&self.path, "reading it"))? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged {
                path: self.path.clone(),
                block: self.counted.blocks + 1,
                at: self.at,
                why: "there are bytes after its end".to_owned(),
            }),
        }
    }
}

/// The digest by which a whole file is known, from its end alone.
pub(super) fn digest_of(path: &Path) -> Result<[u8; 32], BackupError> {
    let failed = |doing| BackupError::io(path, doing);
    let mut file = File::open(path).map_err(failed("opening it"))?;
    let len = file.seek(SeekFrom::End(0)).map_err(failed("reading it"))?;
    let unfinished = || BackupError::Unfinished { path: path.to_owned(), blocks: 0, at: len };
    let begins = len.checked_sub((HEAD + TRAILER) as u64).ok_or_else(unfinished)?;
    file.seek(SeekFrom::Start(begins)).map_err(failed("reading it"))?;
    let mut part = [0; HEAD + TRAILER];
    file.read_exact(&mut part).map_err(failed("reading it"))?;
    let (head, body) = part.split_at(HEAD);
    let mut array = [0; HEAD];
    array.copy_from_slice(head);
    match format::head(&array) {
        Ok((Kind::Trailer, TRAILER, sum)) if format::checksum(&head[..5], body) == sum => {
            format::read_trailer(body).map(|trailer| trailer.digest).map_err(|_| unfinished())
        }
        _ => Err(unfinished()),
    }
}

/// Reads all of a file, and compares all there is to be compared.
///
/// # Errors
/// [`BackupError::Damaged`] names the first bad block, [`BackupError::Unfinished`] where a file ends too early.
pub fn verify(path: &Path) -> Result<(Header, Trailer), BackupError> {
    let mut reader = Reader::open(path)?;
    while reader.next_block()?.is_some() {}
    let trailer = reader.trailer().copied().ok_or_else(|| reader.unfinished())?;
    Ok((reader.header, trailer))
}

fn rises<'a>(mut last: Option<&'a [u8]>, items: &'a [Item]) -> Result<(), String> {
    for item in items {
        if last.is_some_and(|last| last >= item.key.as_slice()) {
            return Err("its keys are not in order".to_owned());
        }
        last = Some(&item.key);
    }
    Ok(())
}

fn agrees(trailer: Trailer, counted: Trailer, digest: Context) -> Result<Trailer, String> {
    if trailer.digest != digest.finish().as_ref() {
        return Err("the digest of all before it is another".to_owned());
    }
    let same = Trailer { ended_ms: trailer.ended_ms, digest: trailer.digest, ..counted };
    if trailer == same { Ok(trailer) } else { Err(format!("it tells of {trailer:?}, and there is {same:?}")) }
}
