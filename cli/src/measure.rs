//! Latencies of puts and gets, and how they are told.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency told apart: ten minutes, in microseconds.
const LONGEST: u64 = 600_000_000;

/// Operations of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    micros: Histogram<u64>,
    pub(crate) errors: u64,
    /// The first error's words: one is enough to know where to look.
    pub(crate) first_error: Option<String>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let micros = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that a histogram can have");
        Self { micros, errors: 0, first_error: None }
    }

    /// Counts one operation. A failed one counts as an error and has no latency.
    pub(crate) fn add(&mut self, result: Result<(), String>, latency: Duration) {
        match result {
            Ok(()) => self.micros.saturating_record((latency.as_nanos() / 1_000).max(1) as u64),
            Err(e) => {
                self.errors += 1;
                self.first_error.get_or_insert(e);
            }
        }
    }

    /// Both together.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.micros.add(&other.micros).expect("histograms of the same bounds");
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }

    /// Operations that succeeded.
    pub(crate) fn ops(&self) -> u64 {
        self.micros.len()
    }

    fn at(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
    }

    /// For programs.
    pub(crate) fn to_json(&self, seconds: f64) -> Value {
        json!({
            "ops": self.ops(),
            "seconds": (seconds * 1e3).round() / 1e3,
            "ops_per_s": (self.ops() as f64 / seconds.max(1e-9)).round(),
            "p50_ms": self.at(0.5),
            "p99_ms": self.at(0.99),
            "p999_ms": self.at(0.999),
            "max_ms": self.micros.max() as f64 / 1e3,
            "errors": self.errors,
        })
    }

    /// A row of the table for people, under [`HEAD`].
    pub(crate) fn row(&self, name: &str, seconds: f64) -> Vec<String> {
        let ms = |value: f64| format!("{value:.2}");
        vec![
            name.to_string(),
            self.ops().to_string(),
            format!("{:.0}", self.ops() as f64 / seconds.max(1e-9)),
            ms(self.at(0.5)),
            ms(self.at(0.99)),
            ms(self.at(0.999)),
            ms(self.micros.max() as f64 / 1e3),
            self.errors.to_string(),
        ]
    }
}

/// What the columns of [`Measured::row`] are.
pub(crate) const HEAD: [&str; 8] = ["", "OPS", "OPS/S", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS", "ERRORS"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_apart_and_the_first_is_kept() {
        let mut measured = Measured::new();
        for ms in 1..=100 {
            measured.add(Ok(()), Duration::from_millis(ms));
        }
        measured.add(Err("first".to_string()), Duration::from_secs(2));
        let mut other = Measured::new();
        other.add(Err("second".to_string()), Duration::from_secs(2));
        measured.merge(&other);
        assert_eq!((measured.ops(), measured.errors), (100, 2));
        assert_eq!(measured.first_error.as_deref(), Some("first"));
        let json = measured.to_json(10.0);
        assert_eq!(json["ops_per_s"], 10.0);
        let p50 = json["p50_ms"].as_f64().expect("a number");
        assert!((49.0..=51.5).contains(&p50), "{p50}");
    }
}
