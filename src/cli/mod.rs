//! The commands beside the service itself.

mod client;
pub mod doctor;
pub mod health;
mod idle_timeout;
pub mod import;
pub mod init;
mod installation;
pub mod manual;
pub mod mapping;
mod samples;
pub mod schema;
pub mod service;
pub mod suggest;
pub mod wal;
