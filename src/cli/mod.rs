//! The commands beside the service itself.

pub mod doctor;
pub mod health;
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
