//! Mappings: how a device's own messages become rows.
//!
//! A mapping names topics, says where in their messages the device, the time and the fields stand, and
//! which table takes them. Everything is declared and checked before the first message comes: no type is
//! decided by what arrives, and nothing vanishes without a word.
//!
//! From the file to a row: [`set`] reads all mappings, [`compile`] each of them with the options of its
//! [`field`]s, out of [`path`]s, [`template`]s and [`topic`] filters. [`dispatch`] finds the candidates
//! for a topic, [`mod@format`] makes JSON of a message, [`scan`] reads that once along the [`tree`] of a
//! mapping's paths, [`read`] makes a reading of what was [`found`] and [`leave`] of what is left, [`decide`] says whose the message is.

mod compile;
mod compiled;
pub(super) mod convert;
mod decide;
mod dispatch;
mod entries;
mod explain;
mod extra;
mod field;
mod fill;
mod format;
mod found;
mod identity;
pub(super) mod jsonb;
mod keys;
mod leave;
mod left;
mod outline;
mod own;
mod parts;
mod path;
mod read;
mod scan;
mod set;
mod shape;
mod stored;
mod template;
mod time;
mod topic;
mod tree;
pub(super) mod value;

pub(crate) use compiled::{Mapping, SILENT_AFTER_MAX_SECS};
pub(crate) use decide::Mapped;
pub use decide::{Fate, Message};
pub(crate) use explain::{Explained, Explanation};
pub(crate) use field::{is_name, name_fault as column_fault};
pub(crate) use fill::{fill_row, fill_row_from, moved};
pub(crate) use format::{is_packed, recognize, recognize_time};
pub(crate) use outline::{ColumnOutline, TableOutline};
pub use own::OwnTopics;
pub(crate) use path::quoted as path_key;
pub use set::Mappings;
pub(crate) use set::Unmatched;
pub(crate) use shape::{BUILT_IN_TABLE, DEVICES_TABLE, EXTRA_COLUMN, OLDER_PARTITION};
pub use shape::{Cell, Column, Kind, MappedReading, READING_MAX_BYTES, SilentAfter, TableShape};

#[cfg(test)]
mod tests;
