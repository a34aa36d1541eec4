//! A solved header and its job's transactions, put together as `submitblock` takes them.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::Encodable as _;
use bitcoin::consensus::encode::VarInt;
use bitcoin::hashes::Hash as _;

use super::coinbase::{self, Coinbase};
use super::merkle::sha256d;

/// What a full block holds besides its header and the coinbase's rolled bytes. Sources that submit
/// whole blocks put it into their jobs; pools keep it to themselves.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockBody {
    /// Whether the coinbase carries a witness (BIP 141: one item, the 32-byte reserved value).
    pub segwit: bool,
    /// How many transactions follow the coinbase.
    pub transaction_count: usize,
    /// These transactions as lower- or upper-case hex, one after the other.
    pub transactions_hex: String,
}

/// The hash of a serialized header.
#[must_use]
pub fn hash(header: &[u8; 80]) -> BlockHash {
    BlockHash::from_byte_array(sha256d(header))
}

/// The whole block in hex: header, number of transactions, coinbase (with its witness where `body`
/// says so), and the other transactions as they came.
#[must_use]
pub fn assemble_hex(
    header: &Header,
    coinbase: &Coinbase,
    extranonce: u64,
    body: &BlockBody,
) -> String {
    let head = head(header, coinbase, extranonce, body);
    // There is room for two digits of each byte. `hex::encode` goes digit by digit, which takes longer.
    let mut digits = vec![0; 2 * head.len()];
    let _ = hex::encode_to_slice(&head, &mut digits);
    let mut block = String::with_capacity(digits.len() + body.transactions_hex.len());
    block.push_str(str::from_utf8(&digits).unwrap_or_default());
    block.push_str(&body.transactions_hex);
    block
}

/// All of the block that comes before the transactions of `body`: header, number of transactions,
/// coinbase.
#[must_use]
pub fn head(header: &Header, coinbase: &Coinbase, extranonce: u64, body: &BlockBody) -> Vec<u8> {
    let stripped = coinbase.serialize(extranonce);
    let coinbase = if body.segwit { coinbase::with_witness(&stripped) } else { stripped };
    let mut head = Vec::with_capacity(Header::SIZE + 9 + coinbase.len());
    // A Vec takes everything: there is no error to tell of.
    let _ = header.consensus_encode(&mut head);
    let _ = VarInt::from(1 + body.transaction_count).consensus_encode(&mut head);
    head.extend_from_slice(&coinbase);
    head
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Amount, Block, Transaction, TxMerkleNode};
    use proptest::prelude::*;

    use super::super::coinbase::{CoinbaseTemplate, CoinbaseText, ScriptSigData};
    use super::super::commitment::WitnessCommitment;
    use super::super::merkle::{self, Hash256};
    use super::super::payout::PayoutScript;
    use super::*;

    /// A transaction with a witness: a coinbase is as good as any here.
    fn transaction(number: u32) -> Transaction {
        let coinbase = CoinbaseTemplate {
            height: number,
            data: ScriptSigData::from(&CoinbaseText::new("another").unwrap()),
            value: Amount::from_sat(number.into()),
            payout: PayoutScript::anyone_can_spend(),
            witness_commitment: None,
        }
        .build(vec![]);
        bitcoin::consensus::deserialize(&coinbase::with_witness(&coinbase.serialize(7))).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_block_reads_back_whole(
            count in prop_oneof![0..5usize, 250..256usize],
            segwit in any::<bool>(),
            extranonce in any::<u64>(),
            upper in any::<bool>(),
        ) {
            let others: Vec<Transaction> = (0..count as u32).map(transaction).collect();
            let txids: Vec<Hash256> =
                others.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
            let wtxids: Vec<Hash256> =
                others.iter().map(|tx| tx.compute_wtxid().to_byte_array()).collect();
            let coinbase = CoinbaseTemplate {
                height: 17,
                data: ScriptSigData::default(),
                value: Amount::ONE_BTC,
                payout: PayoutScript::anyone_can_spend(),
                witness_commitment: segwit.then(|| WitnessCommitment::of(&wtxids).script()),
            }
            .build(merkle::branch(txids));
            let transactions_hex: String = others.iter().map(serialize_hex).collect();
            let body = BlockBody {
                segwit,
                transaction_count: count,
                transactions_hex: if upper { transactions_hex.to_uppercase() } else { transactions_hex },
            };
            let mut header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
            header.merkle_root = TxMerkleNode::from_byte_array(coinbase.merkle_root(extranonce));

            let hex = assemble_hex(&header, &coinbase, extranonce, &body);
            prop_assert_eq!(hex.len(), hex.capacity());
            let block: Block = deserialize_hex(&hex).unwrap();
            prop_assert_eq!(block.header, header);
            prop_assert_eq!(block.txdata.len(), 1 + count);
            prop_assert_eq!(&block.txdata[1..], &others);
            prop_assert!(block.check_merkle_root());
            prop_assert_eq!(block.txdata[0].input[0].witness.is_empty(), !segwit);
            if segwit {
                prop_assert!(block.check_witness_commitment());
            }
        }
    }
}
