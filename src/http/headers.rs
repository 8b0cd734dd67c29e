//! Headers of every answer, errors included.
//!
//! There is no `Server`, and no CORS: pages of other origins read nothing.

use rocket::fairing::AdHoc;
use rocket::http::Header;
use rocket::shield::{Frame, Shield};

/// `X-Content-Type-Options: nosniff`, `X-Frame-Options: DENY`, and what else Rocket adds.
pub(super) fn shield() -> Shield {
    Shield::default().enable(Frame::Deny)
}

/// Adds what an answer has not set itself.
pub(super) fn fairing() -> AdHoc {
    AdHoc::on_response("headers", |_, response| {
        Box::pin(async move {
            for (name, value) in [
                // State, and data that changes with every message.
                ("Cache-Control", "no-store"),
                // What is not a page loads nothing and is framed by nobody.
                ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
                ("Referrer-Policy", "no-referrer"),
            ] {
                if !response.headers().contains(name) {
                    response.set_header(Header::new(name, value));
                }
            }
        })
    })
}
