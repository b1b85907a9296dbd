//! What settings are in force, whence, and what is said when one cannot be.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use clap::Command;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn gather(flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let matches = Command::new("serve")
        .no_binary_name(true)
        .args(arguments())
        .try_get_matches_from(flags)
        .expect("flags that exist");
    let environment: Vec<(String, String)> =
        environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Settings::gather(&matches, |name| environment.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
}

fn serve(flags: &[&str]) -> Result<Serve, ConfigError> {
    gather(flags, &[]).and_then(|s| s.serve())
}

const NEEDED: [&str; 6] = ["--listen", "127.0.0.1", "--data", "d", "--certs", "c"];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    NEEDED.iter().copied().chain(more.iter().copied()).collect()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("ennead.toml");
    std::fs::write(&path, text).expect("a file in it");
    let path = path.display().to_string();
    (dir, path)
}

fn message(result: Result<Serve, ConfigError>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let (_dir, path) = file("listen = '10.0.0.1'\nslots = 3\nvirtual-peers = 16\nmax-value = '1MiB'\n");
    let environment =
        [("ENNEAD_CONFIG", path.as_str()), ("ENNEAD_SLOTS", "5"), ("ENNEAD_LISTEN", "10.0.0.2")];
    let settings = gather(&["--listen", "10.0.0.3"], &environment).expect("settings");
    let in_force = |name: &str| {
        let found = settings.of(name);
        (found.text.clone().unwrap_or_default(), found.origin.word())
    };
    assert_eq!(in_force("listen"), ("10.0.0.3".to_string(), "flag"));
    assert_eq!(in_force("slots"), ("5".to_string(), "environment"));
    assert_eq!(in_force("virtual-peers"), ("16".to_string(), "file"));
    assert_eq!(in_force("log-format"), ("text".to_string(), "default"));
    assert_eq!(in_force("join"), (String::new(), "unset"));
    let json = settings.to_json();
    assert_eq!(json["virtual-peers"]["from"], "file");
    assert_eq!(json["virtual-peers"]["file"], path);
    assert_eq!(json["max-value"]["value"], "1MiB");
    let text = settings.to_string();
    assert!(text.contains("environment ENNEAD_SLOTS"), "{text}");
    assert!(text.contains("flag --listen"), "{text}");
}

#[test]
fn an_empty_variable_is_not_set() {
    let settings = gather(&[], &[("ENNEAD_SLOTS", "")]).expect("settings");
    assert_eq!(settings.of("slots").origin, Origin::Default);
}

#[test]
fn lists_in_a_file_are_lists() {
    let (_dir, path) = file("join = ['127.0.0.1', '127.0.0.2:9605']");
    let flags = [&NEEDED[..], &["--config", &path]].concat();
    let birth = serve(&flags).expect("settings").node.birth;
    let names = ["127.0.0.1", "127.0.0.2:9605"].map(|n| n.parse().expect("a name"));
    assert_eq!(birth, Birth::Join(names.to_vec()));
}

#[test]
fn an_unknown_key_names_file_key_value_and_the_known_ones() {
    let (_dir, path) = file("colour = 'red'");
    let said = message(serve(&["--config", &path]));
    assert!(
        said.contains(&path) && said.contains("colour = \"red\"") && said.contains("virtual-peers"),
        "{said}"
    );
}

#[test]
fn a_value_that_cannot_be_read_names_its_place_and_what_is_accepted() {
    let (_dir, path) = file("slots = 8");
    let said = message(serve(&["--config", &path]));
    assert!(said.contains(&path) && said.contains("key slots") && said.contains("odd number"), "{said}");
    let said = message(serve(&["--max-value", "8 elephants"]));
    assert!(said.contains("flag --max-value") && said.contains("64KiB"), "{said}");
    let said = message(gather(&[], &[("ENNEAD_LISTEN", "here")]).and_then(|s| s.serve()));
    assert!(said.contains("environment ENNEAD_LISTEN") && said.contains("IP:PORT"), "{said}");
    for wrong in
        [["--virtual-peers", "0"], ["--log-format", "xml"], ["--log-level", "=="], ["--max-value", "9MiB"]]
    {
        assert!(serve(&with(&wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_named() {
    let (_dir, path) = file("listen = ");
    assert!(message(serve(&["--config", &path])).contains("is not TOML"));
    let said = message(serve(&["--config", "/nowhere/ennead.toml"]));
    assert!(said.contains("cannot read") && said.contains("/nowhere/ennead.toml"), "{said}");
}

#[test]
fn birth_is_said_once() {
    assert_eq!(serve(&NEEDED).expect("settings").node.birth, Birth::None);
    let birth = serve(&with(&["--init", "--with", "127.0.0.1,127.0.0.2", "--slots", "3"]))
        .expect("settings")
        .node
        .birth;
    let others = vec!["127.0.0.2".parse().expect("a name")];
    assert_eq!(birth, Birth::Init { with: others, slots: 3 }, "itself is not among those to take along");
    assert!(message(serve(&with(&["--init", "--join", "127.0.0.2"]))).contains("exclude each other"));
    assert!(message(serve(&with(&["--with", "127.0.0.2"]))).contains("add --init"));
    assert!(message(serve(&with(&["--join", "127.0.0.2", "--slots", "3"]))).contains("add --init"));
}

#[test]
fn every_address_is_no_name() {
    let flags = ["--listen", "0.0.0.0", "--data", "d", "--certs", "c"];
    assert!(message(serve(&flags)).contains("--advertise"));
    let named = [&flags[..], &["--advertise", "10.0.0.1"]].concat();
    let node = serve(&named).expect("settings").node;
    assert_eq!(
        (node.listen.to_string(), node.advertise.to_string()),
        ("0.0.0.0:9595".into(), "10.0.0.1".into())
    );
}

#[test]
fn what_is_missing_says_every_way_to_give_it() {
    let said = message(serve(&["--listen", "127.0.0.1"]));
    assert!(said.contains("--data") && said.contains("ENNEAD_DATA"), "{said}");
}

#[test]
fn http_is_beside_the_address_listened_on_and_opens_no_data_unless_told() {
    let http = |more: &[&'static str]| serve(&with(more)).map(|serve| serve.node.http);
    let at = |text: &str| text.parse().expect("an address");
    let config = |listen: &str, kv| Some(http::Config { listen: at(listen), kv });
    assert_eq!(http(&[]).expect("settings"), config("127.0.0.1:9596", Access::Off));
    assert_eq!(http(&["--http", "off"]).expect("settings"), None);
    let flags = ["--listen", "[fd00::1]:9605", "--data", "d", "--certs", "c"];
    assert_eq!(serve(&flags).expect("settings").node.http, config("[fd00::1]:9606", Access::Off));
    let open = http(&["--http", "127.0.0.1:80", "--http-kv", "local"]).expect("settings");
    assert_eq!(open, config("127.0.0.1:80", Access::Local));
    for (flags, said) in [
        (&["--http", "9596"][..], "write IP:PORT"),
        (&["--http-kv", "yes"], "write off, local or anyone"),
        (&["--http", "off", "--http-kv", "local"], "HTTP is off"),
    ] {
        let error = message(serve(&with(flags)));
        assert!(error.contains(said), "{error}");
    }
}

/// Lines of a file as nobody means them, and bytes of it turned: each is taken, or refused with a reason.
#[test]
fn no_text_makes_a_config_file_panic() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const VALUES: &str = "0 -1 9 0.5 nan 1e308 18446744073709551616 true [] {} [1] [\"10.0.0.1\"] \"127.0.0.1\" \
                          \"127.0.0.1:99999\" \"9999999999999GiB\" \"-1s\" \"\" \"off\" 2026-11-24 \"::1\"";
    let values: Vec<&str> = VALUES.split(' ').collect();
    let (_dir, path) = file("");
    let mut rng = StdRng::seed_from_u64(7);
    let mut taken = 0;
    for _ in 0..4_000 {
        let mut text = String::new();
        for _ in 0..rng.random_range(0..4) {
            let key = SETTINGS[rng.random_range(0..SETTINGS.len())].name;
            text += &format!("{key} = {}\n", values[rng.random_range(0..values.len())]);
        }
        let mut bytes = text.into_bytes();
        if !bytes.is_empty() && rng.random_bool(0.3) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        std::fs::write(&path, &bytes).expect("a file");
        let flags: Vec<&str> = NEEDED.into_iter().chain(["--config", &path]).collect();
        match serve(&flags) {
            Ok(_) => taken += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(taken > 100, "{taken} were taken");
}

#[test]
fn a_log_level_without_a_word_is_refused() {
    for level in ["log-level = ''", "log-level = ' , '"] {
        let (_dir, path) = file(level);
        let error = message(serve(&[&NEEDED[..], &["--config", &path]].concat()));
        assert!(error.contains("key log-level") && error.contains("write error, warn, info"), "{error}");
    }
}

/// What files may have in them where a value is, and where nothing good is.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    ",",
    "=",
    " = ",
    "\n",
    "\r\n",
    "#",
    "\\u0000",
    "\\",
    ".",
    "-",
    "_",
    "+",
    "true",
    "false",
    "nan",
    "inf",
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "18446744073709551616",
    "1e999",
    "0x7f",
    "1_000",
    "1979-05-27T07:32:00Z",
    "16777216TiB",
    "18446744073709551615B",
    "99999999999999999999s",
    "1.5s",
    "0.0.0.0",
    "[::]:0",
    ":65535",
    "10.0.0.1:65536",
    "info[{field=(a{99}){99}}]",
    "trace,ennead=",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "\u{10ffff}",
];

/// What becomes of a text.
fn spoil(rng: &mut StdRng, seeds: &[String]) -> String {
    let mut text: Vec<char> = seeds[rng.random_range(0..seeds.len())].chars().collect();
    for _ in 0..rng.random_range(0..5u32) {
        let at = rng.random_range(0..=text.len());
        match rng.random_range(0..6u32) {
            0 => text.truncate(at),
            1 => {
                let to = rng.random_range(at..=(at + 9).min(text.len()));
                text.drain(at..to).for_each(drop);
            }
            2 => {
                let other: Vec<char> = seeds[rng.random_range(0..seeds.len())].chars().collect();
                text.splice(at.., other[rng.random_range(0..=other.len())..].iter().copied()).for_each(drop);
            }
            3 => {
                let line = SETTINGS[rng.random_range(0..SETTINGS.len())].name;
                let line = format!("\n{line} = {}\n", PIECES[rng.random_range(0..PIECES.len())]);
                text.splice(at..at, line.chars()).for_each(drop);
            }
            _ => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                text.splice(at..at, piece.chars()).for_each(drop);
            }
        }
    }
    text.into_iter().collect()
}

/// `FUZZ_SECONDS=600 cargo test --bin ennead whatever_a_file` goes on for longer.
#[test]
fn whatever_a_file_has_in_it_is_read_or_refused_with_its_place() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    let seeds: BTreeMap<PathBuf, String> = std::fs::read_dir(corpus)
        .expect("the corpus")
        .map(|file| file.expect("a file").path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("a text")))
        .collect();
    assert!(seeds.len() > 3);
    for (path, text) in &seeds {
        assert!(any::check(text), "{} is refused", path.display());
    }
    let seeds: Vec<String> = seeds.into_values().collect();
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let (mut rng, began, mut taken) = (StdRng::seed_from_u64(1), std::time::Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let text = spoil(&mut rng, &seeds);
        let begun = std::time::Instant::now();
        let Ok(is_one) = catch_unwind(|| any::check(&text)) else { panic!("it panicked at {text:?}") };
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?} for {text:?}", begun.elapsed());
        taken += u64::from(is_one);
    }
    assert!(taken > 100, "{taken} were files: the others show little");
}
