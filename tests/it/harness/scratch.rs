//! Directories that do not outlive the test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits until the test has dropped the directory, or is gone, and removes it, with what a test that
/// was killed has left: mounts below it, and the shared memory segment of a killed PostgreSQL, whose id
/// is in line 7 of its pid file.
const JANITOR: &str = r#"
    cat
    awk -v dir="$0/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | xargs -r umount -l
    segment=$(awk 'NR == 7 { print $2 }' "$0/data/postmaster.pid") && ipcrm -m "$segment"
    tries=0
    until rm -rf -- "$0" || [ "$((tries += 1))" -ge 100 ]; do sleep 0.1; done
"#;

/// A directory of its own, removed by a janitor process also if the test is killed.
pub(crate) struct Scratch {
    dir: PathBuf,
    janitor: Child,
    lifeline: Option<ChildStdin>,
}

impl Scratch {
    /// A new, empty one. Servers that run as another user can pass through it.
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// As [`Self::new`], in memory where the system has a place for that: for what is to take as long
    /// on every disk.
    pub(crate) fn in_memory() -> Self {
        let shared_memory = Path::new("/dev/shm");
        let may_write = rustix::fs::access(shared_memory, rustix::fs::Access::WRITE_OK).is_ok();
        if may_write { Self::below(shared_memory) } else { Self::new() }
    }

    fn below(place: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("iot-ingestor-test-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(place)
            .expect("a temporary directory")
            .keep();
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .arg(&dir)
            // Of its own, so that whoever ends the test's group does not end this one.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let lifeline = janitor.stdin.take();
        Self { dir, janitor, lifeline }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        self.janitor.wait().ok();
    }
}

/// Copies a file, or a directory with all that is in it.
#[track_caller]
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status();
    assert!(copied.unwrap().success());
}
