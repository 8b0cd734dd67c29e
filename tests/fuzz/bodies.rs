//! What is asked of any bytes. Run by the fuzzer, and by the test suite on the corpus.

use iot_ingestor::telemetry::Reading;
use iot_ingestor::telemetry::decode::decode;
use iot_ingestor::wal::frame;

/// The payload of a message: whatever it is, each part of it is a reading or rejected, and a reading
/// that is written down again is the same reading.
pub(crate) fn payload(data: &[u8]) {
    let whole = data.as_ptr_range();
    let mut parts = 0;
    decode(data, |raw, outcome| {
        parts += 1;
        let part = raw.as_ptr_range();
        assert!(whole.start <= part.start && part.end <= whole.end, "a part lies outside");
        if let Ok(reading) = outcome {
            let again = written_down(&reading);
            decode(again.as_bytes(), |_, outcome| {
                assert_eq!(outcome.as_ref(), Ok(&reading), "read back from {again}");
            });
        }
    });
    assert!(parts > 0, "a message without a word about it");
}

fn written_down(reading: &Reading) -> String {
    let text = serde_json::to_string(&reading.device_id).unwrap_or_default();
    let Reading { values: [temperature, humidity, battery], timestamp, .. } = reading;
    format!(
        r#"{{"device_id":{text},"timestamp":"{timestamp}","temperature":{temperature:?},"humidity":{humidity:?},"battery":{battery:?}}}"#
    )
}

/// Bytes as a frame of the log, and the frame that they make with the right length and checksum, which
/// no fuzzer would hit upon.
pub(crate) fn block(data: &[u8]) {
    frame(data);
    let mut mended = data.to_vec();
    if let Some((head, body)) = mended.split_at_mut_checked(frame::HEADER_BYTES)
        && let Ok(length) = u16::try_from(body.len())
    {
        head[6..8].copy_from_slice(&length.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[..48]);
        hasher.update(body);
        head[48..].copy_from_slice(&hasher.finalize().to_le_bytes());
        frame(&mended);
    }
}

/// It is intact, or refused, and if it is intact its header tells the truth.
fn frame(data: &[u8]) {
    let header = frame::check(data);
    match frame::decode(data) {
        Ok(block) => {
            let header = header.expect("a block without a header");
            assert_eq!((block.first, block.end()), (header.first, header.end()));
            assert!(header.frame_bytes <= data.len() && header.count > 0);
        }
        Err(frame::FrameError::Body) => {}
        Err(error) => assert_eq!(header, Err(error)),
    }
}
