//! A way to a given address for a driver that is told a name.
//!
//! To check a certificate the driver has to know the host's name, and then it looks the addresses up
//! by itself and waits for the first one. It also speaks through a Unix socket, under any name. So it
//! is given one, in Linux's abstract namespace, behind which is the connection that was made here.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpStream, UnixListener, UnixStream};

/// The driver comes at once.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Passes on what the driver says through the socket in the directory that is returned, with `port`
/// as its port, for as long as either side holds on to it.
pub(super) fn open(stream: TcpStream, port: u16) -> io::Result<PathBuf> {
    let dir = format!("iot-ingestor-{}-{:016x}", std::process::id(), fastrand::u64(..));
    // As the driver puts it together.
    let name = format!("{dir}/.s.PGSQL.{port}");
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        match tokio::time::timeout(ARRIVAL, accept_own(&listener)).await {
            Ok(Ok(driver)) => {
                drop(listener);
                pass_on(driver, stream).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a relay to the database has failed"),
            Err(_) => {}
        }
    });
    Ok(format!("\0{dir}").into())
}

/// Of this process: a name in the abstract namespace has no owner.
async fn accept_own(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (driver, _) = listener.accept().await?;
        let peer = driver.peer_cred()?.pid();
        if peer.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
            return Ok(driver);
        }
    }
}

async fn pass_on(mut driver: UnixStream, mut stream: TcpStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut driver, &mut stream).await {
        tracing::debug!(%error, "a relayed connection to the database has ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_the_driver_says_through_the_socket_reaches_the_address_and_back() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let mut dir = open(stream, 5432).unwrap().into_os_string();
        // As the driver does it.
        dir.push("/.s.PGSQL.5432");
        let mut driver = UnixStream::connect(dir).await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        driver.write_all(b"question").await.unwrap();
        let mut heard = [0; 8];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"question");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let mut heard = String::new();
        driver.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
    }
}
