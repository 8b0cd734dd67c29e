//! What pending records cost: it must not matter how many there are.
//!
//! One service, its database down, is filled with arrays of 500 readings, which is quick, up to
//! each depth, and takes probes of messages with one reading each on top. The process is then
//! stopped and started, to see how long opening takes. Bytes on the disk and bytes written are those
//! of everything so far, arrays and probes. Written are counted twice, by process and by disk; both
//! count too many, each for its own reason, and the lesser is taken.
//!
//! More probes tell what a message costs, taking turns with probes of another log of the least depth:
//! a processor that others share changes its speed from one minute to the next by more than the
//! depth could.

use std::time::Instant;

use serde_json::json;

use crate::harness::{Ingestor, Mosquitto, PATIENCE, Service};
use crate::plan::Plan;
use crate::plots;
use crate::report::{Bar, Findings, Row, figure, median, sorted};
use crate::{ingest, load, usage};

const DEPTHS: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// Messages in a probe; fewer, if that is more than there are pending, or, side by side, more than a
/// tenth of it.
const PROBE: u64 = 30_000;

/// In a round, of each log; one alone is off by a fifth, either way.
const PROBES_SIDE_BY_SIDE: u32 = 10;

#[derive(serde::Serialize)]
struct Depth {
    /// When the first probe began.
    pending: u64,
    /// Processor time a message.
    cpu_micros: f64,
    /// That, as a share of what it is at the least depth meanwhile; so 1 at the least depth.
    cpu_share: f64,
    messages_per_second: f64,
    peak_mib: f64,
    disk_bytes: f64,
    written_bytes: f64,
    open_ms: f64,
}

struct Filled {
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
    pending: u64,
    /// Since this process began.
    taken: u64,
    arrays: u64,
    /// By the processes before.
    written: u64,
    /// By anybody, before the first.
    on_the_disk: Option<u64>,
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let mut filled = Filled::empty();
    let deepest = plan.scaled(DEPTHS[3]).max(DEPTHS[0]);
    let depths: Vec<Depth> = DEPTHS
        .into_iter()
        .filter(|depth| *depth <= deepest)
        .map(|depth| filled.measure(depth, plan.rounds))
        .collect();
    filled.ingestor.stop();
    let over_depth = |of: fn(&Depth) -> f64| -> Vec<_> {
        depths.iter().map(|depth| (depth.pending, of(depth))).collect()
    };
    let (cost, open) = (over_depth(|depth| depth.cpu_micros), over_depth(|depth| depth.open_ms));
    plots::backlog(&plan.out.join("backlog.svg"), &cost, &open);
    Findings { rows: rows(&depths), figures: json!(depths) }
}

impl Filled {
    fn empty() -> Self {
        let broker = Mosquitto::start();
        let service = Service::new(&ingest::no_database(), broker.port);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let on_the_disk = usage::written_to_disk_under(&service.wal_dir());
        Self { broker, service, ingestor, pending: 0, taken: 0, arrays: 0, written: 0, on_the_disk }
    }

    fn measure(&mut self, depth: u64, rounds: u32) -> Depth {
        self.fill(depth);
        let pending = self.pending;
        let messages = PROBE.min(depth);
        let probes: Vec<(f64, f64)> = (0..rounds).map(|_| self.probe(messages)).collect();
        let peak = self.ingestor.peak_memory();
        self.written += usage::written(self.ingestor.pid());
        let open_ms = self.restart();
        #[expect(clippy::cast_precision_loss, reason = "counts of bytes and records")]
        let a_record = |bytes: u64| bytes as f64 / self.pending as f64;
        let disk_bytes = a_record(self.service.wal_bytes());
        let written_bytes = a_record(self.written());
        let (cpu_micros, cpu_share) = if depth == DEPTHS[0] {
            (median(probes.iter().map(|(cpu, _)| *cpu)), 1.0)
        } else {
            self.beside_the_least_depth(PROBE.min(depth / 10), rounds)
        };
        let peak = peak.max(self.ingestor.peak_memory());
        #[expect(clippy::cast_precision_loss, reason = "a count of bytes")]
        let peak_mib = peak as f64 / f64::from(1 << 20);
        Depth {
            pending,
            cpu_micros,
            cpu_share,
            messages_per_second: median(probes.iter().map(|(_, speed)| *speed)),
            peak_mib,
            disk_bytes,
            written_bytes,
            open_ms,
        }
    }

    /// Microseconds of processor time a message, and that as a share of what it takes a log of the
    /// least depth, a new one for each probe, so that it stays at that depth. Which of the two comes
    /// first changes. What the other one writes is left out of what is written.
    fn beside_the_least_depth(&mut self, messages: u64, rounds: u32) -> (f64, f64) {
        let rounds: Vec<(f64, f64)> = (0..rounds)
            .map(|_| {
                let (mut here, mut there) = (0.0, 0.0);
                for probe in 0..PROBES_SIDE_BY_SIDE {
                    let mut least = self.aside(|| {
                        let mut least = Self::empty();
                        least.fill(DEPTHS[0]);
                        least
                    });
                    if probe % 2 == 0 {
                        here += self.probe(messages).0;
                    }
                    there += self.aside(|| least.probe(messages).0);
                    if probe % 2 == 1 {
                        here += self.probe(messages).0;
                    }
                    self.aside(|| least.ingestor.stop());
                }
                (here / f64::from(PROBES_SIDE_BY_SIDE), here / there)
            })
            .collect();
        (
            median(rounds.iter().map(|(here, _)| *here)),
            median(rounds.iter().map(|(_, share)| *share)),
        )
    }

    /// Does something whose bytes are not to be counted.
    fn aside<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let dir = self.service.wal_dir();
        let before = usage::written_to_disk_under(&dir);
        let outcome = act();
        let after = usage::written_to_disk_under(&dir);
        let meanwhile = after.zip(before).map(|(after, before)| after - before);
        self.on_the_disk = self.on_the_disk.zip(meanwhile).map(|(all, by)| all + by);
        outcome
    }

    /// Bytes since the beginning.
    fn written(&self) -> u64 {
        let by_processes = self.written + usage::written(self.ingestor.pid());
        let by_disk = usage::written_to_disk_under(&self.service.wal_dir());
        let by_disk = by_disk.zip(self.on_the_disk).map(|(now, before)| now - before);
        by_disk.map_or(by_processes, |bytes| bytes.min(by_processes))
    }

    fn fill(&mut self, depth: u64) {
        let more = depth.saturating_sub(self.pending);
        load::publish_arrays(self.broker.port, self.arrays..self.arrays + more);
        self.arrays += more;
        self.took(more);
    }

    fn took(&mut self, more: u64) {
        (self.pending, self.taken) = (self.pending + more, self.taken + more);
        load::await_counter(&mut self.ingestor, "ingestor_valid_messages_total", self.taken);
    }

    /// Microseconds of processor time a message, and messages a second.
    #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
    fn probe(&mut self, messages: u64) -> (f64, f64) {
        let pid = self.ingestor.pid();
        let (before, started) = (usage::cpu_of_threads(pid), Instant::now());
        let simulator = load::simulate(self.broker.port, messages);
        self.took(messages);
        let elapsed = started.elapsed();
        let cpu = usage::cpu_of_threads(pid).saturating_sub(before);
        assert_eq!(simulator.finish(PATIENCE).1, messages);
        (cpu.as_secs_f64() * 1e6 / messages as f64, messages as f64 / elapsed.as_secs_f64())
    }

    /// Stops the service and starts it again; how long it took to open the log, in milliseconds.
    fn restart(&mut self) -> f64 {
        self.ingestor.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ingestor.await_exit(PATIENCE), 0);
        self.ingestor = self.service.start();
        self.ingestor.await_ready();
        self.taken = 0;
        let opened = self.ingestor.log_of("log opened").pop().unwrap();
        assert_eq!(opened["pending_records"].as_u64(), Some(self.pending));
        opened["open_ms"].as_str().unwrap().parse().unwrap()
    }
}

fn rows(depths: &[Depth]) -> Vec<Row> {
    let each = |of: fn(&Depth) -> f64| {
        let values: Vec<String> = depths.iter().map(|depth| figure(of(depth))).collect();
        values.join(" / ")
    };
    let most = |of: fn(&Depth) -> f64| depths.iter().map(of).fold(0.0, f64::max);
    let row = |what: &str, of: fn(&Depth) -> f64, unit, bar| Row {
        what: what.to_owned(),
        value: most(of),
        unit,
        bar: Some(Bar::AtMost(bar)),
        detail: each(of),
    };
    let costs = sorted(depths.iter().map(|depth| depth.cpu_share));
    let flat = Row {
        what: "processor time a message at 10⁴, 10⁵, 10⁶, 10⁷ pending, as a share of that at 10⁴ \
               beside it: dearest over cheapest"
            .to_owned(),
        value: costs[costs.len() - 1] / costs[0],
        unit: "",
        bar: Some(Bar::AtMost(1.15)),
        detail: format!("{}; {} µs", each(|depth| depth.cpu_share), each(|depth| depth.cpu_micros)),
    };
    vec![
        flat,
        row("peak memory", |depth| depth.peak_mib, " MiB", 128.0),
        row("disk space a reading", |depth| depth.disk_bytes, " B", 60.0),
        row("bytes written a reading", |depth| depth.written_bytes, " B", 250.0),
        row("opening the log", |depth| depth.open_ms, " ms", 1_000.0),
    ]
}
