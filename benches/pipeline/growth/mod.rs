//! A table that grows: what a row costs, and how long the API takes to answer, at three sizes.
//!
//! Three tables of the same readings: that of the first release, and those of this one, plain and
//! partitioned by the day, each with a server of its own with PostgreSQL's defaults. They grow in step, and at
//! each size take turns. Rows between the sizes are made within PostgreSQL, in the order of time as devices
//! would send them, so that the indexes are as full as in a table that has grown; those that are measured
//! come by the service's own statement.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::plan::Plan;
use crate::plots::{self, Line};
use crate::report::{Bar, Findings, Row, figure, median};
use queries::Answers;
use table::{Grown, Layout, Spread};
use writing::Cost;

mod queries;
mod table;
mod writing;

/// Many of them share a page of the unique key, or each has one or more of its own.
const DEVICES: [u64; 2] = [10_000, 100_000];
const MOST_DEVICES: u64 = DEVICES[1];
/// Sizes, as shares of the last one.
const SIZES: [f64; 3] = [0.0, 0.25, 1.0];
/// Of the table that is there for questions alone.
const PARTITIONS: u64 = 100;
/// Rows of a round at least; else a fortieth of the table.
const ROUND_LEAST: u64 = 20_000;
/// Requests of a kind: fewer where the table is small, and a run to be quick.
const REQUESTS: RangeInclusive<u64> = 20..=200;
const ROWS_A_REQUEST: u64 = 100_000;

/// A table at a size.
struct Point {
    devices: u64,
    layout: Layout,
    rows: u64,
    /// Of each round.
    costs: Vec<Cost>,
    bytes_a_row: f64,
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let most = plan.growth_rows();
    let (mut points, mut answers) = (Vec::new(), Vec::new());
    for devices in DEVICES {
        grow(plan, devices, &mut points, &mut answers);
    }
    eprintln!("growth: {most} rows in {PARTITIONS} partitions");
    let wide = Grown::filled_at_once(Spread::over_days(most, PARTITIONS), most);
    let wide = queries::ask(
        &wide,
        format!("{} rows in {PARTITIONS} partitions", count(most)),
        requests(most),
    );
    plots::growth(&plan.out.join("growth.svg"), &lines(&points));
    let figures = json!({
        "points": points.iter().map(Point::figures).collect::<Vec<_>>(),
        "queries": answers.iter().chain([&wide]).map(Answers::figures).collect::<Vec<_>>(),
    });
    Findings { rows: rows(most, &points, &answers, &wide), figures }
}

/// All three tables, from nothing on.
fn grow(plan: &Plan, devices: u64, points: &mut Vec<Point>, answers: &mut Vec<Answers>) {
    let most = plan.growth_rows();
    let measured = (most / 40).max(ROUND_LEAST);
    let spread = Spread::hourly(devices, most + measured * u64::from(plan.rounds) + measured);
    let mut tables = Layout::ALL.map(|layout| Grown::empty(layout, spread));
    for share in SIZES {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count of millions"
        )]
        let size = (most as f64 * share) as u64;
        for table in &mut tables {
            eprintln!("growth: {devices} devices, {}, to {size} rows", table.layout.name());
            table.grow_to(size);
            if size > 0 && table.layout != Layout::FirstRelease {
                answers.push(queries::ask(
                    table,
                    format!(
                        "{} rows of {} devices, {}",
                        count(size),
                        count(devices),
                        table.layout.name()
                    ),
                    requests(most),
                ));
            }
        }
        let bytes = tables.each_ref().map(Grown::bytes_a_row);
        let mut costs = tables.each_ref().map(|_| Vec::new());
        for round in 0..plan.rounds {
            eprintln!("growth: round {} at {size} rows", round + 1);
            for (table, costs) in tables.iter_mut().zip(&mut costs) {
                costs.push(writing::write(table, measured));
            }
        }
        for ((table, costs), bytes_a_row) in tables.iter().zip(costs).zip(bytes) {
            points.push(Point { devices, layout: table.layout, rows: size, costs, bytes_a_row });
        }
    }
}

impl Point {
    fn cost(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        median(self.costs.iter().map(of))
    }

    fn rows_per_second(&self) -> f64 {
        self.cost(|cost| cost.rows_per_second)
    }

    fn cpu_micros(&self) -> f64 {
        self.cost(|cost| cost.cpu_micros)
    }

    fn name(&self) -> String {
        format!("{} devices, {}", count(self.devices), self.layout.name())
    }

    fn figures(&self) -> Value {
        json!({
            "devices": self.devices, "table": self.layout.name(), "rows": self.rows,
            "bytes_a_row": self.bytes_a_row, "rounds": self.costs,
        })
    }

    fn row(&self) -> Row {
        let size = if self.rows > 0 {
            format!(", {} B on the disk", figure(self.bytes_a_row))
        } else {
            String::new()
        };
        Row {
            what: format!("{}: PostgreSQL's time a row at {} rows", self.name(), count(self.rows)),
            value: self.cpu_micros(),
            unit: " µs",
            bar: None,
            detail: format!(
                "{} rows/s, {} B of its log a row{size}",
                figure(self.rows_per_second()),
                figure(self.cost(|cost| cost.wal_bytes))
            ),
        }
    }
}

fn requests(most: u64) -> usize {
    let wanted = (most / ROWS_A_REQUEST).clamp(*REQUESTS.start(), *REQUESTS.end());
    usize::try_from(wanted).unwrap()
}

/// Each table of so many devices, over its size.
fn lines(points: &[Point]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for devices in DEVICES {
        for layout in Layout::ALL {
            let of = |point: &&Point| point.devices == devices && point.layout == layout;
            let values =
                |point: &Point| (point.rows, point.cpu_micros(), point.cost(|cost| cost.wal_bytes));
            let points: Vec<_> = points.iter().filter(of).collect();
            lines.push(Line {
                name: points[0].name(),
                is_thin: devices < MOST_DEVICES,
                points: points.into_iter().map(values).collect(),
            });
        }
    }
    lines
}

fn rows(most: u64, points: &[Point], answers: &[Answers], wide: &Answers) -> Vec<Row> {
    let at = |layout, rows| {
        let is_it = |point: &&Point| {
            (point.devices, point.layout, point.rows) == (MOST_DEVICES, layout, rows)
        };
        points.iter().find(is_it).unwrap()
    };
    let (old, new) = (at(Layout::FirstRelease, most), at(Layout::Partitioned, most));
    let empty = at(Layout::Partitioned, 0);
    let mut rows: Vec<Row> = points.iter().map(Point::row).collect();
    let devices = count(MOST_DEVICES);
    rows.push(Row {
        what: format!(
            "{devices} devices, {} rows: rows a second in daily partitions, against the first release's table",
            count(most)
        ),
        value: new.rows_per_second() / old.rows_per_second(),
        unit: "",
        bar: Some(Bar::AtLeast(5.0)),
        detail: format!(
            "{} / {} rows/s",
            figure(new.rows_per_second()),
            figure(old.rows_per_second())
        ),
    });
    rows.push(Row {
        what: format!(
            "{devices} devices, daily partitions: PostgreSQL's time a row at {} rows, against that of an empty table",
            count(most)
        ),
        value: new.cpu_micros() / empty.cpu_micros(),
        unit: "",
        bar: Some(Bar::AtMost(1.3)),
        detail: format!("{} / {} µs", figure(new.cpu_micros()), figure(empty.cpu_micros())),
    });
    let ours =
        points.iter().filter(|point| point.rows == most && point.layout != Layout::FirstRelease);
    let largest = ours.max_by(|a, b| a.bytes_a_row.total_cmp(&b.bytes_a_row)).unwrap();
    rows.push(Row {
        what: format!("bytes a row, most of plain and partitioned at {} rows", count(most)),
        value: largest.bytes_a_row,
        unit: " B",
        bar: Some(Bar::AtMost(185.0)),
        detail: largest.name(),
    });
    rows.extend(answers.iter().map(|of| Row {
        what: format!("{}: the API's slowest question, p99", of.what),
        value: of.slowest().p99,
        unit: " ms",
        bar: None,
        detail: of.slowest().what.to_owned(),
    }));
    rows.extend(wide.kinds.iter().map(|kind| Row {
        what: format!("{}: {}, p99", wide.what, kind.what),
        value: kind.p99,
        unit: " ms",
        bar: Some(Bar::AtMost(15.0)),
        detail: format!("p50 {} ms, p95 {} ms", figure(kind.p50), figure(kind.p95)),
    }));
    rows
}

/// With all its digits.
#[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
fn count(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { figure(number as f64) }
}
