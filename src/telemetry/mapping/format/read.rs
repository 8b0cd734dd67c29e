//! The one way from a payload to JSON.

use std::borrow::Cow;

use super::binary;
use super::document::{Document, Fault};
use super::kind::Format;
use super::unpack::unpack;
use super::{lines, senml};
use crate::base::time::Timestamp;
use crate::telemetry::rejection::Reason;

/// What `payload` is as JSON; of [`Format::Text`], the text itself.
///
/// # Errors
/// Why it cannot be read at all.
pub(in super::super) fn read<'p>(
    format: &Format,
    payload: &'p [u8],
    received_at: Timestamp,
) -> Result<Document<'p>, Fault> {
    match unpack(payload)? {
        None => read_plain(format, payload.into(), received_at),
        Some(unpacked) => read_plain(format, unpacked.into(), received_at),
    }
}

fn read_plain<'p>(
    format: &Format,
    payload: Cow<'p, [u8]>,
    received_at: Timestamp,
) -> Result<Document<'p>, Fault> {
    match format {
        Format::Json | Format::Text => text(payload).map(Document::new),
        Format::Ndjson => lines::read(&payload),
        Format::Csv(cells) => cells.read_rows(&payload),
        Format::Cbor => binary::cbor(&payload).map(|text| Document::new(text.into())),
        Format::MsgPack => binary::msgpack(&payload).map(|text| Document::new(text.into())),
        Format::Senml if binary::is_cbor_array(&payload) => {
            senml::read(&binary::cbor(&payload)?, received_at)
        }
        Format::Senml => senml::read(&text(payload)?, received_at),
    }
}

fn text(payload: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Fault> {
    let not_utf8 = |at: usize| (Reason::NotUtf8, format!("not UTF-8 from byte {at}").into());
    match payload {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|error| not_utf8(error.valid_up_to())),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|error| not_utf8(error.utf8_error().valid_up_to())),
    }
}
