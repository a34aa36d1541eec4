//! The processor's own energy counters (RAPL), as Linux shows them under `/sys/class/powercap`.
//!
//! `intel-rapl:N` is a domain, `intel-rapl:N:M` a part of it; `name` says which. Only packages are
//! read: the other domains are parts of them, or (`psys`) hold them. `energy_uj` counts microjoules
//! and starts again at zero after `max_energy_range_uj` (Linux, Documentation/power/powercap).

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::NoReading;
use crate::units::Joules;

/// The packages' counters.
#[derive(Debug)]
pub struct Rapl {
    packages: Vec<Package>,
    read: fn(&Path) -> io::Result<String>,
}

#[derive(Debug)]
struct Package {
    energy: PathBuf,
    /// The largest value of the counter, in microjoules.
    range: u64,
}

/// Microjoules, package by package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Rapl {
    /// The packages below `powercap`.
    ///
    /// # Errors
    /// When there is no such counter, or it cannot be read.
    pub fn open(powercap: &Path) -> Result<Self, NoReading> {
        Self::open_by(powercap, |path| fs::read_to_string(path))
    }

    fn open_by(powercap: &Path, read: fn(&Path) -> io::Result<String>) -> Result<Self, NoReading> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(powercap).map_err(|_| NoReading::NoRapl)?.flatten() {
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_prefix("intel-rapl:"))
            else {
                continue;
            };
            let folder = entry.path();
            let is_package =
                || read(&folder.join("name")).is_ok_and(|name| name.starts_with("package"));
            if !number.bytes().all(|digit| digit.is_ascii_digit()) || !is_package() {
                continue;
            }
            let range = number_in(read, &folder.join("max_energy_range_uj"))?;
            packages.push(Package { energy: folder.join("energy_uj"), range });
        }
        if packages.is_empty() {
            return Err(NoReading::NoRapl);
        }
        let rapl = Self { packages, read };
        rapl.read()?;
        Ok(rapl)
    }

    /// What the counters say now.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<Counters, NoReading> {
        let packages = self.packages.iter();
        packages
            .map(|package| number_in(self.read, &package.energy))
            .collect::<Result<_, _>>()
            .map(Counters)
    }

    /// What all packages used between two readings, of which the second is later by less than a
    /// counter's whole range: a minute at 1 kW for the usual 65 kJ.
    #[must_use]
    pub fn between(&self, before: &Counters, after: &Counters) -> Joules {
        let used = self.packages.iter().zip(before.0.iter().zip(&after.0)).map(
            |(package, (before, after))| match after.checked_sub(*before) {
                Some(used) => used,
                None => package.range.saturating_sub(*before).saturating_add(*after),
            },
        );
        Joules::from_micro(used.fold(0, u64::saturating_add))
    }
}

fn number_in(read: fn(&Path) -> io::Result<String>, path: &Path) -> Result<u64, NoReading> {
    let text = read(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => NoReading::Forbidden,
        _ => NoReading::Rapl(format!("{}: {error}", path.display())),
    })?;
    text.trim().parse().map_err(|_| NoReading::Rapl(format!("{} is no number", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as a machine of two packages has it.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (folder, name, energy, range) in [
            ("intel-rapl:0", "package-0\n", "1000\n", "262143328850\n"),
            ("intel-rapl:0:0", "core\n", "77\n", "262143328850\n"),
            ("intel-rapl:1", "package-1-die-0\n", "5000\n", "10000\n"),
            ("intel-rapl:2", "psys\n", "9\n", "10000\n"),
            ("intel-rapl-mmio:0", "package-0\n", "1000\n", "262143328850\n"),
        ] {
            let folder = root.path().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("name"), name).unwrap();
            fs::write(folder.join("energy_uj"), energy).unwrap();
            fs::write(folder.join("max_energy_range_uj"), range).unwrap();
        }
        fs::create_dir(root.path().join("intel-rapl")).unwrap();
        root
    }

    fn set(root: &tempfile::TempDir, package: u32, energy: &str) {
        fs::write(root.path().join(format!("intel-rapl:{package}/energy_uj")), energy).unwrap();
    }

    #[test]
    fn the_packages_are_added_up_and_nothing_twice() {
        let root = tree();
        let rapl = Rapl::open(root.path()).unwrap();
        let before = rapl.read().unwrap();
        set(&root, 0, "4000\n");
        set(&root, 1, "5500\n");
        let after = rapl.read().unwrap();
        assert_eq!(rapl.between(&before, &after), Joules::from_micro(3_500));
        assert_eq!(rapl.between(&after, &after), Joules::default());
    }

    #[test]
    fn a_counter_that_starts_again_loses_nothing() {
        let root = tree();
        let rapl = Rapl::open(root.path()).unwrap();
        set(&root, 1, "9990");
        let before = rapl.read().unwrap();
        set(&root, 1, "40");
        let after = rapl.read().unwrap();
        assert_eq!(rapl.between(&before, &after), Joules::from_micro(50));
    }

    #[test]
    fn no_permission_and_nonsense_are_said() {
        let root = tree();
        let forbidden = |path: &Path| {
            if path.ends_with("energy_uj") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::read_to_string(path)
        };
        assert_eq!(Rapl::open_by(root.path(), forbidden).unwrap_err(), NoReading::Forbidden);

        set(&root, 1, "lots");
        let told = Rapl::open(root.path()).unwrap_err().to_string();
        assert!(told.contains("intel-rapl:1/energy_uj is no number"), "{told}");

        let rapl = {
            set(&root, 1, "1");
            Rapl::open(root.path()).unwrap()
        };
        fs::remove_file(root.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(matches!(rapl.read(), Err(NoReading::Rapl(_))));
    }

    #[test]
    fn a_machine_without_counters_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Rapl::open(root.path()).unwrap_err(), NoReading::NoRapl);
        assert_eq!(Rapl::open(&root.path().join("none")).unwrap_err(), NoReading::NoRapl);
    }
}
