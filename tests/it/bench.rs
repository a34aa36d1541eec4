//! `adit bench`: its figures are what was done, a slowed backend is found out, two runs of one
//! program do not differ, and its chart can be looked at.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::adit::{Adit, Exit, Home};
use crate::common::kernels;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

fn object(exit: &Exit) -> Value {
    assert_eq!(exit.stdout.lines().count(), 1, "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
}

/// A run with JSON, and the file that it was saved in.
fn saved(home: &Home, name: &str, arguments: &[&str], fault: &str) -> (Value, PathBuf) {
    let run =
        Adit::new(["bench", "--json"]).args(arguments.iter().copied()).env("ADIT_FAULT", fault);
    let exit = run.run(SOON).expect_code(0);
    let file = home.path().join(name);
    std::fs::write(&file, &exit.stdout).unwrap();
    (object(&exit), file)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    f64::midpoint(values[last / 2], values[last.div_ceil(2)])
}

fn near(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 1e-9
}

#[test]
fn the_figures_are_what_was_done() {
    let begun = std::time::Instant::now();
    let exit = Adit::new(["bench", "--json", "--for", "200ms", "--backend", "cpu:sha2"]).run(SOON);
    let took = begun.elapsed().as_secs_f64();
    let bench = object(&exit.expect_code(0));
    let mut all = 0.0;
    for row in bench["results"].as_array().unwrap() {
        let slices = row["slices"].as_array().unwrap();
        let rates = &row["hashes_per_second"];
        assert_eq!(rates["samples"], slices.len());
        let rate = |slice: &Value| number(&slice["hashes"]) / number(&slice["seconds"]);
        assert!(near(number(&rates["median"]), median(slices.iter().map(rate).collect())), "{row}");
        let sum = |key: &str| slices.iter().map(|slice| number(&slice[key])).sum::<f64>();
        assert!(near(number(&rates["mean"]), sum("hashes") / sum("seconds")), "{row}");
        let ends = [f64::INFINITY, f64::NEG_INFINITY];
        let [min, max] =
            slices.iter().map(rate).fold(ends, |[min, max], rate| [min.min(rate), max.max(rate)]);
        assert!(near(number(&rates["min"]), min) && near(number(&rates["max"]), max), "{row}");
        all += sum("seconds");
        for slice in slices {
            let cores = &slice["cores"];
            assert!(cores.is_null() || (0.0..=1.0).contains(&number(cores)), "{row}");
        }
        if row["version_rolling"] == false {
            assert!(near(number(&row["to_reference"]), 1.0), "{row}");
        }
        for (figure, reason) in [("cycles_per_hash", "cycles_reason"), ("watts", "energy_reason")] {
            assert_ne!(row[figure].is_null(), row[reason].is_null(), "{row}");
        }
        assert!(row["share_of_limit"].is_null() || number(&row["share_of_limit"]) <= 1.05, "{row}");
    }
    assert!(all < took, "{all} s of slices in {took} s");
    let machine = &bench["machine"];
    assert!(machine["rustc"].as_str().unwrap().starts_with("rustc 1."), "{machine}");
    assert!(machine["features"].is_array() && machine["kernel"].is_string(), "{machine}");
    assert_eq!(machine["build"], if cfg!(debug_assertions) { "debug" } else { "release" });
}

#[test]
fn a_given_power_is_used_and_said() {
    let bench =
        ["bench", "--for", "40ms", "--backend", "cpu:sha2", "--threads", "1", "--watts", "50W"];
    let json = object(&Adit::new(bench).arg("--json").run(SOON).expect_code(0));
    for row in json["results"].as_array().unwrap() {
        let per_gigahash = 50.0 / number(&row["hashes_per_second"]["mean"]) * 1e9;
        assert!(near(number(&row["joules_per_gigahash"]), per_gigahash), "{row}");
        assert!(near(number(&row["watts"]), 50.0) && row["energy_from"] == "given");
    }
    let table = Adit::new(bench).run(SOON).expect_code(0).stdout;
    assert!(table.contains("watts: as given"), "{table}");
}

/// Whole runs of one program against each other: a short version of what benches/README.md tells of.
#[test]
fn runs_of_one_program_do_not_differ() {
    let home = Home::new();
    let arguments = ["--for", "300ms", "--threads", "1"];
    let (_, mut before) = saved(&home, "0.json", &arguments, "");
    let mut agreed = 0;
    let tries = 4;
    for number in 1..=tries {
        let file = home.path().join(format!("{number}.json"));
        let run = Adit::new(["bench", "--json"]).args(arguments).arg("--compare").arg(&before);
        let exit = run.run(SOON).expect_code(0);
        std::fs::write(&file, &exit.stdout).unwrap();
        let comparison = object(&exit)["comparison"].clone();
        assert_eq!(comparison["same_machine"], true);
        assert!(!comparison["rows"].as_array().unwrap().is_empty());
        agreed += u32::from(comparison["differs"] == false);
        before = file;
    }
    assert!(agreed >= tries - 1, "{agreed} of {tries}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_measured() {
    let home = Home::new();
    let write = |name: &str, text: &str| {
        let file = home.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let short = ["--for", "20ms", "--backend", "cpu:sha2", "--threads", "1"];
    let (json, good) = saved(&home, "good.json", &short, "");
    let [mut tampered, mut lied] = [json.clone(), json];
    tampered["results"][0]["slices"][0]["seconds"] = (-1.0).into();
    lied["results"][1]["verified"] = false.into();
    let started = br#"{"event":"started"}"#;
    for (file, told) in [
        (home.path().join("none.json"), "No such file"),
        (home.path().to_owned(), "it is a directory"),
        (write("empty.json", ""), "is not what `adit bench --json` writes"),
        (write("mine.json", std::str::from_utf8(started).unwrap()), "is not what"),
        (write("deep.json", &"[".repeat(1 << 20)), "is not what"),
        (write("tampered.json", &tampered.to_string()), "a slice of no time"),
        (
            write("lied.json", &lied.to_string()),
            "result 2 is not verified: cpu:sha2 computed wrongly",
        ),
        (write("binary.json", "\u{0}\u{1b}[31m"), "is not what"),
    ] {
        let exit = Adit::new(["bench", "--for", "1h", "--compare"]).arg(&file).run(SOON);
        let stderr = exit.expect_code(2).stderr;
        assert!(stderr.starts_with("error: saved run ") && stderr.contains(told), "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        assert!(stderr.contains("\nhint: save one with: adit bench --json"), "{stderr}");
    }
    let other =
        Adit::new(["bench", "--for", "1h", "--threads", "7", "--compare"]).arg(&good).run(SOON);
    let stderr = other.expect_code(2).stderr;
    assert!(stderr.contains("no result of a backend and a number of threads"), "{stderr}");
    for wrong in [
        vec!["bench", "--fail-below", "0.9"],
        vec!["bench", "--compare", "x", "--fail-below", "-1"],
        vec!["bench", "--compare", "x", "--fail-below", "1.05"],
        vec!["bench", "--compare", "x", "--csv"],
        vec!["bench", "--plot", "x.jpg"],
        vec!["bench", "--watts", "0"],
    ] {
        let exit = Adit::new(wrong.clone()).run(SOON);
        assert!(exit.expect_code(2).stderr.starts_with("error: "), "{wrong:?}");
    }
}

/// A reference that moved by itself is no measure for the others.
#[test]
#[cfg_attr(not(feature = "plot"), ignore = "a build without the feature `plot`")]
fn a_reference_that_moved_is_said_and_decides_nothing() {
    let home = Home::new();
    let arguments = ["--for", "300ms", "--backend", "cpu:sha2", "--threads", "1"];
    let (mut run, _) = saved(&home, "before.json", &arguments, "");
    // As though it had been twenty times as fast; the row with rolled versions stays as it is.
    assert_eq!(run["results"][0]["version_rolling"], false);
    for slice in run["results"][0]["slices"].as_array_mut().unwrap() {
        slice["hashes"] = (slice["hashes"].as_u64().unwrap() * 20).into();
    }
    let mut against = |cpu: Option<&str>| {
        if let Some(cpu) = cpu {
            run["machine"]["cpu"] = cpu.into();
        }
        let (file, svg) = (home.path().join("moved.json"), home.path().join("moved.svg"));
        std::fs::write(&file, run.to_string()).unwrap();
        let run = Adit::new(["bench", "--fail-below", "0.01", "--compare"]).arg(&file);
        let exit = run.args(arguments).arg("--plot").arg(&svg).run(SOON);
        let chart = std::fs::read_to_string(&svg).unwrap();
        let told = "** cpu:sha2 itself is at 0.0";
        assert!(exit.stdout.contains(told) && chart.contains(told), "{}", exit.stdout);
        exit
    };
    let same = against(None).expect_code(0);
    assert!(same.stdout.contains("are compared by MH/s"), "{}", same.stdout);
    assert!(same.stdout.contains("shown below"), "{}", same.stdout);
    let other = against(Some("another")).expect_code(1);
    assert!(other.stdout.contains(" not comparable\n"), "{}", other.stdout);
    let told = "cpu:sha2 on 1 thread, versions rolled: not comparable\nhint: sha2 itself moved";
    assert!(other.stderr.contains(told), "{}", other.stderr);
}

/// A ratio nearer to 1 than the noise is decided by luck.
#[test]
fn a_ratio_that_the_noise_hides_is_warned_of() {
    let home = Home::new();
    let arguments = ["--for", "300ms", "--backend", "cpu:sha2", "--threads", "1"];
    let (_, before) = saved(&home, "before.json", &arguments, "");
    let run = |ratio: &str| {
        let run = Adit::new(["bench", "--json", "--fail-below", ratio, "--compare"]).arg(&before);
        run.args(arguments).run(SOON)
    };
    let close = run("0.999");
    let told =
        "--fail-below 0.999 is nearer to 1 than the noise of these runs: cpu:sha2 on 1 thread";
    assert!(close.stderr.contains(told), "{}", close.stderr);
    let far = run("0.001").expect_code(0);
    assert!(!far.stderr.contains("nearer to 1"), "{}", far.stderr);
    for row in object(&far)["comparison"]["rows"].as_array().unwrap() {
        let (slower, faster) = (&row["shown_slower_below"], &row["shown_faster_above"]);
        assert!(number(slower) < 1.0 && number(faster) > 1.0, "{row}");
        assert_eq!(row["reference_moved"], false);
    }
}

/// What was not compared is not green.
#[test]
fn what_is_missing_now_or_too_short_to_say_fails() {
    let home = Home::new();
    let one = ["--for", "20ms", "--backend", "cpu:sha2", "--threads", "1"];
    let (_, good) = saved(&home, "good.json", &one, "");
    let against = |file: &Path, arguments: &[&str]| {
        let run = Adit::new(["bench", "--fail-below", "0.1", "--compare"]).arg(file);
        run.args(arguments.iter().copied()).run(SOON)
    };
    let stderr = against(&good, &one).expect_code(1).stderr;
    assert!(stderr.contains("cpu:sha2 on 1 thread, one version: too short to say"), "{stderr}");
    assert!(stderr.contains("; and 1 more\nhint: "), "{stderr}");

    // A kernel that this machine has not, as one without AVX-512 sees it.
    let long = ["--for", "200ms", "--threads", "1", "--backend"];
    let (mut json, _) = saved(&home, "long.json", &[&long[..], &["cpu:sha2"]].concat(), "");
    let mut gone = json["results"][0].clone();
    gone["kernel"] = "avx1024".into();
    json["results"].as_array_mut().unwrap().push(gone);
    let file = home.path().join("gone.json");
    std::fs::write(&file, json.to_string()).unwrap();
    let exit = against(&file, &[&long[..], &["cpu"]].concat()).expect_code(1);
    let told = "cpu:avx1024 on 1 thread, one version was measured then, and is missing now";
    assert!(exit.stderr.contains(told), "{}", exit.stderr);
    assert!(exit.stdout.contains("only before: cpu:avx1024"), "{}", exit.stdout);
    // A user who asks for others does not miss it.
    against(&file, &[&long[..], &["cpu:sha2"]].concat()).expect_code(0);
}

#[test]
#[cfg_attr(not(feature = "plot"), ignore = "a build without the feature `plot`")]
fn a_chart_that_cannot_be_written_is_said_after_the_figures() {
    let exit =
        Adit::new(["bench", "--for", "20ms", "--backend", "cpu:sha2", "--plot", "no/such/x.svg"])
            .run(SOON)
            .expect_code(1);
    assert!(exit.stdout.contains("cpu:sha2 "), "{}", exit.stdout);
    assert!(exit.stderr.starts_with("error: chart no/such/x.svg: "), "{}", exit.stderr);
}

/// A renderer's picture of a drawing, as RGBA.
fn rendered(svg: &Path) -> (u32, Vec<u8>) {
    let picture = svg.with_extension("rendered.png");
    let status = Command::new("rsvg-convert").arg(svg).arg("-o").arg(&picture).status().expect(
        "rsvg-convert shows the chart (on Debian: apt-get install librsvg2-bin; tests/run does it)",
    );
    assert!(status.success());
    pixels(&picture)
}

fn pixels(file: &Path) -> (u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(file).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let samples = info.color_type.samples();
    let rgb = pixels.chunks_exact(samples).flat_map(|pixel| pixel[..3].to_vec()).collect();
    (info.width, rgb)
}

const BLUE: [u8; 3] = [0, 114, 178];
const ORANGE: [u8; 3] = [230, 159, 0];
const GREY: [u8; 3] = [153, 153, 153];

/// How long each bar of a colour is, from the top, as a share of the width: lines of pixels most of
/// which have it, from the first to the last that does, next to each other but for the line of the
/// spread, which may lie across the whole bar.
fn bars(colour: [u8; 3], (width, rgb): &(u32, Vec<u8>)) -> Vec<f64> {
    let width = *width as usize;
    let (mut found, mut blank) = (Vec::<usize>::new(), usize::MAX);
    for line in rgb.chunks_exact(width * 3) {
        let is = |pixel: &[u8]| pixel == colour;
        let first = line.chunks_exact(3).position(is);
        let last = line.chunks_exact(3).rposition(is);
        let long = first.zip(last).map_or(0, |(first, last)| last - first + 1);
        let coloured = line.chunks_exact(3).filter(|pixel| is(pixel)).count();
        // The legend's field is as wide as a letter or two, and letters have pale edges.
        if long * 60 < width || coloured * 2 < long {
            blank = blank.saturating_add(1);
            continue;
        }
        match found.last_mut() {
            Some(last) if blank * 160 < width => *last = (*last).max(long),
            _ => found.push(long),
        }
        blank = 0;
    }
    found.into_iter().map(|long| long as f64 / width as f64).collect()
}

#[test]
#[cfg_attr(not(feature = "plot"), ignore = "a build without the feature `plot`")]
fn a_chart_shows_every_row_as_long_as_it_is_fast() {
    let home = Home::new();
    let svg = home.path().join("chart.svg");
    let run = Adit::new(["bench", "--for", "200ms", "--threads", "1", "--json", "--plot"]);
    let bench = object(&run.arg(&svg).run(SOON).expect_code(0));
    let rows = bench["results"].as_array().unwrap();
    let text = std::fs::read_to_string(&svg).unwrap();
    for row in rows {
        assert!(text.contains(&format!("cpu:{}", row["kernel"].as_str().unwrap())), "{text}");
    }
    for words in ["one version", "versions rolled", "hash rate in ", "adit bench: ", "rustc 1."] {
        assert!(text.contains(words), "{words} is not in the chart");
    }
    let picture = rendered(&svg);
    for (colour, rolling) in [(BLUE, false), (ORANGE, true)] {
        let shown = bars(colour, &picture);
        let rates: Vec<f64> = rows
            .iter()
            .filter(|row| row["version_rolling"] == rolling)
            .map(|row| number(&row["hashes_per_second"]["median"]))
            .collect();
        assert_eq!(shown.len(), rates.len(), "{rolling}: {shown:?} {rates:?}");
        // Lengths are as rates are, to a pixel or two.
        let scale = shown.iter().sum::<f64>() / rates.iter().sum::<f64>();
        for (shown, rate) in shown.iter().zip(&rates) {
            assert!((shown - rate * scale).abs() < 0.01, "{shown} for {rate}");
        }
    }
    assert!(bars(GREY, &picture).is_empty());
}

#[test]
#[cfg_attr(not(feature = "plot"), ignore = "a build without the feature `plot`")]
fn a_comparison_shows_before_and_after() {
    let home = Home::new();
    let arguments = ["--for", "100ms", "--backend", "cpu:sha2", "--threads", "1"];
    let (mut run, before) = saved(&home, "before.json", &arguments, "");
    let (svg, png) = (home.path().join("chart.svg"), home.path().join("chart.png"));
    for file in [&svg, &png] {
        let run = Adit::new(["bench"]).args(arguments).arg("--compare").arg(&before);
        let table = run.arg("--plot").arg(file).run(SOON).expect_code(0).stdout;
        assert!(table.contains("\ncompared with ") && table.contains(" verdict\n"), "{table}");
        assert!(!table.contains("another machine") && !table.contains("that was a "), "{table}");
    }
    let other_build = ["debug", "release"][usize::from(cfg!(debug_assertions))];
    run["machine"]["build"] = other_build.into();
    let other = home.path().join("other.json");
    std::fs::write(&other, run.to_string()).unwrap();
    let exit = Adit::new(["bench", "--compare"]).arg(&other).args(arguments).run(SOON);
    let table = exit.expect_code(0).stdout;
    assert!(
        table.contains(&format!("\nthat was a {other_build} build, and this is a ")),
        "{table}"
    );
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(text.contains("before.json") && text.contains("before") && text.contains("after"));
    for picture in [rendered(&svg), pixels(&png)] {
        assert_eq!((bars(GREY, &picture).len(), bars(BLUE, &picture).len()), (2, 2));
        assert!(bars(ORANGE, &picture).is_empty());
    }
}

/// The faults are in debug builds only.
#[cfg(debug_assertions)]
mod slowed {
    use super::*;

    /// Relative to the honest reference of the same run, a kernel that does everything three times
    /// takes three times as long.
    #[test]
    fn a_slowed_backend_is_slower_by_as_much_as_it_was_slowed() {
        // Any kernel but the first: that is the reference, which the others are compared with.
        let Some(kernel) = kernels::available().into_iter().nth(1) else {
            kernels::not_run("bench with a slowed kernel", "there is none but the reference");
            return;
        };
        let home = Home::new();
        let backends = ["--for", "2s", "--threads", "1"];
        let (honest, before) = saved(&home, "honest.json", &backends, "");
        let (slowed, _) = saved(&home, "slowed.json", &backends, &format!("{kernel}:slow"));
        let ratio = |run: &Value, rolling: bool| {
            let row = run["results"]
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row["kernel"] == kernel && row["version_rolling"] == rolling);
            number(&row.unwrap()["to_reference"])
        };
        for rolling in [false, true] {
            let factor = ratio(&honest, rolling) / ratio(&slowed, rolling);
            assert!((2.0..4.5).contains(&factor), "slowed 3 times, shown {factor} times");
        }

        let compare = Adit::new(["bench", "--json", "--fail-below", "0.7", "--compare"]);
        let exit = compare
            .arg(&before)
            .args(backends)
            .env("ADIT_FAULT", format!("{kernel}:slow"))
            .run(SOON)
            .expect_code(1);
        assert!(exit.stderr.contains("error: compared with "), "{}", exit.stderr);
        assert!(exit.stderr.contains(&format!("cpu:{kernel} on 1 thread")), "{}", exit.stderr);
        let comparison = object(&exit)["comparison"].clone();
        for row in comparison["rows"].as_array().unwrap() {
            let slower = row["backend"] == format!("cpu:{kernel}");
            // On a machine that is busy enough the noise can hide even that from one of the rows.
            let hidden = number(&row["ratio"]) >= number(&row["shown_slower_below"]);
            assert_eq!(row["verdict"] == "slower", slower && !hidden, "{row}");
            if slower {
                assert!((0.2..0.55).contains(&number(&row["ratio"])), "{row}");
            }
        }
    }

    /// Counters that a test turns, in the place of the processor's.
    #[test]
    #[cfg_attr(not(feature = "energy"), ignore = "a build without the feature `energy`")]
    fn energy_is_read_from_the_processors_counters() {
        const RANGE: u64 = 20_000_000;
        const WATTS: f64 = 40.0;
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::Instant;

        let home = Home::new();
        let package = home.path().join("intel-rapl:0");
        std::fs::create_dir(&package).unwrap();
        // It starts again every half second.
        std::fs::write(package.join("name"), "package-0\n").unwrap();
        std::fs::write(package.join("max_energy_range_uj"), RANGE.to_string()).unwrap();
        let turn = |begun: Instant| {
            let used = (begun.elapsed().as_secs_f64() * WATTS * 1e6) as u64 % RANGE;
            let beside = package.join("next");
            std::fs::write(&beside, format!("{used}\n")).unwrap();
            std::fs::rename(&beside, package.join("energy_uj")).unwrap();
        };
        let begun = Instant::now();
        turn(begun);
        let over = AtomicBool::new(false);
        let exit = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    turn(begun);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let run = Adit::new(["bench", "--json", "--for", "1s", "--backend", "cpu:sha2"]);
            let exit = run.arg("--threads").arg("1").env("ADIT_POWERCAP", home.path()).run(SOON);
            over.store(true, Ordering::Relaxed);
            exit
        });
        for row in object(&exit.expect_code(0))["results"].as_array().unwrap() {
            // The thread that turns them gets its share of a busy machine only.
            assert!((20.0..60.0).contains(&number(&row["watts"])), "{row}");
            assert!(row["energy_from"] == "measured" && row["energy_reason"].is_null());
            let joules = number(&row["joules_per_gigahash"]);
            let rate = number(&row["hashes_per_second"]["mean"]);
            let expected = number(&row["watts"]) / rate * 1e9;
            assert!((joules / expected - 1.0).abs() < 0.25, "{joules} and {expected}");
        }

        // Counters that stand still are no figure.
        let run = Adit::new(["bench", "--json", "--for", "20ms", "--backend", "cpu:sha2"]);
        let exit = run.env("ADIT_POWERCAP", home.path()).run(SOON).expect_code(0);
        for row in object(&exit)["results"].as_array().unwrap() {
            assert!(row["watts"].is_null(), "{row}");
            assert!(row["energy_reason"].as_str().unwrap().contains("stand still"), "{row}");
        }
    }
}
