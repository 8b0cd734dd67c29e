//! What is stored: one measurement of one device.

use crate::base::time::Timestamp;

/// One measurement of one device, as published and as stored. In JSON it is the payload of a message.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Reading {
    /// 1 to 128 characters, none of them a control character.
    pub device_id: String,
    /// When the device measured.
    pub timestamp: Timestamp,
    /// °C.
    pub temperature: f64,
    /// Relative humidity, %.
    pub humidity: f64,
    /// Charge, %.
    pub battery: f64,
}
