//! What holds of every configuration file, whatever is in it: for `config_tests.rs`, and for `fuzz/`, which includes this.

use super::*;

/// A file that is nowhere.
const FILE: &str = "any.toml";

/// Reads a file with this text, and nothing else said. True if it is one.
///
/// # Panics
/// If what is taken from it is not in it, or is out of bounds, or what is refused is refused without its place: which is
/// what its callers look for.
pub(crate) fn check(text: &str) -> bool {
    let settings = match read_text(Path::new(FILE), text) {
        Ok(file) => Settings::settled(|_| None, &file),
        Err(error) => return refused(&error),
    };
    // Told to people and to programs, whatever it is.
    let told = settings.to_string();
    assert!(told.lines().count() >= SETTINGS.len(), "{told}");
    let again = settings.as_toml();
    let same = read_text(Path::new(FILE), &again).unwrap_or_else(|e| panic!("{again:?}: {e}"));
    assert_eq!(Settings::settled(|_| None, &same).to_json(), settings.to_json(), "{again:?}");
    if let Err(error) = settings.values() {
        return refused(&error);
    }
    match settings.serve() {
        Ok(serve) => within_bounds(&serve),
        Err(error) => {
            refused(&error);
        }
    }
    true
}

/// An operator has to find what to change.
fn refused(error: &ConfigError) -> bool {
    let said = error.to_string();
    let about_the_file = said.contains(FILE);
    let of_more = matches!(error, ConfigError::Missing(..) | ConfigError::Nameless { .. });
    assert!(about_the_file || of_more, "{said}");
    false
}

fn within_bounds(Serve { node, log }: &Serve) {
    assert!(node.max_value as u64 <= MOST_VALUE && node.request_memory >= 64 << 10, "{node:?}");
    assert!((1..=MAX_WEIGHT).contains(&node.virtual_peers) && node.disk_reserve >= 4 << 20, "{node:?}");
    assert!(node.patience >= Duration::from_secs(1) && node.move_rate > 0, "{node:?}");
    assert!(!node.advertise.ip().is_unspecified() && !log.level.trim().is_empty(), "{node:?}, {log:?}");
    if let Birth::Init { slots, with } = &node.birth {
        assert!(
            slots % 2 == 1 && usize::from(*slots) <= MAX_SLOTS && !with.contains(&node.advertise),
            "{node:?}"
        );
    }
}

impl Settings {
    /// What the file said, written anew.
    fn as_toml(&self) -> String {
        let said = self.0.iter().filter(|s| matches!(s.origin, Origin::File(_)));
        let line = |s: &InForce| {
            let text = toml::Value::String(s.text.clone().unwrap_or_default());
            format!("{} = {text}\n", s.setting.name)
        };
        said.map(line).collect()
    }
}
