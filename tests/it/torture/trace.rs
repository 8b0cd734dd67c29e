//! What strace has seen, as a list of system calls with their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The moment of an event: its place in the order in which strace saw things begin and end, which
/// respects what caused what: strace holds each thread at the beginning and the end of a call.
pub(super) type Moment = usize;

/// Later than all others.
pub(super) const NEVER: Moment = Moment::MAX;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    /// As strace writes them.
    args: Vec<String>,
    /// `None` if the process ended in it.
    pub(super) result: Option<i64>,
    /// What a descriptor that it returned leads to.
    result_path: Option<PathBuf>,
    pub(super) began: Moment,
    /// [`NEVER`] if the process ended in it.
    pub(super) ended: Moment,
}

/// What strace has recorded.
pub(super) struct Trace {
    pub(super) calls: Vec<Call>,
    /// Wall clock of each moment, in microseconds since the Unix epoch.
    pub(super) clock: Vec<i64>,
}

/// As `strace -f -ttt -yy -xx` writes it.
pub(super) fn read(path: &Path) -> Trace {
    let mut trace = Trace { calls: Vec::new(), clock: Vec::new() };
    let mut unfinished: HashMap<String, (String, Moment)> = HashMap::new();
    for line in BufReader::new(File::open(path).unwrap()).split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (clock, rest) = rest.trim_start().split_once(' ').unwrap();
        let moment = trace.clock.len();
        trace.clock.push(micros(clock));
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread.to_owned(), (head.to_owned(), moment));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, tail) = resumed.split_once(" resumed>").unwrap();
            // One that began before strace looked.
            let Some((head, began)) = unfinished.remove(thread) else { continue };
            trace.calls.extend(call(&(head + tail), began, moment));
        } else {
            trace.calls.extend(call(rest, moment, moment));
        }
    }
    for (head, began) in unfinished.into_values() {
        trace.calls.extend(call(&head, began, NEVER));
    }
    trace.calls.sort_by_key(|call| call.began);
    trace
}

fn micros(clock: &str) -> i64 {
    clock.replace('.', "").parse().unwrap()
}

/// A call, if it is one and was begun.
fn call(text: &str, began: Moment, ended: Moment) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    // Without a result strace did not see its end.
    let (args, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
    let args = args.replace(" <unfinished ...>", "").replace(" <detached ...>", "");
    let args = args.trim_end();
    let args = args.strip_suffix(')').unwrap_or(args);
    let number = result.split([' ', '<']).next().unwrap_or_default();
    let result_number = number.parse().ok();
    let ended = if result_number.is_none() { NEVER } else { ended };
    if ended == NEVER && args.split(", ").any(|arg| arg.starts_with("0x")) {
        // Killed before strace could read what the address leads to, and so before the call began.
        return None;
    }
    Some(Call {
        name: name.to_owned(),
        args: args.split(", ").map(str::to_owned).collect(),
        result: result_number,
        result_path: led_to(result),
        began,
        ended,
    })
}

/// What stands in the angle brackets behind a descriptor.
fn led_to(descriptor: &str) -> Option<PathBuf> {
    let (_, path) = descriptor.split_once('<')?;
    let (path, _) = path.rsplit_once('>')?;
    Some(PathBuf::from(String::from_utf8(unescape(path)).ok()?))
}

/// Undoes `\xNN`.
fn unescape(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut at = 0;
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while at < text.len() {
        if text[at..].starts_with(b"\\x")
            && let (Some(high), Some(low)) = (digit(text[at + 2]), digit(text[at + 3]))
        {
            bytes.push(high << 4 | low);
            at += 4;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    bytes
}

impl Call {
    pub(super) fn succeeded(&self) -> bool {
        self.result.is_none_or(|result| result >= 0)
    }

    pub(super) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    pub(super) fn number(&self, index: usize) -> u64 {
        self.arg(index).parse().unwrap_or_else(|_| panic!("no number at {index}: {self:?}"))
    }

    /// The bytes of a quoted argument; strace was asked not to cut them off.
    pub(super) fn bytes(&self, index: usize) -> Vec<u8> {
        let quoted = self.arg(index).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        unescape(quoted.unwrap_or_else(|| panic!("no bytes at {index}: {}", self.name)))
    }

    /// The bytes that were handed over to be sent, as far as they were taken; `None` if it is no
    /// call that sends.
    pub(super) fn sent(&self) -> Option<Vec<u8>> {
        let mut bytes = match self.name.as_str() {
            "sendto" | "write" => self.bytes(1),
            "writev" => {
                let all = self.args.join(", ");
                let parts = all.split("iov_base=\"").skip(1);
                parts.flat_map(|part| unescape(part.split('"').next().unwrap())).collect()
            }
            _ => return None,
        };
        if let Some(result) = self.result {
            bytes.truncate(usize::try_from(result).unwrap_or(0));
        }
        Some(bytes)
    }

    /// The descriptor in an argument.
    pub(super) fn descriptor(&self, index: usize) -> i64 {
        let number = self.arg(index).split('<').next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("no descriptor at {index}: {self:?}"))
    }

    /// What the descriptor in an argument leads to; `None` if that has been deleted.
    pub(super) fn led_to(&self, index: usize) -> Option<PathBuf> {
        led_to(self.arg(index)).filter(|_| !self.arg(index).ends_with("(deleted)"))
    }

    /// Whether it may change what is below `dir`; not if it is about a descriptor that leads elsewhere.
    pub(super) fn may_change(&self, dir: &Path) -> bool {
        let is_by_path = self.arg(0).starts_with("AT_FDCWD");
        is_by_path || self.led_to(0).is_none_or(|path| path.starts_with(dir))
    }

    /// What the descriptor that it returned leads to.
    pub(super) fn returned_path(&self) -> Option<&Path> {
        self.result_path.as_deref()
    }

    /// The path in an argument, from the working directory `from` on.
    pub(super) fn path(&self, index: usize, from: &Path) -> PathBuf {
        let path = String::from_utf8(self.bytes(index)).unwrap();
        from.join(path)
    }

    /// The path of a `…at` call, whose directory is the argument before it.
    pub(super) fn path_at(&self, index: usize) -> PathBuf {
        let directory = self.led_to(index - 1).unwrap_or_default();
        self.path(index, &directory)
    }
}
