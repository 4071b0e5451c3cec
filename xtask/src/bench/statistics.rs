//! Medians and quartiles.

use std::fmt;

/// The quartiles of some measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quartiles {
    pub(super) first: f64,
    pub(super) median: f64,
    pub(super) third: f64,
}

impl Quartiles {
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
            first: quantile(0.25),
            median: quantile(0.5),
            third: quantile(0.75),
        })
    }
}

impl fmt::Display for Quartiles {
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
    use super::Quartiles;

    #[test]
    fn quartiles_of_few_and_many() {
        assert_eq!(Quartiles::of([]), None);
        let one = Quartiles::of([3.0]).unwrap();
        assert_eq!((one.first, one.median, one.third), (3.0, 3.0, 3.0));
        let five = Quartiles::of([5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((five.first, five.median, five.third), (2.0, 3.0, 4.0));
        let four = Quartiles::of([1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(four.median, 2.5);
        assert_eq!(format!("{four:.1}"), "2.5  (quartiles 1.8 to 3.2)");
    }
}
