//! The latest reading of all devices that match.

use std::collections::HashSet;

use super::format::Format;
use super::rows::Rows;
use super::{File, Turn, Turns};
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::exchange::{Download, Exchange, Pieces};
use crate::http::query::{Parameters, bad};
use crate::http::remembered::{self, Asked, Remembered};
use crate::http::selection::Selection;
use crate::postgres::{DeviceFilter, StoredReading};

/// Devices that are asked for at once.
const PAGE: u32 = 1_000;

/// Devices that are put in the order of their age, which takes all of them at once.
const MOST_BY_AGE: u32 = 20_000;

/// Answers with what `parameters` ask for, as a file.
pub(in crate::http) async fn devices(
    state: &AppState,
    exchange: &Exchange,
    turns: &Turns,
    format: Format,
    parameters: &Parameters,
) -> Result<Box<File>, ApiError> {
    let limit = parameters.number("limit", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    let mut offset = parameters.offset()?;
    let filter = DeviceFilter {
        name_contains: parameters.device_name("name_contains")?,
        newest_first: parameters.flag("newest_first")?.unwrap_or(false),
    };
    let silent = parameters.flag("silent")?;
    remembered::check(state, silent)?;
    let Selection { relation, shown } = Selection::read(state, parameters).await?;
    let table = relation.name().to_owned();
    let rows = Rows::new(format, "last_seen", shown);
    let turn = turns.take()?;
    let name = if table == "telemetry" { "devices".to_owned() } else { format!("devices-{table}") };
    if silent.is_some() {
        let found =
            remembered::find(state, &Asked { relation, filter, silent, offset, limit }).await?;
        let partial = found.partial;
        exchange
            .answer_with(Download::start(move |pieces| send_remembered(pieces, rows, found, turn)));
        return Ok(File::new(format, &name, partial));
    }
    // By age their order changes all the time: then all come at once.
    let size = if filter.newest_first { MOST_BY_AGE } else { PAGE };
    let query = turn.query().await;
    let first = state.database.devices(&relation, &filter, offset, size.min(limit)).await;
    drop(query);
    let first = first.map_err(|failure| ApiError::of_query(state, &failure, "name_contains"))?;
    if filter.newest_first && limit > size && first.total.rows > u64::from(offset) + u64::from(size)
    {
        let problem = format!(
            "gives no more than {size} devices in a file, and these are more; set `limit` to at most that, or leave it out"
        );
        return Err(bad("newest_first", &problem));
    }
    let database = state.database.clone();
    exchange.answer_with(Download::start(move |pieces| async move {
        let mut left = limit;
        let mut page = first;
        let mut sent: HashSet<String> = HashSet::new();
        let Ok(header) = rows.header() else { return };
        if pieces.send(header).await.is_err() {
            return;
        }
        loop {
            let is_last =
                filter.newest_first || page.passed < size.min(left);
            // A name that is new moves those behind it, and the last ones come again.
            page.latest.retain(|reading: &StoredReading| !sent.contains(&reading.device_id));
            sent = page.latest.iter().map(|reading| reading.device_id.clone()).collect();
            for piece in rows.pieces(page.latest) {
                let Ok(piece) = piece else { return };
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
            left = left.saturating_sub(page.passed);
            offset = offset.saturating_add(page.passed);
            if is_last || left == 0 {
                return pieces.end().await;
            }
            let query = turn.query().await;
            let next = database.devices(&relation, &filter, offset, size.min(left)).await;
            drop(query);
            page = match next {
                Ok(next) => next,
                Err(failure) => {
                    tracing::warn!(
                        %failure,
                        "a file of devices was broken off: its client has a part of it and is told so"
                    );
                    return;
                }
            };
        }
    }));
    Ok(File::new(format, &name, None))
}

/// Sends devices by their last values.
async fn send_remembered(pieces: Pieces, rows: Rows, found: Remembered, _turn: Turn) {
    let Ok(header) = rows.header() else { return };
    if pieces.send(header).await.is_err() {
        return;
    }
    for from in (0..found.len()).step_by(PAGE as usize) {
        let latest = found.rows(from, PAGE as usize).map(|device| device.latest).collect();
        for piece in rows.pieces(latest) {
            let Ok(piece) = piece else { return };
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    }
    pieces.end().await;
}
