//! What stands in for NVIDIA's library in a build without the feature `energy`.

use std::convert::Infallible;

use super::NoReading;

/// The driver's library. There is none.
#[derive(Debug)]
pub struct Nvml(Infallible);

impl Nvml {
    /// Does not load it.
    ///
    /// # Errors
    /// Always.
    pub fn open() -> Result<Self, NoReading> {
        Err(NoReading::NotBuilt)
    }

    /// The driver's version, as it tells it.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        match self.0 {}
    }

    /// What the card of this name has used since the driver was loaded, in millijoules.
    ///
    /// # Errors
    /// Never, since there is no library.
    pub fn millijoules(&self, _name: &str) -> Result<u64, NoReading> {
        match self.0 {}
    }
}
