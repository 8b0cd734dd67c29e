//! A client for one request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than the service may take for any answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, status line included.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The message of a body that is `{"error":"…"}` and nothing else.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let json = self.json();
        let object = json.as_object().unwrap_or_else(|| panic!("no object: {self:?}"));
        assert_eq!(object.len(), 1, "{self:?}");
        let message = object["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert!(!message.is_empty(), "{self:?}");
        message.to_owned()
    }
}

/// `GET path`, as it stands.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, "GET", path)
}

/// `method path`, as they stand, without a body.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<Answer> {
    request_with(address, method, path, "")
}

/// As [`request`], with more `headers`, each with its line end.
pub(crate) fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let malformed = || std::io::Error::other(format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(malformed)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
