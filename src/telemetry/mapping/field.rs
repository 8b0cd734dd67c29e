//! The options of a field: what its column takes from a message.

use rocket::figment::value::Value;

use super::convert::{Linear, convert};
use super::keys::{Keys, literal, texts};
use super::path::Path;
use super::shape::{Cell, EXTRA_COLUMN, Kind};
use super::tree::Slot;
use super::value::{Literal, Raw};

/// Most alternatives of a path.
pub(super) const MOST_PATHS: usize = 16;

/// Bytes of a text unless the file says otherwise, and at most.
const TEXT_BYTES: usize = 256;
const TEXT_MAX_BYTES: usize = 1_024;

/// Columns that are the service's, PostgreSQL's, or keys of an answer of the API.
const RESERVED: [&str; 13] = [
    "device_id",
    "ts",
    "created_at",
    "timestamp",
    "last_seen",
    EXTRA_COLUMN,
    "tableoid",
    "ctid",
    "xmin",
    "xmax",
    "cmin",
    "cmax",
    "table",
];

/// A field of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its column.
    pub(super) name: String,
    /// Index of the column in its table.
    pub(super) column: u16,
    pub(super) kind: Kind,
    /// Where its value stands, or what the name of the field has to be for it.
    pub(super) paths: Vec<Path>,
    pub(super) slots: Vec<Slot>,
    pub(super) required: bool,
    pub(super) default: Option<Cell>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) linear: Option<Linear>,
    /// Values by the text that stands for them.
    pub(super) map: Vec<(String, Cell)>,
    pub(super) unit: Option<String>,
    pub(super) max_bytes: usize,
}

/// Whether a column or a table can be called so.
#[must_use]
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.len() <= 63
}

/// What is wrong with the name of a column, if anything is.
#[must_use]
pub(crate) fn name_fault(name: &str) -> Option<String> {
    if !is_name(name) {
        return Some(
            "a column is called [a-z][a-z0-9_]*, with at most 63 characters; what the device calls it is its `path`"
                .to_owned(),
        );
    }
    let is_ours = RESERVED.contains(&name);
    is_ours.then(|| "a column of this name is not the mapping's to fill".to_owned())
}

impl Field {
    /// A float that stands where its name says.
    pub(super) fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            column: 0,
            kind: Kind::Float,
            paths: vec![Path::of_key(name)],
            slots: Vec::new(),
            required: false,
            default: None,
            min: None,
            max: None,
            linear: None,
            map: Vec::new(),
            unit: None,
            max_bytes: TEXT_BYTES,
        }
    }

    /// Reads the options of the field `name`. `by_name`: its value is found by what a template makes of
    /// the message, so that its `path` is a name, whatever is in it.
    pub(super) fn read(name: &str, by_name: bool, mut keys: Keys<'_, '_>) -> Self {
        let mut field = Self::plain(name);
        field.kind = match keys.text("type") {
            None | Some("float") => Kind::Float,
            Some("int") => Kind::Int,
            Some("bool") => Kind::Bool,
            Some("text") => Kind::Text,
            Some(other) => {
                keys.mistake(format_args!(
                    "type: expected float, int, bool or text, found \"{other}\""
                ));
                Kind::Float
            }
        };
        if let Some(paths) = read_paths(&mut keys, "path", by_name) {
            field.paths = paths;
        }
        field.required = keys.flag("required").unwrap_or(false);
        field.unit = keys.text("unit").map(str::to_owned);
        field.read_numbers(&mut keys);
        field.read_values(&mut keys);
        if keys.value("max_bytes").is_some() {
            if field.kind != Kind::Text {
                keys.mistake("max_bytes: only a text has it");
            } else if let Some(max) = keys.whole("max_bytes", 1, TEXT_MAX_BYTES) {
                field.max_bytes = max;
            }
        }
        keys.finish();
        field
    }

    fn read_numbers(&mut self, keys: &mut Keys<'_, '_>) {
        let is_number = matches!(self.kind, Kind::Float | Kind::Int);
        for key in ["min", "max", "scale", "offset"] {
            if keys.value(key).is_some() && !is_number {
                let kind = self.kind.as_str();
                keys.mistake(format_args!(
                    "{key}: only a float or an int has it, this is a {kind}"
                ));
            }
        }
        if !is_number {
            return;
        }
        (self.min, self.max) = (keys.number("min"), keys.number("max"));
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            keys.mistake(format_args!("min {min} is above max {max}"));
        }
        let (scale, offset) = (keys.number("scale"), keys.number("offset"));
        if scale == Some(0.0) {
            keys.mistake("scale: by 0 every value is the same");
        }
        if scale.is_some() || offset.is_some() {
            let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
            self.linear = Some(Linear { scale, offset });
        }
    }

    fn read_values(&mut self, keys: &mut Keys<'_, '_>) {
        if let Some(value) = keys.value("default") {
            match self.constant(value, None) {
                Ok(cell) => self.default = Some(cell),
                Err(what) => keys.mistake(format_args!("default: {what}")),
            }
            if self.required {
                keys.mistake("default: a field that is required has none");
            }
        }
        let Some(map) = keys.dict("map") else { return };
        if map.is_empty() {
            keys.mistake("map: is empty");
        }
        for (word, value) in map {
            match self.constant(value, self.linear) {
                Ok(cell) => self.map.push((word.clone(), cell)),
                Err(what) => keys.mistake(format_args!("map, {word}: {what}")),
            }
        }
    }

    /// A value that stands in the file.
    fn constant(&self, value: &Value, linear: Option<Linear>) -> Result<Cell, String> {
        let literal = literal(value).ok_or("expected a plain value")?;
        let text = match &literal {
            Literal::Int(number) => number.to_string(),
            Literal::Float(number) => format!("{number:?}"),
            Literal::Bool(_) | Literal::Text(_) => String::new(),
        };
        let raw = match &literal {
            Literal::Bool(flag) => Raw::Bool(*flag),
            Literal::Text(text) => Raw::Text(text.into()),
            Literal::Int(_) | Literal::Float(_) => Raw::Number(&text),
        };
        let is_of_type = match self.kind {
            Kind::Float | Kind::Int => matches!(raw, Raw::Number(_)),
            Kind::Text => matches!(raw, Raw::Text(_)),
            Kind::Bool | Kind::Json => true,
        };
        if !is_of_type {
            return Err(format!(
                "expected a value of type {}, found {}",
                self.kind.as_str(),
                raw.shown()
            ));
        }
        let cell = convert(&raw, self.kind, linear).map_err(|(_, what)| what)?;
        match self.fault(&cell) {
            None => Ok(cell),
            Some((_, what)) => Err(what),
        }
    }

    /// What is wrong with a value of its type, if anything is: whether that is its length, and a
    /// sentence about it.
    pub(super) fn fault(&self, cell: &Cell) -> Option<(bool, String)> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "an integer that a double would round was refused"
        )]
        let number = match cell {
            Cell::Float(value) => *value,
            Cell::Int(value) => *value as f64,
            Cell::Text(text) if text.len() > self.max_bytes => {
                let (bytes, max) = (text.len(), self.max_bytes);
                return Some((true, format!("the text has {bytes} bytes, {max} are allowed")));
            }
            Cell::Bool(_) | Cell::Text(_) | Cell::Json(_) => return None,
        };
        let (min, max) = (self.min.unwrap_or(f64::MIN), self.max.unwrap_or(f64::MAX));
        if number >= min && number <= max {
            return None;
        }
        let bounds = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("outside {min} to {max}"),
            (Some(min), None) => format!("below {min}"),
            _ => format!("above {max}"),
        };
        Some((false, format!("{number} is {bounds}")))
    }
}

/// A path or a list of alternatives.
pub(super) fn read_paths(
    keys: &mut Keys<'_, '_>,
    key: &'static str,
    by_name: bool,
) -> Option<Vec<Path>> {
    let value = keys.value(key)?;
    let Some(all) = texts(value) else {
        return keys.unexpected(key, "a path, or a list of paths", value);
    };
    if all.is_empty() || all.len() > MOST_PATHS {
        keys.mistake(format_args!("{key}: there are 1 to {MOST_PATHS} alternatives"));
        return None;
    }
    let mut paths = Vec::new();
    for text in all {
        match if by_name { Ok(Path::of_key(text)) } else { Path::parse(text) } {
            Ok(path) => paths.push(path),
            Err(what) => keys.mistake(format_args!("{key}: {what}")),
        }
    }
    Some(paths)
}
