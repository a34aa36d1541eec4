//! Graphics cards as backends, on the software Vulkan device that `./tests/run` installs: what a user sees
//! of them, including their failures.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::common::adit::{Adit, Exit};
use crate::common::promised;
#[cfg(debug_assertions)]
use crate::common::scripted::{ScriptedNode, Template, well_behaved};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

fn object(exit: &Exit) -> Value {
    assert_eq!(exit.stdout.lines().count(), 1, "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
}

/// The software device's entry in `devices`. Without one the tests fail.
fn device() -> &'static Value {
    static DEVICE: OnceLock<Value> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let devices = object(&Adit::new(["devices", "--json"]).run(SOON).expect_code(0));
        let gpus = devices["gpus"].as_array().unwrap();
        gpus.iter().find(|gpu| gpu["type"] == "software").cloned().expect(
            "a software Vulkan device (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)",
        )
    })
}

/// `gpu:N` of the software device.
fn gpu() -> String {
    format!("gpu:{}", device()["index"])
}

/// A cache folder in which the device has been calibrated, once for all tests.
fn cache() -> PathBuf {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    let folder = CACHE.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu-cache");
        let backend = gpu();
        let mine = Adit::new(["mine", "--blocks", "1", "--backend", &backend]);
        mine.env("XDG_CACHE_HOME", &folder).run(SOON).expect_code(0);
        folder
    });
    folder.clone()
}

fn adit<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Adit {
    Adit::new(arguments).env("XDG_CACHE_HOME", cache())
}

#[test]
fn devices_lists_the_cards() {
    let device = device();
    for key in ["name", "api", "driver", "type"] {
        assert!(!device[key].as_str().unwrap().is_empty(), "{device}");
    }
    assert_eq!(device["api"], "Vulkan");
    let table = Adit::new(["devices"]).run(SOON).expect_code(0).stdout;
    let name = device["name"].as_str().unwrap();
    assert!(table.contains(&format!("{}: {name}, software, Vulkan, ", gpu())), "{table}");
    assert!(table.contains("used only if named"), "{table}");
}

#[test]
fn a_card_mines_the_built_in_chain() {
    let exit = adit(["mine", "--json", "--blocks", "25", "--backend", &gpu()]).run(SOON);
    let events = promised::check(&exit.expect_code(0).stdout);
    promised::check_chain(&promised::blocks(&events), 1);
    let backend = &events[0]["backends"][0];
    assert_eq!((&backend["backend"], &backend["device"]), (&"gpu".into(), &device()["name"]));
    assert!(backend["kernel"].as_str().unwrap().starts_with('k'), "the cached tuning: {backend}");
    let summary = events.last().unwrap();
    assert_eq!(summary["hardware_errors"], 0);
    // On a target that takes two hashes, batches do not last fifty milliseconds.
    assert!(summary["hashes"].as_u64().unwrap() < 25 * 100_000, "{summary}");
}

#[test]
fn a_card_and_the_cpu_are_counted_separately() {
    let backend = format!("cpu:sha2,{}", gpu());
    let mut run = adit(["mine", "--json", "--threads", "1", "--backend", &backend]).start();
    let both = |event: &Value| {
        event["event"] == "rate"
            && event["backends"]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| b["backend"].clone())
                .eq(["cpu", "gpu"])
    };
    run.wait_for_event(both, SOON);
    run.signal("INT");
    let events = promised::check(&run.wait(SOON).expect_code(130).stdout);
    promised::check_chain(&promised::blocks(&events), 1);
    assert_eq!(events.last().unwrap()["hardware_errors"], 0);
}

#[test]
fn check_bench_and_grind_accept_cards() {
    let backend = gpu();
    let check = object(&adit(["check", "--json", "--backend", &backend]).run(SOON).expect_code(0));
    let row = &check["backends"][0];
    assert_eq!((&row["backend"], &row["result"]), (&"gpu".into(), &"pass".into()), "{row}");
    assert_eq!(check["backends"].as_array().unwrap().len(), 1);

    let bench = ["bench", "--json", "--for", "500ms", "--backend", &backend];
    let bench = object(&adit(bench).run(SOON).expect_code(0));
    let results = bench["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (row, rolling) in results.iter().zip([false, true]) {
        assert_eq!((&row["backend"], &row["verified"]), (&"gpu".into(), &true.into()), "{row}");
        assert_eq!(row["version_rolling"], rolling);
        assert_eq!(row["device"], device()["name"]);
        assert!(row["hashes_per_second"]["median"].as_f64().unwrap() > 0.0, "{row}");
    }

    let header = format!("{}ffff001f00000000", "00".repeat(72));
    let ground = adit(["grind", "--backend", &backend, &header]).run(SOON).expect_code(0).stdout;
    assert_eq!((ground.len(), &ground[..152]), (161, &header[..152]));
    let hash = crate::common::block::sha256d(&hex::decode(ground.trim()).unwrap());
    assert!(hash[30..] == [0, 0], "{ground}");
}

#[test]
fn a_missing_card_is_reported_in_one_line() {
    for command in ["mine", "bench", "check"] {
        let exit = Adit::new([command, "--backend", "gpu:99"]).run(SOON).expect_code(2);
        let error =
            "error: backend gpu:99: there is no device with this number\nhint: the devices are ";
        assert!(exit.stderr.starts_with(error), "{}", exit.stderr);
        // The same without any driver, with which `auto` still works.
        let without = |backend: &str, last: &str| {
            let arguments = [command, "--backend", backend, last];
            Adit::new(arguments).env("VK_DRIVER_FILES", "/nonexistent").run(SOON)
        };
        let exit = without("gpu", "-q").expect_code(2);
        let error = "error: backend gpu: no graphics card and no driver for one was found\nhint: ";
        assert!(exit.stderr.starts_with(error), "{}", exit.stderr);
        assert_eq!((exit.stdout.as_str(), exit.stderr.lines().count()), ("", 2));
    }
    let run = Adit::new(["mine", "--blocks", "1", "-v"]).env("VK_DRIVER_FILES", "/nonexistent");
    let exit = run.run(SOON).expect_code(0);
    assert!(exit.stderr.contains("no graphics card"), "{}", exit.stderr);
    assert!(exit.stderr.lines().all(|line| !line.contains("WARN")), "{}", exit.stderr);
}

/// Without a desktop session (these tests have no XDG_RUNTIME_DIR) Mesa's layer writes an error to stderr
/// in the same form as ours.
#[test]
fn stderr_has_no_lines_from_drivers() {
    let devices = Adit::new(["devices"]).run(SOON).expect_code(0);
    assert_eq!(devices.stderr, "");
    let mine = adit(["mine", "--blocks", "1", "--backend", &gpu()]).run(SOON).expect_code(0);
    let ours = |line: &str| line.contains(" INFO ") || line.contains(" WARN ");
    assert!(mine.stderr.lines().all(ours), "{}", mine.stderr);
}

#[test]
fn a_run_can_be_stopped_during_calibration() {
    // Without a cached tuning it begins with a calibration.
    let mut run = Adit::new(["mine", "--backend", &gpu()]).start();
    run.wait_for_line(|line| line.contains(": calibrating, once for this card"), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

/// The faults are in debug builds only: a shipped miner has no switch that breaks it.
#[cfg(debug_assertions)]
mod faults {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_card_that_computes_wrongly_is_named() {
        for fault in ["drops-hits", "invents-hits"] {
            let fault = format!("gpu:{fault}");
            for command in ["mine", "check", "bench"] {
                let run = adit([command, "--backend", &gpu()]).env("ADIT_FAULT", &fault);
                let stderr = run.run(SOON).expect_code(3).stderr;
                let error = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
                assert!(error.contains(&gpu()) && error.contains("block 0: "), "{error}");
            }
        }
        // Other backends go on.
        let backend = format!("cpu:sha2,{}", gpu());
        let run = adit(["mine", "--backend", &backend]).env("ADIT_FAULT", "gpu:drops-hits");
        let mut run = run.start();
        let told = format!("backend {} has failed and is disabled: ", gpu());
        run.wait_for_line(|line| line.contains(&told), SOON);
        run.wait_for_line(|line| line.starts_with("block 1 accepted "), SOON);
        run.signal("INT");
        run.wait(SOON).expect_code(130);
    }

    /// A node whose blocks are too hard to find.
    fn hard_node() -> ScriptedNode {
        let template = Template::regtest(7).bits(0x1900_ffff);
        ScriptedNode::start(move |call| well_behaved(call, &template))
    }

    #[test]
    fn a_card_that_fails_while_mining_is_disabled_and_the_others_go_on() {
        let node = hard_node();
        let (backend, url) = (gpu(), node.url_with_password("u", "p"));
        let run =
            adit(["mine", &url, "--backend", &backend]).env("ADIT_FAULT", "gpu:invents-hits-later");
        let exit = run.run(SOON).expect_code(3);
        let error = format!("error: backend {backend}: 10 of 10 reported candidates failed");
        assert!(exit.stderr.contains(&error), "{}", exit.stderr);
        assert!(exit.stderr.contains(&format!("hardware error on {backend}: ")), "{}", exit.stderr);

        let both = format!("cpu:sha2,{backend}");
        let run = adit(["mine", &url, "--json", "--backend", &both])
            .env("ADIT_FAULT", "gpu:invents-hits-later");
        let mut run = run.start();
        let told = format!("backend {backend} has failed and is disabled: 10 of 10 ");
        run.wait_for_line(|line| line.contains(&told), SOON);
        let only_cpu = |event: &Value| {
            let rate = |at: usize| event["backends"][at]["hashes_per_second"].as_f64();
            event["event"] == "rate" && rate(0) > Some(0.0) && rate(1) == Some(0.0)
        };
        run.wait_for_event(only_cpu, SOON);
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        // Batches that were in flight when it was disabled may still have been counted.
        let errors = exit.event("summary")["hardware_errors"].as_u64().unwrap();
        assert!((10..20).contains(&errors), "{errors}");
    }

    #[test]
    fn a_card_that_is_lost_or_hangs_is_reinitialised() {
        for (fault, told) in [
            ("lost", "the device is lost"),
            ("panics", "the device is lost: injected by a test"),
            ("hangs", "the device has not answered for 6 s"),
            ("out-of-memory", "the device is out of memory"),
        ] {
            let run = adit(["mine", "--json", "--blocks", "20", "--backend", &gpu()]);
            let exit = run.env("ADIT_FAULT", format!("gpu:{fault}")).run(SOON).expect_code(0);
            let warned = format!("backend {}: {told}", gpu());
            assert!(exit.stderr.contains(&warned), "{fault}: {}", exit.stderr);
            assert!(!exit.stderr.contains("panicked"), "{fault}: {}", exit.stderr);
            assert!(exit.stderr.contains("; reinitialising in 1 s"), "{}", exit.stderr);
            let events = promised::check(&exit.stdout);
            promised::check_chain(&promised::blocks(&events), 1);
        }
    }

    #[test]
    fn the_time_while_a_process_is_stopped_does_not_count() {
        let node = hard_node();
        let url = node.url_with_password("u", "p");
        let mut run = adit(["mine", &url, "--json", "--backend", &gpu()]).start();
        let hashes = |event: &Value| {
            event["event"] == "rate" && event["hashes_per_second"].as_f64() > Some(0.0)
        };
        run.wait_for_event(hashes, SOON);
        run.signal("STOP");
        // Longer than a batch may take.
        std::thread::sleep(Duration::from_secs(7));
        run.signal("CONT");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        run.wait_for_event(|event| hashes(event) && event["time"].as_f64() > Some(now), SOON);
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        assert!(!exit.stderr.contains("has not answered"), "{}", exit.stderr);
    }

    #[test]
    fn check_reports_a_failing_card_in_one_line() {
        for (fault, why) in [
            ("panics-at-once-always", "the device is lost: injected by a test"),
            ("refuses-always", "the driver refuses: every variant of the shader: "),
        ] {
            let run =
                adit(["check", "--backend", &gpu()]).env("ADIT_FAULT", format!("gpu:{fault}"));
            let exit = run.run(SOON).expect_code(3);
            assert!(exit.stdout.contains(&format!("fail: {why}")), "{exit:?}");
            let error = format!("error: self-test of {}: {why}", gpu());
            assert!(exit.stderr.contains(&error), "{exit:?}");
            assert!(!exit.stderr.contains("panicked"), "{exit:?}");
        }
        let run = adit(["check", "--json", "--backend", &gpu()]).env("ADIT_FAULT", "gpu:refuses");
        let exit = run.run(SOON).expect_code(0);
        let row = &object(&exit)["backends"][0];
        assert_eq!(row["result"], "pass", "{row}");
        assert_eq!(row["skipped"].as_array().unwrap().len(), 6, "{row}");
        let told = format!("{}: k2-all is skipped: the driver refuses: ", gpu());
        assert!(exit.stderr.contains(&told), "{exit:?}");
    }

    #[test]
    fn a_hanging_card_does_not_keep_the_process_alive() {
        let node = hard_node();
        let url = node.url_with_password("u", "p");
        let run = adit(["mine", &url, "--backend", &gpu()]).env("ADIT_FAULT", "gpu:hangs-always");
        let mut run = run.start();
        run.wait_for_line(|line| line.contains("shader k"), SOON);
        run.signal("TERM");
        run.wait(SOON).expect_code(143);
    }
}
