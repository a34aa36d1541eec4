//! The command line's grammar, asked about the keys of a file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, CommandFactory as _};

use crate::cli::{Cli, complaint};
use crate::exit::Failure;

/// The key of an option: its long name, or a positional's own.
pub(super) fn key_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

/// The command line's grammar as one can ask it about keys.
pub(crate) struct Grammar {
    /// As it is written down.
    plain: clap::Command,
    /// With all that clap adds, so that it can be asked.
    root: clap::Command,
    /// What is parsed with: clap prepares it once, and not for each value.
    parser: RefCell<clap::Command>,
}

impl Grammar {
    pub(crate) fn new() -> Self {
        let plain = Cli::command();
        // `adit help mine` is a way of asking, and nothing that has settings.
        let mut root = plain.clone().disable_help_subcommand(true);
        root.build();
        Self { parser: RefCell::new(plain.clone()), plain, root }
    }

    /// Reads a command line.
    pub(super) fn parse<T: Into<OsString> + Clone>(
        &self,
        argv: impl IntoIterator<Item = T>,
    ) -> Result<ArgMatches, clap::Error> {
        self.parser.borrow_mut().try_get_matches_from_mut(argv)
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = &str> {
        self.root.get_subcommands().map(clap::Command::get_name)
    }

    pub(super) fn args(&self, command: &str) -> impl Iterator<Item = &Arg> {
        self.root.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments)
    }

    pub(super) fn arg(&self, command: &str, key: &str) -> Option<&Arg> {
        self.args(command).find(|arg| key_of(arg) == key)
    }

    /// The keys that cannot stand beside `arg`, whichever of the two says so.
    pub(super) fn rivals<'a>(
        &'a self,
        command: &'a str,
        arg: &'a Arg,
    ) -> impl Iterator<Item = String> + 'a {
        let of = move |one: &Arg, other: &Arg| {
            self.root.find_subcommand(command).is_some_and(|c| {
                c.get_arg_conflicts_with(one).iter().any(|a| a.get_id() == other.get_id())
            })
        };
        self.args(command).filter(move |other| of(arg, other) || of(other, arg)).map(key_of)
    }

    /// A grammar in which these keys have these default values.
    pub(super) fn with_defaults(
        &self,
        command: &str,
        values: &BTreeMap<String, Vec<String>>,
    ) -> clap::Command {
        let mut root = self.plain.clone();
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
    pub(super) fn check(&self, command: &str, arg: &Arg, value: &str) -> Result<(), Failure> {
        let argument = match arg.get_long() {
            Some(long) => format!("--{long}={value}"),
            None => value.to_owned(),
        };
        let argv = match arg.get_long() {
            Some(_) => vec!["adit", command, &argument],
            None => vec!["adit", command, "--", &argument],
        };
        match self.parse(argv) {
            Ok(_) => Ok(()),
            // What else the command needs is for its own command line to bring.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
            Err(error) => Err(complaint(&error)),
        }
    }
}
