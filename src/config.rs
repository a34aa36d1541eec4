//! The configuration file, merged with the command line and the environment.
//!
//! There is one grammar, the command line's: a key of the file is a long option, its value is
//! checked by that option's parser, and it takes part as the option's default value. So the command
//! line beats the environment, and the environment beats the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _};
use toml::de::{DeTable, DeValue};

use crate::cli::{Cli, Command, SourceSpec, complaint, is_display, nearest};
use crate::exit::{Exit, Failure};

/// The most bytes that a configuration file may have.
const SIZE_MAX: u64 = 1 << 20;

/// Options that may stand in the environment: the secrets.
const IN_ENVIRONMENT: [(&str, &str); 3] = [
    ("rpc-password", "ADIT_RPC_PASSWORD"),
    ("password", "ADIT_POOL_PASSWORD"),
    ("proxy-password", "ADIT_PROXY_PASSWORD"),
];

/// Options that say where settings come from cannot be settings, nor can what a command is to do
/// this once.
const NOT_IN_FILE: [&str; 6] = ["config", "help", "version", "header", "shell", "page"];

/// Options whose value is a comma-separated list, which a file may write as an array.
const LISTS: [&str; 1] = ["backend"];

/// Options that take several values, which a file writes as an array.
const SEVERAL: [&str; 1] = ["source"];

/// What surrounds the command line.
pub struct Surroundings<'a> {
    /// Looks a variable up in the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The configuration file that is read when none is named; it may be missing.
    pub default_file: Option<PathBuf>,
}

impl Surroundings<'_> {
    /// The process's own.
    #[must_use]
    pub fn process() -> Self {
        use etcetera::BaseStrategy as _;
        Self {
            variable: &|name| std::env::var_os(name),
            default_file: etcetera::choose_base_strategy()
                .ok()
                .map(|dirs| dirs.config_dir().join("adit.toml")),
        }
    }
}

/// Where a program may keep its state between runs on this user's behalf.
#[must_use]
pub fn state_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("adit"))
}

/// Where a program may keep what it can make anew, on this user's behalf.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.cache_dir().join("adit"))
}

/// What is to be done, after command line, environment and file have had their say.
#[derive(Debug)]
pub struct Invocation {
    /// The command and its options.
    pub cli: Cli,
    /// What a person should be warned of as soon as there is a log.
    pub warnings: Vec<String>,
}

/// Why there is nothing to be run.
#[derive(Debug)]
pub enum NotRun {
    /// A help or version text was asked for.
    Display(clap::Error),
    /// Something is wrong.
    Failure(Failure),
}

impl From<clap::Error> for NotRun {
    fn from(error: clap::Error) -> Self {
        if is_display(&error) { Self::Display(error) } else { Self::Failure(complaint(&error)) }
    }
}

impl From<ConfigError> for NotRun {
    fn from(error: ConfigError) -> Self {
        Self::Failure(error.into())
    }
}

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
    #[error("`{0}` does not go together with `{1}`")]
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

/// Who gave an option: the later beats the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    File,
    Environment,
    CommandLine,
}

/// Reads command line, environment and configuration file.
///
/// # Errors
/// When help or version were asked for, or when something is wrong.
pub fn invocation(
    argv: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Invocation, NotRun> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let grammar = Grammar::new();
    let matches = Cli::command().try_get_matches_from(&argv)?;
    let (command, given) = matches.subcommand().unwrap_or(("", &matches));

    let mut layers = BTreeMap::new();
    for arg in grammar.args(command) {
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            layers.insert(key_of(arg), Layer::CommandLine);
        }
    }

    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, variable) in IN_ENVIRONMENT {
        let value = (surroundings.variable)(variable).filter(|value| !value.is_empty());
        let (Some(arg), Some(value)) = (grammar.arg(command, key), value) else { continue };
        if layers.contains_key(key) || grammar.rivals(command, arg).any(|r| layers.contains_key(&r))
        {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| NotRun::Failure(Failure::new(Exit::Usage, variable, "it is not UTF-8")))?;
        values.insert(key.to_owned(), vec![value]);
        layers.insert(key.to_owned(), Layer::Environment);
    }

    let mut warnings = Vec::new();
    let named = given.try_get_one::<PathBuf>("config").ok().flatten();
    if let Some((file, text)) = read(named, surroundings)? {
        let settings = Settings::parse(&grammar, &file, &text)?;
        warnings.extend(settings.exposed(&file));
        let higher = layers.clone();
        for (key, setting) in settings.of_command(command) {
            let Some(arg) = grammar.arg(command, &key) else { continue };
            let mut rivals = grammar.rivals(command, arg);
            if higher.contains_key(&key) || rivals.any(|rival| higher.contains_key(&rival)) {
                continue;
            }
            let rival = grammar.rivals(command, arg).find(|rival| layers.contains_key(rival));
            if let Some(rival) = rival {
                let problem = Problem::Rivals(key, rival);
                return Err(ConfigError { file, line: Some(setting.line), problem }.into());
            }
            if let Some(given) = &setting.values {
                values.insert(key.clone(), given.clone());
                layers.insert(key, Layer::File);
            }
        }
    }

    let merged = grammar.with_defaults(command, &values).try_get_matches_from(&argv)?;
    let mut cli = Cli::from_arg_matches(&merged)?;
    if let Command::Mine(mine) = &mut cli.command {
        let from = layers.get("source").copied();
        let alone = mine.source.len() == 1;
        for source in &mut mine.source {
            settle_login(source, alone, from, &layers).map_err(NotRun::Failure)?;
        }
    }
    if let Command::Estimate(estimate) = &mut cli.command
        && let Some(node) = &mut estimate.node
    {
        let from = layers.get("node").copied();
        settle_login(node, true, from, &layers).map_err(NotRun::Failure)?;
    }
    Ok(Invocation { cli, warnings })
}

/// A source's URL and the options can both give a login: the higher layer's holds. In one layer that
/// is an error, unless the options are there for other sources (`alone` is false).
fn settle_login(
    source: &mut SourceSpec,
    alone: bool,
    from: Option<Layer>,
    layers: &BTreeMap<String, Layer>,
) -> Result<(), Failure> {
    let (peer, url_user, url_password, keys): (_, _, _, &[&str]) = match source {
        SourceSpec::Rpc(url) => {
            ("node", &mut url.user, &mut url.password, &["rpc-cookie", "rpc-user", "rpc-password"])
        }
        SourceSpec::Pool(url) => ("pool", &mut url.user, &mut url.password, &["user", "password"]),
        SourceSpec::Builtin | SourceSpec::LocalNode(_) => return Ok(()),
    };
    for key in keys.iter().copied() {
        let is_password = key.ends_with("password");
        let contested = if is_password { url_password.is_some() } else { url_user.is_some() };
        let Some(layer) = layers.get(key).copied().filter(|_| contested) else { continue };
        match Some(layer).cmp(&from) {
            std::cmp::Ordering::Greater => {
                *url_password = None;
                if !is_password {
                    *url_user = None;
                }
            }
            // Whoever logs in takes what the URL says first.
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal if !alone => {}
            std::cmp::Ordering::Equal => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("login to the {peer}"),
                    format!("both the source's URL and {key} give one"),
                )
                .hint("leave one of them away"));
            }
        }
    }
    Ok(())
}

/// The key of an option: its long name, or a positional's own.
fn key_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

/// The command line's grammar as one can ask it about keys.
struct Grammar {
    root: clap::Command,
}

impl Grammar {
    fn new() -> Self {
        let mut root = Cli::command();
        root.build();
        Self { root }
    }

    fn commands(&self) -> impl Iterator<Item = &str> {
        self.root.get_subcommands().map(clap::Command::get_name)
    }

    fn args(&self, command: &str) -> impl Iterator<Item = &Arg> {
        self.root.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments)
    }

    fn arg(&self, command: &str, key: &str) -> Option<&Arg> {
        self.args(command).find(|arg| key_of(arg) == key)
    }

    /// The keys that cannot stand beside `arg`, whichever of the two says so.
    fn rivals<'a>(&'a self, command: &'a str, arg: &'a Arg) -> impl Iterator<Item = String> + 'a {
        let of = move |one: &Arg, other: &Arg| {
            self.root.find_subcommand(command).is_some_and(|c| {
                c.get_arg_conflicts_with(one).iter().any(|a| a.get_id() == other.get_id())
            })
        };
        self.args(command).filter(move |other| of(arg, other) || of(other, arg)).map(key_of)
    }

    /// A grammar in which these keys have these default values.
    fn with_defaults(
        &self,
        command: &str,
        values: &BTreeMap<String, Vec<String>>,
    ) -> clap::Command {
        let mut root = Cli::command();
        for (key, values) in values {
            let Some(arg) = self.arg(command, key) else { continue };
            let id = arg.get_id().clone();
            let set = |arg: Arg| arg.default_values(values.clone());
            root = if arg.is_global_set() {
                root.mut_arg(id, set)
            } else {
                root.mut_subcommand(command, |command| command.mut_arg(id, set))
            };
        }
        root
    }

    /// Checks a value as the command line would.
    fn check(command: &str, arg: &Arg, value: &str) -> Result<(), Failure> {
        let argument = match arg.get_long() {
            Some(long) => format!("--{long}={value}"),
            None => value.to_owned(),
        };
        let argv = match arg.get_long() {
            Some(_) => vec!["adit", command, &argument],
            None => vec!["adit", command, "--", &argument],
        };
        match Cli::command().try_get_matches_from(argv) {
            Ok(_) => Ok(()),
            // What else the command needs is for its own command line to bring.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
            Err(error) => Err(complaint(&error)),
        }
    }
}

/// One setting of the file.
#[derive(Clone, Debug)]
struct Setting {
    line: usize,
    /// As they would stand on the command line; `None` for a switch that is off.
    values: Option<Vec<String>>,
}

/// What stands in the file: settings for all commands, under "", and for each of them.
struct Settings {
    tables: BTreeMap<String, BTreeMap<String, Setting>>,
}

impl Settings {
    fn parse(grammar: &Grammar, file: &Path, text: &str) -> Result<Self, ConfigError> {
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
    fn of_command(&self, command: &str) -> BTreeMap<String, Setting> {
        let mut all = self.tables.get("").cloned().unwrap_or_default();
        all.extend(self.tables.get(command).cloned().unwrap_or_default());
        all
    }

    /// A warning when the file holds a secret and everyone may read it.
    fn exposed(&self, file: &Path) -> Option<String> {
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
            Grammar::check(command, arg, value).map_err(|failure| Problem::BadValue {
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

/// The type of a value as a person says it.
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
fn read(
    named: Option<&PathBuf>,
    surroundings: &Surroundings<'_>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let file = match (named, &surroundings.default_file) {
        (Some(file), _) => file.clone(),
        // Where we may not even see whether there is one, there is none for us.
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

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("default_file", &self.default_file).finish()
    }
}

#[cfg(test)]
mod tests;
