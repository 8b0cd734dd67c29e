//! `ingestor import`: puts a file into a running service, by its HTTP.
//!
//! A body is about what the service commits as one group; one that was not answered is sent again as a whole, of
//! which a part may be in the log already. The unique key makes one row of a reading that comes twice, so a whole
//! file can be sent again, too: what the table has already is counted as known.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::body::Bytes;
use serde::Deserialize;
use url::Url;

use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::cli::client;

mod batches;
mod requests;

use batches::{Batches, Format};
use requests::Client;

/// What `ingestor import` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    #[arg(long, help = URL_HELP)]
    url: Option<Url>,
    /// PEM file with the authority of the certificate at --url, beside those of the system
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    #[arg(long, help = TOKEN_HELP)]
    token: Option<String>,
    /// The table that the rows belong into [default: that which a line names, or telemetry]
    #[arg(long, conflicts_with = "topic")]
    table: Option<String>,
    /// Have each line go through the mappings as if it came on this topic
    #[arg(long)]
    topic: Option<String>,
    /// What the file is [default: told by its first character]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

const URL_HELP: &str = "Where the service is [default: this machine, at HTTP_ADDR]";
const TOKEN_HELP: &str =
    "The admin token of the service; others on this machine can see it here [default: ADMIN_TOKEN]";

const AFTER_HELP: &str = "\
Reads NDJSON as `ingestor wal export` writes it, rows of mapped tables included, or CSV or NDJSON as
`GET /api/v1/telemetry` answers it, and sends it to a running service, which validates each reading and
puts it into its log. Of the configuration only HTTP_ADDR, HTTP_TLS_CERT_FILE and ADMIN_TOKEN are read.

At the end it says how many readings are
  stored    in the log, and on their way into the table;
  known     in the table already when they were sent, which changes nothing;
  rejected  by validation: the first hundred are named with their place in the file.
One that still waits in the log counts as stored when it is sent again. While the database does not answer,
nobody can tell known readings: then they are \"accepted\".

What is broken off can be started again with the same file. A service that is full, or that restarts, is
waited for.

  Move a log to another box:  ingestor wal export | ingestor import --url https://other:8080 -
  Put an export back in:      curl -o day.csv 'localhost:8080/api/v1/telemetry?format=csv&start=2026-01-01'
                              ingestor import day.csv

Exit codes: 0 all of it is stored or known, 1 something is not, 64 bad arguments or configuration.";

/// Rejected readings that are named.
const NAMED: usize = 100;

/// How often what was done is told.
const TELL: Duration = Duration::from_secs(1);

/// A service that does not answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that a service may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why an import ended before the end of its file; each is a line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {0}: {1}")]
    File(String, io::Error),
    #[error("{0} does not answer: {1}")]
    Silent(String, client::Error),
    #[error("the service refuses it: {0}")]
    Refused(String),
    #[error("what answers is no ingestor: {0}")]
    Foreign(String),
}

/// Sends the file; the exit code.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Mistakes> {
    let mut from = Sources::of_this_process();
    let token = arguments.token.clone().or_else(|| from.optional_secret("ADMIN_TOKEN"));
    if token.is_none() {
        from.mistake("ADMIN_TOKEN: the service is asked with it; set it, or say --token");
    }
    let query = query(arguments);
    let (url, ca_file) = (arguments.url.as_ref(), arguments.ca_file.as_deref());
    let client = Client::new(&mut from, url, ca_file, &query, &token.unwrap_or_default());
    let client = client.map_err(|mistake| from.mistake(mistake)).ok();
    from.mistakes_so_far()?;
    let Some(mut client) = client else { return Ok(ExitCode::FAILURE) };
    let mut tally = Tally::new();
    let outcome = open(&arguments.file).and_then(|(input, bytes)| {
        tally.bytes = bytes;
        import(input, arguments, &mut client, &mut tally)
    });
    tally.clear_line();
    if let Err(failure) = &outcome {
        complain(&format!("ingestor: {failure}"));
        if tally.readings() > 0 {
            complain("run it again to go on: what is there already counts as known");
        }
    }
    // Whoever does not read it has seen enough.
    writeln!(io::stdout(), "{}", tally.sentence()).ok();
    let is_all = outcome.is_ok() && tally.rejected == 0;
    Ok(if is_all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn query(arguments: &Arguments) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("count_known", "true");
    for (name, value) in [("table", &arguments.table), ("topic", &arguments.topic)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn open(name: &str) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if name == "-" {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let unreadable = |error| Failure::File(name.to_owned(), error);
    let file = File::open(name).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(256 * 1024, file)), bytes))
}

fn import(
    input: Box<dyn BufRead>,
    arguments: &Arguments,
    client: &mut Client,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let unreadable = |error| Failure::File(arguments.file.clone(), error);
    let mut batches = Batches::new(input, arguments.format).map_err(unreadable)?;
    if arguments.topic.is_some() {
        batches = batches.into_messages();
    }
    while let Some(body) = batches.next().map_err(unreadable)? {
        let answer = send(client, batches.format(), &body.into(), tally)?;
        tally.add(answer, batches.read);
    }
    Ok(())
}

/// What is read of the answer to a body.
#[derive(Deserialize)]
struct Uploaded {
    accepted: u64,
    known: Option<u64>,
    rejected: Vec<Rejected>,
    /// If they are more than are listed.
    rejected_total: Option<u64>,
}

#[derive(Deserialize)]
struct Rejected {
    index: u64,
    reason: String,
}

/// Sends a body until it is answered, and returns what became of it.
fn send(
    client: &mut Client,
    format: Format,
    body: &Bytes,
    tally: &mut Tally,
) -> Result<Uploaded, Failure> {
    let mut silent_since = None;
    let mut is_told = false;
    loop {
        match client.post(format.content_type(), body) {
            Ok(answer) if answer.status == 200 => {
                return serde_json::from_slice(&answer.body)
                    .map_err(|error| Failure::Foreign(error.to_string()));
            }
            Ok(answer) if answer.status == 503 => {
                silent_since = None;
                tally.has_answer = true;
                if !std::mem::replace(&mut is_told, true) {
                    tally.clear_line();
                    complain(&format!("waiting: {}", sentence(&answer.body)));
                }
                std::thread::sleep(answer.retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE));
            }
            Ok(answer) => {
                let status = answer.status;
                return Err(Failure::Refused(format!("{} ({status})", sentence(&answer.body))));
            }
            // A service that restarts is waited for, but not one that was never there.
            Err(error) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if !tally.has_answer || since.elapsed() > PATIENCE {
                    return Err(Failure::Silent(client.host().to_owned(), error));
                }
                if !std::mem::replace(&mut is_told, true) {
                    tally.clear_line();
                    complain(&format!("waiting: {} does not answer: {error}", client.host()));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// The error of an answer.
fn sentence(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    match serde_json::from_slice(body) {
        Ok(Body { error }) => error,
        Err(_) => String::from_utf8_lossy(body).chars().take(200).collect(),
    }
}

/// What was done so far.
struct Tally {
    began: Instant,
    told: Instant,
    /// Of the file, if that is known.
    bytes: Option<u64>,
    accepted: u64,
    /// `None`: at least once nobody could tell.
    known: Option<u64>,
    rejected: u64,
    named: usize,
    /// Whether the service has answered at all.
    has_answer: bool,
    /// Whether a line stands on the terminal that is to be written over.
    has_line: bool,
}

impl Tally {
    fn new() -> Self {
        let began = Instant::now();
        let known = Some(0);
        Self {
            began,
            told: began,
            bytes: None,
            accepted: 0,
            known,
            rejected: 0,
            named: 0,
            has_answer: false,
            has_line: false,
        }
    }

    fn readings(&self) -> u64 {
        self.accepted + self.rejected
    }

    fn add(&mut self, answer: Uploaded, read: u64) {
        self.has_answer = true;
        let (before, listed) = (self.readings(), answer.rejected.len() as u64);
        for Rejected { index, reason } in answer.rejected {
            self.named += 1;
            if self.named <= NAMED {
                self.clear_line();
                complain(&format!("reading {}: {reason}", before + index + 1));
            } else if self.named == NAMED + 1 {
                self.clear_line();
                complain("more readings are rejected, which are not named");
            }
        }
        self.accepted += answer.accepted;
        self.rejected += answer.rejected_total.unwrap_or(listed);
        self.known = self.known.zip(answer.known).map(|(all, known)| all + known);
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            let share = self.bytes.filter(|bytes| *bytes > 0);
            let share = share
                .map_or(String::new(), |bytes| format!(", {} %", read.min(bytes) * 100 / bytes));
            #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
            let rate = self.readings() as f64 / self.began.elapsed().as_secs_f64();
            self.show(&format!("{}{share}, {rate:.0} readings/s", self.sentence()));
        }
    }

    fn show(&mut self, line: &str) {
        if io::stderr().is_terminal() {
            self.clear_line();
            // Nobody misses a line of progress.
            write!(io::stderr(), "{line}").ok();
            self.has_line = true;
        } else {
            complain(line);
        }
    }

    fn clear_line(&mut self) {
        if std::mem::take(&mut self.has_line) {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }

    fn sentence(&self) -> String {
        let Self { accepted, rejected, .. } = self;
        match self.known {
            Some(known) => {
                format!("{} stored, {known} known, {rejected} rejected", accepted - known)
            }
            None => format!(
                "{accepted} accepted, {rejected} rejected; how many were known cannot be told, as the database did not answer"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_service_that_is_full_or_restarts_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let good = r#"{"accepted":1,"known":0,"rejected":[]}"#;
        let server = std::thread::spawn(move || {
            let full = "HTTP/1.1 503 x\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
            let done = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{good}",
                good.len()
            );
            for answer in [full, "", &done, &done] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut sent = Vec::new();
                while !sent.ends_with(b"\n{}") {
                    let mut piece = [0; 1_024];
                    let length = stream.read(&mut piece).unwrap();
                    assert!(length > 0, "the body is not whole");
                    sent.extend_from_slice(&piece[..length]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut from = Sources::new(BTreeMap::new(), "");
        let url = Url::parse(&format!("http://{address}")).unwrap();
        let mut client = Client::new(&mut from, Some(&url), None, "", "token").unwrap();
        let (body, mut tally) = (Bytes::from_static(b"\n{}"), Tally::new());
        for _ in 0..2 {
            let answer = send(&mut client, Format::Ndjson, &body, &mut tally).unwrap();
            tally.add(answer, 1);
        }
        server.join().unwrap();
        assert_eq!(tally.sentence(), "2 stored, 0 known, 0 rejected");
    }

    #[test]
    fn what_cannot_be_known_is_not_told_as_if_it_were() {
        let mut tally = Tally::new();
        for (accepted, known) in [(5, Some(2)), (3, None), (4, Some(4))] {
            tally.add(
                Uploaded { accepted, known, rejected: Vec::new(), rejected_total: Some(1) },
                1,
            );
        }
        let said = tally.sentence();
        assert!(
            said.starts_with("12 accepted, 3 rejected; ") && !said.contains("stored"),
            "{said}"
        );
    }
}
