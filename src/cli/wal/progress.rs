//! The bar for what takes long.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{bar:40} {percent:>3} %  {binary_bytes_per_sec}  {eta} left";

/// A bar on standard error, if that is a terminal; it goes when this is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(bytes: u64) -> Self {
        // On anything but a terminal, it draws nothing.
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(TEMPLATE);
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// For a command whose output is long: on a terminal, it would be torn apart by the bar.
    pub(super) fn of_output(bytes: u64) -> Self {
        if io::stdout().is_terminal() { Self(ProgressBar::hidden()) } else { Self::new(bytes) }
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Removes the bar, so that lines can follow.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
