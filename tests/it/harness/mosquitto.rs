//! A private Mosquitto.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::process::{Process, give_to_server, guarded_server};
use super::{PATIENCE, Scratch, eventually, ports};

/// A broker that keeps sessions over a restart.
pub(crate) struct Mosquitto {
    scratch: Scratch,
    process: Option<Process>,
    /// Plain, without a login.
    pub(crate) port: u16,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        Self::with_window(5_000)
    }

    /// One that sends so many messages before it waits for an acknowledgement.
    pub(crate) fn with_window(messages: u16) -> Self {
        Self::make(messages, |port, _| format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
    }

    /// With what `listeners` writes about them into the configuration.
    pub(crate) fn configured(listeners: impl FnOnce(u16, &Path) -> String) -> Self {
        Self::make(5_000, listeners)
    }

    fn make(window: u16, listeners: impl FnOnce(u16, &Path) -> String) -> Self {
        let scratch = Scratch::new();
        let dir = scratch.path().to_string_lossy().into_owned();
        let port = ports::free();
        // Its defaults would keep 20 messages in flight, drop a session's queue beyond 1000, and
        // forget all of it with the process.
        let general = format!(
            "persistence true\npersistence_location {dir}/\nautosave_interval 1800\n\
             max_inflight_messages {window}\nmax_queued_messages 0\nset_tcp_nodelay true\n\
             log_dest stderr\n"
        );
        let configuration = general + &listeners(port, scratch.path());
        fs::write(scratch.path().join("mosquitto.conf"), configuration).unwrap();
        give_to_server(scratch.path());
        let mut broker = Self { scratch, process: None, port };
        broker.launch();
        broker
    }

    /// Starts it again, on its port and with its sessions.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let mut command = guarded_server(program.unwrap_or("mosquitto"));
        command.arg("-c").arg(self.scratch.path().join("mosquitto.conf"));
        let mut process = Process::spawn("mosquitto", self.scratch.path(), command);
        let stream = eventually("Mosquitto listens", || {
            process.must_run();
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        await_served(stream);
        self.process = Some(process);
    }

    /// Where it keeps its sessions.
    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().expect("it does not run").pid()
    }

    /// SIGKILL; it forgets what it has not saved.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it does not run").kill();
    }

    /// SIGTERM; it saves its sessions then.
    pub(crate) fn stop(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.process.take().expect("it does not run").await_exit(PATIENCE);
    }
}

/// Waits until the broker serves its connections, which it does after it has taken charge of its signals:
/// a SIGTERM before that ends it by the signal, and saves nothing. It listens before either.
fn await_served(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("Mosquitto listens, and does not serve: {error}")
        }
        _ => {}
    }
}

/// A certificate authority and what it has signed, as PEM files.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) client: PathBuf,
    pub(crate) client_key: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`, for a server on 127.0.0.1.
    pub(crate) fn make(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name);
        openssl(
            dir,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN=test-authority -keyout ca.key -out ca.pem",
        );
        for (name, extension) in
            [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            fs::write(path(&format!("{name}.ext")), extension).unwrap();
            openssl(
                dir,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                     -subj /CN=test-{name} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                dir,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                     -extfile {name}.ext -out {name}.pem"
                ),
            );
        }
        // Read by another user, in a directory of the test's own.
        fs::set_permissions(path("server.key"), Permissions::from_mode(0o644)).unwrap();
        Self {
            ca: path("ca.pem"),
            server: path("server.pem"),
            server_key: path("server.key"),
            client: path("client.pem"),
            client_key: path("client.key"),
        }
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments.split_whitespace());
    let output = command.output().expect("openssl is needed: apt-get install openssl");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
