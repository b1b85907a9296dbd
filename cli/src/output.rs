//! What is said: data on stdout byte for byte, talk on stderr, colour on a terminal only.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;
use crate::terminal::width as width_of;

/// Stdout and stderr.
#[derive(Debug)]
pub(crate) struct Output {
    /// True if programs read the answer.
    pub(crate) json: bool,
    /// True if a person reads stdout as it is written.
    pub(crate) stdout_is_terminal: bool,
    /// True if a person reads stderr as it is written.
    pub(crate) stderr_is_terminal: bool,
    colour: bool,
}

/// Colours with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    /// Well.
    Green,
    /// Doubtful.
    Yellow,
    /// Bad.
    Red,
    /// Less important.
    Dim,
}

impl Output {
    /// Answers in JSON or in text.
    pub(crate) fn new(json: bool) -> Self {
        let stdout_is_terminal = io::stdout().is_terminal();
        let colour = stdout_is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { json, stdout_is_terminal, stderr_is_terminal: io::stderr().is_terminal(), colour }
    }

    /// Data, as it is.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// A line of data.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// An answer for programs, on one line.
    pub(crate) fn print_json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Talk. If stderr is closed there is nobody to tell.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A line of progress that the next one overwrites; on a terminal only.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.stderr_is_terminal && !self.json {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        }
    }

    /// Asks a person yes or no; anything but yes is no, silence too.
    pub(crate) fn ask(&mut self, question: &str) -> bool {
        let mut stderr = io::stderr().lock();
        let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        asked.is_ok()
            && io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Asks a person for a word; `None` if none comes.
    pub(crate) fn ask_for(&mut self, question: &str) -> Option<String> {
        let mut stderr = io::stderr().lock();
        let mut answer = String::new();
        write!(stderr, "{question} ").and_then(|()| stderr.flush()).ok()?;
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_string())
    }

    /// True if there is a person to ask.
    pub(crate) fn can_ask(&self) -> bool {
        self.stderr_is_terminal && !self.json && io::stdin().is_terminal()
    }

    /// Takes the line of progress away.
    pub(crate) fn no_progress(&mut self) {
        self.progress("");
    }

    /// True if colours are wanted.
    pub(crate) fn is_colourful(&self) -> bool {
        self.colour
    }

    /// A version: the number alone is data. Where a person looks on, words lead up to it.
    pub(crate) fn version(&mut self, word: &str, version: u64) -> Result<(), Failure> {
        if self.stdout_is_terminal && self.stderr_is_terminal {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{word}, version ").and_then(|()| stderr.flush());
        }
        self.line(&version.to_string()).map_err(|failure| untold(failure, version))
    }

    /// The text in colour, on a terminal.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31;1",
            Colour::Dim => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// What cannot be told was done all the same.
pub(crate) fn untold(failure: Failure, version: u64) -> Failure {
    match failure {
        Failure::Output(error) => Failure::Untold { version, error },
        other => other,
    }
}

/// Rows of text in columns, the first row being their heads.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| width_of(c)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - width_of(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let rows = [["a", "bb"], ["\x1b[32mccc\x1b[0m", "d"]].map(|r| r.map(String::from).to_vec());
        assert_eq!(table(&rows), "a    bb\n\x1b[32mccc\x1b[0m  d\n");
    }
}
