//! How many coins a block creates.

use bitcoin::{Amount, Network};

/// What a block at `height` may create, fees left aside (Bitcoin Core's `GetBlockSubsidy`): 50
/// coins, halved every 210,000 blocks, on regtest every 150.
#[must_use]
pub fn subsidy(network: Network, height: u64) -> Amount {
    let interval = if network == Network::Regtest { 150 } else { 210_000 };
    let halvings = u32::try_from(height / interval).unwrap_or(u32::MAX);
    Amount::from_sat(50_0000_0000_u64.checked_shr(halvings).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsidy_is_the_chains() {
        assert_eq!(subsidy(Network::Bitcoin, 839_999).to_sat(), 625_000_000);
        assert_eq!(subsidy(Network::Bitcoin, 840_000).to_sat(), 312_500_000);
        assert_eq!(subsidy(Network::Regtest, 150).to_sat(), 2_500_000_000);
        assert_eq!(subsidy(Network::Regtest, 4_949).to_sat(), 1);
        assert_eq!(subsidy(Network::Regtest, 4_950), Amount::ZERO);
        assert_eq!(subsidy(Network::Signet, u64::MAX), Amount::ZERO);
    }
}
