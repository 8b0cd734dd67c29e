//! A proxy in front of the database that can take an answer away.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::relay::{Relay, pass};

/// What PostgreSQL says when an insert has been committed.
const COMMITTED: &[u8] = b"INSERT 0 ";

pub(super) struct Gate {
    pub(super) port: u16,
    shared: Arc<Shared>,
    _relay: Relay,
}

#[derive(Default)]
struct Shared {
    is_swallowing: AtomicBool,
    swallowed: AtomicU64,
}

impl Gate {
    /// To the database on `database_port`.
    pub(super) fn start(database_port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let relay = Relay::start(database_port, move |client, server| {
            served.connected(client, server);
        });
        Self { port: relay.port, shared, _relay: relay }
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

impl Shared {
    fn connected(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        pass(client, to_server, |_| true);
        let shared = Arc::clone(self);
        pass(server, to_client, move |bytes| {
            let is_commit = bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED);
            let is_taken = is_commit && shared.is_swallowing.load(Ordering::Relaxed);
            shared.swallowed.fetch_add(u64::from(is_taken), Ordering::Relaxed);
            !is_taken
        });
    }
}
