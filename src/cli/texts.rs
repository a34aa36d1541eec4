//! The longer texts of the help.

use std::fmt::Write as _;

use crate::exit::Exit;

/// What stands below the list of commands: the exit codes, and how options become settings.
pub(super) fn after_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "  {:<4} {}", exit.code(), exit.meaning());
    }
    text.extend(["\n", SETTINGS]);
    text
}

const SETTINGS: &str = "\
Every option may stand in the configuration file, under its long name:
  source = \"regtest\"
  rpc-password = \"...\"
  [mine]
  blocks = 10
The command line beats the environment, and the environment beats the file.";

pub(super) const MINE_EXAMPLES: &str = "\
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

pub(super) const MINE_ABOUT: &str = "\
Mines blocks, or a pool's shares, and hands them to SOURCE until told to stop: by --blocks, by \
--shares, by --for, or by Ctrl-C.

Blocks and shares are reported on stdout, logs and progress on stderr. What is mined is meant for tests and \
test chains: on the main chain a CPU finds, in any time worth naming, nothing.";

pub(super) const BENCH_ABOUT: &str = "\
Measures how fast each backend hashes: with one midstate and with rolled versions, kernels on one \
thread and on all (or on as many as --threads says), and where there are cards, all together.

The results are measured in short slices that take turns, so that whatever else the machine does \
hits all of them alike: compare the results of one run. Each comes with the candidates of the ranges \
that were timed, every one hashed again, and a sample of the ranges searched again, by the reference implementation; \
a result is `verified` when none is wrong and none is missing.

Cycles are shown where the processor's own counter can be read, energy where its counters (RAPL) or \
the card's (NVML) can, or with --watts; where not, it says why.";

pub(super) const BENCH_EXAMPLES: &str = "\
Examples:
  adit bench --plot bench.svg
  adit bench --backend cpu:sha2,cpu:sha-ni --threads 1
  adit bench --json > before.json
  adit bench --compare before.json --plot change.svg
  adit bench --compare before.json --fail-below 0.9";

pub(super) const GRIND_ABOUT: &str = "\
Solves one block header, given as 160 hex characters, for the target in its own nBits. Only the \
nonce changes. The solved header goes to stdout in hex; where there is none, stderr says why in the \
words of `bitcoin-util grind`, and the exit code is 1.";

pub(super) const CHECK_ABOUT: &str = "\
Checks every backend of this machine against the reference implementation, on all threads at once (or on as many as \
--threads says): known blocks, and headers that are random in each run. A backend that this machine \
lacks is no failure; one that computes wrongly is, and the exit code is 3.";

pub(super) const ESTIMATE_ABOUT: &str = "\
How long a block or a share takes at some hash rate, and what it costs in energy.

The hash rate is the one given, or what this machine is measured to do. The difficulty is the one \
given, or that of the next block of the node NODE were it found now; on testnet4 and testnet3 it is \
said which of the two difficulties of the twenty-minute rule that is. Finding a block is a matter of chance, and the \
time to the next one is exponentially distributed: half of all waits are shorter than 69 % of the \
mean, and one of twenty is longer than three times the mean. What was tried before does not count.";

pub(super) const ESTIMATE_EXAMPLES: &str = "\
Examples:
  adit estimate --difficulty 152.3T --hash-rate 150MH/s --watts 65 --price-per-kwh 0.25 \\
      --reward 3.125 --coin-price 90000
  adit estimate signet                     the local signet node's difficulty, this machine's rate
  adit estimate --share-difficulty 1 --hash-rate 9GH/s --json";

pub(super) const COMPLETIONS_ABOUT: &str = "\
Writes a completion script for SHELL to stdout, made from the same grammar as this help.

  bash        adit completions bash > ~/.local/share/bash-completion/completions/adit
  zsh         adit completions zsh > \"${fpath[1]}/_adit\"
  fish        adit completions fish > ~/.config/fish/completions/adit.fish
  powershell  adit completions powershell >> $PROFILE";

pub(super) const MAN_ABOUT: &str = "\
Writes a manual page to stdout: that of adit, or of one of its commands. To read it at once:

  adit man | man -l -
  adit man mine | man -l -";
