//! A real browser without a window, as far as the machine has one: Chromium, told what to do through a pair of pipes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How long it may take to start, or for anything else.
const WITHIN: Duration = Duration::from_secs(60);
/// What the program may be called.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    say: File,
    hear: Receiver<Value>,
    session: String,
    next: u64,
    /// What the page, or the browser about it, complained of.
    pub(crate) complaints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Browser {
    /// `None` where there is none.
    pub(crate) fn start() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let there = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
        let program = NAMES.iter().find(|name| there(name))?;
        let dir = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| -> PathBuf {
            let path = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
            path
        };
        let (say, hear) = (pipe("say"), pipe("hear"));
        // Both ends at once: opening one waits for nobody.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).expect("a pipe");
        let (say_file, hear_file) = (open(&say), open(&hear));
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
                --hide-scrollbars --user-data-dir=\"$3\" --remote-debugging-pipe about:blank 3<\"$1\" 4>\"$2\""])
            .args([Path::new(program), &say, &hear, &dir.path().join("profile")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let (tx, rx) = mpsc::channel();
        thread::spawn(move || messages(hear_file, &tx));
        let mut browser = Self {
            child,
            say: say_file,
            hear: rx,
            session: String::new(),
            next: 0,
            complaints: Vec::new(),
            _dir: dir,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// One command, and its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.say.write_all(format!("{message}\0").as_bytes()).expect("a browser that listens");
        loop {
            let mut told = self.hear.recv_timeout(WITHIN).unwrap_or_else(|e| panic!("{method}: {e}"));
            if told["id"] == self.next {
                assert!(told["error"].is_null(), "{method}: {}", told["error"]);
                return told["result"].take();
            }
            match told["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(told["params"].to_string()),
                Some("Log.entryAdded") if told["params"]["entry"]["level"] == "error" => {
                    self.complaints.push(told["params"]["entry"].to_string());
                }
                _ => {}
            }
        }
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    pub(crate) fn prefers(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A key goes down and up.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key}));
        }
    }

    /// What an expression is in the page. The page's policy does not hold for who debugs it.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let mut told = self.call("Runtime.evaluate", params);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].take()
    }

    /// Waits until an expression is true; how long that took.
    pub(crate) fn until(&mut self, expression: &str) -> Duration {
        let begun = Instant::now();
        // What it looks at may not be there yet.
        let expression = format!("(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()");
        while self.eval(&expression) != json!(true) {
            if begun.elapsed() > WITHIN {
                let page = self.eval("document.body.innerText");
                panic!("never: {expression}\n{page}\n{:?}", self.complaints);
            }
            thread::sleep(Duration::from_millis(50));
        }
        begun.elapsed()
    }

    /// A picture of the whole page, as PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let told =
            self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        STANDARD.decode(told["data"].as_str().expect("a picture")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages end with a zero byte.
fn messages(mut pipe: File, tx: &mpsc::Sender<Value>) {
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(n) = pipe.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..n]);
        while let Some(end) = buffer.iter().position(|byte| *byte == 0) {
            let message: Vec<u8> = buffer.drain(..=end).collect();
            let Ok(message) = serde_json::from_slice(&message[..end]) else { return };
            if tx.send(message).is_err() {
                return;
            }
        }
    }
}
