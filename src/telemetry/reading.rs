//! What is stored: one measurement of one device.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::fields::{COUNT, FIELDS, Values};
use crate::base::time::Timestamp;

/// One measurement of one device, as published and as stored. In JSON it is the payload of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// 1 to 128 characters, none of them a control character.
    pub device_id: String,
    /// When the device measured.
    pub timestamp: Timestamp,
    /// What it measured, in the order of [`FIELDS`].
    pub values: Values,
}

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Reading", 2 + COUNT)?;
        object.serialize_field("device_id", &self.device_id)?;
        object.serialize_field("timestamp", &self.timestamp)?;
        for (field, value) in FIELDS.iter().zip(&self.values) {
            object.serialize_field(field.name, value)?;
        }
        object.end()
    }
}
