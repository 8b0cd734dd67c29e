//! Pictures of the figures.

use std::path::Path;

use plotters::prelude::*;

use crate::report::{percentile, sorted};

const SIZE: (u32, u32) = (720, 400);
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
const FONT: (&str, u32) = ("sans-serif", 15);

/// Processor time a message in µs and the time to open the log in ms, each over what is pending.
pub(crate) fn backlog(path: &Path, cost: &[(u64, f64)], open: &[(u64, f64)]) {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    scaling(&left, "processor time a message, µs", cost, COLOURS[0]);
    scaling(&right, "opening the log, ms", open, COLOURS[1]);
    root.present().unwrap();
}

fn scaling(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    points: &[(u64, f64)],
    colour: RGBColor,
) {
    let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let deepest = points.iter().map(|(pending, _)| *pending).max().unwrap();
    let mut chart = ChartBuilder::on(area)
        .caption(caption, FONT)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(45)
        .build_cartesian_2d((5_000..deepest * 2).log_scale(), 0.0..(most * 1.3).max(1.0))
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("pending readings")
        .x_label_formatter(&|pending| format!("10{}", exponent(*pending)))
        .label_style(FONT)
        .draw()
        .unwrap();
    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2))).unwrap();
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled()))).unwrap();
}

/// Of a table, over its rows: processor time a row in µs, and bytes of PostgreSQL's log.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) is_thin: bool,
    pub(crate) points: Vec<(u64, f64, f64)>,
}

/// What a row costs, over the size of the table.
pub(crate) fn growth(path: &Path, lines: &[Line]) {
    let root = SVGBackend::new(path, (SIZE.0 * 4 / 3, SIZE.1)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (left, right) = root.split_horizontally(SIZE.0 * 2 / 3);
    let of = |which: fn(&(u64, f64, f64)) -> f64| -> Vec<Vec<(u64, f64)>> {
        let points = |line: &Line| line.points.iter().map(|at| (at.0, which(at))).collect();
        lines.iter().map(points).collect()
    };
    growing(&left, "PostgreSQL's processor time a row, µs", lines, &of(|at| at.1));
    growing(&right, "bytes of PostgreSQL's log a row", lines, &of(|at| at.2));
    root.present().unwrap();
}

fn growing(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    lines: &[Line],
    values: &[Vec<(u64, f64)>],
) {
    let all = || values.iter().flatten();
    let largest = all().map(|(_, value)| *value).fold(1.0, f64::max);
    let rows = all().map(|(rows, _)| *rows).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, FONT)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(55)
        .build_cartesian_2d(0..rows, 0.0..largest * 1.5)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .x_desc("rows of the table, millions")
        .x_label_formatter(&|rows| format!("{}", rows / 1_000_000))
        .label_style(FONT)
        .draw()
        .unwrap();
    for (at, (line, points)) in lines.iter().zip(values).enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let style = colour.stroke_width(if line.is_thin { 1 } else { 3 });
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))
            .unwrap()
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(TRANSPARENT)
        .label_font(("sans-serif", 12))
        .draw()
        .unwrap();
}

fn exponent(power_of_ten: u64) -> char {
    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][power_of_ten.ilog10() as usize % 10]
}

/// How many messages took how long, each series in a colour of its own.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of messages and of bins"
)]
pub(crate) fn latency(path: &Path, series: &[(&str, Vec<f64>)]) {
    const BIN_MS: f64 = 1.0;
    // What is beyond is in the table.
    let longest = series.iter().map(|(_, all)| percentile(&sorted(all.iter().copied()), 99.0));
    let longest = longest.fold(10.0, f64::max).ceil();
    let shares: Vec<Vec<f64>> = series
        .iter()
        .map(|(_, all)| {
            let mut bins = vec![0.0; (longest / BIN_MS) as usize + 1];
            for latency in all.iter().filter(|latency| **latency < longest) {
                bins[(latency / BIN_MS) as usize] += 100.0 / all.len() as f64;
            }
            bins
        })
        .collect();
    let most = shares.iter().flatten().copied().fold(0.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption("2,000 messages a second: from publish to …", FONT)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..longest, 0.0..most * 1.1)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("milliseconds")
        .y_desc("% of messages, a millisecond")
        .label_style(FONT)
        .draw()
        .unwrap();
    for (((name, _), bins), colour) in series.iter().zip(&shares).zip(COLOURS) {
        let bars = (0..).zip(bins).filter(|(_, share)| **share > 0.0).map(|(bin, share)| {
            let start = f64::from(bin) * BIN_MS;
            Rectangle::new([(start, 0.0), (start + BIN_MS, *share)], colour.mix(0.55).filled())
        });
        chart
            .draw_series(bars)
            .unwrap()
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(TRANSPARENT)
        .label_font(FONT)
        .draw()
        .unwrap();
    root.present().unwrap();
}
