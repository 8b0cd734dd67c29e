//! Publishes at a steady rate and watches the table.

use std::time::{Duration, Instant};

use sqlx::Row;

use super::{Postgres, Publisher, reading};

/// When a reading was published, and when it was in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) published: Instant,
    pub(crate) visible: Instant,
}

impl Seen {
    pub(crate) fn latency(&self) -> Duration {
        self.visible - self.published
    }
}

/// Publishes the first `count` readings, `per_second` of them, and says of each, by its number, when
/// that was and when it was visible: when a query had shown it, so that the time between two queries
/// is part of what is measured.
#[track_caller]
pub(crate) fn watch(port: u16, postgres: &Postgres, per_second: u64, count: u64) -> Vec<Seen> {
    let (sender, sent) = std::sync::mpsc::channel();
    let load = std::thread::spawn(move || {
        let mut publisher = Publisher::connect(port);
        let started = Instant::now();
        let mut number = 0;
        while number < count {
            let due = started.elapsed().as_micros() * u128::from(per_second) / 1_000_000;
            while u128::from(number) < due && number < count {
                let reading = reading(number);
                sender.send(Instant::now()).unwrap();
                publisher.publish(&reading.topic(), reading.payload());
                number += 1;
            }
            publisher.flush();
            std::thread::sleep(Duration::from_micros(500));
        }
        publisher.finish();
    });
    let mut session = postgres.session();
    let mut seen: Vec<Option<Seen>> = Vec::new();
    let mut published: Vec<Instant> = Vec::new();
    let mut first_unseen = 0;
    let mut deadline = Instant::now() + Duration::from_secs(40);
    while (first_unseen as u64) < count {
        assert!(Instant::now() < deadline, "no more than {first_unseen} became visible");
        std::thread::sleep(Duration::from_millis(1));
        // Their times rise by a microsecond each.
        let first = reading(first_unseen as u64);
        let rows = session.rows(&format!(
            "select (extract(epoch from ts) * 1000000)::bigint from telemetry where ts >= '{}'",
            first.timestamp()
        ));
        let visible = Instant::now();
        published.extend(sent.try_iter());
        seen.resize(published.len(), None);
        for row in rows {
            let place =
                first_unseen + usize::try_from(row.get::<i64, _>(0) - first.micros).unwrap();
            let published = published[place];
            seen[place].get_or_insert(Seen { published, visible });
        }
        while seen.get(first_unseen).is_some_and(Option::is_some) {
            first_unseen += 1;
            deadline = visible + Duration::from_secs(10);
        }
    }
    load.join().unwrap();
    seen.into_iter().map(|seen| seen.expect("all were seen")).collect()
}
