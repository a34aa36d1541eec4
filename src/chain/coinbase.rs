//! The coinbase transaction: built around an extranonce, as [`Coinbase`] carries it.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{Encodable, VarInt};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut};

use super::commitment::RESERVED_VALUE;
use super::merkle::{self, Hash256};
use super::payout::PayoutScript;
use crate::printable::is_printable;

/// The most bytes a coinbase's scriptSig may have (a node's `bad-cb-length`).
const SCRIPT_SIG_MAX: usize = 100;
/// Bytes of the extranonce we put into the scriptSig.
const EXTRANONCE_LEN: u8 = 8;
/// What is left for text and a node's own bytes when the highest height (four bytes, a fifth for
/// its sign, and the push) and the extranonce with its push have their place.
const DATA_MAX: usize = SCRIPT_SIG_MAX - 6 - (1 + EXTRANONCE_LEN as usize);

/// A coinbase transaction (serialized without its witness) around an extranonce, and the way from
/// its txid to the merkle root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coinbase {
    /// The bytes before the extranonce.
    pub prefix: Vec<u8>,
    /// The part of the extranonce that a pool gives and that stays.
    pub fixed_extranonce: Vec<u8>,
    /// How many bytes are ours to roll, 1 to 16. Only the first 8 are rolled; the rest stay zero.
    pub extranonce_len: u8,
    /// The bytes after the extranonce.
    pub suffix: Vec<u8>,
    /// The sibling hashes from the coinbase's txid up to the root, in internal byte order.
    pub merkle_branch: Vec<Hash256>,
}

impl Coinbase {
    /// The rolled extranonce's bytes: `value` as a little-endian number of `extranonce_len` bytes.
    #[must_use]
    pub fn extranonce_bytes(&self, value: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(self.extranonce_len)];
        for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        bytes
    }

    /// The whole transaction, without a witness, for this extranonce.
    #[must_use]
    pub fn serialize(&self, extranonce: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            self.prefix.len()
                + self.fixed_extranonce.len()
                + usize::from(self.extranonce_len)
                + self.suffix.len(),
        );
        bytes.extend_from_slice(&self.prefix);
        bytes.extend_from_slice(&self.fixed_extranonce);
        bytes.extend_from_slice(&self.extranonce_bytes(extranonce));
        bytes.extend_from_slice(&self.suffix);
        bytes
    }

    /// The merkle root for this extranonce, in internal byte order.
    #[must_use]
    pub fn merkle_root(&self, extranonce: u64) -> Hash256 {
        merkle::fold(merkle::sha256d(&self.serialize(extranonce)), &self.merkle_branch)
    }

    /// How many extranonces there are; `u64::MAX` stands for 2^64 and more.
    #[must_use]
    pub fn extranonces(&self) -> u64 {
        1u64.checked_shl(8 * u32::from(self.extranonce_len)).unwrap_or(u64::MAX)
    }
}

/// A text for the coinbase that fits at every height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoinbaseText(String);

/// Why a text cannot go into the coinbase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It is too long.
    #[error(
        "the coinbase text has {len} bytes, {} more than the {} that fit",
        .len - CoinbaseText::MAX_LEN,
        CoinbaseText::MAX_LEN
    )]
    TooLong {
        /// Its bytes in UTF-8.
        len: usize,
    },
    /// It holds a control character or an invisible one.
    #[error("the coinbase text has the unprintable character U+{:04X} in it", u32::from(*.0))]
    Unprintable(char),
}

impl CoinbaseText {
    /// The most bytes (of UTF-8) that a text may have.
    pub const MAX_LEN: usize = DATA_MAX - 2;

    /// Checks `text`. An empty one leaves no trace in the coinbase.
    ///
    /// # Errors
    /// When it is longer than [`Self::MAX_LEN`] or unprintable.
    pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
        let text = text.into();
        if text.len() > Self::MAX_LEN {
            return Err(TextError::TooLong { len: text.len() });
        }
        match text.chars().find(|c| !is_printable(*c)) {
            Some(c) => Err(TextError::Unprintable(c)),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands in the scriptSig between the height and the extranonce: a node's own bytes (BIP 22,
/// `coinbaseaux`) and our text. It fits at every height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptSigData(Vec<u8>);

/// The node wants more bytes in the scriptSig than fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("coinbaseaux has {len} bytes, {over} more than fit into the coinbase beside its text")]
pub struct AuxTooLong {
    /// The bytes that the node wants there.
    pub len: usize,
    /// How many of them are too much.
    pub over: usize,
}

impl ScriptSigData {
    /// `aux` as it is, and `text` as a push.
    ///
    /// # Errors
    /// When height and extranonce no longer fit beside the two.
    pub fn new(aux: &[u8], text: &CoinbaseText) -> Result<Self, AuxTooLong> {
        let pushed = Self::from(text).0;
        match (aux.len() + pushed.len()).checked_sub(DATA_MAX) {
            None | Some(0) => Ok(Self([aux, &pushed].concat())),
            Some(over) => Err(AuxTooLong { len: aux.len(), over }),
        }
    }
}

impl From<&CoinbaseText> for ScriptSigData {
    fn from(text: &CoinbaseText) -> Self {
        if text.0.is_empty() {
            return Self::default();
        }
        // Pushed, so that its bytes don't count as signature operations and scripts stay readable.
        // Only 2^32 bytes would be too many for a push.
        let push = PushBytesBuf::try_from(text.0.clone().into_bytes()).unwrap_or_default();
        Self(Builder::new().push_slice(push).into_bytes())
    }
}

/// All that a coinbase transaction is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoinbaseTemplate {
    /// The height of its block, which its scriptSig begins with (BIP 34).
    pub height: u32,
    /// What follows the height in its scriptSig.
    pub data: ScriptSigData,
    /// The reward: subsidy and fees.
    pub value: Amount,
    /// Who gets it.
    pub payout: PayoutScript,
    /// The script of the witness commitment's output (BIP 141), where the block has one.
    pub witness_commitment: Option<ScriptBuf>,
}

impl CoinbaseTemplate {
    /// The transaction around an extranonce of 8 bytes. `merkle_branch`: the sibling hashes from
    /// its txid up to the merkle root, in internal byte order.
    #[must_use]
    pub fn build(&self, merkle_branch: Vec<Hash256>) -> Coinbase {
        // Heights 1 to 16 are the opcodes OP_1 to OP_16: a node compares the scriptSig's beginning
        // with `CScript() << height`, which makes them so (BIP 34 came before that mattered).
        let mut script_sig = Builder::new().push_int(i64::from(self.height)).into_bytes();
        script_sig.extend_from_slice(&self.data.0);
        // The extranonce as a push: it also brings the scriptSig of a low height, a single byte,
        // over the two bytes that every coinbase must have.
        script_sig.push(EXTRANONCE_LEN);
        let script_sig_len = script_sig.len() + usize::from(EXTRANONCE_LEN);

        let mut prefix = Vec::with_capacity(4 + 1 + 36 + 1 + script_sig.len());
        prefix.extend_from_slice(&2u32.to_le_bytes()); // the transaction's version
        prefix.push(1); // one input
        put(&OutPoint::null(), &mut prefix);
        // The types of text and data see to it.
        debug_assert!((2..=SCRIPT_SIG_MAX).contains(&script_sig_len));
        put(&VarInt::from(script_sig_len), &mut prefix);
        prefix.extend_from_slice(&script_sig);

        let mut suffix = Vec::with_capacity(128);
        // BIP 54 (the proposed consensus cleanup) wants the lock time of a coinbase to be one less
        // than its height, and the lock to be in force, which takes a sequence that is not final:
        // then no two coinbases can ever have the same txid, and BIP 30's check of it can go.
        // Under today's rules both fields are free, since a lock on the block before is met.
        put(&Sequence::ENABLE_LOCKTIME_NO_RBF, &mut suffix);
        suffix.push(1 + u8::from(self.witness_commitment.is_some())); // outputs
        put(
            &TxOut { value: self.value, script_pubkey: self.payout.as_script().to_owned() },
            &mut suffix,
        );
        if let Some(script) = &self.witness_commitment {
            put(&TxOut { value: Amount::ZERO, script_pubkey: script.clone() }, &mut suffix);
        }
        // From 500,000,000 on it would be read as a time; no chain comes near, but a node's lie
        // may, and is answered by the node itself.
        let lock_time = LockTime::from_height(self.height.saturating_sub(1));
        put(&lock_time.unwrap_or(LockTime::ZERO), &mut suffix);

        Coinbase {
            prefix,
            fixed_extranonce: Vec::new(),
            extranonce_len: EXTRANONCE_LEN,
            suffix,
            merkle_branch,
        }
    }
}

/// Appends the consensus serialization of `what`.
fn put(what: &impl Encodable, to: &mut Vec<u8>) {
    // A Vec takes everything: there is no error to tell of.
    let _ = what.consensus_encode(to);
}

/// A coinbase as a block carries it under BIP 141: `stripped` (its serialization without witness)
/// with marker, flag, and a witness of one item, [`RESERVED_VALUE`] (BIP 144).
///
/// `stripped` is given back as it is if it is too short for a transaction.
#[must_use]
pub fn with_witness(stripped: &[u8]) -> Vec<u8> {
    let Some((version, rest)) = stripped.split_first_chunk::<4>() else {
        return stripped.to_vec();
    };
    let Some((body, lock_time)) = rest.split_last_chunk::<4>() else {
        return stripped.to_vec();
    };
    [version.as_slice(), &[0, 1], body, &[1, 32], &RESERVED_VALUE, lock_time].concat()
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::deserialize;
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Network, Transaction};
    use proptest::prelude::*;

    use super::super::commitment::WitnessCommitment;
    use super::super::merkle;
    use super::*;

    /// Heights around every change in how they are pushed.
    fn heights() -> impl Strategy<Value = u32> {
        prop_oneof![
            0..=18u32,
            prop::sample::select(vec![
                127,
                128,
                255,
                256,
                32_767,
                32_768,
                65_535,
                65_536,
                8_388_607,
                8_388_608,
                500_000_000,
                500_000_001,
                0x7fff_ffff,
                0x8000_0000,
                u32::MAX,
            ]),
            any::<u32>(),
        ]
    }

    fn payouts() -> impl Strategy<Value = PayoutScript> {
        prop::sample::select(vec![
            PayoutScript::anyone_can_spend(),
            PayoutScript::parse("12cbQLTFMXRnSzktFkuoG3eHoMeFtpTu3S", Network::Bitcoin).unwrap(),
            PayoutScript::parse(
                "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
                Network::Bitcoin,
            )
            .unwrap(),
        ])
    }

    proptest! {
        #[test]
        fn it_reads_back_as_it_was_meant(
            height in heights(),
            text_len in 0..=CoinbaseText::MAX_LEN,
            aux_len in 0..=DATA_MAX,
            value in 0..=2_100_000_000_000_000u64,
            payout in payouts(),
            commitment in any::<Option<[u8; 32]>>(),
            extranonce in any::<u64>(),
            branch in prop::collection::vec(any::<[u8; 32]>(), 0..13),
        ) {
            let text = CoinbaseText::new("x".repeat(text_len)).unwrap();
            let aux = vec![0xac; aux_len];
            let pushed = text_len + [0, 1, 2][usize::from(text_len > 0) + usize::from(text_len > 75)];
            let room = DATA_MAX - pushed;
            let data = ScriptSigData::new(&aux, &text);
            if aux_len > room {
                prop_assert_eq!(data, Err(AuxTooLong { len: aux_len, over: aux_len - room }));
                return Ok(());
            }
            let template = CoinbaseTemplate {
                height,
                data: data.unwrap(),
                value: Amount::from_sat(value),
                payout: payout.clone(),
                witness_commitment: commitment.map(|c| WitnessCommitment::of(&[c]).script()),
            };
            let coinbase = template.build(branch.clone());
            prop_assert_eq!(coinbase.extranonces(), u64::MAX);
            let stripped = coinbase.serialize(extranonce);
            // BIP 54 also forbids stripped transactions of exactly 64 bytes.
            prop_assert!(stripped.len() > 64);

            let tx: Transaction = deserialize(&stripped).unwrap();
            prop_assert!(tx.is_coinbase());
            let script_sig = tx.input[0].script_sig.as_bytes();
            prop_assert!((2..=SCRIPT_SIG_MAX).contains(&script_sig.len()));
            let start = Builder::new().push_int(i64::from(height)).into_bytes();
            prop_assert!(script_sig.starts_with(&start));
            prop_assert!(script_sig.ends_with(&extranonce.to_le_bytes()));
            let data = &script_sig[start.len()..script_sig.len() - 9];
            prop_assert!(data.starts_with(&aux));
            prop_assert!(data.ends_with(text.as_str().as_bytes()));
            prop_assert_eq!(data.len(), aux_len + pushed);
            if aux_len == 0 {
                prop_assert_eq!(tx.input[0].script_sig.count_sigops_legacy(), 0);
            }

            prop_assert_eq!(tx.output.len(), 1 + usize::from(commitment.is_some()));
            prop_assert_eq!(tx.output[0].value.to_sat(), value);
            prop_assert_eq!(tx.output[0].script_pubkey.as_script(), payout.as_script());
            if let Some(script) = &template.witness_commitment {
                prop_assert_eq!(tx.output[1].value, Amount::ZERO);
                prop_assert_eq!(&tx.output[1].script_pubkey, script);
            }
            if height < 500_000_000 {
                prop_assert_eq!(tx.lock_time.to_consensus_u32(), height.saturating_sub(1));
            }
            prop_assert!(!tx.input[0].sequence.is_final());

            let txid = tx.compute_txid();
            let whole: Transaction = deserialize(&with_witness(&stripped)).unwrap();
            prop_assert_eq!(whole.compute_txid(), txid);
            let witness: Vec<_> = whole.input[0].witness.iter().collect();
            prop_assert_eq!(witness, [[0; 32].as_slice()]);
            prop_assert_eq!(
                coinbase.merkle_root(extranonce),
                merkle::fold(txid.to_byte_array(), &branch)
            );
        }
    }

    #[test]
    fn the_height_stands_as_a_node_reads_it() {
        // Bitcoin Core: `CScript() << height`.
        for (height, push) in [
            (1, "51"),
            (16, "60"),
            (17, "0111"),
            (127, "017f"),
            (128, "028000"),
            (255, "02ff00"),
            (256, "020001"),
            (32_768, "03008000"),
            (840_000, "0340d10c"),
        ] {
            let coinbase = CoinbaseTemplate {
                height,
                data: ScriptSigData::default(),
                value: Amount::ZERO,
                payout: PayoutScript::anyone_can_spend(),
                witness_commitment: None,
            }
            .build(vec![]);
            let script_sig = hex::encode(&coinbase.prefix[42..]);
            assert_eq!(script_sig, format!("{push}08"), "{height}");
        }
    }

    #[test]
    fn text_is_measured_and_looked_at() {
        assert_eq!(CoinbaseText::MAX_LEN, 83);
        assert!(CoinbaseText::new("ö".repeat(41)).is_ok());
        assert!(CoinbaseText::new("⛏ grüße 🦀").is_ok());
        assert_eq!(
            CoinbaseText::new("ö".repeat(42)).unwrap_err().to_string(),
            "the coinbase text has 84 bytes, 1 more than the 83 that fit"
        );
        assert_eq!(
            CoinbaseText::new("a\nb").unwrap_err().to_string(),
            "the coinbase text has the unprintable character U+000A in it"
        );
    }

    #[test]
    fn no_bytes_at_all_are_too_few_for_a_witness() {
        for len in 0..8 {
            assert_eq!(with_witness(&vec![1; len]), vec![1; len]);
        }
    }
}
