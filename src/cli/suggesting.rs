//! Values that a shell's completion offers, where others are taken too.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};

use crate::value_error::ValueError;

/// A parser, and the values that it suggests.
#[derive(Clone)]
pub(super) struct Suggesting<P> {
    suggested: fn() -> Vec<String>,
    parser: P,
}

/// A value's parser as the grammar has them.
type Parser<T> = fn(&str) -> Result<T, ValueError>;

/// Takes what `parser` takes, and has completions offer what is `suggested`.
pub(super) fn suggesting<T>(
    suggested: fn() -> Vec<String>,
    parser: Parser<T>,
) -> Suggesting<Parser<T>> {
    Suggesting { suggested, parser }
}

impl<P: TypedValueParser> TypedValueParser for Suggesting<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        self.parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.suggested)().into_iter().map(PossibleValue::new)))
    }
}
