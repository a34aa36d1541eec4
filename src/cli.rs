//! The whole command-line grammar. Help comes from it, and the configuration file is read by it.

mod address;
mod complaint;
mod quantities;
mod values;

use std::ffi::OsString;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Amount;
use bitcoin::address::{Address, NetworkUnchecked};
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

pub use address::{PoolUrl, RpcUrl};
pub use complaint::{complaint, is_display};
pub use values::{
    BackendList, BackendSpec, LogFormat, PoolLogin, RpcLogin, SourceSpec, ValueError,
    VersionRolling, nearest, redact,
};

use crate::chain::coinbase::CoinbaseText;
use crate::chain::target::{Difficulty, HashRate};
use crate::energy::Watts;
use crate::estimate::Price;
use crate::exit::{Exit, Failure};
use crate::plot::PlotFile;
use crate::scan::Throttle;
use crate::secret::Secret;
use crate::source::net::{CaFile, Proxy, Transport};

const AFTER_HELP: &str = "\
Exit codes:
  0  done                       4    the work source refused us for good
  1  failed while running       130  stopped by SIGINT, after a clean end
  2  wrong usage or settings    143  stopped by SIGTERM, after a clean end
  3  a backend failed its self-test

Every option may stand in the configuration file, under its long name:
  source = \"regtest\"
  rpc-password = \"...\"
  [mine]
  blocks = 10
The command line beats the environment, and the environment beats the file.";

const MINE_EXAMPLES: &str = "\
Examples:
  adit mine --blocks 10                    ten blocks on the built-in chain; needs nothing
  adit mine regtest --address bcrt1q...    the local regtest node, its cookie found by itself
  adit mine regtest --every 10s            a block each ten seconds
  adit mine regtest --on-transaction       a block as soon as there is a transaction for it
  adit mine signet --datadir /srv/signet --address tb1q...
  ADIT_RPC_PASSWORD=... adit mine http://alice@10.0.0.5:18443 --address bcrt1q...
  adit mine stratum+tcp://127.0.0.1:3333 --user bcrt1q...worker1 --shares 5
  adit mine --json --for 10s | jq -c 'select(.event == \"block\")'

The exit codes are listed by `adit --help`.";

const MINE_ABOUT: &str = "\
Mines blocks, or a pool's shares, and hands them to SOURCE until told to stop: by --blocks, by \
--shares, by --for, or by Ctrl-C.

Blocks and shares are reported on stdout, logs and progress on stderr. What is mined is meant for tests and \
test chains: on the main chain a CPU finds, in any time worth naming, nothing.";

const BENCH_ABOUT: &str = "\
Measures how fast each backend hashes: with one midstate and with rolled versions, kernels on one \
thread and on all (or on as many as --threads says), and where there are cards, all together.

The results are measured in short slices that take turns, so that whatever else the machine does \
hits all of them alike: compare the results of one run. Each comes with the candidates of the ranges \
that were timed, every one hashed again, and a sample of the ranges searched again, by plain code; \
a result is `verified` when none is wrong and none is missing.

Cycles are shown where the processor's own counter can be read, energy where its counters (RAPL) or \
the card's (NVML) can, or with --watts; where not, it says why.";

const BENCH_EXAMPLES: &str = "\
Examples:
  adit bench --plot bench.svg
  adit bench --json > before.json
  adit bench --compare before.json --plot change.svg
  adit bench --compare before.json --fail-below 0.9";

const GRIND_ABOUT: &str = "\
Solves one block header, given as 160 hex characters, for the target in its own nBits. Only the \
nonce changes. The solved header goes to stdout in hex; where there is none, stderr says why in the \
words of `bitcoin-util grind`, and the exit code is 1.";

const CHECK_ABOUT: &str = "\
Holds every backend of this machine against plain code, on all threads at once (or on as many as \
--threads says): known blocks, and headers that are random in each run. A backend that this machine \
lacks is no failure; one that computes wrongly is, and the exit code is 3.";

const ESTIMATE_ABOUT: &str = "\
How long a block or a share takes at some hash rate, and what it costs in energy.

The hash rate is the one given, or what this machine is measured to do. The difficulty is the one \
given, or that of the next block of the node NODE were it found now; on testnet4 and testnet3 it is \
said which of the two difficulties of the twenty-minute rule that is. Finding a block is a matter of chance, and the \
time to the next one is exponentially distributed: half of all waits are shorter than 69 % of the \
mean, and one of twenty is longer than three times the mean. What was tried before does not count.";

const ESTIMATE_EXAMPLES: &str = "\
Examples:
  adit estimate --difficulty 152.3T --hash-rate 150MH/s --watts 65 --price-per-kwh 0.25 \\
      --reward 3.125 --coin-price 90000
  adit estimate signet                     the local signet node's difficulty, this machine's rate
  adit estimate --share-difficulty 1 --hash-rate 9GH/s --json";

const COMPLETIONS_ABOUT: &str = "\
Writes a completion script for SHELL to stdout, made from the same grammar as this help.

  bash        adit completions bash > ~/.local/share/bash-completion/completions/adit
  zsh         adit completions zsh > \"${fpath[1]}/_adit\"
  fish        adit completions fish > ~/.config/fish/completions/adit.fish
  powershell  adit completions powershell >> $PROFILE";

const MAN_ABOUT: &str = "\
Writes a manual page to stdout: that of adit, or of one of its commands. To read it at once:

  adit man | man -l -
  adit man mine | man -l -";

/// A SHA-256d miner for regtest, signet and testnet.
///
/// It mines real blocks: on the chain that is built in, from the templates of a node, or for a pool. Start with
/// `adit mine --blocks 10`, which needs nothing else.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "adit",
    version,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    infer_long_args = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to show it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Mine blocks from a node's templates, shares of a pool, or on the built-in chain
    #[command(long_about = MINE_ABOUT, after_help = MINE_EXAMPLES)]
    Mine(Box<MineArgs>),
    /// Measure how fast each backend hashes, and check what it finds meanwhile
    #[command(long_about = BENCH_ABOUT, after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Solve one block header: a drop-in for `bitcoin-util grind`
    #[command(long_about = GRIND_ABOUT)]
    Grind(GrindArgs),
    /// Hold every backend of this machine against plain code
    #[command(long_about = CHECK_ABOUT)]
    Check(CheckArgs),
    /// List what this machine can hash with, and what not and why
    Devices(DevicesArgs),
    /// Say how long a block or a share takes, and what it costs
    #[command(long_about = ESTIMATE_ABOUT, after_help = ESTIMATE_EXAMPLES)]
    Estimate(Box<EstimateArgs>),
    /// Write a completion script for a shell
    #[command(long_about = COMPLETIONS_ABOUT)]
    Completions(CompletionsArgs),
    /// Write a manual page
    #[command(long_about = MAN_ABOUT)]
    Man(ManArgs),
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output and settings")]
pub struct OutputArgs {
    /// Read settings from FILE instead of adit.toml in the user's configuration directory
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Write JSON to stdout: for `mine` one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Log less: -q only warnings and no progress line, -qq only errors
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "verbose")]
    pub quiet: u8,
    /// Log more: -v what happens, -vv in every detail
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// The form of the log on stderr: text or json
    #[arg(
        long,
        value_name = "FORM",
        global = true,
        value_enum,
        default_value = "text",
        hide_possible_values = true
    )]
    pub log_format: LogFormat,
}

/// What `adit mine` takes.
#[derive(Clone, Debug, Args)]
pub struct MineArgs {
    /// Where work comes from
    ///
    /// Either `http://[USER[:PASS]@]HOST:PORT`, a node's JSON-RPC; or `regtest`, `signet`,
    /// `testnet4`, `testnet3` or `main`, the local node of that chain with its default port and
    /// cookie file; or `stratum+tcp://[USER[:PASS]@]HOST:PORT`, a Stratum V1 pool or proxy
    /// (`stratum+tls` where it speaks TLS); or `builtin`, a regtest chain of our own that needs nothing installed and keeps
    /// a node's rules. In user name and password, write special characters as %XX.
    ///
    /// Several sources: the first that works is mined, and a better-placed one is returned to when
    /// it is well again. The options below hold for all; a URL's own user and password beat them.
    #[arg(value_name = "SOURCE", default_value = "builtin", num_args = 1..)]
    pub source: Vec<SourceSpec>,

    /// Stop after N accepted blocks
    #[arg(long, value_name = "N", value_parser = values::count, help_heading = "When to stop")]
    pub blocks: Option<NonZeroU64>,
    /// Stop after N accepted shares
    #[arg(long, value_name = "N", value_parser = values::count, help_heading = "When to stop")]
    pub shares: Option<NonZeroU64>,
    /// Stop after this time: 500ms, 90s, 10m, 2h, 1h30m
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = values::duration,
        help_heading = "When to stop"
    )]
    pub run_for: Option<Duration>,

    /// Mine one block each DURATION, and hash only then; for regtest and signets of one's own
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        help_heading = "At what pace"
    )]
    pub every: Option<Duration>,
    /// Mine a block as soon as the node's mempool has a transaction for it, and none else (but
    /// those of --every); on Bitcoin Core, which keeps a template, a transaction can wait about
    /// five seconds
    #[arg(long, help_heading = "At what pace")]
    pub on_transaction: bool,

    /// Pay to this address; without one, on regtest, to one that anyone can spend from
    #[arg(long, value_name = "ADDR", value_parser = values::address, help_heading = "What to mine")]
    pub address: Option<Address<NetworkUnchecked>>,
    /// Put this text into the coinbase
    #[arg(
        long,
        value_name = "TEXT",
        value_parser = values::coinbase_text,
        help_heading = "What to mine"
    )]
    pub coinbase_text: Option<CoinbaseText>,
    /// Write found blocks into this directory before they are submitted
    #[arg(long, value_name = "DIR", help_heading = "What to mine")]
    pub journal: Option<PathBuf>,

    /// How to log in to a node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to log in to a pool, and how to get there.
    #[command(flatten)]
    pub pool: PoolArgs,

    /// What hashes
    #[command(flatten)]
    pub hashing: HashingArgs,
    /// Spend only this share of the time hashing, in percent
    #[arg(long, value_name = "PERCENT", value_parser = values::throttle, help_heading = "Hashing")]
    pub throttle: Option<Throttle>,
    /// Roll the version field: auto, where the job allows it, or off
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Hashing"
    )]
    pub version_rolling: VersionRolling,
}

/// How to log in to a node.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Log in to the node with the cookie in FILE
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["rpc_user", "rpc_password"],
        help_heading = "Node"
    )]
    pub rpc_cookie: Option<PathBuf>,
    /// The node's data directory, where it is not the usual one: its configuration and cookie are
    /// there
    #[arg(long, value_name = "DIR", help_heading = "Node")]
    pub datadir: Option<PathBuf>,
    /// Log in to the node as USER
    #[arg(long, value_name = "USER", help_heading = "Node")]
    pub rpc_user: Option<String>,
    /// Log in with this password; others can see a command line, so rather set it in
    /// `ADIT_RPC_PASSWORD` or in the configuration file
    #[arg(long, value_name = "PASS", help_heading = "Node")]
    pub rpc_password: Option<Secret>,
}

/// How to log in to a pool, and how to get there.
#[derive(Clone, Debug, Default, Args)]
pub struct PoolArgs {
    /// The worker's name at the pool: often a pay-out address, a dot and a name
    #[arg(long, value_name = "USER", help_heading = "Pool")]
    pub user: Option<String>,
    /// The worker's password, which most pools ignore; others can see a command line, so rather set
    /// it in `ADIT_POOL_PASSWORD` or in the configuration file
    #[arg(long, value_name = "PASS", help_heading = "Pool")]
    pub password: Option<Secret>,
    /// Ask the pool for this difficulty
    #[arg(
        long,
        value_name = "N",
        value_parser = values::difficulty,
        help_heading = "Pool"
    )]
    pub suggest_difficulty: Option<String>,
    /// Reach pools by this SOCKS5 proxy, such as Tor: socks5://[USER[:PASS]@]HOST:PORT; it resolves
    /// their names too
    #[arg(long, value_name = "URL", value_parser = address::proxy, help_heading = "Pool")]
    pub proxy: Option<Proxy>,
    /// Log in to the proxy with this password; rather set it in `ADIT_PROXY_PASSWORD` or in the
    /// configuration file
    #[arg(long, value_name = "PASS", help_heading = "Pool")]
    pub proxy_password: Option<Secret>,
    /// Trust the certificates in this PEM file too, beside the system's and the bundled ones
    #[arg(long, value_name = "FILE", help_heading = "Pool")]
    pub tls_ca: Option<PathBuf>,
}

/// What hashes, and on how many threads.
#[derive(Clone, Debug, Args)]
pub struct HashingArgs {
    /// What hashes, by commas: auto, cpu, gpu, cpu:KERNEL or gpu:N
    ///
    /// `auto` is all CPU cores with the fastest kernel, and every real graphics card; `cpu` and
    /// `gpu` are the one or the other; `cpu:KERNEL` names one of the kernels sha2, sha-ni, avx2 and
    /// avx512; `gpu:N` is the device that `adit devices` lists under this number.
    #[arg(long, value_name = "LIST", default_value = "auto", help_heading = "Hashing")]
    pub backend: BackendList,
    /// CPU threads [default: as many as the process may use]
    #[arg(long, value_name = "N", value_parser = values::threads, help_heading = "Hashing")]
    pub threads: Option<NonZeroUsize>,
}

/// What `adit bench` takes.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[command(flatten)]
    pub hashing: HashingArgs,
    /// Measure this long for each result
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = values::duration,
        default_value = "5s"
    )]
    pub run_for: Duration,
    /// Write comma-separated values to stdout
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Draw a chart of it into FILE, whose name ends with .svg or .png
    #[arg(long, value_name = "FILE", value_parser = quantities::plot_file)]
    pub plot: Option<PlotFile>,
    /// Compare with a run that was saved with --json: the verdict accounts for the noise
    #[arg(long, value_name = "FILE", conflicts_with = "csv")]
    pub compare: Option<PathBuf>,
    /// Exit with 1 if a result is shown to be slower than RATIO times what it was, or could not be
    /// compared; a RATIO nearer to 1 than the noise is warned of
    #[arg(long, value_name = "RATIO", value_parser = quantities::ratio, requires = "compare")]
    pub fail_below: Option<f64>,
    /// What the machine draws while it hashes, as 65W, instead of what its own counters say; the same
    /// for every result
    #[arg(long, value_name = "W", value_parser = quantities::watts)]
    pub watts: Option<Watts>,
}

/// What `adit grind` takes. How many there are and whether they are any good is for the command to
/// say: its words and its exit code are those of `bitcoin-util grind`.
#[derive(Clone, Debug, Args)]
pub struct GrindArgs {
    /// The block header to solve, as 160 hex characters
    #[arg(value_name = "HEADER", num_args = 0..)]
    pub header: Vec<OsString>,
    /// What to grind with
    #[command(flatten)]
    pub hashing: HashingArgs,
}

/// What `adit check` takes.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// What to check
    #[command(flatten)]
    pub hashing: HashingArgs,
}

/// What `adit devices` takes.
#[derive(Clone, Copy, Debug, Args)]
pub struct DevicesArgs {}

/// What `adit estimate` takes.
#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    /// Ask this node how hard its next block is: http://[USER[:PASS]@]HOST:PORT, or regtest, signet,
    /// testnet4, testnet3 or main
    #[arg(value_name = "NODE", conflicts_with = "difficulty")]
    pub node: Option<SourceSpec>,
    /// A block's difficulty: 152.3T, 1.5e14, 0.001
    #[arg(long, value_name = "D", value_parser = quantities::difficulty)]
    pub difficulty: Option<Difficulty>,
    /// A share's difficulty
    #[arg(long, value_name = "D", value_parser = quantities::difficulty)]
    pub share_difficulty: Option<Difficulty>,
    /// The hash rate, as 150MH/s, instead of what this machine is measured to do
    #[arg(
        long,
        value_name = "RATE",
        value_parser = quantities::hash_rate,
        conflicts_with_all = ["backend", "threads", "run_for"]
    )]
    pub hash_rate: Option<HashRate>,
    /// Measure the hash rate for this long
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = values::duration,
        default_value = "2s"
    )]
    pub run_for: Duration,

    /// What the machine draws while it hashes, as 65W; without it, what its own counters say
    #[arg(long, value_name = "W", value_parser = quantities::watts, help_heading = "Costs")]
    pub watts: Option<Watts>,
    /// What a kilowatt-hour costs, in any currency
    #[arg(long, value_name = "PRICE", value_parser = quantities::price, help_heading = "Costs")]
    pub price_per_kwh: Option<Price>,
    /// What a block pays, in coins [default: the subsidy at the node's height]
    #[arg(long, value_name = "COINS", value_parser = quantities::coins, help_heading = "Costs")]
    pub reward: Option<Amount>,
    /// What a coin is worth, in the same currency
    #[arg(long, value_name = "PRICE", value_parser = quantities::price, help_heading = "Costs")]
    pub coin_price: Option<Price>,

    /// How to log in to the node.
    #[command(flatten)]
    pub login: NodeArgs,
    /// What to measure
    #[command(flatten)]
    pub hashing: HashingArgs,
}

/// What `adit completions` takes.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell: bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    pub shell: Shell,
}

/// What `adit man` takes.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The command whose page it is to be
    #[arg(value_name = "COMMAND", value_parser = values::command)]
    pub page: Option<String>,
}

impl NodeArgs {
    /// How to log in to the node that `source` names. What its URL says beats the options.
    ///
    /// # Errors
    /// When there is a user name without a password, or a password without a user name.
    pub fn login(&self, source: &SourceSpec) -> Result<RpcLogin, Failure> {
        let url = match source {
            SourceSpec::Rpc(url) => Some(url),
            SourceSpec::Builtin | SourceSpec::LocalNode(_) | SourceSpec::Pool(_) => None,
        };
        let url_user = url.and_then(|url| url.user.as_ref());
        if let (Some(file), None) = (&self.rpc_cookie, url_user) {
            return Ok(RpcLogin::Cookie(file.clone()));
        }
        let user = url_user.or(self.rpc_user.as_ref());
        let password = url.and_then(|url| url.password.as_ref()).or(self.rpc_password.as_ref());
        match (user, password) {
            (None, None) => Ok(RpcLogin::Discover { datadir: self.datadir.clone() }),
            (Some(user), Some(password)) => {
                Ok(RpcLogin::Password { user: user.clone(), password: password.clone() })
            }
            (Some(_), None) => Err(Failure::new(
                Exit::Usage,
                "login to the node",
                "there is a user name and no password",
            )
            .hint("set ADIT_RPC_PASSWORD, or rpc-password in the configuration file")),
            (None, Some(_)) => Err(Failure::new(
                Exit::Usage,
                "login to the node",
                "there is a password and no user name",
            )
            .hint(
                "give --rpc-user, or unset ADIT_RPC_PASSWORD and rpc-password to use the cookie",
            )),
        }
    }
}

impl PoolArgs {
    /// How pools are reached.
    ///
    /// # Errors
    /// When the file of certificates is of no use, or when the proxy's login is half there.
    pub fn transport(&self) -> Result<Transport, Failure> {
        let mut transport = Transport::new();
        if let Some(file) = &self.tls_ca {
            let roots = CaFile::read(file).map_err(|error| {
                Failure::new(Exit::Usage, "--tls-ca", error.to_string())
                    .hint("it takes a file of certificates in PEM form")
            })?;
            transport = transport.trust(roots);
        }
        let Some(mut proxy) = self.proxy.clone() else { return Ok(transport) };
        proxy.password = proxy.password.or_else(|| self.proxy_password.clone());
        let fault =
            |why, hint| Err(Failure::new(Exit::Usage, "login to the proxy", why).hint(hint));
        match (&proxy.user, &proxy.password) {
            (Some(_), None) => {
                fault("there is a user name and no password", "set ADIT_PROXY_PASSWORD")
            }
            (None, Some(_)) => fault(
                "there is a password and no user name",
                "write the user name before the host: socks5://USER@HOST:PORT",
            ),
            (_, Some(password)) if !(1..=255).contains(&password.reveal().len()) => {
                fault("the password must have 1 to 255 bytes", "set ADIT_PROXY_PASSWORD")
            }
            _ => Ok(transport.proxy(proxy)),
        }
    }

    /// How to log in to the pool at `url`. What the URL says beats the options.
    ///
    /// # Errors
    /// When there is no user name.
    pub fn login(&self, url: &PoolUrl) -> Result<PoolLogin, Failure> {
        let user = url.user.as_ref().or(self.user.as_ref()).filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("login to {url}"), "there is no user name").hint(
                "give --user; many pools take a pay-out address, or an address, a dot and a name",
            )
        })?;
        let password = url.password.as_ref().or(self.password.as_ref());
        Ok(PoolLogin {
            user: user.clone(),
            // What pools that ignore it are usually given; some take an empty one amiss.
            password: password.cloned().unwrap_or_else(|| Secret::from("x".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
            mine.node.login(&mine.source[0]),
            Ok(RpcLogin::Password { user: "u".into(), password: Secret::from("p".to_owned()) })
        );
    }

    #[test]
    fn logins() {
        let login = |line: &str| {
            let command = Cli::try_parse_from(line.split(' ')).unwrap().command;
            let Command::Mine(mine) = command else { panic!("{command:?}") };
            mine.node.login(&mine.source[0])
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
            (
                "adit mine --blocks 0",
                "error: --blocks \"0\": it must be a whole number, at least 1\n",
            ),
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
                "error: argument \"regtest\": it is one too many\nhint: --help lists what there is\n",
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
                "error: --rpc-cookie: it does not go together with --rpc-user\n",
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
        assert_eq!(
            Cli::command().render_version(),
            concat!("adit ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}
