//! The built-in regtest chain, as the command line names it.

use bitcoin::Network;

use super::{Place, Protocol, SourceOptions, Terms};
use crate::chain::payout::{PayoutError, PayoutScript};
use crate::exit::{Exit, Failure};
use crate::source::builtin::Builtin;
use crate::source::failover::Make;
use crate::value_error::ValueError;

pub(super) static PROTOCOL: Protocol = Protocol {
    called: "the built-in chain",
    help: "`builtin`, a regtest chain of our own that needs nothing installed and keeps a node's rules",
    words: || vec!["builtin"],
    words_form: Some("builtin"),
    schemes: &[],
    url_forms: &[],
    url: |_, _| Err(ValueError::new("the built-in chain has no address")),
    refused_schemes: &[],
    other_words: &[],
    has_shares: false,
    login: None,
    make,
};

fn make(_: &Place, _: &SourceOptions, terms: &Terms) -> Result<Make, Failure> {
    if terms.on_transaction {
        let why = "the built-in chain has no mempool for a transaction to come to";
        return Err(Failure::new(Exit::Usage, "--on-transaction", why)
            .hint("name a node: adit mine regtest --on-transaction"));
    }
    let payout = match &terms.address {
        Some(address) => Some(PayoutScript::of(address, Network::Regtest).map_err(|error| {
            let exit = match error {
                PayoutError::OtherNetwork { .. } => Exit::Refused,
                _ => Exit::Usage,
            };
            Failure::new(exit, "pay-out address", error.to_string())
                .hint("the built-in chain is a regtest chain, and pays no one: omit --address")
        })?),
        None => None,
    };
    let builtin = Builtin {
        payout,
        text: terms.text.clone(),
        version_rolling: terms.version_rolling,
        every: terms.every,
    };
    Ok(Box::new(move || Box::new(builtin.clone())))
}
