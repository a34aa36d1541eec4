//! What can be wrong with a configuration file.

use std::io;
use std::path::PathBuf;

use crate::exit::{Exit, Failure};

/// What is wrong with the configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", self.place())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, where known.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a configuration file. No value of it is repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It is a directory.
    #[error("it is a directory")]
    Directory,
    /// It is too large.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// It is not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is not TOML.
    #[error("it is not TOML: {0}")]
    Syntax(String),
    /// A key is not known.
    #[error("there is no key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The known one that looks most like it.
        nearest: Option<String>,
    },
    /// A key that makes no sense in a file.
    #[error("`{0}` is for the command line only")]
    NotInFile(String),
    /// A value is of a wrong type.
    #[error("`{key}` takes {expected}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// A value is of the right type and still wrong.
    #[error("`{key}`: {why}")]
    BadValue {
        /// The key.
        key: String,
        /// Why.
        why: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Two keys exclude each other.
    #[error("`{0}` cannot be used with `{1}`")]
    Rivals(String, String),
}

impl ConfigError {
    fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = match &error.problem {
            Problem::UnknownKey { nearest: Some(near), .. } => {
                Some(format!("did you mean `{near}`?"))
            }
            Problem::BadValue { hint, .. } => hint.clone(),
            Problem::Syntax(_) => Some("strings stand in quotes: key = \"value\"".to_owned()),
            _ => None,
        };
        let what = format!("configuration file {}", error.place());
        Self { exit: Exit::Usage, what, why: error.problem.to_string(), hint }
    }
}
