//! A backup in the making: `FILE.partial` until it is whole and on disk, `FILE` from then on.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::error::BackupError;
use super::format::{self, Header, Item, Kind, MAGIC, Trailer};
use super::reader::Reader;

/// Bytes of items that are packed together: a block more or less is what an end before its time costs.
const BLOCK: usize = 256 << 10;

/// A file being written. Dropped before [`finish`](Self::finish), it can be gone on with.
pub(super) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    digest: Context,
    /// Items of the next block, as bytes.
    items: Vec<u8>,
    trailer: Trailer,
}

/// Where a file is written until it is whole.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

impl Writer {
    /// Begins a new file; neither it nor its partial one may be there.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, BackupError> {
        let partial = partial(path);
        must_be_absent(path, "a backup is not written over: name another file, or move it away")?;
        must_be_absent(&partial, "go on with it by --resume, or move it away")?;
        let file = OpenOptions::new().write(true).create_new(true).open(&partial);
        let file = file.map_err(BackupError::io(&partial, "making it"))?;
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            file,
            digest: Context::new(&SHA256),
            items: Vec::new(),
            trailer: Trailer::default(),
        };
        writer.write(MAGIC)?;
        writer.write(&format::part(Kind::Header, &format::write_header(header)))?;
        Ok(writer)
    }

    /// Goes on after the last whole block of the partial file; what is behind it is cut off. Tells the header, and the
    /// last key that is in it.
    pub(super) fn resume(path: &Path) -> Result<(Self, Header, Option<Vec<u8>>), BackupError> {
        let partial = partial(path);
        must_be_absent(path, "there is nothing to go on with")?;
        let mut reader = Reader::open(&partial)?;
        let mut last = None;
        // Wherever it stops being whole, the rest is taken anew.
        while let Ok(Some(mut items)) = reader.next_block() {
            last = items.pop().map(|item| item.key).or(last);
        }
        let (header, end, digest, trailer) = reader.into_whole_part();
        let failed = |doing| BackupError::io(&partial, doing);
        let mut file = OpenOptions::new().write(true).open(&partial).map_err(failed("opening it"))?;
        file.set_len(end).map_err(failed("cutting off its end"))?;
        file.seek(SeekFrom::Start(end)).map_err(failed("going to its end"))?;
        let path = path.to_owned();
        Ok((Self { path, partial, file, digest, items: Vec::new(), trailer }, header, last))
    }

    /// Takes the next key: after all those before it.
    pub(super) fn push(&mut self, item: &Item) -> Result<(), BackupError> {
        item.write(&mut self.items);
        self.trailer.bytes += item.bytes();
        match item.value {
            Some(_) => self.trailer.keys += 1,
            None => self.trailer.gone += 1,
        }
        if self.items.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        if self.items.is_empty() {
            return Ok(());
        }
        let block = format::part(Kind::Block, &format::pack(&self.items));
        self.items.clear();
        self.trailer.blocks += 1;
        self.write(&block)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(BackupError::io(&self.partial, "writing it"))
    }

    /// Ends it: it is on disk, whole, under its name.
    pub(super) fn finish(mut self, ended_ms: u64) -> Result<Trailer, BackupError> {
        self.flush()?;
        let mut digest = [0; 32];
        digest.copy_from_slice(self.digest.clone().finish().as_ref());
        let trailer = Trailer { ended_ms, digest, ..self.trailer };
        self.write(&format::part(Kind::Trailer, &format::write_trailer(&trailer)))?;
        self.file.sync_all().map_err(BackupError::io(&self.partial, "making it durable"))?;
        // It took a while: nobody else's file of that name is lost for it.
        must_be_absent(&self.path, "what was taken is whole, in the .partial file: rename it yourself")?;
        fs::rename(&self.partial, &self.path).map_err(BackupError::io(&self.partial, "renaming it"))?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(BackupError::io(folder, "making the new name durable"))?;
        Ok(trailer)
    }

    /// What is in it so far.
    pub(super) fn so_far(&self) -> &Trailer {
        &self.trailer
    }
}

fn must_be_absent(path: &Path, hint: &'static str) -> Result<(), BackupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(BackupError::Exists { path: path.to_owned(), hint }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::io(path, "looking for it")(error)),
    }
}
