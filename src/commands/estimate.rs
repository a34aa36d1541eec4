//! `adit estimate`: how long a block or a share takes, and what it costs.

use adit::chain::params::Params;
use adit::cli::{EstimateArgs, OutputArgs, SourceSpec};
use adit::estimate::{Outlook, Terms, subsidy};
use adit::exit::{Exit, Failure};
use adit::report::estimates::{Estimate, Origin};
use adit::report::{Progress, results};
use adit::source::getblocktemplate::{Endpoint, MiningInfo, local_endpoint};
use anyhow::Context as _;

use super::node;

/// Measures and asks what was not given, and reckons.
pub fn run(args: &EstimateArgs, output: &OutputArgs, progress: &Progress) -> anyhow::Result<Exit> {
    if args.node.is_none() && args.difficulty.is_none() && args.share_difficulty.is_none() {
        return Err(Failure::new(Exit::Usage, "the command line", "a difficulty is missing")
            .hint("give --difficulty, --share-difficulty, or a node to ask")
            .into());
    }
    let node = args.node.as_ref().map(|spec| ask(args, spec)).transpose()?;
    let measured: Option<()> = None;
    let _ = (measured, progress);
    let rate = args.hash_rate.context("TODO")?;
    let watts_from = match args.watts {
        Some(_) => Ok(Origin::Given),
        None => Err("not measured".to_owned()),
    };
    let subsidy = node.as_ref().map(|node| subsidy(node.params.network, node.height));
    let terms = Terms {
        rate,
        watts: args.watts,
        price_per_kwh: args.price_per_kwh,
        reward: args.reward.or(subsidy),
        coin_price: args.coin_price,
    };
    let difficulty = args.difficulty.or(node.as_ref().map(|node| node.difficulty));
    let outlook = |difficulty| Outlook::new(difficulty, &terms);
    let (block, share) = (difficulty.map(outlook), args.share_difficulty.map(outlook));
    let estimate = Estimate::new(terms, Origin::Given, watts_from, node.as_ref(), block, share);
    super::finish(&results::shown(&estimate, output.json), Exit::Done)
}

/// Asks the node how hard its next block is.
fn ask(args: &EstimateArgs, spec: &SourceSpec) -> anyhow::Result<MiningInfo> {
    let (endpoint, network) = if let SourceSpec::Rpc(url) = spec {
        (Endpoint { host: url.host.clone(), port: url.port }, None)
    } else if let SourceSpec::LocalNode(network) = spec {
        (local_endpoint(*network, args.login.datadir.as_deref())?, Some(*network))
    } else {
        return Err(Failure::new(Exit::Usage, format!("node {spec}"), "it is no node")
            .hint("a node is http://HOST:PORT, or regtest, signet, testnet4, testnet3 or main")
            .into());
    };
    let credentials = node::credentials(args.login.login(spec)?, &endpoint, network)?;
    let what = format!("node {endpoint}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("network runtime")?;
    let info = runtime.block_on(MiningInfo::ask(endpoint, credentials))?;
    match network.filter(|wanted| *wanted != info.params.network) {
        None => Ok(info),
        Some(wanted) => {
            let why =
                format!("it is a node of {}, not of {}", info.params.name, Params::of(wanted).name);
            Err(Failure::new(Exit::Refused, what, why).into())
        }
    }
}
