//! Draws the ring as a circle of characters. Position 0 is at the top, and positions rise clockwise.

use std::f64::consts::TAU;

use ennead::arcs::{Arc, fraction};
use ennead_ring::Position;

use crate::terminal;

/// How thick the ring is drawn, as a part of its radius.
const THICKNESS: f64 = 0.22;
/// Colours of machines, of the terminal's 256: told apart on dark and on light.
const COLOURS: [u8; 14] = [33, 208, 35, 170, 178, 44, 160, 99, 70, 205, 130, 24, 109, 246];

/// Something to be marked on the circle.
pub(crate) struct Mark {
    /// Where.
    pub(crate) at: Position,
    /// With what.
    pub(crate) sign: char,
    /// In the colour of this member.
    pub(crate) member: usize,
}

/// How members are told apart where there is no colour.
pub(crate) fn letter(member: usize) -> char {
    let letters = ('A'..='Z').chain('a'..='z');
    letters.cycle().nth(member % 52).unwrap_or('?')
}

/// A member's sign in a legend.
pub(crate) fn sign(member: usize, colour: bool) -> String {
    match colour {
        true => format!("\x1b[38;5;{}m\u{2588}\u{2588}\x1b[0m", colour_of(member)),
        false => format!("{} ", letter(member)),
    }
}

fn colour_of(member: usize) -> u8 {
    COLOURS[member % COLOURS.len()]
}

/// What one character shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Empty,
    /// Two halves, each a member's or nobody's.
    Ring(Option<usize>, Option<usize>),
    /// A character in a member's colour.
    Mark(char, usize),
    /// A character of the words in the middle.
    Word(char),
}

/// The circle, so many rows high and twice as many columns wide, with marks inside it and words in its middle.
pub(crate) fn draw(arcs: &[Arc], rows: usize, marks: &[Mark], words: &[String], colour: bool) -> Vec<String> {
    let columns = 2 * rows;
    let radius = rows as f64;
    let inner = radius * (1.0 - THICKNESS);
    // Half a character high, so about as high as wide.
    let pixel = |column: usize, half: f64| {
        let (x, y) = (column as f64 + 0.5 - radius, radius - half);
        let distance = x.hypot(y);
        let at = (x.atan2(y) / TAU).rem_euclid(1.0);
        (distance < radius && distance >= inner).then(|| owner(arcs, at))
    };
    let mut cells = vec![vec![Cell::Empty; columns]; rows];
    for (row, line) in cells.iter_mut().enumerate() {
        for (column, cell) in line.iter_mut().enumerate() {
            let row = row as f64;
            let halves = match colour {
                true => (pixel(column, 2.0 * row + 0.5), pixel(column, 2.0 * row + 1.5)),
                false => (pixel(column, 2.0 * row + 1.0), None),
            };
            if halves != (None, None) {
                *cell = Cell::Ring(halves.0, halves.1);
            }
        }
    }
    place_words(&mut cells, words, inner);
    for mark in marks {
        place_mark(&mut cells, mark, inner);
    }
    cells.iter().map(|line| print(line, colour).trim_end().to_string()).collect()
}

/// Whose the point at this fraction of the circle is.
fn owner(arcs: &[Arc], at: f64) -> usize {
    let above = arcs.partition_point(|arc| fraction(arc.from) <= at);
    arcs[above.checked_sub(1).unwrap_or(arcs.len() - 1)].member
}

fn place_words(cells: &mut [Vec<Cell>], words: &[String], inner: f64) {
    let rows = cells.len();
    let top = rows.saturating_sub(words.len()) / 2;
    // Room is left for marks.
    let room = (2.0 * inner) as usize * 7 / 10;
    for (row, text) in words.iter().enumerate() {
        let Some(line) = cells.get_mut(top + row) else { return };
        let text: Vec<char> = terminal::clip(text, room).chars().collect();
        let left = (line.len() - text.len()) / 2;
        line[left..left + text.len()].iter_mut().zip(text).for_each(|(cell, c)| *cell = Cell::Word(c));
    }
}

/// Just inside the ring; where that is taken, further inside.
fn place_mark(cells: &mut [Vec<Cell>], mark: &Mark, inner: f64) {
    let centre = cells.len() as f64;
    let (sin, cos) = (fraction(mark.at) * TAU).sin_cos();
    let mut distance = inner - 1.2;
    while distance > 0.0 {
        let column = (centre + sin * distance) as usize;
        let row = ((centre - cos * distance) / 2.0) as usize;
        if let Some(cell) = cells.get_mut(row).and_then(|line| line.get_mut(column))
            && *cell == Cell::Empty
        {
            *cell = Cell::Mark(mark.sign, mark.member);
            return;
        }
        distance -= 0.5;
    }
}

fn print(line: &[Cell], colour: bool) -> String {
    let mut text = String::new();
    for cell in line {
        match (*cell, colour) {
            (Cell::Empty | Cell::Ring(None, None), _) => text.push(' '),
            (Cell::Word(c), _) => text.push(c),
            (Cell::Ring(one, other), false) => text.push(one.or(other).map_or(' ', letter)),
            (Cell::Mark(c, _), false) => text.push(c),
            (Cell::Ring(Some(one), Some(other)), true) if one == other => {
                in_colour(&mut text, one, None, '\u{2588}')
            }
            (Cell::Ring(Some(upper), lower), true) => in_colour(&mut text, upper, lower, '\u{2580}'),
            (Cell::Ring(None, Some(lower)), true) => in_colour(&mut text, lower, None, '\u{2584}'),
            (Cell::Mark(c, member), true) => {
                text.push_str("\x1b[1m");
                in_colour(&mut text, member, None, c);
            }
        }
    }
    text
}

fn in_colour(text: &mut String, front: usize, back: Option<usize>, c: char) {
    text.push_str(&format!("\x1b[38;5;{}", colour_of(front)));
    if let Some(back) = back {
        text.push_str(&format!(";48;5;{}", colour_of(back)));
    }
    text.push_str(&format!("m{c}\x1b[0m"));
}

#[cfg(test)]
mod tests {
    use ennead::arcs::arcs;
    use ennead_ring::View;

    use super::*;
    use crate::imagined::imagine_view;

    fn view(names: &[&str], weight: u32) -> View {
        let names: Vec<_> = names.iter().map(|n| n.parse().expect("a name")).collect();
        imagine_view(&names, Some(weight), None).expect("a view")
    }

    #[test]
    fn a_quarter_clockwise_is_on_the_right() {
        let at = |quarter: u128| Arc { from: Position::from_u128(quarter << 126), member: quarter as usize };
        let arcs = [at(0), at(1), at(2), at(3)];
        assert_eq!([0.1, 0.3, 0.6, 0.9].map(|f| owner(&arcs, f)), [0, 1, 2, 3]);
        // Before the first position it is the last one's: the ring wraps.
        assert_eq!(owner(&arcs[1..], 0.1), 3);
        let marks = [Mark { at: Position::from_u128(3 << 126), sign: '1', member: 3 }];
        let lines = draw(&arcs, 9, &marks, &["mid".to_string()], false);
        let expected = [
            "     DDDDAAAA",
            "  DDD        AAA",
            " DD            AA",
            "DD              AA",
            "DD 1   mid      BB",
            "CC              BB",
            " CC            BB",
            "  CCC        BBB",
            "     CCCCBBBB",
        ];
        assert_eq!(lines, expected, "{lines:#?}");
    }

    #[test]
    fn in_colour_it_is_as_wide_and_as_high() {
        let view = view(&["10.0.0.1", "10.0.0.2"], 8);
        let lines = draw(&arcs(&view), 20, &[], &[], true);
        assert_eq!(lines.len(), 20);
        assert!(lines.iter().all(|line| terminal::width(line) <= 40));
        assert!(lines.iter().any(|line| terminal::width(line) == 40));
    }
}
