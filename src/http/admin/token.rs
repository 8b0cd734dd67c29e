//! Who may use `/admin`.

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, async_trait};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::AppState;

/// Somebody who sent the admin token: 401 without it, 403 if none is configured.
pub(in crate::http) struct Operator;

#[async_trait]
impl<'r> FromRequest<'r> for Operator {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let token =
            request.rocket().state().and_then(|state: &AppState| state.admin_token.as_ref());
        let Some(token) = token else { return Outcome::Error((Status::Forbidden, ())) };
        let sent = request.headers().get_one("Authorization").and_then(bearer);
        if sent.is_some_and(|sent| is_same(sent, token.expose())) {
            Outcome::Success(Self)
        } else {
            Outcome::Error((Status::Unauthorized, ()))
        }
    }
}

/// The token of an `Authorization` header; the name of the scheme is in any case (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// Takes as long whatever the secret is: digests have one length.
fn is_same(sent: &str, secret: &str) -> bool {
    Sha256::digest(sent).ct_eq(&Sha256::digest(secret)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_out_of_its_header() {
        for header in ["Bearer a.b-c", "bearer a.b-c", "BEARER  a.b-c ", " Bearer a.b-c"] {
            assert_eq!(bearer(header), Some("a.b-c"), "{header:?}");
        }
        for header in ["", "Bearer", "a.b-c", "Basic YTpi", "Bearera.b-c", "Token a.b-c"] {
            assert_eq!(bearer(header), None, "{header:?}");
        }
    }

    #[test]
    fn only_the_token_itself_is_the_token() {
        assert!(is_same("secret", "secret"));
        for sent in ["", "s", "secre", "secrets", "Secret", "secret ", "secreu"] {
            assert!(!is_same(sent, "secret"), "{sent:?}");
        }
    }
}
