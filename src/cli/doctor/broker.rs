//! The broker: whether it lets us in, keeps our session, and grants QoS 1.

use super::finding::Finding;
use crate::mqtt::packet::Granted;
use crate::mqtt::{Answers, KeepsSessions, Probe, Settings};

const REACH: &str = "see that it runs, and check MQTT_BROKER, MQTT_PORT, MQTT_USERNAME, MQTT_PASSWORD and the settings of TLS";

/// Asks the broker.
pub(in crate::cli) async fn examine(settings: &Settings) -> Vec<Finding> {
    let place = format!("{}:{}", settings.broker, settings.port);
    let probe = Probe::new(settings);
    let login = settings.login.as_ref();
    let who = login.map_or("without a login".to_owned(), |(user, _)| format!("as {user}"));
    let who = format!("{who}, with the client id {}", probe.client_id());
    match probe.ask().await {
        Err(error) => {
            vec![Finding::fail("broker", format!("{place}, asked {who}: {error}"), REACH)]
        }
        Ok(answers) => {
            let mut findings = vec![Finding::ok("broker", format!("{place} lets us in {who}"))];
            findings.extend(of_answers(&answers));
            findings
        }
    }
}

fn of_answers(answers: &Answers) -> Vec<Finding> {
    let Answers::Asked { granted, sessions } = answers else {
        return vec![Finding::warning(
            "session",
            "the broker keeps one, and takes each client of this login for the same, so nothing more was asked; a service that runs was interrupted for a moment",
            "see /health/ready of the service, or let the broker tell clients by their client id",
        )];
    };
    let mut findings = match granted {
        Ok(granted) => {
            granted.iter().map(|(filter, granted)| of_filter(filter, *granted)).collect()
        }
        Err(error) => vec![Finding::fail(
            "subscription",
            format!("the broker does not answer to SUBSCRIBE: {error}"),
            "check MQTT_TOPIC, and whether this login may read it",
        )],
    };
    findings.push(match sessions {
        KeepsSessions::Yes => {
            Finding::ok("session", "the broker keeps it while the ingestor is away")
        }
        KeepsSessions::No => Finding::fail(
            "session",
            "the broker does not keep it, so what is published while the ingestor is away is lost",
            "let the broker keep sessions of clients that connect with clean_session=false",
        ),
        KeepsSessions::Unknown(error) => Finding::warning(
            "session",
            format!("whether the broker keeps it could not be found out: {error}"),
            "run this again",
        ),
    });
    findings
}

fn of_filter(filter: &str, granted: Granted) -> Finding {
    match granted {
        Granted::Yes => Finding::ok("subscription", format!("{filter} is granted with QoS 1")),
        Granted::QosZero => Finding::fail(
            "subscription",
            format!(
                "{filter} is granted with QoS 0 only, so what is lost on the way is not sent again"
            ),
            "let the broker grant QoS 1",
        ),
        Granted::Refused => Finding::fail(
            "subscription",
            format!("{filter} is refused"),
            "let this login read it, or correct MQTT_TOPIC",
        ),
    }
}
