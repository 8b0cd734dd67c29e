//! Paths: where a value stands in a message, written like a dotted TOML key.
//!
//! `uplink_message.decoded_payload.temp`, `params."switch:0".apower`, `rx_metadata[0].rssi`. A path
//! starts at the element of `each`, with `$.` at the message; `.` and `$` are those two themselves.

use std::borrow::Cow;
use std::fmt;

/// Most steps of a path, which bounds the depth to which a message is read.
const MOST_STEPS: usize = 32;

/// A step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of a key of an object.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Whether it starts at the message, even if there is an element.
    pub(super) is_of_message: bool,
    pub(super) steps: Vec<Step>,
    text: String,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match Parser::new(text).path(Wildcards::Refused)? {
            (path, None) => Ok(path),
            (_, Some(_)) => Err(format!("`{text}`: only `each` ends in `*` or `[*]`")),
        }
    }

    /// A path of one key, whatever is in it.
    pub(super) fn of_key(key: &str) -> Self {
        Self { is_of_message: false, steps: vec![Step::Key(key.to_owned())], text: key.to_owned() }
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The key, if the path is one and no more.
    pub(super) fn single_key(&self) -> Option<&str> {
        match self.steps.as_slice() {
            [Step::Key(key)] if !self.is_of_message => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A key as it stands in a path: in quotes, if it could be taken for something else.
pub(crate) fn quoted(key: &str) -> Cow<'_, str> {
    if Path::parse(key).is_ok_and(|path| path.single_key() == Some(key)) {
        return Cow::Borrowed(key);
    }
    let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{escaped}\""))
}

/// What `each` goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// `[*]`: the elements of an array.
    Array,
    /// `*`: the entries of an object.
    Object,
}

/// Reads the path of `each`: that of the container, and what it is.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(super) fn parse_each(text: &str) -> Result<(Path, Container), String> {
    match Parser::new(text).path(Wildcards::Wanted)? {
        (path, Some(container)) => Ok((Path { is_of_message: true, ..path }, container)),
        (_, None) => Err(format!("`{text}` must end in `[*]` (an array) or `*` (an object)")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    Wanted,
    Refused,
}

struct Parser<'t> {
    whole: &'t str,
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn new(whole: &'t str) -> Self {
        Self { whole, rest: whole }
    }

    fn wrong(&self, what: &str) -> String {
        format!("`{}` is no path: {what}", self.whole)
    }

    fn path(mut self, wildcards: Wildcards) -> Result<(Path, Option<Container>), String> {
        let is_of_message =
            self.whole == "$" || self.whole.starts_with("$.") || self.whole.starts_with("$[");
        let mut steps = Vec::new();
        let mut container = None;
        let is_itself = matches!(self.whole, "$" | ".");
        if is_of_message {
            self.rest = &self.rest[1..];
        }
        if is_itself {
            self.rest = "";
        } else if self.rest.is_empty() {
            return Err(self.wrong("it is empty"));
        }
        // Where a key may stand without a dot before it: at the start alone.
        let mut is_start = !is_of_message;
        while !self.rest.is_empty() {
            if let Some(rest) = self.rest.strip_prefix("[*]") {
                self.rest = rest;
                container = Some(Container::Array);
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(self.index()?);
            } else {
                match self.rest.strip_prefix('.') {
                    Some(rest) if !is_start => self.rest = rest,
                    None if is_start => {}
                    Some(_) => return Err(self.wrong("it starts with a dot")),
                    None => return Err(self.wrong("a dot is missing")),
                }
                if let Some(rest) = self.rest.strip_prefix('*') {
                    self.rest = rest;
                    container = Some(Container::Object);
                } else {
                    steps.push(Step::Key(self.key()?));
                }
            }
            is_start = false;
            if container.is_some() {
                if !self.rest.is_empty() {
                    return Err(self.wrong("`*` and `[*]` end it"));
                }
                if wildcards == Wildcards::Refused {
                    return Err(self.wrong("only `each` ends in `*` or `[*]`"));
                }
            }
        }
        if steps.len() > MOST_STEPS {
            return Err(self.wrong("it is too long"));
        }
        Ok((Path { is_of_message, steps, text: self.whole.to_owned() }, container))
    }

    fn index(&mut self) -> Result<Step, String> {
        let number = self.rest.split_once(']').and_then(|(digits, rest)| {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten().map(|at: usize| (at, rest))
        });
        let Some((at, rest)) = number else {
            return Err(self.wrong("in brackets stands a whole number, from 0"));
        };
        self.rest = rest;
        Ok(Step::Index(at))
    }

    fn key(&mut self) -> Result<String, String> {
        if let Some(rest) = self.rest.strip_prefix('\'') {
            let Some((key, rest)) = rest.split_once('\'') else {
                return Err(self.wrong("a quote is not closed"));
            };
            self.rest = rest;
            return Ok(key.to_owned());
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            return self.quoted(rest);
        }
        let end = self.rest.find(['.', '[']).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        if key.is_empty() {
            return Err(self.wrong("a key is empty; write `\"\"` if that is what it is called"));
        }
        if key.contains(['"', '\'', ']', '*', '{', '}']) || key.trim() != key {
            return Err(self.wrong("a key of such characters stands in quotes"));
        }
        self.rest = rest;
        Ok(key.to_owned())
    }

    fn quoted(&mut self, rest: &'t str) -> Result<String, String> {
        let mut key = String::new();
        let mut chars = rest.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.rest = &rest[at + 1..];
                    return Ok(key);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => key.push(escaped),
                    _ => return Err(self.wrong("of escapes there are `\\\"` and `\\\\`")),
                },
                char => key.push(char),
            }
        }
        Err(self.wrong("a quote is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.to_owned())
    }

    #[test]
    fn a_path_is_read_like_a_dotted_toml_key() {
        let table: [(&str, bool, Vec<Step>); 12] = [
            ("temp", false, vec![key("temp")]),
            ("a.b.c", false, vec![key("a"), key("b"), key("c")]),
            (
                "params.\"switch:0\".apower",
                false,
                vec![key("params"), key("switch:0"), key("apower")],
            ),
            ("params.switch:0.apower", false, vec![key("params"), key("switch:0"), key("apower")]),
            ("'a.b'.c", false, vec![key("a.b"), key("c")]),
            (r#""a\"\\b""#, false, vec![key(r#"a"\b"#)]),
            ("rx[0].rssi", false, vec![key("rx"), Step::Index(0), key("rssi")]),
            ("[1][2]", false, vec![Step::Index(1), Step::Index(2)]),
            ("$.params.ts", true, vec![key("params"), key("ts")]),
            ("$[0].a", true, vec![Step::Index(0), key("a")]),
            ("$", true, vec![]),
            (".", false, vec![]),
        ];
        for (text, is_of_message, steps) in table {
            let path = Path::parse(text).unwrap();
            assert_eq!((path.is_of_message, path.steps), (is_of_message, steps), "{text}");
        }
        assert_eq!(Path::parse("$x").unwrap().steps, [key("$x")]);
        assert_eq!(Path::parse("\"\"").unwrap().steps, [key("")]);
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_reason() {
        for text in [
            "", "a.", "a..b", ".a", "a[", "a[]", "a[-1]", "a[x]", "a[0]b", "\"a", "'a", "a\"b",
            "\"a\\n\"", "a.*", "a[*]", "*", "[*]", "a.*.b", "$.", "\"a\"b", "a{b}", "a[0", " a",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&"a.".repeat(40)).is_err());
    }

    #[test]
    fn each_ends_in_what_it_goes_through() {
        let each = |text| parse_each(text).map(|(path, container)| (path.steps, container));
        assert_eq!(each("*"), Ok((vec![], Container::Object)));
        assert_eq!(each("[*]"), Ok((vec![], Container::Array)));
        assert_eq!(each("params.*"), Ok((vec![key("params")], Container::Object)));
        assert_eq!(each("$.a[*]"), Ok((vec![key("a")], Container::Array)));
        assert_eq!(each("a[0].b[*]").unwrap().0.len(), 3);
        for text in ["a", "", "*.a", "[*].a", "a.[*]", "a*", "**"] {
            assert!(each(text).is_err(), "{text}");
        }
    }
}
