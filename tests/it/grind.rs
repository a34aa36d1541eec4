//! `adit grind`, beside the `bitcoin-util grind` that it can stand in for.

use std::process::Command;
use std::time::Duration;

use crate::common::adit::{Adit, Exit};
use crate::common::{block, kernels};

const SOON: Duration = Duration::from_secs(30);

const NOT_ONE: &str = "Must specify block header to grind\n";
const NO_HEADER: &str = "Could not decode block header\n";
const NOT_MET: &str = "Could not satisfy difficulty target\n";

/// The genesis block's header.
const GENESIS: &str = "0100000000000000000000000000000000000000000000000000000000000000000000003b\
                       a3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff\
                       001d1dac2b7c";

/// A header of its own for each number, with these nBits.
fn header(number: u32, nbits: u32) -> String {
    let time = hex::encode((1_700_000_000 + number).to_le_bytes());
    let nonce = hex::encode(number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    format!("{}{time}{}{nonce}", &GENESIS[..136], hex::encode(nbits.to_le_bytes()))
}

fn grind(arguments: &[&str]) -> Exit {
    Adit::new(["grind"]).args(arguments).run(SOON)
}

/// What the original says, if there is one: exit code, stdout and stderr.
fn original(arguments: &[&str]) -> Option<(Option<i32>, String, String)> {
    let program = std::env::var_os("BITCOIN_UTIL")?;
    let output = Command::new(program).arg("grind").args(arguments).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Some((output.status.code(), text(output.stdout), text(output.stderr)))
}

/// A header that is solved, and like the one given but for the nonce.
#[track_caller]
fn assert_solved(given: &str, stdout: &str) {
    let solved = stdout.strip_suffix('\n').expect("a line");
    assert_eq!(solved.len(), 160, "{solved}");
    assert_eq!(solved[..152], given.to_lowercase()[..152], "only the nonce changes");
    let bytes = hex::decode(solved).expect("hex");
    let nbits = u32::from_le_bytes(bytes[72..76].try_into().unwrap());
    let mut hash = block::sha256d(&bytes);
    hash.reverse();
    assert!(hash <= block::target_of(nbits), "{solved}: {}", hex::encode(hash));
}

/// Runs both and holds ours against what is promised, and against the original.
#[track_caller]
fn both(arguments: &[&str], expected: Result<(), &str>) {
    let ours = grind(arguments);
    match expected {
        Ok(()) => {
            assert_eq!(ours.code, Some(0), "{ours:?}");
            assert_solved(arguments[0], &ours.stdout);
            assert_eq!(ours.stderr, "");
        }
        Err(words) => {
            let said = (ours.code, ours.stdout.as_str(), ours.stderr.as_str());
            assert_eq!(said, (Some(1), "", words), "{arguments:?}");
        }
    }
    if let Some((code, stdout, stderr)) = original(arguments) {
        assert_eq!((ours.code, ours.stderr), (code, stderr), "as bitcoin-util: {arguments:?}");
        match expected {
            Ok(()) => assert_solved(arguments[0], &stdout),
            Err(_) => assert_eq!(stdout, ""),
        }
    }
}

#[test]
fn easy_headers_are_solved() {
    for number in 0..24 {
        let nbits = [0x207f_ffff, 0x2000_ffff, 0x1f7f_ffff, 0x1f00_ffff][number as usize % 4];
        both(&[&header(number, nbits)], Ok(()));
    }
    both(&[&header(7, 0x207f_ffff).to_uppercase()], Ok(()));
    // The original reads a header and leaves the rest; so do we.
    both(&[&format!("{}00", header(8, 0x207f_ffff))], Ok(()));
    both(&[&format!("{}deadbeef", header(9, 0x207f_ffff))], Ok(()));
}

#[test]
fn every_kernel_solves_them() {
    for kernel in kernels::available() {
        let given = header(3, 0x1f00_ffff);
        let backend = format!("cpu:{kernel}");
        let exit = Adit::new(["grind", &given, "--backend", &backend, "--threads", "2"]).run(SOON);
        assert_solved(&given, &exit.expect_code(0).stdout);
    }
}

#[test]
fn an_easy_header_takes_no_time() {
    let given = header(1, 0x207f_ffff);
    // On a slow machine to start takes longer, too.
    let nothing = || Adit::new(["--version"]).run(SOON).elapsed;
    let (best, nothing) = (0..10)
        .map(|_| (grind(&[&given]).elapsed, nothing()))
        .reduce(|(best, least), (grind, nothing)| (best.min(grind), least.min(nothing)))
        .unwrap();
    // A few milliseconds; the tests' own polling has a share in it.
    assert!(best < 2 * nothing + Duration::from_millis(40), "{best:?}, and {nothing:?} to start");
}

#[test]
fn what_is_no_header_is_refused_in_the_promised_words() {
    let good = header(1, 0x207f_ffff);
    for bad in [
        "",
        "00",
        &good[..152],
        &good[..159],
        &good[..158],
        &format!("{}zz", &good[..158]),
        &format!(" {good}"),
        &format!("{good} "),
        &format!("0x{good}"),
        &format!("{good}0"),
        "\u{e4}\u{f6}\u{fc}",
    ] {
        both(&[bad], Err(NO_HEADER));
    }
    both(&[], Err(NOT_ONE));
    both(&[&good, &good], Err(NOT_ONE));
    both(&["nonsense", "nonsense"], Err(NOT_ONE));
}

#[test]
fn a_target_that_is_none_is_refused_in_the_promised_words() {
    for nbits in [
        0,
        0x0100_0000,
        0x1d00_0000,
        0x0200_0001, // zero
        0x1d80_0001,
        0x2080_ffff,
        0x0180_ffff,
        0x1d80_0000, // negative, or minus zero
        0x2300_0001,
        0x2200_0100,
        0x2101_0000,
        0xff00_0001,
        0xff7f_ffff, // too large
    ] {
        both(&[&header(1, nbits)], Err(NOT_MET));
    }
    // Just not too large.
    both(&[&header(1, 0x2200_00ff)], Ok(()));
    both(&[&header(1, 0x2100_ffff)], Ok(()));
}

#[test]
fn with_json_it_is_an_object() {
    let given = header(5, 0x207f_ffff);
    let exit = grind(&["--json", &given]).expect_code(0);
    let object: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
    let solved = object["header"].as_str().unwrap();
    assert_solved(&given, &format!("{solved}\n"));
    let nonce = u32::try_from(object["nonce"].as_u64().unwrap()).unwrap();
    assert_eq!(solved[152..], hex::encode(nonce.to_le_bytes()));
}

#[test]
fn a_signal_ends_it() {
    // A target that no nonce is going to meet.
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let given = header(1, 0x0300_0001);
        let mut running = Adit::new(["grind", &given, "--backend", "cpu:sha2"]).start();
        std::thread::sleep(Duration::from_millis(500));
        running.signal(name);
        let exit = running.wait(SOON).expect_code(code);
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("", ""));
    }
}

#[test]
fn a_harder_header_is_solved() {
    both(&[&header(11, 0x1e00_ffff)], Ok(()));
}
