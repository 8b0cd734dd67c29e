//! `ingestor wal` on logs that a real ingestor has left behind.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::damage::{NEWER, make_newer};
use crate::harness::backlog::{self, generations};
use crate::harness::process::guarded;
use crate::harness::scratch::copy;
use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Reading, Service, eventually, eventually_eq,
    random, reading, readings, skip,
};

const INGESTOR: &str = env!("CARGO_BIN_EXE_ingestor");

/// Nobody listens there.
const NO_DATABASE: &str = "postgres://iot@127.0.0.1:1/iotdb";

/// A service that has stopped, with the first readings in its log and none in a database. One
/// publisher, so that a reading's number is its offset.
struct Stopped {
    service: Service,
    readings: u64,
}

impl Stopped {
    /// With so many readings.
    fn with(readings: u64) -> Self {
        Self::after(|_, ingestor, devices| {
            devices.publish_readings(0..readings);
            ingestor.await_metric("ingestor_acks_total", readings);
            readings
        })
    }

    /// With several generations.
    fn with_generations() -> Self {
        Self::after(|service, ingestor, devices| backlog::fill(service, ingestor, devices, 3))
    }

    fn after(fill: impl FnOnce(&Service, &mut Ingestor, &mut Publisher) -> u64) -> Self {
        let broker = Mosquitto::start();
        let service = Service::new(NO_DATABASE, broker.port).set("WAL_GENERATION_BYTES", 1 << 20);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let readings = fill(&service, &mut ingestor, &mut Publisher::connect(broker.port));
        ingestor.stop();
        Self { service, readings }
    }

    /// All of them.
    fn all(&self) -> Vec<Reading> {
        readings(0..self.readings)
    }

    /// All but these.
    fn all_but(&self, lost: &Range<u64>) -> Vec<Reading> {
        (0..self.readings).filter(|number| !lost.contains(number)).map(reading).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a `wal` command on the service's own log says, and its exit code.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let code = output.status.code().unwrap_or_else(|| panic!("{output:?}"));
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output, if all went well and nothing was said beside it.
    #[track_caller]
    fn quiet(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// The one line on standard error, if it ended with this code and wrote nothing else.
    #[track_caller]
    fn refusal(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        self.err
    }
}

#[track_caller]
fn wal(service: &Service, arguments: &[&str]) -> Answer {
    let arguments: Vec<_> = std::iter::once("wal").chain(arguments.iter().copied()).collect();
    Answer::of(&service.run(INGESTOR, &arguments))
}

/// A line of an export is a payload.
#[track_caller]
fn exported(lines: &str) -> Vec<Reading> {
    let reading = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        let number = |name: &str| value[name].as_f64().unwrap();
        let at = chrono::DateTime::parse_from_rfc3339(value["timestamp"].as_str().unwrap());
        Reading {
            device_id: value["device_id"].as_str().unwrap().to_owned(),
            micros: at.unwrap().timestamp_micros(),
            temperature: number("temperature"),
            humidity: number("humidity"),
            battery: number("battery"),
        }
    };
    lines.lines().map(reading).collect()
}

/// A frame in the file of a generation.
#[derive(Clone, Copy, Debug)]
struct Frame {
    position: u64,
    bytes: u64,
    first: u64,
    end: u64,
}

/// Every frame of a file that is not damaged, but may be cut short; all copies of each.
fn frames(file: &Path) -> Vec<Frame> {
    let raw = fs::read(file).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(hit) = raw[at..].windows(4).position(|window| window == b"\xB7WAL") {
        let frame = &raw[at + hit..];
        let Some(header) = frame.get(..52) else { break };
        let bytes = 52 + usize::from(u16::from_le_bytes([header[6], header[7]]));
        if bytes > frame.len() {
            break;
        }
        let first = u64::from_le_bytes(header[8..16].try_into().unwrap());
        let count = u32::from_le_bytes(header[40..44].try_into().unwrap());
        let (position, end) = ((at + hit) as u64, first + u64::from(count));
        found.push(Frame { position, bytes: bytes as u64, first, end });
        at += hit + bytes;
    }
    found
}

/// All copies of a block somewhere in the middle, of which there are several, each longer than two
/// sectors.
fn copies_of_one(file: &Path) -> Vec<Frame> {
    let mut by_first: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
    for frame in frames(file) {
        by_first.entry(frame.first).or_default().push(frame);
    }
    let middle = by_first.len() / 2;
    let mut candidates = by_first.into_values().skip(middle);
    let suits = |copies: &Vec<Frame>| copies.len() > 1 && copies[0].bytes > 1_200;
    candidates.find(suits).expect("a long block that is there more than once")
}

fn write_at(file: &Path, position: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, position).unwrap();
}

fn flip_bit(file: &Path, position: u64) {
    let byte = fs::read(file).unwrap()[usize::try_from(position).unwrap()];
    write_at(file, position, &[byte ^ 0x10]);
}

#[test]
fn a_stopped_log_is_shown_checked_and_exported_as_it_was_filled() {
    let stopped = Stopped::with_generations();
    let service = &stopped.service;
    let count = generations(&service.wal_dir()).len();

    let number = format!("{},{:03}", stopped.readings / 1_000, stopped.readings % 1_000);
    let stats = wal(service, &["stats"]).quiet();
    assert_says(&stats, &format!(" {number} records"));
    assert_says(&stats, "oldest pending");
    let stats: Value = serde_json::from_str(&wal(service, &["stats", "--json"]).quiet()).unwrap();
    assert_eq!(stats["pending_records"], stopped.readings);
    assert_eq!(stats["readable_records"], stopped.readings);
    assert_eq!(stats["lost_records"], 0);
    assert_eq!(stats["flushed_offset"], 0);
    assert_eq!(stats["next_offset"], stopped.readings);
    let each: Vec<_> = stats["generations"].as_array().unwrap().iter().collect();
    assert_eq!(each.len(), count);
    let pending = |generation: &&Value| generation["pending_records"].as_u64().unwrap();
    assert_eq!(each.iter().map(pending).sum::<u64>(), stopped.readings);

    let verdict = wal(service, &["verify"]).quiet();
    assert_says(&verdict, &format!(" {number} of them pending; all is right"));

    assert_eq!(exported(&wal(service, &["export"]).quiet()), stopped.all());
    let first = wal(service, &["records", "--limit", "1", "--json"]).out;
    let offset: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(offset["offset"], 0);
    assert_eq!(offset["temperature"].as_f64().unwrap().to_bits(), reading(0).temperature.to_bits());
}

#[test]
fn records_are_shown_from_an_offset_on_by_device_and_no_more_than_wanted() {
    let service = Stopped::with(5_000).service;
    let shown = |arguments: &[&str]| {
        let answer = wal(&service, &[&["records", "--json"], arguments].concat());
        assert_eq!(answer.code, 0, "{}", answer.err);
        let offset = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            let offset = record["offset"].as_u64().unwrap();
            assert_eq!(record["device_id"], reading(offset).device_id);
            offset
        };
        (answer.out.lines().map(offset).collect::<Vec<_>>(), answer.err)
    };
    let (offsets, more) = shown(&["--from", "4321", "--limit", "7"]);
    assert_eq!(offsets, (4_321..4_328).collect::<Vec<_>>());
    assert_eq!(more, "there is more: go on with --from 4328\n");
    let (offsets, more) = shown(&["--device", "device-042", "--limit", "3", "--from", "43"]);
    assert_eq!(offsets, [142, 242, 342]);
    assert_eq!(more, "there is more: go on with --from 442\n");
    let (offsets, more) = shown(&["--from", "4990"]);
    assert_eq!((offsets, more.as_str()), ((4_990..5_000).collect::<Vec<_>>(), ""));
    assert_eq!(shown(&[]).0.len(), 100);
    assert_eq!(shown(&["--from", "5000"]), (vec![], String::new()));
    assert_eq!(shown(&["--device", "nobody"]), (vec![], String::new()));

    let table = wal(&service, &["records", "--from", "4999"]).quiet();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    let last = reading(4_999);
    let numbers = [last.temperature, last.humidity, last.battery].map(|number| number.to_string());
    let expected = ["4999", &last.timestamp(), &numbers[0], &numbers[1], &numbers[2], "device-099"];
    assert_eq!(words, expected);
}

#[test]
fn after_a_kill_what_is_pending_is_exported_once_and_what_is_stored_only_on_demand() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("WAL_GENERATION_BYTES", 1 << 20);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 5_000);
    for _ in 0..3 {
        ingestor.await_metric("ingestor_db_inserts_total", 2_000);
        ingestor.kill();
        let verdict = wal(&service, &["verify"]);
        assert_eq!(verdict.code, 0, "{}", verdict.out);
        ingestor = service.start();
    }
    ingestor.await_metric("ingestor_db_inserts_total", 2_000);
    postgres.stop();
    ingestor.await_metric("ingestor_wal_pending_records", 3_000);
    let published = load.stop();
    // Behind all of them.
    Publisher::connect(broker.port).publish_one("telemetry/last", "no reading");
    ingestor.await_metric("ingestor_invalid_messages_total", 1);
    eventually_eq("nothing is under way", &0, || {
        let metrics = ingestor.metrics();
        let (taken, acked) = ("ingestor_messages_total", "ingestor_acks_total");
        metrics.get(taken) - metrics.get(acked)
    });
    let waiting = ingestor.metric("ingestor_wal_pending_records");
    ingestor.kill();

    let pending = exported(&wal(&service, &["export"]).quiet());
    assert_eq!(pending.len() as u64, waiting);
    let stats: Value = serde_json::from_str(&wal(&service, &["stats", "--json"]).quiet()).unwrap();
    assert_eq!(stats["pending_records"], waiting);
    let flushed = stats["flushed_offset"].as_u64().unwrap();
    let next = stats["next_offset"].as_u64().unwrap();
    assert_eq!(next - flushed, waiting);

    let lines = wal(&service, &["records", "--all", "--json", "--limit", "1000000"]).quiet();
    let offsets: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap())
        .collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "each offset once, in order");
    assert!(offsets.iter().any(|offset| *offset < flushed), "stored ones can still be read");
    assert_eq!(offsets.iter().filter(|offset| **offset >= flushed).count(), pending.len());
    assert_eq!(wal(&service, &["verify"]).code, 0);

    // Together with what the table has, it is everything.
    postgres.launch();
    let mut together: BTreeMap<i64, Reading> =
        postgres.readings().into_iter().map(|row| (row.micros, row)).collect();
    for reading in pending {
        together.insert(reading.micros, reading);
    }
    assert_eq!(together.into_values().collect::<Vec<_>>(), readings(published));
}

/// A stopped log to be damaged, again and again.
struct Victim {
    stopped: Stopped,
    pristine: PathBuf,
}

impl Victim {
    fn new() -> Self {
        let stopped = Stopped::with_generations();
        let pristine = stopped.service.dir().join("pristine");
        copy(&stopped.service.wal_dir(), &pristine);
        Self { stopped, pristine }
    }

    fn restore(&self) {
        fs::remove_dir_all(self.stopped.service.wal_dir()).unwrap();
        copy(&self.pristine, &self.stopped.service.wal_dir());
    }

    /// What `verify` says about it, which must be that something is wrong.
    #[track_caller]
    fn verdict(&self) -> String {
        let answer = wal(&self.stopped.service, &["verify"]);
        assert_eq!((answer.code, answer.err.as_str()), (1, ""), "{}", answer.out);
        answer.out
    }

    /// Its export must be everything but these.
    #[track_caller]
    fn assert_exported_but(&self, lost: &Range<u64>) {
        let answer = wal(&self.stopped.service, &["export"]);
        assert_eq!(answer.code, 1, "{}", answer.err);
        let kept = self.stopped.all_but(lost);
        assert!(exported(&answer.out) == kept, "not everything but {lost:?}");
        let expected = format!("offsets {} to {}", lost.start, lost.end - 1);
        assert_says(&answer.err, &expected);
        assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
    }
}

#[track_caller]
fn assert_says(text: &str, expected: &str) {
    assert!(text.contains(expected), "{expected} in\n{text}");
}

#[test]
fn a_damaged_block_is_named_by_its_place_and_hides_nothing_behind_it() {
    let victim = Victim::new();
    let service = &victim.stopped.service;
    let file = generations(&service.wal_dir())[1].1.join("db");
    let copies = copies_of_one(&file);
    let (first, last) = (copies[0].first, copies[0].end - 1);
    let damaged = |at: u64| {
        format!("{}: byte {at}: damaged block of offsets {first} to {last}", file.display())
    };
    let gap = format!("{}: offsets {first} to {last} are lost", file.display());

    // One bit in each copy of a block.
    for copy in &copies {
        flip_bit(&file, copy.position + copy.bytes / 2);
    }
    let flipped = victim.verdict();
    for copy in &copies {
        let consequence = ", checksum mismatch: its readings are lost";
        assert_says(&flipped, &(damaged(copy.position) + consequence));
    }
    assert_says(&flipped, &gap);
    victim.assert_exported_but(&(first..last + 1));
    let from = (first - 1).to_string();
    let peek = wal(service, &["records", "--from", &from, "--limit", "2", "--json"]);
    let shown: Vec<_> = peek.out.lines().map(|line| line.split_once(',').unwrap().0).collect();
    assert_eq!(shown, [first - 1, last + 1].map(|offset| format!("{{\"offset\":{offset}")));
    let stats: Value = serde_json::from_str(&wal(service, &["stats", "--json"]).out).unwrap();
    assert_eq!(stats["lost_records"], last + 1 - first);

    // The same in only one of them: nothing is lost, but it is not as it should be.
    victim.restore();
    flip_bit(&file, copies[0].position + copies[0].bytes / 2);
    let one = victim.verdict();
    assert_says(&one, &damaged(copies[0].position));
    assert_says(&one, "nothing is lost, an intact copy is in the same file");
    assert_eq!(exported(&wal(service, &["export"]).quiet()), victim.stopped.all());

    // A sector of zeros in each copy.
    victim.restore();
    for copy in &copies {
        write_at(&file, (copy.position + copy.bytes / 2) / 512 * 512, &[0; 512]);
    }
    let zeroed = victim.verdict();
    assert_says(&zeroed, &damaged(copies[0].position));
    assert_says(&zeroed, &gap);
}

#[test]
fn a_file_that_is_cut_short_or_gone_is_named_and_hides_nothing_behind_it() {
    let victim = Victim::new();
    let service = &victim.stopped.service;
    let all = generations(&service.wal_dir());
    let (file, end) = (all[1].1.join("db"), all[2].0);
    let cut = |file: &Path, length: u64| {
        OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
    };

    cut(&file, fs::metadata(&file).unwrap().len() / 4);
    assert_says(&victim.verdict(), &format!("to {} are lost, behind byte ", end - 1));
    let survivors = frames(&file).iter().map(|frame| frame.end).max().unwrap();
    victim.assert_exported_but(&(survivors..end));

    victim.restore();
    fs::remove_file(&file).unwrap();
    assert_says(&victim.verdict(), &format!("{}: the file is missing", file.display()));
    victim.assert_exported_but(&(all[1].0..end));

    // The newest, of which only the noted positions say how far it went.
    victim.restore();
    let (newest, dir) = all.last().unwrap();
    cut(&dir.join("db"), 0);
    assert_says(
        &victim.verdict(),
        &format!("offsets {newest} to {} are lost", victim.stopped.readings - 1),
    );
}

#[test]
fn a_copy_whose_writing_a_crash_cut_off_is_no_damage() {
    let service = Stopped::with_generations().service;
    let file = generations(&service.wal_dir())[0].1.join("db");
    let all = frames(&file);
    let page_of = |position: u64| position / 4_096;
    let copy = all
        .iter()
        .filter(|frame| page_of(frame.position + 60) != page_of(frame.position + frame.bytes - 60))
        .find(|frame| all.iter().filter(|other| other.first == frame.first).count() > 1)
        .expect("a copy that lies across two pages");
    // From the next page on, there is what was there before.
    let page = (copy.position + 60) / 4_096 * 4_096 + 4_096;
    let mut random = random();
    let old: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4_096).collect();
    let rest = usize::try_from(copy.position + copy.bytes - page).unwrap().min(4_096);
    write_at(&file, page, &old[..rest]);
    let answer = wal(&service, &["verify"]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{}", answer.out);
    assert_says(&answer.out, &format!("byte {}: cut-off block of offsets", copy.position));
    assert_says(&answer.out, "; all is right");
}

#[test]
fn blocks_of_a_newer_version_are_called_that_and_not_damage() {
    let stopped = Stopped::with_generations();
    let service = &stopped.service;
    let generation = &generations(&service.wal_dir())[1].1;
    let file = generation.join("db");
    let copies = copies_of_one(&file);
    make_newer(generation, |first| first == copies[0].first);
    let answer = wal(service, &["verify"]);
    assert_eq!((answer.code, answer.err.as_str()), (1, ""));
    let line = format!(
        "{}: byte {}: block version {NEWER}, written by a newer version of this program",
        file.display(),
        copies[0].position
    );
    assert_says(&answer.out, &line);
    assert!(!answer.out.contains("damage") && !answer.out.contains("lost"), "{}", answer.out);
    let export = wal(service, &["export"]);
    assert_eq!(export.code, 1);
    assert_says(&export.err, &format!("version {NEWER}, written by a newer version"));
    let unreadable = copies[0].first..copies[0].end;
    assert!(
        exported(&export.out) == stopped.all_but(&unreadable),
        "not everything but {unreadable:?}"
    );
}

#[test]
fn what_cannot_be_looked_into_is_refused_in_one_line() {
    let broker = Mosquitto::start();
    let service = Service::new(NO_DATABASE, broker.port);
    let commands: [&[&str]; 4] = [&["stats"], &["records"], &["verify"], &["export"]];
    for command in commands {
        let refusal = wal(&service, command).refusal(1);
        assert!(refusal.contains("there is no such directory"), "{refusal}");
    }
    assert!(!service.wal_dir().exists(), "looking has made the directory");

    let mut ingestor = service.start();
    ingestor.await_ready();
    let generation = generations(&service.wal_dir())[0].1.display().to_string();
    for command in commands {
        for place in [&[][..], &["--wal-dir", &generation]] {
            let refusal = wal(&service, &[command, place].concat()).refusal(1);
            assert!(refusal.contains("is in use by a running ingestor"), "{refusal}");
        }
    }
    ingestor.must_run();
    ingestor.stop();
    assert_eq!(wal(&service, &["verify"]).code, 0);

    let elsewhere = service.dir().display().to_string();
    let refusal = wal(&service, &["stats", "--wal-dir", &elsewhere]).refusal(1);
    assert!(refusal.contains("is no WAL directory"), "{refusal}");

    for arguments in [
        &["stats", "--jsn"][..],
        &["records", "--limit", "0"],
        &["records", "--from", "-1"],
        &["export", "--from", "1"],
        &["verify", "extra"],
        &["mend"],
        &[],
    ] {
        let answer = wal(&service, arguments);
        assert_eq!((answer.code, answer.out.as_str()), (64, ""), "{arguments:?}: {}", answer.err);
        assert!(!answer.err.is_empty());
    }
    let help = wal(&service, &["--help"]).quiet();
    assert!(help.contains("mosquitto_pub -l"), "{help}");
}

#[test]
fn of_the_configuration_only_the_place_of_the_log_matters() {
    let service = Stopped::with(10).service;
    let log = service.wal_dir();
    let broken = Service::bare().set("MQTT_PORT", "none").set("WAL_DIR", log.display());
    assert_eq!(wal(&broken, &["export"]).quiet().lines().count(), 10);
    let by_file = Service::bare().set("WAL_DIR", "").set("HTTP_ADDR", "nowhere");
    let toml = by_file.dir().join("Rocket.toml");
    fs::write(&toml, format!("[default]\nwal_dir = \"{}\"\ntypo = 1\n", log.display())).unwrap();
    assert_eq!(wal(&by_file, &["export"]).quiet().lines().count(), 10);
    fs::write(&toml, "[default\n").unwrap();
    assert!(wal(&by_file, &["export"]).refusal(64).starts_with("configuration: Rocket.toml"));
    let place = log.display().to_string();
    let named = wal(&by_file, &["--wal-dir", &place, "export"]).quiet();
    assert_eq!(named.lines().count(), 10);
}

/// Every path below `dir` with its kind, permissions, time of change, and contents' hash.
fn listing(dir: &Path) -> String {
    let script = r#"cd "$0" && find . -printf '%p %y %m %s %T@ %C@\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum"#;
    let output = Command::new("sh").args(["-c", script]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn a_directory_that_cannot_be_written_is_enough_and_stays_as_it_is() {
    let stopped = Stopped::with_generations();
    let service = &stopped.service;
    let log = service.wal_dir();
    // As in a copy that somebody made without it.
    fs::remove_file(log.join("LOCK")).unwrap();
    let mode = |mode: &str| {
        assert!(Command::new("chmod").args(["-R", mode]).arg(&log).status().unwrap().success());
    };
    mode("a-w");
    let protected = listing(&log);
    assert_eq!(exported(&wal(service, &["export"]).quiet()), stopped.all());
    for command in [&["stats"][..], &["records"], &["verify"], &["export", "--all"]] {
        assert_eq!(wal(service, command).code, 0, "{command:?}");
    }
    assert_eq!(listing(&log), protected);
    mode("u+w");

    // Root may write nevertheless, unless the mount forbids it.
    let mount = |options: &[&str]| {
        let mount = Command::new("mount").args(options).args([&log, &log]).output().unwrap();
        mount.status.success()
    };
    if !mount(&["--bind"]) {
        return skip("in part: mounting takes root");
    }
    assert!(mount(&["-o", "remount,ro,bind"]));
    assert!(fs::write(log.join("probe"), "").is_err(), "it is read-only");
    let export = wal(service, &["export"]);
    let verify = wal(service, &["verify"]);
    assert!(Command::new("umount").arg("-l").arg(&log).status().unwrap().success());
    assert_eq!(exported(&export.quiet()), stopped.all());
    assert_eq!(verify.code, 0);
}

#[test]
fn a_generation_in_quarantine_gives_up_what_is_left_of_it() {
    let postgres = Postgres::start();
    let service = Stopped::with_generations().service;
    let service = service.set("DATABASE_URL", postgres.url()).set("WAL_RETAIN_SECS", 0);
    let all = generations(&service.wal_dir());
    let file = all[1].1.join("db");
    let copies = copies_of_one(&file);
    for copy in &copies {
        flip_bit(&file, copy.position + copy.bytes / 2);
    }
    let lost = copies[0].first..copies[0].end;
    let kept: Vec<_> = (all[1].0..all[2].0).filter(|n| !lost.contains(n)).map(reading).collect();
    let place = all[1].1.display().to_string();

    // Still in its log, by itself.
    let alone = wal(&service, &["export", "--wal-dir", &place]);
    assert_eq!(alone.code, 1);
    assert_eq!(exported(&alone.out), kept);

    let ingestor = service.start();
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let set_aside = service.wal_dir().join("quarantine").join(all[1].1.file_name().unwrap());
    eventually("it is in quarantine", || set_aside.join("report.json").exists().then_some(()));
    // The service goes on while it is looked at.
    for place in [&set_aside, &service.wal_dir().join("quarantine")] {
        let place = place.display().to_string();
        let export = wal(&service, &["export", "--wal-dir", &place]);
        assert_eq!(export.code, 1, "{}", export.err);
        assert_eq!(exported(&export.out), kept);
        let verify = wal(&service, &["verify", "--wal-dir", &place]);
        assert_eq!(verify.code, 1);
        let gap = format!("offsets {} to {} are lost", lost.start, lost.end - 1);
        assert_says(&verify.out, &gap);
        let stats = wal(&service, &["stats", "--json", "--wal-dir", &place]);
        let stats: Value = serde_json::from_str(&stats.quiet()).unwrap();
        assert_eq!(stats["readable_records"], kept.len());
        assert_eq!(stats["pending_records"], Value::Null);
    }
    ingestor.stop();
    let stats: Value = serde_json::from_str(&wal(&service, &["stats", "--json"]).quiet()).unwrap();
    assert_eq!(stats["quarantined"][0]["lost_ranges"][0]["from"], lost.start);
    assert!(wal(&service, &["stats"]).quiet().contains("QUARANTINE"));
}

#[test]
fn an_export_published_again_makes_the_same_table_and_so_does_psql() {
    let first_table = Postgres::start();
    let second_table = Postgres::start();
    let stopped = Stopped::with(40_000);
    let (service, all) = (&stopped.service, stopped.all());
    let export = service.dir().join("readings.ndjson");
    fs::write(&export, wal(service, &["export"]).quiet()).unwrap();
    let service = service.clone().set("DATABASE_URL", first_table.url());
    // Its broker is gone: this only stores what is in the log.
    let first = service.start();
    first_table.await_exactly(&all);
    first.stop();

    let broker = Mosquitto::start();
    let second = Service::new(&second_table.url(), broker.port);
    let mut ingestor = second.start();
    ingestor.await_ready();
    // As the help has it.
    let mut publish = guarded("mosquitto_pub");
    publish
        .args(["-l", "-q", "1", "-t", "telemetry/export", "-p", &broker.port.to_string()])
        .stdin(fs::File::open(&export).unwrap());
    let published = publish.output().expect("apt-get install mosquitto-clients");
    assert!(published.status.success(), "{published:?}");
    second_table.await_exactly(&all);
    ingestor.stop();
    assert_eq!(sorted(first_table.readings()), sorted(second_table.readings()));

    second_table.execute("truncate telemetry");
    let copied = guarded("psql")
        .args([&second_table.url(), "-v", "ON_ERROR_STOP=1", "-q"])
        .args(["-c", "create temp table export (reading jsonb)"])
        .args(["-c", r"copy export from stdin (format csv, quote e'\x01', delimiter e'\x02')"])
        .args([
            "-c",
            "insert into telemetry (device_id, ts, temperature, humidity, battery) \
             select device_id, timestamp, temperature, humidity, battery \
             from export, jsonb_to_record(reading) as (device_id text, timestamp timestamptz, \
             temperature float8, humidity float8, battery float8) on conflict do nothing",
        ])
        .stdin(fs::File::open(&export).unwrap())
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    second_table.assert_exactly(&all);
}

fn sorted(mut rows: Vec<Reading>) -> Vec<Reading> {
    rows.sort_by_key(|row| row.micros);
    rows
}

#[test]
fn whoever_stops_reading_an_export_ends_it_quietly() {
    let service = Stopped::with_generations().service;
    let mut export = guarded(INGESTOR);
    export
        .args(["wal", "export", "--wal-dir"])
        .arg(service.wal_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = export.spawn().unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    drop(lines);
    assert_eq!(exported(&line), readings(0..1));
    let ended = Answer::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));

    // Not quietly if it could not be written for another reason.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut export = guarded(INGESTOR);
    export.args(["wal", "export", "--wal-dir"]).arg(service.wal_dir()).stdout(full);
    let refusal = Answer::of(&export.output().unwrap()).refusal(1);
    assert!(refusal.contains("cannot write to standard output"), "{refusal}");
}
