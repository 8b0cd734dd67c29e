//! The real binaries against a real PostgreSQL and a real Mosquitto, or against a broker whose
//! every packet a test decides.
//!
//! Each test starts servers of its own, on free loopback ports and in directories of its own; none
//! touches a server that is there already, and nothing is left behind, however a test ends
//! ([`harness`]). `bars` holds the performance bars; they run alone.

#![expect(clippy::disallowed_methods, reason = "tests measure time")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod harness;

mod access;
mod acks;
mod admin;
mod api;
mod arrival;
mod bad_input;
mod bars;
mod books;
mod broker;
mod check_mapping;
mod clocks;
mod configuration;
mod crash;
mod damage;
mod database;
mod disasters;
mod doctor;
mod export;
mod exposure;
mod failing_writes;
mod failover;
mod full_log;
mod hostile;
mod import;
mod init;
mod keys;
mod log_output;
mod mapped;
mod neighbours;
mod openapi;
mod outage;
mod page;
mod partitions;
mod path;
mod preflight;
mod probe;
mod protocol;
mod reach;
mod recipes;
mod refusals;
mod renewal;
mod retention;
mod silent_devices;
mod simulator;
mod skipped;
mod slow;
mod statements;
mod status;
mod stop;
mod strangers;
mod subscriptions;
mod suggest_mapping;
mod systemd;
mod tables;
mod tables_api;
mod torture;
mod unread;
mod wal_cli;
