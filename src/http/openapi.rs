//! `GET /api/v1/openapi.json`: the OpenAPI 3 description, put together from what stands at the
//! handlers and the bodies themselves, and, at the start, from the tables of the configuration.

use std::sync::Arc;

use rocket::response::content::RawJson;
use rocket::{Route, State, get, routes};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::catalog::Tables;
use super::described;
use super::description::Description;
use super::error::{ADMIN_UNAUTHORIZED, ApiError, Body, READ_UNAUTHORIZED};
use super::guards::Reader;
use super::query::RawQuery;
use super::state::AppState;
use super::{admin, devices, health, metrics, status, tables, telemetry, upload};

pub(super) fn routes() -> Vec<Route> {
    routes![openapi]
}

/// The OpenAPI description of this service
#[utoipa::path(
    get,
    tag = "data",
    path = "/api/v1/openapi.json",
    responses((status = 200, description = "An OpenAPI 3 document.", body = Object))
)]
#[get("/openapi.json")]
fn openapi(
    _reader: Reader,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<RawJson<Arc<str>>, ApiError> {
    query.must_be_empty()?;
    Ok(RawJson(Arc::clone(state.description.text())))
}

impl Description {
    /// What can be asked of a service that has these tables.
    #[must_use]
    pub(crate) fn of(tables: &Tables) -> Self {
        let mut document = Handlers::openapi();
        described::add(tables, &mut document);
        let document = document.to_json().unwrap_or_else(|error| {
            tracing::error!(%error, "the OpenAPI description cannot be written as JSON");
            "{}".to_owned()
        });
        Self::new(document.into())
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "IoT ingestor",
        version = "1",
        description = "Telemetry that came in by MQTT, and the service that stores it. Times are in UTC. \
            Every error is `{\"error\":\"…\"}`, one sentence that says what to change; a parameter that is \
            unknown, repeated, malformed or out of range is one.",
    ),
    paths(
        telemetry::telemetry,
        upload::upload,
        devices::devices,
        tables::tables,
        status::status,
        status::history,
        openapi,
        metrics::metrics,
        health::live,
        health::ready,
        admin::wal::wal,
        admin::wal::records,
        admin::flusher::pause,
        admin::flusher::resume,
        admin::flusher::reject,
        admin::retention::retention,
        admin::retention::run,
        admin::dead_letters::list,
        admin::dead_letters::remove,
        admin::replay::replay,
        admin::replay::replay_all,
    ),
    components(schemas(Body)),
    modifiers(&Everywhere),
    tags(
        (name = "data", description = "Stored readings, and the state of the service."),
        (name = "health", description = "For orchestrators and monitoring."),
        (name = ADMIN, description = "For operators. All of these require the admin token."),
    ),
)]
struct Handlers;

const ADMIN: &str = "admin";
const READ: &str = "read";

/// What every operation has in common: its errors, and the token that `/admin` asks for.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The `ADMIN_TOKEN` of the service."));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(ADMIN, SecurityScheme::Http(token.build()));
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "The `READ_TOKEN` of the service, if one is configured, or its `ADMIN_TOKEN`.",
        ));
        components.add_security_scheme(READ, SecurityScheme::Http(token.build()));
        for (path, item) in &mut document.paths.paths {
            let methods = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                complete(path, operation);
            }
        }
    }
}

fn complete(path: &str, operation: &mut Operation) {
    let mut add = |status: &str, response: Response| {
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    };
    add(
        "400",
        error(
            "The request is malformed; the error names the parameter and what it must be.",
            "`limit` must be a whole number from 1 to 1000",
        ),
    );
    add("500", error("Any other failure.", "internal error; the reason is in the server's log"));
    if operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == ADMIN)) {
        add("401", error("The token is missing or wrong.", ADMIN_UNAUTHORIZED));
        add(
            "403",
            error(
                "No admin token is configured, so administration is switched off.",
                "admin is switched off; set ADMIN_TOKEN and start the service again",
            ),
        );
        operation.security = Some(vec![SecurityRequirement::new(ADMIN, Vec::<String>::new())]);
    } else if !path.starts_with("/health") {
        add(
            "401",
            error("READ_TOKEN is set, and the token is missing or wrong.", READ_UNAUTHORIZED),
        );
        let token = SecurityRequirement::new(READ, Vec::<String>::new());
        operation.security = Some(vec![token, SecurityRequirement::default()]);
    }
}

fn error(description: &str, example: &str) -> Response {
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Error")))
        .example(Some(serde_json::json!({ "error": example })));
    ResponseBuilder::new()
        .description(description)
        .content("application/json", body.build())
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Routes that are made for a browser and described nowhere.
    const PAGES: &[&str] = &["/", "/assets/{file}"];

    /// Of a service with a table of its own.
    fn text() -> Arc<str> {
        Arc::clone(Description::of(&Tables::example()).text())
    }

    fn document() -> Value {
        serde_json::from_str(&text()).unwrap()
    }

    /// Method and path of every operation that is described.
    fn described() -> BTreeSet<(String, String)> {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let methods = |item: &Value| item.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        paths
            .iter()
            .flat_map(|(path, item)| methods(item).into_iter().map(|method| (method, path.clone())))
            .collect()
    }

    /// Method and path of every route that is mounted, written as OpenAPI writes it.
    fn mounted() -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        for (base, routes) in crate::http::routes::mounts() {
            for route in routes {
                let base = base.trim_end_matches('/');
                let path =
                    format!("{base}{}", route.uri.path()).replace('<', "{").replace('>', "}");
                let path = if path == "/" { &path } else { path.trim_end_matches('/') };
                all.insert((route.method.to_string().to_lowercase(), path.to_owned()));
            }
        }
        all.retain(|(_, path)| !PAGES.contains(&path.as_str()));
        all
    }

    #[test]
    fn every_route_is_described_and_every_description_has_its_route() {
        assert_eq!(described(), mounted());
    }

    #[test]
    fn every_answer_has_a_description_and_a_body_and_every_error_an_example() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let what = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{what}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("400") && responses.contains_key("500"), "{what}");
                for (status, response) in responses {
                    assert_ne!(response["description"], "", "{what}: {status}");
                    let content = response["content"].as_object().unwrap();
                    let (kind, body) = content.iter().next().unwrap();
                    let is_json = kind == "application/json";
                    assert!(is_json || path == "/metrics", "{what}: {status} is {kind}");
                    if body["schema"]["$ref"] == "#/components/schemas/Error" {
                        assert!(body["example"]["error"].is_string(), "{what}: {status}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = text();
        for (at, _) in text.match_indices("\"#/") {
            let pointer = text[at + 2..].split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn all_of_admin_asks_for_its_token_what_is_read_for_one_if_there_is_one_and_health_for_none() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let is_admin = path.starts_with("/admin") || method != "get";
                let is_open = path.starts_with("/health");
                assert_eq!(operation["security"].is_array(), !is_open, "{path}");
                assert_eq!(operation["responses"]["401"].is_object(), !is_open, "{path}");
                assert_eq!(operation["responses"]["403"].is_object(), is_admin, "{path}");
            }
        }
        assert_eq!(document["components"]["securitySchemes"]["admin"]["scheme"], "bearer");
    }

    #[test]
    fn every_parameter_is_described_with_its_bounds() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let schema = &parameter["schema"];
                    let bounds = ["maximum", "maxLength", "format"];
                    let is_bounded = bounds.iter().any(|bound| !schema[bound].is_null())
                        || schema["type"] == "boolean";
                    assert!(
                        is_bounded && parameter["description"].is_string(),
                        "{path}: {parameter}"
                    );
                }
            }
        }
    }
}
