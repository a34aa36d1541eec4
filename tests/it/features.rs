//! Builds without some of the features: the command line is the same, and what is not built in says so.
//!
//! `cargo test --no-default-features --test it features::`

use std::time::Duration;

use crate::common::adit::Adit;

const SOON: Duration = Duration::from_secs(60);

#[cfg(not(feature = "gpu"))]
#[test]
fn a_graphics_card_is_refused() {
    let told = "this build of adit has no GPU support: it was built without the feature `gpu`\n";
    for command in ["mine", "bench", "check"] {
        for backend in ["gpu", "gpu:0", "cpu:sha2,gpu:1"] {
            let exit = Adit::new([command, "--backend", backend]).run(SOON).expect_code(2);
            let named = &backend[backend.find("gpu").unwrap()..];
            let line = format!("error: backend {named}: {told}");
            assert!(exit.stderr.starts_with(&line), "{command} {backend}: {}", exit.stderr);
        }
    }
    let devices = Adit::new(["devices"]).run(SOON).expect_code(0).stdout;
    assert!(devices.ends_with(&format!("\ngpu: {told}")), "{devices}");
    let mined = Adit::new(["mine", "--backend", "auto", "--blocks", "1"]).run(SOON).expect_code(0);
    assert!(!mined.stderr.contains("GPU"), "auto takes what there is: {}", mined.stderr);
}

#[cfg(not(feature = "plot"))]
#[test]
fn a_chart_is_refused_before_anything_is_measured() {
    let exit = Adit::new(["bench", "--for", "1h", "--plot", "x.svg"]).run(SOON).expect_code(2);
    let told = "this build of adit draws no charts: it was built without the feature `plot`\n";
    assert!(exit.stderr.starts_with("error: ") && exit.stderr.contains(told), "{}", exit.stderr);
}

#[cfg(not(feature = "energy"))]
#[test]
fn energy_and_cycles_have_a_reason_and_no_figure() {
    let bench = ["bench", "--for", "20ms", "--backend", "cpu:sha2", "--threads", "1", "--json"];
    let exit = Adit::new(bench).run(SOON).expect_code(0);
    let bench: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
    let rows = bench["results"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        for (figure, reason) in [("cycles_per_hash", "cycles_reason"), ("watts", "energy_reason")] {
            let told = row[reason].as_str().unwrap();
            assert!(told.contains("it was built without the feature `energy`"), "{told}");
            assert!(row[figure].is_null(), "{row}");
        }
    }
}
