//! `adit check`, `adit devices` and `adit bench`: what this machine hashes with, whether it does so
//! rightly, and how fast.

use std::time::Duration;

use crate::common::adit::{Adit, Exit, Home};
use crate::common::kernels::{KERNELS, Kernel, LADDER, Rung, available, usable};
use crate::common::promised;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn object(exit: &Exit) -> Value {
    assert_eq!(exit.stdout.lines().count(), 1, "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
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
    if cfg!(target_arch = "x86_64") {
        assert!(KERNELS.iter().all(|kernel| table.contains(kernel)), "{table}");
    }
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

/// A header that any kernel solves within a moment, and one that no nonce can solve.
fn headers() -> [String; 2] {
    [format!("{}ffff7f2000000000", "00".repeat(72)), "00".repeat(80)]
}

/// What is unavailable on a rung, and the reason that is given for it.
fn unavailable(kernels: &[Kernel]) -> impl Iterator<Item = (&str, &str)> {
    kernels.iter().filter_map(|kernel| Some((kernel.name.as_str(), kernel.reason.as_deref()?)))
}

#[test]
fn devices_says_what_is_disabled_and_what_is_missing() {
    let everything = LADDER[0].kernels();
    for rung in &LADDER {
        let kernels = rung.kernels();
        assert_eq!(kernels[0], Kernel { name: "sha2".to_owned(), reason: None }, "{rung:?}");
        for (kernel, with_everything) in kernels.iter().zip(&everything) {
            assert_eq!(kernel.name, with_everything.name);
            if rung.gone.contains(&kernel.name.as_str()) {
                // Whether or not this processor has it.
                let reason = kernel.reason.as_deref().unwrap_or_default();
                assert!(reason.ends_with(" is disabled by --disable-cpu-features"), "{kernel:?}");
            } else {
                assert_eq!(kernel, with_everything, "{rung:?}");
            }
        }
        let table = rung.adit(["devices"]).run(SOON).expect_code(0).stdout;
        for (name, reason) in unavailable(&kernels) {
            assert!(table.contains(&format!("  cpu:{name:<8} {reason}\n")), "{table}");
        }
    }
    let mut names: Vec<&str> = everything.iter().map(|kernel| kernel.name.as_str()).collect();
    names.sort_by_key(|name| KERNELS.iter().position(|known| known == name));
    assert_eq!(names, KERNELS[..if cfg!(target_arch = "x86_64") { 4 } else { 1 }]);
    assert_eq!(usable(&LADDER[4].kernels()), ["sha2"]);
}

/// A kernel that is unavailable is refused by its name, with the feature, before anything else that
/// may be wrong is looked at.
#[test]
fn an_unavailable_kernel_is_named() {
    let [_, unsolvable] = headers();
    for rung in &LADDER {
        for (name, reason) in unavailable(&rung.kernels()) {
            for command in ["check", "bench", "grind", "mine", "estimate"] {
                let last = match command {
                    "grind" => unsolvable.as_str(),
                    "estimate" => "--difficulty=1",
                    _ => "-q",
                };
                let backend = format!("cpu:{name}");
                let exit = rung.adit([command, "--backend", &backend, last]).run(SOON);
                let stderr = exit.expect_code(2).stderr;
                let error = format!("error: backend cpu:{name}: {reason}\nhint: ");
                assert!(stderr.starts_with(&error), "{rung:?}, {command}: {stderr}");
            }
        }
    }
}

#[test]
fn check_covers_what_there_is() {
    for rung in &LADDER {
        let kernels = rung.kernels();
        let check = rung.adit(["check", "--json", "--threads", "1", "--backend", "cpu"]).run(SOON);
        let check = object(&check.expect_code(0));
        let rows = check["backends"].as_array().unwrap();
        assert_eq!(rows.len(), kernels.len());
        for (row, kernel) in rows.iter().zip(&kernels) {
            let result = if kernel.reason.is_none() { "pass" } else { "unavailable" };
            assert_eq!((&row["kernel"], &row["result"]), (&kernel.name[..].into(), &result.into()));
            assert_eq!(row["reason"].as_str(), kernel.reason.as_deref(), "{row}");
        }
    }
}

#[test]
fn bench_measures_what_there_is_and_says_what_not() {
    for rung in &LADDER {
        let kernels = rung.kernels();
        let bench = ["bench", "--json", "--threads", "1", "--for", "20ms", "--backend", "cpu"];
        let exit = rung.adit(bench).run(SOON).expect_code(0);
        let rows = object(&exit)["results"].clone();
        let mut measured: Vec<_> =
            rows.as_array().unwrap().iter().map(|row| row["kernel"].as_str().unwrap()).collect();
        measured.dedup();
        assert_eq!(measured, usable(&kernels), "{rung:?}");
        assert!(rows.as_array().unwrap().iter().all(|row| row["verified"] == true), "{rows}");
        only_unavailable(&exit, &kernels);
        let quiet = rung.adit(bench).arg("-q").run(SOON).expect_code(0);
        assert_eq!(quiet.stderr, "");
    }
}

/// Nothing stands on stderr but a line for each kernel that is not measured.
#[track_caller]
fn only_unavailable(exit: &Exit, kernels: &[Kernel]) {
    let lines: Vec<_> = exit.stderr.lines().collect();
    let expected: Vec<_> = unavailable(kernels)
        .map(|(name, reason)| format!(" INFO backend cpu:{name} is not measured: {reason}"))
        .collect();
    assert_eq!(lines.len(), expected.len(), "{exit:?}");
    assert!(lines.iter().zip(expected).all(|(line, end)| line.ends_with(&end)), "{exit:?}");
}

#[test]
fn grind_solves_with_what_there_is() {
    let [easy, unsolvable] = headers();
    for rung in &LADDER {
        let solved = rung.adit(["grind", &easy]).run(SOON).expect_code(0).stdout;
        assert_eq!((solved.len(), &solved[..152]), (161, &easy[..152]), "{rung:?}");
        let exit = rung.adit(["grind", &unsolvable]).run(SOON).expect_code(1);
        let told = "Could not satisfy difficulty target\n";
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("", told));
    }
}

#[test]
fn mine_takes_the_fastest_of_what_there_is() {
    for rung in &LADDER {
        let mine = ["mine", "--json", "--blocks", "20", "--threads", "1", "--backend", "cpu"];
        let exit = rung.adit(mine).run(SOON).expect_code(0);
        let events = promised::check(&exit.stdout);
        promised::check_chain(&promised::blocks(&events), 1);
        let mined_with = events[0]["backends"][0]["kernel"].as_str().unwrap().to_owned();
        assert!(usable(&rung.kernels()).contains(&mined_with), "{rung:?}: {mined_with}");
        assert_eq!(events.last().unwrap()["hardware_errors"], 0);
    }
}

#[test]
fn features_are_disabled_by_option_environment_and_file() {
    let home = Home::new();
    let kernels = |run: Adit| {
        let exit = run.home(&home).run(SOON).expect_code(0);
        exit.stdout.lines().filter(|line| line.contains(" is disabled by ")).count()
    };
    let devices = || Adit::new(["devices"]).env("ADIT_DISABLE_CPU_FEATURES", "");
    let [one, two, three] = if cfg!(target_arch = "x86_64") { [1, 2, 3] } else { [0; 3] };
    assert_eq!(kernels(devices()), 0);
    assert_eq!(kernels(devices().args(["--disable-cpu-features", "avx2, sha"])), three);
    home.write_config("disable-cpu-features = \"avx512\"\n");
    assert_eq!(kernels(devices()), one);
    let environment = || Adit::new(["devices"]).env("ADIT_DISABLE_CPU_FEATURES", "avx2");
    assert_eq!(kernels(environment()), two);
    assert_eq!(kernels(environment().args(["--disable-cpu-features", "avx512f"])), one);

    let told = "there is no CPU feature \"avx1024\" that a kernel needs\n\
                hint: features: avx512, avx512bw, avx512f, avx2, sha, sse4.1, ssse3\n";
    let exit = devices().args(["--disable-cpu-features", "avx2,avx1024"]).run(SOON).expect_code(2);
    let error = format!("error: --disable-cpu-features \"avx2,avx1024\": {told}");
    assert_eq!((exit.stdout.as_str(), exit.stderr), ("", error));
    let wrong = Adit::new(["devices"]).env("ADIT_DISABLE_CPU_FEATURES", "avx1024");
    let error = format!("error: ADIT_DISABLE_CPU_FEATURES: {told}");
    assert_eq!(wrong.run(SOON).expect_code(2).stderr, error);
}

/// `bench` compares the kernels that are named, and no others; `check` checks them.
#[test]
fn several_kernels_can_be_named() {
    let all: Vec<String> = available().iter().map(|name| format!("cpu:{name}")).collect();
    // Two, or the one there is.
    let list = all[..all.len().min(2)].join(",");
    let bench = ["bench", "--json", "--for", "20ms", "--threads", "1", "--backend", &list];
    let exit = Adit::new(bench).run(SOON).expect_code(0);
    assert_eq!(exit.stderr, "");
    let results = object(&exit)["results"].clone();
    let mut rows: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("cpu:{}", row["kernel"].as_str().unwrap()))
        .collect();
    rows.dedup();
    assert_eq!(rows.join(","), list);
    let table = Adit::new(["check", "--backend", &list]).run(SOON).expect_code(0).stdout;
    assert_eq!(table.lines().count(), list.split(',').count(), "{table}");

    for command in ["mine", "grind", "estimate"] {
        if list.contains(',') {
            let exit = Adit::new([command, "--backend", &list]).run(SOON).expect_code(2);
            let error = format!("error: --backend {list:?}: it names more than one CPU kernel\n");
            assert!(exit.stderr.starts_with(&error), "{}", exit.stderr);
            assert!(exit.stderr.contains("`adit bench` compares several"), "{}", exit.stderr);
        }
    }
}

/// The faults are in debug builds only: a shipped miner has no switch that breaks it.
#[cfg(debug_assertions)]
mod faulty {
    use super::*;

    fn with_fault(arguments: &[&str], fault: &str) -> Exit {
        Adit::new(arguments.iter().copied()).env("ADIT_FAULT", fault).run(SOON)
    }

    #[test]
    fn check_names_what_differed() {
        for kernel in available() {
            for (fault, told) in [
                ("drops-hits", "1 of 1 hits missing, 0 false or repeated"),
                ("invents-hits", "0 of 1 hits missing, 1 false or repeated"),
                ("repeats-hits", "0 of 1 hits missing, 1 false or repeated"),
                ("miscounts", "161 hashes counted instead of 160"),
            ] {
                let exit = with_fault(&["check"], &format!("{kernel}:{fault}")).expect_code(3);
                let error = format!("error: self-test of cpu:{kernel}: block 0: {told}");
                assert!(exit.stderr.starts_with(&error), "{}", exit.stderr);
                let failed = |line: &&str| line.contains(" fail: block 0: ");
                let rows: Vec<&str> = exit.stdout.lines().filter(failed).collect();
                assert_eq!(rows.len(), 1, "{}", exit.stdout);
                assert!(rows[0].starts_with(&format!("cpu:{kernel} ")), "{rows:?}");
            }
            // The genesis block's nonce, which any kernel is to find.
            let exit =
                with_fault(&["check", "--json"], &format!("{kernel}:drops-hits")).expect_code(3);
            let check = object(&exit);
            let rows = check["backends"].as_array().unwrap();
            let row = rows.iter().find(|row| row["kernel"] == kernel).unwrap();
            assert_eq!(row["result"], "fail");
            assert!(row["reason"].as_str().unwrap().contains("nonce 7c2bac1d"), "{row}");
        }
    }

    #[test]
    fn a_faulty_kernel_is_not_used() {
        let exit =
            with_fault(&["mine", "--backend", "cpu:sha2"], "sha2:repeats-hits").expect_code(3);
        assert!(exit.stderr.contains("error: backend cpu:sha2: block 0: "), "{}", exit.stderr);
        // The remaining kernels are used instead.
        let kernels = available();
        for kernel in &kernels {
            let left = if kernels.len() > 1 { 0 } else { 3 };
            let exit = with_fault(&["mine", "--blocks", "1"], &format!("{kernel}:drops-hits"));
            let exit = exit.expect_code(left);
            let told = format!("cpu:{kernel} failed its self-test");
            assert!(exit.stderr.contains(&told), "{}", exit.stderr);
            assert!(!exit.stderr.contains(&format!("kernel {kernel}")), "{}", exit.stderr);
        }
    }

    #[test]
    fn a_faulty_kernels_figures_are_not_verified() {
        let bench = ["bench", "--json", "--backend", "cpu:sha2", "--for", "300ms"];
        for (fault, told) in [("invents-hits", "is no candidate"), ("miscounts", "hashes counted")]
        {
            let exit = with_fault(&bench, &format!("sha2:{fault}")).expect_code(3);
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
    for rung in &LADDER {
        signal_ends_a_measurement(rung);
    }
}

fn signal_ends_a_measurement(rung: &Rung) {
    let kernels = rung.kernels();
    let mut running = rung.adit(["bench", "--json", "--for", "10s"]).start();
    if let Some((name, _)) = unavailable(&kernels).last() {
        let told = format!("backend cpu:{name} is not measured: ");
        running.wait_for_line(|line| line.contains(&told), SOON);
    }
    std::thread::sleep(Duration::from_millis(500));
    running.signal("INT");
    let exit = running.wait(SOON).expect_code(130);
    assert_eq!(exit.stdout, "");
    only_unavailable(&exit, &kernels);
}
