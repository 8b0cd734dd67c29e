//! From system calls to changes of files and names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Change, ChangeKind, Entry, Image, Inode, NameKind, Named, Node, ROOT, Recording};
use crate::harness::Scratch;
use crate::torture::trace::{self, Call, NEVER};

/// Follows the names while a trace is read.
pub(super) struct Reader<'d> {
    dir: &'d Path,
    pub(super) recording: Recording,
    /// As they are now, by their path.
    paths: BTreeMap<PathBuf, Inode>,
    /// Where `write` writes.
    positions: HashMap<i64, usize>,
    /// A change of a name was cut off, and may have happened or not.
    is_uncertain: bool,
}

impl<'d> Reader<'d> {
    pub(super) fn new(dir: &'d Path, base: &Image) -> Self {
        let root = Node { is_directory: true, ..Node::default() };
        let recording = Recording { inodes: vec![root], names: Vec::new(), base: HashMap::new() };
        let paths = BTreeMap::from([(dir.to_owned(), ROOT)]);
        let mut reader =
            Self { dir, recording, paths, positions: HashMap::new(), is_uncertain: false };
        for (path, entry) in base {
            let path = dir.join(path);
            let (is_directory, content) = match entry {
                Entry::Directory => (true, Vec::new()),
                Entry::File(content) => (false, content.clone()),
            };
            let inode = reader.add(&path, is_directory, content);
            let (directory, name) = reader.place(&path).unwrap();
            reader.recording.base.entry(directory).or_default().insert(name, inode);
        }
        reader
    }

    fn add(&mut self, path: &Path, is_directory: bool, base: Vec<u8>) -> Inode {
        let inode = self.recording.inodes.len();
        self.recording.inodes.push(Node { is_directory, base, ..Node::default() });
        self.paths.insert(path.to_owned(), inode);
        inode
    }

    /// The directory and the name of a path; `None` if there is no such directory.
    fn place(&self, path: &Path) -> Option<(Inode, String)> {
        let directory = *self.paths.get(path.parent().unwrap())?;
        Some((directory, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(self.dir) && path != self.dir
    }

    pub(super) fn take(&mut self, call: &Call, ignored: &dyn Fn(&Path) -> bool) {
        match call.name.as_str() {
            "openat" => self.open(call),
            "mkdir" => self.make(call, &call.path(0, Path::new("")), true),
            // The calls of machines that have no other.
            "mkdirat" => self.make(call, &call.path_at(1), true),
            "renameat" | "renameat2" => self.rename(call, &call.path_at(1), &call.path_at(3)),
            "rename" => {
                let (from, to) = (call.path(0, Path::new("")), call.path(1, Path::new("")));
                self.rename(call, &from, &to);
            }
            "unlink" | "rmdir" => self.remove(call, &call.path(0, Path::new(""))),
            "unlinkat" => self.remove(call, &call.path_at(1)),
            "pwrite64" => {
                let offset = usize::try_from(call.number(3)).unwrap();
                self.write(call, offset);
            }
            "write" => {
                let position = self.positions.get(&call.descriptor(0)).copied().unwrap_or(0);
                self.write(call, position);
                self.positions.insert(call.descriptor(0), position.saturating_add(written(call)));
            }
            "ftruncate" => {
                let length = usize::try_from(call.number(1)).unwrap();
                self.change(call, ChangeKind::Truncate { length });
            }
            "fsync" | "fdatasync" => {
                let Some(path) = call.led_to(0) else { return };
                if let Some(inode) = self.paths.get(&path)
                    && call.ended != NEVER
                    && !ignored(&path)
                {
                    self.recording.inodes[*inode].syncs.push((call.began, call.ended));
                }
            }
            "sendto" | "sync_file_range" => {}
            other => {
                let touches =
                    (0..4).any(|index| call.led_to(index).is_some_and(|p| self.is_ours(&p)));
                assert!(!touches, "{other} changes the disk, and the model does not know it");
            }
        }
    }

    fn open(&mut self, call: &Call) {
        let flags = call.arg(2);
        let Some(path) = call.returned_path().map(Path::to_owned) else {
            self.is_uncertain |= call.result.is_none() && flags.contains("O_CREAT");
            return;
        };
        if !self.is_ours(&path) {
            return;
        }
        self.positions.insert(call.result.unwrap(), 0);
        if flags.contains("O_CREAT") && !self.paths.contains_key(&path) {
            self.make(call, &path, false);
        } else if flags.contains("O_TRUNC") {
            let Some(&inode) = self.paths.get(&path) else { return self.could_not(call) };
            let kind = ChangeKind::Truncate { length: 0 };
            let (began, ended) = (call.began, call.ended);
            self.recording.inodes[inode].changes.push(Change { began, ended, kind });
        }
    }

    fn make(&mut self, call: &Call, path: &Path, is_directory: bool) {
        if self.is_ours(path) {
            let Some((directory, name)) = self.place(path) else { return self.could_not(call) };
            if self.paths.contains_key(path) {
                return self.could_not(call);
            }
            let inode = self.add(path, is_directory, Vec::new());
            self.name(call, NameKind::Link { directory, name, inode });
        }
    }

    fn rename(&mut self, call: &Call, from: &Path, to: &Path) {
        if !self.is_ours(from) {
            return;
        }
        let (Some(&inode), Some(old), Some(new)) =
            (self.paths.get(from), self.place(from), self.place(to))
        else {
            return self.could_not(call);
        };
        let kind = NameKind::Rename { from: old, to: new, inode };
        let moved: Vec<_> =
            self.paths.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let inode = self.paths.remove(&path).unwrap();
            let rest = path.strip_prefix(from).unwrap();
            let path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.paths.insert(path, inode);
        }
        self.name(call, kind);
    }

    fn remove(&mut self, call: &Call, path: &Path) {
        if self.is_ours(path) {
            let Some((directory, name)) = self.place(path) else { return self.could_not(call) };
            if self.paths.remove(path).is_none() {
                return self.could_not(call);
            }
            self.name(call, NameKind::Unlink { directory, name });
        }
    }

    fn write(&mut self, call: &Call, offset: usize) {
        let is_ours = call.led_to(0).is_some_and(|path| self.is_ours(&path));
        if is_ours {
            let mut data = call.bytes(1);
            data.truncate(written(call).min(data.len()));
            self.change(call, ChangeKind::Write { offset, data });
        }
    }

    fn change(&mut self, call: &Call, kind: ChangeKind) {
        let Some(path) = call.led_to(0).filter(|path| self.is_ours(path)) else { return };
        let Some(&inode) = self.paths.get(&path) else { return self.could_not(call) };
        let (began, ended) = (call.began, call.ended);
        self.recording.inodes[inode].changes.push(Change { began, ended, kind });
    }

    fn name(&mut self, call: &Call, kind: NameKind) {
        let (began, ended) = (call.began, call.ended);
        self.is_uncertain |= ended == NEVER;
        self.recording.names.push(Named { began, ended, kind });
    }

    /// What the model holds impossible changes nothing. Only a call that was cut off may be that, such as
    /// a `mkdir` before that of the directory above, or one after a cut-off change of a name; else the
    /// model is wrong.
    fn could_not(&self, call: &Call) {
        assert!(
            call.result.is_none() || self.is_uncertain,
            "the model does not know where this was done: {call:?}"
        );
    }
}

/// How many bytes a call has written; all, as far as is known.
fn written(call: &Call) -> usize {
    call.result.map_or(usize::MAX, |result| usize::try_from(result).unwrap())
}

#[test]
fn a_call_that_was_cut_off_and_could_not_have_worked_changes_nothing() {
    // As `create_dir_all` goes. Then it is killed: at the beginning of a second one, in one for a
    // directory that exists, before strace could read what is to be made, and in a `rename`, which the
    // model takes for done.
    let text = r#"
        7 1.000000 mkdir("/log/1/blobs", 0777) = -1 ENOENT (No such file or directory)
        7 1.000001 mkdir("/log/1", 0777) = 0
        7 1.000002 mkdir("/log/1/blobs", 0777) = 0
        7 1.000003 mkdir("/log/2/blobs", 0777 <unfinished ...>
        8 1.000004 mkdir("/log/1", 0777) = ?
        9 1.000005 mkdir(0x7ffe12345678, 0777 <unfinished ...>
        10 1.000006 rename("/log/1/blobs", "/log/1/x" <detached ...>
        11 1.000007 rename("/log/1/blobs", "/log/1/y") = 0
    "#;
    let lines: Vec<_> = text.trim().lines().map(str::trim).collect();
    let scratch = Scratch::new();
    let file = scratch.path().join("strace.log");
    fs::write(&file, lines.join("\n")).unwrap();
    let recording =
        Recording::of(&trace::read(&file), Path::new("/log"), &Image::new(), &|_| false);
    assert_eq!(recording.names.len(), 3);
}
