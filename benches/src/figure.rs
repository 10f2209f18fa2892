//! One measured number, as a line of JSON: what a run of one workload prints, and all that the
//! comparison reads of it.

use serde::{Deserialize, Serialize};

/// What was measured of whom, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    #[serde(rename = "w")]
    pub(crate) workload: String,
    pub(crate) peer: String,
    pub(crate) case: String,
    pub(crate) metric: String,
    pub(crate) value: f64,
}

/// Prints figures of one workload and one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer<'a> {
    pub(crate) workload: &'a str,
    pub(crate) peer: &'a str,
}

impl Printer<'_> {
    pub(crate) fn emit(&self, case: &str, metric: &str, value: f64) {
        let figure = Figure {
            workload: self.workload.to_owned(),
            peer: self.peer.to_owned(),
            case: case.to_owned(),
            metric: metric.to_owned(),
            value,
        };
        println!("{}", serde_json::to_string(&figure).expect("numbers and words"));
    }

    /// The middle and the tail of times in microseconds.
    pub(crate) fn emit_latency(&self, case: &str, mut us: Vec<f64>) {
        us.sort_by(f64::total_cmp);
        self.emit(case, "p50_us", us[us.len() / 2]);
        self.emit(case, "p99_us", us[us.len() * 99 / 100]);
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_line_of_the_other_harness_is_read() {
        let line = r#"{"w":"W1","peer":"ours","case":"auto","metric":"items_per_s","value":1.5}"#;
        let figure: Figure = serde_json::from_str(line).unwrap();
        assert_eq!((figure.workload.as_str(), figure.value), ("W1", 1.5));
        assert_eq!(serde_json::to_string(&figure).unwrap(), line);
    }
}
