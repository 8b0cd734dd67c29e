//! A TCP proxy: accepts connections, connects them on, and leaves to its owner what may pass.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Relay {
    pub(super) port: u16,
    is_ending: Arc<AtomicBool>,
}

impl Relay {
    /// To the server on `server_port`; `connected` is given both ends of each connection, the client's
    /// first, and calls [`pass`] for either direction.
    pub(super) fn start(
        server_port: u16,
        connected: impl Fn(TcpStream, TcpStream) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_ending);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).ok();
                }
                connected(client, server);
            }
        });
        Self { port, is_ending }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

/// Passes on what comes, until something must not pass.
pub(super) fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    mut may_pass: impl FnMut(&[u8]) -> bool + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut chunk) {
            if !may_pass(&chunk[..bytes]) || to.write_all(&chunk[..bytes]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    });
}
