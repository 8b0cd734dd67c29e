//! A private PostgreSQL.
//!
//! `initdb` runs once a version, into a template below `target/tmp`; each test has a copy.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use tokio::runtime::Runtime;

use super::process::{Process, children_of, give_to_server, guarded_server};
use super::scratch::copy;
use super::{PATIENCE, Reading, Scratch, eventually, ports};

/// What the service does in an empty database, in its order.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../../migrations/0001_telemetry.sql"),
    include_str!("../../../migrations/0002_devices.sql"),
    include_str!("../../../migrations/0003_no_serial_number.sql"),
];

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fsync {
    /// For tests that kill processes, which a page cache survives, and are not about speed.
    Off,
    /// As in production.
    On,
}

/// A server with the database `iotdb` and its owner `iot`.
pub(crate) struct Postgres {
    scratch: Scratch,
    process: Option<Process>,
    fsync: Fsync,
    password: String,
    pub(crate) port: u16,
}

impl Postgres {
    /// A running one.
    pub(crate) fn start() -> Self {
        let mut postgres = Self::prepare(Fsync::Off);
        postgres.launch();
        postgres
    }

    /// A running one that keeps what it confirms.
    pub(crate) fn start_durable() -> Self {
        let mut postgres = Self::prepare(Fsync::On);
        postgres.launch();
        postgres
    }

    /// One whose port is known, but does not run yet.
    pub(crate) fn prepare(fsync: Fsync) -> Self {
        let template = Template::get();
        let scratch = Scratch::new();
        copy(&template.dir.join("data"), &scratch.path().join("data"));
        give_to_server(scratch.path());
        let password = fs::read_to_string(template.dir.join("password")).unwrap();
        Self { scratch, process: None, fsync, password, port: ports::free() }
    }

    /// A running standby of this one, which it follows asynchronously.
    pub(crate) fn start_standby(&self) -> Self {
        let scratch = Scratch::new();
        give_to_server(scratch.path());
        let mut backup = guarded_server(bin_dir().join("pg_basebackup"));
        backup.arg("-D").arg(scratch.path().join("data")).current_dir("/");
        backup.args(["-R", "-X", "stream", "-c", "fast", "-U", "iot", "-h", "127.0.0.1", "-p"]);
        run(backup.arg(self.port.to_string()).env("PGPASSWORD", &self.password));
        let (password, port) = (self.password.clone(), ports::free());
        let mut standby = Self { scratch, process: None, fsync: self.fsync, password, port };
        standby.launch();
        standby
    }

    /// Cuts a standby off from what it follows, by which it falls behind.
    pub(crate) fn stop_following(&self) {
        self.execute("alter system set primary_conninfo = ''");
        self.execute("select pg_reload_conf()");
        let receivers = "select count(*) from pg_stat_wal_receiver";
        eventually("it follows no more", || (self.value(receivers) == 0).then_some(()));
    }

    /// What `pg_dump` makes of the database, as statements.
    pub(crate) fn dump(&self) -> String {
        let mut dump = guarded_server(bin_dir().join("pg_dump"));
        dump.args(["-h", "127.0.0.1", "-U", "iot", "-d", "iotdb", "-p", &self.port.to_string()]);
        let output = dump.env("PGPASSWORD", &self.password).current_dir("/").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a dump in the place of the database, as one does who does not want to be seen doing it.
    pub(crate) fn restore(&self, dump: &str) {
        self.psql("postgres", "create database restored owner iot");
        self.psql("restored", dump);
        self.psql("postgres", "drop database iotdb with (force)");
        self.psql("postgres", "alter database restored rename to iotdb");
    }

    fn psql(&self, database: &str, statements: &str) {
        let file = self.scratch.path().join("statements.sql");
        fs::write(&file, statements).unwrap();
        give_to_server(&file);
        let mut psql = guarded_server(bin_dir().join("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "iot", "-f"]);
        psql.arg(&file).args(["-d", database, "-p", &self.port.to_string()]).current_dir("/");
        run(psql.env("PGPASSWORD", &self.password));
    }

    /// Makes a standby a server of its own.
    pub(crate) fn promote(&self) {
        self.session().rows("select pg_promote()");
    }

    /// Starts it and waits until it takes statements.
    pub(crate) fn launch(&mut self) {
        self.launch_unawaited();
        eventually("PostgreSQL takes statements", || {
            self.process.as_mut().unwrap().must_run();
            self.try_connect("iot", &self.password).ok()
        });
    }

    /// Starts it.
    pub(crate) fn launch_unawaited(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = guarded_server(bin_dir().join("postgres"));
        command.arg("-D").arg(self.scratch.path().join("data")).current_dir("/");
        let fsync = if self.fsync == Fsync::On { "on" } else { "off" };
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("unix_socket_directories", &self.scratch.path().to_string_lossy()),
            ("fsync", fsync),
            ("max_connections", "40"),
            // As files of its directory, so that none is left over after a kill.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_checkpoints", "off"),
        ];
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        self.process = Some(Process::spawn("postgresql", self.scratch.path(), command));
    }

    /// SIGKILL to every process of it.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it does not run").kill_all();
    }

    /// Its fast shutdown, which ends connections.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("it does not run");
        process.signal(Signal::INT);
        process.await_exit(PATIENCE);
    }

    /// SIGSTOP to every process of it: connections stay open, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let pid = self.pid();
        kill_process(pid, signal).unwrap();
        for child in children_of(pid) {
            kill_process(child, signal).ok();
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().expect("it does not run").pid()
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// For the owner of the database.
    pub(crate) fn url(&self) -> String {
        self.url_of("iot", &self.password)
    }

    /// For some other role.
    pub(crate) fn url_of(&self, role: &str, password: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/iotdb", self.port)
    }

    /// What it has printed.
    pub(crate) fn log_text(&self) -> String {
        let log = fs::read(self.scratch.path().join("postgresql.log")).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Runs statements as the owner.
    #[track_caller]
    pub(crate) fn execute(&self, sql: &str) {
        self.session().execute(sql);
    }

    /// Makes the table as the service makes it.
    #[track_caller]
    pub(crate) fn make_table(&self) {
        self.execute(&format!("begin; {}; commit", MIGRATIONS.join(";")));
    }

    /// Has an autovacuum at `table`, which has many new rows, for as long as it is let.
    #[track_caller]
    pub(crate) fn vacuum_slowly(&self, table: &str) {
        self.execute(&format!(
            "alter table {table} set (autovacuum_vacuum_cost_delay = 100,
                 autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_insert_threshold = 1000)"
        ));
        self.execute("alter system set autovacuum_naptime = '1s'");
        self.execute("select pg_reload_conf()");
        self.await_vacuum(table);
    }

    /// Until an autovacuum is at `table`.
    #[track_caller]
    pub(crate) fn await_vacuum(&self, table: &str) {
        let at_it = format!(
            "select count(*) from pg_stat_progress_vacuum where relid = '{table}'::regclass"
        );
        eventually("an autovacuum is at it", || (self.value(&at_it) > 0).then_some(()));
    }

    /// The one value of the one row.
    #[track_caller]
    pub(crate) fn value(&self, sql: &str) -> i64 {
        self.session().rows(sql)[0].get(0)
    }

    /// How many rows the table has; 0 as long as there is none.
    #[track_caller]
    pub(crate) fn count(&self) -> usize {
        let mut session = self.session();
        let exists = "select (to_regclass('telemetry') is not null)::int::bigint";
        if session.rows(exists)[0].get::<i64, _>(0) == 0 {
            return 0;
        }
        let count: i64 = session.rows("select count(*) from telemetry")[0].get(0);
        usize::try_from(count).unwrap()
    }

    /// What the table holds.
    #[track_caller]
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.readings_since(0)
    }

    /// What the table holds from so many microseconds after the Unix epoch on.
    #[track_caller]
    pub(crate) fn readings_since(&self, micros: i64) -> Vec<Reading> {
        let sql = format!(
            "select device_id, (extract(epoch from ts) * 1000000)::bigint, temperature, humidity, \
             battery from telemetry where ts >= 'epoch'::timestamptz + {micros} * interval '1 us'"
        );
        let reading = |row: &PgRow| Reading {
            device_id: row.get(0),
            micros: row.get(1),
            temperature: row.get(2),
            humidity: row.get(3),
            battery: row.get(4),
        };
        self.session().rows(&sql).iter().map(reading).collect()
    }

    /// A connection that stays open.
    #[track_caller]
    pub(crate) fn session(&self) -> Session {
        self.try_connect("iot", &self.password).expect("a connection to PostgreSQL")
    }

    /// As the owner, by way of what listens there.
    #[track_caller]
    pub(crate) fn session_on(&self, port: u16) -> Session {
        Self::connect(port, "iot", &self.password).expect("a connection by way of a pooler")
    }

    fn try_connect(&self, role: &str, password: &str) -> Result<Session, sqlx::Error> {
        Self::connect(self.port, role, password)
    }

    fn connect(port: u16, role: &str, password: &str) -> Result<Session, sqlx::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(role)
            .password(password)
            // Which PgBouncer would not take.
            .extra_float_digits(None)
            .database("iotdb");
        let connection = runtime.block_on(options.connect())?;
        Ok(Session { runtime, connection })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Its immediate shutdown: it takes its shared memory and its children with it.
        self.process.take();
        kill_process(process.pid(), Signal::QUIT).ok();
        kill_process(process.pid(), Signal::CONT).ok();
        if super::try_within(PATIENCE / 10, || process.ended()).is_none() {
            process.kill_all();
        }
    }
}

/// A connection.
pub(crate) struct Session {
    runtime: Runtime,
    connection: PgConnection,
}

impl Session {
    #[track_caller]
    pub(crate) fn execute(&mut self, sql: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(sql));
        let outcome = self.runtime.block_on(statements.execute(&mut self.connection));
        outcome.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// The one text of the one row, without a statement that is prepared.
    #[track_caller]
    pub(crate) fn text(&mut self, sql: &str) -> String {
        let query = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut self.connection);
        self.runtime.block_on(query).unwrap_or_else(|error| panic!("{error}: {sql}")).get(0)
    }

    /// The one column of all rows, a text.
    #[track_caller]
    pub(crate) fn texts(&mut self, sql: &str) -> Vec<String> {
        self.rows(sql).iter().map(|row| row.get(0)).collect()
    }

    #[track_caller]
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<PgRow> {
        let query = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        self.runtime.block_on(query).unwrap_or_else(|error| panic!("{error}: {sql}"))
    }
}

/// An initialised, empty cluster, and the password of its owner.
struct Template {
    dir: PathBuf,
}

impl Template {
    fn get() -> Self {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(cache).unwrap();
        let version = Command::new(bin_dir().join("postgres")).arg("--version").output().unwrap();
        let version: String = String::from_utf8_lossy(&version.stdout)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let user = rustix::process::geteuid().as_raw();
        let dir = cache.join(format!("{}user-{user}", version.trim_end_matches('-')));
        // Tests are processes of their own: the first makes it, the others wait.
        let lock = File::create(dir.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if !dir.exists() {
            Self::make(&dir);
        }
        Self { dir }
    }

    fn make(dir: &Path) {
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        let password_file = scratch.path().join("password");
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        fs::write(&password_file, &password).unwrap();
        give_to_server(scratch.path());
        let mut initdb = guarded_server(bin_dir().join("initdb"));
        initdb.arg("-D").arg(&data).arg("--pwfile").arg(&password_file).current_dir("/");
        run(initdb.args(["-U", "iot", "-E", "UTF8", "--locale=C", "--auth=scram-sha-256", "-N"]));
        let mut single = guarded_server("sh");
        single
            .args(["-c", r#"echo "create database iotdb" | exec "$0" --single -D "$1" postgres"#]);
        run(single.arg(bin_dir().join("postgres")).arg(&data).current_dir("/"));
        // Renamed into place when it is whole.
        let half = dir.with_extension("half");
        fs::remove_dir_all(&half).ok();
        fs::create_dir(&half).unwrap();
        fs::set_permissions(&half, Permissions::from_mode(0o700)).unwrap();
        copy(&data, &half.join("data"));
        fs::copy(&password_file, half.join("password")).unwrap();
        fs::rename(&half, dir).unwrap();
    }
}

/// The newest server binaries: where Debian keeps them, or where `pg_config` says.
pub(crate) fn bin_dir() -> PathBuf {
    let version = |dir: &PathBuf| {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        name.and_then(|name| name.parse::<u32>().ok())
    };
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = debian
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|dir| dir.join("bin/postgres").exists())
        .max_by_key(version);
    let from_config = || {
        let answer = Command::new("pg_config").arg("--bindir").output();
        let answer = answer.expect("PostgreSQL's server is needed: apt-get install postgresql");
        PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim())
    };
    newest.map_or_else(from_config, |dir| dir.join("bin"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {output:?}");
}
