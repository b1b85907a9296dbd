//! docker-compose.yml as an operator runs it, with an image made of the programs under test.
//!
//! That needs a Docker engine, compose, and for the cuts root with `nsenter` and `iptables`; elsewhere a test says so
//! and tests nothing. No packet leaves the network that compose makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::ClientOptions;
use serde_json::Value;

/// The first three numbers of the addresses.
const NET: &str = "10.95.211";

/// The project, for as long as this lives.
pub(crate) struct Compose {
    project: String,
    image: String,
    /// `docker compose`, or `docker-compose` where that is older.
    program: Vec<&'static str>,
    root: PathBuf,
    folder: tempfile::TempDir,
    /// When `up` was said; the image was there.
    pub(crate) begun: Instant,
}

impl Compose {
    /// Builds the image, and then starts nine peers.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(crate) fn up() -> Result<Self, String> {
        let engine = run(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]));
        engine.map_err(|e| format!("no Docker engine: {e}"))?;
        let newer = run(Command::new("docker").args(["compose", "version"])).is_ok();
        let program = if newer { vec!["docker", "compose"] } else { vec!["docker-compose"] };
        run(Command::new(program[0]).args(&program[1..]).arg("version"))
            .map_err(|e| format!("no compose: {e}"))?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let kvctl = Path::new(env!("CARGO_BIN_EXE_kvctl"));
        let programs = kvctl.parent().expect("a folder");
        if !programs.join("ennead").exists() {
            return Err(format!(
                "no {}: cargo build --workspace makes it",
                programs.join("ennead").display()
            ));
        }
        let mut compose = Self {
            project: format!("ennead-test-{}", std::process::id()),
            image: format!("ennead:test-{}", std::process::id()),
            program,
            root,
            folder: tempfile::tempdir().map_err(|e| e.to_string())?,
            begun: Instant::now(),
        };
        let mut image = Command::new(compose.root.join("packaging/image"));
        run(image.arg(programs).env("ENNEAD_IMAGE", &compose.image)).expect("an image");
        compose.begun = Instant::now();
        compose.compose(&["up", "--detach"]);
        // The volume is Docker's own; what is in it can be had through the container that filled it.
        let id = compose.compose(&["ps", "--all", "--quiet", "certs"]);
        let id = if id.is_empty() { compose.compose(&["ps", "--quiet", "certs"]) } else { id };
        let from = format!("{id}:/certs");
        run(Command::new("docker").args(["cp", &from]).arg(compose.folder.path())).expect("the certificates");
        Ok(compose)
    }

    /// A compose command of this project that succeeds.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        self.try_compose(arguments).unwrap_or_else(|e| panic!("compose {arguments:?}: {e}"))
    }

    fn try_compose(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program[0]);
        command.args(&self.program[1..]).args(["--project-name", &self.project]).args(arguments);
        run(command
            .current_dir(&self.root)
            .env("ENNEAD_NET", NET)
            .env("ENNEAD_PAGE", "0")
            .env("ENNEAD_IMAGE", &self.image))
    }

    /// A docker command about a peer's container.
    pub(crate) fn docker(&self, arguments: &[&str], peer: u8) -> String {
        let id = self.id(peer);
        run(Command::new("docker").args(arguments).arg(&id))
            .unwrap_or_else(|e| panic!("docker {arguments:?}: {e}"))
    }

    fn id(&self, peer: u8) -> String {
        let service = format!("ennead{peer}");
        self.compose(&["ps", "--quiet", &service])
    }

    /// The number of the process of a peer, outside its container.
    pub(crate) fn pid(&self, peer: u8) -> String {
        self.docker(&["inspect", "--format", "{{.State.Pid}}"], peer)
    }

    /// Takes a peer's container off the network, or puts it back with the address it had.
    pub(crate) fn plug(&self, peer: u8, on: bool) {
        let (network, id) = (format!("{}_ring", self.project), self.id(peer));
        let mut command = Command::new("docker");
        match on {
            true => command.args(["network", "connect", "--ip", &address(peer), &network, &id]),
            false => command.args(["network", "disconnect", &network, &id]),
        };
        run(&mut command).expect("the network");
    }

    /// A command in a peer's network, though its image has none; why not, where that cannot be.
    pub(crate) fn in_network_of(&self, peer: u8, words: &str) -> Result<String, String> {
        let pid = self.pid(peer);
        run(Command::new("nsenter").args(["--target", &pid, "--net"]).args(words.split(' ')))
    }

    /// kvctl on this computer, outside the containers.
    pub(crate) fn kvctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
        command.args(arguments).arg("--json").env("KVCTL_CERTS", self.certs()).env_remove("KVCTL_AS");
        command.env("KVCTL_PEERS", (1..=9).map(address).collect::<Vec<_>>().join(","));
        command.output().expect("kvctl")
    }

    /// kvctl in a peer's container, which asks that peer first.
    pub(crate) fn kvctl_in(&self, peer: u8, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.args(["exec", &self.id(peer), "/kvctl"]).args(arguments).arg("--json");
        command.output().expect("docker exec")
    }

    /// The beginning of the names of what compose makes.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// For a client in this process.
    pub(crate) fn options(&self) -> ClientOptions {
        let names = (1..=9).map(|peer| address(peer).parse::<Name>().expect("a name"));
        ClientOptions::new(names, self.certs())
    }

    /// What `kvctl status` says, once it says what is wanted.
    pub(crate) fn until(&self, what: &str, wait: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let said = self.kvctl(&["status"]);
            let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            if wanted(&status) {
                eprintln!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
                return status;
            }
            let text = String::from_utf8_lossy(&said.stdout);
            assert!(begun.elapsed() < wait, "{what}: not within {wait:?}: {text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.try_compose(&["logs", "--no-color", "--tail", "15"]).unwrap_or_default());
        }
        let _ = self.try_compose(&["--profile", "grow", "down", "--volumes", "--timeout", "1"]);
        let _ = run(Command::new("docker").args(["rmi", &self.image]));
    }
}

/// A peer's address.
pub(crate) fn address(peer: u8) -> String {
    format!("{NET}.{}", 10 + peer)
}

/// What a machine is said to be.
pub(crate) fn state(status: &Value, peer: u8) -> String {
    let machines = status["machines"].as_array().cloned().unwrap_or_default();
    let machine = machines.into_iter().find(|m| m["name"] == address(peer).as_str());
    machine.and_then(|m| m["state"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a command that succeeds prints, trimmed; what one that fails says.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}
