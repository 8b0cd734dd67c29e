//! What a disk may hold after a power cut.
//!
//! A [`Recording`] knows every change that a process made below one directory, in order, and every
//! sync. At a moment, a change is *safe* if a sync of its file (for a name: of its directory) that
//! began after it has completed. Anything else may be on the disk or not, a write also in part:
//! the disk writes sectors or pages, in any order. POSIX promises no more, and some filesystems
//! keep no more than that.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use follow::Reader;

use super::trace::{Moment, NEVER, Trace};

mod follow;

/// Files and directories, by their path from the directory on.
pub(super) type Image = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(Vec<u8>),
}

/// Reads what is there.
pub(super) fn read(dir: &Path) -> Image {
    fn walk(dir: &Path, from: &Path, image: &mut Image) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(from).unwrap().to_owned();
            if path.is_dir() {
                image.insert(name, Entry::Directory);
                walk(&path, from, image);
            } else {
                image.insert(name, Entry::File(fs::read(&path).unwrap()));
            }
        }
    }
    let mut image = Image::new();
    walk(dir, dir, &mut image);
    image
}

/// Makes `dir` hold `image` and nothing else.
pub(super) fn write(image: &Image, dir: &Path) {
    // It may be a mount point, which cannot be removed.
    fs::create_dir_all(dir).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    for (path, entry) in image {
        match entry {
            Entry::Directory => fs::create_dir(dir.join(path)).unwrap(),
            Entry::File(content) => fs::write(dir.join(path), content).unwrap(),
        }
    }
}

/// How a cut treats what was not safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// All of it is lost.
    Dropped,
    /// All of it is there.
    Kept,
    /// Each change is there, or not, or in part.
    Torn,
    /// Each sector holds what it held at a moment of its own.
    Scattered,
    /// What came before some moment is there, what came after is not.
    Ordered,
    /// Each file has all of it, or none.
    ByFile,
}

impl Style {
    pub(super) const ALL: [Self; 6] =
        [Self::Dropped, Self::Kept, Self::Torn, Self::Scattered, Self::Ordered, Self::ByFile];
}

/// A power cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) at: Moment,
    pub(super) contents: Style,
    pub(super) names: Style,
    /// What the disk writes at once, in bytes.
    pub(super) unit: usize,
    /// Whether a file that a lost write made longer is longer.
    pub(super) keeps_sizes: bool,
    pub(super) seed: u64,
}

type Inode = usize;

const ROOT: Inode = 0;

/// Every change below a directory.
pub(super) struct Recording {
    inodes: Vec<Node>,
    names: Vec<Named>,
    /// Of each directory: its entries as they were when the recording began.
    base: HashMap<Inode, BTreeMap<String, Inode>>,
}

#[derive(Default)]
struct Node {
    is_directory: bool,
    base: Vec<u8>,
    changes: Vec<Change>,
    /// Began and ended.
    syncs: Vec<(Moment, Moment)>,
}

struct Change {
    began: Moment,
    ended: Moment,
    kind: ChangeKind,
}

enum ChangeKind {
    Write { offset: usize, data: Vec<u8> },
    Truncate { length: usize },
}

struct Named {
    began: Moment,
    ended: Moment,
    kind: NameKind,
}

enum NameKind {
    Link { directory: Inode, name: String, inode: Inode },
    Unlink { directory: Inode, name: String },
    Rename { from: (Inode, String), to: (Inode, String), inode: Inode },
}

impl Recording {
    /// Of what `trace` changes below `dir`, which held `base`, all of it safe. With `ignored`, syncs
    /// of files for which it is true count as not done.
    pub(super) fn of(
        trace: &Trace,
        dir: &Path,
        base: &Image,
        ignored: &dyn Fn(&Path) -> bool,
    ) -> Self {
        let mut reader = Reader::new(dir, base);
        for call in &trace.calls {
            if call.succeeded() {
                reader.take(call, ignored);
            }
        }
        reader.recording
    }

    /// Moments at which names changed.
    pub(super) fn name_changes(&self) -> Vec<Moment> {
        self.names.iter().map(|named| named.ended).filter(|ended| *ended != NEVER).collect()
    }

    /// Moments at which something was not safe yet: the ends of writes.
    pub(super) fn writes(&self) -> Vec<Moment> {
        let changes = self.inodes.iter().flat_map(|node| &node.changes);
        changes.map(|change| change.ended).filter(|ended| *ended != NEVER).collect()
    }

    /// What the directory holds after a power cut.
    pub(super) fn after(&self, cut: &Cut) -> Image {
        let mut directories = self.base.clone();
        let rolled = Dice { cut, style: cut.names };
        for (index, named) in self.names.iter().enumerate() {
            if named.began > cut.at {
                continue;
            }
            let (directory, other) = match &named.kind {
                NameKind::Link { directory, .. } | NameKind::Unlink { directory, .. } => {
                    (*directory, *directory)
                }
                NameKind::Rename { from, to, .. } => (from.0, to.0),
            };
            let safe_up_to = self.safe_up_to(directory, cut).max(self.safe_up_to(other, cut));
            if named.ended >= safe_up_to && !rolled.keeps(named.began, index, directory, None) {
                continue;
            }
            match &named.kind {
                NameKind::Link { directory, name, inode } => {
                    directories.entry(*directory).or_default().insert(name.clone(), *inode);
                }
                NameKind::Unlink { directory, name } => {
                    directories.entry(*directory).or_default().remove(name);
                }
                NameKind::Rename { from, to, inode } => {
                    directories.entry(from.0).or_default().remove(&from.1);
                    directories.entry(to.0).or_default().insert(to.1.clone(), *inode);
                }
            }
        }
        let mut image = Image::new();
        self.fill(ROOT, Path::new(""), &directories, cut, &mut image);
        image
    }

    fn fill(
        &self,
        directory: Inode,
        path: &Path,
        directories: &HashMap<Inode, BTreeMap<String, Inode>>,
        cut: &Cut,
        image: &mut Image,
    ) {
        for (name, inode) in directories.get(&directory).into_iter().flatten() {
            let path = path.join(name);
            if self.inodes[*inode].is_directory {
                image.insert(path.clone(), Entry::Directory);
                self.fill(*inode, &path, directories, cut, image);
            } else {
                image.insert(path, Entry::File(self.content(*inode, cut)));
            }
        }
    }

    /// Changes that ended before this moment are safe at the cut.
    fn safe_up_to(&self, inode: Inode, cut: &Cut) -> Moment {
        let syncs = self.inodes[inode].syncs.iter();
        syncs.filter(|(_, ended)| *ended < cut.at).map(|(began, _)| *began).max().unwrap_or(0)
    }

    fn content(&self, inode: Inode, cut: &Cut) -> Vec<u8> {
        let node = &self.inodes[inode];
        let safe_up_to = self.safe_up_to(inode, cut);
        let dice = Dice { cut, style: cut.contents };
        let mut content = node.base.clone();
        for (index, change) in node.changes.iter().enumerate() {
            if change.began > cut.at {
                continue;
            }
            let is_safe = change.ended < safe_up_to;
            match &change.kind {
                ChangeKind::Truncate { length } => {
                    if is_safe || dice.keeps(change.began, index, inode, None) {
                        content.resize(*length, 0);
                    }
                }
                ChangeKind::Write { offset, data } => {
                    let end = offset + data.len();
                    if !is_safe && cut.keeps_sizes && content.len() < end {
                        content.resize(end, 0);
                    }
                    let mut at = *offset;
                    while at < end {
                        // Units lie at multiples of their length.
                        let unit = at / cut.unit;
                        let upper = ((unit + 1) * cut.unit).min(end);
                        if is_safe || dice.keeps(change.began, index, inode, Some(unit)) {
                            if content.len() < upper {
                                content.resize(upper, 0);
                            }
                            content[at..upper].copy_from_slice(&data[at - offset..upper - offset]);
                        }
                        at = upper;
                    }
                }
            }
        }
        content
    }
}

/// Decides, always the same for the same cut, what of the unsafe is there.
struct Dice<'c> {
    cut: &'c Cut,
    style: Style,
}

impl Dice<'_> {
    /// Whether a change that began at `began`, or the `unit` of it, is on the disk.
    fn keeps(&self, began: Moment, index: usize, inode: Inode, unit: Option<usize>) -> bool {
        let roll = |what: [usize; 4]| self.roll(what);
        match self.style {
            Style::Dropped => false,
            Style::Kept => true,
            Style::Torn => match roll([1, inode, index, 0]) % 3 {
                0 => false,
                1 => true,
                _ => roll([2, inode, index, unit.unwrap_or(0)]) % 2 == 0,
            },
            Style::Scattered => {
                // More often than not a moment shortly before the cut.
                let span = self.cut.at.min(1 << (roll([3, inode, unit.unwrap_or(0), 0]) % 14));
                let age = roll([4, inode, unit.unwrap_or(0), 0]) % (span + 1);
                began + age < self.cut.at
            }
            Style::Ordered => {
                let span = self.cut.at.min(1 << (roll([5, 0, 0, 0]) % 14));
                began + roll([6, 0, 0, 0]) % (span + 1) < self.cut.at
            }
            Style::ByFile => roll([7, inode, 0, 0]) % 2 == 0,
        }
    }

    fn roll(&self, what: [usize; 4]) -> usize {
        let mut state = self.cut.seed;
        for word in what {
            state = (state ^ word as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
        }
        usize::try_from(state >> 1).unwrap()
    }
}
