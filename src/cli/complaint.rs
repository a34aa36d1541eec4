//! What clap has to say, in the form that we promise.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::values::commands;
use crate::exit::{Exit, Failure};
use crate::value_error::{ValueError, redact, slip};

/// Where to read on.
const HELP: &str = "--help lists what there is";

/// Whether this is no error but a help or version text to be shown.
#[must_use]
pub fn is_display(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The error as a failure of usage. It shows no secret.
#[must_use]
pub fn complaint(error: &clap::Error) -> Failure {
    let usage = |what: String, why: String| Failure::new(Exit::Usage, what, why);
    let name = name(error);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(error),
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand);
            let failure =
                usage(format!("command {:?}", echo(&word)), "there is no such command".into());
            // clap suggests some, and none to `help`.
            match slip(&word, commands().iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure.hint(HELP),
            }
        }
        ErrorKind::ValueValidation => {
            let what = with_value(error, &name);
            match std::error::Error::source(error) {
                None => usage(what, "it is not valid".into()),
                Some(source) => {
                    let failure = usage(what, source.to_string());
                    match source.downcast_ref::<ValueError>() {
                        Some(ValueError { hint: Some(hint), .. }) => failure.hint(hint),
                        _ => failure,
                    }
                }
            }
        }
        ErrorKind::InvalidValue if text(error, ContextKind::InvalidValue).is_empty() => {
            usage(name, "its value is missing".into()).hint(HELP)
        }
        ErrorKind::InvalidValue => {
            let valid = list(error, ContextKind::ValidValue).join(" or ");
            let failure = usage(with_value(error, &name), format!("it must be {valid}"));
            match first(error, ContextKind::SuggestedValue) {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure,
            }
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<_> =
                list(error, ContextKind::PriorArg).iter().map(|arg| bare(arg)).collect();
            if others.is_empty() || others.contains(&name) {
                usage(name, "it is given more than once".into())
            } else {
                usage(name, format!("it cannot be used with {}", others.join(", ")))
            }
        }
        ErrorKind::TooManyValues => usage(name, "it takes no value".into()),
        ErrorKind::MissingRequiredArgument => {
            let missing = list(error, ContextKind::InvalidArg).join(", ");
            usage("the command line".into(), format!("{missing} is missing")).hint(HELP)
        }
        ErrorKind::MissingSubcommand => {
            usage("the command line".into(), "a command is missing".into()).hint(HELP)
        }
        ErrorKind::InvalidUtf8 => usage("the command line".into(), "it is not UTF-8".into()),
        // Whatever else there is or will be: clap's first line, which names no values of ours.
        kind => usage("the command line".into(), kind.as_str().unwrap_or("it is wrong").into())
            .hint(HELP),
    }
}

fn unknown(error: &clap::Error) -> Failure {
    let given = text(error, ContextKind::InvalidArg);
    if !given.starts_with('-') {
        return Failure::new(
            Exit::Usage,
            format!("argument {:?}", echo(&given)),
            "unexpected argument",
        )
        .hint(HELP);
    }
    // What follows the equals sign may be a password after a slip of the pen.
    let option = given.split('=').next().unwrap_or_default();
    let failure =
        Failure::new(Exit::Usage, format!("option {}", echo(option)), "there is no such option");
    match first(error, ContextKind::SuggestedArg) {
        Some(near) => failure.hint(format!("did you mean {}?", bare(&near))),
        None => failure.hint(HELP),
    }
}

/// The argument that the error is about: `--for`, or `source`.
fn name(error: &clap::Error) -> String {
    first(error, ContextKind::InvalidArg).map_or_else(String::new, |arg| bare(&arg))
}

/// `--for` of `--for <DURATION>`, `source` of `[SOURCE]`.
fn bare(arg: &str) -> String {
    match arg.split([' ', '=']).next().unwrap_or_default() {
        option if option.starts_with('-') => option.to_owned(),
        positional => positional.trim_matches(['[', ']', '<', '>', '.']).to_lowercase(),
    }
}

fn with_value(error: &clap::Error, name: &str) -> String {
    format!("{name} {:?}", echo(&text(error, ContextKind::InvalidValue)))
}

/// The longest value that is repeated in full.
const ECHO_MAX: usize = 80;

/// What was given, as it may be shown: without secrets, and not at length.
fn echo(value: &str) -> String {
    let value = redact(value);
    // The quotes that come around it show what is not printable.
    match value.char_indices().nth(ECHO_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value,
    }
}

fn list(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::Strings(all)) => all.clone(),
        Some(ContextValue::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    }
}

fn first(error: &clap::Error, kind: ContextKind) -> Option<String> {
    list(error, kind).into_iter().next()
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    first(error, kind).unwrap_or_default()
}
