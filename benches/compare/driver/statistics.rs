//! Medians, and how far to trust a ratio.

use fastrand::Rng;

/// Resamples of one bootstrap: the ends of the interval move by less than their last shown digit.
const RESAMPLES: usize = 10_000;
/// The same numbers give the same interval in every run.
const SEED: u64 = 7;

/// A median and the 95 % interval around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// The middle one; of an even number, the mean of the middle two. Nothing of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted.get(middle).copied(),
        _ => Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0),
    }
}

/// Median of the rounds' ratios, with the percentile bootstrap's interval.
pub fn ratio(own: &[f64], other: &[f64]) -> Option<Interval> {
    let ratios: Vec<f64> = own
        .iter()
        .zip(other)
        .filter(|(_, other)| **other > 0.0)
        .map(|(own, other)| own / other)
        .collect();
    let median_of_all = median(&ratios)?;
    let mut random = Rng::with_seed(SEED);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let resample: Vec<f64> = ratios
                .iter()
                .filter_map(|_| random.choice(&ratios).copied())
                .collect();
            median(&resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Interval {
        low: *medians.get(RESAMPLES * 25 / 1000)?,
        median: median_of_all,
        high: *medians.get(RESAMPLES * 975 / 1000)?,
    })
}
