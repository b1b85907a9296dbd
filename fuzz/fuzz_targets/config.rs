#![no_main]

// A part of the daemon, and of no library.
#[allow(dead_code)]
#[path = "../../src/config.rs"]
mod config;

// What is taken from a file is in it and within bounds; what is refused is refused with its place.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        config::any::check(text);
    }
});
