//! The table at the end, and the figures behind it.

use serde_json::{Value, json};

use crate::machine;
use crate::plan::Plan;

/// What has to hold.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// A line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) value: f64,
    /// With a space before it, if it wants one.
    pub(crate) unit: &'static str,
    pub(crate) bar: Option<Bar>,
    /// What went into it, for a person.
    pub(crate) detail: String,
}

impl Row {
    pub(crate) fn holds(&self) -> bool {
        self.bar.is_none_or(|bar| match bar {
            Bar::AtLeast(least) => self.value >= least,
            Bar::AtMost(most) => self.value <= most,
        })
    }

    fn bar_text(&self) -> String {
        match self.bar {
            Some(Bar::AtLeast(least)) => format!("≥ {}{}", figure(least), self.unit),
            Some(Bar::AtMost(most)) => format!("≤ {}{}", figure(most), self.unit),
            None => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.bar {
            None => "",
            Some(_) if self.holds() => "yes",
            Some(_) => "**no**",
        }
    }
}

/// What a measurement has found.
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// Every figure of every round.
    pub(crate) figures: Value,
}

impl Findings {
    pub(crate) fn save(&self, name: &str, plan: &Plan) {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "value": row.value, "unit": row.unit.trim(),
                    "bar": row.bar_text(), "holds": row.holds(), "detail": row.detail,
                })
            })
            .collect();
        let all = json!({
            "machine": machine::describe(), "rounds": plan.rounds, "rows": rows,
            "figures": self.figures,
        });
        let text = serde_json::to_string_pretty(&all).unwrap();
        std::fs::write(plan.out.join(format!("{name}.json")), text).unwrap();
    }
}

/// In Markdown, so that it can go into the README as it is.
pub(crate) fn print(rows: &[(&str, Row)]) {
    println!("\n| | measured | | bar | holds | |\n|---|---|---|---|---|---|");
    for (measurement, row) in rows {
        println!(
            "| {measurement} | {} | {}{} | {} | {} | {} |",
            row.what,
            figure(row.value),
            row.unit,
            row.bar_text(),
            row.verdict(),
            row.detail
        );
    }
    let (held, all) = (
        rows.iter().filter(|(_, row)| row.bar.is_some() && row.holds()).count(),
        rows.iter().filter(|(_, row)| row.bar.is_some()).count(),
    );
    println!("\n{held} of {all} bars hold.");
}

/// Three digits that matter.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => thousands(value),
        medium if medium >= 100.0 => format!("{value:.0}"),
        small if small >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(&sorted(values), 50.0)
}

pub(crate) fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of values in order: the smallest that `percent` of them do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index"
)]
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
