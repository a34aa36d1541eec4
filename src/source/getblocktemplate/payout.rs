//! Who is paid for a block, checked against the node's chain.

use bitcoin::Network;

use super::Config;
use super::node_error::{ErrorClassifier, NodeError};
use super::template::Payout;
use crate::chain::params::Params;
use crate::chain::payout::{PayoutError, PayoutScript};
use crate::source::{Refused, SourceError};

/// Checks the node's chain against the configuration, and the address against the chain.
///
/// # Errors
/// Always [`NodeError::Fatal`]: when the node is on another chain than the one that was named, or the
/// pace or the address does not fit the chain.
pub fn payout(
    config: &Config,
    params: &Params,
    errors: &ErrorClassifier,
) -> Result<Payout, NodeError> {
    if let Some(wanted) = config.network.filter(|wanted| *wanted != params.network) {
        let wanted = Params::of(wanted).name;
        let why = format!("it is a node of {}, not of {wanted}", params.name);
        let hint = format!("start a node of {wanted}, or name the source by its address");
        return Err(errors.fatal(Refused::BySource, why, Some(hint)));
    }
    if let Some(pace) = config.pace.filter(|_| !params.is_paced_at_will()) {
        let why = format!("blocks of {} do not come at will", params.name);
        let error = SourceError::new(Refused::Configuration, pace.options(), why);
        let hint = "the pace is for regtest and for signets that need no signature";
        return Err(NodeError::Fatal(error.hint(hint)));
    }
    let what = "pay-out address";
    let script = match &config.address {
        Some(address) => PayoutScript::of(address, params.network).map_err(|error| {
            let refused = match error {
                PayoutError::OtherNetwork { .. } => Refused::BySource,
                _ => Refused::Configuration,
            };
            let hint = format!("give an address of {} with --address", params.name);
            NodeError::Fatal(SourceError::new(refused, what, error.to_string()).hint(hint))
        })?,
        None if params.network == Network::Regtest => PayoutScript::anyone_can_spend(),
        None => {
            let why = format!("mining on {} needs one", params.name);
            let error = SourceError::new(Refused::Configuration, what, why);
            return Err(NodeError::Fatal(error.hint("give it with --address")));
        }
    };
    Ok(Payout { script, text: config.text.clone(), version_rolling: config.version_rolling })
}
