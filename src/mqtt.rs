//! The MQTT side. The files here are the only ones that know rumqttc.
//!
//! [`source`] polls the connection and hands out [`Delivery`]s, [`acks`] takes them back once they
//! are committed, `preflight` knows what a badly set up broker looks like, [`tls`] makes the
//! transport.

pub mod acks;
mod pacing;
mod preflight;
pub mod source;
pub mod tls;

pub use acks::{Acks, Delivery};
pub use source::{Source, SourceParts};
