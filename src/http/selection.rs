//! `table` and `fields`: which columns of which table a request asks for.

use std::sync::Arc;

use utoipa::IntoParams;

use super::catalog::Table;
use super::error::ApiError;
use super::measured::Shown;
use super::query::{Parameters, bad};
use super::state::AppState;
use crate::postgres::Relation;
use crate::telemetry::mapping::{BUILT_IN_TABLE, EXTRA_COLUMN, Kind, is_name};

/// The parameters.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The table to read, one of `/api/v1/tables`.
    #[param(required = false, value_type = String, min_length = 1, max_length = 63, default = "telemetry")]
    table: Option<String>,
    /// The columns to return, separated by commas; all of the table if this is not there. A column that the
    /// configuration does not name any more can be asked for as long as the table has it. At most 8192 bytes.
    #[param(required = false, value_type = String, min_length = 1, pattern = r"^[a-z0-9_,]+$", format = "comma-separated", example = "temperature")]
    fields: Option<String>,
}

impl Wanted {
    fn read(parameters: &Parameters) -> Self {
        let text = |name| parameters.text(name).map(str::to_owned);
        Self { table: text("table"), fields: text("fields") }
    }
}

/// What is asked for.
pub(super) struct Selection {
    pub(super) relation: Relation,
    /// The columns of each item, in their order. `None`: a reading of the built-in shape.
    pub(super) shown: Option<Arc<[Shown]>>,
}

/// Of `fields`: half of what a request's line may be long.
const LONGEST_FIELDS: usize = 8_192;

/// Columns that are the service's own, and shown otherwise or not at all.
const NOT_SHOWN: [&str; 4] = ["device_id", "ts", "created_at", "id"];

impl Selection {
    pub(super) async fn read(state: &AppState, parameters: &Parameters) -> Result<Self, ApiError> {
        let wanted = Wanted::read(parameters);
        let table = table(state, wanted.table.as_deref())?;
        let shown: Vec<Shown> = match &wanted.fields {
            Some(names) => fields(state, table, names).await?,
            None if table.is_built_in() => {
                return Ok(Self { relation: Relation::built_in(), shown: None });
            }
            None => {
                table.columns.iter().map(|column| Shown::new(&column.name, column.kind)).collect()
            }
        };
        Ok(Self { relation: Relation::whole(&table.name), shown: Some(shown.into()) })
    }
}

fn table<'s>(state: &'s AppState, name: Option<&str>) -> Result<&'s Table, ApiError> {
    let name = name.unwrap_or(BUILT_IN_TABLE);
    state.tables.find(name).ok_or_else(|| {
        let all: Vec<&str> = state.tables.all().iter().map(|table| table.name.as_str()).collect();
        bad("table", &format!("must be a table of the configuration: `{}`", all.join("`, `")))
    })
}

async fn fields(state: &AppState, table: &Table, names: &str) -> Result<Vec<Shown>, ApiError> {
    if names.len() > LONGEST_FIELDS {
        return Err(bad("fields", &format!("must be at most {LONGEST_FIELDS} bytes long")));
    }
    let mut shown: Vec<Shown> = Vec::new();
    let mut stored = None;
    for name in names.split(',') {
        if shown.iter().any(|other| other.name() == name) {
            return Err(bad("fields", &format!("names `{name}` twice")));
        }
        if let Some(column) = table.column(name) {
            shown.push(Shown::new(name, column.kind));
            continue;
        }
        if !may_be_shown(name) {
            return Err(unknown(table, name));
        }
        // What the file names no more, the table may still have.
        let stored = match &mut stored {
            Some(stored) => stored,
            none => {
                let columns = state.database.columns(&table.name).await;
                none.insert(
                    columns
                        .map_err(|failure| ApiError::of_query(&state.health, &failure, "fields"))?,
                )
            }
        };
        let column = stored.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| unknown(table, name))?;
        let is_float = matches!(column.sql_type.as_str(), "double precision" | "real");
        shown.push(Shown::new(name, if is_float { Kind::Float } else { Kind::Text }));
    }
    Ok(shown)
}

/// Whether a mapping could have filled a column of this name, so that it can be looked for.
fn may_be_shown(name: &str) -> bool {
    let is_ours = NOT_SHOWN.contains(&name);
    !is_ours && (name == EXTRA_COLUMN || is_name(name))
}

fn unknown(table: &Table, name: &str) -> ApiError {
    let all: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let name: String = name.chars().take(64).collect();
    let (table, all) = (&table.name, all.join("`, `"));
    bad(
        "fields",
        &format!("names `{name}`, which the table `{table}` does not have; there are `{all}`"),
    )
}
