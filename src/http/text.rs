//! The form of metrics: Prometheus' text, version 0.0.4.

use std::fmt::{Display, Write};

use ennead_ring::counts::Histogram;

/// Buckets that are told: 64 microseconds to 67 seconds. What is below or above is in the first, or in `+Inf`.
const TOLD: std::ops::RangeInclusive<usize> = 5..=25;

/// Labels with their values; values from fixed lists, or names of members.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Metrics as they are told, family by family.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help).sample(name, &[], value);
    }

    /// A number that only rises, until the machine, or its core loop, begins anew.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help).sample(name, &[], value);
    }

    /// Begins a family of samples, which follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// One sample of the family begun last.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
        self
    }

    /// Durations: the buckets' bounds in seconds.
    pub(super) fn seconds(&mut self, name: &str, labels: Labels<'_>, micros: &Histogram, sum: f64) {
        self.buckets(name, labels, micros, sum, |i| 2f64.powi(i as i32 + 1) / 1e6, TOLD);
    }

    /// Sizes: the buckets' bounds as they are.
    pub(super) fn sizes(&mut self, name: &str, labels: Labels<'_>, sizes: &Histogram, sum: f64) {
        self.buckets(name, labels, sizes, sum, |i| 2f64.powi(i as i32 + 1) - 1.0, 0..=12);
    }

    fn buckets(
        &mut self,
        name: &str,
        labels: Labels<'_>,
        histogram: &Histogram,
        sum: f64,
        bound: impl Fn(usize) -> f64,
        told: std::ops::RangeInclusive<usize>,
    ) {
        let bucket = format!("{name}_bucket");
        for i in told {
            let below: u64 = histogram[..=i].iter().sum();
            let le = bound(i).to_string();
            self.sample(&bucket, &[labels, &[("le", &le)]].concat(), below);
        }
        let all: u64 = histogram.iter().sum();
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), all);
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, all);
    }

    pub(super) fn done(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_look_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.gauge("ennead_epoch", "The newest view's number.", 7);
        text.family("ennead_refusals_total", "counter", "Connections refused.");
        text.sample("ennead_refusals_total", &[("reason", "a \"b\"\\\n")], 2);
        let expected = "# HELP ennead_epoch The newest view's number.\n# TYPE ennead_epoch gauge\nennead_epoch 7\n\
            # HELP ennead_refusals_total Connections refused.\n# TYPE ennead_refusals_total counter\n\
            ennead_refusals_total{reason=\"a \\\"b\\\"\\\\\\n\"} 2\n";
        assert_eq!(text.done(), expected);
    }

    #[test]
    fn buckets_add_up_to_what_is_below_each_bound() {
        let mut histogram = Histogram::default();
        (histogram[0], histogram[7], histogram[31]) = (2, 3, 1);
        let mut text = Text::default();
        text.seconds("d", &[("phase", "fsync")], &histogram, 0.5);
        let text = text.done();
        let expected = [
            "d_bucket{phase=\"fsync\",le=\"0.000064\"} 2",
            "d_bucket{phase=\"fsync\",le=\"0.000128\"} 2",
            "d_bucket{phase=\"fsync\",le=\"0.000256\"} 5",
            "d_bucket{phase=\"fsync\",le=\"67.108864\"} 5",
            "d_bucket{phase=\"fsync\",le=\"+Inf\"} 6",
            "d_sum{phase=\"fsync\"} 0.5",
            "d_count{phase=\"fsync\"} 6",
        ];
        for line in expected {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
