//! What cannot run here is listed as skipped, or fails: it never looks like something that passed.

use crate::harness::{Scratch, list_skipped};

#[test]
fn what_is_skipped_is_listed() {
    let scratch = Scratch::in_memory();
    let list = scratch.path().join("skipped");
    list_skipped(Some(&list), "one");
    list_skipped(Some(&list), "two");
    let lines = std::fs::read_to_string(list).unwrap();
    let ends: Vec<_> = lines.lines().map(|line| line.rsplit_once(": ").unwrap().1).collect();
    assert_eq!(ends, ["one", "two"]);
}

#[test]
#[should_panic(expected = "cannot run here: it is only a test")]
fn what_would_be_skipped_fails_where_nothing_lists_it() {
    list_skipped(None, "it is only a test");
}
