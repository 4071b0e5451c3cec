//! Box plots as SVG: panels one below the other, in each a line per series, its samples as dots and its quartiles as a box.

use std::fmt;

use super::statistics::Summary;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 260.0;
const MARGIN: f64 = 20.0;
const LINE: f64 = 26.0;
const HEAD: f64 = 34.0;
const AXIS: f64 = 34.0;

/// How a panel's numbers become places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// One that shows all of them: logarithmic where they span more than a factor of ten and are all positive.
    pub(super) fn fitting(series: &[(&str, &[f64])]) -> Self {
        let values = || series.iter().flat_map(|(_, values)| values.iter().copied());
        let (low, high) = values().fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > 0.0 && low.is_finite() && high / low > 10.0 {
            Self {
                low: 10_f64.powf(low.log10().floor()),
                high: 10_f64.powf(high.log10().ceil()),
                logarithmic: true,
            }
        } else {
            Self {
                low: 0.0,
                high: round_up(high),
                logarithmic: false,
            }
        }
    }

    /// In 0 to 1.
    fn place(self, value: f64) -> f64 {
        let at = if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        at.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        if self.logarithmic {
            let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
            decades.map(|decade| 10_f64.powi(decade)).collect()
        } else {
            (0..=5).map(|fifth| self.high * f64::from(fifth) / 5.0).collect()
        }
    }
}

/// The next of 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps
        .into_iter()
        .find(|step| step * decade >= value)
        .unwrap_or(10.0);
    step * decade
}

#[derive(Debug)]
struct Panel<'a> {
    unit: &'a str,
    scale: Scale,
    series: Vec<(&'a str, &'a [f64])>,
}

/// A title and panels. Displayed, it is an SVG document.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    title: &'a str,
    panels: Vec<Panel<'a>>,
}

impl<'a> Plot<'a> {
    pub(super) fn new(title: &'a str) -> Self {
        Self {
            title,
            panels: Vec::new(),
        }
    }

    /// Adds a panel, unless there is nothing in it.
    pub(super) fn panel(&mut self, unit: &'a str, scale: Scale, series: Vec<(&'a str, &'a [f64])>) {
        if !series.is_empty() {
            self.panels.push(Panel { unit, scale, series });
        }
    }
}

impl Panel<'_> {
    fn height(&self) -> f64 {
        LINE * self.series.len() as f64 + AXIS
    }

    fn x(&self, value: f64) -> f64 {
        LABELS + self.scale.place(value) * (WIDTH - LABELS - MARGIN)
    }

    fn draw(&self, top: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bottom = top + LINE * self.series.len() as f64;
        for tick in self.scale.ticks() {
            let x = self.x(tick);
            writeln!(
                f,
                r##"<line x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="#ddd"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#555">{} {}</text>"##,
                bottom + 14.0,
                number(tick),
                escaped(self.unit)
            )?;
        }
        for (index, (name, values)) in self.series.iter().enumerate() {
            let y = top + LINE * (index as f64 + 0.5);
            self.draw_series(name, values, y, f)?;
        }
        Ok(())
    }

    fn draw_series(&self, name: &str, values: &[f64], y: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LABELS - 10.0,
            y + 4.0,
            escaped(name)
        )?;
        for value in values {
            let x = self.x(*value);
            writeln!(
                f,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="2.2" fill="#4477aa" fill-opacity="0.35"/>"##
            )?;
        }
        let Some(summary) = Summary::of(values.iter().copied()) else {
            return Ok(());
        };
        let [first, median, third] =
            [summary.first, summary.median, summary.third].map(|value| self.x(value));
        writeln!(
            f,
            r##"<rect x="{first:.1}" y="{:.1}" width="{:.1}" height="14" fill="none" stroke="#222"/><line x1="{median:.1}" y1="{:.1}" x2="{median:.1}" y2="{:.1}" stroke="#cc3311" stroke-width="2"/>"##,
            y - 7.0,
            (third - first).max(0.5),
            y - 9.0,
            y + 9.0
        )
    }
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height: f64 = HEAD + self.panels.iter().map(Panel::height).sum::<f64>();
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(f, r#"<rect width="100%" height="100%" fill="white"/>"#)?;
        writeln!(
            f,
            r#"<text x="{MARGIN}" y="20" font-size="14" font-weight="bold">{}</text>"#,
            escaped(self.title)
        )?;
        let mut top = HEAD;
        for panel in &self.panels {
            panel.draw(top, f)?;
            top += panel.height();
        }
        writeln!(f, "</svg>")
    }
}

/// Without digits that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_all_and_is_logarithmic_where_they_span_much() {
        let near = Scale::fitting(&[("a", &[3.0, 4.0]), ("b", &[12.0])]);
        assert_eq!((near.high, near.logarithmic), (20.0, false));
        assert_eq!((near.place(0.0), near.place(10.0)), (0.0, 0.5));
        let far = Scale::fitting(&[("a", &[3.0]), ("b", &[700.0])]);
        assert_eq!(far.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((far.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert!(!Scale::fitting(&[("a", &[0.0, 5.0])]).logarithmic);
        assert_eq!(Scale::fitting(&[]).high, 1.0);
    }

    #[test]
    fn a_document_is_well_formed_as_far_as_can_be_seen() {
        let values = [1.0, 2.0, 30.0];
        let mut plot = Plot::new("a < b & c");
        plot.panel(
            "ms",
            Scale::fitting(&[("x", &values)]),
            vec![("x > y", &values), ("none", &[])],
        );
        plot.panel("MiB", Scale::fitting(&[]), Vec::new());
        let text = plot.to_string();
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"), "{text}");
        assert!(text.contains("a &lt; b &amp; c") && text.contains("x &gt; y"));
        assert_eq!(text.matches("<circle").count(), 3);
        assert!(!text.contains("NaN") && !text.contains("MiB"), "{text}");
    }
}
