//! A run as a picture: what stood how, from the left to the right. SVG, by hand.

use std::fmt::Write as _;

use crate::SEC;
use crate::measure::{Metrics, Sample};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 70.0;
const BAND: f64 = 76.0;
const TOP: f64 = 56.0;

/// One line of the picture: what it is, its colour, and its value at each moment.
struct Band {
    name: &'static str,
    unit: &'static str,
    colour: &'static str,
    values: Vec<f64>,
    /// Drawn from its least value, not from zero.
    floats: bool,
}

/// The picture of a run, under this title.
pub fn svg(title: &str, metrics: &Metrics) -> String {
    let samples = &metrics.samples;
    let bands = bands(samples);
    let height = TOP + BAND * bands.len() as f64 + 40.0;
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" fill="#333">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="26" font-size="15">{}</text>
"##,
        escape(title)
    );
    let end = samples.last().map_or(1, |s| s.at.max(1)) as f64;
    let x = |at: u64| LEFT + (WIDTH - LEFT - RIGHT) * at as f64 / end;
    for (i, band) in bands.iter().enumerate() {
        draw(&mut out, band, samples, TOP + BAND * i as f64, &x);
    }
    let bottom = height - 40.0;
    for i in 0..=6 {
        let at = (end * f64::from(i) / 6.0) as u64;
        let _ = writeln!(
            out,
            r##"<line x1="{0:.1}" y1="{TOP}" x2="{0:.1}" y2="{bottom}" stroke="#eee"/><text x="{0:.1}" y="{1}" text-anchor="middle" fill="#777">{2}</text>"##,
            x(at),
            bottom + 18.0,
            clock(at)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn bands(samples: &[Sample]) -> Vec<Band> {
    let of = |f: &dyn Fn(&Sample) -> f64| samples.iter().map(f).collect::<Vec<f64>>();
    // What is counted from the start becomes a rate.
    let rate = |f: &dyn Fn(&Sample) -> u64, per: f64| {
        let before = [Sample::default()];
        let pairs = before.iter().chain(samples).zip(samples);
        let rate = |(a, b): (&Sample, &Sample)| {
            (f(b).saturating_sub(f(a))) as f64 * per * SEC as f64 / (b.at.saturating_sub(a.at)).max(1) as f64
        };
        pairs.map(rate).collect::<Vec<f64>>()
    };
    let band = |name, unit, colour, floats, values| Band { name, unit, colour, values, floats };
    vec![
        band("machines up", "", "#2a7f62", true, of(&|s| s.up as f64)),
        band("members", "", "#3d5a98", true, of(&|s| s.members as f64)),
        band("suspected", "", "#c77d0a", false, of(&|s| s.suspects as f64)),
        band("crashes", "/h", "#b03a3a", false, rate(&|s| s.crashes, 3_600.0)),
        band("views", "/h", "#6a4c93", false, rate(&|s| s.views, 3_600.0)),
        band("taking in", "", "#3d5a98", false, of(&|s| s.moving as f64)),
        band("operations", "/s", "#2a7f62", false, rate(&|s| s.ok, 1.0)),
        band("failed", "/s", "#b03a3a", false, rate(&|s| s.failed, 1.0)),
    ]
}

fn draw(out: &mut String, band: &Band, samples: &[Sample], top: f64, x: &dyn Fn(u64) -> f64) {
    let most = band.values.iter().copied().fold(0.0, f64::max);
    let least = if band.floats { band.values.iter().copied().fold(most, f64::min) } else { 0.0 };
    let (low, high) = (top + BAND - 14.0, top + 8.0);
    let y = |value: f64| match most > least {
        true => low - (low - high) * (value - least) / (most - least),
        false => low,
    };
    let _ = writeln!(
        out,
        r##"<text x="16" y="{:.1}">{}</text><text x="{:.1}" y="{:.1}" fill="#777">{}{u}</text><text x="{:.1}" y="{:.1}" fill="#777">{}{u}</text><line x1="{LEFT}" y1="{low}" x2="{:.1}" y2="{low}" stroke="#ccc"/>"##,
        (low + high) / 2.0 + 4.0,
        band.name,
        WIDTH - RIGHT + 6.0,
        high + 6.0,
        figure(most),
        WIDTH - RIGHT + 6.0,
        low + 4.0,
        figure(least),
        WIDTH - RIGHT,
        u = band.unit,
    );
    let mut path = String::new();
    for (sample, value) in samples.iter().zip(&band.values) {
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{:.1} {:.1}", x(sample.at), y(*value));
    }
    let _ = writeln!(out, r##"<path d="{path}" fill="none" stroke="{}" stroke-width="1.3"/>"##, band.colour);
}

fn figure(value: f64) -> String {
    if value >= 10.0 || value == value.round() { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn clock(at: u64) -> String {
    let seconds = at / SEC;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{}:{:02} h", seconds / 3_600, seconds / 60 % 60),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
