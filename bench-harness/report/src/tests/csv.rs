//! Records as CSV.

use serde_json::Value;

use super::*;
use crate::csv;

#[test]
fn a_spreadsheet_has_every_figure_in_full() {
    let mut report = networks();
    report.results.extend(sample().results);
    report.results.extend(in_process().results);
    let text = csv(&report);
    let mut lines = ::csv::Reader::from_reader(text.as_bytes());
    let names = lines.headers().unwrap().clone();
    let lines: Vec<_> = lines.records().map(Result::unwrap).collect();
    assert_eq!(lines.len(), report.results.len());
    let value = serde_json::to_value(&report.results).unwrap();
    for (index, line) in lines.iter().enumerate() {
        let record = &value[index];
        let at = |name: &str| &line[names.iter().position(|other| other == name).unwrap()];
        // All that the file has of it by a name of one figure.
        let several = ["ops_per_second", "bytes_per_second", "latency_ns", "p50_ns", "p99_ns"];
        let single = |(name, _): &(&String, _)| !several.contains(&name.as_str());
        for (name, value) in record.as_object().unwrap().iter().filter(single) {
            let expected = match value {
                Value::Null => "".into(),
                Value::String(text) => text.clone(),
                number => format!("{}", number.as_f64().unwrap()),
            };
            assert_eq!(at(name), expected, "{index}: {name}");
        }
        let rate = report.results[index].ops_per_second;
        assert_eq!(at("ops_per_second"), rate.median.to_string());
        let is_one = report.results[index].runs == 1;
        assert_eq!(at("ops_per_second_low").is_empty(), is_one);
        assert_eq!(at("latency_p999_ns").is_empty(), record["latency_ns"].is_null());
    }
    let at = |line: usize, name| &lines[line][names.iter().position(|n| n == name).unwrap()];
    assert_eq!((at(0, "against"), at(0, "compared_by"), at(0, "ratio")), ("e1000", "rate", "10"));
    assert_eq!((at(7, "compared_by"), at(7, "verdict")), ("p50", "faster"));
    assert_eq!((at(1, "against"), at(1, "verdict")), ("", ""));
    let last = lines.len() - 2;
    assert_eq!((at(last, "verdict"), at(last, "ratio_low")), ("too-few-runs", ""));
}

/// What a spreadsheet would compute is text there, and a field ends where it should.
#[test]
fn a_name_is_no_formula() {
    let mut odd = record("virtio-blk", 1.0, 3);
    odd.device = "=1+1".into();
    odd.backend = "a,b\"c\nd".into();
    odd.vmm = "@x".into();
    let text = csv(&Report::new(manifest(), vec![odd]));
    assert!(text.contains("\n'=1+1,"), "{text}");
    assert!(text.contains(",'@x,\"a,b\"\"c\nd\","), "{text}");
}
