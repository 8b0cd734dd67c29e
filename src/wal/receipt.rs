//! What a delivery is recognised by that comes once more, and the time that it has got.
//!
//! A reading without a time of its own gets that of its arrival, and would get another one, and make a
//! second row, if its message is delivered again. So its block keeps a receipt: whoever finds it gives the
//! same time. In a block each message has one, however many readings it has brought, and each block that
//! holds one of them has it, as a power cut may take the others.

use crate::base::time::Timestamp;

/// So many receipts are found again after a crash. MQTT has no more packet ids, so a broker can wait for
/// no more acknowledgements.
pub(crate) const MOST_RECEIPTS: usize = u16::MAX as usize;

/// The packet id of what came without one, with QoS 0: it does not come again, and its receipt only says
/// which times were given.
pub(crate) const NO_PACKET: u16 = 0;

/// Of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What it was delivered by; [`NO_PACKET`] if that was nothing.
    pub packet_id: u16,
    /// Of its topic and payload.
    pub(crate) hash: u64,
    /// The time of its arrival. Element n of it has one that is n microseconds later.
    pub time: Timestamp,
}

impl Receipt {
    /// Whether it can be asked for.
    #[must_use]
    pub(crate) fn is_of_packet(&self) -> bool {
        self.packet_id != NO_PACKET
    }
}

/// The receipts of a block with these of its records, each once; of those without a packet the newest.
pub(super) fn of_block(of_records: &[Option<Receipt>]) -> Vec<Receipt> {
    let mut all: Vec<Receipt> = Vec::new();
    let mut without: Option<Receipt> = None;
    for receipt in of_records.iter().flatten() {
        if !receipt.is_of_packet() {
            without = without.filter(|other| other.time > receipt.time).or(Some(*receipt));
        } else if all.last() != Some(receipt) {
            all.push(*receipt);
        }
    }
    all.extend(without);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_receipt_in_a_block_and_those_without_a_packet_have_one_together() {
        let receipt = |packet_id, micros| Receipt {
            packet_id,
            hash: 7,
            time: Timestamp::from_micros(micros).unwrap(),
        };
        let (a, b) = (receipt(3, 10), receipt(4, 20));
        let of = [Some(a), Some(a), None, Some(receipt(0, 30)), Some(receipt(0, 25)), Some(b)];
        assert_eq!(of_block(&of), [a, b, receipt(0, 30)]);
        assert_eq!(of_block(&[None, None]), []);
        assert_eq!(of_block(&[]), []);
    }
}
