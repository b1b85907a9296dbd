//! ARCHITECTURE.md tells the truth about which files there are.

#![allow(missing_docs, reason = "tests")]

use std::path::Path;

#[test]
fn every_path_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named = text.split('`').skip(1).step_by(2).filter(|quoted| {
        let start =
            ["src/", "ring/", "sim/", "cli/", "tests/", "benches/"].iter().any(|dir| quoted.starts_with(dir));
        start && !quoted.contains(char::is_whitespace)
    });
    let missing: Vec<&str> = named.clone().filter(|path| !root.join(path).exists()).collect();
    assert!(named.count() > 30, "the map has gone");
    assert!(missing.is_empty(), "ARCHITECTURE.md names files that are not there: {missing:?}");
}

#[test]
fn every_source_file_of_the_protocol_is_on_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let files = std::fs::read_dir(root.join("ring/src")).expect("ring/src");
    let unnamed: Vec<String> = files
        .map(|entry| entry.expect("a file"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| format!("ring/src/{}", entry.file_name().to_string_lossy()))
        .filter(|path| path != "ring/src/lib.rs" && !text.contains(&format!("`{path}`")))
        .collect();
    assert!(unnamed.is_empty(), "ARCHITECTURE.md does not name {unnamed:?}");
}
