//! Machines as processes, each started, killed, frozen, emptied, given a wrong clock and started again as a test likes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::certs::{self, Who};
use ennead::client::{Client, ClientOptions};
use ennead::status::{MachineStatus, PeerState, PeerStatus};
use ennead_ring::{Machine, MemberState, View};
use rustix::process::{Pid, Signal, kill_process};

/// Patience with machines that share two cores with other tests. Nobody waits for it unless something is wrong.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);

/// A ring in the making.
pub(crate) struct Ring {
    dir: tempfile::TempDir,
    names: Vec<Name>,
    children: Vec<Option<Child>>,
    flags: Vec<String>,
    /// Of each machine, besides.
    own: Vec<Vec<String>>,
    /// What starts each machine's program, where it does not run beside this one: `ip netns exec NAME`.
    within: Vec<Vec<String>>,
    /// A machine has had `--init`. Nobody may have it again, whatever became of its data.
    born: bool,
    kept: Option<PathBuf>,
}

impl Ring {
    /// Of up to so many machines, on 127.0.`net`.1 and on.
    pub(crate) fn new(net: u8, machines: usize, flags: &[&str]) -> Self {
        let name = |i| format!("127.0.{net}.{i}").parse().expect("a name");
        Self::of((1..=machines).map(|i| (name(i), Vec::new())).collect(), flags)
    }

    /// Of machines with these names, each started within something.
    pub(crate) fn of(machines: Vec<(Name, Vec<String>)>, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (names, within): (Vec<Name>, Vec<_>) = machines.into_iter().unzip();
        let folder = dir.path().join("certs");
        certs::init(&folder).expect("an authority");
        for (index, name) in names.iter().enumerate() {
            certs::issue(&folder, &Who::Peer(*name)).expect("a certificate");
            fs::create_dir(dir.path().join(format!("disk-{index}"))).expect("a folder");
        }
        certs::issue(&folder, &Who::Client("test".to_owned())).expect("a certificate");
        let children = names.iter().map(|_| None).collect();
        let own = names.iter().map(|_| Vec::new()).collect();
        let flags = flags.iter().map(ToString::to_string).collect();
        Self { dir, names, children, flags, own, within, born: false, kept: None }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn machines(&self) -> usize {
        self.names.len()
    }

    /// Where everything goes, should the test fail.
    pub(crate) fn keep_if_it_fails(&mut self, at: &Path) {
        self.kept = Some(at.to_owned());
    }

    pub(crate) fn name(&self, index: usize) -> Name {
        self.names[index]
    }

    /// Its disk: a folder, or what was mounted there.
    pub(crate) fn disk(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{index}"))
    }

    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.disk(index).join("data")
    }

    /// Where the seconds stand by which its clock is wrong.
    pub(crate) fn clock(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("clock-{index}"))
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    pub(crate) fn log(&self, index: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{index}"))).unwrap_or_default()
    }

    /// With what a machine is started from now on, besides the flags of all.
    pub(crate) fn own_flags(&mut self, index: usize, flags: &[&str]) {
        self.own[index] = flags.iter().map(ToString::to_string).collect();
    }

    /// Starts a machine: the first one of all with `--init`, others with `--join` of the first few.
    pub(crate) fn start(&mut self, index: usize) {
        let seeds = self.names.iter().filter(|n| **n != self.names[index]).map(Name::to_string);
        let birth = match self.born {
            false => vec!["--init".to_owned()],
            true => vec!["--join".to_owned(), seeds.collect::<Vec<_>>().join(",")],
        };
        self.born = true;
        let path = self.dir.path().join(format!("log-{index}"));
        let log: File = OpenOptions::new().create(true).append(true).open(path).expect("a log");
        let program = env!("CARGO_BIN_EXE_ennead").to_owned();
        let words: Vec<String> = self.within[index].iter().cloned().chain([program]).collect();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--die-with-parent", "--listen", &self.names[index].to_string(), "--data"])
            .arg(self.data(index))
            .arg("--certs")
            .arg(self.certs())
            .arg("--test-faults")
            .arg("--test-clock")
            .arg(self.clock(index))
            .args(birth)
            .args(&self.flags)
            .args(&self.own[index])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a process");
        self.children[index] = Some(child);
    }

    pub(crate) fn is_running(&mut self, index: usize) -> bool {
        self.children[index].as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self, index: usize) -> Option<ExitStatus> {
        let status = self.children[index].as_mut()?.try_wait().expect("its state")?;
        self.children[index] = None;
        Some(status)
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

    /// From now on each fsync of it first waits so long.
    pub(crate) fn slow_disk(&self, index: usize, by: Duration) {
        // None that is emptied has the file, or a folder for it.
        let _ = fs::write(self.data(index).join("slow-disk"), by.as_millis().to_string());
    }

    /// Leaves no room on its disk, which is to be one of its own.
    pub(crate) fn fill_disk(&self, index: usize) {
        let mut file = File::create(self.disk(index).join("ballast")).expect("a file");
        for size in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub(crate) fn free_disk(&self, index: usize) {
        let _ = fs::remove_file(self.disk(index).join("ballast"));
    }

    /// How it ended, once it has ended by itself.
    pub(crate) async fn ended(&mut self, index: usize) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < WITHIN {
            if let Some(status) = self.has_ended(index) {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} does not end:\n{}", self.names[index], self.log(index));
    }

    pub(crate) async fn client(&self, timeout: Duration) -> Client {
        let mut options = ClientOptions::new(self.names.iter().copied(), self.certs());
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
        let begun = Instant::now();
        loop {
            match self.rests(client, machines).await {
                Ok(view) => return view,
                Err(said) => assert!(begun.elapsed() < WITHIN, "no rest: {said}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The view that is settled, if these machines, and no others, are its ring; else how things stand.
    pub(crate) async fn rests(&self, client: &Client, machines: &[usize]) -> Result<View, String> {
        let view = client.view().await.map_err(|error| error.to_string())?;
        let accounts = client.status().await.map_err(|error| error.to_string())?;
        let names: Vec<Name> = machines.iter().map(|i| self.names[*i]).collect();
        let up = view.members().iter().all(|m| m.state == MemberState::Up);
        let alike = view.members().len() == names.len() && names.iter().all(|n| view.index_of(*n).is_some());
        let rests = |account: &MachineStatus| {
            account.epoch == view.epoch()
                && account.settled == view.epoch()
                && account.slots > 0
                && account.slots == account.synced_slots
        };
        let told = accounts.iter().filter(|(_, a)| a.as_ref().is_ok_and(rests)).count();
        match up && alike && told == names.len() {
            true => Ok((*view).clone()),
            false => Err(format!("{names:?} are meant to be the ring: {view:#?}\n{accounts:#?}")),
        }
    }

    pub(crate) async fn account(&self, client: &Client, index: usize) -> Option<MachineStatus> {
        let accounts = client.status().await.ok()?;
        accounts.into_iter().find(|(n, _)| *n == self.names[index])?.1.ok()
    }

    /// Bytes of values that each machine that runs has taken in from others since it started.
    pub(crate) async fn taken(&self, client: &Client) -> BTreeMap<Name, u64> {
        let accounts = client.status().await.expect("a view");
        accounts.into_iter().filter_map(|(name, account)| Some((name, account.ok()?.taken_bytes))).collect()
    }

    /// Waits until some other machine says such a thing of this one. Tells how many do.
    pub(crate) async fn until_said_of(
        &self,
        client: &Client,
        index: usize,
        fits: impl Fn(PeerState) -> bool,
    ) -> usize {
        let begun = Instant::now();
        loop {
            let accounts = client.status().await.unwrap_or_default();
            let told = accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
            let said = told.flat_map(|a| a.peers.iter().filter(|p| p.name == self.names[index]));
            match said.filter(|p| fits(p.state)).count() {
                0 => assert!(begun.elapsed() < WITHIN, "nobody says so of {}", self.names[index]),
                some => return some,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every other machine answers and says that this one does.
    pub(crate) async fn until_nobody_misses(&self, client: &Client, index: usize) {
        let begun = Instant::now();
        loop {
            let accounts = client.status().await.unwrap_or_default();
            let told = accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
            let said = told.flat_map(|a| a.peers.iter().filter(|p| p.name == self.names[index]));
            let fits = |p: &&PeerStatus| p.state == PeerState::Up;
            if said.filter(fits).count() + 1 == accounts.len() {
                return;
            }
            assert!(begun.elapsed() < WITHIN, "{} is missed: {accounts:#?}", self.names[index]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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
            if let Some(kept) = &self.kept {
                let _ = fs::remove_dir_all(kept);
                let copied = Command::new("cp").arg("-a").arg(self.dir.path()).arg(kept).status();
                eprintln!("logs and data directories are kept in {}: {copied:?}", kept.display());
            }
        }
    }
}
