//! Reads a JSON message once, along the tree of a mapping's paths.
//!
//! What no path leads to is skipped without being looked at, to any depth; the reading itself goes as
//! deep as the paths do. A key that stands twice in an object is noticed where a path goes through.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::found::{Found, Place};
use super::path::Container;
use super::tree::{Node, Tree};
use super::value::Raw;

/// Reads `text`.
///
/// # Errors
/// What is wrong with it, if it is not JSON.
pub(super) fn scan<'p>(text: &'p str, tree: &Tree) -> Result<Found<'p>, serde_json::Error> {
    let mut found = Found::with_room(tree);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    At { node: &tree.message, tree, found: &mut found, is_taken: false }
        .deserialize(&mut deserializer)?;
    deserializer.end()?;
    found.look_for_entries_twice();
    Ok(found)
}

/// What a message is that is one value as a whole; its only slot is the message itself.
pub(super) fn one_value<'p>(text: &'p str, tree: &Tree) -> Found<'p> {
    let mut found = Found::with_room(tree);
    if let Some(slot) = tree.message.slot {
        found.hit(slot, Raw::Text(Cow::Borrowed(text)));
    }
    found
}

/// Reads the value at a node.
struct At<'t, 'f, 'p> {
    node: &'t Node,
    tree: &'t Tree,
    found: &'f mut Found<'p>,
    /// Whether the value itself has been put into its slot.
    is_taken: bool,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let slot = self.node.slot.filter(|_| !self.is_taken);
        let Some(slot) = slot else { return deserializer.deserialize_any(self) };
        let text = <&'de RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        self.found.hit(slot, Raw::of_json(text));
        if self.node.is_both() {
            again(text, Self { is_taken: true, ..self })?;
        }
        Ok(())
    }
}

/// Reads a piece of JSON that was read already, for what is wanted within it.
fn again<'de, E: serde::de::Error>(text: &'de str, at: At<'_, '_, 'de>) -> Result<(), E> {
    at.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(E::custom)
}

/// Which of a node's children were seen.
#[derive(Default)]
struct Seen {
    first: u64,
    others: Vec<usize>,
}

impl Seen {
    /// Whether `child` was seen before.
    fn again(&mut self, child: usize) -> bool {
        if child < 64 {
            let bit = 1 << child;
            let is_again = self.first & bit != 0;
            self.first |= bit;
            return is_again;
        }
        let is_again = self.others.contains(&child);
        if !is_again {
            self.others.push(child);
        }
        is_again
    }
}

impl<'de> Visitor<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { node, tree, found, .. } = self;
        let is_each = node.each == Some(Container::Object);
        found.has_container |= is_each;
        let mut seen = Seen::default();
        let mut index = 0;
        while let Some(key) = map.next_key_seed(Key)? {
            let child = node.find(&key).ok();
            let is_again = child.is_some_and(|child| seen.again(child));
            if is_again {
                found.stands_twice(&key);
            }
            let child = child.filter(|_| !is_again).map(|child| &node.keys[child].1);
            if is_each {
                let place = Place { index, key: Some(key) };
                map.next_value_seed(Element { place, child, tree, found: &mut *found })?;
                index += 1;
            } else if let Some(node) = child {
                let found = &mut *found;
                map.next_value_seed(At { node, tree, found, is_taken: false })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { node, tree, found, .. } = self;
        let is_each = node.each == Some(Container::Array);
        found.has_container |= is_each;
        let mut index = 0;
        loop {
            let child = node.indexes.binary_search_by_key(&index, |(known, _)| *known).ok();
            let child = child.map(|child| &node.indexes[child].1);
            let is_there = if is_each {
                let place = Place { index, key: None };
                let element = Element { place, child, tree, found: &mut *found };
                seq.next_element_seed(element)?.is_some()
            } else if let Some(node) = child {
                let found = &mut *found;
                seq.next_element_seed(At { node, tree, found, is_taken: false })?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !is_there {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads an element, or the value of an entry that is one.
struct Element<'t, 'f, 'p> {
    place: Place<'p>,
    /// What the paths of the message want of it.
    child: Option<&'t Node>,
    tree: &'t Tree,
    found: &'f mut Found<'p>,
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { place, child, tree, found } = self;
        let Some(root) = &tree.element else {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        };
        let begun = found.begin_element();
        let Some(node) = child else {
            At { node: root, tree, found: &mut *found, is_taken: false }
                .deserialize(deserializer)?;
            found.end_element(begun, place);
            return Ok(());
        };
        let text = <&'de RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        again(text, At { node: root, tree, found: &mut *found, is_taken: false })?;
        found.end_element(begun, place);
        again(text, At { node, tree, found, is_taken: false })
    }
}

/// A key of an object, borrowed if it can be.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
