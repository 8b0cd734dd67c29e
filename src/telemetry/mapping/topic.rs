//! Topic filters with captures, and filters of what a mapping leaves alone.

use std::ops::Range;

/// What the filter of a shared subscription begins with.
const SHARED: &str = "$share/";

/// A level of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// This text.
    Exactly(String),
    /// `+` or `{x}`: any one level.
    Any,
    /// `#`: the rest, which may be nothing.
    Rest,
    /// `{x...}`: the rest, which is something.
    SomeRest,
    /// `...` in `except`: one or more levels.
    Some,
}

/// A named part of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Capture {
    name: String,
    level: usize,
    /// Whether it goes on to the end.
    is_rest: bool,
}

/// A topic filter of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) levels: Vec<Level>,
    captures: Vec<Capture>,
    /// As the broker is asked for it.
    pub(super) subscription: String,
    pub(super) text: String,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` is no topic filter: {what}");
        let (group, filter) = without_group(text).map_err(wrong)?;
        check(filter).map_err(wrong)?;
        let parts: Vec<&str> = filter.split('/').collect();
        let mut levels = Vec::new();
        let mut captures: Vec<Capture> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == parts.len();
            let mut capture = |name: &str, is_rest| {
                if !is_name(name) {
                    return Err(wrong("a capture is called `{a}`, of letters, digits and `_`"));
                }
                if captures.iter().any(|other| other.name == name) {
                    return Err(wrong(&format!("`{{{name}}}` stands there twice")));
                }
                captures.push(Capture { name: name.to_owned(), level: at, is_rest });
                Ok(())
            };
            levels.push(match in_braces(part) {
                Some(name) if let Some(name) = name.strip_suffix("...") => {
                    capture(name, true)?;
                    if !is_last {
                        return Err(wrong("`{x...}` is the last level"));
                    }
                    Level::SomeRest
                }
                Some(name) => {
                    capture(name, false)?;
                    Level::Any
                }
                None => level(part, is_last).map_err(wrong)?,
            });
        }
        let plain: Vec<&str> = levels
            .iter()
            .map(|level| match level {
                Level::Exactly(text) => text.as_str(),
                Level::Any => "+",
                Level::Rest | Level::SomeRest | Level::Some => "#",
            })
            .collect();
        let subscription = format!("{group}{}", plain.join("/"));
        Ok(Self { levels, captures, subscription, text: text.to_owned() })
    }

    /// The names of its captures.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.captures.iter().map(|capture| capture.name.as_str())
    }

    /// What `name` stands for in `topic`, which this filter matches.
    pub(super) fn captured<'t>(&self, name: &str, topic: &'t str) -> Option<&'t str> {
        let capture = self.captures.iter().find(|capture| capture.name == name)?;
        let Range { start, end } = span(topic, capture.level)?;
        Some(if capture.is_rest { &topic[start..] } else { &topic[start..end] })
    }
}

/// A filter of topics that a mapping does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Except {
    levels: Vec<Level>,
    pub(super) text: String,
}

impl Except {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` is no topic filter: {what}");
        check(text).map_err(wrong)?;
        let parts: Vec<&str> = text.split('/').collect();
        let mut levels = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            levels.push(match *part {
                "..." => Level::Some,
                part if in_braces(part).is_some() => {
                    return Err(wrong("nothing is captured of what is left out; write `+`"));
                }
                part => level(part, at + 1 == parts.len()).map_err(wrong)?,
            });
        }
        if levels.iter().filter(|level| **level == Level::Some).count() > 4 {
            return Err(wrong("`...` stands there more than four times"));
        }
        Ok(Self { levels, text: text.to_owned() })
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Exactly(_))) {
            return false;
        }
        matches(&self.levels, topic)
    }
}

/// Whether `levels` match a topic. Of what a `...` stands for the least is tried first, and more of it only
/// for the last one: what matched before it goes on to match, however much that one takes.
fn matches(levels: &[Level], topic: &str) -> bool {
    // What is left of both; no topic if nothing is.
    let (mut levels, mut left) = (levels, Some(topic));
    // Behind the last `...`, and from where on it stands for a level more.
    let mut again: Option<(&[Level], &str)> = None;
    loop {
        let matched = match (levels.split_first(), left) {
            (None, None) | (Some((Level::Rest, _)), _) | (Some((Level::SomeRest, _)), Some(_)) => {
                return true;
            }
            (Some((level, behind)), Some(topic)) => {
                let (first, rest) = split_level(topic);
                if *level == Level::Some {
                    again = rest.map(|rest| (behind, rest));
                }
                let is_match = !matches!(level, Level::Exactly(text) if text != first);
                is_match.then_some((behind, rest))
            }
            _ => None,
        };
        (levels, left) = match (matched, again) {
            (Some(matched), _) => matched,
            (None, Some((behind, topic))) => {
                let rest = split_level(topic).1;
                again = rest.map(|rest| (behind, rest));
                (behind, rest)
            }
            (None, None) => return false,
        };
    }
}

/// The first level of a topic, and what comes behind it.
pub(super) fn split_level(topic: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', topic.as_bytes()) {
        Some(at) => (&topic[..at], Some(&topic[at + 1..])),
        None => (topic, None),
    }
}

/// The prefix of a shared subscription, and the filter behind it.
pub(super) fn without_group(text: &str) -> Result<(&str, &str), &'static str> {
    let Some(shared) = text.strip_prefix(SHARED) else { return Ok(("", text)) };
    match shared.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#', '{']) => {
            Ok(text.split_at(text.len() - filter.len()))
        }
        _ => Err("behind `$share/` come a group and a filter"),
    }
}

fn check(filter: &str) -> Result<(), &'static str> {
    if filter.is_empty() {
        Err("it is empty")
    } else if filter.contains('\0') {
        Err("it holds a null character")
    } else if filter.len() > usize::from(u16::MAX) {
        Err("it is too long")
    } else {
        Ok(())
    }
}

fn level(part: &str, is_last: bool) -> Result<Level, &'static str> {
    match part {
        "+" => Ok(Level::Any),
        "#" if is_last => Ok(Level::Rest),
        "#" => Err("`#` is the last level"),
        part if part.contains(['+', '#']) => Err("`+` and `#` are whole levels"),
        part if part.contains(['{', '}']) => Err("`{x}` is a whole level"),
        "..." => Err("`...` stands in `except` alone"),
        part => Ok(Level::Exactly(part.to_owned())),
    }
}

fn in_braces(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

/// Whether captures can be called so.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// Where the level `at` of `topic` stands.
fn span(topic: &str, at: usize) -> Option<Range<usize>> {
    let mut rest = topic;
    for _ in 0..at {
        rest = split_level(rest).1?;
    }
    let start = topic.len() - rest.len();
    Some(start..start + split_level(rest).0.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;

    #[test]
    fn captures_are_whole_levels_and_the_rest_is_the_last() {
        let filter = Filter::parse("$share/g/a/{x}/+/{rest...}").unwrap();
        assert_eq!(filter.subscription, "$share/g/a/+/+/#");
        let topic = "a/ü//c/d";
        assert_eq!(filter.captured("x", topic), Some("ü"));
        assert_eq!(filter.captured("rest", topic), Some("c/d"));
        assert_eq!(filter.captured("y", topic), None);
        assert_eq!(filter.captures().collect::<Vec<_>>(), ["x", "rest"]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "a/#/b",
            "a#",
            "a+/b",
            "{x...}/a",
            "a/{x",
            "a/x}",
            "a/{x}y",
            "{x}/{x}",
            "{}",
            "{.a}",
            "{x-y}",
            "$share/g",
            "$share//a",
            "$share/+/a",
            "a/.../b",
            "a\0",
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        for text in ["", "a/{x}", "#/a", "a+"] {
            assert!(Except::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn three_dots_are_one_or_more_levels() {
        let table = [
            ("zigbee2mqtt/.../set", "zigbee2mqtt/lamp/set", true),
            ("zigbee2mqtt/.../set", "zigbee2mqtt/a/b/set", true),
            ("zigbee2mqtt/.../set", "zigbee2mqtt/set", false),
            ("zigbee2mqtt/.../set", "zigbee2mqtt/lamp/set/x", false),
            ("zigbee2mqtt/.../set", "zigbee2mqtt/set/set", true),
            ("a/.../b/.../c", "a/x/b/b/c", true),
            (".../set", "a/b/set", true),
            (".../set", "$SYS/b/set", false),
            ("$SYS/.../set", "$SYS/b/set", true),
            ("a/...", "a", false),
            ("a/...", "a/b/c", true),
            ("bridge/#", "bridge", true),
            ("bridge/#", "bridge/a/b", true),
            ("+/x", "a/x", true),
            ("+/x", "a/b/x", false),
        ];
        for (filter, topic, is_match) in table {
            assert_eq!(Except::parse(filter).unwrap().matches(topic), is_match, "{filter} {topic}");
        }
    }

    #[test]
    fn three_dots_that_stand_there_again_and_again_are_found_in_one_go() {
        let except = Except::parse("a/.../b/.../b/.../b/.../c").unwrap();
        let topic = format!("a{}", "/b".repeat(30_000));
        assert!(!except.matches(&topic));
        assert!(except.matches(&format!("{topic}/c")));
    }

    /// What a filter matches, with no regard to how long it takes.
    fn is_matched(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            ([first @ ("..." | "+"), filter @ ..], [_, topic @ ..]) => {
                let most = if *first == "..." { topic.len() } else { 0 };
                (0..=most).any(|at| is_matched(filter, &topic[at..]))
            }
            ([first, filter @ ..], [level, topic @ ..]) => {
                first == level && is_matched(filter, topic)
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn what_is_left_out_is_what_is_found_by_trying_everything(
            filter in proptest::collection::vec(
                prop_oneof![Just("..."), Just("+"), Just("a"), Just("b")], 1..8),
            has_rest in any::<bool>(),
            topic in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("")], 1..9),
        ) {
            let mut filter = filter;
            if has_rest {
                filter.push("#");
            }
            let Ok(except) = Except::parse(&filter.join("/")) else { return Ok(()) };
            prop_assert_eq!(except.matches(&topic.join("/")), is_matched(&filter, &topic));
        }
    }
}
