//! A long backlog, and a configuration that changes behind it.

use std::ops::Range;

use serde_json::json;

use super::{EPOCH, PENDING, Setup};
use crate::harness::{Ingestor, Publisher, eventually};

/// Records that wait: as many as a suite can bear, or a million (`scripts/torture.sh`).
fn records() -> u64 {
    let asked = std::env::var("MAPPED_PENDING").ok();
    asked.map_or(50_000, |text| text.parse().expect("MAPPED_PENDING is a number"))
}

/// Readings of a message.
const A_MESSAGE: u64 = 50;

/// Of each mapping, where its messages come from and the table that it fills.
const KINDS: [(&str, &str); 3] = [("plug", "power"), ("room", "rooms"), ("tank", "tanks")];

fn mapping(name: &str, table: &str) -> String {
    format!(
        "[[default.mapping]]\nname = \"{name}\"\ntopic = \"{name}/#\"\neach = \"[*]\"\ndevice = \"{{.d}}\"\n\
         time = {{ path = \"t\", format = \"ms\" }}\ntable = \"{table}\"\nfields = {{ v = {{ type = \"int\" }} }}\n"
    )
}

/// The readings of these numbers in messages that take turns among the mappings.
fn publish(publisher: &mut Publisher, numbers: Range<u64>) {
    for first in numbers.clone().step_by(usize::try_from(A_MESSAGE).unwrap()) {
        let (kind, _) = KINDS[usize::try_from(first / A_MESSAGE % 3).unwrap()];
        let reading = |n: u64| json!({"d": format!("d{}", n % 97), "t": EPOCH * 1_000 + n, "v": n});
        let all: Vec<_> = (first..(first + A_MESSAGE).min(numbers.end)).map(reading).collect();
        publisher.publish(&format!("{kind}/x"), json!(all).to_string());
    }
    publisher.finish();
}

/// Waits until nothing waits, as long as it becomes less.
#[track_caller]
fn drain(ingestor: &Ingestor) {
    let mut waiting = u64::MAX;
    while waiting > 0 {
        waiting = eventually("less waits", || {
            Some(ingestor.metric(PENDING)).filter(|now| *now < waiting)
        });
    }
}

#[test]
fn a_long_backlog_goes_into_the_tables_that_it_was_mapped_to_whatever_is_mapped_now() {
    let records = records();
    let mut setup = Setup::with(&KINDS.map(|(name, table)| mapping(name, table)).concat());
    let mut ingestor = setup.start();
    setup.postgres.stop();
    let mut publisher = Publisher::connect(setup.broker.port);
    let part = 100 * A_MESSAGE;
    let mut done = 0;
    while done < records {
        let next = (done + part).min(records);
        publish(&mut publisher, done..next);
        ingestor.await_metric(PENDING, next);
        done = next;
    }
    // What is not acknowledged comes again, and is mapped as it is then.
    ingestor.await_metric("ingestor_acks_total", records.div_ceil(A_MESSAGE));
    ingestor.kill();
    // One table is called something else, one mapping is gone.
    setup.configure(&[mapping("plug", "plugs"), mapping("room", "rooms")].concat());
    setup.postgres.launch();
    let ingestor = setup.start();
    drain(&ingestor);
    let mut of_tables = [(0, 0_i64); 3];
    for n in 0..records {
        let (count, sum) = &mut of_tables[usize::try_from(n / A_MESSAGE % 3).unwrap()];
        *count += 1;
        *sum += n.cast_signed();
    }
    for ((_, table), (count, sum)) in KINDS.iter().zip(of_tables) {
        let value = |what: &str| setup.postgres.value(&format!("select {what} from {table}"));
        assert_eq!((value("count(*)"), value("sum(v)::bigint")), (count, sum), "{table}");
        let wrong = format!(
            "count(*) filter (where v <> extract(epoch from ts) * 1000 - {EPOCH}000
                 or device_id <> 'd' || v % 97)"
        );
        assert_eq!(value(&wrong), 0, "{table}");
    }
    assert_eq!(setup.postgres.value("select count(*) from plugs"), 0);
    // What comes now goes where it is mapped to now.
    publish(&mut publisher, 0..A_MESSAGE);
    eventually("it is there", || {
        (setup.postgres.value("select count(*) from plugs") == A_MESSAGE.cast_signed())
            .then_some(())
    });
    let letters = ingestor.metric("ingestor_dead_letters");
    assert_eq!((letters, setup.postgres.value("select count(*) from power")), (0, of_tables[0].0));
}
