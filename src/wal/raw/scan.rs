//! Finding frames in the raw file of a generation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;

use crate::base::retry::read_again;
use crate::wal::found::Found;
use crate::wal::frame::{MAGIC, MAX_FRAME_BYTES};

const CHUNK_BYTES: usize = 1024 * 1024;

/// What a disk reads or does not read as one.
pub(in crate::wal) const PAGE_BYTES: usize = 4_096;

/// Reads of one file that are tried again at most: a whole file of bad pages must not take hours.
const RETRIED_READS: usize = 8;

/// Calls `each` with what is found in `file`, frames in the order in which they lie there, each with
/// its position.
///
/// # Errors
/// If the length of the file is not known.
pub(in crate::wal) fn scan(file: &File, mut each: impl FnMut(u64, Found)) -> io::Result<()> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let length = file.metadata()?.len();
    let mut reader = Reader { file, retried: 0 };
    let mut window = Vec::with_capacity(CHUNK_BYTES + MAX_FRAME_BYTES);
    let mut window_position = 0;
    loop {
        let end = window_position + window.len() as u64;
        let bytes = usize::try_from(length.saturating_sub(end)).unwrap_or(CHUNK_BYTES);
        let bytes = bytes.min(CHUNK_BYTES);
        reader.read_on(end, bytes, &mut window, &mut each);
        // A frame that begins in the last stretch may be cut off by the window's end.
        let cut_off = if bytes == 0 { 0 } else { MAX_FRAME_BYTES };
        let complete = window.len().saturating_sub(cut_off);
        let mut at = 0;
        while let Some(hit) = finder.find(&window[at..]) {
            let start = at + hit;
            if start >= complete {
                break;
            }
            let found = Found::at_start_of(&window[start..]);
            at = start + found.header().map_or(1, |header| header.frame_bytes);
            each(window_position + start as u64, found);
        }
        if bytes == 0 {
            return Ok(());
        }
        let done = complete.max(at).min(window.len());
        window.drain(..done);
        window_position += done as u64;
    }
}

struct Reader<'f> {
    file: &'f File,
    retried: usize,
}

impl Reader<'_> {
    /// Adds `bytes` bytes from `position` on to `window`, zeros where the disk does not read.
    fn read_on(
        &mut self,
        position: u64,
        bytes: usize,
        window: &mut Vec<u8>,
        each: &mut impl FnMut(u64, Found),
    ) {
        let start = window.len();
        window.resize(start + bytes, 0);
        let chunk = &mut window[start..];
        if self.file.read_exact_at(chunk, position).is_ok() {
            return;
        }
        for (page, at) in chunk.chunks_mut(PAGE_BYTES).zip((position..).step_by(PAGE_BYTES)) {
            if let Err(error) = self.read_page(page, at) {
                each(at, Found::Unreadable(error));
                page.fill(0);
            }
        }
    }

    fn read_page(&mut self, page: &mut [u8], position: u64) -> io::Result<()> {
        if self.retried == RETRIED_READS {
            return self.file.read_exact_at(page, position);
        }
        let mut is_retried = false;
        let wait = |pause| {
            is_retried = true;
            thread::sleep(pause);
        };
        let outcome = read_again(|| self.file.read_exact_at(page, position), wait);
        self.retried += usize::from(is_retried);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::telemetry::Reading;
    use crate::wal::frame;

    fn frames(count: usize) -> Vec<Vec<u8>> {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let reading = |n: usize| Reading {
            device_id: format!("device-{n}"),
            timestamp: at,
            values: [1.0, 2.0, 3.0],
        };
        let mut all = Vec::new();
        for n in 0..count {
            let mut keep = |_, _, frame| all.push(frame);
            frame::encode(n as u64, 0, &[at], &[reading(n).into()], &mut keep).unwrap();
        }
        all
    }

    #[test]
    fn frames_are_found_wherever_they_lie_even_across_windows() {
        let mut raw = Vec::new();
        let mut expected = Vec::new();
        for (n, frame) in frames(300).into_iter().enumerate() {
            raw.extend(std::iter::repeat_n(u8::try_from(n % 251).unwrap(), 7_919));
            raw.extend(MAGIC);
            expected.push(raw.len() as u64);
            raw.extend(frame);
        }
        let mut found = Vec::new();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &raw).unwrap();
        scan(&file, |position, hit| match hit {
            Found::Frame(header) => found.push((header.first, position)),
            // The magic bytes alone are no frame of any version.
            Found::Newer { version, .. } => panic!("a frame of version {version}"),
            Found::Broken { .. } | Found::Unreadable(_) => {}
        })
        .unwrap();
        let expected: Vec<_> = (0..).zip(expected).collect();
        assert_eq!(found, expected);
    }
}
