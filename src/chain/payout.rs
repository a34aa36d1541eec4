//! Where the reward goes: addresses, checked against the chain that is mined.

use bitcoin::address::{Address, AddressType, NetworkUnchecked};
use bitcoin::opcodes::OP_TRUE;
use bitcoin::{Network, Script, ScriptBuf};

use super::params::Params;
use crate::printable::printable;

/// How much of an address a message shows. The longest real one (regtest, taproot) has 64.
const SHOWN: usize = 70;

/// The script of the coinbase's output that pays the miner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayoutScript(ScriptBuf);

/// Why nothing can be paid to an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayoutError {
    /// There is nothing.
    #[error("the address is empty")]
    Empty,
    /// It is not an address, or one with a typing mistake in it.
    #[error("`{0}` is not a Bitcoin address: its checksum, length or prefix is wrong")]
    NotAnAddress(String),
    /// It is an address of a kind that no rules of spending exist for yet, so that everyone or
    /// the coins could never be spent.
    #[error(
        "`{0}` is an address of an unknown kind: known are p2pkh, p2sh, p2wpkh, p2wsh and p2tr"
    )]
    UnknownKind(String),
    /// It is an address of another chain.
    #[error("`{address}` is an address of {belongs_to}, and {mined} is mined")]
    OtherNetwork {
        /// The address.
        address: String,
        /// The chain or chains it is made for.
        belongs_to: &'static str,
        /// The chain that is mined.
        mined: &'static str,
    },
}

impl PayoutScript {
    /// The script that `address` stands for: p2pkh, p2sh (BIP 13), p2wpkh, p2wsh (BIP 173) or p2tr
    /// (BIP 350), of the chain `network`. Test chains share their addresses (testnet3, testnet4
    /// and signet all, regtest the base58 ones), and one is taken for another.
    ///
    /// # Errors
    /// When it is no address, of a kind without rules, or an address of another chain.
    pub fn parse(address: &str, network: Network) -> Result<Self, PayoutError> {
        let address = address.trim();
        if address.is_empty() {
            return Err(PayoutError::Empty);
        }
        let parsed: Address<NetworkUnchecked> =
            address.parse().map_err(|_| PayoutError::NotAnAddress(printable(address, SHOWN)))?;
        Self::of(&parsed, network)
    }

    /// The same for an address that was parsed before and not yet checked against a chain.
    ///
    /// # Errors
    /// When it is of a kind without rules, or an address of another chain.
    pub fn of(parsed: &Address<NetworkUnchecked>, network: Network) -> Result<Self, PayoutError> {
        let shown = || parsed.assume_checked_ref().to_string();
        if !parsed.is_valid_for_network(network) {
            return Err(PayoutError::OtherNetwork {
                address: shown(),
                belongs_to: owner(parsed),
                mined: Params::of(network).name,
            });
        }
        let parsed = parsed.assume_checked_ref();
        match parsed.address_type() {
            Some(
                AddressType::P2pkh
                | AddressType::P2sh
                | AddressType::P2wpkh
                | AddressType::P2wsh
                | AddressType::P2tr,
            ) => Ok(Self(parsed.script_pubkey())),
            // Pay-to-anchor is in here on purpose: anyone can spend it.
            _ => Err(PayoutError::UnknownKind(shown())),
        }
    }

    /// A script that anyone can spend, a bare `OP_TRUE`: for test chains, where the reward is worth
    /// nothing and no wallet is at hand.
    #[must_use]
    pub fn anyone_can_spend() -> Self {
        Self(ScriptBuf::from_bytes(vec![OP_TRUE.to_u8()]))
    }

    /// The script.
    #[must_use]
    pub fn as_script(&self) -> &Script {
        &self.0
    }
}

/// Which chains an address is for, in words.
fn owner(address: &Address<NetworkUnchecked>) -> &'static str {
    let on = |network| address.is_valid_for_network(network);
    match (on(Network::Bitcoin), on(Network::Testnet), on(Network::Regtest)) {
        (true, ..) => "main",
        (_, true, true) => "the test chains",
        (_, true, false) => "testnet3, testnet4 and signet",
        (_, false, true) => "regtest",
        (false, false, false) => "a chain we do not know",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIN: [(&str, &str); 5] = [
        // The key that block 9 pays.
        (
            "12cbQLTFMXRnSzktFkuoG3eHoMeFtpTu3S",
            "76a91411b366edfc0a8b66feebae5c2e25a7b6a5d1cf3188ac",
        ),
        // An address that many tests of others know.
        ("3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
        // BIP 173's two, and BIP 350's.
        (
            "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            "0014751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        (
            "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
            "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        ),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        ),
    ];

    fn parse(address: &str, network: Network) -> Result<String, PayoutError> {
        PayoutScript::parse(address, network).map(|script| script.as_script().to_hex_string())
    }

    #[test]
    fn every_standard_kind_is_taken() {
        for (address, script) in MAIN {
            assert_eq!(parse(address, Network::Bitcoin).as_deref(), Ok(script), "{address}");
        }
        let address = format!(" {}\n", MAIN[0].0);
        assert!(PayoutScript::parse(&address, Network::Bitcoin).is_ok());
    }

    #[test]
    fn every_kind_of_every_chain_is_taken_there_and_told_elsewhere() {
        for (_, script) in MAIN {
            let script = ScriptBuf::from_hex(script).unwrap();
            for theirs in Params::all() {
                let address = Address::from_script(&script, theirs.network).unwrap().to_string();
                for mined in Params::all() {
                    let got = PayoutScript::parse(&address, mined.network);
                    let test = |network| network != Network::Bitcoin;
                    let witness = script.is_witness_program();
                    let regtest = |network| witness && network == Network::Regtest;
                    let same = test(mined.network) == test(theirs.network)
                        && regtest(mined.network) == regtest(theirs.network);
                    if same {
                        assert_eq!(got, Ok(PayoutScript(script.clone())));
                        continue;
                    }
                    let belongs_to = match (theirs.network, witness) {
                        (Network::Bitcoin, _) => "main",
                        (_, false) => "the test chains",
                        (Network::Regtest, true) => "regtest",
                        (_, true) => "testnet3, testnet4 and signet",
                    };
                    assert_eq!(
                        got.unwrap_err().to_string(),
                        format!(
                            "`{address}` is an address of {belongs_to}, and {} is mined",
                            mined.name
                        )
                    );
                }
            }
        }
    }

    #[test]
    fn what_has_no_rules_yet_is_refused() {
        // BIP 350's examples of a version 16 and a version 2 program, and pay-to-anchor.
        for address in ["bc1sw50qgdz25j", "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "bc1pfeessrawgf"]
        {
            assert_eq!(
                PayoutScript::parse(address, Network::Bitcoin),
                Err(PayoutError::UnknownKind(address.into()))
            );
        }
    }

    #[test]
    fn nonsense_makes_one_short_clean_line() {
        assert_eq!(PayoutScript::parse(" \t", Network::Regtest), Err(PayoutError::Empty));
        for (nonsense, shown) in [
            // One letter changed; a version 1 program with the checksum of BIP 173.
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", None),
            ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", None),
            ("ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", None),
            ("hello", None),
            ("a\x1b[31m\nb", Some("a\u{fffd}[31m\u{fffd}b".to_owned())),
            (&"1".repeat(1 << 20), Some(format!("{}…", "1".repeat(SHOWN - 1)))),
        ] {
            let error = PayoutScript::parse(nonsense, Network::Regtest).unwrap_err();
            let shown = shown.unwrap_or_else(|| nonsense.to_owned());
            assert_eq!(error, PayoutError::NotAnAddress(shown));
        }
    }

    #[test]
    fn anyone_can_spend_is_a_bare_true() {
        assert_eq!(PayoutScript::anyone_can_spend().as_script().as_bytes(), [0x51]);
    }

    proptest! {
        #[test]
        fn no_text_at_all_is_too_much(text in ".{0,200}") {
            for params in Params::all() {
                if let Err(error) = PayoutScript::parse(&text, params.network) {
                    prop_assert!(!error.to_string().chars().any(char::is_control));
                }
            }
        }
    }
}
