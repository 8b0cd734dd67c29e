//! Headers of every answer, errors included.
//!
//! Rocket's own shield adds `X-Content-Type-Options: nosniff` and `X-Frame-Options`.

use rocket::fairing::AdHoc;
use rocket::http::Header;

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
