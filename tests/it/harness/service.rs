//! The service under test: its settings and its directory, and its process.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::http::{self, Answer};
use super::process::{Process, children_of, guarded};
use super::{PATIENCE, Scratch, eventually, ports, try_within, within};

/// The service, told its process id as systemd does; that changes nothing but with `WATCHDOG_USEC`.
const AS_SYSTEMD: [&str; 3] = ["sh", "-c", r#"WATCHDOG_PID=$$ exec "$0""#];

/// Names a program that is tried in place of the one that was built with the tests.
const PROGRAM: &str = "TORTURE_PROGRAM";

/// How the service is set up. Its directory, with the log in it, lasts from start to start, and is
/// that of its clones too.
#[derive(Clone)]
pub(crate) struct Service {
    scratch: Rc<Scratch>,
    program: PathBuf,
    patience: Duration,
    environment: BTreeMap<String, String>,
    starts: Rc<Cell<u32>>,
}

impl Service {
    /// With the defaults but for these, and for what keeps tests apart.
    pub(crate) fn new(database_url: &str, mqtt_port: u16) -> Self {
        Self::bare()
            .set("DATABASE_URL", database_url)
            .set("MQTT_BROKER", "127.0.0.1")
            .set("MQTT_PORT", mqtt_port)
            .set("MQTT_CLIENT_ID", "test-ingestor")
            .set("HTTP_ADDR", "127.0.0.1:0")
    }

    /// With the defaults.
    pub(crate) fn bare() -> Self {
        let environment = BTreeMap::new();
        let program = std::env::var_os(PROGRAM).unwrap_or(env!("CARGO_BIN_EXE_ingestor").into());
        let program = program.into();
        let scratch = Rc::new(Scratch::new());
        let starts = Rc::default();
        let service = Self { scratch, program, patience: PATIENCE, environment, starts };
        let wal_dir = service.wal_dir().to_string_lossy().into_owned();
        service.set("WAL_DIR", wal_dir)
    }

    /// With this in place of our binary, which may take so long to start.
    pub(crate) fn running(self, program: PathBuf, patience: Duration) -> Self {
        Self { program, patience, ..self }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a number or a text, whichever is at hand")]
    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Its working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn wal_dir(&self) -> PathBuf {
        self.scratch.path().join("wal")
    }

    /// What its log takes on disk.
    pub(crate) fn wal_bytes(&self) -> u64 {
        bytes_below(&self.wal_dir())
    }

    /// Starts it and waits until it serves HTTP.
    #[track_caller]
    pub(crate) fn start(&self) -> Ingestor {
        let mut ingestor = self.launch();
        ingestor.await_listening();
        ingestor
    }

    /// Starts it and waits for nothing.
    #[track_caller]
    pub(crate) fn launch(&self) -> Ingestor {
        let mut command = guarded(AS_SYSTEMD[0]);
        command.args(&AS_SYSTEMD[1..]).arg(&self.program);
        self.spawn(command)
    }

    /// As [`Self::start`], with `inject` done to its system calls, as strace's `-e inject=` says it.
    /// What strace has seen is in `strace.log`.
    #[track_caller]
    pub(crate) fn start_tampered(&self, inject: &str) -> Ingestor {
        let call = inject.split(':').next().unwrap();
        let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
        self.start_traced(&["--seccomp-bpf", "-e", &trace, "-e", &inject])
    }

    /// As [`Self::start`], below strace with these of its options.
    #[track_caller]
    pub(crate) fn start_traced(&self, options: &[&str]) -> Ingestor {
        let mut ingestor = self.launch_traced(options);
        ingestor.await_listening();
        let children = children_of(ingestor.process.pid());
        assert_eq!(children.len(), 1, "strace has one child");
        ingestor.pid = children[0];
        ingestor
    }

    /// As [`Self::start_traced`], and waits for nothing. Signals go to strace.
    #[track_caller]
    pub(crate) fn launch_traced(&self, options: &[&str]) -> Ingestor {
        let mut strace = guarded("strace");
        strace
            .args(["-f", "-qqq", "-ttt", "-o"])
            .arg(self.strace_log())
            .args(options)
            // What strace runs goes on when strace is killed, unless the kernel is asked again.
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .args(AS_SYSTEMD)
            .arg(&self.program);
        self.spawn(strace)
    }

    pub(crate) fn strace_log(&self) -> PathBuf {
        self.dir().join("strace.log")
    }

    /// Starts it with that as its standard error, on a port of its own, and waits for nothing.
    #[track_caller]
    pub(crate) fn launch_onto(&self, stderr: Stdio) -> Ingestor {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let service = self.clone().set("HTTP_ADDR", address);
        self.starts.set(self.starts.get() + 1);
        let name = format!("ingestor-{}", self.starts.get());
        let mut command = guarded(&self.program);
        service.prepare(&mut command);
        let process = Process::spawn_onto(stderr, &name, self.dir(), command);
        self.of(process, address)
    }

    fn spawn(&self, mut command: Command) -> Ingestor {
        self.starts.set(self.starts.get() + 1);
        self.prepare(&mut command);
        let name = format!("ingestor-{}", self.starts.get());
        let process = Process::spawn(&name, self.dir(), command);
        self.of(process, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn of(&self, process: Process, address: SocketAddr) -> Ingestor {
        let scratch = Rc::clone(&self.scratch);
        let (pid, patience) = (process.pid(), self.patience);
        Ingestor { pid, process, address, patience, _scratch: scratch }
    }

    /// What is in its dead-letter store, oldest first.
    #[track_caller]
    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        DeadLetter::all_in(&self.wal_dir().join("dead-letters"))
    }

    /// Runs one of our binaries to its end.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = guarded(program);
        command.args(arguments);
        self.prepare(&mut command);
        command.output().unwrap()
    }

    /// Nothing of the test's own environment reaches it, but where programs are.
    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.dir()).env_clear().envs(&self.environment);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    }
}

pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Deleted meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// A running ingestor. Dropping it kills it.
pub(crate) struct Ingestor {
    process: Process,
    /// Not that of the process if that is strace.
    pid: Pid,
    address: SocketAddr,
    /// How long it may take to start.
    patience: Duration,
    /// Its directory is there for as long as it is.
    _scratch: Rc<Scratch>,
}

impl Ingestor {
    #[track_caller]
    pub(crate) fn await_listening(&mut self) {
        self.address = within(self.patience, "the ingestor listens", || {
            self.process.must_run();
            let line = self.log_of("listening for HTTP").pop()?;
            line["address"].as_str()?.parse().ok()
        });
    }

    /// Waits until it is ready and has subscribed.
    #[track_caller]
    pub(crate) fn await_ready(&mut self) {
        eventually("the ingestor is ready", || {
            self.process.must_run();
            let is_ready = self.get("/health/ready").status == 200;
            (is_ready && !self.log_of("subscribed").is_empty()).then_some(())
        });
    }

    /// Where it serves HTTP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub(crate) fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        http::get(self.address, path)
    }

    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str) -> Answer {
        let answer = http::request(self.address, method, path);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request with `token` as its bearer token.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str, token: &str) -> Answer {
        let headers = format!("Authorization: Bearer {token}\r\n");
        let answer = http::request_with(self.address, method, path, &headers);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The body of `/health/ready`.
    #[track_caller]
    pub(crate) fn health(&self) -> Value {
        self.get("/health/ready").json()
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }

    /// One metric.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.metrics().get(name)
    }

    /// Waits until a metric has reached `value`.
    #[track_caller]
    pub(crate) fn await_metric(&mut self, name: &str, value: u64) {
        eventually(&format!("{name} reaches {value}"), || {
            self.process.must_run();
            (self.metric(name) >= value).then_some(())
        });
    }

    /// Its log lines whose message begins so.
    pub(crate) fn log_of(&self, message: &str) -> Vec<Value> {
        self.log()
            .into_iter()
            .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
            .collect()
    }

    /// The same, once there is one: a thread of its own writes them, so they come after what they tell of.
    #[track_caller]
    pub(crate) fn await_log_of(&self, message: &str) -> Vec<Value> {
        eventually(message, || Some(self.log_of(message)).filter(|lines| !lines.is_empty()))
    }

    /// Its log, as far as it is JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn log_text(&self) -> String {
        self.process.log()
    }

    /// Fails the test if it has ended.
    #[track_caller]
    pub(crate) fn must_run(&mut self) {
        self.process.must_run();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        if self.pid != self.process.pid() {
            // strace writes down the end of it, and ends too.
            kill_process(self.pid, Signal::KILL).unwrap();
            try_within(PATIENCE, || self.process.ended());
        }
        self.process.kill_all();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits until it has ended; its exit code.
    #[track_caller]
    pub(crate) fn await_exit(&mut self, patience: Duration) -> i32 {
        self.process.await_exit(patience)
    }

    /// SIGTERM, upon which it has to end in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.await_exit(PATIENCE), 0);
    }

    /// Memory that it has at most had in use, in bytes.
    #[track_caller]
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Its address space now, in bytes.
    #[track_caller]
    pub(crate) fn address_space(&self) -> u64 {
        self.status_bytes("VmSize:")
    }

    #[track_caller]
    fn status_bytes(&self, name: &str) -> u64 {
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(status).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }
}

impl Drop for Ingestor {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_running() {
            for path in ["/health/ready", "/metrics"] {
                let body = self.try_get(path).map_or_else(|error| error.to_string(), |a| a.body);
                let shown = |line: &&str| !line.starts_with('#') && !line.contains("_bucket");
                let lines: Vec<&str> = body.lines().filter(shown).collect();
                eprintln!("--- {path}\n{}\n---", lines.join("\n"));
            }
        }
    }
}

/// A letter of the dead-letter store, as it lies on the disk.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    id: u64,
    pub(crate) topic: String,
    pub(crate) stage: String,
    pub(crate) reason: String,
    pub(crate) payload: Vec<u8>,
}

/// One line of a segment.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Line {
    Letter {
        id: u64,
        topic: String,
        stage: String,
        reason: String,
        payload: String,
    },
    Message {
        first_id: u64,
        topic: String,
        reasons: Vec<(String, String)>,
        parts: Vec<(usize, usize, usize)>,
        payload: String,
    },
}

impl DeadLetter {
    /// What is in the store in `dir` and was not removed, oldest first; lines that are torn or
    /// damaged are no letters.
    pub(crate) fn all_in(dir: &Path) -> Vec<Self> {
        let Ok(segments) = std::fs::read_dir(dir) else { return Vec::new() };
        let texts = segments.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let lines = |text: Vec<u8>| {
            let lines = text.split(|byte| *byte == b'\n');
            lines.flat_map(|line| Self::of_line(line).unwrap_or_default()).collect::<Vec<_>>()
        };
        let mut letters: Vec<_> = texts.flat_map(lines).collect();
        letters.sort_by_key(|letter| letter.id);
        letters
    }

    fn of_line(line: &[u8]) -> Option<Vec<Self>> {
        let (sum, rest) = line.split_at_checked(9)?;
        let (json, flags) = rest.split_at(rest.iter().rposition(|byte| *byte == b'}')? + 1);
        if sum != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
            return None;
        }
        let decode = |text| base64::engine::general_purpose::STANDARD.decode(text).ok();
        Some(match serde_json::from_slice(json).ok()? {
            Line::Letter { id, topic, stage, reason, payload } => {
                vec![Self { id, topic, stage, reason, payload: decode(payload)? }]
            }
            Line::Message { first_id, topic, reasons, parts, payload } => {
                let payload = decode(payload)?;
                let is_there = |at: usize| flags.get(1 + at) == Some(&b'.');
                let letter = |(at, (start, end, reason)): (usize, (usize, usize, usize))| {
                    let (stage, reason) = reasons[reason].clone();
                    let (topic, payload) = (topic.clone(), payload[start..end].to_vec());
                    Self { id: first_id + at as u64, topic, stage, reason, payload }
                };
                parts.into_iter().enumerate().filter(|(at, _)| is_there(*at)).map(letter).collect()
            }
        })
    }

    pub(crate) fn payload_text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What `/metrics` says.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).map(sample).collect())
    }

    /// The value of a sample, named with its labels.
    #[track_caller]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
    pub(crate) fn get(&self, name: &str) -> u64 {
        let value = self.find(name).unwrap_or_else(|| panic!("no sample {name} in {self:?}"));
        assert!(value.fract() == 0.0 && value >= 0.0, "{name} is no count: {value}");
        value as u64
    }

    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Of all samples whose name begins so.
    pub(crate) fn sum(&self, prefix: &str) -> f64 {
        self.with_prefix(prefix).map(|(_, value)| value).sum()
    }

    /// All samples whose name begins so.
    pub(crate) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, f64)> {
        let samples = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        samples.map(|(name, value)| (name.as_str(), *value))
    }
}
