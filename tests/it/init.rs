//! `ingestor init`: an installation is asked for, tested and written, and what somebody has written stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::harness::{Mosquitto, Postgres, Publisher, Scratch, Service, ports};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");
const TEMPLATE: &str = include_str!("../../deploy/systemd/ingestor.env");
const TOKEN: &str = "a-token-of-some-length";

/// A place for an installation, and the servers that it is of.
struct Site {
    postgres: Postgres,
    broker: Mosquitto,
    files: Scratch,
}

impl Site {
    fn new() -> Self {
        let (postgres, broker) = (Postgres::start_durable(), Mosquitto::start());
        Self { postgres, broker, files: Scratch::new() }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.files.path().join("etc")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap()
    }

    fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.broker.port)
    }

    /// With these flags, and nobody at a terminal.
    fn init(&self, flags: &[&str]) -> Output {
        let dir = self.dir();
        let mut command = Command::new(INGESTOR);
        command.args(["init", "--dir", dir.to_str().unwrap()]).args(flags).env_clear();
        command.stdin(Stdio::null()).current_dir(self.files.path()).output().unwrap()
    }

    #[track_caller]
    fn must_init(&self, flags: &[&str]) -> String {
        let output = self.init(flags);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    }

    #[track_caller]
    fn must_refuse(&self, flags: &[&str], code: i32, why: &str) {
        let before = snapshot(&self.dir());
        let output = self.init(flags);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(why), "{why} in {text}");
        assert_eq!(snapshot(&self.dir()), before, "{why}");
    }
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

/// Names, modes and contents of all files.
fn snapshot(dir: &Path) -> Vec<(String, u32, String)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut all: Vec<_> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return snapshot(&path);
            }
            let content = fs::read_to_string(&path).unwrap();
            vec![(path.display().to_string(), mode(&path), content)]
        })
        .collect();
    all.sort();
    all
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_said_is_tested_written_for_its_user_alone_and_enough_to_start_with() {
    let b = Site::new();
    let flags = ["--broker", &b.broker(), "--database", &b.postgres.url(), "--yes"];
    let said = b.must_init(&flags);
    assert!(said.contains("ok broker: ") && said.contains("ok database: "), "{said}");
    assert!(said.contains("Next: "), "{said}");
    assert!(!said.contains(b.postgres.password()), "{said}");
    for (name, expected) in [
        ("ingestor.env", 0o600),
        ("secrets", 0o700),
        ("secrets/database-url", 0o600),
        ("secrets/admin-token", 0o600),
        ("Rocket.toml", 0o640),
    ] {
        assert_eq!(mode(&b.dir().join(name)), expected, "{name}");
    }
    assert_eq!(b.read("secrets/database-url"), b.postgres.url() + "\n");
    assert!(b.read("secrets/admin-token").trim().len() >= 43);
    assert!(!b.dir().join("secrets/mqtt-password").exists());
    let settings = b.read("ingestor.env");
    assert!(settings.contains(&format!("\nMQTT_PORT={}\n", b.broker.port)), "{settings}");
    assert_eq!(settings.lines().count(), TEMPLATE.lines().count(), "all else is as it was");

    // The service runs with it, as a shell reads it.
    let service = Service::bare().set("HTTP_ADDR", "127.0.0.1:0");
    let service =
        settings.lines().filter(|line| !line.starts_with('#')).fold(service, |service, line| {
            match line.split_once('=') {
                Some((name, value)) if name != "HTTP_ADDR" => service.set(name, value),
                _ => service,
            }
        });
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(b.broker.port).publish_readings(0..10);
    b.postgres.await_count(10);
    let token = b.read("secrets/admin-token");
    assert_eq!(ingestor.admin("GET", "/admin/wal", token.trim()).status, 200);
    ingestor.stop();

    let output = service.run(INGESTOR, &["doctor", "--dir", b.dir().to_str().unwrap()]);
    let found = text(&output);
    assert!(found.contains("ok secrets: ") && found.contains("ok database: "), "{found}");
}

#[test]
fn what_somebody_has_written_is_changed_with_force_alone_and_the_same_answers_change_nothing() {
    let b = Site::new();
    let (broker, url) = (b.broker(), b.postgres.url());
    let flags = ["--broker", &broker, "--database", &url, "--yes"];
    // As a package or the installer leaves it.
    fs::create_dir_all(b.dir().join("secrets")).unwrap();
    fs::write(b.dir().join("ingestor.env"), TEMPLATE).unwrap();
    let placeholder = "postgres://iot:CHANGE-ME@localhost:5432/iotdb\n";
    fs::write(b.dir().join("secrets/database-url"), placeholder).unwrap();
    fs::write(b.dir().join("secrets/admin-token"), format!("{TOKEN}\n")).unwrap();
    b.must_init(&flags);
    assert!(b.read("ingestor.env").contains(&format!("\nMQTT_PORT={}\n", b.broker.port)));
    assert_eq!(b.read("secrets/database-url"), format!("{url}\n"));
    assert_eq!(b.read("secrets/admin-token"), format!("{TOKEN}\n"));
    let written = snapshot(&b.dir());
    b.must_init(&flags);
    assert_eq!(snapshot(&b.dir()), written);

    let other = format!("{url}?application_name=other");
    let to_other = ["--broker", &broker, "--database", &other, "--yes"];
    b.must_refuse(&to_other, 1, "secrets/database-url is there, and another one");
    let elsewhere = format!("localhost:{}", b.broker.port);
    let moved = ["--broker", &elsewhere, "--database", &url, "--yes"];
    b.must_refuse(&moved, 1, "ingestor.env was changed by somebody");
    let edited = b.read("ingestor.env").replace("#BATCH_SIZE=2000", "BATCH_SIZE=1000");
    fs::write(b.dir().join("ingestor.env"), edited).unwrap();
    b.must_init(&[&to_other[..], &["--force"]].concat());
    assert_eq!(b.read("secrets/database-url"), format!("{other}\n"));
    assert!(b.read("ingestor.env").contains("\nBATCH_SIZE=1000\n"), "what was edited stays");
}

#[test]
fn what_does_not_work_is_not_written_unless_nobody_wants_it_tested() {
    let b = Site::new();
    let (broker, url) = (b.broker(), b.postgres.url());
    let wrong = b.postgres.url_of("iot", "wrong");
    b.must_refuse(&["--broker", &broker, "--database", &wrong, "--yes"], 1, "FAIL database: ");
    let gone = format!("127.0.0.1:{}", ports::free());
    b.must_refuse(&["--broker", &gone, "--database", &url, "--yes"], 1, "FAIL broker: ");
    b.must_refuse(&["--database", &url, "--yes"], 64, "--broker is needed");
    b.must_refuse(&["--broker", &broker], 64, "--database or --database-file is needed");
    b.must_refuse(&["--broker", "a b", "--database", &url, "--yes"], 64, "--broker: expected HOST");
    let misspelt = format!("{url}?sslmod=disable");
    b.must_refuse(&["--broker", &broker, "--database", &misspelt, "--yes"], 64, "sslmod");
    let short = ["--broker", &broker, "--database", &url, "--yes", "--admin-token", "short"];
    b.must_refuse(&short, 64, "ADMIN_TOKEN");
    assert!(!b.dir().exists());

    let password = b.files.path().join("password");
    fs::write(&password, "s3cret\n").unwrap();
    let file = b.files.path().join("url");
    fs::write(&file, format!("{wrong}\n")).unwrap();
    b.must_init(&[
        "--broker",
        "mqtts://broker.example",
        "--broker-user",
        "edge box",
        "--broker-password-file",
        password.to_str().unwrap(),
        "--database-file",
        file.to_str().unwrap(),
        "--admin-token",
        TOKEN,
        "--no-test",
        "--yes",
    ]);
    let settings = b.read("ingestor.env");
    for line in [
        "MQTT_BROKER=broker.example",
        "MQTT_PORT=8883",
        "MQTT_TLS=true",
        "MQTT_USERNAME='edge box'",
    ] {
        assert!(settings.lines().any(|found| found == line), "{line} in {settings}");
    }
    assert_eq!(b.read("secrets/mqtt-password"), "s3cret\n");
    assert_eq!(b.read("secrets/admin-token"), format!("{TOKEN}\n"));
    assert_eq!(b.read("secrets/database-url"), format!("{wrong}\n"));
}

#[test]
fn what_another_version_has_put_there_is_nobodys_whatever_it_says_beside() {
    let b = Site::new();
    fs::create_dir_all(b.dir()).unwrap();
    let set = TEMPLATE.lines().filter(|line| !line.starts_with('#') && line.contains('='));
    let shipped = set.fold("# Of another version.\n".to_owned(), |text, line| text + line + "\n");
    fs::write(b.dir().join("ingestor.env"), shipped).unwrap();
    b.must_init(&["--broker", &b.broker(), "--database", &b.postgres.url(), "--yes"]);
    let settings = b.read("ingestor.env");
    assert!(settings.starts_with("# Of another version.\n"), "{settings}");
    assert!(settings.contains(&format!("\nMQTT_PORT={}\n", b.broker.port)), "{settings}");
}

#[test]
fn a_login_and_tls_that_are_not_asked_for_again_go_and_are_named() {
    let b = Site::new();
    let (broker, url) = (b.broker(), b.postgres.url());
    let (password, token) = (b.files.path().join("password"), b.files.path().join("token"));
    fs::write(&password, "s3cret\n").unwrap();
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let rest = ["--database", &url, "--no-test", "--yes", "--force"];
    let login = ["--broker-user", "box", "--broker-password-file", password.to_str().unwrap()];
    let secure = ["--broker", "mqtts://broker.example"];
    let token_file = ["--admin-token-file", token.to_str().unwrap()];
    b.must_init(&[&secure[..], &login, &token_file, &rest].concat());
    assert_eq!(b.read("secrets/admin-token"), format!("{TOKEN}\n"));
    let authority = "MQTT_CA_FILE=/etc/ssl/certs/ca-certificates.crt\n";
    let edit = |more: &str| {
        fs::write(b.dir().join("ingestor.env"), b.read("ingestor.env") + more).unwrap();
    };
    edit(authority);
    edit("DATABASE_URL=postgres://iot:hunter2@db/iotdb\n");

    // The authority is still that of this broker.
    let said = b.must_init(&[&secure[..], &login, &rest].concat());
    assert!(said.contains("these go: DATABASE_URL\n"), "{said}");
    let settings = b.read("ingestor.env");
    assert!(settings.contains(authority) && !settings.contains("hunter2"), "{settings}");

    let plain = ["--broker", &broker, "--database", &url, "--yes"];
    b.must_refuse(&plain, 1, "ingestor.env was changed by somebody");
    let said = b.must_init(&[&plain[..], &["--force"]].concat());
    let gone = "these go: MQTT_USERNAME, MQTT_PASSWORD_FILE, MQTT_TLS, MQTT_CA_FILE\n";
    assert!(said.contains(gone), "{said}");
    let settings = b.read("ingestor.env");
    for name in ["MQTT_USERNAME", "MQTT_PASSWORD_FILE", "MQTT_TLS", "MQTT_CA_FILE"] {
        let sets = |line: &str| line.starts_with(&format!("{name}="));
        assert!(!settings.lines().any(sets), "{name} in {settings}");
    }
}

/// `ingestor init` on a terminal of its own, whose other end is the second.
fn asked(b: &Site, flags: &[&str]) -> (Child, File) {
    let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&end).unwrap();
    unlockpt(&end).unwrap();
    let name = ptsname(&end, Vec::new()).unwrap();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed());
    let terminal = options.open(OsStr::from_bytes(name.to_bytes())).unwrap();
    let mut command = Command::new("setsid");
    command.args(["--ctty", INGESTOR, "init", "--dir", b.dir().to_str().unwrap()]).args(flags);
    command.env_remove("DATABASE_URL").current_dir(b.files.path());
    let copy = || Stdio::from(terminal.try_clone().unwrap());
    let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
    (child, File::from(end))
}

/// What is said on a terminal, up to `text`.
fn said_until(terminal: &mut File, text: &str) -> String {
    let mut said = Vec::new();
    loop {
        let shown = String::from_utf8_lossy(&said);
        if shown.contains(text) {
            return shown.into_owned();
        }
        let mut bytes = [0; 256];
        let count = terminal.read(&mut bytes).unwrap_or_else(|error| panic!("{error}: {shown}"));
        said.extend_from_slice(&bytes[..count]);
    }
}

fn echoes(terminal: &File) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
}

#[test]
fn whoever_is_asked_for_a_token_gives_one_unseen_or_has_one_made() {
    let b = Site::new();
    let (broker, url) = (b.broker(), b.postgres.url());
    let answer = |answer: &str| {
        let flags = ["--broker", &broker, "--database", &url, "--force"];
        let (mut child, mut terminal) = asked(&b, &flags);
        said_until(&mut terminal, "Bearer token of /admin");
        assert!(!echoes(&terminal), "a secret is not shown");
        terminal.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let said = said_until(&mut terminal, "Next: ");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
        (said, b.read("secrets/admin-token"))
    };
    let (_, made) = answer("");
    assert!(made.trim().len() >= 43, "{made}");
    assert_eq!(answer("").1, made, "the one that is there");
    let (said, given) = answer(TOKEN);
    assert_eq!(given, format!("{TOKEN}\n"));
    assert!(!said.contains(TOKEN), "{said}");
}

#[test]
fn whoever_breaks_off_at_a_secret_question_gets_the_terminal_back_as_it_was() {
    type BreakOff = fn(&mut File, Pid);
    let b = Site::new();
    let interrupt: BreakOff = |terminal, _| terminal.write_all(b"half a secret\x03").unwrap();
    let terminate: BreakOff = |_, pid| kill_process(pid, Signal::TERM).unwrap();
    for (break_off, code) in [(interrupt, 130), (terminate, 143)] {
        let (mut child, mut terminal) = asked(&b, &["--broker", &b.broker()]);
        said_until(&mut terminal, "Connection string");
        assert!(!echoes(&terminal), "a secret is not shown");
        break_off(&mut terminal, Pid::from_child(&child));
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(echoes(&terminal));
        assert!(!b.dir().exists());
    }
}
