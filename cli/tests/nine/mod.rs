//! Real machines on loopback addresses, and kvctl against them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ennead::client::Client;
use ennead::cluster::{Base, Cluster, Options};
use serde_json::Value;

/// Patience with machines that share two cores with other tests. Nobody waits for it unless something is wrong.
const WITHIN: Duration = Duration::from_secs(60);

/// A machine more, killed with this.
pub(crate) struct Joiner(Child);

impl Drop for Joiner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nine processes, some of which are dead.
pub(crate) struct Nine {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) peers: String,
    pub(crate) certs: String,
    _dir: tempfile::TempDir,
}

impl Nine {
    /// On 127.0.131.`host` and on, with `dead` of them killed, the owners of the first slots of `key` among them.
    pub(crate) async fn less(dead: usize, host: u8, key: &str) -> Self {
        Self::of(9, &[], dead, host, key).await
    }

    /// The same of another number.
    pub(crate) async fn of(peers: usize, flags: &[&str], dead: usize, host: u8, key: &str) -> Self {
        let kvctl = Path::new(env!("CARGO_BIN_EXE_kvctl"));
        let program = kvctl.with_file_name("ennead");
        assert!(program.exists(), "no {}: cargo build --workspace makes it", program.display());
        let dir = tempfile::tempdir().expect("a temporary folder");
        let base = Base::at(Ipv4Addr::new(127, 0, 131, host), 9595);
        let flags = flags.iter().map(ToString::to_string).collect();
        let options = Options { program, dir: dir.path().join("nine"), peers: Some(peers), base, flags };
        let mut cluster = Cluster::prepare(options).expect("addresses and certificates");
        cluster.start_all().expect("processes");
        cluster.wait_until_up(Duration::from_secs(60)).await.expect("peers up");
        let client = cluster.client(Duration::from_secs(10)).await.expect("a client");
        for slot in client.locate(key).await.expect("slots").iter().take(dead) {
            let index = cluster.index_of(slot.owner).expect("a peer");
            cluster.kill(index);
        }
        let names: Vec<String> = cluster.names().iter().map(ToString::to_string).collect();
        let certs = cluster.certs().display().to_string();
        Self { cluster, client, peers: names.join(","), certs, _dir: dir }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
        command.args(arguments).env("KVCTL_PEERS", &self.peers).env("KVCTL_CERTS", &self.certs);
        command.env_remove("KVCTL_AS").env("KVCTL_TIMEOUT", "10s").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("a run")
    }

    /// What it prints, and its exit code.
    pub(crate) fn told(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, output.status.code().expect("an exit code"))
    }

    #[track_caller]
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let (text, was) = self.told(&[&["--json"], arguments].concat());
        assert_eq!(was, code, "{arguments:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    /// Starts one more, which has a certificate already, and tells its name. It ends when what is returned is dropped.
    pub(crate) fn join(&self, flags: &[&str]) -> (Joiner, String) {
        let name = self.cluster.spare()[0].to_string();
        let log = std::fs::File::create(self.path("joiner.log")).expect("a log");
        let child = Command::new(Path::new(env!("CARGO_BIN_EXE_kvctl")).with_file_name("ennead"))
            .args(["serve", "--die-with-parent", "--listen", &name, "--join", &self.name(1), "--data"])
            .arg(self.path("joiner"))
            .args(["--certs", &self.certs])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        (Joiner(child.expect("a process")), name)
    }

    /// The name of a machine, by its index.
    pub(crate) fn name(&self, index: usize) -> String {
        self.cluster.names()[index].to_string()
    }

    /// Waits until this is so, and tells what was found last if it never is.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match look(self) {
                Ok(found) => return found,
                Err(found) => assert!(begun.elapsed() < WITHIN, "not {what}: {found}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self._dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}
