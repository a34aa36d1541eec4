//! What stands in for drawing in a build without the feature `plot`.

use super::{Chart, PlotError};

/// Why this build of adit draws no charts, if it draws none.
pub const NOT_BUILT: Option<&str> =
    Some("this build of adit draws no charts: it was built without the feature `plot`");

/// What every chart comes to.
fn not_built() -> PlotError {
    PlotError::Drawing(NOT_BUILT.unwrap_or_default().to_owned())
}

impl Chart {
    /// As SVG, which this build cannot draw.
    ///
    /// # Errors
    /// Always.
    pub fn svg(&self) -> Result<String, PlotError> {
        Err(not_built())
    }

    /// As PNG, which this build cannot draw.
    ///
    /// # Errors
    /// Always.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        Err(not_built())
    }
}
