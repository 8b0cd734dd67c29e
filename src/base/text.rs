//! Text that is bounded.

use std::borrow::Cow;

/// `text`, or its start with an ellipsis, of at most `max_bytes`, which are at least those of the ellipsis.
pub(crate) fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return text.into();
    }
    let most = max_bytes - '…'.len_utf8();
    let ends = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= most);
    format!("{}…", &text[..ends.last().unwrap_or_default()]).into()
}

/// Whether `text` may be the start of another that [`cut`] has cut.
pub(crate) fn is_cut(text: &str, max_bytes: usize) -> bool {
    // What was cut in front of a long character is shorter by the rest of that.
    let least = max_bytes - (char::MAX.len_utf8() - 1);
    text.ends_with('…') && text.len() >= least
}

/// `texts` with `"; "` between them, within `max_bytes` as far as their `least` bytes have room: each is told in
/// its share of what is left, and at the end how many more there are, with `more` that are not among them.
pub(crate) fn share_out<T>(
    texts: &[T],
    more: usize,
    max_bytes: usize,
    least: impl Fn(&T) -> usize,
    told: impl Fn(&T, usize) -> String,
) -> String {
    const BETWEEN: &str = "; ";
    let all: Vec<String> = texts.iter().map(|text| told(text, usize::MAX)).collect();
    let all = all.join(BETWEEN);
    if more == 0 && all.len() <= max_bytes {
        return all;
    }
    let and_more = |count: usize| format!("{BETWEEN}and {count} more");
    let needed: Vec<usize> = texts.iter().map(|text| least(text) + BETWEEN.len()).collect();
    let has_room = |shown: &usize| {
        let end = texts.len() - shown + more;
        let end = if end == 0 { 0 } else { and_more(end).len() };
        needed[..*shown].iter().sum::<usize>() + end <= max_bytes
    };
    let shown = (1..=texts.len()).rev().find(has_room).unwrap_or(1).min(texts.len());
    let untold = texts.len() - shown + more;
    let end = if untold == 0 { String::new() } else { and_more(untold) };
    let mut spare = max_bytes.saturating_sub(end.len() + needed[..shown].iter().sum::<usize>());
    let mut line = String::with_capacity(max_bytes);
    for (at, text) in texts[..shown].iter().enumerate() {
        if at > 0 {
            line.push_str(BETWEEN);
        }
        let room = least(text) + spare / (shown - at);
        let told = told(text, room);
        spare = (spare + least(text)).saturating_sub(told.len());
        line.push_str(&told);
    }
    line + &end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_is_known_to_be() {
        for tail in ["aaaaaaaaaaaa", "ééééééé", "…………", "🦀🦀🦀🦀"] {
            for head in ["", "a", "aa", "aaa"] {
                let text = format!("{head}{tail}");
                let cut = cut(&text, 10);
                assert!(cut.len() <= 10 && is_cut(&cut, 10), "{cut}");
            }
        }
        assert!(!is_cut("aaaaaaaaaa", 10) && !is_cut("a…", 10));
    }

    #[test]
    fn texts_that_have_no_room_together_are_cut_to_shares_and_counted_where_even_those_have_none() {
        let texts = |max| {
            let texts = ["a: 0123456789", "b: 0123456789", "c: 0123456789"];
            share_out(&texts, 0, max, |_| "a…".len(), |text, room| cut(text, room).into_owned())
        };
        assert_eq!(texts(43), "a: 0123456789; b: 0123456789; c: 0123456789");
        for (max, told) in [
            (42, "a: 012345…; b: 012345…; c: 012345…"),
            (22, "a:…; b:…; c: …"),
            (20, "a…; b:…; c:…"),
            (17, "a…; and 2 more"),
        ] {
            let found = texts(max);
            assert_eq!(found, told, "{max}");
        }
    }
}
