//! `adit check`, `adit devices` and `adit bench`: what this machine hashes with, whether it does so
//! rightly, and how fast.

mod common;

use std::time::Duration;

use common::adit::{Adit, Exit};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const KERNELS: [&str; 4] = ["sha2", "sha-ni", "avx2", "avx512"];

fn object(exit: &Exit) -> Value {
    assert_eq!(exit.stdout.lines().count(), 1, "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
}

/// The kernels of this machine, as `devices` tells.
fn available() -> Vec<String> {
    let devices = object(&Adit::new(["devices", "--json"]).run(SOON).expect_code(0));
    let kernels = devices["cpu"]["kernels"].as_array().unwrap();
    let there = kernels.iter().filter(|kernel| kernel["available"] == true);
    there.map(|kernel| kernel["kernel"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn devices_lists_every_kernel() {
    let exit = Adit::new(["devices", "--json"]).run(SOON).expect_code(0);
    let devices = object(&exit);
    for gpu in devices["gpus"].as_array().unwrap() {
        for key in ["index", "name", "api", "driver", "type"] {
            assert!(!gpu[key].is_null(), "{gpu}");
        }
    }
    assert!(!devices["cpu"]["model"].as_str().unwrap().is_empty());
    let threads = std::thread::available_parallelism().unwrap().get();
    assert_eq!(devices["cpu"]["threads"], threads);
    for kernel in devices["cpu"]["kernels"].as_array().unwrap() {
        assert_eq!(kernel["available"] == true, kernel["reason"].is_null(), "{kernel}");
        assert_eq!(kernel.as_object().unwrap().len(), 3);
    }
    assert!(available().contains(&"sha2".to_owned()));

    let table = Adit::new(["devices"]).run(SOON).expect_code(0).stdout;
    assert!(available().iter().all(|kernel| table.contains(&format!("cpu:{kernel}"))), "{table}");
    #[cfg(target_arch = "x86_64")]
    assert!(KERNELS.iter().all(|kernel| table.contains(kernel)), "{table}");
}

#[test]
fn check_passes_on_an_honest_machine() {
    let exit = Adit::new(["check", "--json"]).run(SOON).expect_code(0);
    let check = object(&exit);
    let there = available();
    for row in check["backends"].as_array().unwrap() {
        let kernel = row["kernel"].as_str().unwrap();
        let passed = there.iter().any(|name| name == kernel);
        assert_eq!(row["result"], if passed { "pass" } else { "unavailable" }, "{row}");
        assert_eq!((&row["backend"], row["reason"].is_null()), (&"cpu".into(), passed));
    }
    let table = Adit::new(["check", "--threads", "3"]).run(SOON).expect_code(0).stdout;
    assert_eq!(table.lines().count(), check["backends"].as_array().unwrap().len());
    for kernel in there {
        let one = Adit::new(["check", "--backend", &format!("cpu:{kernel}")]).run(SOON);
        let row = one.expect_code(0).stdout;
        assert!(row.starts_with(&format!("cpu:{kernel} ")) && row.contains("pass"), "{row}");
        assert_eq!(row.lines().count(), 1);
    }
}

/// A kernel that this machine lacks is refused by its name, with the missing feature.
#[test]
fn a_missing_kernel_is_named() {
    let there = available();
    for kernel in KERNELS.iter().filter(|kernel| !there.iter().any(|name| name == *kernel)) {
        for command in ["check", "bench", "grind", "mine"] {
            let header = "00".repeat(80);
            let last = if command == "grind" { &*header } else { "-q" };
            let backend = format!("cpu:{kernel}");
            let exit = Adit::new([command, "--backend", &backend, last]).run(SOON);
            let stderr = exit.expect_code(2).stderr;
            assert!(stderr.starts_with(&format!("error: backend cpu:{kernel}: ")), "{stderr}");
            assert!(stderr.contains("hint: "), "{stderr}");
        }
    }
}

/// The faults are in debug builds only: a shipped miner has no switch that breaks it.
#[cfg(debug_assertions)]
mod liars {
    use super::*;

    fn lying(arguments: &[&str], fault: &str) -> Exit {
        Adit::new(arguments.iter().copied()).env("ADIT_FAULT", fault).run(SOON)
    }

    #[test]
    fn check_names_what_differed() {
        for kernel in available() {
            for (fault, told) in [
                ("leaves", "1 of 1 hits missing, 0 reported that are none"),
                ("makes-up", "0 of 1 hits missing, 1 reported that are none"),
                ("twice", "0 of 1 hits missing, 1 reported that are none"),
                ("miscounts", "161 hashes counted, and 160 asked for"),
            ] {
                let exit = lying(&["check"], &format!("{kernel}:{fault}")).expect_code(3);
                let error = format!("error: self-test of cpu:{kernel}: block 0: {told}");
                assert!(exit.stderr.starts_with(&error), "{}", exit.stderr);
                let failed = |line: &&str| line.contains(" fail: block 0: ");
                let rows: Vec<&str> = exit.stdout.lines().filter(failed).collect();
                assert_eq!(rows.len(), 1, "{}", exit.stdout);
                assert!(rows[0].starts_with(&format!("cpu:{kernel} ")), "{rows:?}");
            }
            // The genesis block's nonce, which any kernel is to find.
            let exit = lying(&["check", "--json"], &format!("{kernel}:leaves")).expect_code(3);
            let check = object(&exit);
            let rows = check["backends"].as_array().unwrap();
            let row = rows.iter().find(|row| row["kernel"] == kernel).unwrap();
            assert_eq!(row["result"], "fail");
            assert!(row["reason"].as_str().unwrap().contains("nonce 7c2bac1d"), "{row}");
        }
    }

    #[test]
    fn a_liar_is_not_mined_with() {
        let exit = lying(&["mine", "--backend", "cpu:sha2"], "sha2:twice").expect_code(3);
        assert!(exit.stderr.contains("error: backend cpu:sha2: block 0: "), "{}", exit.stderr);
        // Where others are left, they do it.
        let exit = lying(&["mine", "--blocks", "1"], "avx512:leaves").expect_code(0);
        if available().contains(&"avx512".to_owned()) {
            assert!(exit.stderr.contains("cpu:avx512 failed its self-test"), "{}", exit.stderr);
            assert!(!exit.stderr.contains("kernel avx512"), "{}", exit.stderr);
        }
    }

    #[test]
    fn a_liars_figures_are_not_verified() {
        let bench = ["bench", "--json", "--backend", "cpu:sha2", "--for", "300ms"];
        for (fault, told) in [("makes-up", "is no candidate"), ("miscounts", "hashes counted")] {
            let exit = lying(&bench, &format!("sha2:{fault}")).expect_code(3);
            let results = object(&exit)["results"].clone();
            let unverified = results.as_array().unwrap().iter().all(|r| r["verified"] == false);
            assert!(unverified, "{results}");
            assert!(exit.stderr.starts_with("error: backend cpu:sha2: "), "{}", exit.stderr);
            assert!(exit.stderr.contains(told), "{}", exit.stderr);
        }
    }
}

#[test]
fn bench_measures_and_verifies_every_kernel() {
    let exit = Adit::new(["bench", "--json", "--for", "100ms"]).run(SOON).expect_code(0);
    let bench = object(&exit);
    assert_eq!(bench["version"], env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().unwrap().get();
    assert_eq!(bench["machine"]["cores"], threads);
    assert!(bench["machine"]["cpu"].is_string() && bench["machine"]["os"].is_string());
    let results = bench["results"].as_array().unwrap();
    let counts = if threads == 1 { vec![1] } else { vec![1, threads] };
    assert_eq!(results.len(), available().len() * counts.len() * 2);
    for kernel in available() {
        for count in &counts {
            for rolling in [false, true] {
                let wanted = |row: &&Value| {
                    row["kernel"] == kernel
                        && row["threads"] == *count
                        && row["version_rolling"] == rolling
                };
                let row = results.iter().find(wanted).unwrap();
                assert_eq!((&row["backend"], &row["verified"]), (&"cpu".into(), &true.into()));
                for key in ["joules_per_gigahash", "watts"] {
                    assert!(row[key].is_null() || row[key].as_f64().unwrap() > 0.0, "{row}");
                }
                assert!(row["device"].is_string());
                let rates = &row["hashes_per_second"];
                let rate = |key: &str| rates[key].as_f64().unwrap();
                assert!(0.0 < rate("min") && rate("min") <= rate("median"), "{row}");
                assert!(rate("median") <= rate("max"), "{row}");
                assert_eq!(rates["samples"], 5);
            }
        }
    }
}

#[test]
fn bench_shows_what_was_asked_for() {
    let bench = ["bench", "--backend", "cpu:sha2", "--threads", "3", "--for", "40ms"];
    let table = Adit::new(bench).run(SOON).expect_code(0).stdout;
    assert_eq!(table.lines().filter(|line| line.starts_with("cpu:sha2 ")).count(), 2, "{table}");
    assert!(table.contains(" yes"), "{table}");
    let csv = Adit::new(bench).arg("--csv").run(SOON).expect_code(0).stdout;
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].starts_with("backend,kernel,device,threads,version_rolling,verified,"));
    assert!(lines[1].starts_with("cpu,sha2,") && lines[1].contains(",3,false,true,"), "{csv}");
    Adit::new(bench).arg("--csv").arg("--json").run(SOON).expect_code(2);
}

#[test]
fn a_signal_ends_a_measurement() {
    let mut running = Adit::new(["bench", "--json", "--for", "10s"]).start();
    std::thread::sleep(Duration::from_millis(500));
    running.signal("INT");
    let exit = running.wait(SOON).expect_code(130);
    assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("", ""));
}
