//! Finds the graphics cards, numbers them, and describes them.

use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use wgpu::{Backend, Backends, DeviceType};

use super::deadlines;
use super::error::{DeviceError, DeviceErrorSlot};
use super::thread::{DeviceThread, Waited};

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuKind {
    /// A card with its own memory.
    Discrete,
    /// Part of the processor, sharing its memory.
    Integrated,
    /// A share of a card that a virtual machine gets.
    Virtual,
    /// The driver does not report it.
    Other,
    /// A software implementation on the processor.
    Software,
}

impl GpuKind {
    /// The word in `--json` output.
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
    /// Its number, as in `gpu:N`.
    pub index: usize,
    /// Its name, as the driver reports it.
    pub name: String,
    /// `Vulkan`, `Metal` or `DX12`.
    pub api: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// The kind of device.
    pub kind: GpuKind,
    /// The number of an earlier entry for the same card, over another API or driver.
    pub same_as: Option<usize>,
    /// Its PCI address, such as `0000:01:00.0`; empty where it is unknown.
    pci: String,
    adapter: wgpu::Adapter,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu:{} {} ({}, {})", self.index, self.name, self.api, self.driver)
    }
}

impl Gpu {
    /// Whether `gpu` and `auto` use it: a real card, and not a second entry for one.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.kind != GpuKind::Software && self.same_as.is_none()
    }

    /// Whether a display may be connected to it, which long batches would make stutter. True where that
    /// is unknown.
    #[must_use]
    pub fn may_have_display(&self) -> bool {
        match self.kind {
            GpuKind::Software => false,
            GpuKind::Integrated => true,
            _ => !has_no_display(Path::new("/sys/bus/pci/devices"), &self.pci),
        }
    }

    pub(super) fn adapter(&self) -> &wgpu::Adapter {
        &self.adapter
    }

    /// Searches again for the same card, through a new instance of its driver.
    pub(super) fn find_again(&self) -> Option<Self> {
        let same = |gpu: &Self| {
            (&gpu.name, gpu.api, &gpu.pci) == (&self.name, self.api, &self.pci)
                && (gpu.index == self.index || !self.pci.is_empty())
        };
        enumerate().into_iter().find(same)
    }
}

/// Whether Linux reports that no display is connected to the card at this PCI address. A PCI "3D
/// controller" has no display output. A "VGA controller" has, and each of its connectors has a status;
/// where no connectors are listed, as with NVIDIA's driver without mode setting, nothing is known.
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

/// Every card of every API, numbered in the order in which the drivers list them. Empty where there is
/// no driver, or where one does not answer.
#[must_use]
pub fn enumerate() -> Vec<Gpu> {
    let search = |found: &mpsc::Sender<_>| {
        // The receiver is gone if the search took too long.
        let _ = found.send(search());
    };
    let thread = DeviceThread::start("gpu-search".to_owned(), DeviceErrorSlot::default(), search);
    let why =
        match thread.and_then(|thread| thread.wait(deadlines::SEARCH, Duration::ZERO, &|| false)) {
            Ok(Waited::Ready(gpus)) => return gpus,
            Ok(Waited::Stopped) => return Vec::new(),
            Err(DeviceError::Hung(_)) => "a driver does not answer".to_owned(),
            Err(error) => error.to_string(),
        };
    tracing::warn!("searching for graphics cards: {why}; none is used");
    Vec::new()
}

fn search() -> Vec<Gpu> {
    let apis = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: apis,
        // No validation and no debug information, not even in a debug build.
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
        let parts = [info.driver.trim(), info.driver_info.trim()];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => GpuKind::Discrete,
            DeviceType::IntegratedGpu => GpuKind::Integrated,
            DeviceType::VirtualGpu => GpuKind::Virtual,
            DeviceType::Cpu => GpuKind::Software,
            DeviceType::Other => GpuKind::Other,
        };
        let mut gpu = Gpu {
            index: gpus.len(),
            name: info.name.trim().to_owned(),
            api,
            driver: parts.join(" "),
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
    // One API lists each card once, so equal entries of the same API are different cards.
    let ids = |gpu: &Gpu| {
        let info = gpu.adapter.get_info();
        (info.vendor & 0xffff, info.device & 0xffff)
    };
    a.api != b.api && ids(a) == ids(b)
}

/// Whether there may be a card, so that loading its drivers is worth the time and memory: on Linux every
/// driver of a real card has a device file.
#[must_use]
pub fn may_be_present() -> bool {
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
    fn a_card_is_identified_by_its_pci_address() {
        let gpu = enumerate().into_iter().next().expect("a software Vulkan device");
        let at = |api, pci: &str| Gpu { api, pci: pci.to_owned(), ..gpu.clone() };
        let (first, second) = ("0000:01:00.0", "0000:02:00.0");
        assert!(is_same(&at("Vulkan", first), &at("DX12", first)));
        assert!(is_same(&at("Vulkan", first), &at("Vulkan", first)), "two drivers");
        assert!(!is_same(&at("Vulkan", first), &at("Vulkan", second)));
        assert!(!is_same(&at("Vulkan", first), &at("DX12", second)));
        // Where an address is unknown, the vendor and device numbers decide.
        assert!(is_same(&at("Vulkan", first), &at("DX12", "")));
        assert!(!is_same(&at("Vulkan", first), &at("Vulkan", "")));
        assert!(!is_same(&at("Vulkan", ""), &at("Vulkan", "")));
    }

    #[test]
    fn displays_are_detected_by_the_status_of_the_connectors() {
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
        assert!(!device("0000:04:00.0", "0x030000\n", &[]), "its driver does not list connectors");
        assert!(!device("0000:05:00.0", "0x030000\n", &["unknown\n"]));
        assert!(!has_no_display(folder.path(), "0000:09:00.0"));
        assert!(!has_no_display(folder.path(), ""));
        assert!(!has_no_display(folder.path(), "../0000:01:00.0"));
    }
}
