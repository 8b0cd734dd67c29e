//! The head of an answer that is a file.

use rocket::Request;
use rocket::http::{ContentType, Header};
use rocket::response::{self, Responder, Response};
use rocket::serde::json::Json;

use super::format::Format;
use crate::http::together::Partial;

/// An answer to a request for rows.
#[derive(rocket::Responder)]
pub(in crate::http) enum Answered<T> {
    /// A page of them.
    Page(Json<T>),
    /// All of them; the body passes by, see `exchange`.
    File(Box<File>),
}

/// The head of a file.
pub(in crate::http) struct File {
    kind: ContentType,
    /// What it is called, and what may be missing in it.
    headers: Vec<Header<'static>>,
}

/// That something may be missing, as `partial` and `complete_from` of a page say it.
const PARTIAL: &str = "X-Partial";
const COMPLETE_FROM: &str = "X-Complete-From";

impl File {
    /// `name` needs no quoting.
    pub(super) fn new(format: Format, name: &str, partial: Option<Partial>) -> Box<Self> {
        let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
        let mut headers = vec![Header::new("Content-Disposition", disposition)];
        if let Some(Partial { complete_from }) = partial {
            headers.push(Header::new(PARTIAL, "true"));
            headers.extend(complete_from.map(|at| Header::new(COMPLETE_FROM, at.to_string())));
        }
        Box::new(Self { kind: format.content_type(), headers })
    }
}

impl<'r> Responder<'r, 'static> for File {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let mut answer = Response::build();
        answer.header(self.kind);
        for header in self.headers {
            answer.header(header);
        }
        answer.ok()
    }
}
