//! What the sink and the dead-letter store answer, out of their models.

use std::time::Duration;

use iot_ingestor::flusher::plan::{Accepted, BatchId, Event, Lettered};
use iot_ingestor::flusher::sink::{FlushError, Refusal, SinkError};
use iot_ingestor::wal::{Offset, WalError};

use crate::database::{Answer, Database, PASSING, Row};
use crate::letters::{self, Letters};
use crate::mutants::Mutant;

/// So many statements are careful after one whose outcome may be unknown, or that found a duplicate.
pub(crate) const CAREFUL: u32 = 10;

/// One batch, as the sink sends it: carefully, unless all of it is taken for new.
pub(crate) fn insert(
    rows: &[Row],
    careful: &mut u32,
    (database, now): (&mut Database, Duration),
    mutant: Option<Mutant>,
) -> Result<Accepted, SinkError> {
    // The statement for new rows checks that the key is there, and writes nothing without it.
    let is_careful =
        (*careful > 0 || !database.has_key) && mutant != Some(Mutant::BatchTwiceWithoutTheKey);
    let mut answer = database.insert(rows, is_careful, now);
    if answer == Answer::Refused("23505") {
        answer = database.insert(rows, true, now);
    }
    let outcome = match answer {
        Answer::Stored { inserted, duplicates } => {
            let missing = rows.iter().filter(|(_, reading)| !database.holds(*reading));
            let swallowed: Vec<Offset> = missing.map(|(offset, _)| *offset).collect();
            let duplicates = duplicates - swallowed.len() as u64;
            Ok(Accepted { inserted, duplicates, swallowed })
        }
        Answer::Unreachable => Err(unavailable("")),
        Answer::Refused(code) if PASSING.contains(&code) || code == "42P01" => {
            Err(unavailable(code))
        }
        Answer::Refused(code) => Err(refused(code, false)),
        Answer::RefusedByTable(code) => Err(refused(code, true)),
    };
    *careful = match &outcome {
        Ok(accepted) if accepted.duplicates == 0 => careful.saturating_sub(1),
        _ => CAREFUL,
    };
    outcome
}

fn refused(code: &str, is_tables: bool) -> SinkError {
    SinkError::Refused(Refusal {
        sqlstate: Some(code.to_owned()),
        reason: "of the simulated database".to_owned(),
        object: None,
        advice: None,
        is_tables,
    })
}

/// Writes letters of rows that the database refuses.
pub(crate) fn letter(batch: BatchId, rows: &[Row], letters: &mut Letters) -> Event {
    let readings: Vec<u64> = rows.iter().map(|(_, reading)| *reading).collect();
    match letters.append_database(&readings) {
        Ok(()) => Event::Lettered { batch, outcome: Lettered::Stored },
        Err(letters::Refusal::Full) => {
            Event::Lettered { batch, outcome: Lettered::NoRoom("full".to_owned()) }
        }
        Err(letters::Refusal::Failed) => {
            // Of which store it is makes no difference to the plan.
            let source = std::io::Error::other("of the simulated disk");
            Event::Failed(FlushError::Log(WalError::Io { what: "write letters", source }))
        }
    }
}

/// What says nothing of the rows; without a SQLSTATE if `code` is empty.
pub(crate) fn unavailable(code: &str) -> SinkError {
    let sqlstate = Some(code.to_owned()).filter(|code| !code.is_empty());
    SinkError::Unavailable { reason: "not now".to_owned(), sqlstate }
}
