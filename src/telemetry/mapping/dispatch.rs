//! Which filters match a topic: a trie over the levels of all of them.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::topic::{Filter, Level, split_level};

/// Filters that match a topic: seldom more than one, and found for every message.
pub(super) type Candidates = SmallVec<[Candidate; 4]>;

/// A filter of a mapping, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Index of the mapping.
    pub(super) mapping: usize,
    /// Index of the filter in it.
    pub(super) filter: usize,
}

/// All filters.
#[derive(Clone, Debug, Default)]
pub(super) struct Dispatch {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// By their text.
    exactly: BTreeMap<String, Node>,
    any: Option<Box<Node>>,
    /// Filters that go on with `#`.
    rest: Vec<Candidate>,
    /// Filters that go on with one level or more.
    some_rest: Vec<Candidate>,
    /// Filters that end here.
    end: Vec<Candidate>,
}

impl Dispatch {
    /// Adds `filter`.
    pub(super) fn add(&mut self, filter: &Filter, candidate: Candidate) {
        let mut node = &mut self.root;
        for level in &filter.levels {
            node = match level {
                Level::Exactly(text) => node.exactly.entry(text.clone()).or_default(),
                Level::Any => node.any.get_or_insert_default(),
                Level::Rest => return node.rest.push(candidate),
                Level::SomeRest | Level::Some => return node.some_rest.push(candidate),
            };
        }
        node.end.push(candidate);
    }

    /// The filters that match `topic`, of each mapping its first, in the order of the mappings.
    pub(super) fn find(&self, topic: &str) -> Candidates {
        let mut found = Candidates::new();
        // A topic that the broker makes itself is matched by what names its first level alone.
        self.root.find(Some(topic), topic.starts_with('$'), &mut found);
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup_by_key(|candidate| candidate.mapping);
        }
        found
    }

    /// Calls `found` with each filter that matches a topic which `filter` matches too.
    pub(super) fn overlapping(&self, filter: &Filter, found: &mut impl FnMut(Candidate)) {
        self.root.overlapping(&filter.levels, true, found);
    }
}

impl Node {
    fn find(&self, topic: Option<&str>, is_brokers: bool, found: &mut Candidates) {
        if !is_brokers {
            self.rest.iter().for_each(|candidate| found.push(*candidate));
        }
        let Some(topic) = topic else {
            self.end.iter().for_each(|candidate| found.push(*candidate));
            return;
        };
        if !is_brokers {
            self.some_rest.iter().for_each(|candidate| found.push(*candidate));
        }
        if self.exactly.is_empty() && self.any.is_none() {
            return;
        }
        let (level, behind) = split_level(topic);
        if let Some(node) = self.exactly.get(level) {
            node.find(behind, false, found);
        }
        if let Some(any) = self.any.as_ref().filter(|_| !is_brokers) {
            any.find(behind, false, found);
        }
    }
}

impl Node {
    fn overlapping(&self, levels: &[Level], is_first: bool, found: &mut impl FnMut(Candidate)) {
        let Some((level, levels)) = levels.split_first() else {
            return self.end.iter().chain(&self.rest).copied().for_each(found);
        };
        match level {
            Level::Exactly(text) => {
                // As in a topic, no wildcard stands for a level that the broker has made itself.
                if !is_first || !text.starts_with('$') {
                    self.rest.iter().chain(&self.some_rest).copied().for_each(&mut *found);
                    if let Some(any) = &self.any {
                        any.overlapping(levels, false, found);
                    }
                }
                if let Some(node) = self.exactly.get(text) {
                    node.overlapping(levels, false, found);
                }
            }
            Level::Any => {
                self.rest.iter().chain(&self.some_rest).copied().for_each(&mut *found);
                self.behind(is_first).for_each(|node| node.overlapping(levels, false, found));
            }
            Level::Rest => self.all(is_first, found),
            Level::SomeRest | Level::Some => self.all_behind(is_first, found),
        }
    }

    /// What one more level leads to, whichever it is.
    fn behind(&self, is_first: bool) -> impl Iterator<Item = &Self> {
        let is_met = move |(text, _): &(&String, &Self)| !is_first || !text.starts_with('$');
        self.exactly.iter().filter(is_met).map(|(_, node)| node).chain(self.any.as_deref())
    }

    fn all(&self, is_first: bool, found: &mut impl FnMut(Candidate)) {
        self.end.iter().copied().for_each(&mut *found);
        self.all_behind(is_first, found);
    }

    fn all_behind(&self, is_first: bool, found: &mut impl FnMut(Candidate)) {
        self.rest.iter().chain(&self.some_rest).copied().for_each(&mut *found);
        self.behind(is_first).for_each(|node| node.all(false, found));
    }
}

/// A topic that both filters match.
pub(super) fn shared_topic(one: &Filter, other: &Filter) -> Option<String> {
    if brings_brokers_own(&one.levels) != brings_brokers_own(&other.levels) {
        return None;
    }
    common(&one.levels, &other.levels).map(|levels| levels.join("/"))
}

/// Whether one of them matches all that the other does.
pub(super) fn is_within(one: &Filter, other: &Filter) -> bool {
    covers(&one.levels, &other.levels) || covers(&other.levels, &one.levels)
}

/// Whether all that `small` matches is matched by `large`.
pub(super) fn covers(large: &[Level], small: &[Level]) -> bool {
    brings_brokers_own(large) == brings_brokers_own(small) && covers_levels(large, small)
}

/// Whether it matches topics that begin with `$`, which no wildcard does; then it matches no others.
fn brings_brokers_own(levels: &[Level]) -> bool {
    matches!(levels.first(), Some(Level::Exactly(text)) if text.starts_with('$'))
}

fn covers_levels(large: &[Level], small: &[Level]) -> bool {
    match (large, small) {
        ([Level::Rest | Level::SomeRest, ..], [Level::SomeRest, ..])
        | ([Level::Rest, ..], _)
        | ([], []) => true,
        ([Level::SomeRest, ..], [Level::Rest, ..]) => false,
        ([Level::SomeRest, ..], small) => !small.is_empty(),
        ([Level::Any, large @ ..], [Level::Any | Level::Exactly(_), small @ ..]) => {
            covers_levels(large, small)
        }
        ([Level::Exactly(a), large @ ..], [Level::Exactly(b), small @ ..]) => {
            a == b && covers_levels(large, small)
        }
        _ => false,
    }
}

fn common(one: &[Level], other: &[Level]) -> Option<Vec<String>> {
    let rest_of = |levels: &[Level]| {
        let text = |level: &Level| match level {
            Level::Exactly(text) => Some(text.clone()),
            Level::Rest => None,
            _ => Some("x".to_owned()),
        };
        levels.iter().filter_map(text).collect::<Vec<_>>()
    };
    match (one, other) {
        ([], []) => Some(Vec::new()),
        ([Level::Rest, ..], rest) | (rest, [Level::Rest, ..]) => Some(rest_of(rest)),
        ([Level::SomeRest, ..], rest) | (rest, [Level::SomeRest, ..]) => {
            (!rest.is_empty()).then(|| rest_of(rest))
        }
        ([a, one @ ..], [b, other @ ..]) => {
            let level = match (a, b) {
                (Level::Exactly(a), Level::Exactly(b)) if a != b => return None,
                (Level::Exactly(text), _) | (_, Level::Exactly(text)) => text.clone(),
                _ => "x".to_owned(),
            };
            let mut all = vec![level];
            all.extend(common(one, other)?);
            Some(all)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatch(filters: &[&str]) -> Dispatch {
        let mut dispatch = Dispatch::default();
        for (mapping, text) in filters.iter().enumerate() {
            dispatch.add(&Filter::parse(text).unwrap(), Candidate { mapping, filter: 0 });
        }
        dispatch
    }

    fn found(filters: &[&str], topic: &str) -> Vec<usize> {
        dispatch(filters).find(topic).into_iter().map(|candidate| candidate.mapping).collect()
    }

    #[test]
    fn every_filter_that_matches_is_found_in_the_order_of_the_file() {
        let filters = [
            "#",
            "a/+/c",
            "a/{x...}",
            "a/b/c",
            "+/b/#",
            "a/b",
            "$share/g/a/b/c",
            "a/#",
            "{x}",
            "/b",
        ];
        assert_eq!(found(&filters, "a/b/c"), [0, 1, 2, 3, 4, 6, 7]);
        assert_eq!(found(&filters, "a/b"), [0, 2, 4, 5, 7]);
        assert_eq!(found(&filters, "a"), [0, 7, 8]);
        assert_eq!(found(&filters, "/b"), [0, 4, 9]);
        assert_eq!(found(&filters, ""), [0, 8]);
    }

    #[test]
    fn topics_of_the_broker_are_found_only_by_their_name() {
        let filters = ["#", "+/x", "{a...}", "$SYS/#", "$SYS/+"];
        assert_eq!(found(&filters, "$SYS/x"), [3, 4]);
    }

    #[test]
    fn of_a_mapping_with_several_filters_the_first_counts() {
        let mut dispatch = Dispatch::default();
        for (filter, text) in ["a/#", "a/{x}"].iter().enumerate() {
            let candidate = Candidate { mapping: 0, filter };
            dispatch.add(&Filter::parse(text).unwrap(), candidate);
        }
        assert_eq!(dispatch.find("a/b")[..], [Candidate { mapping: 0, filter: 0 }]);
    }

    #[test]
    fn filters_that_overlap_in_part_show_a_topic_that_both_match() {
        let of = |one: &str, other: &str| {
            let (one, other) = (Filter::parse(one).unwrap(), Filter::parse(other).unwrap());
            shared_topic(&one, &other).filter(|_| !is_within(&one, &other))
        };
        assert_eq!(of("a/+", "+/b").as_deref(), Some("a/b"));
        assert_eq!(of("+/sensor/#", "house/#").as_deref(), Some("house/sensor"));
        assert_eq!(of("a/{x...}", "+/b/c").as_deref(), Some("a/b/c"));
        assert_eq!(of("a/#", "a/b/c"), None);
        assert_eq!(of("a/+", "a/+"), None);
        assert_eq!(of("a/{x...}", "a/#"), None);
        assert_eq!(of("a/b", "c/+"), None);
        assert_eq!(of("+/+", "a/b/c"), None);
        assert_eq!(of("+/x/#", "$SYS/+/y"), None);
    }

    #[test]
    fn the_filters_that_overlap_with_one_are_those_that_share_a_topic_with_it() {
        let filters = [
            "#", "+", "a", "a/#", "a/+", "a/{x...}", "+/b", "+/#", "+/{x...}", "a/b", "a/b/#",
            "a/b/c", "+/+/c", "/", "b/c", "{x...}", "$SYS/#", "$SYS/+", "$SYS/b", "$SYS",
        ];
        let dispatch = dispatch(&filters);
        for one in filters.map(|text| Filter::parse(text).unwrap()) {
            let mut found = Vec::new();
            dispatch.overlapping(&one, &mut |candidate| found.push(candidate.mapping));
            found.sort_unstable();
            let expected: Vec<usize> = (0..filters.len())
                .filter(|at| shared_topic(&one, &Filter::parse(filters[*at]).unwrap()).is_some())
                .collect();
            assert_eq!(found, expected, "{}", one.text);
        }
    }

    #[test]
    fn a_filter_covers_what_matches_less() {
        let of = |large: &str, small: &str| {
            covers(&Filter::parse(large).unwrap().levels, &Filter::parse(small).unwrap().levels)
        };
        for (large, small, is_covered) in [
            ("#", "a/b", true),
            ("a/#", "a", true),
            ("a/{x...}", "a", false),
            ("a/{x...}", "a/#", false),
            ("a/#", "a/{x...}", true),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("+/b/#", "a/b/+/d", true),
            ("a/+", "a/#", false),
            ("#", "$SYS/broker/load", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(of(large, small), is_covered, "{large} {small}");
        }
    }
}
