//! What is left of a message whose elements are read one by one.
//!
//! It is the same for each of them, however many there are, so it is gone through once.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::path::Path;

/// What is left of a message that has elements.
#[derive(Default)]
pub(super) struct Left {
    flattened: RefCell<Vec<Flattened>>,
    /// Whether there is anything.
    pub(super) is_any: OnceCell<bool>,
}

struct Flattened {
    /// The path of the message that has the time, which not every element takes.
    time: Option<Path>,
    json: Option<Rc<str>>,
}

impl Left {
    /// What is left where this path has the time: as it was said before, or as `flatten` says.
    pub(super) fn or_flatten(
        &self,
        time: Option<&Path>,
        flatten: impl FnOnce() -> Option<String>,
    ) -> Option<Rc<str>> {
        let mut all = self.flattened.borrow_mut();
        if let Some(known) = all.iter().find(|known| known.time.as_ref() == time) {
            return known.json.clone();
        }
        let json = flatten().map(Rc::from);
        all.push(Flattened { time: time.cloned(), json: json.clone() });
        json
    }
}
