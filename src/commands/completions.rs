//! `adit completions`: a shell's completion script, from the command line's own grammar.

use adit::cli::{Cli, CompletionsArgs, OutputArgs};
use adit::exit::Exit;
use adit::report::results::{Text, shown};
use clap::CommandFactory as _;

/// Writes it.
pub fn run(args: CompletionsArgs, output: &OutputArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "adit", &mut script);
    let text = Text { text: String::from_utf8_lossy(&script).into_owned() };
    super::finish(&shown(&text, output.json), Exit::Done)
}
