//! The OpenAPI description as it is sent; `openapi` puts it together.

use std::sync::Arc;

/// The document.
#[derive(Clone, Debug)]
pub(crate) struct Description(Arc<str>);

impl Description {
    /// Of this text, which is JSON.
    pub(super) fn new(text: Arc<str>) -> Self {
        Self(text)
    }

    /// That text.
    pub(super) fn text(&self) -> &Arc<str> {
        &self.0
    }
}
