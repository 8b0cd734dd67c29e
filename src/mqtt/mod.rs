//! The MQTT side: from the broker to the intake's queue, and the acks back.
//!
//! [`session`] decides, without a connection or a clock, on [`packet`]s; `connection` is the port to
//! the network, and its codec the only file here that knows rumqttc; [`driver`] does what the
//! session says, `inlet` hands deliveries to the intake, and `remembered` keeps for the next process
//! which filters were granted. [`listen`] is for whoever only wants to see what is published.

mod coalesce;
mod connection;
mod credentials;
mod diagnosis;
pub(crate) mod driver;
mod inlet;
pub(crate) mod listen;
pub mod packet;
mod probe;
mod remembered;
mod report;
pub mod session;
mod settings;
pub(crate) mod tls;
mod wake;

pub(crate) use credentials::Credentials;
pub(crate) use driver::{Source, SourceParts};
pub(crate) use probe::{Answers, KeepsSessions, Probe};
pub(crate) use remembered::was_settled;
pub(crate) use settings::{SETTINGS, Settings, shared_warning};
pub(crate) use tls::Tls;
