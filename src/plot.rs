//! A bar chart as SVG or PNG: a bar a row, its spread as a line across the bar's end, and where two
//! runs are compared, both bars one above the other.
//!
//! The colours are Okabe and Ito's, which people who see colours differently can tell apart.

#[cfg(feature = "plot")]
mod drawing;
#[cfg(not(feature = "plot"))]
#[path = "plot/no_drawing.rs"]
mod drawing;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::drawing::NOT_BUILT;

/// What a chart shows.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// What it is about.
    pub title: String,
    /// What one has to know to believe it, line by line.
    pub remarks: Vec<String>,
    /// What the colours mean: a colour's number and its meaning.
    pub legend: Vec<(usize, String)>,
    /// The rows from the top.
    pub rows: Vec<Row>,
}

/// A row of a chart.
#[derive(Clone, Debug)]
pub struct Row {
    /// What belongs together: shown once, at the first of the rows that have it.
    pub group: String,
    /// The row's own name.
    pub label: String,
    /// One bar, or two.
    pub bars: Vec<Bar>,
    /// Said behind the bars.
    pub remark: String,
}

/// A bar, in hashes per second.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Its length.
    pub value: f64,
    /// Where the line across its end begins,
    pub low: f64,
    /// and where it ends.
    pub high: f64,
    /// Which of the legend's colours it has.
    pub colour: usize,
}

/// The form of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Scalable vector graphics.
    Svg,
    /// A picture of pixels.
    Png,
}

/// A file to be drawn into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlotFile {
    /// Where.
    pub path: PathBuf,
    /// In which form.
    pub form: Form,
}

/// A name that does not say which form is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its name ends neither with .svg nor with .png")]
pub struct NoForm;

impl FromStr for PlotFile {
    type Err = NoForm;

    fn from_str(name: &str) -> Result<Self, NoForm> {
        let path = PathBuf::from(name);
        let end = path.extension().unwrap_or_default().to_ascii_lowercase();
        let form = match end.to_str() {
            Some("svg") => Form::Svg,
            Some("png") => Form::Png,
            _ => return Err(NoForm),
        };
        Ok(Self { path, form })
    }
}

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// It could not be drawn.
    #[error("{0}")]
    Drawing(String),
    /// It could not be written.
    #[error("{0}")]
    Writing(#[from] std::io::Error),
}

impl PlotFile {
    /// Draws the chart and writes the file.
    ///
    /// # Errors
    /// When it cannot be drawn or written.
    pub fn write(&self, chart: &Chart) -> Result<(), PlotError> {
        let bytes = match self.form {
            Form::Svg => chart.svg()?.into_bytes(),
            Form::Png => chart.png()?,
        };
        write_whole(&self.path, &bytes)?;
        Ok(())
    }
}

/// Writes beside the file and renames, so that a reader never sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path).inspect_err(|_| {
        // What is left of it is in the way of the next try at most.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_form() {
        let form = |name: &str| name.parse::<PlotFile>().map(|file| file.form);
        assert_eq!((form("a.svg"), form("b/c.PNG")), (Ok(Form::Svg), Ok(Form::Png)));
        for name in ["", "a", "a.jpg", "svg", ".svg"] {
            assert_eq!(form(name), Err(NoForm), "{name}");
        }
    }
}
