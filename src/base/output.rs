//! Standard error, which is never waited for and never fatal.
//!
//! Whoever reads what a process prints may be slow, full, stopped or gone; none of that is a reason
//! to stop taking readings. So a line is put into a bounded queue, and one thread writes it out. A
//! line that finds no room, or that cannot be written, is dropped and counted; as soon as something
//! can be written again, one line says how many were. The thread may hang in its `write` for as long
//! as the process lives: it holds no lock there, and nobody joins it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait to be written at most; a longer line waits alone.
const QUEUE_BYTES: usize = 256 * 1_024;

/// How long the end of the process waits for what is queued.
const END_PATIENCE: Duration = Duration::from_millis(250);

/// Before a write is tried again on a descriptor that somebody made non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The way to standard error. Clones are the same one.
#[derive(Clone)]
pub struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
}

impl Output {
    /// Starts the thread that writes. If the system has none left, every line is dropped.
    #[must_use]
    pub fn start() -> Self {
        Self::to(io::stderr())
    }

    fn to(target: impl Write + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let shared = Arc::clone(&output.0);
        let writer = std::thread::Builder::new().name("log output".to_owned());
        // Not joined: it may hang in a write for ever. `finish` waits for what it writes.
        drop(writer.spawn(move || shared.write_lines(target)));
        output
    }

    /// Queues `text` and a line end, or drops both.
    pub fn line(&self, text: &str) {
        self.push(format!("{text}\n").into_bytes());
    }

    /// Queues `text` as it is, or drops it.
    pub(crate) fn push(&self, text: Vec<u8>) {
        let mut queue = self.0.lock();
        if !queue.lines.is_empty() && queue.bytes + text.len() > QUEUE_BYTES {
            drop(queue);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += text.len();
        queue.lines.push_back(text);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// How many lines were dropped since the start.
    #[must_use]
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written, for a quarter of a second at most; to be called at the end of the
    /// process.
    pub fn finish(&self) {
        let unwritten = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), END_PATIENCE, unwritten);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lines(&self, mut target: impl Write) {
        let mut told = 0;
        loop {
            let line = self.next_line();
            let is_written = write_all(&mut target, &line).is_ok();
            if !is_written {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if is_written && dropped > told {
                // Goes behind what waits, which is older than what was dropped.
                let lines = dropped - told;
                tracing::warn!(
                    lines,
                    "log lines were dropped, because standard error was not read fast enough"
                );
                // Said in vain, it is said again.
                if self.dropped.load(Ordering::Relaxed) == dropped {
                    told = dropped;
                }
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn next_line(&self) -> Vec<u8> {
        let nothing = |queue: &mut Queue| queue.lines.is_empty();
        let mut queue =
            self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        let line = queue.lines.pop_front().unwrap_or_default();
        queue.bytes -= line.len();
        queue.is_writing = true;
        line
    }
}

/// As `Write::write_all`, waiting too where a descriptor is non-blocking and full.
fn write_all(target: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match target.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    target.flush()
}

/// What `tracing` writes its lines with: each event is one call of `write`.
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Output {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line to standard error in a command that a person runs; what cannot be written is not
/// fatal there either.
pub(crate) fn complain(text: &str) {
    // There is nobody left to tell.
    writeln!(io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a line when it is let, or fails.
    struct Reader {
        permits: mpsc::Receiver<bool>,
        taken: mpsc::Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.permits.recv().unwrap_or(true) {
                self.taken.send(String::from_utf8_lossy(text).into_owned()).unwrap();
                return Ok(text.len());
            }
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, mpsc::Sender<bool>, mpsc::Receiver<String>) {
        let (permit, permits) = mpsc::channel();
        let (sender, taken) = mpsc::channel();
        (Output::to(Reader { permits, taken: sender }), permit, taken)
    }

    #[test]
    fn lines_come_out_in_order_and_the_end_waits_for_them() {
        let (output, permit, taken) = output();
        for text in ["one", "two"] {
            output.line(text);
            permit.send(true).unwrap();
        }
        output.finish();
        assert_eq!(taken.try_iter().collect::<Vec<_>>(), ["one\n", "two\n"]);
        assert_eq!(output.dropped(), 0);
    }

    #[test]
    fn nobody_waits_for_a_reader_who_takes_nothing_and_what_has_no_room_is_counted() {
        let (output, permit, taken) = output();
        let line = "x".repeat(1_023);
        for _ in 0..1_000 {
            output.line(&line);
        }
        // One more may be in the hands of the writer.
        let kept = 1_000 - output.dropped();
        assert!((256..=257).contains(&kept), "{kept}");
        output.finish();
        drop(permit);
        assert_eq!(taken.iter().take(256).count(), 256);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_is_tried() {
        let (output, permit, taken) = output();
        output.line("lost");
        permit.send(false).unwrap();
        output.line("written");
        permit.send(true).unwrap();
        assert_eq!(taken.recv().unwrap(), "written\n");
        assert_eq!(output.dropped(), 1);
    }
}
