//! From system calls to changes of files and names.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::{Change, ChangeKind, Entry, Image, Inode, NameKind, Named, Node, ROOT, Recording};
use crate::torture::trace::{Call, NEVER};

/// Follows the names while a trace is read.
pub(super) struct Reader<'d> {
    dir: &'d Path,
    pub(super) recording: Recording,
    /// As they are now, by their path.
    paths: BTreeMap<PathBuf, Inode>,
    /// Where `write` writes.
    positions: HashMap<i64, usize>,
}

impl<'d> Reader<'d> {
    pub(super) fn new(dir: &'d Path, base: &Image) -> Self {
        let root = Node { is_directory: true, ..Node::default() };
        let recording = Recording { inodes: vec![root], names: Vec::new(), base: HashMap::new() };
        let paths = BTreeMap::from([(dir.to_owned(), ROOT)]);
        let mut reader = Self { dir, recording, paths, positions: HashMap::new() };
        for (path, entry) in base {
            let path = dir.join(path);
            let (is_directory, content) = match entry {
                Entry::Directory => (true, Vec::new()),
                Entry::File(content) => (false, content.clone()),
            };
            let inode = reader.add(&path, is_directory, content);
            let (directory, name) = reader.place(&path);
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

    /// The directory and the name of a path.
    fn place(&self, path: &Path) -> (Inode, String) {
        let directory = self.paths[path.parent().unwrap()];
        (directory, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(self.dir) && path != self.dir
    }

    pub(super) fn take(&mut self, call: &Call, ignored: &dyn Fn(&Path) -> bool) {
        match call.name.as_str() {
            "openat" => self.open(call),
            "mkdir" => self.make(call, &call.path(0, Path::new("")), true),
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
        let Some(path) = call.returned_path().map(Path::to_owned) else { return };
        if !self.is_ours(&path) {
            return;
        }
        self.positions.insert(call.result.unwrap(), 0);
        let flags = call.arg(2);
        if flags.contains("O_CREAT") && !self.paths.contains_key(&path) {
            self.make(call, &path, false);
        } else if flags.contains("O_TRUNC") {
            let inode = self.paths[&path];
            let kind = ChangeKind::Truncate { length: 0 };
            let (began, ended) = (call.began, call.ended);
            self.recording.inodes[inode].changes.push(Change { began, ended, kind });
        }
    }

    fn make(&mut self, call: &Call, path: &Path, is_directory: bool) {
        if self.is_ours(path) {
            let inode = self.add(path, is_directory, Vec::new());
            let (directory, name) = self.place(path);
            self.name(call, NameKind::Link { directory, name, inode });
        }
    }

    fn rename(&mut self, call: &Call, from: &Path, to: &Path) {
        if !self.is_ours(from) {
            return;
        }
        let inode = self.paths[from];
        let kind = NameKind::Rename { from: self.place(from), to: self.place(to), inode };
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
            let (directory, name) = self.place(path);
            self.paths.remove(path);
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
        let inode = self.paths[&path];
        let (began, ended) = (call.began, call.ended);
        self.recording.inodes[inode].changes.push(Change { began, ended, kind });
    }

    fn name(&mut self, call: &Call, kind: NameKind) {
        let (began, ended) = (call.began, call.ended);
        self.recording.names.push(Named { began, ended, kind });
    }
}

/// How many bytes a call has written; all, as far as is known.
fn written(call: &Call) -> usize {
    call.result.map_or(usize::MAX, |result| usize::try_from(result).unwrap())
}
