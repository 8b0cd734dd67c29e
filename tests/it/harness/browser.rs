//! A headless Chromium, driven over its driver's HTTP interface: as much of it as looking at a page needs.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{Process, guarded};
use super::{PATIENCE, Scratch, eventually, ports, try_within};

/// Ends with chromedriver, which a test that is killed takes with it.
const WRAPPER: &str = "#!/bin/sh\nexec setpriv --pdeathsig KILL -- chromium \"$@\" 2>/dev/null\n";

/// The key of an element's id, which is the same for every browser.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window with one page in it. Dropping it ends the browser.
pub(crate) struct Browser {
    driver: Process,
    port: u16,
    session: String,
    _scratch: Scratch,
}

impl Browser {
    /// Whether there is one on this machine.
    pub(crate) fn is_there() -> bool {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|dir| dir.join("chromedriver").exists())
    }

    /// A window of this size, in CSS pixels.
    #[track_caller]
    pub(crate) fn start(width: u32, height: u32) -> Self {
        let scratch = Scratch::new();
        let wrapper = scratch.path().join("chromium");
        fs::write(&wrapper, WRAPPER).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let port = ports::free();
        let mut command = guarded("chromedriver");
        command.arg(format!("--port={port}"));
        // Whatever it leaves behind goes with the test.
        command.env("HOME", scratch.path()).env("TMPDIR", scratch.path());
        let mut driver = Process::spawn("chromedriver", scratch.path(), command);
        eventually("chromedriver listens", || {
            driver.must_run();
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let profile = format!("--user-data-dir={}", scratch.path().join("profile").display());
        let options = json!({
            "binary": wrapper,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--hide-scrollbars", profile,
            ],
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = call(port, "POST", "/session", &capabilities);
        let session = answer["sessionId"].as_str().unwrap().to_owned();
        let browser = Self { driver, port, session, _scratch: scratch };
        browser.resize(width, height);
        browser
    }

    /// As a screen of this size shows it.
    #[track_caller]
    pub(crate) fn resize(&self, width: u32, height: u32) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}),
        );
    }

    /// A command of the protocol that its developer tools speak.
    #[track_caller]
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.post("url", &json!({"url": url}));
    }

    /// What the body of a function without arguments returns, run in the page.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of the first element, as it is rendered; none if there is no such element.
    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> Option<String> {
        let script = format!("return document.querySelector({})?.innerText", json!(selector));
        self.run(&script).as_str().map(str::to_owned)
    }

    /// Waits until the text of the first element is as wanted; the text.
    #[track_caller]
    pub(crate) fn await_text(&self, selector: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut last = None;
        let seen = try_within(PATIENCE, || {
            last = self.text(selector);
            last.clone().filter(|text| is_it(text))
        });
        seen.unwrap_or_else(|| panic!("{selector} never was as wanted, and last {last:?}"))
    }

    /// A click of the mouse, as soon as the element is there and nothing covers it.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), || {
            let element = self.find(selector)?;
            self.try_post(&format!("element/{element}/click"), &json!({})).ok()
        });
    }

    /// Types into an element.
    #[track_caller]
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = eventually(&format!("{selector} is there"), || self.find(selector));
        self.post(&format!("element/{element}/value"), &json!({"text": text}));
    }

    fn find(&self, selector: &str) -> Option<String> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.try_post("element", &wanted).ok()?;
        Some(found[ELEMENT].as_str().unwrap().to_owned())
    }

    /// What the page has complained of since the last call.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        let serious = entries.filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        serious.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// The addresses that the page at `url` has asked for since the last call.
    #[track_caller]
    pub(crate) fn requests_of(&self, url: &str) -> Vec<String> {
        let entries = self.post("se/log", &json!({"type": "performance"}));
        let event = |entry: &Value| -> Value {
            serde_json::from_str(entry["message"].as_str().unwrap()).unwrap()
        };
        let events: Vec<Value> = entries.as_array().unwrap().iter().map(event).collect();
        let requests = events.iter().map(|event| &event["message"]);
        requests
            .filter(|event| event["method"] == "Network.requestWillBeSent")
            // Not those of the empty page that a browser begins with.
            .filter(|event| event["params"]["documentURL"] == url)
            .map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}/{command}", self.session)
    }

    #[track_caller]
    fn post(&self, command: &str, body: &Value) -> Value {
        call(self.port, "POST", &self.path(command), body)
    }

    fn try_post(&self, command: &str, body: &Value) -> Result<Value, String> {
        try_call(self.port, "POST", &self.path(command), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.driver.ended().is_none() {
            try_call(self.port, "DELETE", &format!("/session/{}", self.session), &Value::Null).ok();
        }
    }
}

#[track_caller]
fn call(port: u16, method: &str, path: &str, body: &Value) -> Value {
    try_call(port, method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// One request to chromedriver; its `value`, or what it complains of.
fn try_call(port: u16, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let (head, body) =
        exchange(port, method, path, body).map_err(|error| format!("no answer: {error}"))?;
    let mut json: Value =
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let value = json["value"].take();
    if head.starts_with("HTTP/1.1 200") {
        Ok(value)
    } else {
        Err(format!("{}: {}", value["error"], value["message"]))
    }
}

/// Head and body of the answer. The connection stays open behind it, whatever is asked for.
fn exchange(
    port: u16,
    method: &str,
    path: &str,
    body: &Value,
) -> std::io::Result<(String, String)> {
    let body = if method == "POST" { body.to_string() } else { String::new() };
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    // A browser starts in seconds, on a busy machine in many.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        if answer.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = head[from..].split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body)?;
    Ok((head, String::from_utf8_lossy(&body).into_owned()))
}
