//! A run as comma-separated values.

use std::fmt::Write as _;

use super::{Bench, Rates};

impl Bench {
    /// The results as comma-separated values, a line each below a line of names.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "backend,kernel,device,threads,version_rolling,verified,hashes_per_second_median,\
             hashes_per_second_min,hashes_per_second_max,samples,joules_per_gigahash,watts,\
             hashes_per_second_mean,hashes_per_second_lower_quartile,\
             hashes_per_second_upper_quartile,to_reference,cycles_per_hash,share_of_limit,outliers,\
             index,hashes_per_second_undisturbed\n",
        );
        for row in &self.results {
            let Rates {
                median,
                min,
                max,
                samples,
                mean,
                lower_quartile,
                upper_quartile,
                undisturbed,
            } = row.hashes_per_second;
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{median},{min},{max},{samples},{},{},{mean},{lower_quartile},\
                 {upper_quartile},{},{},{},{},{},{}",
                row.backend,
                quoted(&row.kernel),
                quoted(&row.device),
                row.threads,
                row.version_rolling,
                row.verified,
                number(row.joules_per_gigahash),
                number(row.watts),
                number(row.to_reference),
                number(row.cycles_per_hash),
                number(row.share_of_limit),
                row.outliers.len(),
                row.index.map_or_else(String::new, |index| index.to_string()),
                number(undisturbed),
            );
        }
        text
    }
}

/// A value as it stands between commas (RFC 4180).
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}
