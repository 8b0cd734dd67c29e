//! `ingestor check-mapping`: what the mappings make of messages, without a broker, a database or a log.
//! It is the service's own decoder that is asked.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::samples::{Sample, read_samples};
use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::base::time::Timestamp;
use crate::mqtt;
use crate::telemetry::admit::Admission;
use crate::telemetry::mapping::{
    Explanation, Fate, MappedReading, Mappings, Message, OwnTopics, Unmatched,
};
use crate::telemetry::validate::{Rules, TimeOfDay};

mod report;

use report::Report;

/// What `ingestor check-mapping` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Topic of the one message
    #[arg(long, requires = "payload", conflicts_with = "file")]
    topic: Option<String>,
    /// Payload of the one message
    #[arg(long, requires = "topic", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Lines of {"topic","payload"}, as `mosquitto_sub -F %j` prints them, or an answer of
    /// `GET /admin/dead-letters`; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "topic")]
    file: Option<String>,
    /// One JSON object a message and line
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Says which mapping of Rocket.toml takes each message and why those before it do not, each row with
where every value came from, and what nothing looks at. Needs no broker, database or log.

  ingestor check-mapping --topic tele/boiler/SENSOR --payload '{\"Time\":…}'
  mosquitto_sub -h localhost -t '#' -W 60 -F %j | ingestor check-mapping -
  curl -H \"Authorization: Bearer $ADMIN_TOKEN\" localhost:8080/admin/dead-letters | ingestor check-mapping -

Exit codes: 0 all of it would be stored, 1 something would not, or could not be read, 64 bad arguments or
configuration.";

/// What the messages are checked against.
struct Checker {
    mappings: Mappings,
    admission: Admission,
    /// What `MQTT_TOPIC` brings.
    own_topics: OwnTopics,
}

/// Checks messages. `unknown` says what of the configuration is no setting: a mapping may stand under it.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(
    arguments: &Arguments,
    unknown: impl FnOnce(Sources) -> Vec<String>,
) -> Result<ExitCode, Mistakes> {
    let mut from = Sources::of_this_process();
    for mistake in unknown(Sources::of_this_process()) {
        from.mistake(mistake);
    }
    let mappings = Mappings::read(&mut from);
    let rules = Rules::read(&mut from);
    let own_topics = mqtt::Settings::read_topics(&mut from);
    let max_payload_bytes = mqtt::Settings::read_max_payload_bytes(&mut from);
    from.mistakes_so_far()?;
    let admission = Admission { max_payload_bytes, rules, mapped: None };
    let own_topics = OwnTopics::new(&own_topics);
    let checker = Checker { mappings, admission, own_topics };
    if checker.mappings.is_empty() {
        complain(
            "ingestor: there is no [[default.mapping]] in Rocket.toml: the built-in one is asked alone",
        );
    }
    let mut out = io::stdout().lock();
    let mut is_good = true;
    let mut check = |sample: &Sample| {
        let report = checker.check(sample);
        is_good &= report.is_stored();
        let text = if arguments.json { report.json() } else { report.text() };
        out.write_all(text.as_bytes())
    };
    let outcome = match (&arguments.topic, &arguments.payload) {
        (Some(topic), Some(payload)) => check(&Sample {
            topic: topic.clone(),
            payload: payload.clone().into_bytes(),
            is_retained: false,
            qos: None,
            received_at: None,
            is_reading: false,
        })
        .map(|()| true),
        _ => read_samples(arguments.file.as_deref().unwrap_or("-"), &mut check),
    };
    match outcome {
        Ok(are_all_read) if are_all_read && is_good => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        // Who stops reading has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::FAILURE),
        Err(error) => {
            complain(&format!("ingestor: {error}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Checker {
    fn check<'s>(&'s self, sample: &'s Sample) -> Report<'s> {
        let clock = TimeOfDay::at(Timestamp::now());
        let received_at = sample.received_at.unwrap_or_else(Timestamp::now);
        let message = Message {
            topic: &sample.topic,
            payload: &sample.payload,
            is_retained: sample.is_retained,
            received_at,
        };
        let Admission { max_payload_bytes, rules, .. } = &self.admission;
        let mut report = Report::new(&sample.topic);
        if sample.payload.len() > *max_payload_bytes {
            report.refuse(&format!(
                "the payload has {} bytes, {max_payload_bytes} are allowed",
                sample.payload.len()
            ));
            return report;
        }
        if sample.is_reading {
            match MappedReading::from_json(&sample.payload) {
                Some(reading) => report.stored(&reading),
                None => self.admission.admit(&sample.payload, clock, |_, outcome| {
                    report.built_in(outcome);
                }),
            }
            return report;
        }
        let Explanation { fate, refused, readings, ignored } =
            self.mappings.tell(message, rules, clock);
        report.refused = refused;
        report.ignored = ignored;
        if let Fate::Taken(at) = fate {
            report.mapping = Some(self.mappings.list[at].name.clone());
            for explained in readings {
                report.reading(explained);
            }
            return report;
        }
        let is_built_in = self.mappings.is_empty() || self.mappings.takes_built_in;
        let is_own = is_built_in && self.own_topics.contain(&sample.topic);
        let is_ignored = matches!(fate, Fate::Ignored(..));
        if is_own && (!is_ignored || self.admission.is_built_in(&sample.payload, clock)) {
            report.mapping = Some("the built-in one".to_owned());
            self.admission.admit(&sample.payload, clock, |_, outcome| report.built_in(outcome));
            return report;
        }
        match fate {
            Fate::Taken(_) => {}
            Fate::Ignored(at, why) => {
                report.mapping = Some(self.mappings.list[at].name.clone());
                report.ignore(&why.to_string());
            }
            Fate::Unreadable(_, rejection) => report.refuse(&rejection.message),
            _ if self.mappings.unmatched == Unmatched::Drop => {
                report.ignore("no mapping takes it, and `unmatched` says that it is dropped");
            }
            Fate::NoTopic => report.refuse("no topic of a mapping matches it"),
            Fate::Unmatched(_) => report.refuse("no mapping takes it"),
        }
        report
    }
}
