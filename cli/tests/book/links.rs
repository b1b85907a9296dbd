//! Links that lead somewhere: to files that there are, and to headings in them.

use std::collections::BTreeSet;
use std::path::Path;

use super::blocks::{folder, pages};

/// A link, and where it is.
struct Link {
    line: usize,
    target: String,
}

/// The links and pictures of a text, those in its code left out.
fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut in_block = false;
    for (line, words) in (1..).zip(text.lines()) {
        in_block ^= words.trim_start().starts_with("```");
        let prose =
            if in_block { String::new() } else { words.split('`').step_by(2).collect::<Vec<_>>().join("`") };
        for rest in prose.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default().to_owned();
            links.push(Link { line, target });
        }
    }
    links
}

/// What a heading is called in a link.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut in_block = false;
    for line in text.lines() {
        in_block ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if in_block || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        anchors.insert(kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect());
    }
    anchors
}

/// A page, with what it includes.
fn read(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let parts = text.split("{{#include ").enumerate().map(|(i, part)| match part.split_once("}}") {
        Some((included, rest)) if i > 0 => {
            let file = file.parent().expect("a folder").join(included);
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())) + rest
        }
        _ => part.to_owned(),
    });
    parts.collect()
}

/// What is wrong with the links of a file.
fn broken(file: &Path, may_leave: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for Link { line, target } in links(&read(file)) {
        if target.starts_with("https://") || target.starts_with("http://") {
            continue;
        }
        let mut complain = |why: &str| wrong.push(format!("{}:{line}: {target}: {why}", file.display()));
        let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
        let there = match path {
            "" => file.to_owned(),
            path => file.parent().expect("a folder").join(path),
        };
        match there.canonicalize() {
            Err(_) => complain("there is no such file"),
            Ok(real) if !may_leave && !real.starts_with(folder().canonicalize().expect("the book")) => {
                complain("what is outside of the book's folder is not in the book");
            }
            Ok(_) if anchor.is_some_and(|a| !anchors(&read(&there)).contains(a)) => {
                complain("no such heading")
            }
            Ok(_) => {}
        }
    }
    wrong
}

#[test]
fn every_link_leads_somewhere() {
    let root = folder().join("../..");
    let book = pages().into_iter().chain(["SUMMARY.md".to_owned()]);
    let mut wrong: Vec<String> = book.flat_map(|page| broken(&folder().join(page), false)).collect();
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "FOUND.md", "PROTOCOL.md"]
    {
        wrong.extend(broken(&root.join(file), true));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_summary_lists_every_page_once() {
    let files = std::fs::read_dir(folder()).expect("docs/src");
    let files = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    let files: BTreeSet<String> = files.filter(|f| f.ends_with(".md") && f != "SUMMARY.md").collect();
    let pages = pages();
    assert_eq!(pages.iter().cloned().collect::<BTreeSet<_>>(), files);
    assert_eq!(pages.len(), files.len(), "a page is listed twice");
}

#[test]
fn headings_and_links_are_told_apart_from_code() {
    let text =
        "# A Heading: `code`, 2\n[x](y.md#z) `[n](o)`\n```\n# no heading\n[no](link)\n```\n![p](p.svg)";
    assert_eq!(anchors(text), BTreeSet::from(["a-heading-code-2".to_owned()]));
    let found: Vec<String> = links(text).into_iter().map(|link| link.target).collect();
    assert_eq!(found, ["y.md#z", "p.svg"]);
}
