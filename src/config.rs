//! Every setting with unit, default and effect, and where the value in force comes from.
//!
//! One table defines each setting: its flag, its `ENNEAD_` variable, its key in the TOML file, its default
//! and its help. A flag is stronger than the environment, that than the file, that than the default.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, ArgMatches};
use ennead::http::{self, Access};
use ennead::{Name, NodeConfig, units};
use ennead_ring::node::Birth;
use ennead_ring::quorum::MAX_SLOTS;
use ennead_ring::view::MAX_WEIGHT;
use ennead_ring::{Zone, ZoneError};
use serde_json::json;
use tracing_subscriber::EnvFilter;

/// Longest value that any setting of `max-value` allows: what the wire and the disk are built for.
const MOST_VALUE: u64 = 8 << 20;

/// One setting.
struct Setting {
    /// The flag without its dashes; also the key in the file, and the variable after `ENNEAD_`.
    name: &'static str,
    /// What stands for the value in the help.
    value: &'static str,
    /// What is in force where nobody says otherwise.
    default: Option<&'static str>,
    /// What it does, with the effect of changing it.
    help: &'static str,
}

/// The settings, in the order in which they are printed.
#[rustfmt::skip]
const SETTINGS: [Setting; 22] = [
    Setting { name: "listen", value: "IP[:PORT]", default: None,
        help: "Address to listen on, UDP; port 9595 if none is given" },
    Setting { name: "advertise", value: "IP[:PORT]", default: None,
        help: "This machine's name: the address others reach it at, if it is not the one listened on" },
    Setting { name: "data", value: "DIR", default: None,
        help: "Data directory; made if absent. One process at a time" },
    Setting { name: "certs", value: "DIR", default: None,
        help: "Certificates: ca.pem and peers/NAME.pem, peers/NAME.key (see kvctl certs)" },
    Setting { name: "init", value: "true|false", default: Some("false"),
        help: "Found a new cluster on an empty data directory; never twice for one cluster" },
    Setting { name: "with", value: "IP[:PORT],...", default: None,
        help: "With --init: the blank machines to take along; it waits for each of them" },
    Setting { name: "slots", value: "N", default: Some("9"),
        help: "With --init: copies of each key, odd, fixed for the cluster's life" },
    Setting { name: "join", value: "IP[:PORT],...", default: None,
        help: "On an empty data directory, or that of a machine that has left: ask these to be taken in" },
    Setting { name: "virtual-peers", value: "N", default: Some("64"),
        help: "Positions on the ring: this machine's share of the keys, against the others'; changed, it moves data" },
    Setting { name: "zone", value: "NAME", default: None,
        help: "The zone this machine would fail with (rack, room, site): each key is spread over all zones; changed, it moves data" },
    Setting { name: "max-value", value: "SIZE", default: Some("8MiB"),
        help: "Longest value accepted from a client, at most 8MiB" },
    Setting { name: "request-memory", value: "SIZE", default: Some("256MiB"),
        help: "Memory for requests that are not answered yet; above it this machine refuses more as overloaded" },
    Setting { name: "disk-reserve", value: "SIZE", default: Some("64MiB"),
        help: "Room on the disk below which this machine takes no values, kept for what must be written; reads go on" },
    Setting { name: "patience", value: "TIME", default: Some("30s"),
        help: "How long a machine is down before the others drop it and restore its copies; longer than a restart takes" },
    Setting { name: "move-rate", value: "SIZE", default: Some("32MiB"),
        help: "Most that this machine takes in a second ahead of a move, or to compare copies; a quarter while it serves clients" },
    Setting { name: "check-every", value: "TIME", default: Some("10m"),
        help: "Pause between two comparisons of all copies; 0s: only when asked for (kvctl check)" },
    Setting { name: "http", value: "IP:PORT|off", default: None,
        help: "Health, metrics and the status page, TCP, read-only and without a certificate; default: the address listened on, port one higher" },
    Setting { name: "http-kv", value: "off|local|anyone", default: Some("off"),
        help: "Who may read and write the data over HTTP, without a certificate: nobody, callers on this computer, whoever reaches it" },
    Setting { name: "log-format", value: "text|json", default: Some("text"),
        help: "How a line of the log looks" },
    Setting { name: "log-level", value: "LEVEL", default: Some("info"),
        help: "error, warn, info, debug or trace; or per module, such as info,ennead::transport=debug" },
    Setting { name: "log-file", value: "FILE", default: None,
        help: "Append the log to this file instead of writing it to stderr" },
    Setting { name: "config", value: "FILE", default: None,
        help: "TOML file with any of these settings, the flags' names being the keys" },
];

impl Setting {
    /// `ENNEAD_VIRTUAL_PEERS` for `virtual-peers`.
    fn variable(&self) -> String {
        format!("ENNEAD_{}", self.name.to_uppercase().replace('-', "_"))
    }

    fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|s| s.name == name)
    }
}

/// The flags of `serve` and `config`.
pub(crate) fn arguments() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| {
        let default = setting.default.map(|d| format!(", default: {d}")).unwrap_or_default();
        let help = format!("{} [env: {}{default}]", setting.help, setting.variable());
        let arg =
            Arg::new(setting.name).long(setting.name).value_name(setting.value).help(StyledStr::from(help));
        match setting.name {
            "init" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        }
    })
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Origin {
    Flag,
    Environment,
    File(PathBuf),
    Default,
    Unset,
}

impl Origin {
    fn word(&self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File(_) => "file",
            Self::Default => "default",
            Self::Unset => "unset",
        }
    }

    /// Where to look in order to change the setting.
    fn place(&self, setting: &Setting) -> String {
        match self {
            Self::Flag => format!("flag --{}", setting.name),
            Self::Environment => format!("environment {}", setting.variable()),
            Self::File(file) => format!("file {}, key {}", file.display(), setting.name),
            Self::Default => format!("default of {}", setting.name),
            Self::Unset => "not set".to_string(),
        }
    }
}

/// Why there is no configuration to start from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {file}: {error}")]
    Unreadable { file: String, error: std::io::Error },
    #[error("the configuration file {file} is not TOML: {error}")]
    NotToml { file: String, error: String },
    #[error("file {file}: unknown key {key} = {value}; the keys are {known}")]
    UnknownKey { file: String, key: String, value: String, known: String },
    #[error("{place}: {value:?} cannot be used: {accepted}")]
    Value { place: String, value: String, accepted: String },
    #[error("--{0} is needed: {1} (flag --{0}, environment {2}, or the key {0} in a --config file)")]
    Missing(&'static str, &'static str, String),
    #[error(
        "{listen} is every address of this computer, and no name for others to reach it by: add --advertise IP"
    )]
    Nameless { listen: Name },
    #[error("{one} and {other} exclude each other: --init founds a cluster, --join enters one")]
    InitAndJoin { one: String, other: String },
    #[error("{place} says something only to a machine that founds a cluster: add --init, or leave it out")]
    NeedsInit { place: String },
    #[error("{place} opens the data over HTTP, and HTTP is off: leave it out, or give --http an address")]
    NoHttp { place: String },
}

/// One setting's value, as it was written, and its origin.
struct InForce {
    setting: &'static Setting,
    text: Option<String>,
    origin: Origin,
}

/// All settings as they are in force.
pub(crate) struct Settings(Vec<InForce>);

impl Settings {
    /// Settles every setting: flag, else environment, else file, else default.
    ///
    /// # Errors
    /// A file that cannot be read or that has keys which mean nothing. Values are read later.
    pub(crate) fn gather(
        flags: &ArgMatches,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let from_outside = |setting: &'static Setting| {
            if let Some(text) = flags.get_one::<String>(setting.name) {
                return Some((text.clone(), Origin::Flag));
            }
            let text = environment(&setting.variable()).filter(|text| !text.is_empty())?;
            Some((text, Origin::Environment))
        };
        let file = match Setting::find("config").and_then(from_outside) {
            Some((file, _)) => read_file(Path::new(&file))?,
            None => Vec::new(),
        };
        Ok(Self::settled(from_outside, &file))
    }

    fn settled(from_outside: impl Fn(&'static Setting) -> Option<(String, Origin)>, file: &[InFile]) -> Self {
        let settle = |setting: &'static Setting| {
            let from_file = || {
                let (_, text, file) = file.iter().find(|(key, _, _)| *key == setting.name)?;
                Some((text.clone(), Origin::File(file.clone())))
            };
            let from_default = || Some((setting.default?.to_string(), Origin::Default));
            match from_outside(setting).or_else(from_file).or_else(from_default) {
                Some((text, origin)) => InForce { setting, text: Some(text), origin },
                None => InForce { setting, text: None, origin: Origin::Unset },
            }
        };
        Self(SETTINGS.iter().map(settle).collect())
    }

    fn of(&self, name: &str) -> &InForce {
        let found = self.0.iter().find(|s| s.setting.name == name);
        found.expect("every name asked for is in SETTINGS")
    }

    /// The value, read; `None` if it is not set.
    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let InForce { setting, text, origin } = self.of(name);
        let Some(text) = text else { return Ok(None) };
        let value = read(text).map_err(|accepted| ConfigError::Value {
            place: origin.place(setting),
            value: text.clone(),
            accepted,
        })?;
        Ok(Some(value))
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, ConfigError> {
        let setting = self.of(name).setting;
        value.ok_or_else(|| ConfigError::Missing(setting.name, setting.help, setting.variable()))
    }

    /// Reads every value.
    ///
    /// # Errors
    /// A value that cannot be used: the error names where it comes from and what would do.
    pub(crate) fn values(&self) -> Result<Values, ConfigError> {
        let path = |text: &str| match text {
            "" => Err("write a path".to_string()),
            text => Ok(PathBuf::from(text)),
        };
        let within = |least: u64, most: u64| {
            move |text: &str| match text.parse::<u64>() {
                Ok(n) if (least..=most).contains(&n) => Ok(n),
                _ => Err(format!("write a number from {least} to {most}")),
            }
        };
        let odd = |text: &str| match text.parse::<u8>() {
            Ok(n) if n % 2 == 1 && n as usize <= MAX_SLOTS => Ok(n),
            _ => Err(format!("write an odd number from 1 to {MAX_SLOTS}")),
        };
        let boolean = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("write true or false".to_string()),
        };
        let value_size = |text: &str| match units::size(text) {
            Ok(bytes) if bytes <= MOST_VALUE => Ok(bytes as usize),
            Ok(_) => Err(format!("write a size up to {}", units::show_size(MOST_VALUE))),
            Err(e) => Err(e.to_string()),
        };
        let format = |text: &str| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("write text or json".to_string()),
        };
        let access = |text: &str| match text {
            "off" => Ok(Access::Off),
            "local" => Ok(Access::Local),
            "anyone" => Ok(Access::Anyone),
            _ => Err("write off, local or anyone".to_string()),
        };
        let level = |text: &str| match EnvFilter::builder().parse(text) {
            // No word at all would be taken for "error", and the log would stay empty.
            Ok(_) if text.split(',').all(|word| word.trim().is_empty()) => {
                Err("write error, warn, info, debug or trace".to_string())
            }
            Ok(_) => Ok(text.to_string()),
            Err(e) => Err(format!("write error, warn, info, debug or trace ({e})")),
        };
        Ok(Values {
            listen: self.read("listen", name)?,
            advertise: self.read("advertise", name)?,
            data: self.read("data", path)?,
            certs: self.read("certs", path)?,
            init: self.read("init", boolean)?.unwrap_or(false),
            with: self.read("with", names)?,
            slots: self.read("slots", odd)?,
            join: self.read("join", names)?,
            virtual_peers: self.read("virtual-peers", within(1, MAX_WEIGHT as u64))?,
            zone: self.read("zone", zone)?,
            max_value: self.read("max-value", value_size)?,
            request_memory: self.read("request-memory", memory)?,
            disk_reserve: self.read("disk-reserve", reserve)?,
            patience: self.read("patience", patience)?,
            move_rate: self.read("move-rate", rate)?,
            check_every: self.read("check-every", time)?,
            http: self.read("http", http_address)?,
            http_kv: self.read("http-kv", access)?.unwrap_or_default(),
            log_format: self.read("log-format", format)?,
            log_level: self.read("log-level", level)?,
            log_file: self.read("log-file", path)?,
        })
    }

    /// What a daemon starts from.
    ///
    /// # Errors
    /// As [`values`](Self::values), and settings that are missing or exclude each other.
    pub(crate) fn serve(&self) -> Result<Serve, ConfigError> {
        let values = self.values()?;
        let place = |name: &str| {
            let found = self.of(name);
            found.origin.place(found.setting)
        };
        let listen = self.needed("listen", values.listen)?;
        let advertise = values.advertise.unwrap_or(listen);
        if advertise.ip().is_unspecified() {
            return Err(ConfigError::Nameless { listen: advertise });
        }
        let slots_asked = !matches!(self.of("slots").origin, Origin::Default);
        let birth = match (values.init, values.join) {
            (true, Some(_)) => {
                return Err(ConfigError::InitAndJoin { one: place("init"), other: place("join") });
            }
            (false, _) if values.with.is_some() => {
                return Err(ConfigError::NeedsInit { place: place("with") });
            }
            (false, _) if slots_asked => return Err(ConfigError::NeedsInit { place: place("slots") }),
            (true, None) => Birth::Init {
                with: values.with.unwrap_or_default().into_iter().filter(|n| *n != advertise).collect(),
                slots: self.needed("slots", values.slots)?,
            },
            (false, Some(seeds)) => Birth::Join(seeds),
            (false, None) => Birth::None,
        };
        let http = match values.http {
            Some(address) => address,
            // 9596 beside 9595; several peers of one address keep apart.
            None => listen.address().port().checked_add(1).map(|port| SocketAddr::new(listen.ip(), port)),
        };
        let http = http.map(|listen| http::Config { listen, kv: values.http_kv });
        if values.http_kv != Access::Off && http.is_none() {
            return Err(ConfigError::NoHttp { place: place("http-kv") });
        }
        Ok(Serve {
            node: NodeConfig {
                listen: listen.address(),
                advertise,
                data: self.needed("data", values.data)?,
                certs: self.needed("certs", values.certs)?,
                birth,
                virtual_peers: self.needed("virtual-peers", values.virtual_peers)? as u32,
                zone: values.zone.unwrap_or_default(),
                max_value: self.needed("max-value", values.max_value)?,
                request_memory: self.needed("request-memory", values.request_memory)?,
                disk_reserve: self.needed("disk-reserve", values.disk_reserve)?,
                patience: self.needed("patience", values.patience)?,
                move_rate: self.needed("move-rate", values.move_rate)?,
                check_every: self.needed("check-every", values.check_every)?,
                http,
            },
            log: Log {
                format: values.log_format.unwrap_or(LogFormat::Text),
                level: values.log_level.unwrap_or_default(),
                file: values.log_file,
            },
        })
    }

    /// Everything that is in force, and whence, as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let one = |s: &InForce| {
            let whence = match &s.origin {
                Origin::File(file) => json!({"value": s.text, "from": "file", "file": file}),
                origin => json!({"value": s.text, "from": origin.word()}),
            };
            (s.setting.name.to_string(), whence)
        };
        serde_json::Value::Object(self.0.iter().map(one).collect())
    }
}

/// Everything that is in force, and whence, as a table.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for InForce { setting, text, origin } in &self.0 {
            let text = text.as_deref().unwrap_or("-");
            let whence = match origin {
                Origin::Flag | Origin::Environment => origin.place(setting),
                Origin::File(file) => format!("file {}", file.display()),
                Origin::Default | Origin::Unset => origin.word().to_string(),
            };
            writeln!(f, "{:<14} {text:<24} {whence}", setting.name)?;
        }
        Ok(())
    }
}

/// The values of all settings that are set.
pub(crate) struct Values {
    listen: Option<Name>,
    advertise: Option<Name>,
    data: Option<PathBuf>,
    certs: Option<PathBuf>,
    init: bool,
    with: Option<Vec<Name>>,
    slots: Option<u8>,
    join: Option<Vec<Name>>,
    virtual_peers: Option<u64>,
    zone: Option<Zone>,
    max_value: Option<usize>,
    request_memory: Option<usize>,
    disk_reserve: Option<u64>,
    patience: Option<Duration>,
    move_rate: Option<u64>,
    check_every: Option<Duration>,
    /// `Some(None)`: off.
    http: Option<Option<SocketAddr>>,
    http_kv: Access,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
    log_file: Option<PathBuf>,
}

/// What a daemon starts from.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) node: NodeConfig,
    pub(crate) log: Log,
}

/// Where the log goes and how it looks.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: String,
    pub(crate) file: Option<PathBuf>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Reads `IP` or `IP:PORT`. An address that only one machine understands is fine for listening.
fn name(text: &str) -> Result<Name, String> {
    Name::from_str(text.trim())
        .map_err(|_| "write IP or IP:PORT, such as 10.0.0.1 or [fd00::1]:9605".to_string())
}

/// Reads where HTTP listens; `None`: nowhere.
fn http_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text.trim() {
        "off" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "write IP:PORT, such as 127.0.0.1:9596 or [::]:9596, or off".to_string()),
    }
}

/// Reads a zone: `-` is none.
fn zone(text: &str) -> Result<Zone, String> {
    text.parse().map_err(|e: ZoneError| e.to_string())
}

/// Reads a time.
fn time(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|e| e.to_string())
}

/// Reads a patience: shorter than a second would drop a machine for a hiccup.
fn patience(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time < Duration::from_secs(1) => Err("write 1s or more, such as 30s".to_string()),
        time => Ok(time),
    }
}

/// Reads an amount of memory.
fn memory(text: &str) -> Result<usize, String> {
    match units::size(text).map_err(|e| e.to_string())? {
        bytes if bytes < 64 << 10 => Err("write 64KiB or more, such as 256MiB".to_string()),
        bytes => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
    }
}

/// Reads what is kept free on a disk.
fn reserve(text: &str) -> Result<u64, String> {
    match units::size(text).map_err(|e| e.to_string())? {
        bytes if bytes < 4 << 20 => {
            Err("write 4MiB or more, such as 64MiB: the journal's next file is so long".to_string())
        }
        bytes => Ok(bytes),
    }
}

/// Reads a number of bytes a second.
fn rate(text: &str) -> Result<u64, String> {
    match units::size(text).map_err(|e| e.to_string())? {
        0 => Err("write a size above 0, such as 32MiB".to_string()),
        bytes => Ok(bytes),
    }
}

/// Reads names between commas.
fn names(text: &str) -> Result<Vec<Name>, String> {
    text.split(',').map(name).collect()
}

/// A setting's name, and its value as text, from this file.
type InFile = (&'static str, String, PathBuf);

fn read_file(path: &Path) -> Result<Vec<InFile>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { file: path.display().to_string(), error })?;
    read_text(path, &text)
}

/// The keys of a TOML file with their values as text, as a flag would give them.
fn read_text(path: &Path, text: &str) -> Result<Vec<InFile>, ConfigError> {
    let file = path.display().to_string();
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::NotToml { file: file.clone(), error: e.to_string() })?;
    let mut found = Vec::new();
    for (key, value) in table {
        let Some(setting) = Setting::find(&key).filter(|s| s.name != "config") else {
            let known = SETTINGS.iter().map(|s| s.name).filter(|n| *n != "config");
            return Err(ConfigError::UnknownKey {
                file,
                value: value.to_string(),
                key,
                known: known.collect::<Vec<_>>().join(", "),
            });
        };
        let text = plain(&value).ok_or_else(|| ConfigError::Value {
            place: format!("file {file}, key {key}"),
            value: value.to_string(),
            accepted: "write a text, a number, true or false, or a list of texts".to_string(),
        })?;
        found.push((setting.name, text, path.to_path_buf()));
    }
    Ok(found)
}

/// A TOML value as a flag would give it.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(|i| i.as_str()).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

/// `fuzz/` includes this file, and looks for what `config_tests.rs` looks for.
#[cfg(any(test, fuzzing))]
#[path = "config_any.rs"]
pub(crate) mod any;

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
