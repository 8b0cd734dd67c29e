//! Numbers for a person.

/// 1234567 as 1,234,567.
pub(crate) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 1_234_567].map(with_commas);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
