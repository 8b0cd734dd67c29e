//! What a handler asks for so that only those may use it who may: an [`Operator`] or a [`Reader`].

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, async_trait};

use super::access::{Access, Tokens, is_same, sent};
use super::state::AppState;

/// Somebody who sent the admin token: 401 without it, 403 if none is configured.
pub(super) struct Operator;

#[async_trait]
impl<'r> FromRequest<'r> for Operator {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let Some(access) = state(request) else {
            return Outcome::Error((Status::InternalServerError, ()));
        };
        let Some(token) = access.tokens().admin else {
            return Outcome::Error((Status::Forbidden, ()));
        };
        if sent(request).is_some_and(|sent| is_same(sent, token.expose())) {
            Outcome::Success(Self)
        } else {
            Outcome::Error(access.refuse(request).await)
        }
    }
}

/// Somebody who may read: anybody, or whoever sent one of the two tokens if there is one for it.
pub(super) struct Reader;

#[async_trait]
impl<'r> FromRequest<'r> for Reader {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let Some(access) = state(request) else {
            return Outcome::Error((Status::InternalServerError, ()));
        };
        let Tokens { admin, read } = access.tokens();
        let Some(read) = read else { return Outcome::Success(Self) };
        let is_right = |sent: &str| {
            let is_admin = admin.is_some_and(|admin| is_same(sent, admin.expose()));
            // Both are compared, whatever the first gives.
            is_same(sent, read.expose()) | is_admin
        };
        if sent(request).is_some_and(is_right) {
            Outcome::Success(Self)
        } else {
            Outcome::Error(access.refuse(request).await)
        }
    }
}

fn state<'r>(request: &'r Request<'_>) -> Option<&'r Access> {
    request.rocket().state().map(|state: &AppState| &*state.access)
}
