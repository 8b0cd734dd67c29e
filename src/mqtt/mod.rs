//! The MQTT side. The files here are the only ones that know rumqttc.
//!
//! [`driver`] polls the connection and hands out deliveries, `diagnosis` knows what a badly set up
//! broker looks like, [`tls`] makes the transport.

mod coalesce;
mod diagnosis;
pub mod driver;
mod settings;
pub mod tls;

pub use driver::{Source, SourceParts};
pub use settings::Settings;
pub use tls::Tls;
