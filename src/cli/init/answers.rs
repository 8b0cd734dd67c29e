//! What an installation needs to know: from flags, or asked for on a terminal.

use std::path::Path;

use super::arguments::Arguments;
use super::terminal::Terminal;
use crate::base::settings::Secret;

const PLAIN_PORT: u16 = 1_883;
const TLS_PORT: u16 = 8_883;

/// The answers.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) broker: Broker,
    pub(super) login: Option<(String, Secret)>,
    pub(super) database_url: Secret,
    /// `None`: one that is made, or the one that is there.
    pub(super) admin_token: Option<Secret>,
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) has_tls: bool,
}

/// The answers of `arguments`, and of whoever sits at the terminal.
///
/// # Errors
/// What is missing or wrong, a line each.
pub(super) fn gather(arguments: &Arguments, terminal: &Terminal) -> Result<Answers, Vec<String>> {
    let mut wrong = Vec::new();
    let mut note = |outcome: Result<String, String>| {
        outcome.map_err(|problem| wrong.push(problem)).unwrap_or_default()
    };
    let broker = note(match &arguments.broker {
        Some(broker) => Ok(broker.clone()),
        None => terminal.ask("Broker (HOST, HOST:PORT or mqtts://HOST)", "localhost", "--broker"),
    });
    let user = match &arguments.broker_user {
        Some(user) => user.clone(),
        None if arguments.broker.is_none() && terminal.may_ask() => {
            note(terminal.ask("User name at the broker (empty: none)", "", "--broker-user"))
        }
        None => String::new(),
    };
    let password = match &arguments.broker_password_file {
        _ if user.is_empty() => String::new(),
        Some(file) => note(content(file)),
        None => note(terminal.ask_for_secret("Password at the broker", "--broker-password-file")),
    };
    let url = note(match (&arguments.database, &arguments.database_file) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(file)) => content(file),
        (None, None) => terminal.ask_for_secret(
            "Connection string of PostgreSQL (postgres://USER:PASSWORD@HOST/DATABASE)",
            "--database or --database-file",
        ),
    });
    let admin_token = match (&arguments.admin_token, &arguments.admin_token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(note(content(file))),
        (None, None) if terminal.may_ask() => {
            let question = "Bearer token of /admin (empty: the one that is there, or a random one)";
            let answer = note(terminal.ask_secretly(question, "--admin-token-file"));
            (!answer.is_empty()).then_some(answer)
        }
        (None, None) => None,
    };
    let broker = match broker_of(&broker) {
        Ok(broker) => Some(broker),
        Err(problem) => {
            // What is missing was said already.
            if !broker.is_empty() {
                wrong.push(problem);
            }
            None
        }
    };
    match broker {
        Some(broker) if wrong.is_empty() => Ok(Answers {
            broker,
            login: (!user.is_empty()).then(|| (user, Secret::new(password))),
            database_url: Secret::new(url.trim()),
            admin_token: admin_token.map(Secret::new),
        }),
        _ => Err(wrong),
    }
}

fn content(file: &Path) -> Result<String, String> {
    Secret::read(file).map(|secret| secret.expose().to_owned())
}

/// `HOST`, `HOST:PORT`, or either behind `mqtt://` or `mqtts://`.
pub(super) fn broker_of(text: &str) -> Result<Broker, String> {
    let wrong =
        || format!("--broker: expected HOST, HOST:PORT or mqtts://HOST:PORT, found `{text}`");
    let text = text.trim();
    let (has_tls, place) = match text.split_once("://") {
        Some(("mqtts", place)) => (true, place),
        Some(("mqtt", place)) => (false, place),
        Some(_) => return Err(wrong()),
        None => (false, text),
    };
    let place = place.trim_end_matches('/');
    let default = if has_tls { TLS_PORT } else { PLAIN_PORT };
    // An IPv6 address is in brackets where a port follows.
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        None if place.matches(':').count() > 1 => (place, None),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(default), str::parse).map_err(|_| wrong())?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || port == 0 || !host.chars().all(is_name) {
        return Err(wrong());
    }
    Ok(Broker { host: host.to_owned(), port, has_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_with_or_without_a_port_or_an_address_of_mqtt() {
        for (text, host, port, has_tls) in [
            ("broker.example", "broker.example", 1_883, false),
            (" broker.example:1884 ", "broker.example", 1_884, false),
            ("mqtt://10.0.0.1", "10.0.0.1", 1_883, false),
            ("mqtts://broker.example/", "broker.example", 8_883, true),
            ("mqtts://[fe80::1]:8884", "fe80::1", 8_884, true),
            ("fe80::1", "fe80::1", 1_883, false),
        ] {
            let host = host.to_owned();
            assert_eq!(broker_of(text), Ok(Broker { host, port, has_tls }), "{text}");
        }
        for text in ["", ":1883", "a:b", "a:0", "a:70000", "http://a", "a b", "a\nB=1", "[::1]x"] {
            assert!(broker_of(text).is_err(), "{text}");
        }
    }
}
