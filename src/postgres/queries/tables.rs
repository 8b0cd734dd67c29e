//! What is remembered of each table from one query to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::total::Census;
use super::window::Newest;
use crate::postgres::spread::Spread;

/// By the name of the table: those of the configuration, which are few. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::postgres) struct Tables(Arc<Mutex<HashMap<String, Remembered>>>);

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    pub(super) newest: Newest,
    /// Of all its rows.
    pub(super) rows: Census,
    /// Of all its devices.
    pub(super) devices: Census,
    pub(super) spread: Spread,
}

impl Tables {
    pub(super) fn of(&self, table: &str) -> Remembered {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.entry(table.to_owned()).or_default().clone()
    }

    pub(in crate::postgres) fn spread(&self, table: &str) -> Spread {
        self.of(table).spread
    }
}
