//! Which graphics cards there are: found once, numbered, and described.

use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use wgpu::{Backend, Backends, DeviceType};

use super::device::{Told, Trouble};
use super::thread::{DeviceThread, Waited};

/// How long drivers may take to say which cards they serve. One that hangs must not hang us.
const PATIENCE: Duration = Duration::from_secs(20);

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A card with memory of its own.
    Discrete,
    /// Part of the processor, and sharing its memory.
    Integrated,
    /// A share of a card, given to a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// No card at all: the processor acts as one.
    Software,
}

impl Kind {
    /// The word that `--json` shows.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        }
    }
}

/// A graphics card over one API.
#[derive(Clone)]
pub struct Gpu {
    /// Its number: what `gpu:N` takes.
    pub index: usize,
    /// Its name, as the driver tells it.
    pub name: String,
    /// `Vulkan`, `Metal` or `DX12`.
    pub api: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// What kind of device it is.
    pub kind: Kind,
    /// The number under which the same card was found before, over another API or driver.
    pub same_as: Option<usize>,
    /// Where it is on the PCI bus, where that is known: `0000:01:00.0`.
    pci: String,
    adapter: wgpu::Adapter,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu:{} {} ({}, {})", self.index, self.name, self.api, self.driver)
    }
}

impl Gpu {
    /// Whether `gpu` and `auto` take it: a real card, and not one that they have already.
    #[must_use]
    pub fn is_taken_unasked(&self) -> bool {
        self.kind != Kind::Software && self.same_as.is_none()
    }

    /// Whether a display may hang on it, which a long batch would make stutter. Where that cannot be
    /// known, it may.
    #[must_use]
    pub fn may_have_display(&self) -> bool {
        match self.kind {
            Kind::Software => false,
            Kind::Integrated => true,
            _ => !has_no_display(Path::new("/sys/bus/pci/devices"), &self.pci),
        }
    }

    pub(super) fn adapter(&self) -> &wgpu::Adapter {
        &self.adapter
    }

    /// The same card again, after its driver has been left and loaded anew.
    pub(super) fn found_again(&self) -> Option<Self> {
        let same = |gpu: &Self| {
            (&gpu.name, gpu.api, &gpu.pci) == (&self.name, self.api, &self.pci)
                && (gpu.index == self.index || !self.pci.is_empty())
        };
        enumerate().into_iter().find(same)
    }
}

/// Linux tells more of a card than its driver does. A PCI "3D controller" has no way to show a
/// picture; a "VGA controller" has, and its connectors tell whether something is plugged in. Where
/// no connectors are shown, as with NVIDIA's driver without mode setting, nothing is known.
fn has_no_display(devices: &Path, pci: &str) -> bool {
    if pci.is_empty() || pci.contains(['/', '\\']) {
        return false;
    }
    let device = devices.join(pci);
    let class = std::fs::read_to_string(device.join("class")).unwrap_or_default();
    if class.starts_with("0x0302") {
        return true;
    }
    let mut connectors = 0;
    for card in folders(&device.join("drm")) {
        for connector in folders(&card) {
            match std::fs::read_to_string(connector.join("status")) {
                Ok(status) if status.trim() == "disconnected" => connectors += 1,
                Ok(_) => return false,
                Err(_) => {}
            }
        }
    }
    connectors > 0
}

fn folders(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// Every card of every API, numbered in the order in which the drivers tell them. Empty where there
/// is no driver. A driver that hangs is given up.
#[must_use]
pub fn enumerate() -> Vec<Gpu> {
    let search = |found: &mpsc::Sender<_>| {
        // Nobody listens any more if it took too long.
        let _ = found.send(search());
    };
    let thread = DeviceThread::start("gpu-search".to_owned(), Told::default(), search);
    let why = match thread.and_then(|thread| thread.wait(PATIENCE, Duration::ZERO, &|| false)) {
        Ok(Waited::For(gpus)) => return gpus,
        Ok(Waited::Ended) => return Vec::new(),
        Err(Trouble::Hang(_)) => "a driver does not answer".to_owned(),
        Err(trouble) => trouble.to_string(),
    };
    tracing::warn!("looking for graphics cards: {why}; none is used");
    Vec::new()
}

fn search() -> Vec<Gpu> {
    let apis = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: apis,
        // Neither validation nor debug information, whatever the build.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut gpus: Vec<Gpu> = Vec::new();
    for adapter in pollster::block_on(instance.enumerate_adapters(apis)) {
        let info = adapter.get_info();
        let api = match info.backend {
            Backend::Vulkan => "Vulkan",
            Backend::Metal => "Metal",
            Backend::Dx12 => "DX12",
            _ => continue,
        };
        let words = [info.driver.trim(), info.driver_info.trim()];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => Kind::Discrete,
            DeviceType::IntegratedGpu => Kind::Integrated,
            DeviceType::VirtualGpu => Kind::Virtual,
            DeviceType::Cpu => Kind::Software,
            DeviceType::Other => Kind::Other,
        };
        let mut gpu = Gpu {
            index: gpus.len(),
            name: info.name.trim().to_owned(),
            api,
            driver: words.join(" "),
            kind,
            same_as: None,
            pci: info.device_pci_bus_id.clone(),
            adapter,
        };
        gpu.same_as = gpus.iter().find(|other| is_same(other, &gpu)).map(|other| other.index);
        gpus.push(gpu);
    }
    gpus
}

/// Whether two entries are one card, over two APIs or two drivers.
fn is_same(a: &Gpu, b: &Gpu) -> bool {
    if !a.pci.is_empty() && !b.pci.is_empty() {
        return a.pci == b.pci;
    }
    // One API lists a card once, so two that look alike there are two.
    let ids = |gpu: &Gpu| {
        let info = gpu.adapter.get_info();
        (info.vendor & 0xffff, info.device & 0xffff)
    };
    a.api != b.api && ids(a) == ids(b)
}

/// Whether looking for a card is worth the time and memory that loading its drivers takes: on Linux
/// every driver of a real one has a device file.
#[must_use]
pub fn may_be_there() -> bool {
    const FILES: [&str; 8] = [
        "/dev/dri",
        "/dev/nvidia0",
        "/dev/nvidiactl",
        "/dev/nvidia-caps",
        "/dev/dxg",
        "/dev/kgsl-3d0",
        "/dev/mali0",
        "/dev/kfd",
    ];
    !cfg!(target_os = "linux") || FILES.iter().any(|file| Path::new(file).exists())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_card_is_told_by_its_place() {
        let gpu = enumerate().into_iter().next().expect("a software Vulkan device");
        let at = |api, pci: &str| Gpu { api, pci: pci.to_owned(), ..gpu.clone() };
        let (first, second) = ("0000:01:00.0", "0000:02:00.0");
        assert!(is_same(&at("Vulkan", first), &at("DX12", first)));
        assert!(is_same(&at("Vulkan", first), &at("Vulkan", first)), "two drivers");
        assert!(!is_same(&at("Vulkan", first), &at("Vulkan", second)));
        assert!(!is_same(&at("Vulkan", first), &at("DX12", second)));
        // Where one of them does not tell, what it is decides.
        assert!(is_same(&at("Vulkan", first), &at("DX12", "")));
        assert!(!is_same(&at("Vulkan", first), &at("Vulkan", "")));
        assert!(!is_same(&at("Vulkan", ""), &at("Vulkan", "")));
    }

    #[test]
    fn displays_are_told_by_what_hangs_on_the_connectors() {
        let folder = tempfile::tempdir().unwrap();
        let device = |pci: &str, class: &str, connectors: &[&str]| {
            let device = folder.path().join(pci);
            fs::create_dir_all(device.join("drm/card0/power")).unwrap();
            fs::create_dir_all(device.join("drm/renderD128")).unwrap();
            fs::write(device.join("class"), class).unwrap();
            for (index, status) in connectors.iter().enumerate() {
                let connector = device.join(format!("drm/card0/card0-DP-{index}"));
                fs::create_dir_all(&connector).unwrap();
                fs::write(connector.join("status"), status).unwrap();
            }
            has_no_display(folder.path(), pci)
        };
        assert!(device("0000:01:00.0", "0x030200\n", &[]), "a card without outputs");
        assert!(device("0000:02:00.0", "0x030000\n", &["disconnected\n", "disconnected\n"]));
        assert!(!device("0000:03:00.0", "0x030000\n", &["disconnected\n", "connected\n"]));
        assert!(!device("0000:04:00.0", "0x030000\n", &[]), "its driver does not tell");
        assert!(!device("0000:05:00.0", "0x030000\n", &["unknown\n"]));
        assert!(!has_no_display(folder.path(), "0000:09:00.0"));
        assert!(!has_no_display(folder.path(), ""));
        assert!(!has_no_display(folder.path(), "../0000:01:00.0"));
    }
}
