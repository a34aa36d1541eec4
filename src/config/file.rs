//! The file itself: read, taken apart, and each value checked against the grammar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

use super::grammar::{Grammar, key_of};
use super::{ConfigError, Problem, ProcessEnvironment};
use crate::value_error::nearest;

/// The most bytes that a configuration file may have.
const SIZE_MAX: u64 = 1 << 20;

/// Options that say where settings come from cannot be settings, nor can what a command is to do
/// this once.
const NOT_IN_FILE: [&str; 6] = ["config", "help", "version", "header", "shell", "page"];

/// Options whose value is a comma-separated list, which a file may write as an array.
const LISTS: [&str; 1] = ["backend"];

/// Options that take several values, which a file writes as an array.
const SEVERAL: [&str; 1] = ["source"];

/// One setting of the file.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) line: usize,
    /// As they would stand on the command line; `None` for a switch that is off.
    pub(super) values: Option<Vec<String>>,
}

/// What stands in the file: settings for all commands, under "", and for each of them.
pub(super) struct Settings {
    tables: BTreeMap<String, BTreeMap<String, Setting>>,
}

impl Settings {
    pub(super) fn parse(grammar: &Grammar, file: &Path, text: &str) -> Result<Self, ConfigError> {
        let fault = |at: usize, problem| ConfigError {
            file: file.to_owned(),
            line: Some(line_at(text, at)),
            problem,
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: error.span().map(|span| line_at(text, span.start)),
            problem: Problem::Syntax(error.message().to_owned()),
        })?;
        let mut tables: BTreeMap<String, BTreeMap<String, Setting>> = BTreeMap::new();
        for (key, value) in document.get_ref() {
            let (at, key, value) = (key.span().start, key.get_ref().as_ref(), value.get_ref());
            if grammar.commands().any(|command| command == key) {
                let DeValue::Table(table) = value else {
                    let found = value_type(value);
                    let problem =
                        Problem::WrongType { key: key.to_owned(), expected: "a table", found };
                    return Err(fault(at, problem));
                };
                for (inner, value) in table {
                    let at = inner.span().start;
                    let inner = inner.get_ref().as_ref();
                    let values = setting(grammar, &[key], inner, value.get_ref())
                        .map_err(|problem| fault(at, problem))?;
                    let setting = Setting { line: line_at(text, at), values };
                    tables.entry(key.to_owned()).or_default().insert(inner.to_owned(), setting);
                }
            } else {
                let commands: Vec<&str> = grammar.commands().collect();
                let values = setting(grammar, &commands, key, value)
                    .map_err(|problem| fault(at, problem))?;
                let setting = Setting { line: line_at(text, at), values };
                tables.entry(String::new()).or_default().insert(key.to_owned(), setting);
            }
        }
        Ok(Self { tables })
    }

    /// The settings that concern a command: its own table beats what stands outside.
    pub(super) fn of_command(&self, command: &str) -> BTreeMap<String, Setting> {
        let mut all = self.tables.get("").cloned().unwrap_or_default();
        all.extend(self.tables.get(command).cloned().unwrap_or_default());
        all
    }

    /// A warning when the file holds a secret and everyone may read it.
    pub(super) fn exposed(&self, file: &Path) -> Option<String> {
        let secret = self.tables.values().flatten().any(|(key, setting)| {
            key.ends_with("password")
                || (["source", "proxy"].contains(&key.as_str())
                    && setting.values.iter().flatten().any(|url| url.contains('@')))
        });
        (secret && readable_by_all(file)).then(|| {
            format!(
                "{} holds a password and everyone on this machine can read it: chmod 600 it",
                file.display()
            )
        })
    }
}

/// Takes one key and its value, which must suit all of `commands` that know the key.
fn setting(
    grammar: &Grammar,
    commands: &[&str],
    key: &str,
    value: &DeValue<'_>,
) -> Result<Option<Vec<String>>, Problem> {
    if NOT_IN_FILE.contains(&key) {
        return Err(Problem::NotInFile(key.to_owned()));
    }
    let known: Vec<_> = commands
        .iter()
        .filter_map(|command| grammar.arg(command, key).map(|arg| (*command, arg)))
        .collect();
    if known.is_empty() {
        let mut keys: Vec<String> = commands
            .iter()
            .flat_map(|command| grammar.args(command).map(key_of))
            .filter(|key| !NOT_IN_FILE.contains(&key.as_str()))
            .collect();
        if commands.len() == grammar.commands().count() {
            keys.extend(grammar.commands().map(str::to_owned));
        }
        let near = nearest(key, keys.iter().map(String::as_str)).map(str::to_owned);
        return Err(Problem::UnknownKey { key: key.to_owned(), nearest: near });
    }
    let mut taken = None;
    for (command, arg) in known {
        taken = as_arguments(arg, key, value)?;
        for value in taken.iter().flatten().filter(|_| arg.get_action().takes_values()) {
            grammar.check(command, arg, value).map_err(|failure| Problem::BadValue {
                key: key.to_owned(),
                why: failure.why,
                hint: failure.hint,
            })?;
        }
    }
    Ok(taken)
}

/// A value as one or more would stand on the command line; `None` for a switch that is off.
fn as_arguments(arg: &Arg, key: &str, value: &DeValue<'_>) -> Result<Option<Vec<String>>, Problem> {
    let expected = "a string or an array of strings";
    let wrong = || Problem::WrongType { key: key.to_owned(), expected, found: value_type(value) };
    match value {
        DeValue::Array(parts) if SEVERAL.contains(&key) && !parts.is_empty() => parts
            .iter()
            .map(|part| part.get_ref().as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some),
        DeValue::String(_) => Ok(as_argument(arg, key, value)?.map(|value| vec![value])),
        _ if SEVERAL.contains(&key) => Err(wrong()),
        _ => Ok(as_argument(arg, key, value)?.map(|value| vec![value])),
    }
}

/// A single value as it would stand on the command line; `None` for a switch that is off.
fn as_argument(arg: &Arg, key: &str, value: &DeValue<'_>) -> Result<Option<String>, Problem> {
    let wrong =
        |expected| Problem::WrongType { key: key.to_owned(), expected, found: value_type(value) };
    match arg.get_action() {
        ArgAction::SetTrue => match value {
            DeValue::Boolean(on) => Ok(on.then(|| "true".to_owned())),
            _ => Err(wrong("true or false")),
        },
        ArgAction::Count => match value {
            DeValue::Boolean(on) => Ok(on.then(|| "1".to_owned())),
            DeValue::Integer(times) => match times.as_str().parse::<u8>() {
                Ok(times) => Ok((times > 0).then(|| times.to_string())),
                Err(_) => Err(wrong("true, false or a small number")),
            },
            _ => Err(wrong("true, false or a small number")),
        },
        _ => match value {
            DeValue::String(text) => Ok(Some(text.clone().into_owned())),
            DeValue::Integer(number) => Ok(Some(plain_integer(number))),
            DeValue::Float(number) => Ok(Some(number.as_str().to_owned())),
            DeValue::Array(parts) if LISTS.contains(&key) => parts
                .iter()
                .map(|part| part.get_ref().as_str().ok_or_else(|| wrong("an array of strings")))
                .collect::<Result<Vec<_>, _>>()
                .map(|parts| Some(parts.join(","))),
            _ if LISTS.contains(&key) => Err(wrong("a string or an array of strings")),
            _ => Err(wrong("a string or a number")),
        },
    }
}

/// An integer in plain decimal, however the file writes it.
fn plain_integer(number: &toml::de::DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())
}

/// The type of a value in words.
fn value_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "this number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The number of the line that holds byte `at`.
fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Reads the file that is named, or the default one if there is one.
pub(super) fn read(
    named: Option<&PathBuf>,
    environment: &ProcessEnvironment<'_>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let file = match (named, &environment.default_file) {
        (Some(file), _) => file.clone(),
        // Where it may not even be seen whether there is one, it counts as absent.
        (None, Some(file)) if fs::metadata(file).is_ok() => file.clone(),
        _ => return Ok(None),
    };
    let fault = |problem| ConfigError { file: file.clone(), line: None, problem };
    let opened = File::open(&file).map_err(|error| fault(Problem::Unreadable(error)))?;
    if opened.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(fault(Problem::Directory));
    }
    let mut bytes = Vec::new();
    opened
        .take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(Problem::Unreadable(error)))?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(fault(Problem::TooLarge));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault(Problem::NotUtf8))?;
    Ok(Some((file, text)))
}

#[cfg(unix)]
fn readable_by_all(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn readable_by_all(_file: &Path) -> bool {
    false
}
