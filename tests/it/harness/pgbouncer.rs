//! A private `PgBouncer`, set up as Debian ships it but for the place, the login, the mode, and that it does
//! not wait for 15 s when a server was not there.

use std::fs;
use std::net::TcpStream;

use super::process::{Process, give_to_server, guarded_server};
use super::{Postgres, Scratch, eventually, ports};

pub(crate) struct PgBouncer {
    _process: Process,
    _scratch: Scratch,
    port: u16,
}

impl PgBouncer {
    /// Before `postgres`, in this mode, with so many sessions of PostgreSQL to lend.
    pub(crate) fn start(postgres: &Postgres, mode: &str, sessions: u16) -> Self {
        let scratch = Scratch::new();
        let (dir, port) = (scratch.path().to_string_lossy().into_owned(), ports::free());
        let login = format!("\"iot\" \"{}\"\n", postgres.password());
        fs::write(scratch.path().join("userlist.txt"), login).unwrap();
        let configuration = format!(
            "[databases]\niotdb = host=127.0.0.1 port={} dbname=iotdb\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {dir}\n\
             auth_type = md5\nauth_file = {dir}/userlist.txt\n\
             pool_mode = {mode}\ndefault_pool_size = {sessions}\n\
             server_login_retry = 1\n",
            postgres.port
        );
        fs::write(scratch.path().join("pgbouncer.ini"), configuration).unwrap();
        give_to_server(scratch.path());
        let mut command = guarded_server("/usr/sbin/pgbouncer");
        command.arg(scratch.path().join("pgbouncer.ini"));
        let mut process = Process::spawn("pgbouncer", scratch.path(), command);
        eventually("PgBouncer listens", || {
            process.must_run();
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { _process: process, _scratch: scratch, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// As a user would write it who knows nothing of it.
    pub(crate) fn url(&self, postgres: &Postgres) -> String {
        format!("postgres://iot:{}@127.0.0.1:{}/iotdb", postgres.password(), self.port)
    }
}
