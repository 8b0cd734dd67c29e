//! A message, written as JSON.

use std::borrow::Cow;

use crate::telemetry::rejection::Reason;

/// A message is written out to at most so many bytes: names of columns and of devices, which stand in
/// it once, stand in every element then.
const DOCUMENT_MAX_BYTES: usize = 8 * 1_024 * 1_024;

/// Of more elements that cannot be read it is only told that they are such.
const MOST_REASONS: usize = 100;

/// Why something cannot be read: a rule, and the rest of a sentence about it.
pub(in super::super) type Fault = (Reason, Cow<'static, str>);

/// A message, written as JSON.
#[derive(Debug)]
pub(in super::super) struct Document<'p> {
    pub(in super::super) text: Cow<'p, str>,
    /// By their index, elements that are none: they cannot be read, or name the columns.
    pub(super) aside: Vec<(usize, Option<Fault>)>,
    /// Whether it tells times by when it was received.
    pub(in super::super) is_by_arrival: bool,
}

impl<'p> Document<'p> {
    pub(super) fn new(text: Cow<'p, str>) -> Self {
        Self { text, aside: Vec::new(), is_by_arrival: false }
    }

    /// Whether the element of this index is none.
    pub(in super::super) fn is_aside(&self, index: usize) -> bool {
        self.aside.binary_search_by_key(&index, |(at, _)| *at).is_ok()
    }

    /// The elements that cannot be read, by their index.
    pub(in super::super) fn faults(&self) -> impl Iterator<Item = (usize, &Fault)> {
        self.aside.iter().filter_map(|(at, fault)| Some((*at, fault.as_ref()?)))
    }
}

/// An array that is written, element by element.
pub(super) struct Elements {
    pub(super) text: String,
    pub(super) aside: Vec<(usize, Option<Fault>)>,
    count: usize,
}

impl Elements {
    pub(super) fn with_room(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes + 2);
        text.push('[');
        Self { text, aside: Vec::new(), count: 0 }
    }

    /// Begins the next element, which is written to [`Self::text`] then.
    ///
    /// # Errors
    /// If all of them have become too long.
    pub(super) fn begin(&mut self) -> Result<(), Fault> {
        if self.text.len() > DOCUMENT_MAX_BYTES {
            let what = format!("written out it has more than {DOCUMENT_MAX_BYTES} bytes");
            return Err((Reason::PayloadTooLarge, what.into()));
        }
        if self.count > 0 {
            self.text.push(',');
        }
        self.count += 1;
        Ok(())
    }

    /// Says why there is no next element.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) fn set_aside(&mut self, fault: Option<Fault>) -> Result<(), Fault> {
        let fault = fault.map(|(reason, what)| match self.aside.len() {
            MOST_REASONS.. => (reason, "it cannot be read, like others before it".into()),
            _ => (reason, what),
        });
        self.aside.push((self.count, fault));
        self.begin()?;
        self.text.push_str("null");
        Ok(())
    }

    pub(super) fn finish(mut self) -> Document<'static> {
        self.text.push(']');
        Document { text: self.text.into(), aside: self.aside, is_by_arrival: false }
    }
}
