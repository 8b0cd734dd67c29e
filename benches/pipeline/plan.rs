//! What to measure, and how much of it.

use std::path::PathBuf;

use clap::ValueEnum as _;

/// Measures the ingestor side by side with the bare minimum.
#[derive(clap::Parser)]
pub(crate) struct Arguments {
    /// What to measure; everything but `growth` if none is named
    #[arg(value_enum)]
    measurements: Vec<Measurement>,
    /// Rounds of each, a median of which is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Share of the usual number of messages and rows
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The same as `--scale 0.03 --rounds 1`
    #[arg(long)]
    quick: bool,
    /// Where figures and plots go; `target/bench` unless said
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cargo says that it is a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

const GROWTH_ROWS: u64 = 20_000_000;

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Measurement {
    /// A broker's backlog into the log, against a subscriber that only counts
    Ingest,
    /// The log into PostgreSQL, against a loop of inserts
    Drain,
    /// Rows of a mapping out of the log, against readings of the built-in shape
    Mapped,
    /// A publisher at full speed into the table, against a subscriber without a database
    Live,
    /// Publish to PUBACK and to visible row, at 2,000 messages a second
    Latency,
    /// What a message costs at 10⁴ to 10⁷ pending ones
    Backlog,
    /// The API with 5 million rows
    Query,
    /// The API without a database, of ten million readings that wait and of those that just came in
    Answers,
    /// A million rows as a file, and out of one
    Files,
    /// A table that grows to 20 million rows, or `GROWTH_ROWS`, and that of the first release: half an hour, and
    /// 20 GB of disk
    Growth,
}

impl Measurement {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Drain => "drain",
            Self::Mapped => "mapped",
            Self::Live => "live",
            Self::Latency => "latency",
            Self::Backlog => "backlog",
            Self::Query => "query",
            Self::Answers => "answers",
            Self::Files => "files",
            Self::Growth => "growth",
        }
    }
}

pub(crate) struct Plan {
    measurements: Vec<Measurement>,
    pub(crate) rounds: u32,
    scale: f64,
    pub(crate) out: PathBuf,
}

impl Arguments {
    pub(crate) fn plan(self) -> Plan {
        let Self { mut measurements, rounds, scale, quick, out, .. } = self;
        if measurements.is_empty() {
            measurements = Measurement::value_variants().to_vec();
            measurements.retain(|measurement| !matches!(measurement, Measurement::Growth));
        }
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let out = out.unwrap_or_else(|| target.with_file_name("bench"));
        std::fs::create_dir_all(&out).expect("a directory for the figures");
        let (rounds, scale) = if quick { (1, 0.03) } else { (rounds, scale) };
        Plan { measurements, rounds, scale, out }
    }
}

impl Plan {
    pub(crate) fn measurements(&self) -> impl Iterator<Item = Measurement> + use<> {
        self.measurements.clone().into_iter()
    }

    /// Whether it is too small a run for the bars to mean anything.
    pub(crate) fn is_small(&self) -> bool {
        self.rounds < 3 || self.scale < 1.0 || self.growth_rows() < GROWTH_ROWS
    }

    /// Rows that a table grows to: so many as the variable says, else a share of the usual number.
    pub(crate) fn growth_rows(&self) -> u64 {
        match std::env::var("GROWTH_ROWS") {
            Ok(rows) => rows.parse().expect("GROWTH_ROWS is a number"),
            Err(_) => self.scaled(GROWTH_ROWS),
        }
    }

    /// That share of `count`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a count of millions"
    )]
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1_000)
    }

    /// Lets `ours` and `bare` take turns, each of them first every other time.
    pub(crate) fn alternate<T>(
        &self,
        mut ours: impl FnMut() -> T,
        mut bare: impl FnMut() -> T,
    ) -> (Vec<T>, Vec<T>) {
        let (mut all_ours, mut all_bare) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            if round % 2 == 0 {
                all_ours.push(ours());
                all_bare.push(bare());
            } else {
                all_bare.push(bare());
                all_ours.push(ours());
            }
        }
        (all_ours, all_bare)
    }
}
