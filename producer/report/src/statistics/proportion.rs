//! Shares of a whole, and how far the true share may lie from the one that was counted.

/// `part` of `whole`, 0 to 1; none if `whole` is 0.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The lower and upper end of Wilson's score interval at 95 % (Wilson 1927), which stays within 0
/// to 1. `share` is that of `count` things, at least 1.
pub(crate) fn wilson_interval(share: f64, count: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}
