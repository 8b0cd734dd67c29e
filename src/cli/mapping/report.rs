//! What is said of a message, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::intake::fitting;
use crate::telemetry::Reading;
use crate::telemetry::mapping::{Explained, Mapped, MappedReading};
use crate::telemetry::rejection::Rejection;

/// What became of a message.
pub(super) struct Report<'s> {
    topic: &'s str,
    /// Whose it is.
    pub(super) mapping: Option<String>,
    /// The mappings that did not take it, and why.
    pub(super) refused: Vec<(String, String)>,
    /// Paths that nothing looks at.
    pub(super) ignored: Vec<String>,
    readings: Vec<Row>,
    outcome: &'static str,
    /// Why nothing of it is stored.
    why: Option<String>,
}

/// A reading, or why there is none.
struct Row {
    index: Option<usize>,
    outcome: Result<Value, Rejection>,
    table: String,
    sources: Vec<(String, String)>,
}

impl<'s> Report<'s> {
    pub(super) fn new(topic: &'s str) -> Self {
        let outcome = "stored";
        let (mapping, refused, ignored, readings, why) =
            (None, Vec::new(), Vec::new(), Vec::new(), None);
        Self { topic, mapping, refused, ignored, readings, outcome, why }
    }

    /// Whether all of it would be stored.
    pub(super) fn is_stored(&self) -> bool {
        self.outcome == "stored"
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.outcome = "rejected";
        self.why = Some(why.to_owned());
    }

    pub(super) fn ignore(&mut self, why: &str) {
        self.outcome = "ignored";
        self.why = Some(why.to_owned());
    }

    /// Adds what a mapping has made.
    pub(super) fn reading(&mut self, Explained { index, outcome, sources }: Explained) {
        // What the log would not take is no row, whoever has made it.
        let outcome = outcome.and_then(|mapped| {
            fitting(mapped.reading.clone().into())?;
            Ok(mapped)
        });
        let table = outcome
            .as_ref()
            .map_or_else(|_| String::new(), |mapped: &Mapped| mapped.reading.table.name.clone());
        self.row(Row {
            index,
            outcome: outcome.map(|mapped| json!(mapped.reading)),
            table,
            sources,
        });
    }

    /// Adds what says itself where it belongs.
    pub(super) fn stored(&mut self, reading: &MappedReading) {
        let table = reading.table.name.clone();
        self.row(Row { index: None, outcome: Ok(json!(reading)), table, sources: Vec::new() });
    }

    /// Adds what the built-in shape has made.
    pub(super) fn built_in(&mut self, outcome: Result<Reading, Rejection>) {
        let table = "telemetry".to_owned();
        let outcome = outcome.map(|reading| json!(reading));
        self.row(Row { index: None, outcome, table, sources: Vec::new() });
    }

    fn row(&mut self, row: Row) {
        if row.outcome.is_err() {
            self.outcome = "rejected";
        }
        self.readings.push(row);
    }

    pub(super) fn json(&self) -> String {
        let refused: Vec<Value> = self
            .refused
            .iter()
            .map(|(name, why)| json!({"mapping": name, "reason": why}))
            .collect();
        let readings: Vec<Value> = self.readings.iter().map(Row::json).collect();
        let whole = json!({
            "topic": self.topic,
            "outcome": self.outcome,
            "mapping": self.mapping,
            "reason": self.why,
            "not_taken_by": refused,
            "readings": readings,
            "ignored": self.ignored,
        });
        format!("{whole}\n")
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.topic);
        // Writing to a string does not fail.
        for (name, why) in &self.refused {
            writeln!(text, "  not {name}: {why}").ok();
        }
        if let Some(mapping) = &self.mapping {
            writeln!(text, "  mapping {mapping}").ok();
        }
        if let Some(why) = &self.why {
            writeln!(text, "  {}: {why}", self.outcome).ok();
        }
        for row in &self.readings {
            row.write(&mut text);
        }
        if !self.ignored.is_empty() {
            writeln!(text, "  not looked at: {}", self.ignored.join(", ")).ok();
        }
        text
    }
}

impl Row {
    fn json(&self) -> Value {
        let sources: serde_json::Map<String, Value> =
            self.sources.iter().map(|(name, from)| (name.clone(), json!(from))).collect();
        match &self.outcome {
            Ok(row) => json!({
                "element": self.index,
                "outcome": "stored",
                "table": self.table,
                "row": row,
                "from": sources,
            }),
            Err(rejection) => json!({
                "element": self.index,
                "outcome": "rejected",
                "stage": rejection.reason.stage().as_str(),
                "rule": rejection.reason.as_str(),
                "reason": rejection.message,
            }),
        }
    }

    fn write(&self, text: &mut String) {
        let element = self.index.map_or_else(String::new, |at| format!(" (element {at})"));
        // Writing to a string does not fail.
        match &self.outcome {
            Err(rejection) => {
                writeln!(text, "  rejected{element}: {rejection}").ok();
            }
            Ok(row) => {
                writeln!(text, "  a row of {}{element}", self.table).ok();
                for (name, value) in row.as_object().into_iter().flatten() {
                    if name == "table" {
                        continue;
                    }
                    let from = self.sources.iter().find(|(column, _)| column == name);
                    let from = from.map_or_else(String::new, |(_, from)| format!("   from {from}"));
                    writeln!(text, "    {name} = {value}{from}").ok();
                }
            }
        }
    }
}
