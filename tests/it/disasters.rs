//! A disk that is really full, and a log that is damaged: both end well by themselves.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::backlog::{self, generations};
use crate::harness::scratch::copy;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, array, eventually, eventually_eq, reading,
    readings, skip, skip_without,
};

/// A filesystem of its own, gone with the test.
pub(crate) struct SmallFilesystem {
    place: PathBuf,
    /// The file that it is in, if it is not in memory.
    image: Option<PathBuf>,
}

impl SmallFilesystem {
    /// In memory. `None`, and a line that says so, if we may not.
    pub(crate) fn mount(place: &Path, options: &str) -> Option<Self> {
        let small = Self { place: place.to_owned(), image: None };
        small.enter(&["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// An ext4 in the file `image`, which turns read-only upon an error. `None`, and a line that says
    /// so, if we may not.
    pub(crate) fn mount_ext4(place: &Path, image: &Path) -> Option<Self> {
        let made = Command::new("mke2fs").args(["-F", "-t", "ext4"]).arg(image).arg("64M").output();
        if !made.is_ok_and(|made| made.status.success()) {
            skip_without("mke2fs makes no filesystem: apt-get install e2fsprogs");
            return None;
        }
        let small = Self { place: place.to_owned(), image: Some(image.to_owned()) };
        let small = small.enter(&["-o", "loop,errors=remount-ro", &image.to_string_lossy()])?;
        if fs::OpenOptions::new().write(true).open(small.trigger()).is_err() {
            let trigger = small.trigger();
            skip(&format!("the kernel takes no order to find an error in {}", trigger.display()));
            return None;
        }
        Some(small)
    }

    fn enter(self, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(&self.place).unwrap();
        let mount = Command::new("mount").args(arguments).arg(&self.place).output().unwrap();
        if !mount.status.success() {
            let said = String::from_utf8_lossy(&mount.stderr);
            skip(&format!("mounting takes root: {}", said.trim()));
            std::mem::forget(self);
            return None;
        }
        Some(self)
    }

    /// Changes its options, such as its size.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mount = Command::new("mount").args(["-o", &options]).arg(&self.place).status();
        assert!(mount.unwrap().success());
    }

    /// Has an ext4 find an error, and so turn read-only below the files that are open.
    pub(crate) fn break_down(&self) {
        fs::write(self.trigger(), "1").unwrap();
    }

    /// Where an ext4 is told to find an error.
    fn trigger(&self) -> PathBuf {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let place = self.place.to_string_lossy();
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let device = fields.find(|fields| fields[1] == place).expect("it is mounted")[0];
        let name = Path::new(device).file_name().unwrap();
        Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error")
    }

    /// Mounts an ext4 anew, as a reboot does.
    pub(crate) fn mend(&self) {
        let unmount = Command::new("umount").arg(&self.place).status();
        assert!(unmount.unwrap().success());
        let image = self.image.as_ref().expect("an ext4");
        let mount = Command::new("mount").args(["-o", "loop"]).args([image, &self.place]).status();
        assert!(mount.unwrap().success());
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        // Lazily: the process that uses it may still be on its way out.
        let unmount = Command::new("umount").arg("-l").arg(&self.place).status();
        assert!(unmount.unwrap().success());
    }
}

#[test]
fn a_filesystem_filled_to_the_brim_with_the_database_down_loses_and_doubles_nothing() {
    const READINGS_A_MESSAGE: u64 = 50;
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        // Nothing stops it before the disk does.
        .set("WAL_MIN_FREE_BYTES", 0)
        .set("WAL_GENERATION_BYTES", 4 << 20);
    let wal_dir = service.wal_dir();
    let Some(_small) = SmallFilesystem::mount(&wal_dir, "size=24m") else { return };
    let mut ingestor = service.start();
    ingestor.await_ready();
    postgres.stop();

    let mut devices = Publisher::connect(broker.port);
    let mut published = 0;
    let mut send = |messages: u64| -> u64 {
        for _ in 0..messages {
            let numbers = published..published + READINGS_A_MESSAGE;
            devices.publish("telemetry/batch", array(&readings(numbers)));
            published += READINGS_A_MESSAGE;
        }
        devices.finish();
        published
    };
    while ingestor.health()["wal"] != "full" {
        assert!(send(100) < 5_000_000, "it is never full");
    }
    eventually_eq("it has left the broker", &0, || ingestor.metric("ingestor_mqtt_connected"));
    eventually("it says so", || {
        let says = |message| !ingestor.log_of(message).is_empty();
        (says("the disk is full") || says("the log is full")).then_some(())
    });
    // It stays up, and a restart on the full disk does not change that.
    let published = send(200);
    ingestor.kill();
    let mut ingestor = service.start();
    postgres.launch();

    postgres.await_exactly(&readings(0..published));
    ingestor.await_ready();
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    assert_eq!(ingestor.metric("ingestor_wal_lost_records_total"), 0);
    ingestor.must_run();
}

/// What can happen to the file of a generation.
#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBits,
    ZeroedSectors,
    Truncation,
    MissingFile,
    Garbage,
}

const DAMAGES: [Damage; 5] = [
    Damage::FlippedBits,
    Damage::ZeroedSectors,
    Damage::Truncation,
    Damage::MissingFile,
    Damage::Garbage,
];

impl Damage {
    fn inflict(self, generation: &Path, random: &mut fastrand::Rng) {
        let path = generation.join("db");
        // Whatever the damage, a crash has also left one of these.
        fs::write(generation.join("snap.0000000000000001.generating"), b"half").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        match self {
            Self::MissingFile => fs::remove_file(&path).unwrap(),
            Self::Truncation => file.set_len(random.u64(..length)).unwrap(),
            Self::FlippedBits => (0..20).for_each(|_| {
                let at = random.u64(..length);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << random.u8(..8)], at).unwrap();
            }),
            Self::ZeroedSectors => (0..20).for_each(|_| {
                file.write_all_at(&[0; 512], random.u64(..length / 512) * 512).unwrap();
            }),
            Self::Garbage => {
                let noise: Vec<u8> = (0..length / 3).map(|_| random.u8(..)).collect();
                file.write_all_at(&noise, random.u64(..length / 2)).unwrap();
            }
        }
    }
}

#[test]
fn damage_to_one_generation_costs_none_of_the_others_and_is_reported_by_offset() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_GENERATION_BYTES", 1 << 20)
        // What is damaged is set aside as soon as the rest of it is stored.
        .set("WAL_RETAIN_SECS", 0)
        .set("RUST_LOG", "info");
    let mut ingestor = service.start();
    ingestor.await_ready();
    ingestor.await_metric("ingestor_db_up", 1);
    postgres.stop();
    let mut devices = Publisher::connect(broker.port);
    let published = backlog::fill(&service, &mut ingestor, &mut devices, 4);
    ingestor.stop();
    postgres.launch();
    let pristine = service.dir().join("pristine");
    copy(&service.wal_dir(), &pristine);

    for seed in 0..10 {
        eprintln!("seed {seed}");
        postgres.execute("truncate telemetry");
        fs::remove_dir_all(service.wal_dir()).unwrap();
        copy(&pristine, &service.wal_dir());
        let mut random = fastrand::Rng::with_seed(seed);
        let damage = DAMAGES[usize::try_from(seed).unwrap() % DAMAGES.len()];
        let all = generations(&service.wal_dir());
        let victim = random.usize(..all.len());
        damage.inflict(&all[victim].1, &mut random);
        let end = all.get(victim + 1).map_or(published, |(first, _)| *first);

        let mut ingestor = service.start();
        eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
        ingestor.must_run();
        let lost = await_lost(&ingestor, &service.wal_dir());
        let hit = all[victim].0..end;
        assert!(lost.iter().all(|offset| hit.contains(offset)), "{damage:?} of {hit:?}");
        // One publisher, so that a reading's number is its offset.
        let kept: Vec<_> =
            (0..published).filter(|number| !lost.contains(number)).map(reading).collect();
        postgres.assert_exactly(&kept);
        if matches!(damage, Damage::MissingFile) {
            assert_eq!(lost, hit.collect::<BTreeSet<u64>>());
        }
        ingestor.stop();
        assert_eq!(postgres.count(), kept.len());
    }
}

/// As [`lost_offsets`], once they are as many as are counted: a generation is set aside only after
/// the last of its records has been stored.
#[track_caller]
pub(crate) fn await_lost(ingestor: &Ingestor, wal_dir: &Path) -> BTreeSet<u64> {
    eventually("what is lost is reported", || {
        let lost = lost_offsets(wal_dir);
        (ingestor.metric("ingestor_wal_lost_records_total") == lost.len() as u64).then_some(lost)
    })
}

/// Every offset that a report in the quarantine calls lost.
pub(crate) fn lost_offsets(wal_dir: &Path) -> BTreeSet<u64> {
    let Ok(set_aside) = fs::read_dir(wal_dir.join("quarantine")) else { return BTreeSet::new() };
    let mut lost = BTreeSet::new();
    for entry in set_aside {
        // Whatever else is there is somebody's own.
        let Ok(report) = fs::read(entry.unwrap().path().join("report.json")) else { continue };
        // Nor is one that is being written.
        let Ok(report) = serde_json::from_slice::<serde_json::Value>(&report) else { continue };
        for range in report["lost_ranges"].as_array().unwrap() {
            let bound = |name: &str| range[name].as_u64().unwrap();
            let range: Range<u64> = bound("from")..bound("to") + 1;
            lost.extend(range);
        }
    }
    lost
}
