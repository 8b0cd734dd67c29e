//! Log lines for an operator: JSON for machines, text on a terminal, both on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Installs the process's log output.
///
/// # Errors
/// If `filter` is not a filter, or an output is installed already.
pub fn init(filter: &str, format: Option<LogFormat>) -> anyhow::Result<()> {
    let on_terminal = std::io::stderr().is_terminal();
    let fallback = if on_terminal { LogFormat::Text } else { LogFormat::Json };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(quieted(filter))?)
        .with_ansi(on_terminal)
        .with_writer(std::io::stderr);
    let installed = match format.unwrap_or(fallback) {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!(error))
}

/// What libraries log by the message or by the request is below what an operator asked for,
/// unless the filter names them.
fn quieted(filter: &str) -> String {
    let quiet = [
        "rocket=off",
        "rocket_http=off",
        "_=warn",
        "rumqttc=off",
        "sled=error",
        "sqlx=off",
        "hyper=warn",
    ];
    let unnamed: Vec<&str> = quiet
        .into_iter()
        .filter(|directive| !directive.split('=').next().is_some_and(|name| filter.contains(name)))
        .collect();
    format!("{},{filter}", unnamed.join(","))
}
