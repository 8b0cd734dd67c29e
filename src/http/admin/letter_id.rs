//! A dead letter as a path names it, and the 404 if there is none.

use utoipa::{IntoParams, IntoResponses};

use crate::http::error::{ApiError, Body};

/// The 404 of a letter.
pub(super) const NO_LETTER: ApiError = ApiError::NotFound(
    "there is no dead letter of this id; list them with GET /admin/dead-letters",
);

/// Names a dead letter in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct LetterId {
    /// The id of a dead letter.
    #[param(minimum = 0, maximum = 18_446_744_073_709_551_615_u64)]
    id: u64,
}

/// [`NO_LETTER`], described.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "There is no dead letter with this id.",
    example = json!({"error": "there is no dead letter of this id; list them with GET /admin/dead-letters"}),
)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct NoLetter(Body);
