//! Messages of one device and time are one row: what the first leaves open, the next fills.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::shape::{Cell, Column, TableShape};

/// The row of a table, a JSON object, with what it lacks of `cells`; `None` if it lacks nothing.
#[must_use]
pub(crate) fn fill_row<'c>(
    row: &str,
    cells: impl IntoIterator<Item = (&'c str, &'c Cell)>,
) -> Option<String> {
    let brought: BTreeMap<&str, &Cell> = cells.into_iter().collect();
    fill_row_from(row, &serde_json::to_string(&brought).ok()?)
}

/// The same, with what another row brings.
#[must_use]
pub(crate) fn fill_row_from(row: &str, other: &str) -> Option<String> {
    let mut object: BTreeMap<String, &RawValue> = serde_json::from_str(row).ok()?;
    let is_there = |value: &RawValue| value.get() != "null";
    let mut brought: BTreeMap<String, &RawValue> = serde_json::from_str(other).ok()?;
    brought.retain(|name, value| {
        is_there(value) && !object.get(name).is_some_and(|value| is_there(value))
    });
    if brought.is_empty() {
        return None;
    }
    object.extend(brought);
    serde_json::to_string(&object).ok()
}

impl TableShape {
    /// This one with the columns of another; `None` if it has all of them.
    #[must_use]
    pub(crate) fn with_columns_of(&self, other: &Self) -> Option<Self> {
        let is_new = |column: &&Column| self.column(&column.name).is_none();
        let new: Vec<_> = other.columns.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return None;
        }
        let mut columns = [self.columns.clone(), new].concat();
        columns.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Some(Self { name: self.name.clone(), columns })
    }

    /// Where the column of this name stands.
    #[must_use]
    pub(crate) fn column(&self, name: &str) -> Option<u16> {
        let at = self.columns.iter().position(|column| column.name == name)?;
        u16::try_from(at).ok()
    }
}

/// Cells by the columns of one shape, by those of another, which has them all.
#[must_use]
pub(crate) fn moved(
    cells: Box<[(u16, Cell)]>,
    from: &TableShape,
    to: &TableShape,
) -> Box<[(u16, Cell)]> {
    let place = |(at, cell)| Some((to.column(&from.columns.get(usize::from(at))?.name)?, cell));
    let mut cells: Vec<_> = cells.into_iter().filter_map(place).collect();
    cells.sort_unstable_by_key(|(at, _)| *at);
    cells.into()
}
