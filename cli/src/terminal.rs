//! How large the terminal is, and what fits on it.

use std::io;

/// Columns and rows of the terminal that stdout is; 80 and 24 where it is none.
pub(crate) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// How wide a text looks: colours take no room.
pub(crate) fn width(text: &str) -> usize {
    parts(text).filter(|part| matches!(part, Part::Seen(_))).count()
}

/// As much of a line as fits into so many columns. Colours are kept, and end where the line does.
pub(crate) fn clip(line: &str, columns: usize) -> String {
    let (mut clipped, mut room, mut coloured) = (String::new(), columns, false);
    for part in parts(line) {
        match part {
            Part::Seen(_) if room == 0 => break,
            Part::Seen(c) => {
                clipped.push(c);
                room -= 1;
            }
            Part::Colour(code) => {
                clipped.push_str(code);
                coloured = code != "\x1b[0m";
            }
        }
    }
    if coloured {
        clipped.push_str("\x1b[0m");
    }
    clipped
}

enum Part<'a> {
    Seen(char),
    Colour(&'a str),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = match first {
            '\x1b' => rest.find('m').map_or(rest.len(), |at| at + 1),
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(if first == '\x1b' { Part::Colour(part) } else { Part::Seen(first) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clipped_line_keeps_its_colours_and_ends_them() {
        let line = "a\x1b[32mbcd\x1b[0me";
        assert_eq!(width(line), 5);
        assert_eq!(clip(line, 9), line);
        assert_eq!(clip(line, 3), "a\x1b[32mbc\x1b[0m");
        assert_eq!(clip(line, 4), "a\x1b[32mbcd\x1b[0m");
        assert_eq!(clip("\u{28ff}x", 1), "\u{28ff}");
    }
}
