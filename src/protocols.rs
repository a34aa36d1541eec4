//! The protocols that a source may speak, as the command line and the configuration file see them: one
//! row of the table `PROTOCOLS` for each.
//!
//! Everything that depends on the protocol before a source runs stands in its row: how its sources are
//! written, what is suggested where one is written wrongly, which options give it a login, and how a
//! source is made of all that. What a protocol does on the wire is in [`crate::source`].

mod address;
mod builtin;
mod getblocktemplate;
mod options;
mod spec;
mod stratum_v1;

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::{Address, NetworkUnchecked};

pub use self::address::Url;
pub use self::getblocktemplate::NodeAt;
pub use self::options::{IN_ENVIRONMENT, NodeArgs, PoolArgs, PoolLogin, RpcLogin, SourceOptions};
pub use self::spec::{Place, SourceSpec, help, suggested_nodes, suggested_sources};

use crate::chain::coinbase::CoinbaseText;
use crate::exit::{Exit, Failure};
use crate::journal::Journal;
use crate::source::failover::{Failover, Make};
use crate::value_error::ValueError;

/// Every protocol, in the order in which help texts name them. A new one takes one more line here.
static PROTOCOLS: [&Protocol; 3] =
    [&getblocktemplate::PROTOCOL, &stratum_v1::PROTOCOL, &builtin::PROTOCOL];

/// A row of the table of protocols.
#[derive(Debug)]
pub struct Protocol {
    /// What such a source is, with its article: "a node".
    pub called: &'static str,
    /// What the long help of SOURCE says of it.
    help: &'static str,
    /// The words that name a source of it without an address.
    words: fn() -> Vec<&'static str>,
    /// How its words are listed in a hint.
    words_form: Option<&'static str>,
    /// The schemes of its URLs, in lower case.
    schemes: &'static [Scheme],
    /// How its URLs are listed in a hint.
    url_forms: &'static [&'static str],
    /// Takes what follows the scheme of a URL.
    url: fn(rest: &str, scheme: &'static str) -> Result<Url, ValueError>,
    /// Schemes that people write and that adit does not take: why, and what to write instead.
    refused_schemes: &'static [(&'static str, &'static str, Option<&'static str>)],
    /// Other words that people write for such a source, and what to write instead.
    other_words: &'static [(&'static [&'static str], &'static str)],
    /// Whether there are shares beside blocks.
    pub has_shares: bool,
    /// Who its login is for, and which options give one beside the URL.
    pub login: Option<LoginOptions>,
    /// Makes a source of its address, its options and what is to be mined.
    make: fn(&Place, &SourceOptions, &Terms) -> Result<Make, Failure>,
}

/// The scheme of a URL.
#[derive(Debug)]
struct Scheme {
    /// As it is shown.
    name: &'static str,
    /// Other ways to write it.
    aliases: &'static [&'static str],
}

impl Scheme {
    const fn of(name: &'static str) -> Self {
        Self { name, aliases: &[] }
    }
}

/// Which options give a login.
#[derive(Debug)]
pub struct LoginOptions {
    /// Who it is for: "node".
    pub peer: &'static str,
    /// The options' long names; those that give a password end with "password".
    pub options: &'static [&'static str],
}

/// What is to be mined, whatever the source.
#[derive(Debug)]
pub struct Terms {
    /// Who is paid.
    pub address: Option<Address<NetworkUnchecked>>,
    /// The text in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// The time from one block to the next.
    pub every: Option<Duration>,
    /// Whether a block is wanted as soon as there is a transaction for it.
    pub on_transaction: bool,
    /// Where found blocks are recorded.
    pub journal: SharedJournal,
}

/// The journal of all sources that need one: it is opened when the first of them is made.
#[derive(Debug)]
pub struct SharedJournal {
    dir: Option<PathBuf>,
    opened: OnceCell<Arc<Journal>>,
}

impl SharedJournal {
    /// In this directory; without one, where the user's state is kept.
    #[must_use]
    pub fn at(dir: Option<PathBuf>) -> Self {
        Self { dir, opened: OnceCell::new() }
    }

    /// The journal.
    ///
    /// # Errors
    /// When it cannot be opened, or when there is no place for it.
    fn open(&self) -> Result<Arc<Journal>, Failure> {
        if let Some(journal) = self.opened.get() {
            return Ok(journal.clone());
        }
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                crate::dirs::state_dir().map(|state| state.join("journal")).ok_or_else(|| {
                    Failure::new(Exit::Usage, "journal", "this system names no place to keep it")
                        .hint("name a directory with --journal")
                })?
            }
        };
        let journal = Journal::open(&dir).map_err(|error| {
            let mut failure = Failure::from_chain(Exit::Usage, &error);
            failure.hint = error.hint().map(str::to_owned);
            failure
        })?;
        for warning in journal.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(self.opened.get_or_init(|| Arc::new(journal)).clone())
    }
}

/// The sources that were asked for, in their order. All that can be wrong with what was said of them is
/// found here, also of those that may never be needed.
///
/// # Errors
/// When an option does not suit a source, or something that it names is of no use.
pub fn sources(
    specs: &[SourceSpec],
    options: &SourceOptions,
    terms: &Terms,
) -> Result<Failover, Failure> {
    options.pool.transport()?;
    let made = specs.iter().map(|spec| (spec.protocol().make)(spec.place(), options, terms));
    Ok(Failover::new(made.collect::<Result<_, _>>()?))
}
