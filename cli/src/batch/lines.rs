//! Lines of a file or of stdin, numbered, read by a thread of their own no faster than they are wanted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use ennead::units::show_size;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Longest line, in bytes: a value of the longest kind in base64, its key, and some room.
const LONGEST: usize = 12 << 20;

/// A line and its number, from 1; or why there is none.
pub(super) type Line = (u64, Result<Vec<u8>, Failure>);

/// Begins to read. Blank lines are counted, and left out.
pub(super) fn read(path: &Path) -> Result<mpsc::Receiver<Line>, Failure> {
    let source: Box<dyn Read + Send> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(
            File::open(path).map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?,
        ),
    };
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut number = 0;
        loop {
            number += 1;
            let (line, last) = match next(&mut source) {
                Ok(None) => return,
                Ok(Some(Ok(line))) if line.trim_ascii().is_empty() => continue,
                Ok(Some(line)) => (line, false),
                Err(e) => (Err(Failure::Usage(format!("the file cannot be read on: {e}"))), true),
            };
            // Nobody is there to hear it once the command has ended.
            if send.blocking_send((number, line)).is_err() || last {
                return;
            }
        }
    });
    Ok(lines)
}

/// The next line, `None` at the end. Of one that is too long, no more is kept than tells so.
fn next(source: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>, Failure>>> {
    let mut line = Vec::new();
    source.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() <= LONGEST || line.ends_with(b"\n") {
        return Ok(Some(Ok(line)));
    }
    source.skip_until(b'\n')?;
    let most = show_size(LONGEST as u64);
    Ok(Some(Err(Failure::Usage(format!("the line is longer than {most}; nothing was changed")))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let long = vec![b'x'; LONGEST + 5];
        let text = [b"one\n", &long[..], b"\ntwo"].concat();
        let mut source = BufReader::new(&text[..]);
        let mut told = Vec::new();
        while let Some(line) = next(&mut source).expect("memory can be read") {
            told.push(line.map_err(|e| e.to_string()));
        }
        assert_eq!((&told[0], &told[2]), (&Ok(b"one\n".to_vec()), &Ok(b"two".to_vec())));
        assert!(told[1].as_ref().is_err_and(|why| why.contains("12MiB")), "{:?}", told[1].is_ok());
    }
}
