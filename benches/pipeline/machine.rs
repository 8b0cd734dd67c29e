//! What all of this was measured on.

use std::fs::read_to_string;
use std::process::Command;

pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = value_of(&cpus, "model name").unwrap_or("an unknown processor");
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        value_of(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
    let memory: u64 = memory.unwrap_or(0) >> 20;
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let filesystem =
        output(Command::new("stat").args(["-f", "-c", "%T"]).arg(std::env::temp_dir()));
    format!(
        "{cores} cores of {cpu}, {memory} GiB, Linux {}, {}, {}, {}",
        kernel.trim(),
        filesystem.trim().replace("ext2/ext3", "ext4"),
        output(Command::new(crate::harness::postgres::bin_dir().join("postgres")).arg("-V"))
            .trim()
            .replace("postgres (PostgreSQL)", "PostgreSQL"),
        output(Command::new("/usr/sbin/mosquitto").arg("-h")).lines().next().unwrap_or("Mosquitto"),
    )
}

fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}
