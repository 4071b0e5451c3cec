//! A scarce budget between keys: weighted max-min fairness.

/// What one key asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// Relative to the others'.
    pub(super) weight: f64,
    /// Bytes of one.
    pub(super) cost: u64,
    /// Served before anybody gets more than that.
    pub(super) min: usize,
    /// In all.
    pub(super) want: usize,
}

/// How many each claim gets, in order; `left` is reduced by what they take.
///
/// Whoever has the fewest bytes for its weight is next, one VM at a time, until it has what it wants or the next one does not
/// fit. So what one key does not want the others may have, nobody gets a second one before everybody could have the first, and
/// what one gives up raises the poorest.
pub(super) fn share(left: &mut u64, claims: &[Claim]) -> Vec<usize> {
    let mut shares = vec![0; claims.len()];
    raise(left, claims, &mut shares, |claim| claim.min.min(claim.want));
    raise(left, claims, &mut shares, |claim| claim.want);
    shares
}

fn raise(left: &mut u64, claims: &[Claim], shares: &mut [usize], up_to: impl Fn(&Claim) -> usize) {
    let poorest = |left: u64, shares: &[usize]| {
        let wealth = |n: usize| shares[n] as f64 * claims[n].cost as f64 / claims[n].weight;
        (0..claims.len())
            .filter(|&n| shares[n] < up_to(&claims[n]) && claims[n].cost <= left)
            .min_by(|&a, &b| wealth(a).total_cmp(&wealth(b)))
    };
    while let Some(next) = poorest(*left, shares) {
        shares[next] += 1;
        *left -= claims[next].cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(weight: f64, cost: u64, min: usize, want: usize) -> Claim {
        Claim {
            weight,
            cost,
            min,
            want,
        }
    }

    #[track_caller]
    fn check(mut budget: u64, claims: &[Claim], expected: &[usize], left: u64) {
        assert_eq!(share(&mut budget, claims), expected);
        assert_eq!(budget, left);
    }

    #[test]
    fn equals_get_equal_parts() {
        check(60, &[claim(1.0, 10, 0, 9), claim(1.0, 10, 0, 9)], &[3, 3], 0);
    }

    #[test]
    fn what_one_does_not_want_the_other_may_have() {
        check(60, &[claim(1.0, 10, 0, 9), claim(1.0, 10, 0, 1)], &[5, 1], 0);
    }

    #[test]
    fn weight_and_size_count() {
        check(60, &[claim(2.0, 10, 0, 9), claim(1.0, 10, 0, 9)], &[4, 2], 0);
        check(60, &[claim(1.0, 20, 0, 9), claim(1.0, 5, 0, 99)], &[2, 4], 0);
    }

    #[test]
    fn minima_come_first() {
        check(60, &[claim(9.0, 10, 0, 9), claim(1.0, 10, 4, 9)], &[2, 4], 0);
        check(30, &[claim(1.0, 10, 2, 2), claim(1.0, 10, 2, 2)], &[2, 1], 0);
    }

    #[test]
    fn what_does_not_fit_leaves_room_for_what_does() {
        check(25, &[claim(1.0, 30, 1, 1), claim(1.0, 10, 0, 9)], &[0, 2], 5);
    }
}
