//! How long a group lingers for more messages.
//!
//! A commit costs a fifth of a millisecond of processor time, and tens of kilobytes written to the
//! disk, however small its group is. With a disk that syncs quickly, a dense stream would be
//! committed five messages at a time, and most of the work would be commits. So while messages
//! come densely, the group waits for more of them, no longer than anybody would notice.
//!
//! A linger that brings nothing is tried less and less often: a broker with a narrow window sends nothing
//! more before it has acks.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::base::retry::CountedBackoff;

/// Between two looks; longer than the pauses of the source, in which nothing comes.
const STEP: Duration = Duration::from_micros(600);

/// Messages that have to come in a step, or it is not worth another: 16,000 a second.
const DENSE: usize = 10;

/// What lingering adds at most to the wait of the first message for its ack, and a step.
const LONGEST: Duration = Duration::from_millis(2);

/// Decides how long to wait.
#[derive(Default)]
pub(super) struct Linger {
    backoff: CountedBackoff,
}

impl Linger {
    /// Waits while messages come densely and fewer than `most` are there; how many there are then.
    pub(super) fn wait<T>(&mut self, inbound: &mpsc::Receiver<T>, most: usize) -> usize {
        if !self.backoff.allows() {
            return inbound.len().min(most);
        }
        let deadline = Instant::now() + LONGEST;
        let mut there = inbound.len();
        let mut is_dense = true;
        while is_dense && there < most && Instant::now() < deadline {
            std::thread::sleep(STEP);
            let before = std::mem::replace(&mut there, inbound.len());
            is_dense = there - before >= DENSE;
        }
        if is_dense {
            self.backoff.succeeded();
        } else {
            self.backoff.failed();
        }
        there.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_stream_is_gathered_until_the_group_is_full() {
        let (sender, inbound) = mpsc::channel(1_000);
        let publisher = std::thread::spawn(move || {
            for message in 0..1_000 {
                sender.try_send(message).unwrap();
                if message % 10 == 9 {
                    std::thread::sleep(Duration::from_micros(10));
                }
            }
            sender
        });
        let mut linger = Linger::default();
        let mut gathered = 0;
        let deadline = Instant::now() + Duration::from_secs(10);
        while gathered < 100 && Instant::now() < deadline {
            gathered = linger.wait(&inbound, 100);
        }
        assert_eq!(gathered, 100);
        publisher.join().unwrap();
    }
}
