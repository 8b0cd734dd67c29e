//! An address that drops packets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

/// A listener whose queue is full: the kernel answers no SYN to it.
pub(crate) struct Silent {
    _listener: OwnedFd,
    _queue: Vec<TcpStream>,
    pub(crate) address: SocketAddr,
}

impl Silent {
    pub(crate) fn start() -> Self {
        Self::on(Ipv4Addr::new(127, 0, 0, 9))
    }

    /// At this address, on a port of its own.
    pub(crate) fn on(address: Ipv4Addr) -> Self {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrV4::new(address, 0)).unwrap();
        listen(&listener, 0).unwrap();
        let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queue.push(stream);
            assert!(queue.len() < 100, "the queue has no end");
        }
        Self { _listener: listener, _queue: queue, address }
    }
}
