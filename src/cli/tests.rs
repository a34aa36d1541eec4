//! The grammar as it is met from outside.

use clap::CommandFactory;

use super::*;
use crate::protocols::RpcLogin;
use crate::secret::Secret;

fn told(line: &str) -> String {
    let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
    assert!(!is_display(&error), "{line}");
    complaint(&error).render()
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn options_arrive() {
    let cli = Cli::try_parse_from(
        "adit -v mine regtest --blocks 3 --for 1m --backend cpu:sha2 --threads 2 --throttle 50 \
         --version-rolling off --json --coinbase-text hi --rpc-user u --rpc-password p"
            .split_whitespace(),
    )
    .unwrap();
    let Command::Mine(mine) = cli.command else { panic!("{:?}", cli.command) };
    assert_eq!(mine.source, ["regtest".parse().unwrap()]);
    assert_eq!(mine.blocks.map(NonZeroU64::get), Some(3));
    assert_eq!(mine.run_for, Some(Duration::from_secs(60)));
    assert_eq!(mine.hashing.threads.map(NonZeroUsize::get), Some(2));
    assert_eq!(mine.version_rolling, VersionRolling::Off);
    assert_eq!((cli.output.json, cli.output.verbose), (true, 1));
    assert_eq!(
        mine.reach.node.login(mine.source[0].place().url()),
        Ok(RpcLogin::Password { user: "u".into(), password: Secret::from("p".to_owned()) })
    );
}

#[test]
fn logins() {
    let login = |line: &str| {
        let command = Cli::try_parse_from(line.split(' ')).unwrap().command;
        let Command::Mine(mine) = command else { panic!("{command:?}") };
        mine.reach.node.login(mine.source[0].place().url())
    };
    assert_eq!(login("adit mine regtest"), Ok(RpcLogin::Discover { datadir: None }));
    assert_eq!(login("adit mine http://h:1 --rpc-cookie c"), Ok(RpcLogin::Cookie("c".into())));
    assert_eq!(
        login("adit mine http://u@h:1 --rpc-password p"),
        Ok(RpcLogin::Password { user: "u".into(), password: Secret::from("p".to_owned()) })
    );
    assert!(login("adit mine http://u@h:1").unwrap_err().render().contains("no password"));
    assert!(login("adit mine regtest --rpc-password p").is_err());
}

#[test]
fn wrong_usage_is_told_in_the_promised_form() {
    for (line, said) in [
        (
            "adit mien",
            "error: command \"mien\": there is no such command\nhint: did you mean mine?\n",
        ),
        (
            "adit mine --block 1",
            "error: option --block: there is no such option\nhint: did you mean --blocks?\n",
        ),
        (
            "adit mine --rpc-pasword=hunter2",
            "error: option --rpc-pasword: there is no such option\nhint: did you mean --rpc-password?\n",
        ),
        ("adit mine --blocks 0", "error: --blocks \"0\": it must be a whole number, at least 1\n"),
        (
            "adit mine --for 90",
            "error: --for \"90\": its unit is missing\nhint: write 90s for seconds; m, h, d and ms are known too\n",
        ),
        (
            "adit mine --version-rolling of",
            "error: --version-rolling \"of\": it must be auto or off\nhint: did you mean off?\n",
        ),
        (
            "adit devices regtest",
            "error: argument \"regtest\": unexpected argument\nhint: --help lists what there is\n",
        ),
        (
            "adit mine http://bob:hunter2@h",
            "error: source \"http://***@h\": the port is missing\nhint: nodes listen on 8332 (main), 18332 \
             (testnet3), 48332 (testnet4), 38332 (signet) and 18443 (regtest) unless told otherwise\n",
        ),
        (
            "adit mine --blocks",
            "error: --blocks: its value is missing\nhint: --help lists what there is\n",
        ),
        (
            "adit mine --rpc-cookie c --rpc-user u",
            "error: --rpc-cookie: it cannot be used with --rpc-user\n",
        ),
        ("adit mine --blocks 1 --blocks 2", "error: --blocks: it is given more than once\n"),
        ("adit mine --json=1", "error: --json: it takes no value\n"),
    ] {
        assert_eq!(told(line), said, "{line}");
    }
}

#[test]
fn no_help_text_shows_a_secret_or_promises_riches() {
    let mut command = Cli::command();
    let mut help = command.render_long_help().to_string();
    for subcommand in command.get_subcommands_mut() {
        help += &subcommand.render_long_help().to_string();
    }
    for word in ["profit", "earn", "income"] {
        assert!(!help.contains(word), "{word}");
    }
}

#[test]
fn the_version_is_one_line() {
    assert_eq!(Cli::command().render_version(), concat!("adit ", env!("CARGO_PKG_VERSION"), "\n"));
}
