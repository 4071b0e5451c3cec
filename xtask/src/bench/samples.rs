//! What a benchmark measured: one row per round, one column per thing measured; and how it is shown and kept.
//!
//! ```text
//! round ─► row ─► Samples ─┬─► table (standard output)
//!                          ├─► NAME.csv, one line per round
//!                          └─► NAME.svg, one box per column
//! ```

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::plot::{Plot, Scale};
use super::statistics::Summary;

/// What the numbers of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Mebibytes,
    /// How many of something.
    Count,
    /// Of two columns, round by round.
    Ratio,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Count => "",
            Self::Ratio => "×",
        }
    }

    /// Digits after the point that still mean something.
    const fn precision(self) -> usize {
        match self {
            Self::Milliseconds | Self::Mebibytes | Self::Count => 1,
            Self::Ratio => 2,
        }
    }
}

#[derive(Debug)]
struct Column {
    name: String,
    unit: Unit,
    values: Vec<f64>,
}

/// All rounds of one benchmark.
#[derive(Debug)]
pub(super) struct Samples {
    name: &'static str,
    title: String,
    columns: Vec<Column>,
}

impl Samples {
    /// None yet. `name` is that of the files.
    pub(super) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self {
            name,
            title: title.into(),
            columns: Vec::new(),
        }
    }

    /// Adds a number to a column, which is made where there is none of that name.
    pub(super) fn add(&mut self, name: &str, unit: Unit, value: f64) {
        match self.columns.iter_mut().find(|column| column.name == name) {
            Some(column) => column.values.push(value),
            None => self.columns.push(Column {
                name: name.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    pub(super) fn milliseconds(&mut self, name: &str, value: f64) {
        self.add(name, Unit::Milliseconds, value);
    }

    /// Adds a column of the ratios, round by round. Nothing where one of the two was not measured.
    pub(super) fn ratio(&mut self, name: &str, numerator: &str, denominator: &str) {
        let ratios: Vec<f64> = self
            .values(numerator)
            .iter()
            .zip(self.values(denominator))
            .map(|(one, other)| one / other)
            .collect();
        for ratio in ratios {
            self.add(name, Unit::Ratio, ratio);
        }
    }

    /// A column's numbers; none where there is no such column.
    pub(super) fn values(&self, name: &str) -> &[f64] {
        let column = self.columns.iter().find(|column| column.name == name);
        column.map_or(&[], |column| &column.values)
    }

    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.values(name).last().copied()
    }

    pub(super) fn table(&self) -> String {
        let width = self.columns.iter().map(|column| column.name.chars().count());
        let width = width.max().unwrap_or_default();
        let mut text = format!(
            "{}\n{:<width$}  {:>4} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            self.title, "", "unit", "n", "min", "quartile", "median", "quartile", "p95", "p99", "max"
        );
        for column in &self.columns {
            let Some(s) = Summary::of(column.values.iter().copied()) else {
                continue;
            };
            let p = column.unit.precision();
            text += &format!(
                "{:<width$}  {:>4} {:>6} {:>9.p$} {:>9.p$} {:>9.p$} {:>9.p$} {:>9.p$} {:>9.p$} {:>9.p$}\n",
                column.name,
                column.unit.name(),
                s.count,
                s.min,
                s.first,
                s.median,
                s.third,
                s.p95,
                s.p99,
                s.max
            );
        }
        text
    }

    fn csv(&self) -> String {
        let names = self
            .columns
            .iter()
            .map(|column| quoted(&format!("{} ({})", column.name, column.unit.name())));
        let mut text = names.collect::<Vec<_>>().join(",") + "\n";
        let rows = self.columns.iter().map(|column| column.values.len()).max();
        for row in 0..rows.unwrap_or_default() {
            let cells = self.columns.iter().map(|column| {
                let value = column.values.get(row);
                value.map_or_else(String::new, |value| format!("{value:.3}"))
            });
            text += &(cells.collect::<Vec<_>>().join(",") + "\n");
        }
        text
    }

    fn plot(&self) -> Plot<'_> {
        let mut plot = Plot::new(&self.title);
        for unit in [Unit::Milliseconds, Unit::Mebibytes, Unit::Count, Unit::Ratio] {
            let columns = self.columns.iter().filter(|column| column.unit == unit);
            let boxes: Vec<_> = columns
                .map(|column| (column.name.as_str(), column.values.as_slice()))
                .collect();
            plot.panel(unit.name(), Scale::fitting(&boxes), boxes);
        }
        plot
    }

    /// Prints the table, and writes both files into `out`.
    pub(super) fn publish(&self, out: &Path) -> anyhow::Result<()> {
        print!("{}", self.table());
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        for (extension, text) in [("csv", self.csv()), ("svg", self.plot().to_string())] {
            let path = out.join(self.name).with_extension(extension);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
        }
        Ok(())
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let mut samples = Samples::new("try", "A try");
        for (ours, floor) in [(12.0, 10.0), (11.0, 10.0), (30.0, 20.0)] {
            samples.milliseconds("ours, all of it", ours);
            samples.milliseconds("floor", floor);
        }
        samples.ratio("ours ÷ floor", "ours, all of it", "floor");
        samples
    }

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        let samples = samples();
        assert_eq!(samples.values("ours ÷ floor"), [1.2, 1.1, 1.5]);
        assert_eq!(samples.last("floor"), Some(20.0));
        let table = samples.table();
        assert!(table.contains("ours ÷ floor"), "{table}");
        let line = table
            .lines()
            .find(|line| line.starts_with("ours ÷ floor"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().skip(3).collect();
        assert_eq!(
            words,
            ["×", "3", "1.10", "1.15", "1.20", "1.35", "1.47", "1.49", "1.50"]
        );
    }

    #[test]
    fn a_line_per_round() {
        assert_eq!(
            samples().csv(),
            "\"ours, all of it (ms)\",floor (ms),ours ÷ floor (×)\n12.000,10.000,1.200\n11.000,10.000,1.100\n\
             30.000,20.000,1.500\n"
        );
    }
}
