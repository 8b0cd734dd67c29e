//! The whole path, measured side by side with the bare minimum that any implementation must do.
//!
//! Every measurement starts a private Mosquitto and PostgreSQL, which waits for the disk, and the
//! real binary. What is compared takes turns in rounds, and medians are shown, so that a machine
//! that is slower for a while is so for both. It ends in a table; the figures behind it, and the
//! plots, are in `target/bench`. The exit code says whether every bar holds, unless the run was a
//! small one.

#![expect(clippy::disallowed_methods, reason = "benchmarks measure time")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has failed"
)]

#[expect(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;

mod answers;
mod backlog;
mod bare;
mod drain;
mod files;
mod growth;
mod ingest;
mod latency;
mod live;
mod load;
mod machine;
mod mapped;
mod plan;
mod plots;
mod proxy;
mod query;
mod report;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use plan::{Arguments, Measurement};

fn main() -> ExitCode {
    // The bare subscriber is a process of its own, so that its processor time is its own.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, port, messages] = &arguments[..]
        && mode == bare::MODE
    {
        bare::subscribe(port.parse().unwrap(), messages.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let plan = Arguments::parse().plan();
    println!("{}", machine::describe());
    if plan.is_small() {
        println!("A small run: the bars do not count.");
    }
    let mut rows = Vec::new();
    for measurement in plan.measurements() {
        println!("measuring {}…", measurement.name());
        let findings = match measurement {
            Measurement::Ingest => ingest::run(&plan),
            Measurement::Drain => drain::run(&plan),
            Measurement::Mapped => mapped::run(&plan),
            Measurement::Live => live::run(&plan),
            Measurement::Latency => latency::run(&plan),
            Measurement::Backlog => backlog::run(&plan),
            Measurement::Query => query::run(&plan),
            Measurement::Answers => answers::run(&plan),
            Measurement::Files => files::run(&plan),
            Measurement::Growth => growth::run(&plan),
        };
        findings.save(measurement.name(), &plan);
        rows.extend(findings.rows.into_iter().map(|row| (measurement.name(), row)));
    }
    report::print(&rows);
    if plan.is_small() || rows.iter().all(|(_, row)| row.holds()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
