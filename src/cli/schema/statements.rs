//! Statements as they are carried out, and what keeps a command from its end.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::postgres::{Database, Failure};

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Database(#[from] Failure),
    #[error("there is no table telemetry in this database yet: the service makes it")]
    NoTable,
    #[error("{0}")]
    Table(String),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// Says each statement, and what becomes of it.
pub(super) async fn carry_out(
    database: &Database,
    plan: &[String],
    is_dry: bool,
) -> Result<(), Problem> {
    for statement in plan {
        writeln!(io::stdout(), "{statement}")?;
        if !is_dry {
            let bar = bar();
            database
                .index_step(statement, |seen| {
                    bar.set_length(seen.total);
                    bar.set_position(seen.done);
                    bar.set_message(seen.phase);
                })
                .await?;
            bar.finish_and_clear();
        }
    }
    Ok(())
}

/// On standard error, if that is a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
