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
    request_of(address, method, path, headers, b"")
}

/// As [`request_with`], with a body, whose length is sent if it has one.
pub(crate) fn request_of(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    // Who is refused before all of it was read says so, too.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .or_else(|error| if answer.is_empty() { Err(error) } else { Ok(0) })?;
    if answer.is_empty() {
        sent?;
    }
    parse(&answer)
}

fn parse(answer: &[u8]) -> std::io::Result<Answer> {
    let malformed = || {
        std::io::Error::other(format!("not an HTTP answer: {:?}", String::from_utf8_lossy(answer)))
    };
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = &answer[end + 4..];
    let is_chunked = head.to_lowercase().contains("\r\ntransfer-encoding: chunked");
    // An answer without a body has no chunks either.
    let body = if is_chunked && !body.is_empty() { of_chunks(body)? } else { body.to_vec() };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(malformed)?;
    Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

fn of_chunks(mut text: &[u8]) -> std::io::Result<Vec<u8>> {
    let broken_off = || std::io::Error::other("the body was broken off");
    let mut body = Vec::new();
    loop {
        let end = text.windows(2).position(|bytes| bytes == b"\r\n").ok_or_else(broken_off)?;
        let size = std::str::from_utf8(&text[..end]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(broken_off)?;
        text = &text[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(text.get(..size).ok_or_else(broken_off)?);
        text = text.get(size + 2..).ok_or_else(broken_off)?;
    }
}
