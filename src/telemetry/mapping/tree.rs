//! The paths of a mapping as a tree, so that a message is read once, whatever is looked for.
//!
//! There are two: that of the message, and that of an element of `each`. Each path that anything in a
//! mapping names is a *slot* of one of them, once.

use std::cmp::Ordering;

use super::path::{Container, Path, Step};

/// What is looked for at a place, and below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The slot that takes the value here.
    pub(super) slot: Option<u16>,
    /// By their key, in the order of [`by_length`].
    pub(super) keys: Vec<(String, Node)>,
    /// By their index, rising.
    pub(super) indexes: Vec<(usize, Node)>,
    /// Whether what is here is gone through, element by element.
    pub(super) each: Option<Container>,
}

impl Node {
    /// Whether nothing is looked for below.
    pub(super) fn is_leaf(&self) -> bool {
        self.keys.is_empty() && self.indexes.is_empty() && self.each.is_none()
    }

    /// Whether the value here is wanted, and something below it as well.
    pub(super) fn is_both(&self) -> bool {
        self.slot.is_some() && !self.is_leaf()
    }

    /// Which of the keys `key` is.
    pub(super) fn find(&self, key: &str) -> Result<usize, usize> {
        self.keys.binary_search_by(|(other, _)| by_length(other, key))
    }

    fn at(&mut self, steps: &[Step]) -> &mut Self {
        let mut node = self;
        for step in steps {
            node = match step {
                Step::Key(key) => {
                    let at = node.find(key).unwrap_or_else(|at| {
                        node.keys.insert(at, (key.clone(), Self::default()));
                        at
                    });
                    &mut node.keys[at].1
                }
                Step::Index(index) => {
                    let at = node.indexes.binary_search_by_key(index, |(other, _)| *other);
                    let at = at.unwrap_or_else(|at| {
                        node.indexes.insert(at, (*index, Self::default()));
                        at
                    });
                    &mut node.indexes[at].1
                }
            };
        }
        node
    }
}

/// An order of keys in which most are told apart without a look at their characters.
fn by_length(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Where a value is put that a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Whether it is one of the element's, and not of the message's.
    pub(super) is_of_element: bool,
    pub(super) at: u16,
}

/// All paths of a mapping.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) message: Node,
    /// Of each element, if there is an `each`.
    pub(super) element: Option<Node>,
    /// How many slots the two have.
    pub(super) message_slots: u16,
    pub(super) element_slots: u16,
}

impl Tree {
    /// A tree that goes through what is at the path of `each`, if there is one.
    pub(super) fn new(each: Option<&(Path, Container)>) -> Self {
        let mut tree = Self::default();
        if let Some((path, container)) = each {
            tree.message.at(&path.steps).each = Some(*container);
            tree.element = Some(Node::default());
        }
        tree
    }

    /// The slot of `path`.
    pub(super) fn slot(&mut self, path: &Path) -> Slot {
        let is_of_element = self.element.is_some() && !path.is_of_message;
        let (node, count) = match &mut self.element {
            Some(element) if is_of_element => (element, &mut self.element_slots),
            _ => (&mut self.message, &mut self.message_slots),
        };
        let at = *node.at(&path.steps).slot.get_or_insert_with(|| {
            *count += 1;
            *count - 1
        });
        Slot { is_of_element, at }
    }
}
