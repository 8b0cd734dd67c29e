//! The state of the whole: what each part reports of itself, and the last minutes of it.

pub mod health;
pub mod history;
