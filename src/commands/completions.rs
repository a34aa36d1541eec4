//! `adit completions`: a shell's completion script, from the command line's own grammar.

use std::fmt::Write as _;

use adit::cli::{Cli, CompletionsArgs, OutputArgs};
use adit::exit::Exit;
use adit::output::results::{Text, shown};
use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::Shell;

/// Writes it.
pub fn run(args: CompletionsArgs, output: &OutputArgs) -> anyhow::Result<Exit> {
    let mut command = Cli::command().mut_args(no_files).mut_subcommands(|c| c.mut_args(no_files));
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "adit", &mut script);
    let mut text = String::from_utf8_lossy(&script).into_owned();
    match args.shell {
        Shell::Bash => text.push_str(WHOLE_WORDS),
        Shell::Fish => text.push_str(&positionals(&command)),
        _ => {}
    }
    super::finish(&shown(&Text { text }, output.json), Exit::Done)
}

/// Has no file names offered for a value, unless the grammar says that it is a path or lists its
/// values.
fn no_files(arg: Arg) -> Arg {
    let is_open = arg.get_action().takes_values() && arg.get_value_hint() == ValueHint::Unknown;
    if is_open && arg.get_possible_values().is_empty() {
        arg.value_hint(ValueHint::Other)
    } else {
        arg
    }
}

/// What `clap_complete` leaves out for fish: the arguments that are not options, and the commands that
/// `help` explains (it offers none once `help` itself is there).
fn positionals(command: &Command) -> String {
    let mut text = String::new();
    for subcommand in command.get_subcommands() {
        let values = subcommand.get_positionals().flat_map(Arg::get_possible_values);
        let values = values.map(|value| value.get_name().to_owned());
        let explained = subcommand.get_subcommands().map(|command| command.get_name().to_owned());
        let values: Vec<String> = values.chain(explained).collect();
        let offered = match &values[..] {
            [] => String::new(),
            values => format!(" -a \"{}\"", values.join(" ")),
        };
        let name = subcommand.get_name();
        let when = format!("__fish_adit_using_subcommand {name}");
        let _ = writeln!(text, "complete -c adit -n \"{when}\" -f{offered}");
    }
    text
}

/// Bash takes words apart at colons and equals signs, and a source, a backend and `--OPTION=VALUE`
/// have them inside. And it offers file names where there is nothing to offer.
const WHOLE_WORDS: &str = r#"
# The word is put together again before it is completed, and what bash takes for words of their own
# is taken off what is offered.
_adit_whole_words() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}"
    if [[ "${word}" == *[:=]* && "${word}" != "$2" ]]; then
        local -a COMP_WORDS
        read -ra COMP_WORDS <<< "${line}"
        local last=$((${#COMP_WORDS[@]} - 1))
        if [[ "${word}" == --*=* ]]; then
            COMP_WORDS[last]="${word%%=*}"
            word="${word#*=}"
            last=$((last + 1))
            COMP_WORDS[last]="${word}"
        fi
        local COMP_CWORD="${last}"
        _adit "$1" "${word}" "${COMP_WORDS[last - 1]}"
        local head="${word%"${word##*[:=]}"}"
        COMPREPLY=("${COMPREPLY[@]#"${head}"}")
    else
        _adit "$@"
    fi
    # An address goes on.
    if [[ "${#COMPREPLY[@]}" -eq 1 && "${COMPREPLY[0]}" == *:// ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _adit_whole_words -o nosort adit
else
    complete -F _adit_whole_words adit
fi
"#;
