//! What the project sets out to reach, and whether it does.

use crate::comparison::{Comparison, around_the_image};
use crate::sizes::Sizes;
use crate::ways::{
    BSDTAR, BUSYBOX, GZIP, PLAIN_GZIP, PLAIN_ZSTD, PUBLISHED_GZIP, PUBLISHED_ZSTD, PUBLISHED_ZSTD_ALONE, ZSTD,
};

const MIB: f64 = 1024.0 * 1024.0;

/// Times as fast: way, against which, how many times at least.
const SPEEDS: [(&str, &str, f64); 8] = [
    (PLAIN_GZIP, GZIP, 4.0),
    (PLAIN_GZIP, BUSYBOX, 5.0),
    (PLAIN_GZIP, BSDTAR, 2.5),
    (PLAIN_ZSTD, ZSTD, 1.6),
    (PUBLISHED_ZSTD, GZIP, 6.5),
    (PUBLISHED_ZSTD, ZSTD, 2.0),
    (PUBLISHED_ZSTD, PUBLISHED_ZSTD_ALONE, 1.5),
    (PUBLISHED_GZIP, GZIP, 5.5),
];
/// Ways whose memory counts, and MiB at most.
const MEMORY: ([&str; 4], f64) = ([PLAIN_GZIP, PLAIN_ZSTD, PUBLISHED_GZIP, PUBLISHED_ZSTD], 16.0);
/// Percent of the wall time at most.
const VERIFICATION: f64 = 5.0;
/// Milliseconds at most.
const AROUND: f64 = 150.0;
/// MiB at most.
const INIT: f64 = 4.0;
/// MiB at most.
const INITRAMFS: f64 = 2.5;

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What is measured.
    pub what: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub measured: String,
    /// Whether that is enough.
    pub met: bool,
}

impl Target {
    fn at_least(what: String, wanted: f64, measured: f64) -> Self {
        let met = measured >= wanted;
        Self { what, wanted: format!("≥ {wanted:.1} times"), measured: format!("{measured:.2} times"), met }
    }

    fn at_most(what: String, wanted: f64, measured: f64, unit: &str) -> Self {
        let met = measured <= wanted;
        Self { what, wanted: format!("≤ {wanted:.1} {unit}"), measured: format!("{measured:.1} {unit}"), met }
    }
}

/// What one image's runs were to reach; `digest` is how long the sha256 of the published file takes alone.
pub fn of_comparison(comparison: &Comparison, digest: f64) -> Vec<Target> {
    let mut targets: Vec<Target> = SPEEDS
        .iter()
        .map(|(way, against, wanted)| {
            let what = format!("{} as fast as {}", plain(way), plain(against));
            Target::at_least(what, *wanted, comparison.speedup(way, against))
        })
        .collect();
    let (ways, most) = MEMORY;
    targets.extend(ways.iter().map(|way| {
        let peak = comparison.median(way, |run| run.peak_kib) / 1024.0;
        Target::at_most(format!("memory of {}", plain(way)), most, peak, "MiB")
    }));
    let percent = verification(comparison, digest);
    // A run without a record would have taken for ever.
    let around = comparison.median(PUBLISHED_ZSTD, |run| around_the_image(run).unwrap_or(f64::INFINITY)) * 1000.0;
    targets.push(Target::at_most("the agent's time around the image".to_owned(), AROUND, around, "ms"));
    targets.push(Target::at_most("sha256 of everything, share of the time".to_owned(), VERIFICATION, percent, "%"));
    targets
}

/// What was to be small.
pub fn of_sizes(sizes: Sizes) -> Vec<Target> {
    let mib = |bytes: u64| bytes as f64 / MIB;
    vec![
        Target::at_most("/init".to_owned(), INIT, mib(sizes.init), "MiB"),
        Target::at_most("initramfs without kernel modules".to_owned(), INITRAMFS, mib(sizes.initramfs), "MiB"),
    ]
}

/// Percent of a run's time that two workers, who share the work, spend on the digest.
pub fn verification(comparison: &Comparison, digest: f64) -> f64 {
    digest / 2.0 / comparison.median(PUBLISHED_ZSTD, |run| run.wall) * 100.0
}

/// A way's name without emphasis.
fn plain(name: &str) -> String {
    name.replace('*', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_is_enough() {
        assert!(Target::at_least(String::new(), 4.0, 4.0).met);
        assert!(!Target::at_least(String::new(), 4.0, 3.99).met);
        assert!(Target::at_most(String::new(), 4.0, 4.0, "MiB").met);
        assert!(!Target::at_most(String::new(), 4.0, 4.01, "MiB").met);
        let [init, _] = of_sizes(Sizes { init: 5 << 20, initramfs: 1 << 20 }).try_into().unwrap();
        assert_eq!((init.measured.as_str(), init.met), ("5.0 MiB", false));
    }
}
