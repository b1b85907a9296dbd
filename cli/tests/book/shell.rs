//! A reader at a terminal: one folder, one shell, the programs under test in its path.
//!
//! The book's addresses and folders are those of a reader's own computers. Here, and only here, they are replaced:
//!
//! | in the book | here |
//! |---|---|
//! | `127.0.0.N`, the peers of `ennead dev` | `127.0.135.N` |
//! | `10.0.0.N`, computers of one's own | `127.0.135.(100+N)` |
//! | `/home/me` | a temporary folder |
//! | `/var/lib/ennead`, `/etc/ennead` | the same below that folder |
//!
//! Operations may take 30 s, not 2: other tests run beside this one.
//!
//! What is printed is put back before it is compared. A command with `--machines` asks nobody, and stays as it is: where
//! keys are depends on the names.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest that one command may take; beside other tests all is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first three numbers of the addresses here.
const NET: &str = "127.0.135.";
/// Where the book's own computers begin in it.
const OWN: u8 = 100;

pub(crate) struct Shell {
    home: tempfile::TempDir,
    /// Programs that go on, and their output.
    running: Vec<(Child, PathBuf)>,
    /// True if there is a terminal for programs: what they print to people is compared only then.
    pub(crate) has_terminal: bool,
}

/// What became of a command.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) printed: Vec<String>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        let has_terminal = Command::new("script").arg("--version").output().is_ok();
        let home = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(home.path().join(".state"), "").expect("a file");
        Self { home, running: Vec::new(), has_terminal }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&mut self, command: &str) -> Ended {
        let after = "code=$?; { export -p; declare -f; } > .state; exit $code";
        let file = self.write(&format!("{}\n{after}\n", self.here(command)));
        let line = format!("bash {}", file.display());
        let mut program = match self.has_terminal {
            true => Command::new("script"),
            false => Command::new("bash"),
        };
        match self.has_terminal {
            true => program.args(["--quiet", "--return", "--command", &line, "/dev/null"]),
            false => program.arg(&file),
        };
        let (mut child, output) = self.spawn(program);
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().expect("a child") {
                Some(status) => break status.code(),
                None if begun.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
            // One that the command ended is gone, and not a shadow whose number is still taken.
            for (child, _) in &mut self.running {
                let _ = child.try_wait();
            }
        };
        Ended { code: status, printed: self.printed(&output) }
    }

    /// Starts a command that goes on, and waits until it has printed what `enough` wants to see.
    pub(crate) fn start(&mut self, command: &str, enough: impl Fn(&[String]) -> bool) -> Ended {
        let file = self.write(&format!("exec {}\n", self.here(command)));
        let mut program = Command::new("bash");
        program.arg(&file);
        let (mut child, output) = self.spawn(program);
        let begun = Instant::now();
        let code = loop {
            let ended = child.try_wait().expect("a child");
            if ended.is_some() || begun.elapsed() > PATIENCE || enough(&self.printed(&output)) {
                break ended.and_then(|status| status.code());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let printed = self.printed(&output);
        self.running.push((child, output));
        Ended { code, printed }
    }

    /// What the programs that go on have printed last, for a person who looks for what went wrong.
    pub(crate) fn last_words(&self) -> String {
        let told = self.running.iter().map(|(_, output)| self.printed(output));
        let last = told.map(|lines| lines[lines.len().saturating_sub(8)..].join("\n"));
        last.collect::<Vec<_>>().join("\n--\n")
    }

    /// A script that goes on where the last one ended.
    fn write(&self, text: &str) -> PathBuf {
        let number = (0..).find(|n| !self.script(*n).exists()).expect("numbers do not end");
        let file = self.script(number);
        std::fs::write(&file, format!(". ./.state\n{text}")).expect("a file");
        file
    }

    fn script(&self, number: usize) -> PathBuf {
        self.home().join(format!(".step-{number}"))
    }

    fn spawn(&self, mut program: Command) -> (Child, PathBuf) {
        let number = (0..).find(|n| !self.script(*n).exists()).expect("numbers do not end");
        let output = self.home().join(format!(".output-{number}"));
        let file = File::create(&output).expect("a file");
        let programs = Path::new(env!("CARGO_BIN_EXE_kvctl")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("ENNEAD_") || name.starts_with("KVCTL_") {
                program.env_remove(&variable);
            }
        }
        program
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("NO_COLOR", "1")
            .env("KVCTL_TIMEOUT", "30s")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .process_group(0);
        (program.spawn().expect("a program"), output)
    }

    fn printed(&self, output: &Path) -> Vec<String> {
        let bytes = std::fs::read(output).expect("an output");
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        // A line of progress is overwritten by what comes after it.
        let seen = text.lines().map(|line| line.rsplit("\r\u{1b}[K").next().unwrap_or_default());
        seen.map(|line| self.there(line)).collect()
    }

    /// The book's words as they are run here.
    fn here(&self, text: &str) -> String {
        if text.contains("--machines") {
            return text.to_owned();
        }
        let text = text.replace("ennead dev", &format!("ennead dev --first {NET}1"));
        let home = self.home().display().to_string();
        let folders = ["/var/lib/ennead", "/etc/ennead"];
        let text = folders.iter().fold(text, |text, folder| text.replace(folder, &format!("{home}{folder}")));
        let text = addresses(&text.replace("/home/me", &home), "127.0.0.", |n| format!("{NET}{n}"));
        addresses(&text, "10.0.0.", |n| format!("{NET}{}", n + OWN))
    }

    /// What is printed here, in the book's words.
    fn there(&self, text: &str) -> String {
        let home = self.home().display().to_string();
        let text = text.replace(&format!("{home}/var"), "/var").replace(&format!("{home}/etc"), "/etc");
        addresses(&text.replace(&home, "/home/me"), NET, |n| match n.checked_sub(OWN) {
            Some(n) if n > 0 => format!("10.0.0.{n}"),
            _ => format!("127.0.0.{n}"),
        })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for (child, _) in &mut self.running {
            // Not waited for yet, so its id is still its own.
            if matches!(child.try_wait(), Ok(None)) {
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
            }
        }
        let begun = Instant::now();
        for (mut child, _) in std::mem::take(&mut self.running) {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(15) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every address that begins so, replaced.
fn addresses(text: &str, begin: &str, to: impl Fn(u8) -> String) -> String {
    let mut parts = text.split(begin);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        match part[..digits].parse() {
            Ok(n) => replaced.push_str(&to(n)),
            Err(_) => replaced.push_str(&format!("{begin}{}", &part[..digits])),
        }
        replaced.push_str(&part[digits..]);
    }
    replaced
}

#[test]
fn addresses_are_replaced_and_put_back() {
    let shell = Shell::new();
    let words = "--peers 10.0.0.1,10.0.0.10:9605 127.0.0.9 /var/lib/ennead /home/me/x";
    let here = shell.here(words);
    assert!(here.contains("127.0.135.101,127.0.135.110:9605 127.0.135.9"), "{here}");
    assert_eq!(shell.there(&here), words);
    assert_eq!(shell.here("--machines 10.0.0.1"), "--machines 10.0.0.1");
}
