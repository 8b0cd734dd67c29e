//! The bare minimum: what any implementation in Rust has to do, and nothing else.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use sqlx::Connection as _;
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::Query;

use crate::harness::process::{Process, guarded};
use crate::harness::{PATIENCE, Reading, Scratch, within};

/// The first argument of the bare subscriber, before the port and how many messages to wait for.
pub(crate) const MODE: &str = "bare-subscriber";

/// Rows in one insert.
const BATCH: usize = 2_000;

const INSERT: &str = "
    insert into telemetry (device_id, ts, temperature, humidity, battery)
    select * from unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[])
    on conflict (device_id, ts) do nothing";

/// Counts messages and acknowledges each, as rumqttc's documentation shows it. Says on its standard
/// output that it has subscribed, and when it has written so many acknowledgements.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn subscribe(port: u16, messages: u64) {
    let mut options = MqttOptions::new("bare-subscriber", "127.0.0.1", port);
    options.set_manual_acks(true).set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20);
    // Room for every acknowledgement and the subscription: this task alone takes them out again.
    let (client, mut events) = AsyncClient::new(options, usize::try_from(messages).unwrap() + 1);
    let mut network = events.network_options();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    client.try_subscribe("telemetry/#", QoS::AtLeastOnce).unwrap();
    let mut acked = 0;
    loop {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::Publish(publish)) => client.try_ack(&publish).unwrap(),
            Event::Incoming(Packet::SubAck(_)) => println!("{SUBSCRIBED}"),
            Event::Outgoing(Outgoing::PubAck(_)) => {
                acked += 1;
                if acked == messages {
                    println!("{ACKED}");
                }
            }
            _ => {}
        }
    }
}

const SUBSCRIBED: &str = "subscribed";
const ACKED: &str = "acknowledged";

/// The bare subscriber's process.
pub(crate) struct Subscriber {
    pub(crate) process: Process,
    scratch: Scratch,
}

impl Subscriber {
    /// Starts one that waits for so many messages; its session with the broker outlives it.
    pub(crate) fn start(port: u16, messages: u64) -> Self {
        let scratch = Scratch::new();
        let mut command = guarded(std::env::current_exe().unwrap());
        command.args([MODE, &port.to_string(), &messages.to_string()]);
        let process = Process::spawn("subscriber", scratch.path(), command);
        Self { process, scratch }
    }

    pub(crate) fn await_subscribed(&mut self) {
        self.await_word(SUBSCRIBED);
    }

    /// Waits until all messages are acknowledged.
    pub(crate) fn await_acked(&mut self) {
        self.await_word(ACKED);
    }

    fn await_word(&mut self, word: &str) {
        within(PATIENCE * 4, "the bare subscriber is done", || {
            self.process.must_run();
            let out = self.scratch.path().join("subscriber.out");
            std::fs::read_to_string(out).unwrap().contains(word).then_some(())
        });
    }
}

/// Readings turned on their side.
pub(crate) struct Batch {
    device_ids: Vec<String>,
    timestamps: Vec<DateTime<Utc>>,
    temperatures: Vec<f64>,
    humidities: Vec<f64>,
    batteries: Vec<f64>,
}

impl Batch {
    pub(crate) fn of(readings: &[Reading]) -> Self {
        Self {
            device_ids: readings.iter().map(|reading| reading.device_id.clone()).collect(),
            timestamps: readings
                .iter()
                .map(|reading| DateTime::from_timestamp_micros(reading.micros).unwrap())
                .collect(),
            temperatures: readings.iter().map(|reading| reading.temperature).collect(),
            humidities: readings.iter().map(|reading| reading.humidity).collect(),
            batteries: readings.iter().map(|reading| reading.battery).collect(),
        }
    }

    /// As the first release sorted them.
    pub(crate) fn in_order_of_key(readings: &[Reading]) -> Self {
        let mut readings = readings.to_vec();
        readings.sort_by(|a, b| (&a.device_id, a.micros).cmp(&(&b.device_id, b.micros)));
        Self::of(&readings)
    }

    pub(crate) fn len(&self) -> usize {
        self.device_ids.len()
    }

    /// As the first parameters.
    pub(crate) fn bind_to<'b>(
        &'b self,
        query: Query<'b, Postgres, PgArguments>,
    ) -> Query<'b, Postgres, PgArguments> {
        query
            .bind(&self.device_ids)
            .bind(&self.timestamps)
            .bind(&self.temperatures)
            .bind(&self.humidities)
            .bind(&self.batteries)
    }
}

/// Inserts `readings`, one batch after the other on one connection, and says how long that took once
/// they were ready to be sent.
pub(crate) fn insert(url: &str, readings: &[Reading]) -> Duration {
    let batches: Vec<Batch> = readings.chunks(BATCH).map(Batch::of).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let started = Instant::now();
        let mut connection = PgConnection::connect(url).await.unwrap();
        for batch in &batches {
            batch.bind_to(sqlx::query(INSERT)).execute(&mut connection).await.unwrap();
        }
        started.elapsed()
    })
}
