//! What was found in a message, by slot, and one reading's view of it.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::left::Left;
use super::shape::READING_MAX_BYTES;
use super::tree::{Slot, Tree};
use super::value::Raw;

/// Where an element of `each` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<'p> {
    /// From 0.
    pub(super) index: usize,
    /// Of the entry of an object.
    pub(super) key: Option<Cow<'p, str>>,
}

/// What was found in an element of `each`.
#[derive(Debug)]
pub(super) struct Element<'p> {
    pub(super) place: Place<'p>,
    hits: Range<usize>,
    /// A key that stands twice in it.
    pub(super) twice: Option<String>,
}

/// What was found in a message.
#[derive(Debug, Default)]
pub(super) struct Found<'p> {
    message: SmallVec<[Option<Raw<'p>>; 8]>,
    hits: Vec<(u16, Raw<'p>)>,
    /// Those that something was found in.
    pub(super) elements: Vec<Element<'p>>,
    /// A key that stands twice outside of the elements.
    pub(super) twice: Option<String>,
    /// Whether what `each` goes through is there.
    pub(super) has_container: bool,
    /// Whether the values of the message are looked at for each of its elements.
    has_elements: bool,
    is_in_element: bool,
    twice_in_element: Option<String>,
}

/// One reading's view of what was found.
pub(super) struct View<'f, 'p> {
    found: &'f Found<'p>,
    /// By slot, one more than the index of what was found; 0: nothing.
    index: Vec<u32>,
    pub(super) place: Option<&'f Place<'p>>,
    shown: Range<usize>,
    /// Of the message, whichever element is looked at.
    pub(super) left: Left,
}

impl<'f, 'p> View<'f, 'p> {
    /// A view of the message alone.
    pub(super) fn new(found: &'f Found<'p>, tree: &Tree) -> Self {
        let index = vec![0; usize::from(tree.element_slots)];
        Self { found, index, place: None, shown: 0..0, left: Left::default() }
    }

    /// Looks at `element` from now on.
    pub(super) fn look_at(&mut self, element: &'f Element<'p>) {
        for (slot, _) in &self.found.hits[self.shown.clone()] {
            self.index[usize::from(*slot)] = 0;
        }
        self.shown = element.hits.clone();
        self.place = Some(&element.place);
        for (at, (slot, _)) in (1..).zip(&self.found.hits[self.shown.clone()]) {
            self.index[usize::from(*slot)] = at;
        }
    }

    /// What stands where `slot` leads.
    pub(super) fn get(&self, slot: Slot) -> Option<&'f Raw<'p>> {
        let at = usize::from(slot.at);
        if !slot.is_of_element {
            return self.found.message.get(at)?.as_ref();
        }
        let hit = self.index[at].checked_sub(1)? as usize;
        self.found.hits.get(self.shown.start + hit).map(|(_, raw)| raw)
    }
}

impl<'p> Found<'p> {
    pub(super) fn with_room(tree: &Tree) -> Self {
        let mut message = SmallVec::new();
        message.resize_with(usize::from(tree.message_slots), || None);
        Self { message, has_elements: tree.element.is_some(), ..Self::default() }
    }

    pub(super) fn hit(&mut self, slot: u16, raw: Raw<'p>) {
        if self.is_in_element {
            self.hits.push((slot, raw));
        } else if let Some(value) = self.message.get_mut(usize::from(slot)) {
            // Not as a whole for each of thousands of elements.
            let max = if self.has_elements { READING_MAX_BYTES } else { usize::MAX };
            *value = Some(raw.up_to(max));
        }
    }

    pub(super) fn stands_twice(&mut self, key: &str) {
        let noted = if self.is_in_element { &mut self.twice_in_element } else { &mut self.twice };
        noted.get_or_insert_with(|| key.to_owned());
    }

    /// Takes what is found from now on for an element's; to be given to [`Self::end_element`].
    pub(super) fn begin_element(&mut self) -> usize {
        self.is_in_element = true;
        self.hits.len()
    }

    pub(super) fn end_element(&mut self, begun: usize, place: Place<'p>) {
        self.is_in_element = false;
        let (hits, twice) = (begun..self.hits.len(), self.twice_in_element.take());
        if !hits.is_empty() {
            self.elements.push(Element { place, hits, twice });
        }
    }

    pub(super) fn look_for_entries_twice(&mut self) {
        let mut keys: Vec<&str> =
            self.elements.iter().filter_map(|element| element.place.key.as_deref()).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            self.twice = Some(twice[0].to_owned());
        }
    }
}
