//! `GET /`: the operator page, for somebody who stands in front of the box.
//!
//! It is a handful of files inside the binary, which a browser asks for one by one, so that its
//! Content-Security-Policy can forbid whatever else a page could load or run. The page asks
//! `/api/v1/status` once a second and builds what it shows out of text alone.

use std::sync::LazyLock;

use rocket::http::{ContentType, Header};
use rocket::{Responder, Route, get, routes};

use super::error::ApiError;
use crate::telemetry::fields::FIELDS;

pub(super) fn routes() -> Vec<Route> {
    routes![page, asset]
}

/// Itself and nothing else, and no script or style that stands in the page or in an attribute.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files below `/assets` that are the same for ever, with their media types.
const ASSETS: &[(&str, ContentType, &str)] = &[
    ("admin.js", ContentType::JavaScript, include_str!("admin.js")),
    ("charts.js", ContentType::JavaScript, include_str!("charts.js")),
    ("devices.js", ContentType::JavaScript, include_str!("devices.js")),
    ("dom.js", ContentType::JavaScript, include_str!("dom.js")),
    ("format.js", ContentType::JavaScript, include_str!("format.js")),
    ("icon.svg", ContentType::SVG, include_str!("icon.svg")),
    ("live.js", ContentType::JavaScript, include_str!("live.js")),
    ("main.js", ContentType::JavaScript, include_str!("main.js")),
    ("mappings.css", ContentType::CSS, include_str!("mappings.css")),
    ("mappings.js", ContentType::JavaScript, include_str!("mappings.js")),
    ("now.js", ContentType::JavaScript, include_str!("now.js")),
    ("page.css", ContentType::CSS, include_str!("page.css")),
    ("reader.js", ContentType::JavaScript, include_str!("reader.js")),
    ("server.js", ContentType::JavaScript, include_str!("server.js")),
    ("silent.js", ContentType::JavaScript, include_str!("silent.js")),
    ("tables.js", ContentType::JavaScript, include_str!("tables.js")),
    ("uplot-license.txt", ContentType::Plain, include_str!("uplot/LICENSE")),
    ("uplot.css", ContentType::CSS, include_str!("uplot/uPlot.min.css")),
    ("uplot.js", ContentType::JavaScript, include_str!("uplot/uPlot.iife.min.js")),
];

const PAGE: &str = include_str!("index.html");

/// What devices measure, for the scripts of the page: the one table of it.
static MEASURED: LazyLock<String> = LazyLock::new(|| {
    let fields = FIELDS.each_ref().map(|field| {
        let (name, unit) = (field.name, field.unit);
        serde_json::json!({ "name": name, "unit": unit })
    });
    format!("export const FIELDS = {};\n", serde_json::Value::from(fields.to_vec()))
});

/// Media type and content of a file below `/assets`.
fn content(file: &str) -> Option<(ContentType, &'static str)> {
    if file == "fields.js" {
        return Some((ContentType::JavaScript, &MEASURED));
    }
    let (_, kind, text) = ASSETS.iter().find(|(name, _, _)| *name == file)?;
    Some((kind.clone(), *text))
}

/// A file with its policy.
#[derive(Responder)]
struct File {
    content: (ContentType, &'static str),
    policy: Header<'static>,
}

impl File {
    fn new(kind: ContentType, text: &'static str) -> Self {
        Self { content: (kind, text), policy: Header::new("Content-Security-Policy", POLICY) }
    }
}

#[get("/")]
fn page() -> File {
    File::new(ContentType::HTML, PAGE)
}

#[get("/assets/<file>")]
fn asset(file: &str) -> Result<File, ApiError> {
    let found = content(file);
    let (kind, text) =
        found.ok_or(ApiError::NotFound("there is no such file; open `/` for the page"))?;
    Ok(File::new(kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: usize = 200 * 1_000;

    #[test]
    fn all_of_it_is_small() {
        let bytes: usize = ASSETS.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes + PAGE.len() < MAX_BYTES, "{bytes}");
    }

    #[test]
    fn what_a_file_asks_for_is_there() {
        let all = ASSETS.iter().map(|(_, _, text)| *text).chain([PAGE]);
        let mut asked = 0;
        for text in all {
            for name in text.split("\"assets/").skip(1).chain(text.split("from \"./").skip(1)) {
                let name = name.split('"').next().unwrap();
                assert!(content(name).is_some(), "{name}");
                asked += 1;
            }
        }
        assert!(asked > ASSETS.len() / 2, "{asked}");
    }

    #[test]
    fn the_page_shows_the_fields_of_the_table() {
        let expected = r#"export const FIELDS = [{"name":"temperature","unit":"°C"}"#;
        assert!(MEASURED.starts_with(expected), "{}", *MEASURED);
        for (name, _, text) in ASSETS {
            for field in &FIELDS {
                assert!(!text.contains(field.name), "{name} names {}", field.name);
            }
        }
    }

    #[test]
    fn nothing_is_markup_but_the_page_itself() {
        let ours = ASSETS.iter().filter(|(name, _, _)| !name.starts_with("uplot"));
        for (name, _, text) in ours {
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(way), "{name}: {way}");
            }
        }
        assert!(!PAGE.contains("style=") && !PAGE.contains("onclick"));
    }
}
