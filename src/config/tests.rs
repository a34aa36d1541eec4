//! Files, environment and command line against each other, right and wrong.

use std::fs;

use super::*;
use crate::cli::{LogFormat, MineArgs, VersionRolling};
use crate::protocols::RpcLogin;
use crate::secret::Secret;

struct Run {
    folder: tempfile::TempDir,
    password: Option<&'static str>,
}

impl Run {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("adit.toml"), text).unwrap();
        Self { folder, password: None }
    }

    fn password(mut self, password: &'static str) -> Self {
        self.password = Some(password);
        self
    }

    fn run(&self, line: &str) -> Result<Invocation, NotRun> {
        let variable =
            |name: &str| (name == "ADIT_RPC_PASSWORD").then(|| self.password.map(Into::into))?;
        let default_file = Some(self.folder.path().join("adit.toml"));
        let argv = line.split_whitespace().map(OsString::from);
        invocation(argv, &ProcessEnvironment { variable: &variable, default_file })
    }

    fn mine(&self, line: &str) -> MineArgs {
        let command = self.run(line).unwrap().cli.command;
        let Command::Mine(mine) = command else { panic!("{command:?}") };
        *mine
    }

    /// The error, with `configuration file` and the folder's name omitted.
    fn refused(&self, line: &str) -> String {
        match self.run(line) {
            Err(NotRun::Failure(failure)) => {
                assert_eq!(failure.exit, Exit::Usage);
                let folder = self.folder.path().display().to_string();
                failure
                    .render()
                    .replace(&format!("configuration file {folder}"), "")
                    .replace('\\', "/")
            }
            other => panic!("{other:?}"),
        }
    }
}

fn given(user: &str, password: &str) -> RpcLogin {
    RpcLogin::Password { user: user.into(), password: Secret::from(password.to_owned()) }
}

#[test]
fn the_file_takes_part_and_the_command_line_beats_it() {
    let run = Run::with(
        "source = 'regtest'\nblocks = 0x10\nfor = '10m'\njson = true\nverbose = 2\n\
             backend = ['cpu:sha2']\nversion-rolling = 'off'\nlog-format = 'json'\n\
             [mine]\nblocks = 5\nthreads = 3\n",
    );
    let mine = run.mine("adit mine");
    assert_eq!(mine.source, ["regtest".parse().unwrap()]);
    assert_eq!(mine.blocks.unwrap().get(), 5);
    assert_eq!(mine.run_for.unwrap().as_secs(), 600);
    assert_eq!(mine.version_rolling, VersionRolling::Off);
    assert_eq!(mine.hashing.threads.unwrap().get(), 3);
    assert_eq!(mine.hashing.backend.specs().len(), 1);
    let output = run.run("adit mine").unwrap().cli.output;
    assert_eq!((output.json, output.verbose), (true, 2));
    assert_eq!(output.log_format, LogFormat::Json);

    let mine = run.mine("adit mine signet --blocks 7");
    assert_eq!((mine.source[0].to_string().as_str(), mine.blocks.unwrap().get()), ("signet", 7));
    for line in ["adit -q mine", "adit mine -q", "adit mine --quiet"] {
        let output = run.run(line).unwrap().cli.output;
        assert_eq!((output.quiet, output.verbose), (1, 0), "{line}");
    }
    assert_eq!(run.run("adit -v mine").unwrap().cli.output.verbose, 1);
}

#[test]
fn switches_can_be_off() {
    let output = Run::with("json = false\nquiet = 0").run("adit mine").unwrap().cli.output;
    assert_eq!((output.json, output.quiet), (false, 0));
    assert!(Run::with("json = false").run("adit --json mine").unwrap().cli.output.json);
}

#[test]
fn a_missing_default_is_fine_and_a_missing_named_file_is_not() {
    let run = Run::with("");
    fs::remove_file(run.folder.path().join("adit.toml")).unwrap();
    assert_eq!(run.mine("adit mine").source, [SourceSpec::default()]);
    let missing = run.folder.path().join("missing.toml");
    for line in ["adit mine --config", "adit --config"] {
        let tail = if line.contains("mine") { "" } else { " mine" };
        let refused = run.refused(&format!("{line} {}{tail}", missing.display()));
        assert!(refused.starts_with("error: /missing.toml: "), "{refused}");
    }
}

#[test]
fn a_named_file_replaces_the_default() {
    let run = Run::with("blocks = 1\nnonsense = 2\n");
    let named = run.folder.path().join("named.toml");
    fs::write(&named, "threads = 2").unwrap();
    let mine = run.mine(&format!("adit mine --config {}", named.display()));
    assert_eq!((mine.blocks, mine.hashing.threads.unwrap().get()), (None, 2));
}

#[test]
fn logins_come_from_the_highest_layer() {
    let file = |text: &str| Run::with(text);
    let source = "source = 'http://bob:inurl@h:1'\n";
    let login = |run: &Run, line: &str| {
        let mine = run.mine(line);
        mine.reach.node.login(mine.source[0].place().url()).unwrap()
    };

    let run = file("rpc-user = 'bob'\nrpc-password = 'infile'");
    assert_eq!(login(&run, "adit mine regtest"), given("bob", "infile"));
    assert_eq!(login(&run, "adit mine --rpc-cookie c"), RpcLogin::Cookie("c".into()));
    assert_eq!(login(&run, "adit mine http://al:x@h:1"), given("al", "x"));
    let run = run.password("inenv");
    assert_eq!(login(&run, "adit mine regtest"), given("bob", "inenv"));
    assert_eq!(login(&run, "adit mine --rpc-password arg"), given("bob", "arg"));
    assert_eq!(login(&run, "adit mine --rpc-cookie c"), RpcLogin::Cookie("c".into()));
    assert_eq!(login(&run, "adit mine http://al:x@h:1"), given("al", "x"));
    assert_eq!(login(&run, "adit mine http://al@h:1"), given("al", "inenv"));

    let run = file("rpc-cookie = 'c'");
    assert_eq!(login(&run, "adit mine"), RpcLogin::Cookie("c".into()));
    assert_eq!(login(&run, "adit mine http://al:x@h:1"), given("al", "x"));
    assert_eq!(login(&run, "adit mine --rpc-user u --rpc-password p"), given("u", "p"));
    let run = run.password("inenv");
    assert_eq!(login(&run, "adit mine --rpc-user u"), given("u", "inenv"));

    let run = file(source);
    assert_eq!(login(&run, "adit mine"), given("bob", "inurl"));
    assert_eq!(login(&run, "adit mine --rpc-password arg"), given("bob", "arg"));
    assert_eq!(login(&run, "adit mine --rpc-user u --rpc-password p"), given("u", "p"));
    assert_eq!(login(&run, "adit mine --rpc-cookie c"), RpcLogin::Cookie("c".into()));
    assert_eq!(login(&file(source).password("inenv"), "adit mine"), given("bob", "inenv"));

    let twice = run.refused("adit mine http://a:b@h:1 --rpc-password c");
    assert!(twice.contains("both the source's URL and rpc-password"), "{twice}");
    let rivals = file("rpc-cookie = 'c'\nrpc-user = 'u'").refused("adit mine");
    assert_eq!(rivals, "error: /adit.toml:2: `rpc-user` cannot be used with `rpc-cookie`\n");
    assert_eq!(
        login(&file("rpc-cookie = 'c'").password(""), "adit mine"),
        RpcLogin::Cookie("c".into())
    );
}

#[test]
fn wrong_files_are_refused_in_one_line() {
    for (text, said) in [
        ("block = 1", ":1: there is no key `block`\nhint: did you mean `blocks`?\n"),
        ("\n[mine]\nblokcs = 1", ":3: there is no key `blokcs`\nhint: did you mean `blocks`?\n"),
        ("[mien]\n", ":1: there is no key `mien`\nhint: did you mean `mine`?\n"),
        (
            "rpc_password = 'x'",
            ":1: there is no key `rpc_password`\nhint: did you mean `rpc-password`?\n",
        ),
        ("config = 'x'", ":1: `config` is for the command line only\n"),
        ("mine = 1", ":1: `mine` takes a table, not this number\n"),
        ("blocks = 0", ":1: `blocks`: it must be a whole number, at least 1\n"),
        ("blocks = -1", ":1: `blocks`: it must be a whole number, at least 1\n"),
        ("blocks = 1.5", ":1: `blocks`: it must be a whole number, at least 1\n"),
        ("blocks = []", ":1: `blocks` takes a string or a number, not an array\n"),
        ("blocks = {}", ":1: `blocks` takes a string or a number, not a table\n"),
        ("blocks = 2020-01-01", ":1: `blocks` takes a string or a number, not a date\n"),
        (
            "rpc-password = true",
            ":1: `rpc-password` takes a string or a number, not true or false\n",
        ),
        ("json = 'yes'", ":1: `json` takes true or false, not a string\n"),
        ("quiet = 1000", ":1: `quiet` takes true, false or a small number, not this number\n"),
        ("backend = [1]", ":1: `backend` takes an array of strings, not an array\n"),
        ("journal = ''", ":1: `journal`: its value is missing\nhint: --help lists what there is\n"),
        (
            "\n\nfor = 90",
            ":3: `for`: its unit is missing\nhint: write 90s for seconds; m, h, d and ms are known too\n",
        ),
        (
            "version-rolling = 'of'",
            ":1: `version-rolling`: it must be auto or off\nhint: did you mean off?\n",
        ),
    ] {
        assert_eq!(Run::with(text).refused("adit mine"), format!("error: /adit.toml{said}"));
    }
}

#[test]
fn no_secret_is_repeated() {
    for text in [
        "rpc-password = hunter2",
        "rpc-password = 'hunter2",
        "rpc-password = 'hunter2' x",
        "rpc-password = ['hunter2']",
        "rpc-password = 'a'\nrpc-password = 'hunter2'",
        "source = 'http://bob:hunter2@h'",
        "source = 'bob:hunter2@h:1'",
    ] {
        let refused = Run::with(text).refused("adit mine");
        assert!(!refused.contains("hunter"), "{refused}");
        assert!(refused.starts_with("error: /adit.toml:"), "{refused}");
        assert!(refused.lines().count() <= 2, "{refused}");
    }
}

#[test]
fn hostile_files_are_refused() {
    let refused = |text: &[u8]| Run::with(text).refused("adit mine");
    assert_eq!(refused(&vec![b'#'; (1 << 20) + 1]), "error: /adit.toml: it is larger than 1 MiB\n");
    assert_eq!(refused(b"\xff\xfe"), "error: /adit.toml: it is not UTF-8\n");
    for deep in ["[", "{a=", "a.", "[a"] {
        let text = format!("blocks = {}", deep.repeat(100_000));
        assert!(refused(text.as_bytes()).contains("not TOML"), "{deep}");
        assert!(refused(deep.repeat(100_000).as_bytes()).contains("not TOML"), "{deep}");
    }
    assert!(refused(b"\0").contains("not TOML"));
    assert!(Run::with(vec![b'#'; 1 << 20]).run("adit mine").is_ok());

    let run = Run::with("");
    let folder = run.folder.path().display();
    let directory = run.refused(&format!("adit mine --config {folder}"));
    assert!(directory.contains("it is a directory"), "{directory}");
    assert!(run.refused("adit mine --config /dev/zero").contains("larger than 1 MiB"));
}

#[cfg(unix)]
#[test]
fn a_secret_that_all_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let warned = |text: &str, mode: u32| {
        let run = Run::with(text);
        let file = run.folder.path().join("adit.toml");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        run.run("adit mine").unwrap().warnings.len()
    };
    let secret = "rpc-user = 'u'\n[mine]\nrpc-password = 'p'";
    assert_eq!(warned(secret, 0o644), 1);
    assert_eq!(warned(secret, 0o600), 0);
    assert_eq!(warned("source = 'http://a:b@h:1'", 0o644), 1);
    assert_eq!(warned("source = 'regtest'", 0o644), 0);
}

#[test]
fn help_is_no_failure() {
    let run = Run::with("nonsense = 1");
    for line in ["adit --help", "adit mine -h", "adit --version", "adit"] {
        assert!(matches!(run.run(line), Err(NotRun::Display(_))), "{line}");
    }
}
