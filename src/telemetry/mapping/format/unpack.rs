//! Payloads that are compressed, told by their first bytes.

use std::io::{self, Read};

use super::document::Fault;
use crate::telemetry::rejection::Reason;

/// A payload unpacks to at most so many bytes: a few of them can stand for any number.
const UNPACKED_MAX_BYTES: usize = 1_024 * 1_024;

/// What a decoder of zstd may keep of what it has unpacked, as a power of two. The highest levels of
/// compression ask for no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a payload is packed, by its first bytes.
pub(crate) fn is_packed(payload: &[u8]) -> bool {
    payload.starts_with(&GZIP) || payload.starts_with(&ZSTD)
}

/// What `payload` is unpacked, if it is packed.
///
/// # Errors
/// If it is damaged, or there is too much in it.
pub(super) fn unpack(payload: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    if payload.starts_with(&GZIP) {
        bounded("gzip", flate2::bufread::MultiGzDecoder::new(payload)).map(Some)
    } else if payload.starts_with(&ZSTD) {
        let decoder = zstd::Decoder::with_buffer(payload).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Ok(decoder)
        });
        bounded("zstd", decoder.map_err(|error| damaged("zstd", &error))?).map(Some)
    } else {
        Ok(None)
    }
}

fn bounded(name: &str, decoder: impl Read) -> Result<Vec<u8>, Fault> {
    let mut unpacked = Vec::new();
    let most = u64::try_from(UNPACKED_MAX_BYTES).unwrap_or(u64::MAX);
    decoder.take(most + 1).read_to_end(&mut unpacked).map_err(|error| damaged(name, &error))?;
    if unpacked.len() > UNPACKED_MAX_BYTES {
        let what =
            format!("{name}: it unpacks to more than the {UNPACKED_MAX_BYTES} bytes allowed");
        return Err((Reason::PayloadTooLarge, what.into()));
    }
    Ok(unpacked)
}

fn damaged(name: &str, error: &io::Error) -> Fault {
    (Reason::InvalidFormat, format!("not valid {name}: {error}").into())
}
