//! The machine, described well enough to repeat a measurement, and to doubt it.

use std::fs;
use std::path::Path;

/// The processor's own description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Who made it: `GenuineIntel`, `AuthenticAMD`.
    pub vendor: Option<String>,
    /// CPUID family. Virtual machines may make it up.
    pub family: Option<u32>,
    /// CPUID model.
    pub model: Option<u32>,
    /// CPUID stepping.
    pub stepping: Option<u32>,
    /// The microcode's revision.
    pub microcode: Option<String>,
    /// Those of its features that matter here, in Linux's words.
    pub features: Vec<String>,
    /// Whether it says that it is a virtual machine's.
    pub virtual_machine: bool,
}

/// The features that are looked for.
const FEATURES: [&str; 10] = [
    "sha_ni", "ssse3", "avx2", "avx512f", "avx512vl", "avx512bw", "gfni", "amx_tile", "sha1",
    "sha2",
];

/// What surrounds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The processor.
    pub processor: Processor,
    /// The operating system's release, as `uname -r` has it.
    pub kernel: Option<String>,
    /// How the clock is governed.
    pub governor: Option<String>,
    /// Whether cores run two threads each.
    pub smt: Option<bool>,
    /// To how many cores' time the cgroup limits us.
    pub cgroup_cpus: Option<f64>,
    /// Threads that wanted to run during the last minute, on average, as the run began.
    pub load_average: Option<f64>,
}

impl Machine {
    /// Looks below `root`, which is `/` but in tests. What is not told there is `None`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self {
            processor: text("proc/cpuinfo").map_or_else(Processor::default, |t| Processor::of(&t)),
            kernel: text("proc/sys/kernel/osrelease"),
            governor: text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            smt: text("sys/devices/system/cpu/smt/active").map(|active| active == "1"),
            cgroup_cpus: cgroup_cpus(&text),
            load_average: text("proc/loadavg")
                .and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }
}

impl Processor {
    /// From the first processor in `/proc/cpuinfo`.
    fn of(cpuinfo: &str) -> Self {
        let value = |key: &str| {
            let first = cpuinfo.split("\n\n").next()?;
            let line = first
                .lines()
                .find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
            Some(line.split_once(':')?.1.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let number = |key| value(key)?.parse().ok();
        let flags = value("flags").or_else(|| value("Features")).unwrap_or_default();
        let has = |feature: &str| flags.split(' ').any(|flag| flag == feature);
        Self {
            vendor: value("vendor_id"),
            family: number("cpu family"),
            model: number("model"),
            stepping: number("stepping"),
            microcode: value("microcode"),
            features: FEATURES.iter().filter(|f| has(f)).map(ToString::to_string).collect(),
            virtual_machine: has("hypervisor"),
        }
    }
}

/// The tightest limit of our cgroup (version 2) and of those above it, in cores.
fn cgroup_cpus(text: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    let groups = text("proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limits = Path::new(own.trim_start_matches('/')).ancestors().filter_map(|group| {
        let limit =
            text(&Path::new("sys/fs/cgroup").join(group).join("cpu.max").display().to_string())?;
        let (quota, period) = limit.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    limits.filter(|limit| limit.is_finite()).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_what_linux_tells() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n\
             model name\t: X\nstepping\t: 8\nmicrocode\t: 0x2b\n\
             flags\t\t: fpu sha_ni avx2 avx512f hypervisor\n\nprocessor\t: 1\nvendor_id\t: Other\n",
        );
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write("proc/loadavg", "0.52 0.4 0.3 1/200 99\n");
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
        write("sys/devices/system/cpu/smt/active", "1\n");
        let machine = Machine::read(root.path());
        assert_eq!(machine.processor.vendor.as_deref(), Some("GenuineIntel"));
        assert_eq!((machine.processor.family, machine.processor.model), (Some(6), Some(143)));
        assert_eq!(machine.processor.features, ["sha_ni", "avx2", "avx512f"]);
        assert!(machine.processor.virtual_machine);
        assert_eq!(machine.governor.as_deref(), Some("performance"));
        assert_eq!((machine.smt, machine.cgroup_cpus), (Some(true), Some(1.5)));
        assert_eq!(machine.load_average, Some(0.52));
    }

    #[test]
    fn what_is_not_told_is_not_made_up() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Machine::read(root.path()), Machine::default());
    }
}
