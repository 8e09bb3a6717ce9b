//! A browser without a window, driven over its DevTools protocol by a pair of pipes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Names of the program, Debian's first.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The protocol is on descriptors 3 and 4, in messages that end with a zero byte. The shell puts the
/// pipes of its own standard streams there. A browser that says nothing for ever ends all the same.
const START: &str = r#"exec timeout 120 "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// A size in CSS pixels, and how it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    pub(crate) print: bool,
}

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// What the page did that it should not have done.
    events: Vec<Value>,
    /// Its profile, which is gone with it.
    _profile: TempDir,
}

impl Browser {
    /// Starts one; `None` where there is none.
    pub(crate) fn start() -> Option<Self> {
        let exists = |name: &&&str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|place| place.join(name).is_file())
        };
        let name = NAMES.iter().find(exists)?;
        let profile = TempDir::new().expect("a directory for the browser's profile");
        let mut child = Command::new("sh")
            .args(["-c", START, "sh", name])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut browser = Self {
            child,
            input,
            output,
            session: None,
            number: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command, and waits for its result.
    ///
    /// # Panics
    /// If the browser refuses it, or is gone.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let message = self.receive();
            if message["id"] == json!(self.number) {
                assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn receive(&mut self) -> Value {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message).expect("the browser speaks");
        assert_eq!(message.pop(), Some(0), "the browser is gone");
        serde_json::from_slice(&message).expect("a message")
    }

    /// Shows a file, and waits until it is there.
    pub(crate) fn open(&mut self, file: &Path) {
        let file = fs::canonicalize(file).expect("the page is there");
        self.events.clear();
        self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
    }

    /// Sets size and colours.
    pub(crate) fn view(&mut self, view: View) {
        let metrics = json!({
            "width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let media = json!({
            "media": if view.print { "print" } else { "screen" },
            "features": [{
                "name": "prefers-color-scheme",
                "value": if view.dark { "dark" } else { "light" },
            }],
        });
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// If it throws.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Presses a key, and lets go of it.
    pub(crate) fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What the page complained of since it was opened: exceptions, messages on the console, entries of
    /// the log; and what it asked for besides itself.
    pub(crate) fn complaints(&mut self) -> Vec<Value> {
        // What was said before this answer is there before it.
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.call("Page.getLayoutMetrics", json!({}));
        let is_complaint = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => true,
            Some("Network.requestWillBeSent") => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                let own = event["params"]["documentURL"].as_str().unwrap_or_default();
                url != own && !url.starts_with("data:")
            }
            _ => false,
        };
        self.events.iter().filter(is_complaint).cloned().collect()
    }

    /// A picture of a part of the page, as PNG in base 64.
    #[allow(dead_code, reason = "for the example that makes pictures")]
    pub(crate) fn picture(&mut self, x: f64, y: f64, width: f64, height: f64) -> String {
        let clip = json!({ "x": x, "y": y, "width": width, "height": height, "scale": 1 });
        let parameters = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", parameters);
        picture["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Of the browser, not of a page. It ends by itself, and by the time limit if not.
        let _ = self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}
