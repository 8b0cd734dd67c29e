//! Log lines for an operator: JSON for machines, text on a terminal, both on standard error, which is
//! never waited for ([`Output`]). A panic is a log line too.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::base::output::Output;
use crate::base::settings::{Setting, Sources};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(()),
        }
    }
}

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("RUST_LOG", "info", "log filter"),
    Setting::new("LOG_FORMAT", "", "`json` or `text`; unset: `text` on a terminal, else `json`"),
];

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What, as `tracing_subscriber::filter::Targets` reads it: levels, of all or of modules.
    pub filter: String,
    /// How; `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        Self { filter: read_filter(from), format: from.optional("LOG_FORMAT", "json or text") }
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let format = self.format.map(|format| format!("{format:?}").to_lowercase());
        vec![("RUST_LOG", self.filter.clone()), ("LOG_FORMAT", format.unwrap_or_default())]
    }
}

/// Reads the filter alone.
#[must_use]
pub fn read_filter(from: &mut Sources) -> String {
    let filter = from.value("RUST_LOG", "info".to_owned(), "a log filter");
    if let Err(error) = targets(&filter) {
        from.mistake(format!("RUST_LOG: {error}"));
    }
    filter
}

/// Installs `output` as the process's log output.
///
/// # Errors
/// If `filter` is not a filter, or an output is installed already.
pub fn init(settings: &Settings, output: &Output) -> anyhow::Result<()> {
    let Settings { filter, format } = settings;
    let on_terminal = std::io::stderr().is_terminal();
    let fallback = if on_terminal { LogFormat::Text } else { LogFormat::Json };
    let layer = tracing_subscriber::fmt::layer().with_ansi(on_terminal).with_writer(output.clone());
    let lines = tracing_subscriber::registry().with(targets(&quieted(filter))?);
    match (*format).unwrap_or(fallback) {
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true);
            lines.with(layer.with_current_span(false).with_span_list(false)).try_init()
        }
        LogFormat::Text => lines.with(layer.with_target(false)).try_init(),
    }?;
    // The standard one waits until standard error takes it.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or_default();
        let place = panic.location().map(ToString::to_string);
        tracing::error!(thread = thread.name(), place, "a thread panicked: {message}");
    }));
    Ok(())
}

fn targets(filter: &str) -> Result<Targets, ParseError> {
    filter.parse()
}

/// What libraries log of themselves is said by our own lines, in an operator's words, so they are
/// silent unless the filter names them.
fn quieted(filter: &str) -> String {
    let named = |library: &str| {
        filter.split(',').any(|directive| directive.split('=').next() == Some(library))
    };
    let libraries = ["rocket", "rocket_http", "_", "rumqttc", "sled", "sqlx", "hyper"];
    let silent: Vec<String> = libraries
        .into_iter()
        .filter(|library| !named(library))
        .map(|library| format!("{library}=off"))
        .collect();
    format!("{},{filter}", silent.join(","))
}
