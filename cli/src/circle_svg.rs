//! Draws the ring as a picture: SVG, the same bytes for the same view. Position 0 is at the top, as in [`crate::circle`].
//!
//! A key's slot stands where its position is; a line leads from there down the ring to the part of its owner. It is
//! longer where machines in between own another slot of the key already (PROTOCOL section 2).

use std::f64::consts::TAU;
use std::fmt::Write as _;

use ennead::arcs::{Arc, fraction};

use crate::circle::{Mark, letter};

/// Colours of machines, told apart on white.
const COLOURS: [&str; 14] = [
    "#2f6feb", "#e8710a", "#15794a", "#c4212b", "#c9a100", "#0f9b8e", "#7a4fc9", "#8a5a2b", "#4c8c0a",
    "#c2417f", "#4b6584", "#064f8c", "#9a7b9c", "#6b7280",
];
/// Outer and inner radius of the ring.
const RADII: [f64; 2] = [190.0, 156.0];
/// Where slots stand, how large they are, and how much further inside one stands whose place is taken.
const SLOTS: [f64; 3] = [128.0, 11.0, 25.0];
/// Where the first line runs that leads past other machines' parts, and how much further inside each next one.
const WAYS: [f64; 2] = [151.0, 2.0];
/// Half the side of the square that the circle is drawn in.
const HALF: f64 = 206.0;
/// Width of the legend, and height of one of its lines.
const LEGEND: (f64, f64) = (370.0, 20.0);
/// A shorter part of the circle has no room for its machine's letter.
const ROOM_FOR_A_LETTER: f64 = 0.02;

/// The circle with marks inside it and words in its middle; the lines of a legend beside it, their head first.
pub(crate) fn draw(arcs: &[Arc], marks: &[Mark], words: &[String], legend: &[String]) -> String {
    let height = (2.0 * HALF).max(LEGEND.1 * (legend.len() + 2) as f64);
    let (width, left) = (2.0 * HALF + LEGEND.0, 2.0 * HALF + 14.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#131a24\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <g transform=\"translate({HALF} {})\" text-anchor=\"middle\">\n",
        height / 2.0
    );
    for (i, arc) in arcs.iter().enumerate() {
        part(&mut svg, arc, end_of(arcs, i));
    }
    slots(&mut svg, arcs, marks);
    for (i, text) in words.iter().enumerate() {
        let y = 18.0 * (i as f64 - (words.len() as f64 - 1.0) / 2.0) + 5.0;
        let _ = writeln!(svg, "<text y=\"{y}\" fill=\"#5a6675\">{}</text>", escape(text));
    }
    svg.push_str("</g>\n<g font-family=\"monospace\">\n");
    let top = (height - LEGEND.1 * legend.len() as f64) / 2.0;
    for (i, text) in legend.iter().enumerate() {
        let y = top + LEGEND.1 * i as f64;
        if let Some(member) = i.checked_sub(1) {
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"14\" height=\"14\" rx=\"3\" fill=\"{}\"/>",
                colour(member)
            );
        }
        let (x, y) = (left + 22.0, y + 12.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" xml:space=\"preserve\">{}</text>", escape(text));
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// A machine's part of the circle, with its letter where there is room.
fn part(svg: &mut String, arc: &Arc, end: f64) {
    let (from, [outer, inner]) = (fraction(arc.from), RADII);
    // A whole circle is no path: its ends would be one point.
    let end = end.min(from + 0.9999);
    let large = u8::from(end - from > 0.5);
    let _ = writeln!(
        svg,
        "<path d=\"M{}A{outer} {outer} 0 {large} 1 {}L{}A{inner} {inner} 0 {large} 0 {}Z\" fill=\"{}\" stroke=\"#fff\"/>",
        point(outer, from),
        point(outer, end),
        point(inner, end),
        point(inner, from),
        colour(arc.member)
    );
    if end - from > ROOM_FOR_A_LETTER {
        let (x, y) = place((outer + inner) / 2.0, (from + end) / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" fill=\"#fff\">{}</text>",
            y + 4.5,
            letter(arc.member)
        );
    }
}

/// The slots of the key, and the way from each down the ring to its owner's part: the lines first, so that they cover
/// no number.
fn slots(svg: &mut String, arcs: &[Arc], marks: &[Mark]) {
    let ([_, inner], [_, size, _], [mut way, step]) = (RADII, SLOTS, WAYS);
    let mut places: Vec<(f64, f64)> = Vec::new();
    for mark in marks {
        let at = fraction(mark.at);
        let back = way_down(arcs, at, mark.member);
        let radius = free(at, &places);
        places.push(place(radius, at));
        let large = u8::from(back > 0.5);
        let _ = writeln!(
            svg,
            "<path d=\"M{}L{}A{way:.1} {way:.1} 0 {large} 0 {}L{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>",
            point(radius, at),
            point(way, at),
            point(way, at - back),
            point(inner, at - back),
            colour(mark.member)
        );
        if back > 0.0 {
            way -= step;
        }
    }
    for (mark, (x, y)) in marks.iter().zip(places) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\" fill=\"#fff\" stroke=\"{}\" stroke-width=\"2.4\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            colour(mark.member),
            y + 4.5,
            escape(&mark.sign.to_string())
        );
    }
}

/// How far from the middle a slot finds room beside those that have theirs.
fn free(at: f64, taken: &[(f64, f64)]) -> f64 {
    let [mut radius, size, further] = SLOTS;
    let is_taken = |(x, y): (f64, f64)| taken.iter().any(|(u, v)| (x - u).hypot(y - v) < 2.0 * size + 2.0);
    while radius > further && is_taken(place(radius, at)) {
        radius -= further;
    }
    radius
}

/// How far down the ring from here the next part of this member ends; 0 if here is within one.
fn way_down(arcs: &[Arc], at: f64, member: usize) -> f64 {
    let here = arcs.partition_point(|arc| fraction(arc.from) <= at) + arcs.len() - 1;
    let steps = (0..arcs.len()).find(|step| arcs[(here - step) % arcs.len()].member == member);
    match steps {
        None | Some(0) => 0.0,
        // Just inside its end, so that the line meets the part and not the border.
        Some(step) => (at - end_of(arcs, (here - step) % arcs.len()) + 0.002).rem_euclid(1.0),
    }
}

/// Where the part that begins at arc `i` ends; above 1 where it passes the top.
fn end_of(arcs: &[Arc], i: usize) -> f64 {
    match arcs.get(i + 1) {
        Some(next) => fraction(next.from),
        None => fraction(arcs[0].from) + 1.0,
    }
}

fn place(radius: f64, at: f64) -> (f64, f64) {
    let (sin, cos) = (at * TAU).sin_cos();
    (radius * sin, -radius * cos)
}

fn point(radius: f64, at: f64) -> String {
    let (x, y) = place(radius, at);
    format!("{x:.1} {y:.1}")
}

fn colour(member: usize) -> &'static str {
    COLOURS[member % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use ennead_ring::Position;

    use super::*;

    fn arc(at: f64, member: usize) -> Arc {
        Arc { from: Position::from_u128((at * 2f64.powi(128)) as u128), member }
    }

    #[test]
    fn the_way_down_leads_to_the_end_of_the_owners_part() {
        let arcs = [arc(0.125, 0), arc(0.25, 1), arc(0.5, 2)];
        let way = |at, member| (way_down(&arcs, at, member) * 1000.0).round();
        assert_eq!(way(0.375, 1), 0.0, "it stands in its owner's part");
        // Member 0 ends at 0.25; two thousandths further the line is inside.
        assert_eq!(way(0.375, 0), 127.0);
        // Past the top: member 2 goes from 0.5 round to 0.125.
        assert_eq!(way(0.0625, 2), 0.0);
        assert_eq!(way(0.1875, 2), 65.0);
    }

    #[test]
    fn slots_at_one_place_stand_behind_each_other() {
        let first = place(free(0.3, &[]), 0.3);
        assert_eq!(free(0.3, &[]) - free(0.3, &[first]), SLOTS[2]);
        assert_eq!(free(0.8, &[first]), free(0.8, &[]), "on the other side there is room");
    }

    #[test]
    fn a_lone_part_is_drawn_and_words_are_no_markup() {
        let svg = draw(&[arc(0.25, 0)], &[], &["<&".to_string()], &["head".to_string(), "one".to_string()]);
        assert!(svg.contains("&lt;&amp;") && svg.contains("<path d=\"M"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2, "the ground, and one machine's colour");
    }
}
