//! Whether a command printed what the book shows.
//!
//! Times differ from run to run, and so does how wide a column is: neither is compared. Whatever else may differ, the
//! book shows as `...`: within a line any text, as a line of its own any number of lines.

/// Units of `ennead::units::show_duration`.
const UNITS: [&str; 6] = ["us", "ms", "s", "min", "h", "days"];
const ANY: &str = "...";

/// True if these lines are what was shown.
pub(crate) fn is_as_shown(shown: &[String], printed: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else { return printed.is_empty() };
    if first.trim() == ANY {
        return (0..=printed.len()).any(|skip| is_as_shown(rest, &printed[skip..]));
    }
    match printed.split_first() {
        Some((line, others)) => is_line(&plain(first), &plain(line)) && is_as_shown(rest, others),
        None => false,
    }
}

/// A line whose times and spaces are like those of any other run.
fn plain(line: &str) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(stamp).collect();
    for i in 1..words.len() {
        let unit = words[i].trim_end_matches([',', '.', ';', ':', ')']).to_owned();
        let opened = words[i - 1].trim_start_matches('(');
        if UNITS.contains(&unit.as_str()) && opened.parse::<f64>().is_ok() {
            words[i - 1] = words[i - 1].replace(opened, "#");
            words[i] = words[i].replacen(&unit, "time", 1);
        }
    }
    words.join(" ")
}

/// A moment, such as 2026-11-21T20:15:00Z.
fn stamp(word: &str) -> String {
    let is_one = word.len() >= 20 && word.contains('T') && word.starts_with("20");
    if is_one && word.contains('Z') { "@".to_owned() } else { word.to_owned() }
}

/// A line in which `...` stands for any text.
fn is_line(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split(ANY);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn times_and_columns_may_differ_and_nothing_else() {
    let is = |shown: &str, printed: &str| {
        let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        is_as_shown(&lines(shown), &lines(printed))
    };
    assert!(is("up  (in 0.4 s)\ndone", "up (in 350 ms)\ndone"));
    assert!(is("a\n...\nz", "a\nb\nc\nz") && is("a\n...\nz", "a\nz"));
    assert!(is("cluster ..., epoch 1", "cluster 00ff, epoch 1"));
    assert!(is("at 2026-11-21T20:15:00Z (3 s ago)", "at 2027-01-01T00:00:00Z (10 min ago)"));
    assert!(!is("cluster ..., epoch 1", "cluster 00ff, epoch 2"));
    assert!(!is("version 1", "version 2") && !is("a", "a\nb") && !is("a\nb", "a") && !is("5 of 9", "6 of 9"));
}
