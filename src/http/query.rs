//! The query string, read strictly: a parameter that is unknown, repeated, malformed or out of
//! range is a 400 that names it, because a filter that is silently ignored is a wrong answer.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use rocket::request::{FromRequest, Outcome};
use rocket::{Request, async_trait};

use super::error::ApiError;
use super::instant::{self, Edge};
use crate::base::time::Timestamp;
use crate::postgres::{Cursor, InvalidCursor};
use crate::telemetry::validate::DEVICE_ID_MAX_CHARS;

/// The query string as it came, or nothing if there was none.
#[derive(Clone, Copy)]
pub(super) struct RawQuery<'r>(&'r str);

#[async_trait]
impl<'r> FromRequest<'r> for RawQuery<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(Self(request.uri().query().map_or("", |query| query.raw().as_str())))
    }
}

impl RawQuery<'_> {
    /// For routes that take no parameter.
    pub(super) fn must_be_empty(&self) -> Result<(), ApiError> {
        self.parameters(&[]).map(drop)
    }

    /// The parameters, each of which must be in `known` and there once at most.
    pub(super) fn parameters(&self, known: &[&'static str]) -> Result<Parameters, ApiError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for pair in self.0.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name)
                .and_then(|name| known.iter().find(|known| **known == name))
                .ok_or_else(|| unknown(name, known))?;
            if pairs.iter().any(|(other, _)| other == name) {
                return Err(bad(name, "must not be repeated"));
            }
            let value = decoded(value).ok_or_else(|| bad(name, "is not percent-encoded UTF-8"))?;
            pairs.push((name, value));
        }
        Ok(Parameters(pairs))
    }
}

/// What a query string says, decoded.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// The text of `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// A whole number within `range`.
    pub(super) fn number<N: FromStr + PartialOrd + Display>(
        &self,
        name: &str,
        range: RangeInclusive<N>,
    ) -> Result<Option<N>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            bad(name, &format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// How many rows to answer with.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        Ok(self.number("limit", 1..=1_000)?.unwrap_or(100))
    }

    /// How many rows to skip.
    pub(super) fn offset(&self) -> Result<u32, ApiError> {
        Ok(self.number("offset", 0..=u32::MAX)?.unwrap_or(0))
    }

    /// The place behind which a page begins.
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, ApiError> {
        let Some(text) = self.text("cursor") else { return Ok(None) };
        if self.offset()? != 0 {
            return Err(bad("offset", "cannot be combined with `cursor`; drop one"));
        }
        text.parse().map(Some).map_err(|error| {
            let problem = match error {
                InvalidCursor::Foreign => "must be a `next_cursor` of an earlier answer, unchanged",
                InvalidCursor::Outdated => {
                    "comes from an earlier release, which sorted differently; start again without it"
                }
            };
            bad("cursor", problem)
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(name, "must be `true` or `false`"))
    }

    /// The name of a device, as a reading may bear it.
    pub(super) fn device_id(&self) -> Result<Option<String>, ApiError> {
        self.device_name("device_id")
    }

    /// The name of a device, or a part of one.
    pub(super) fn device_name(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(id) = self.text(name) else { return Ok(None) };
        let is_valid = !id.is_empty()
            && id.chars().count() <= DEVICE_ID_MAX_CHARS
            && !id.chars().any(char::is_control);
        is_valid.then(|| Some(id.to_owned())).ok_or_else(|| {
            let rule = format!("1 to {DEVICE_ID_MAX_CHARS} characters, none a control character");
            bad(name, &format!("must have {rule}"))
        })
    }

    /// The instants `start` and `end`, in order.
    pub(super) fn range(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), ApiError> {
        let start = self.instant("start", Edge::Start)?;
        let end = self.instant("end", Edge::End)?;
        if start.zip(end).is_some_and(|(start, end)| start > end) {
            return Err(ApiError::BadRequest("`start` must not be after `end`".to_owned()));
        }
        Ok((start, end))
    }

    fn instant(&self, name: &str, edge: Edge) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        instant::parse(text, edge).map(Some).ok_or_else(|| {
            bad(name, "must be a date or time in ISO 8601, such as 2025-10-05T12:34:56Z")
        })
    }
}

/// A 400 about the parameter `name`.
pub(super) fn bad(name: &str, problem: &str) -> ApiError {
    ApiError::BadRequest(format!("`{name}` {problem}"))
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let name: String = decoded(name).unwrap_or_else(|| name.to_owned()).chars().take(64).collect();
    let known = match known {
        [] => "this route takes none".to_owned(),
        known => format!("there are `{}`", known.join("`, `")),
    };
    ApiError::BadRequest(format!("unknown parameter `{name}`; {known}"))
}

/// Undoes percent-encoding as HTML forms do it, where `+` is a space; `None` if a `%` is not
/// followed by two hexadecimal digits, or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["device_id", "start", "end", "limit", "offset"];

    fn read(query: &str) -> Parameters {
        RawQuery(query).parameters(KNOWN).unwrap()
    }

    fn refused<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn values_are_decoded_as_forms_encode_them() {
        let parameters = read("device_id=caf%C3%A9+1%2B2&limit=5");
        assert_eq!(parameters.device_id().unwrap().unwrap(), "café 1+2");
        assert_eq!(parameters.limit().unwrap(), 5);
        assert_eq!(parameters.offset().unwrap(), 0);
    }

    #[test]
    fn no_query_is_the_defaults() {
        for query in ["", "&", "&&"] {
            assert_eq!(read(query).limit().unwrap(), 100);
            assert_eq!(read(query).device_id().unwrap(), None);
        }
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        for (query, name) in
            [("foo=1", "foo"), ("Limit=1", "Limit"), ("%66oo", "foo"), ("%zz=1", "%zz")]
        {
            let message = refused(RawQuery(query).parameters(KNOWN));
            assert!(message.starts_with(&format!("unknown parameter `{name}`; ")), "{message}");
        }
    }

    #[test]
    fn a_route_without_parameters_says_so() {
        assert!(RawQuery("").must_be_empty().is_ok());
        let message = refused(RawQuery("after=1").must_be_empty());
        assert_eq!(message, "unknown parameter `after`; this route takes none");
    }

    #[test]
    fn a_repeated_parameter_is_named() {
        let message = refused(RawQuery("limit=1&offset=2&limit=1").parameters(KNOWN));
        assert_eq!(message, "`limit` must not be repeated");
    }

    #[test]
    fn a_value_that_cannot_be_decoded_is_named() {
        for query in ["device_id=%", "device_id=%4", "device_id=%zz", "device_id=%FF"] {
            let message = refused(RawQuery(query).parameters(KNOWN));
            assert_eq!(message, "`device_id` is not percent-encoded UTF-8", "{query}");
        }
    }

    #[test]
    fn limit_and_offset_are_whole_numbers_in_range() {
        for limit in
            ["", "0", "1001", "-1", "%2B5", "1.0", "1e2", "x", "5%20", "99999999999999999999"]
        {
            let message = refused(read(&format!("limit={limit}")).limit());
            assert_eq!(message, "`limit` must be a whole number from 1 to 1000");
        }
        assert_eq!(refused(read("limit").limit()), "`limit` must be a whole number from 1 to 1000");
        assert_eq!(read("limit=1000").limit().unwrap(), 1_000);
        for offset in ["-1", "4294967296", "x"] {
            let message = refused(read(&format!("offset={offset}")).offset());
            assert_eq!(message, "`offset` must be a whole number from 0 to 4294967295");
        }
    }

    #[test]
    fn a_device_id_is_one_that_a_reading_may_bear() {
        let longest = "é".repeat(128);
        assert_eq!(read(&format!("device_id={longest}")).device_id().unwrap().unwrap(), longest);
        for id in ["", "%00", "a%00b", "a%0A", &"x".repeat(129)] {
            let message = refused(read(&format!("device_id={id}")).device_id());
            assert!(message.starts_with("`device_id` must have 1 to 128 "), "{message}");
        }
    }

    #[test]
    fn start_must_not_be_after_end() {
        let message = refused(read("start=2025-10-06&end=2025-10-05").range());
        assert_eq!(message, "`start` must not be after `end`");
        assert!(read("start=2025-10-05&end=2025-10-05").range().is_ok());
        assert!(read("start=2025-10-05T12:00:00Z&end=2025-10-05T14:00:00+02:00").range().is_ok());
    }

    #[test]
    fn an_instant_that_is_none_is_named() {
        for name in ["start", "end"] {
            let message = refused(read(&format!("{name}=yesterday")).range());
            assert!(message.starts_with(&format!("`{name}` must be a date or time")), "{message}");
        }
    }
}
