//! Finds the ends of values in a stream of JSON. What stands within a value is not looked at any closer: that
//! is its decoder's to do.

use super::piece::{Malformed, Piece, Text};

/// Values of JSON one behind the other; of one that is an array, its elements.
#[expect(clippy::struct_excessive_bools, reason = "where it stands in the text, a thing a flag")]
pub(super) struct Values {
    at: At,
    is_in_array: bool,
    value: Text,
    /// Arrays and objects that are open in the value.
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// Bytes that were looked at.
    offset: usize,
    has_any: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a value.
    Outside,
    /// Behind the `[` of an array.
    FirstElement,
    /// Behind a comma.
    NextElement,
    /// Behind an element.
    BehindElement,
    Value,
}

impl Values {
    /// Of which none is to have more than `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            at: At::Outside,
            is_in_array: false,
            value: Text::new(most, false),
            depth: 0,
            is_in_string: false,
            is_escaped: false,
            offset: 0,
            has_any: false,
        }
    }

    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), Malformed> {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first() {
            let taken = if self.at == At::Value { self.read_value(rest, each) } else { 0 };
            if taken > 0 {
                self.offset += taken;
                rest = &rest[taken..];
            } else if self.at != At::Value && self.between(*first)? {
                self.offset += 1;
                rest = behind;
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, each: &mut impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
        if self.at == At::Value && self.depth == 0 && !self.is_in_string && !self.is_in_array {
            self.end_value(each);
        }
        match self.at {
            At::Outside if self.has_any => Ok(()),
            At::Outside => Err(Malformed("the body is empty".to_owned())),
            _ => Err(Malformed(format!("it ends too early, after {} bytes", self.offset))),
        }
    }

    /// Takes `byte`, which stands outside of a value, if it is no part of the one that begins with it.
    fn between(&mut self, byte: u8) -> Result<bool, Malformed> {
        self.at = match (self.at, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => return Ok(true),
            (At::Outside, b'[') => {
                self.is_in_array = true;
                self.has_any = true;
                At::FirstElement
            }
            (At::FirstElement | At::BehindElement, b']') => {
                self.is_in_array = false;
                At::Outside
            }
            (At::BehindElement, b',') => At::NextElement,
            (At::BehindElement, _) | (_, b',' | b']' | b'}' | b':') => {
                let found = char::from(byte).escape_default();
                let what = format!("`{found}` is not expected at byte {}", self.offset);
                return Err(Malformed(what));
            }
            _ => {
                self.has_any = true;
                self.value.clear();
                self.value.is_part = self.is_in_array;
                self.at = At::Value;
                return Ok(false);
            }
        };
        Ok(true)
    }

    /// Takes what belongs to the value; how many bytes that are. The value may end with none.
    fn read_value(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            let mut is_last = false;
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.is_in_string = false;
                        is_last = self.depth == 0;
                    }
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.is_in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => {
                        self.depth -= 1;
                        is_last = self.depth == 0;
                    }
                    // Ends a number or a word, and is no part of it.
                    b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => {
                        self.value.add(&bytes[..at]);
                        self.end_value(each);
                        return at;
                    }
                    _ => {}
                }
            }
            if is_last {
                self.value.add(&bytes[..=at]);
                self.end_value(each);
                return at + 1;
            }
        }
        self.value.add(bytes);
        bytes.len()
    }

    fn end_value(&mut self, each: &mut impl FnMut(Piece<'_>)) {
        each(self.value.piece());
        self.value.clear();
        self.at = if self.is_in_array { At::BehindElement } else { At::Outside };
    }
}
