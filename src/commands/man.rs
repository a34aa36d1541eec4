//! `adit man`: the manual pages, from the command line's own grammar.

use adit::cli::{Cli, ManArgs, OutputArgs};
use adit::exit::Exit;
use adit::output::results::{Text, shown};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// What the foot of a page names.
const SOURCE: &str = concat!("adit ", env!("CARGO_PKG_VERSION"));

/// Writes one.
pub fn run(args: &ManArgs, output: &OutputArgs) -> anyhow::Result<Exit> {
    // `adit help mine` shows the same, and has no page of its own.
    let mut root = Cli::command().disable_help_subcommand(true);
    // So that each command knows its whole name, and the options that all of them take.
    root.build();
    let command = match &args.page {
        Some(name) => root.find_subcommand(name).context("manual page")?.clone(),
        None => root,
    };
    let page = render(command).context("manual page")?;
    let text = Text { text: String::from_utf8_lossy(&page).into_owned() };
    super::finish(&shown(&text, output.json), Exit::Done)
}

/// Its page, with the closing notes line for line as the help shows them.
fn render(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let notes = command.get_after_help().map(ToString::to_string);
    let has_commands = command.has_subcommands();
    let has_version = command.get_version().is_some();
    let man = Man::new(command).source(SOURCE).manual("adit manual");
    let mut page = Vec::new();
    // Section by section: `Man::render` puts the notes into one paragraph, under a heading that
    // says nothing.
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    if has_version {
        man.render_version_section(&mut page)?;
    }
    if let Some(notes) = notes {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]).control("nf", []);
        for line in notes.lines() {
            // Not an empty list: its line would be missing.
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}
