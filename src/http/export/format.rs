//! Whether a file is wanted, and of which kind: `format`, or else what `Accept` prefers.

use rocket::http::{Accept, ContentType, MediaType, QMediaType};
use rocket::request::{FromRequest, Outcome};
use rocket::{Request, async_trait};
use utoipa::IntoParams;

use crate::http::error::ApiError;
use crate::http::query::{Parameters, bad};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

impl Format {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    pub(super) fn content_type(self) -> ContentType {
        match self {
            Self::Csv => ContentType::new("text", "csv")
                .with_params([("charset", "utf-8"), ("header", "present")]),
            Self::Ndjson => ContentType::new("application", "x-ndjson"),
        }
    }
}

/// The parameter.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Wanted {
    /// `csv` (RFC 4180) or `ndjson` for all that matches as one file, as `Accept: text/csv` and
    /// `Accept: application/x-ndjson` ask for it; goes before `Accept`. `limit` has no default and no
    /// maximum then. In CSV, nothing and an empty text are the same. A file has what pages have, also
    /// what waits in the log. If the database does not answer when it is asked for, it is made of the log or of the
    /// last values of devices, and has the headers `X-Partial: true` and, if `complete_from` of a page would be
    /// known, `X-Complete-From`.
    #[param(required = false, value_type = String, format = "file-format", pattern = "^(json|csv|ndjson)$")]
    #[expect(dead_code, reason = "the description of the parameter, which `Accepted` reads")]
    format: Option<String>,
}

/// What a request accepts.
#[derive(Clone, Copy)]
pub(in crate::http) struct Accepted(Option<Format>);

#[async_trait]
impl<'r> FromRequest<'r> for Accepted {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let accepted = request.accept().into_iter().flat_map(Accept::iter);
        Outcome::Success(Self(preferred(accepted)))
    }
}

impl Accepted {
    /// The kind of file that is wanted; `None`: a page.
    pub(in crate::http) fn file(self, parameters: &Parameters) -> Result<Option<Format>, ApiError> {
        match parameters.text("format") {
            None => Ok(self.0),
            Some("json") => Ok(None),
            Some("csv") => Ok(Some(Format::Csv)),
            Some("ndjson") => Ok(Some(Format::Ndjson)),
            Some(_) => Err(bad("format", "must be `json`, `csv` or `ndjson`")),
        }
    }
}

/// What is preferred. Of those that are as good, one that is named goes before one that a `*` stands for, and
/// then the first. Whoever accepts none of ours is given JSON, as ever.
fn preferred<'a>(accepted: impl Iterator<Item = &'a QMediaType>) -> Option<Format> {
    let mut best: Option<(f32, bool, Option<Format>)> = None;
    for media in accepted {
        let weight = media.weight_or(1.0);
        let Some((is_named, format)) = meaning(media.media_type()) else { continue };
        let is_better =
            best.is_none_or(|(other, was_named, _)| (weight, is_named) > (other, was_named));
        if weight > 0.0 && is_better {
            best = Some((weight, is_named, format));
        }
    }
    best.and_then(|(_, _, format)| format)
}

/// Whether it is named by both its parts, and the file that it is; `None`: it is none of ours.
fn meaning(media: &MediaType) -> Option<(bool, Option<Format>)> {
    let part = |text: &str| text.to_ascii_lowercase();
    let (top, sub) = (part(media.top().as_str()), part(media.sub().as_str()));
    Some(match (top.as_str(), sub.as_str()) {
        ("application", "json") => (true, None),
        ("text", "csv") => (true, Some(Format::Csv)),
        ("application", "x-ndjson" | "ndjson" | "jsonl") => (true, Some(Format::Ndjson)),
        ("*" | "application", "*") => (false, None),
        ("text", "*") => (false, Some(Format::Csv)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_is_preferred_is_given_and_else_a_page() {
        let csv = Some(Format::Csv);
        for (accept, expected) in [
            ("text/csv", csv),
            ("text/csv; charset=utf-8", csv),
            ("TEXT/CSV", csv),
            ("text/csv, */*", csv),
            ("*/*, text/csv", csv),
            ("text/csv, application/json;q=0.5", csv),
            ("application/json;q=0.5, text/csv;q=0.6", csv),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("application/json, text/csv", None),
            ("text/csv;q=0.5, application/json", None),
            ("text/csv;q=0, */*", None),
            ("*/*", None),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None),
            ("image/png", None),
        ] {
            let parsed: Accept = accept.parse().unwrap();
            assert_eq!(preferred(parsed.iter()), expected, "{accept}");
        }
    }
}
