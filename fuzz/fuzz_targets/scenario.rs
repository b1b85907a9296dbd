#![no_main]

use ennead_sim::Scenario;

// What is taken as a scenario is one.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(scenario) = std::str::from_utf8(bytes).map_err(|error| error.to_string()).and_then(Scenario::parse) {
        assert_eq!(scenario.check(), Ok(()));
    }
});
