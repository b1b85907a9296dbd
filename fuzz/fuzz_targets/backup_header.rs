#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ennead::decoders::check("backup_header", bytes);
});
