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

/// What libraries log of themselves is said by our own lines, in an operator's words, so they are
/// silent unless the filter names them.
fn quieted(filter: &str) -> String {
    let named = |library: &str| {
        filter.split(',').any(|directive| directive.split(['=', '[']).next() == Some(library))
    };
    let libraries = ["rocket", "rocket_http", "_", "rumqttc", "sled", "sqlx", "hyper"];
    let silent: Vec<String> = libraries
        .into_iter()
        .filter(|library| !named(library))
        .map(|library| format!("{library}=off"))
        .collect();
    format!("{},{filter}", silent.join(","))
}
