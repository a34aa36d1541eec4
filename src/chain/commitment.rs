//! The witness commitment of BIP 141: an output of the coinbase that commits to every witness.

use bitcoin::{Script, ScriptBuf};

use super::merkle::{self, Hash256};

/// The *witness reserved value*, the only item of the coinbase's witness. Any 32 bytes are valid;
/// these are what every template is made for.
pub const RESERVED_VALUE: [u8; 32] = [0; 32];

/// What a commitment's script begins with: `OP_RETURN`, a push of 36 bytes, and BIP 141's magic.
const PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// SHA-256d of the witness merkle root and the reserved value, in internal byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessCommitment(Hash256);

impl WitnessCommitment {
    /// The commitment to a coinbase (whose wtxid counts as zero) followed by transactions with
    /// these wtxids (in internal byte order), with [`RESERVED_VALUE`] (BIP 141, *Commitment
    /// structure*).
    #[must_use]
    pub fn of(wtxids: &[Hash256]) -> Self {
        Self::with_reserved_value(wtxids, &RESERVED_VALUE)
    }

    /// The same with any reserved value: for blocks that others made.
    #[must_use]
    pub fn with_reserved_value(wtxids: &[Hash256], reserved_value: &[u8; 32]) -> Self {
        let root = merkle::fold([0; 32], &merkle::branch(wtxids.to_vec()));
        Self(merkle::sha256d([root, *reserved_value].as_flattened()))
    }

    /// The commitment that an output with this script makes, if it makes one: at least 38 bytes
    /// that begin as BIP 141 says. More bytes may follow and mean nothing.
    #[must_use]
    pub fn in_script(script: &Script) -> Option<Self> {
        let (hash, _) = script.as_bytes().strip_prefix(&PREFIX)?.split_first_chunk()?;
        Some(Self(*hash))
    }

    /// The hash itself, in internal byte order.
    #[must_use]
    pub const fn to_byte_array(self) -> Hash256 {
        self.0
    }

    /// The script of the output: `6a24aa21a9ed` and the hash.
    #[must_use]
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::from_bytes([PREFIX.as_slice(), &self.0].concat())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Block, WitnessCommitment as Theirs, WitnessMerkleNode, Wtxid};

    use super::*;

    #[test]
    fn it_agrees_with_the_bitcoin_crate_for_every_count() {
        for count in 0..40u32 {
            let wtxids: Vec<_> = (0..count).map(|i| merkle::sha256d(&i.to_le_bytes())).collect();
            let all = std::iter::once(Wtxid::all_zeros())
                .chain(wtxids.iter().map(|w| Wtxid::from_byte_array(*w)));
            let root: WitnessMerkleNode =
                bitcoin::merkle_tree::calculate_root(all.map(Wtxid::to_raw_hash))
                    .map(Into::into)
                    .unwrap();
            let theirs: Theirs = Block::compute_witness_commitment(&root, &RESERVED_VALUE);
            assert_eq!(WitnessCommitment::of(&wtxids).0, theirs.to_byte_array(), "{count}");
        }
    }

    #[test]
    fn the_empty_block_has_the_well_known_script() {
        // What `getblocktemplate` prints as default_witness_commitment for an empty mempool.
        let script = WitnessCommitment::of(&[]).script();
        assert_eq!(
            script.to_hex_string(),
            "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9"
        );
        assert_eq!(WitnessCommitment::in_script(&script), Some(WitnessCommitment::of(&[])));
    }

    #[test]
    fn only_what_bip_141_says_is_a_commitment() {
        let good = WitnessCommitment::of(&[[7; 32]]);
        let bytes = good.script().into_bytes();
        let read = |bytes: &[u8]| WitnessCommitment::in_script(Script::from_bytes(bytes));
        assert_eq!(read(&[bytes.as_slice(), &[1, 2, 3]].concat()), Some(good));
        assert_eq!(read(&bytes[..37]), None);
        assert_eq!(read(&[]), None);
        for i in 0..6 {
            let mut wrong = bytes.clone();
            wrong[i] ^= 1;
            assert_eq!(read(&wrong), None);
        }
    }
}
