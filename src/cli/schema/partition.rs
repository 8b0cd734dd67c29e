//! `ingestor schema partition`.

use std::io::{self, Write};
use std::process::ExitCode;

use super::statements::{Problem, carry_out};
use crate::base::time::Timestamp;
use crate::postgres::{Database, Kind, index_plan};

pub(super) async fn run(
    database: &Database,
    boundary: Option<Timestamp>,
    max_future_secs: u32,
    is_dry: bool,
) -> Result<ExitCode, Problem> {
    let mut out = io::stdout();
    let shape = database.shape().await?.ok_or(Problem::NoTable)?;
    match shape.kind {
        Kind::Plain => {}
        Kind::Partitioned => {
            writeln!(out, "the table is partitioned already")?;
            return Ok(ExitCode::SUCCESS);
        }
        Kind::Hypertable | Kind::Distributed => {
            let advice =
                "the table is not PostgreSQL's own to partition: TimescaleDB or Citus does it";
            return Err(Problem::Table(advice.to_owned()));
        }
    }
    let plan = database.plan_reshape(boundary, max_future_secs).await?;
    if !plan.obstacles.is_empty() {
        let obstacles = plan.obstacles.join("; ");
        return Err(Problem::Table(format!("the table cannot be partitioned yet: {obstacles}")));
    }
    // The parts of the table have the indexes of the whole.
    carry_out(database, &index_plan(&shape).map_err(Problem::Table)?, is_dry).await?;
    if is_dry {
        for statement in plan.statements() {
            writeln!(out, "{statement}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut broken = Ok(());
    let says = |step: &str| {
        if broken.is_ok() {
            broken = writeln!(io::stdout(), "{step}");
        }
    };
    database.reshape(&plan, says).await?;
    broken?;
    writeln!(
        out,
        "done: rows before {} are in telemetry_older, newer ones in partitions",
        plan.boundary
    )?;
    Ok(ExitCode::SUCCESS)
}
