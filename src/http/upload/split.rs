//! Cuts a body into the texts of its readings while it comes in: pure, and in bounded memory.

use super::piece::{Malformed, Piece, Text};
use super::values::Values;

/// How a body is cut.
pub(super) enum Splitter {
    /// Values of JSON one behind the other; of one that is an array, its elements.
    Values(Values),
    /// Lines, empty ones aside.
    Lines(Text),
    /// All of it is one.
    Whole(Text),
}

impl Splitter {
    /// Takes the next bytes, and hands on what ends in them.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), Malformed> {
        match self {
            Self::Values(values) => values.push(bytes, each),
            Self::Lines(line) => {
                split_lines(line, bytes, each);
                Ok(())
            }
            Self::Whole(text) => {
                text.add(bytes);
                Ok(())
            }
        }
    }

    /// There are no more bytes.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
        match self {
            Self::Values(values) => values.finish(each),
            Self::Lines(line) => {
                end_line(line, each);
                Ok(())
            }
            Self::Whole(text) => {
                each(text.piece());
                Ok(())
            }
        }
    }
}

fn split_lines(line: &mut Text, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        line.add(&rest[..at]);
        end_line(line, each);
        rest = &rest[at + 1..];
    }
    line.add(rest);
}

fn end_line(line: &mut Text, each: &mut impl FnMut(Piece<'_>)) {
    match line.piece() {
        Piece::Text(text) if text.trim_ascii().is_empty() => {}
        Piece::Text(text) => each(Piece::Text(text.trim_ascii())),
        long @ Piece::TooLong { .. } => each(long),
    }
    line.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;

    /// What `body` is cut into, if it comes in pieces of `size` bytes.
    fn cut(mut splitter: Splitter, body: &str, size: usize) -> Result<Vec<String>, Malformed> {
        let mut all = Vec::new();
        let mut each = |piece: Piece<'_>| {
            all.push(match piece {
                Piece::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Piece::TooLong { bytes, is_part } => {
                    format!("{bytes} bytes{}", if is_part { "" } else { " in all" })
                }
            });
        };
        for bytes in body.as_bytes().chunks(size) {
            splitter.push(bytes, &mut each)?;
        }
        splitter.finish(&mut each)?;
        Ok(all)
    }

    fn values(body: &str) -> Result<Vec<String>, Malformed> {
        let cuts = [1, 3, 1_000].map(|size| cut(Splitter::Values(Values::new(20)), body, size));
        assert!(cuts.iter().all(|other| *other == cuts[0]), "{cuts:?}");
        cuts[0].clone()
    }

    #[test]
    fn values_and_elements_of_arrays_are_cut_out_wherever_the_body_is_cut() {
        for (body, expected) in [
            (r#"{"a":1}"#, &[r#"{"a":1}"#][..]),
            (" {\n\"a\": 1 }\n", &["{\n\"a\": 1 }"]),
            (r#"[{"a":"]\"}"}, [1,2] ,3]"#, &[r#"{"a":"]\"}"}"#, "[1,2]", "3"]),
            ("{}\n{}{}", &["{}", "{}", "{}"]),
            ("[]", &[]),
            ("[1] [2]", &["1", "2"]),
            ("7", &["7"]),
            ("\"x\\\\\"", &["\"x\\\\\""]),
            ("nonsense", &["nonsense"]),
            (r#"[{"long":"0123456789"},1]"#, &["21 bytes", "1"]),
            (r#"{"long":"0123456789"}"#, &["21 bytes in all"]),
        ] {
            assert_eq!(values(body).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_not_put_together_as_json_is_malformed() {
        for body in [
            "", "  ", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "{\"a", "]", "[1]]", ",",
            "[1],2",
        ] {
            assert!(values(body).is_err(), "{body}");
        }
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_empty_ones_are_none() {
        let lines =
            |size| cut(Splitter::Lines(Text::new(8, true)), "a\r\n\n bc \n123456789\nd", size);
        for size in [1, 2, 100] {
            assert_eq!(lines(size).unwrap(), ["a", "bc", "9 bytes", "d"], "{size}");
        }
        let whole = cut(Splitter::Whole(Text::new(8, false)), "a\nb", 1).unwrap();
        assert_eq!(whole, ["a\nb"]);
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn any_values_are_cut_like_a_parser_of_json_would(
            elements in proptest::collection::vec("[a-z\\\\\"\\]}{,é]{0,6}", 0..6), size in 1..40_usize,
        ) {
            let body = serde_json::to_string(&elements).unwrap();
            let cut = cut(Splitter::Values(Values::new(1_000)), &body, size).unwrap();
            let expected: Vec<_> = elements.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
            prop_assert_eq!(cut, expected);
        }
    }
}
