//! Templates: text with what the topic, the element and the payload put into it.
//!
//! Deliberately without regular expressions, functions and scripting.

use super::path::Path;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This text.
    Text(String),
    /// `{x}`: what the topic has there.
    Capture(String),
    /// `{key}`: of the entry of `each`.
    Key,
    /// `{index}`: of the element of `each`, from 0.
    Index,
    /// `{.path}` or `{$.path}`: what the payload has there.
    Value(Path),
}

/// Reads a template.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let wrong = |what: &str| format!("`{text}` is no template: {what}");
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((plain, behind)) = rest.split_once('{') else {
            if rest.contains('}') {
                return Err(wrong("`}` without `{`"));
            }
            parts.push(Part::Text(rest.to_owned()));
            break;
        };
        if plain.contains('}') {
            return Err(wrong("`}` without `{`"));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.to_owned()));
        }
        let end = closing(behind).ok_or_else(|| wrong("`{` without `}`"))?;
        parts.push(part(&behind[..end]).map_err(|what| wrong(&what))?);
        rest = &behind[end + 1..];
    }
    if parts.is_empty() {
        return Err(wrong("it is empty"));
    }
    Ok(parts)
}

/// Whether a capture of this name could not be told from what a template calls so.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(part(name), Ok(Part::Key | Part::Index))
}

fn part(inside: &str) -> Result<Part, String> {
    if inside == "." {
        return Path::parse(".").map(Part::Value);
    }
    if inside.starts_with('$') {
        return Path::parse(inside).map(Part::Value);
    }
    if let Some(path) = inside.strip_prefix('.') {
        return Path::parse(path).map(Part::Value);
    }
    match inside {
        "key" => Ok(Part::Key),
        "index" => Ok(Part::Index),
        "" => Err("`{}` names nothing".to_owned()),
        name if name.contains(['.', '[', '"', '\'', '{', ' ', '|', ':', '(']) => Err(format!(
            "`{{{name}}}` is neither a capture of the topic nor, with a dot in front, a path of the payload"
        )),
        name => Ok(Part::Capture(name.to_owned())),
    }
}

/// Where the brace closes, of those that stand in no quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (Some('"'), '\\') if !is_escaped => {
                is_escaped = true;
                continue;
            }
            (Some(open), char) if open == char && !is_escaped => quote = None,
            (None, '"' | '\'') => quote = Some(char),
            (None, '}') => return Some(at),
            _ => {}
        }
        is_escaped = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn value(path: &str) -> Part {
        Part::Value(Path::parse(path).unwrap())
    }

    #[test]
    fn a_template_is_text_with_captures_and_paths() {
        let capture = |name: &str| Part::Capture(name.to_owned());
        assert_eq!(parse("{device}/{key}"), Ok(vec![capture("device"), text("/"), Part::Key]));
        assert_eq!(parse("a-{index}"), Ok(vec![text("a-"), Part::Index]));
        assert_eq!(parse("{.a.\"b}\".c}"), Ok(vec![value("a.\"b}\".c")]));
        assert_eq!(parse("{$.src}{.}"), Ok(vec![value("$.src"), value(".")]));
        assert_eq!(parse("{.a[0]}"), Ok(vec![value("a[0]")]));
        assert_eq!(parse("plain"), Ok(vec![text("plain")]));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in
            ["", "{", "}", "a}b", "{a", "{}", "{a.b}", "{a|upper}", "{.}{", "{.a..b}", "{{a}}"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
