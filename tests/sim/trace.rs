//! What happened, as bytes: two runs are the same if these are.

use std::fmt::Write as _;

/// What happened, in the order in which it did: each a byte that says what, and two numbers.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    bytes: Vec<u8>,
}

macro_rules! events {
    ($($name:ident $text:literal,)*) => {
        /// What can happen. Its text says what the two numbers are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Happened { $($name,)* }

        const TEXTS: &[&str] = &[$($text,)*];
    };
}

events! {
    Step "decision {} at {} ms",
    Fault "fault {}",
    PutBack "reading {} is put back out of its letter",
    Published "message {} is published with QoS {}",
    Connected "the client connects after epoch {}",
    Wrote "the client writes packet {}",
    Forwarded "a message of epoch {} and position {} is taken",
    Gathered "a group of {}",
    Lettered "{} letters of bad readings: outcome {}",
    Committed "{} records are committed: outcome {}",
    Maintained "the log is maintained: {}",
    Acknowledged "message {} is acknowledged",
    Sent "offsets {} to {} are sent",
    Served "request {} is dealt with: {}",
    Answered "an answer comes: {}",
    AnswerLost "an answer is lost, was it done: {}",
    Flushed "flushed to {}",
    Rewound "rewound to {}, {} records",
    Reported "the flusher reports {}",
    FlusherEnded "the flusher has ended, in order: {}",
    Started "process {} starts: {}",
    Ended "the process is gone, with the power: {}",
    Mended "all is mended",
}

impl Trace {
    pub(crate) fn note(&mut self, happened: Happened, first: u64, second: u64) {
        self.bytes.push(happened as u8);
        self.number(first);
        self.number(second);
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One line for each thing that happened.
    pub(crate) fn render(&self) -> String {
        let mut rest = self.bytes.iter().copied();
        let mut text = String::new();
        while let Some(happened) = rest.next() {
            let (first, second) = (read(&mut rest), read(&mut rest));
            let line = TEXTS[usize::from(happened)];
            let line = line.replacen("{}", &first.to_string(), 1);
            writeln!(text, "  {}", line.replacen("{}", &second.to_string(), 1)).unwrap();
        }
        text
    }
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let mut number = 0;
    for (at, byte) in bytes.enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            break;
        }
    }
    number
}
