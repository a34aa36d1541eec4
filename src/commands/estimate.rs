//! `adit estimate`: how long a block or a share takes, and what it costs.

use adit::bench::{NoCycles, Plan, Team};
use adit::chain::params::Params;
use adit::chain::subsidy::subsidy;
use adit::cli::{EstimateArgs, OutputArgs};
use adit::estimate::{Outlook, Terms};
use adit::exit::{Exit, Failure};
use adit::output::estimates::{Estimate, Origin};
use adit::output::{bench, results};
use adit::protocols::{NodeAt, SourceSpec};
use adit::report::Progress;
use adit::scan::cpu::CpuFeatures;
use adit::signals::Signals;
use adit::source::getblocktemplate::MiningInfo;
use adit::units::{HashRate, Watts};
use anyhow::Context as _;

use super::backends;

/// Measures and asks what was not given, and computes the rest.
pub fn run(
    args: &EstimateArgs,
    output: &OutputArgs,
    progress: &Progress,
    signals: &Signals,
) -> anyhow::Result<Exit> {
    if args.node.is_none() && args.difficulty.is_none() && args.share_difficulty.is_none() {
        return Err(Failure::new(Exit::Usage, "the command line", "a difficulty is missing")
            .hint("give --difficulty, --share-difficulty, or a node to ask")
            .into());
    }
    let node = args.node.as_ref().map(|spec| ask(args, spec)).transpose()?;
    let features = output.cpu_features();
    let rated = rated(args, features, progress, signals)?;
    let Rated { rate, rate_from, watts, watts_from } = match rated {
        Ok(rated) => rated,
        Err(signal) => return Ok(signal),
    };
    let subsidy = node.as_ref().map(|node| subsidy(node.params.network, node.height));
    let terms = Terms {
        rate,
        watts,
        price_per_kwh: args.price_per_kwh,
        reward: args.reward.or(subsidy),
        coin_price: args.coin_price,
    };
    let difficulty = args.difficulty.or(node.as_ref().map(|node| node.difficulty));
    let outlook = |difficulty| Outlook::new(difficulty, &terms);
    let (block, share) = (difficulty.map(outlook), args.share_difficulty.map(outlook));
    let estimate = Estimate::new(terms, rate_from, watts_from, node.as_ref(), block, share);
    super::finish(&results::shown(&estimate, output.json), Exit::Done)
}

/// How fast, at what power, and whence that is known.
struct Rated {
    rate: HashRate,
    rate_from: Origin,
    watts: Option<Watts>,
    watts_from: Result<Origin, String>,
}

/// What was given, and of the rest what can be measured; or with which code to end where a signal broke it off.
fn rated(
    args: &EstimateArgs,
    features: CpuFeatures,
    progress: &Progress,
    signals: &Signals,
) -> anyhow::Result<Result<Rated, Exit>> {
    let given = args.watts.map(|_| Origin::Given);
    if let Some(rate) = args.hash_rate {
        let watts_from = given.ok_or_else(|| "nothing was measured".to_owned());
        return Ok(Ok(Rated { rate, rate_from: Origin::Given, watts: args.watts, watts_from }));
    }
    let scanners = backends::scanners(&args.hashing, features, true)?;
    let team = Team::of(scanners).context("no backend")?;
    let cycles = Err(NoCycles::NoCpu);
    let plan = Plan { teams: vec![team], run_for: args.run_for, cycles, watts: args.watts };
    let measured = match backends::measured(plan, signals, progress)? {
        Ok(measured) => measured,
        Err(signal) => return Ok(Err(signal)),
    };
    if let Some(failure) = bench::disagreement(&measured) {
        return Err(failure.into());
    }
    // The job decides whether versions are rolled; where one's own node gives it, they are.
    let best = measured
        .iter()
        .max_by(|a, b| a.summary().mean.to_f64().total_cmp(&b.summary().mean.to_f64()));
    let best = best.context("nothing was measured")?;
    let (watts, watts_from) = match &best.energy {
        Ok(energy) => (Watts::new(energy.watts), Ok(given.unwrap_or(Origin::Measured))),
        Err(reason) => (None, Err(reason.to_string())),
    };
    let rate = best.summary().mean;
    Ok(Ok(Rated { rate, rate_from: Origin::Measured, watts, watts_from }))
}

/// Asks the node how hard its next block is.
fn ask(args: &EstimateArgs, spec: &SourceSpec) -> anyhow::Result<MiningInfo> {
    let Some(NodeAt { endpoint, credentials, network }) = NodeAt::of(spec, &args.login)? else {
        return Err(Failure::new(Exit::Usage, format!("node {spec}"), "it is no node")
            .hint("a node is http://HOST:PORT, or regtest, signet, testnet4, testnet3 or main")
            .into());
    };
    let what = format!("node {endpoint}");
    let runtime = super::network_runtime()?;
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
