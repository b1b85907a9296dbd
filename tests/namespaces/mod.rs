//! Machines in networks of their own: a namespace each, with a cable to a bridge in one more, where the asking is done.
//!
//! That needs root on Linux, with `ip` and `iptables`; elsewhere a test says so and tests nothing. No packet leaves the
//! namespaces.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ennead::Name;
use ennead::certs::{self, Who};

/// Set where the asking is done: the beginning of the namespaces' names.
const INSIDE: &str = "ENNEAD_TEST_NAMESPACES";
/// What else a test in a namespace is told.
const FOLDER: &str = "ENNEAD_TEST_FOLDER";

static MADE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn ip(args: &str) -> Result<(), String> {
    let out = Command::new("ip").args(args.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// The namespaces, for as long as this lives.
pub(crate) struct Networks {
    prefix: String,
    peers: u8,
}

impl Networks {
    /// For so many machines.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(crate) fn make(peers: u8) -> Result<Self, String> {
        let iptables = Command::new("iptables").arg("--version").output();
        iptables.map_err(|e| format!("iptables: {e}"))?;
        // Several tests of one program have networks beside each other.
        let number = MADE.fetch_add(1, Relaxed);
        let networks = Self { prefix: format!("ennead-{}-{number}", std::process::id()), peers };
        let hub = networks.hub();
        ip(&format!("netns add {hub}"))?;
        for line in [
            "link set lo up",
            // Of its own, a bridge has the lowest address of its cables, and another one whenever those change.
            "link add br0 address 02:00:00:00:00:fe type bridge",
            "addr add 10.197.0.254/24 dev br0",
            "link set br0 up",
        ] {
            ip(&format!("-n {hub} {line}"))?;
        }
        for i in 1..=peers {
            let of = of(&networks.prefix, i);
            ip(&format!("netns add {of}"))?;
            ip(&format!("-n {hub} link add v{i} type veth peer name eth0 netns {of}"))?;
            ip(&format!("-n {hub} link set v{i} master br0 up"))?;
            for line in [
                "link set lo up".to_owned(),
                format!("addr add 10.197.0.{i}/24 dev eth0"),
                "link set eth0 up".to_owned(),
            ] {
                ip(&format!("-n {of} {line}"))?;
            }
        }
        Ok(networks)
    }

    /// Runs an ignored test of this program where the asking is done.
    pub(crate) fn run(&self, test: &str) {
        run(&self.prefix, &self.hub(), test, Path::new(""));
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        let all = (1..=self.peers).map(|i| of(&self.prefix, i)).chain([self.hub()]);
        for namespace in all {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

pub(crate) fn of(prefix: &str, peer: u8) -> String {
    format!("{prefix}-{peer}")
}

/// A program in a namespace; it ends with this.
pub(crate) struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Inside {
    /// The program's exit code, once it has ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().expect("a process").map(|status| status.code().unwrap_or(-1))
    }

    /// Sends the program a signal, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} {id}");
    }
}

/// Runs an ignored test of this program in a namespace, and tells it of a folder.
pub(crate) fn run(prefix: &str, namespace: &str, test: &str, folder: &Path) {
    let status = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(INSIDE, prefix)
        .env(FOLDER, folder)
        .status();
    assert!(status.expect("ip netns exec").success(), "see above");
}

/// The folder that a test in a namespace was told of.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap_or_default().into()
}

/// The beginning of the namespaces' names, in one of them.
pub(crate) fn prefix() -> Option<String> {
    std::env::var(INSIDE).ok()
}

/// Certificates for so many machines and a client.
pub(crate) fn make_certificates(certs: &Path, peers: u8) {
    certs::init(certs).expect("an authority");
    certs::issue(certs, &Who::Client("test".into())).expect("a certificate");
    for i in 1..=peers {
        certs::issue(certs, &Who::Peer(name(i))).expect("a certificate");
    }
}

pub(crate) fn name(i: u8) -> Name {
    Name::new(SocketAddr::new(Ipv4Addr::new(10, 197, 0, i).into(), 9595))
}

/// Starts a machine of a ring of so many; the first one takes the others along.
pub(crate) fn start(prefix: &str, dir: &Path, i: u8, peers: u8) -> Inside {
    let others: Vec<String> = (2..=peers).map(|i| name(i).to_string()).collect();
    let birth = match i {
        1 => vec!["--init".to_owned(), format!("--with={}", others.join(","))],
        _ => vec!["--join".to_owned(), name(1).to_string()],
    };
    start_as(prefix, dir, i, name(i), &birth)
}

/// Starts a machine in the namespace of this number, under that name and with these further flags.
pub(crate) fn start_as(prefix: &str, dir: &Path, i: u8, name: Name, flags: &[String]) -> Inside {
    let log = std::fs::File::create(dir.join(format!("{i}.log"))).expect("a log");
    let child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &of(prefix, i),
            env!("CARGO_BIN_EXE_ennead"),
            "serve",
            "--die-with-parent",
            "--test-faults",
        ])
        .args(["--listen", &name.to_string()])
        .arg("--data")
        .arg(dir.join(i.to_string()))
        .arg("--certs")
        .arg(dir.join("certs"))
        .args(flags)
        .env_remove(INSIDE)
        .env_remove(FOLDER)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Inside(child.expect("ip netns exec"))
}

pub(crate) fn iptables(prefix: &str, i: u8, args: &str) {
    let namespace = of(prefix, i);
    let words = ["netns", "exec", &namespace, "iptables", "-w"].into_iter().chain(args.split(' '));
    let out = Command::new("ip").args(words).output().expect("iptables");
    assert!(out.status.success(), "iptables {args}: {}", String::from_utf8_lossy(&out.stderr));
}
