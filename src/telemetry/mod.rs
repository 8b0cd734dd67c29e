//! What a reading is, from the bytes of a payload to a value that may be stored. Pure: no I/O, no
//! clock but the one that is handed in.

pub mod admit;
pub mod decode;
pub(crate) mod fields;
mod given;
pub mod mapping;
mod reading;
mod record;
pub(crate) mod rejection;
pub(crate) mod topic;
pub mod validate;

pub(crate) use given::{GivenTable, Place};
pub use reading::Reading;
pub use record::Record;
