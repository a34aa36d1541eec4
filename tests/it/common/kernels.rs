//! The CPU kernels, as `adit devices` lists them. No test may depend on the processor it runs on: it
//! asks here which kernels there are, and hides features to see what happens without them.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::adit::Adit;

/// Every kernel for x86-64. Elsewhere there is the first alone.
pub const KERNELS: [&str; 4] = ["sha2", "sha-ni", "avx2", "avx512"];

const SOON: Duration = Duration::from_secs(60);

/// Features that are disabled, and the kernels that are unavailable for it on any processor.
#[derive(Debug)]
pub struct Rung {
    pub disabled: &'static str,
    pub gone: &'static [&'static str],
}

/// The kinds of processor there are, from one that has everything to one that has nothing.
pub const LADDER: [Rung; 5] = [
    Rung { disabled: "", gone: &[] },
    Rung { disabled: "avx512", gone: &["avx512"] },
    Rung { disabled: "avx2", gone: &["avx2", "avx512"] },
    Rung { disabled: "sha", gone: &["sha-ni"] },
    Rung { disabled: "avx2,sha", gone: &["sha-ni", "avx2", "avx512"] },
];

impl Rung {
    /// A run on such a processor, whatever the environment of the tests disables.
    pub fn adit<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Adit {
        // An empty variable disables nothing.
        Adit::new(arguments).env("ADIT_DISABLE_CPU_FEATURES", self.disabled)
    }

    /// The kernels, as `devices` lists them there.
    pub fn kernels(&self) -> Vec<Kernel> {
        listed(self.adit(["devices", "--json"]))
    }
}

/// A kernel, and why it is unavailable, if it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub reason: Option<String>,
}

/// The names of those that can be used.
pub fn usable(kernels: &[Kernel]) -> Vec<String> {
    let usable = kernels.iter().filter(|kernel| kernel.reason.is_none());
    usable.map(|kernel| kernel.name.clone()).collect()
}

/// The names of the kernels that can be used in the tests' own environment.
pub fn available() -> Vec<String> {
    usable(&listed(Adit::new(["devices", "--json"])))
}

fn listed(devices: Adit) -> Vec<Kernel> {
    let exit = devices.run(SOON).expect_code(0);
    let devices: Value = serde_json::from_str(&exit.stdout).expect("one JSON object");
    let kernels = devices["cpu"]["kernels"].as_array().expect("a list of kernels").iter();
    let kernel = |kernel: &Value| {
        let reason = kernel["reason"].as_str().map(str::to_owned);
        assert_eq!(kernel["available"], reason.is_none(), "{kernel}");
        Kernel { name: kernel["kernel"].as_str().expect("a name").to_owned(), reason }
    };
    kernels.map(kernel).collect()
}

/// Says that a test was not run, and why, where libtest does not keep it to itself.
pub fn not_run(test: &str, why: &str) {
    writeln!(std::io::stderr(), "not tested: {test}: {why}").expect("stderr is open");
}
