//! Metrics as Prometheus reads them: its text exposition format.
//!
//! Names come from AWS's by one rule: words in lower case with underscores between them, `lambda_` before, the unit
//! after (milliseconds become seconds, Prometheus' own unit), and `_total` at the end of counters. Labels are the
//! dimensions by the same rule.

use std::fmt::Write as _;

use super::{Kind, Metric, Unit};

/// What the format calls itself.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A value and what tells it from the others of its metric, in the order of the labels.
pub type Sample = (Vec<String>, f64);

/// A metric that AWS does not have: under its own name here, with its own labels.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// The page, as it grows.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A metric of AWS, with a value for each of its dimensions' values.
    pub fn metric(&mut self, metric: &Metric, samples: &[Sample]) {
        let labels: Vec<String> = metric.level.dimensions().iter().map(|name| snake_case(name)).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let scale = if metric.unit == Unit::Milliseconds { 1_000.0 } else { 1.0 };
        self.family((&name(metric), metric.kind, metric.help), &labels, samples, scale);
    }

    pub fn own(&mut self, own: &Own, samples: &[Sample]) {
        self.family((own.name, own.kind, own.help), own.labels, samples, 1.0);
    }

    pub fn into_text(self) -> String {
        self.0
    }

    /// Nothing of a metric that has no value.
    fn family(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        labels: &[&str],
        samples: &[Sample],
        scale: f64,
    ) {
        if samples.is_empty() {
            return;
        }
        let out = &mut self.0;
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (values, value) in samples {
            debug_assert_eq!(values.len(), labels.len(), "{name}");
            let pairs: Vec<String> = labels
                .iter()
                .zip(values)
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(out, "{name}{labels} {}", value / scale);
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The name of a metric of AWS.
pub fn name(metric: &Metric) -> String {
    let unit = match metric.unit {
        Unit::Count => "",
        Unit::Percent => "_percent",
        Unit::Bytes => "_bytes",
        Unit::Milliseconds => "_seconds",
    };
    let total = if metric.kind == Kind::Counter { "_total" } else { "" };
    format!("lambda_{}{unit}{total}", snake_case(metric.name))
}

/// A word begins at a capital after a small letter, and at the last of several capitals before a small letter. One
/// letter is no word: `vCPUAvailable` is `vcpu_available`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 1 && !letters[at - 1].is_ascii_uppercase();
        let before_small = at > 1 && letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_small || before_small) {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::*;
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let names = [
            (ENVIRONMENT_CPU_UTILIZATION, "lambda_execution_environment_cpu_utilization_percent"),
            (VCPU_AVAILABLE, "lambda_vcpu_available"),
            (MEMORY_AVAILABLE, "lambda_memory_available_bytes"),
            (CPU_UTILIZATION, "lambda_cpu_utilization_percent"),
            (CPU_THROTTLES, "lambda_cpu_throttles_total"),
            (DURATION, "lambda_duration_seconds_total"),
            (ITERATOR_AGE, "lambda_iterator_age_seconds"),
        ];
        for (metric, expected) in names {
            assert_eq!(name(&metric), expected);
        }
        let labels: Vec<String> =
            Level::ExecutionEnvironment.dimensions().iter().map(|name| snake_case(name)).collect();
        assert_eq!(labels, ["capacity_provider_name", "function_name", "resource"]);
        let all: BTreeSet<String> = ALL.iter().map(name).collect();
        assert_eq!(all.len(), ALL.len(), "each has a name of its own");
    }

    #[test]
    fn the_text_is_escaped_and_a_metric_without_values_is_left_out() {
        let mut page = Exposition::default();
        page.metric(&INVOCATIONS, &[]);
        page.metric(&DURATION, &[(vec!["a\"b\\c\nd".into(), "f:1".into()], 1_500.0)]);
        page.own(
            &Own { name: "up", kind: Kind::Gauge, labels: &[], help: "Is it \\ so?\n" },
            &[(vec![], 1.0)],
        );
        assert_eq!(
            page.into_text(),
            "# HELP lambda_duration_seconds_total How long invocations took, all together.\n\
             # TYPE lambda_duration_seconds_total counter\n\
             lambda_duration_seconds_total{function_name=\"a\\\"b\\\\c\\nd\",resource=\"f:1\"} 1.5\n\
             # HELP up Is it \\\\ so?\\n\n# TYPE up gauge\nup 1\n"
        );
    }
}
