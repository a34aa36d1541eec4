//! The energy counters of NVIDIA's cards, by the driver's own library (NVML). It is loaded when it
//! is wanted: without a driver there is a reason instead of figures.

use std::fmt;

use super::NoReading;

/// The driver's library.
pub struct Nvml {
    library: nvml_wrapper::Nvml,
    /// Each card's number and name.
    cards: Vec<(u32, String)>,
}

impl Nvml {
    /// Loads it.
    ///
    /// # Errors
    /// When the library is missing, or it finds no driver.
    pub fn open() -> Result<Self, NoReading> {
        let library = nvml_wrapper::Nvml::init().map_err(reason)?;
        let count = library.device_count().map_err(reason)?;
        let name = |number| Some((number, library.device_by_index(number).ok()?.name().ok()?));
        let cards = (0..count).filter_map(name).collect();
        Ok(Self { library, cards })
    }

    /// The driver's version, as it tells it.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        self.library.sys_driver_version().ok()
    }

    /// What the card of this name has used since the driver was loaded, in millijoules.
    ///
    /// # Errors
    /// When there is not exactly one card of that name, or when it has no such counter (those
    /// before Volta have none).
    pub fn millijoules(&self, name: &str) -> Result<u64, NoReading> {
        let mut of_name = self.cards.iter().filter(|(_, card)| card == name);
        let count = of_name.clone().count();
        match (of_name.next(), count) {
            (Some((number, _)), 1) => self
                .library
                .device_by_index(*number)
                .and_then(|card| card.total_energy_consumption())
                .map_err(reason),
            _ => Err(NoReading::WhichCard { name: name.to_owned(), count }),
        }
    }
}

fn reason(error: nvml_wrapper::error::NvmlError) -> NoReading {
    use nvml_wrapper::error::NvmlError;
    NoReading::Nvml(match error {
        // The loader's own words name paths, and say no more than this.
        NvmlError::LibloadingError(_) => "no NVIDIA driver is installed".to_owned(),
        other => other.to_string(),
    })
}

impl fmt::Debug for Nvml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvml").field("cards", &self.cards).finish_non_exhaustive()
    }
}
