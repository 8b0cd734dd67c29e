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
