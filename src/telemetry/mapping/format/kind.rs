//! How the messages of a mapping are written, as its file says it.

use super::super::keys::Keys;
use super::cells::Cells;

/// How a message is written.
#[derive(Clone, Debug)]
pub(in super::super) enum Format {
    Json,
    /// One value.
    Text,
    /// JSON, a line each.
    Ndjson,
    Csv(Cells),
    Senml,
    Cbor,
    MsgPack,
}

/// What `each` is where lines, rows or records are the elements.
pub(in super::super) const MANY: &str = "[*]";

impl Format {
    /// Reads `format`, and what belongs to it.
    pub(in super::super) fn read(keys: &mut Keys<'_, '_>) -> Self {
        let name = keys.text("format").unwrap_or("json");
        let cells = Cells::read(keys, name == "csv");
        match name {
            "json" => Self::Json,
            "text" => Self::Text,
            "ndjson" => Self::Ndjson,
            "csv" => Self::Csv(cells),
            "senml" => Self::Senml,
            "cbor" => Self::Cbor,
            "msgpack" => Self::MsgPack,
            other => {
                keys.mistake(format_args!(
                    "format: expected json, text, ndjson, csv, senml, cbor or msgpack, found \"{other}\""
                ));
                Self::Json
            }
        }
    }

    /// Whether a message is one value, without paths.
    pub(in super::super) fn is_text(&self) -> bool {
        matches!(self, Self::Text)
    }

    pub(in super::super) fn is_senml(&self) -> bool {
        matches!(self, Self::Senml)
    }

    /// What the elements are, if a message of this format always has them.
    pub(in super::super) fn elements(&self) -> Option<&'static str> {
        match self {
            Self::Ndjson => Some("lines"),
            Self::Csv(_) => Some("rows"),
            Self::Senml => Some("records"),
            Self::Json | Self::Text | Self::Cbor | Self::MsgPack => None,
        }
    }
}
