//! Machines as processes, each started, killed, frozen, emptied and started again as a test likes.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::certs::{self, Who};
use ennead::client::{Client, ClientOptions};
use ennead::status::MachineStatus;
use ennead_ring::{Machine, MemberState, View};
use rustix::process::{Pid, Signal, kill_process};

/// Patience with machines that share two cores with other tests. Nobody waits for it unless something is wrong.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);

/// A ring in the making, of up to so many machines on 127.0.`net`.1 and on.
pub(crate) struct Ring {
    dir: tempfile::TempDir,
    names: Vec<Name>,
    children: Vec<Option<Child>>,
    flags: Vec<String>,
}

impl Ring {
    pub(crate) fn new(net: u8, machines: usize, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let names: Vec<Name> =
            (1..=machines).map(|i| format!("127.0.{net}.{i}").parse().expect("a name")).collect();
        let folder = dir.path().join("certs");
        certs::init(&folder).expect("an authority");
        for name in &names {
            certs::issue(&folder, &Who::Peer(*name)).expect("a certificate");
        }
        certs::issue(&folder, &Who::Client("test".to_owned())).expect("a certificate");
        let children = names.iter().map(|_| None).collect();
        Self { dir, names, children, flags: flags.iter().map(ToString::to_string).collect() }
    }

    pub(crate) fn name(&self, index: usize) -> Name {
        self.names[index]
    }

    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("data-{index}"))
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    pub(crate) fn log(&self, index: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{index}"))).unwrap_or_default()
    }

    /// Starts a machine: the first one with `--init`, others with `--join` of the first few.
    pub(crate) fn start(&mut self, index: usize) {
        let seeds: Vec<String> =
            self.names.iter().take(4).filter(|n| **n != self.names[index]).map(Name::to_string).collect();
        let birth = match index {
            0 if !self.data(0).exists() => vec!["--init".to_owned()],
            _ => vec!["--join".to_owned(), seeds.join(",")],
        };
        let path = self.dir.path().join(format!("log-{index}"));
        let log: File = OpenOptions::new().create(true).append(true).open(path).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_ennead"))
            .args(["serve", "--die-with-parent", "--listen", &self.names[index].to_string(), "--data"])
            .arg(self.data(index))
            .arg("--certs")
            .arg(self.certs())
            .args(birth)
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a process");
        self.children[index] = Some(child);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let child = self.children[index].as_ref().expect("a process");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("a signal");
    }

    pub(crate) fn kill(&mut self, index: usize) {
        let mut child = self.children[index].take().expect("a process");
        child.kill().expect("kill -9");
        child.wait().expect("its end");
    }

    pub(crate) fn freeze(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    pub(crate) fn thaw(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    /// How it ended, once it has ended by itself.
    pub(crate) async fn ended(&mut self, index: usize) -> Option<i32> {
        let child = self.children[index].as_mut().expect("a process");
        let begun = Instant::now();
        while begun.elapsed() < WITHIN {
            if let Some(status) = child.try_wait().expect("its state") {
                self.children[index] = None;
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} does not end:\n{}", self.names[index], self.log(index));
    }

    pub(crate) async fn client(&self, timeout: Duration) -> Client {
        let mut options = ClientOptions::new(self.names.iter().copied().take(5), self.certs());
        options.timeout = timeout;
        let begun = Instant::now();
        loop {
            match Client::with_options(options.clone()).await {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < WITHIN, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a view that these machines are the ring of, and no others, in which all of them vote for all they own.
    pub(crate) async fn at_rest(&self, client: &Client, machines: &[usize]) -> View {
        let names: Vec<Name> = machines.iter().map(|i| self.names[*i]).collect();
        let begun = Instant::now();
        loop {
            let (view, accounts) = (client.view().await, client.status().await);
            let mut said = format!("{view:?}");
            if let (Ok(view), Ok(accounts)) = (view, accounts) {
                let members: Vec<Name> = view.members().iter().map(|m| m.machine.name).collect();
                let up = view.members().iter().all(|m| m.state == MemberState::Up);
                let alike = members.len() == names.len() && names.iter().all(|n| members.contains(n));
                let rests = |account: &MachineStatus| {
                    account.epoch == view.epoch()
                        && account.settled == view.epoch()
                        && account.slots > 0
                        && account.slots == account.synced_slots
                };
                let told = accounts.iter().filter(|(_, a)| a.as_ref().is_ok_and(rests)).count();
                if up && alike && told == names.len() {
                    return (*view).clone();
                }
                said = format!("{view:#?}\n{accounts:#?}");
            }
            assert!(begun.elapsed() < WITHIN, "no rest with {names:?}: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn account(&self, client: &Client, index: usize) -> Option<MachineStatus> {
        let accounts = client.status().await.ok()?;
        accounts.into_iter().find(|(n, _)| *n == self.names[index])?.1.ok()
    }

    pub(crate) fn machine(&self, view: &View, index: usize) -> Machine {
        let member = view.members().iter().find(|m| m.machine.name == self.names[index]);
        member.expect("a member").machine
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for index in 0..self.names.len() {
                let log = self.log(index);
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("{}:", self.names[index]);
                tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            }
        }
    }
}
