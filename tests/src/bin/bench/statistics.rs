//! Percentiles of samples.

/// Returns the wanted percentiles by nearest rank; zeros if there are no values.
pub(crate) fn percentiles<const N: usize>(mut values: Vec<u32>, wanted: [f64; N]) -> [u32; N] {
    values.sort_unstable();
    wanted.map(|percent| {
        let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_values_of_nearest_rank() {
        let values = (1..=200).rev().collect();
        assert_eq!(percentiles(values, [50.0, 99.0, 100.0]), [100, 198, 200]);
        assert_eq!(percentiles(Vec::new(), [50.0]), [0]);
    }
}
