//! Tables of counts: whether two names of each thing have to do with each other, and how much.
//!
//! Owns the measures, not what is counted. Upstream: the number of things for each row and column.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// What a table of counts says about its rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Association {
    /// Share of the rows' entropy that the columns tell, 0 to 1: Theil's uncertainty coefficient
    /// (1972). Less the mean of what it is by chance (Miller 1955, "Note on the bias of information
    /// estimates").
    pub(crate) information: f64,
    /// Cramér's V, 0 to 1, less its mean by chance (Bergsma 2013, "A bias-correction for Cramér's V
    /// and Tschuprow's T").
    pub(crate) cramers_v: f64,
    /// The p-value of the G-test: the chance of as much information if there is none.
    pub(crate) p: f64,
}

/// The association of a table with `columns` columns, row by row. None if fewer than two rows or
/// fewer than two columns have counts.
pub(crate) fn association(counts: &[u64], columns: usize) -> Option<Association> {
    let mut column_sums = vec![0_u64; columns];
    let row_sums: Vec<u64> = counts
        .chunks_exact(columns)
        .map(|row| {
            for (sum, count) in column_sums.iter_mut().zip(row) {
                *sum += count;
            }
            row.iter().sum()
        })
        .collect();
    let used = |sums: &[u64]| sums.iter().filter(|sum| **sum > 0).count();
    let (rows_used, columns_used) = (used(&row_sums), used(&column_sums));
    if rows_used < 2 || columns_used < 2 {
        return None;
    }
    let total = row_sums.iter().sum::<u64>() as f64;
    let (mut information, mut chi_square, mut cells) = (0.0, 0.0, 0_usize);
    for (row, &row_sum) in counts.chunks_exact(columns).zip(&row_sums) {
        for (&count, &column_sum) in row.iter().zip(&column_sums) {
            if count > 0 {
                let (count, expected) = (count as f64, row_sum as f64 * column_sum as f64 / total);
                information += count / total * (count / expected).ln();
                chi_square += count * count / expected;
                cells += 1;
            }
        }
    }
    // The sum of (count − expected)² / expected.
    let chi_square = (chi_square - total).max(0.0);
    let entropy: f64 = row_sums
        .iter()
        .filter(|sum| **sum > 0)
        .map(|sum| *sum as f64 / total)
        .map(|share| -share * share.ln())
        .sum();
    let (rows, columns) = (rows_used as f64, columns_used as f64);
    let freedom = (rows - 1.0) * (columns - 1.0);
    let by_chance = (cells as f64 - rows - columns + 1.0) / (2.0 * total);
    let spread = ChiSquared::new(freedom).expect("the table has two rows and two columns");
    Some(Association {
        information: ((information - by_chance) / entropy).clamp(0.0, 1.0),
        cramers_v: cramers_v(chi_square / total, total, rows, columns),
        p: spread.sf((2.0 * total * information).max(0.0)).clamp(0.0, 1.0),
    })
}

/// Bergsma's correction of V. `squared` is φ², chi-square over the total.
fn cramers_v(squared: f64, total: f64, rows: f64, columns: f64) -> f64 {
    let (less_rows, less_columns) = (rows - 1.0, columns - 1.0);
    let last = (total - 1.0).max(1.0);
    let corrected = (squared - less_rows * less_columns / last).max(0.0);
    let side = |side: f64, less: f64| side - less * less / last;
    let smaller = side(rows, less_rows).min(side(columns, less_columns)) - 1.0;
    if smaller > 0.0 { (corrected / smaller).sqrt().min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From scipy 1.17.1:
    /// `scipy.stats.chi2_contingency([[10, 20, 30], [25, 20, 5]], lambda_="log-likelihood").pvalue`
    #[test]
    fn the_g_test_is_that_of_scipy() {
        let found = association(&[10, 20, 30, 25, 20, 5], 3).unwrap();
        assert!((found.p - 2.840_239_241_267_206_6e-6).abs() < 1e-15, "{}", found.p);
    }

    #[test]
    fn equal_names_tell_everything_and_independent_ones_nothing() {
        let same = association(&[500, 0, 0, 500], 2).unwrap();
        assert!(same.information > 0.999 && same.cramers_v > 0.998 && same.p < 1e-100, "{same:?}");
        let apart = association(&[250, 250, 250, 250], 2).unwrap();
        assert_eq!((apart.information, apart.cramers_v, apart.p), (0.0, 0.0, 1.0));
        assert_eq!(association(&[5, 5], 2), None);
        assert_eq!(association(&[5, 0, 5, 0], 2), None);
    }
}
