//! Medians, quartiles and tails.

use std::fmt;

/// What some measurements come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) min: f64,
    pub(super) first: f64,
    pub(super) median: f64,
    pub(super) third: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Summary {
    /// Interpolates linearly between neighbours. `None` for no measurements.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let quantile = |q: f64| {
            let at = q * last as f64;
            let (low, part) = (at.floor() as usize, at.fract());
            values[low] + part * (values[(low + 1).min(last)] - values[low])
        };
        Some(Self {
            count: values.len(),
            min: values[0],
            first: quantile(0.25),
            median: quantile(0.5),
            third: quantile(0.75),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: values[last],
        })
    }
}

/// The median and the quartiles.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        write!(
            f,
            "{:.precision$}  (quartiles {:.precision$} to {:.precision$})",
            self.median, self.first, self.third
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn quartiles_of_few_and_many() {
        assert_eq!(Summary::of([]), None);
        let one = Summary::of([3.0]).unwrap();
        assert_eq!((one.first, one.median, one.third), (3.0, 3.0, 3.0));
        assert_eq!((one.min, one.p95, one.p99, one.max), (3.0, 3.0, 3.0, 3.0));
        let five = Summary::of([5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((five.first, five.median, five.third), (2.0, 3.0, 4.0));
        assert_eq!((five.count, five.min, five.max), (5, 1.0, 5.0));
        let four = Summary::of([1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(four.median, 2.5);
        assert_eq!(format!("{four:.1}"), "2.5  (quartiles 1.8 to 3.2)");
    }

    #[test]
    fn tails_of_a_hundred() {
        let hundred = Summary::of((0..=100).map(f64::from)).unwrap();
        assert_eq!((hundred.p95, hundred.p99), (95.0, 99.0));
        let outlier = Summary::of((0..101).map(|n| if n == 100 { 1000.0 } else { 1.0 })).unwrap();
        assert_eq!((outlier.median, outlier.p99, outlier.max), (1.0, 1.0, 1000.0));
    }
}
