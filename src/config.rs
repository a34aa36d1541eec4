//! The configuration file, merged with the command line and the environment.
//!
//! There is one grammar, the command line's: a key of the file is a long option, its value is
//! checked by that option's parser, and it takes part as the option's default value. So the command
//! line beats the environment, and the environment beats the file.

mod file;
mod grammar;
mod problem;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::FromArgMatches as _;
use clap::parser::ValueSource;

pub use self::problem::{ConfigError, Problem};

use self::file::{Settings, read};
pub(crate) use self::grammar::Grammar;
use self::grammar::key_of;
use crate::cli::{Cli, Command, complaint, is_display};
use crate::exit::{Exit, Failure};
use crate::protocols::{self, LoginOptions, SourceSpec};

/// Options that may stand in the environment beside the secrets of the sources: what is set for every
/// command of a session, such as a run of tests.
const IN_ENVIRONMENT: [(&str, &str); 1] = [("disable-cpu-features", "ADIT_DISABLE_CPU_FEATURES")];

/// What an invocation depends on beside the command line.
pub struct ProcessEnvironment<'a> {
    /// Looks a variable up in the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The configuration file that is read when none is named; it may be missing.
    pub default_file: Option<PathBuf>,
}

impl ProcessEnvironment<'_> {
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

impl fmt::Debug for ProcessEnvironment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessEnvironment").field("default_file", &self.default_file).finish()
    }
}

/// What is to be done, after command line, environment and file have had their say.
#[derive(Debug)]
pub struct Invocation {
    /// The command and its options.
    pub cli: Cli,
    /// What to warn the user of as soon as there is a log.
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
    environment: &ProcessEnvironment<'_>,
) -> Result<Invocation, NotRun> {
    invocation_by(&Grammar::new(), argv, environment)
}

/// [`invocation`] by a grammar that is there already.
pub(crate) fn invocation_by(
    grammar: &Grammar,
    argv: impl IntoIterator<Item = OsString>,
    environment: &ProcessEnvironment<'_>,
) -> Result<Invocation, NotRun> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let matches = grammar.parse(&argv)?;
    let (command, given) = matches.subcommand().unwrap_or(("", &matches));

    let mut layers = BTreeMap::new();
    for arg in grammar.args(command) {
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            layers.insert(key_of(arg), Layer::CommandLine);
        }
    }

    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, variable) in IN_ENVIRONMENT.into_iter().chain(protocols::IN_ENVIRONMENT) {
        let value = (environment.variable)(variable).filter(|value| !value.is_empty());
        let (Some(arg), Some(value)) = (grammar.arg(command, key), value) else { continue };
        if layers.contains_key(key) || grammar.rivals(command, arg).any(|r| layers.contains_key(&r))
        {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| NotRun::Failure(Failure::new(Exit::Usage, variable, "it is not UTF-8")))?;
        grammar
            .check(command, arg, &value)
            .map_err(|failure| NotRun::Failure(Failure { what: variable.to_owned(), ..failure }))?;
        values.insert(key.to_owned(), vec![value]);
        layers.insert(key.to_owned(), Layer::Environment);
    }

    let mut warnings = Vec::new();
    let named = given.try_get_one::<PathBuf>("config").ok().flatten();
    if let Some((file, text)) = read(named, environment)? {
        let settings = Settings::parse(grammar, &file, &text)?;
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
    let Some(LoginOptions { peer, options }) = &source.protocol().login else { return Ok(()) };
    let Some(url) = source.url_mut() else { return Ok(()) };
    for key in options.iter().copied() {
        let is_password = key.ends_with("password");
        let contested = if is_password { url.password.is_some() } else { url.user.is_some() };
        let Some(layer) = layers.get(key).copied().filter(|_| contested) else { continue };
        match Some(layer).cmp(&from) {
            std::cmp::Ordering::Greater => {
                url.password = None;
                if !is_password {
                    url.user = None;
                }
            }
            // The login in the URL is taken first.
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal if !alone => {}
            std::cmp::Ordering::Equal => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("login to the {peer}"),
                    format!("both the source's URL and {key} give one"),
                )
                .hint("omit one of them"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
