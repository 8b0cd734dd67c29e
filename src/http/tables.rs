//! `GET /api/v1/tables`: the tables and columns that can be asked for.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::Table;
use super::error::ApiError;
use super::guards::Reader;
use super::query::RawQuery;
use super::state::AppState;
use crate::telemetry::mapping::ColumnOutline;

pub(super) fn routes() -> Vec<Route> {
    routes![tables]
}

/// The tables that can be asked for, with their columns
///
/// These are the tables and columns of the configuration, whatever the database has.
#[utoipa::path(
    get,
    tag = "data",
    path = "/api/v1/tables",
    responses((status = 200, description = "All tables.", body = Answer))
)]
#[get("/tables")]
pub(super) fn tables(
    _reader: Reader,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Answer>, ApiError> {
    query.must_be_empty()?;
    let data = state.tables.all().iter().map(Item::from).collect();
    Ok(Json(Answer { data }))
}

/// The tables of the configuration.
#[derive(Serialize, ToSchema)]
#[schema(as = Tables)]
pub(super) struct Answer {
    data: Vec<Item>,
}

/// A table that can be asked for by `table`.
#[derive(Serialize, ToSchema)]
#[schema(as = Table)]
struct Item {
    #[schema(example = "telemetry")]
    name: String,
    /// What a row of it has beside device and time.
    columns: Vec<ItemColumn>,
    /// The mappings that fill it, in the order of the file. The built-in shape, which fills `telemetry`, is
    /// none of them.
    mappings: Vec<String>,
}

/// A column of a table.
#[derive(Serialize, ToSchema)]
#[schema(as = Column)]
struct ItemColumn {
    /// The name that `fields` and answers have for it.
    #[schema(example = "temperature")]
    name: String,
    /// What it holds: `float`, `int`, `bool`, `text` or `json`.
    #[serde(rename = "type")]
    #[schema(pattern = "^(float|int|bool|text|json)$", example = "float")]
    kind: &'static str,
    /// What its values are in, if the configuration says so.
    #[schema(required, example = "°C")]
    unit: Option<String>,
    /// The mappings that fill it, in the order of the file.
    mappings: Vec<String>,
}

impl From<&Table> for Item {
    fn from(Table { name, columns, mappings }: &Table) -> Self {
        let column = |column: &ColumnOutline| ItemColumn {
            name: column.name.clone(),
            kind: column.kind.as_str(),
            unit: column.unit.clone(),
            mappings: column.mappings.clone(),
        };
        let columns = columns.iter().map(column).collect();
        Self { name: name.clone(), columns, mappings: mappings.clone() }
    }
}
