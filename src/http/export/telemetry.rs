//! All readings that match, newest first.

use std::time::Duration;

use super::file::File;
use super::format::Format;
use super::rows::Rows;
use super::sending::{BrokenOff, finish};
use super::source::{Fault, Source};
use super::turns::{Turn, Turns};
use crate::base::retry::Backoff;
use crate::http::error::ApiError;
use crate::http::exchange::{Download, Exchange, Pieces};
use crate::http::query::Parameters;
use crate::http::selection::Selection;
use crate::http::state::AppState;
use crate::postgres::{Position, StoredReading, TelemetryFilter};

/// How often a page is asked for in vain before the transfer is broken off.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Answers with what `parameters` ask for, as a file.
pub(in crate::http) async fn telemetry(
    state: &AppState,
    exchange: &Exchange,
    turns: &Turns,
    format: Format,
    parameters: &Parameters,
) -> Result<Box<File>, ApiError> {
    let (start, end) = parameters.range()?;
    let filter = TelemetryFilter { device_id: parameters.device_id()?, start, end };
    let limit = parameters.number("limit", 1..=u64::MAX)?;
    let offset = parameters.offset()?;
    let position = parameters.cursor()?.map_or(Position::Offset(offset), Position::After);
    let Selection { relation, shown } = Selection::read(state, parameters).await?;
    let table = relation.name().to_owned();
    let rows = Rows::new(format, "timestamp", shown);
    let mut source = Source::new(state, relation, filter, position, limit);
    let turn = turns.take()?;
    let query = turn.query().await;
    let (first, partial) = source.begin().await?;
    drop(query);
    exchange.answer_with(Download::start(move |pieces| async move {
        let outcome = send(&pieces, &rows, &turn, source, first).await;
        finish(pieces, outcome, "readings").await;
    }));
    Ok(File::new(format, &table, partial))
}

async fn send(
    pieces: &Pieces,
    rows: &Rows,
    turn: &Turn,
    mut source: Source,
    first: Vec<StoredReading>,
) -> Result<(), BrokenOff> {
    pieces.send(rows.header()?).await?;
    let mut page = first;
    while !page.is_empty() {
        let sending = async {
            for piece in rows.pieces(page) {
                pieces.send(piece?).await?;
            }
            Ok::<_, BrokenOff>(())
        };
        // The next page is made while this one is sent.
        let (sent, next) = tokio::join!(sending, read_patiently(turn, &mut source));
        sent?;
        page = next.map_err(|fault| BrokenOff::Failed(fault.to_string()))?;
    }
    Ok(())
}

async fn read_patiently(turn: &Turn, source: &mut Source) -> Result<Vec<StoredReading>, Fault> {
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, fastrand::Rng::new());
    let mut attempts = 1;
    loop {
        let query = turn.query().await;
        let read = source.next().await;
        drop(query);
        match read {
            Err(Fault::Database(failure)) if attempts < ATTEMPTS && !failure.is_configuration() => {
                attempts += 1;
                tokio::time::sleep(pauses.next_pause()).await;
            }
            read => return read,
        }
    }
}
