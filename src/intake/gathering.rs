//! How long to gather a group.
//!
//! A commit costs a fifth of a millisecond of processor time, and tens of kilobytes written to the
//! disk, however small its group is. With a disk that syncs quickly, a dense stream would be
//! committed five messages at a time, and most of the work would be commits. So while messages
//! come densely, the group waits for more of them, no longer than anybody would notice.
//!
//! Whoever waits in vain does so less and less often: a broker with a narrow window sends nothing
//! more before it has acks.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Between two looks.
const STEP: Duration = Duration::from_micros(250);

/// Messages that have to come in a step, or it is not worth another: 16,000 a second.
const DENSE: usize = 4;

/// What gathering adds at most to the wait of the first message for its ack.
const LONGEST: Duration = Duration::from_millis(2);

/// Most groups that are not waited for after a wait in vain, as a power of two; with the first one,
/// it is one group.
const MOST_PASSED_OVER: u32 = 6;

/// Decides how long to wait.
#[derive(Default)]
pub(super) struct Gathering {
    pass_over: u32,
    /// Waits in vain, one after the other; counted up to [`MOST_PASSED_OVER`].
    in_vain: u32,
}

impl Gathering {
    /// Waits while messages come densely and fewer than `most` are there; how many there are then.
    pub(super) fn wait<T>(&mut self, inbound: &mpsc::Receiver<T>, most: usize) -> usize {
        if let Some(left) = self.pass_over.checked_sub(1) {
            self.pass_over = left;
            return inbound.len().min(most);
        }
        let deadline = Instant::now() + LONGEST;
        let mut there = inbound.len();
        while there < most && Instant::now() < deadline {
            std::thread::sleep(STEP);
            let before = std::mem::replace(&mut there, inbound.len());
            if there - before < DENSE {
                break;
            }
        }
        if there < DENSE {
            self.pass_over = 1 << self.in_vain;
            self.in_vain = (self.in_vain + 1).min(MOST_PASSED_OVER);
        } else {
            self.in_vain = 0;
        }
        there.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_alone_is_waited_for_less_and_less_often() {
        let (_sender, inbound) = mpsc::channel::<()>(8);
        let mut gathering = Gathering::default();
        let mut waits = 0;
        for _ in 0..1_000 {
            let was_passed_over = gathering.pass_over > 0;
            assert_eq!(gathering.wait(&inbound, 100), 0);
            waits += u32::from(!was_passed_over);
        }
        // After 1, 2, 4, … 64 groups, then after every 64.
        assert_eq!(waits, 7 + (1_000 - 127 - 7_u32).div_ceil(65));
    }

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
        let mut gathering = Gathering::default();
        let mut gathered = 0;
        let deadline = Instant::now() + Duration::from_secs(10);
        while gathered < 100 && Instant::now() < deadline {
            gathered = gathering.wait(&inbound, 100);
        }
        assert_eq!(gathered, 100);
        publisher.join().unwrap();
    }
}
