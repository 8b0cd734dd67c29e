//! `ingestor suggest-mapping`: from what is published to mappings that take it. It listens beside the
//! service, as somebody of whom the broker keeps nothing, and writes to standard output alone.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::samples::{Sample, read_samples};
use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::base::time::Timestamp;
use crate::mqtt::{self, listen::listen};

mod group;
mod observe;
mod plan;
mod write;

use observe::Observed;

/// What `ingestor suggest-mapping` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// How long to listen, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), conflicts_with = "file")]
    seconds: u64,
    /// Topic filter to listen to
    #[arg(long, default_value = "#", conflicts_with = "file")]
    topic: String,
    /// Lines of {"topic","payload"} instead of the broker, as `mosquitto_sub -F %j` prints them; `-` is
    /// standard input
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

const AFTER_HELP: &str = "\
Listens to the broker of the configuration with a client id of its own, a clean session and QoS 0, so that
the service's session is not touched, and prints mappings for what was published: topics that carry the
same are one mapping, levels in which they differ are captures. Rates, examples and what was not taken are
comments. No file is written; Ctrl-C ends the listening early.

  ingestor suggest-mapping --seconds 60 --topic 'tele/#' >mappings.toml
  mosquitto_sub -h localhost -t '#' -W 60 -F %j >messages.ndjson
  ingestor suggest-mapping messages.ndjson >mappings.toml
  ROCKET_CONFIG=mappings.toml ingestor check-mapping messages.ndjson

Exit codes: 0 something was suggested, 1 nothing came or it could not be read, 64 bad arguments or
configuration.";

/// How often it is told how it stands.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Suggests mappings.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Mistakes> {
    let mut observed = Observed::default();
    let (is_complete, seconds) = if let Some(file) = &arguments.file {
        let now = Timestamp::now();
        let mut take = |sample: &Sample| {
            observed.add(sample, now);
            Ok(())
        };
        let is_complete = read_samples(file, &mut take).unwrap_or_else(|error| {
            complain(&format!("ingestor: {error}"));
            false
        });
        (is_complete, observed.seconds())
    } else {
        let mut from = Sources::of_this_process();
        let settings = mqtt::Settings::read(&mut from);
        from.mistakes_so_far()?;
        let begun = Instant::now();
        let is_complete = observe(arguments, settings, &mut observed);
        (is_complete, Some(begun.elapsed().as_secs_f64()))
    };
    let groups = group::groups(&observed);
    let text = write::toml(&observed, &groups, seconds);
    let outcome = io::stdout().lock().write_all(text.as_bytes());
    let is_written = outcome.is_ok_and(|()| is_complete);
    Ok(if is_written && !groups.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Listens; returns whether that was possible all the time.
fn observe(arguments: &Arguments, settings: mqtt::Settings, observed: &mut Observed) -> bool {
    // An id of its own, or the broker would end the service's connection for it.
    let client_id = format!("{}-look-{:08x}", settings.client_id, fastrand::u32(..));
    let settings = mqtt::Settings { client_id, ..settings };
    let (broker, port, topic) = (&settings.broker, settings.port, &arguments.topic);
    let time = Duration::from_secs(arguments.seconds);
    complain(&format!("listening to `{topic}` at {broker}:{port} for {} s", time.as_secs()));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("ingestor: {error}"));
            return false;
        }
    };
    let begun = Instant::now();
    let mut told = begun;
    let hear = |publish: mqtt::packet::Publish| {
        let sample = Sample {
            topic: publish.topic.to_string(),
            payload: publish.payload.to_vec(),
            is_retained: publish.retain,
            qos: None,
            received_at: None,
            is_reading: false,
        };
        observed.add(&sample, Timestamp::now());
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let (messages, topics) = (observed.messages, observed.topics.len());
            complain(&format!(
                "{} of {} s: {messages} messages of {topics} topics",
                begun.elapsed().as_secs(),
                time.as_secs()
            ));
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = listen(settings, topic, time, hear) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    complain(&format!("{} messages of {} topics", observed.messages, observed.topics.len()));
    outcome.map_err(|error| complain(&format!("ingestor: {error}"))).is_ok()
}
