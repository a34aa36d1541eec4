//! What tells the chains apart: names, ports, folders and the rules of test chains.

use bitcoin::Network;

/// The facts of one chain.
#[derive(Debug, PartialEq, Eq)]
pub struct Params {
    /// The chain.
    pub network: Network,
    /// As a node names it: `getblockchaininfo`'s `chain`, and the node's option `-chain`.
    pub chain_name: &'static str,
    /// As a source on the command line names it.
    pub name: &'static str,
    /// The port on which a node of this chain answers JSON-RPC unless told otherwise.
    pub rpc_port: u16,
    /// The folder below the node's data directory in which it keeps this chain, and its cookie.
    /// `None`: the data directory itself.
    pub data_folder: Option<&'static str>,
    /// Whether a block that comes late may have the lowest difficulty (Bitcoin Core's
    /// `fPowAllowMinDifficultyBlocks`: more than 20 minutes after its parent). On such a chain
    /// a template's nBits hold for its own nTime only. Regtest has the rule too, to no effect: it
    /// never has any other difficulty.
    pub min_difficulty_blocks: bool,
}

/// Bitcoin Core's `CreateBaseChainParams`, and `consensus.fPowAllowMinDifficultyBlocks`.
static ALL: [Params; 5] = [
    Params {
        network: Network::Regtest,
        chain_name: "regtest",
        name: "regtest",
        rpc_port: 18443,
        data_folder: Some("regtest"),
        min_difficulty_blocks: true,
    },
    Params {
        network: Network::Signet,
        chain_name: "signet",
        name: "signet",
        rpc_port: 38332,
        data_folder: Some("signet"),
        min_difficulty_blocks: false,
    },
    Params {
        network: Network::Testnet4,
        chain_name: "testnet4",
        name: "testnet4",
        rpc_port: 48332,
        data_folder: Some("testnet4"),
        min_difficulty_blocks: true,
    },
    Params {
        network: Network::Testnet,
        chain_name: "test",
        name: "testnet3",
        rpc_port: 18332,
        data_folder: Some("testnet3"),
        min_difficulty_blocks: true,
    },
    Params {
        network: Network::Bitcoin,
        chain_name: "main",
        name: "main",
        rpc_port: 8332,
        data_folder: None,
        min_difficulty_blocks: false,
    },
];

impl Params {
    /// The facts of `network`.
    #[must_use]
    pub fn of(network: Network) -> &'static Self {
        let [regtest, signet, testnet4, testnet3, main] = &ALL;
        match network {
            Network::Regtest => regtest,
            Network::Signet => signet,
            Network::Testnet4 => testnet4,
            Network::Testnet => testnet3,
            Network::Bitcoin => main,
        }
    }

    /// Every chain, in the order of our help text.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// Whether a late block's difficulty is another one there: see [`super::min_difficulty`].
    #[must_use]
    pub fn has_twenty_minute_rule(&self) -> bool {
        self.min_difficulty_blocks && self.network != Network::Regtest
    }

    /// Whether blocks are made there on demand, at any rate: regtest,
    /// and signets that one may mine.
    #[must_use]
    pub const fn is_paced_at_will(&self) -> bool {
        matches!(self.network, Network::Regtest | Network::Signet)
    }

    /// The chain that a node calls `chain_name` (`main`, `test`, `testnet4`, `signet`, `regtest`).
    #[must_use]
    pub fn from_chain_name(chain_name: &str) -> Option<&'static Self> {
        ALL.iter().find(|params| params.chain_name == chain_name)
    }

    /// The chain that our command line calls `name` (`main`, `testnet3`, `testnet4`, `signet`,
    /// `regtest`).
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|params| params.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_is_found_by_each_of_its_names() {
        for params in Params::all() {
            assert_eq!(Params::of(params.network), params);
            assert_eq!(Params::from_name(params.name), Some(params));
            assert_eq!(Params::from_chain_name(params.chain_name), Some(params));
            // The bitcoin crate calls them as a node does, but for `bitcoin` and `testnet`.
            assert_eq!(Network::from_core_arg(params.chain_name), Ok(params.network));
        }
        assert_eq!(Params::from_name("test"), None);
        assert_eq!(Params::from_chain_name("testnet3"), None);
        assert_eq!(Params::from_name(""), None);
    }

    #[test]
    fn the_rules_of_test_chains_agree_with_the_bitcoin_crate() {
        for params in Params::all() {
            let theirs = params.network.params();
            assert_eq!(
                params.min_difficulty_blocks, theirs.allow_min_difficulty_blocks,
                "{params:?}"
            );
        }
    }
}
