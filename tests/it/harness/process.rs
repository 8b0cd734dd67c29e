//! Child processes that do not outlive the test.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{try_within, within};

/// Lines of its log that are shown when the test fails.
const LOG_LINES: usize = 60;

/// `program`, to be killed by the kernel when the test's thread ends.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    guarded_as(None, program)
}

/// As [`guarded`], for servers that refuse to run as root: as another user then.
pub(crate) fn guarded_server(program: impl AsRef<OsStr>) -> Command {
    guarded_as(server_user(), program)
}

/// Gives `path` and all below it to the user of [`guarded_server`].
pub(crate) fn give_to_server(path: &Path) {
    if let Some(user) = server_user() {
        let chown = Command::new("chown").args(["-R", &user.name]).arg(path).status();
        assert!(chown.unwrap().success());
    }
}

fn guarded_as(user: Option<User>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", &user.name, "--regid", &user.group, "--clear-groups"]);
    }
    // After the change of user, which would undo it.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

struct User {
    name: String,
    /// Its number.
    group: String,
}

/// `None` if we are not root.
fn server_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = |name: &str| {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let line = users.lines().map(fields).find(|fields| fields[0] == name)?;
        Some(User { name: name.to_owned(), group: line[3].clone() })
    };
    user("postgres").or_else(|| user("nobody"))
}

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its standard error and output in `<name>.log` and `<name>.out` of `dir`.
    pub(crate) fn spawn(name: &str, dir: &Path, command: Command) -> Self {
        let log = File::create(dir.join(format!("{name}.log"))).unwrap();
        Self::spawn_onto(log.into(), name, dir, command)
    }

    /// As [`Self::spawn`], with another standard error.
    pub(crate) fn spawn_onto(stderr: Stdio, name: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(dir.join(format!("{name}.out"))).unwrap())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Fails the test if it has ended.
    #[track_caller]
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended unexpectedly: {status}", self.name);
        }
    }

    /// Its exit code.
    #[track_caller]
    pub(crate) fn await_exit(&mut self, patience: Duration) -> i32 {
        let name = self.name.clone();
        let status = within(patience, &format!("{name} ends"), || self.ended());
        status.code().unwrap_or_else(|| panic!("{name} was ended by signal {:?}", status.signal()))
    }

    /// SIGKILL, to it alone.
    pub(crate) fn kill(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        self.child.kill().ok();
        self.child.wait().ok();
        // What libfaketime leaves in shared memory for a process that could not clean up.
        for kind in ["faketime_shm_", "sem.faketime_sem_"] {
            std::fs::remove_file(format!("/dev/shm/{kind}{}", self.child.id())).ok();
        }
    }

    /// SIGKILL, to it and all of its children, as a power cut ends them.
    pub(crate) fn kill_all(&mut self) {
        // Stopped first, it cannot start more while they are listed.
        kill_process(self.pid(), Signal::STOP).ok();
        let children = children_of(self.pid());
        self.kill();
        for child in &children {
            kill_process(*child, Signal::KILL).ok();
        }
        try_within(Duration::from_secs(10), || {
            children.iter().all(|child| is_gone(*child)).then_some(())
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- log of {}, its last lines\n{}\n---", self.name, shown.join("\n"));
        }
    }
}

pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        .collect()
}

/// Orphans are reaped late here: a zombie counts as gone, unless only its first thread is one.
fn is_gone(pid: Pid) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let Ok(stat) = std::fs::read_to_string(proc.join("stat")) else { return true };
    let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
    is_zombie && std::fs::read_dir(proc.join("task")).map_or(true, |tasks| tasks.count() <= 1)
}
