//! A proxy in front of the database that can take an answer away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What PostgreSQL says when an insert has been committed.
const COMMITTED: &[u8] = b"INSERT 0 ";

pub(super) struct Gate {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_swallowing: AtomicBool,
    swallowed: AtomicU64,
    is_ending: AtomicBool,
}

impl Gate {
    /// To the database on `port`.
    pub(super) fn start(database_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if served.is_ending.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", database_port)) {
                    served.pass(client, server);
                }
            }
        });
        Self { port, shared }
    }

    /// From now on the connection breaks when an insert was committed, before that is known.
    pub(super) fn swallow(&self, is_swallowing: bool) {
        self.shared.is_swallowing.store(is_swallowing, Ordering::Relaxed);
    }

    /// How many answers were taken away.
    pub(super) fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl Shared {
    fn pass(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        std::thread::spawn(move || copy(client, to_server, |_| true));
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            copy(server, to_client, |bytes| {
                let is_commit = bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED);
                let is_taken = is_commit && shared.is_swallowing.load(Ordering::Relaxed);
                shared.swallowed.fetch_add(u64::from(is_taken), Ordering::Relaxed);
                !is_taken
            });
        });
    }
}

/// Passes on what comes, until something must not pass.
fn copy(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
        if !may_pass(&chunk[..bytes]) || to.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
