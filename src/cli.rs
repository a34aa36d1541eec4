//! The whole command-line grammar. Help comes from it, and the configuration file is read by it.

// These comments are the help's words, where a bracket is no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod backend;
mod complaint;
mod quantities;
mod suggesting;
mod texts;
mod values;

use std::ffi::OsString;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Amount;
use bitcoin::address::{Address, NetworkUnchecked};
use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

pub use backend::{BackendList, BackendSpec};
pub use complaint::{complaint, is_display};
pub use values::{LogFormat, VersionRolling};

use suggesting::suggesting;
use texts::{
    BENCH_ABOUT, BENCH_EXAMPLES, CHECK_ABOUT, COMPLETIONS_ABOUT, ESTIMATE_ABOUT, ESTIMATE_EXAMPLES,
    GRIND_ABOUT, MAN_ABOUT, MINE_ABOUT, MINE_EXAMPLES,
};

use crate::chain::coinbase::CoinbaseText;
use crate::chain::target::Difficulty;
use crate::plot::PlotFile;
use crate::protocols::{self, NodeArgs, SourceOptions, SourceSpec};
use crate::report::log::LogOptions;
use crate::scan::Throttle;
use crate::scan::cpu::CpuFeatures;
use crate::units::{HashRate, Price, Watts};

/// A SHA-256d miner for regtest, signet and testnet.
///
/// It mines real blocks: on the chain that is built in, from the templates of a node, or for a pool. Start with
/// `adit mine --blocks 10`, which needs nothing else.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "adit",
    version,
    after_help = texts::after_help(),
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
    #[command(long_about = MINE_ABOUT, after_help = MINE_EXAMPLES, mut_arg("backend", one_kernel))]
    Mine(Box<MineArgs>),
    /// Measure how fast each backend hashes, and check what it finds meanwhile
    #[command(long_about = BENCH_ABOUT, after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Solve one block header: a drop-in for `bitcoin-util grind`
    #[command(long_about = GRIND_ABOUT, mut_arg("backend", one_kernel))]
    Grind(GrindArgs),
    /// Check every backend of this machine against the reference implementation
    #[command(long_about = CHECK_ABOUT)]
    Check(CheckArgs),
    /// List what this machine can hash with, and what not and why
    Devices(DevicesArgs),
    /// Say how long a block or a share takes, and what it costs
    #[command(
        long_about = ESTIMATE_ABOUT,
        after_help = ESTIMATE_EXAMPLES,
        mut_arg("backend", one_kernel)
    )]
    Estimate(Box<EstimateArgs>),
    /// Write a completion script for a shell
    #[command(long_about = COMPLETIONS_ABOUT)]
    Completions(CompletionsArgs),
    /// Write a manual page
    #[command(long_about = MAN_ABOUT)]
    Man(ManArgs),
}

/// `--backend` of a command that hashes with one CPU kernel.
fn one_kernel(backend: clap::Arg) -> clap::Arg {
    backend.value_parser(suggesting(backend::suggested_backends, BackendList::of_one_kernel))
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output and settings")]
pub struct OutputArgs {
    /// Read settings from FILE instead of adit.toml in the user's configuration directory
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
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
    /// The form of the log on stderr
    #[arg(long, value_name = "FORM", global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Don't use these CPU features, by commas: avx512, avx2, sha, sse4.1, ssse3
    ///
    /// Kernels that need one of them are unavailable, as on a processor without it; whatever builds
    /// on a disabled feature (AVX-512 on AVX2, say) is disabled with it. The environment variable
    /// `ADIT_DISABLE_CPU_FEATURES` does the same. The kernel sha2 is always there, and not affected:
    /// the crate that it is made of detects the SHA instructions for itself, and nothing but another
    /// build can keep it from using them.
    #[arg(
        long,
        value_name = "LIST",
        global = true,
        value_parser =
            suggesting(backend::suggested_cpu_features, backend::without_cpu_features),
        hide_possible_values = true
    )]
    pub disable_cpu_features: Option<CpuFeatures>,
}

impl OutputArgs {
    /// How much is to be logged, and in which form.
    #[must_use]
    pub fn log_options(&self) -> LogOptions {
        let json = self.log_format == LogFormat::Json;
        LogOptions { quiet: self.quiet, verbose: self.verbose, json }
    }

    /// The CPU features that kernels may use.
    #[must_use]
    pub fn cpu_features(&self) -> CpuFeatures {
        self.disable_cpu_features.unwrap_or_default()
    }
}

/// What `adit mine` takes.
#[derive(Clone, Debug, Args)]
pub struct MineArgs {
    /// Where work comes from
    #[arg(
        value_name = "SOURCE",
        long_help = protocols::help(),
        default_value = "builtin",
        num_args = 1..,
        value_parser = suggesting(protocols::suggested_sources, str::parse::<SourceSpec>),
        hide_possible_values = true
    )]
    pub source: Vec<SourceSpec>,

    /// Stop after N accepted blocks
    #[arg(long, value_name = "N", value_parser = values::count, allow_hyphen_values = true, help_heading = "When to stop")]
    pub blocks: Option<NonZeroU64>,
    /// Stop after N accepted shares
    #[arg(long, value_name = "N", value_parser = values::count, allow_hyphen_values = true, help_heading = "When to stop")]
    pub shares: Option<NonZeroU64>,
    /// Stop after this time: 500ms, 90s, 10m, 2h, 1h30m
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = values::duration,
        allow_hyphen_values = true,
        help_heading = "When to stop"
    )]
    pub run_for: Option<Duration>,

    /// Mine one block each DURATION, and hash only then; for regtest and signets of one's own
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        allow_hyphen_values = true,
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
    #[arg(
        long,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        help_heading = "What to mine"
    )]
    pub journal: Option<PathBuf>,

    /// How to reach the sources, and how to log in to them.
    #[command(flatten)]
    pub reach: SourceOptions,

    /// What hashes
    #[command(flatten)]
    pub hashing: HashingArgs,
    /// Spend only this share of the time hashing, in percent
    #[arg(long, value_name = "PERCENT", value_parser = values::throttle, allow_hyphen_values = true, help_heading = "Hashing")]
    pub throttle: Option<Throttle>,
    /// Begin paused: connect, and hash nothing until resumed (SIGUSR2)
    #[arg(long, help_heading = "Hashing")]
    pub paused: bool,
    /// When to roll the version field
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto", help_heading = "Hashing")]
    pub version_rolling: VersionRolling,
}

/// What hashes, and on how many threads.
#[derive(Clone, Debug, Args)]
pub struct HashingArgs {
    /// What hashes, by commas: auto, cpu, gpu, cpu:KERNEL or gpu:N
    #[arg(
        long,
        long_help = backend::long_help(),
        value_name = "LIST",
        default_value = "auto",
        value_parser = suggesting(backend::suggested_backends, str::parse::<BackendList>),
        hide_possible_values = true,
        help_heading = "Hashing"
    )]
    pub backend: BackendList,
    /// CPU threads [default: as many as the process may use]
    #[arg(long, value_name = "N", value_parser = values::threads, allow_hyphen_values = true, help_heading = "Hashing")]
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
        allow_hyphen_values = true,
        default_value = "5s"
    )]
    pub run_for: Duration,
    /// Write comma-separated values to stdout
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Draw a chart of it into FILE, whose name ends with .svg or .png
    #[arg(
        long,
        value_name = "FILE",
        value_parser = quantities::plot_file,
        value_hint = ValueHint::FilePath
    )]
    pub plot: Option<PlotFile>,
    /// Compare with a run that was saved with --json: the verdict accounts for the noise
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "csv")]
    pub compare: Option<PathBuf>,
    /// Exit with 1 if a result is shown to be slower than RATIO times what it was, or could not be
    /// compared; a RATIO nearer to 1 than the noise is warned of
    #[arg(long, value_name = "RATIO", value_parser = quantities::ratio, allow_hyphen_values = true, requires = "compare")]
    pub fail_below: Option<f64>,
    /// What the machine draws while it hashes, as 65W, instead of what its own counters say; the same
    /// for every result
    #[arg(long, value_name = "W", value_parser = quantities::watts, allow_hyphen_values = true)]
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
    #[arg(
        value_name = "NODE",
        conflicts_with = "difficulty",
        value_parser = suggesting(protocols::suggested_nodes, str::parse::<SourceSpec>),
        hide_possible_values = true
    )]
    pub node: Option<SourceSpec>,
    /// A block's difficulty: 152.3T, 1.5e14, 0.001
    #[arg(long, value_name = "D", value_parser = quantities::difficulty, allow_hyphen_values = true)]
    pub difficulty: Option<Difficulty>,
    /// A share's difficulty
    #[arg(long, value_name = "D", value_parser = quantities::difficulty, allow_hyphen_values = true)]
    pub share_difficulty: Option<Difficulty>,
    /// The hash rate, as 150MH/s, instead of what this machine is measured to do
    #[arg(
        long,
        value_name = "RATE",
        value_parser = quantities::hash_rate,
        allow_hyphen_values = true,
        conflicts_with_all = ["backend", "threads", "run_for"]
    )]
    pub hash_rate: Option<HashRate>,
    /// Measure the hash rate for this long
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = values::duration,
        allow_hyphen_values = true,
        default_value = "2s"
    )]
    pub run_for: Duration,

    /// What the machine draws while it hashes, as 65W; without it, what its own counters say
    #[arg(long, value_name = "W", value_parser = quantities::watts, allow_hyphen_values = true, help_heading = "Costs")]
    pub watts: Option<Watts>,
    /// What a kilowatt-hour costs, in any currency
    #[arg(long, value_name = "PRICE", value_parser = quantities::price, allow_hyphen_values = true, help_heading = "Costs")]
    pub price_per_kwh: Option<Price>,
    /// What a block pays, in coins [default: the subsidy at the node's height]
    #[arg(long, value_name = "COINS", value_parser = quantities::coins, allow_hyphen_values = true, help_heading = "Costs")]
    pub reward: Option<Amount>,
    /// What a coin is worth, in the same currency
    #[arg(long, value_name = "PRICE", value_parser = quantities::price, allow_hyphen_values = true, help_heading = "Costs")]
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
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// What `adit man` takes.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The command whose page it is to be
    #[arg(
        value_name = "COMMAND",
        value_parser = suggesting(values::commands, values::command),
        hide_possible_values = true
    )]
    pub page: Option<String>,
}

#[cfg(test)]
mod tests;
