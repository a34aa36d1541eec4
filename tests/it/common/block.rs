//! Blocks and transactions put together from a template, byte by byte and without adit's code.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub type Hash = [u8; 32];

/// `OP_TRUE`: what the one who spends an output of [`anyone_can_spend`] has to show.
pub const OP_TRUE: u8 = 0x51;

pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

pub fn sha256d(bytes: &[u8]) -> Hash {
    sha256(&sha256(bytes))
}

/// A hash as people and JSON write it: bytes reversed, in hex.
pub fn display(hash: &Hash) -> String {
    let mut bytes = *hash;
    bytes.reverse();
    hex::encode(bytes)
}

pub fn parse_display(text: &str) -> Hash {
    let mut bytes: Hash = hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_else(|| panic!("{text:?} is no hash"));
    bytes.reverse();
    bytes
}

/// A witness program that anyone can spend, on every chain: P2WSH of `OP_TRUE`.
pub fn anyone_can_spend() -> Vec<u8> {
    let mut script = vec![0x00, 0x20];
    script.extend_from_slice(&sha256(&[OP_TRUE]));
    script
}

pub fn push_varint(bytes: &mut Vec<u8>, number: usize) {
    match number {
        0..=0xfc => bytes.push(number as u8),
        0xfd..=0xffff => {
            bytes.push(0xfd);
            bytes.extend_from_slice(&(number as u16).to_le_bytes());
        }
        _ => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(number as u32).to_le_bytes());
        }
    }
}

fn push_script(bytes: &mut Vec<u8>, script: &[u8]) {
    push_varint(bytes, script.len());
    bytes.extend_from_slice(script);
}

/// One output of a transaction.
pub struct Output {
    pub value: u64,
    pub script: Vec<u8>,
}

/// A transaction with one input; `witness` is its one witness item.
pub struct Transaction {
    pub input: (Hash, u32),
    pub script_sig: Vec<u8>,
    pub sequence: u32,
    pub outputs: Vec<Output>,
    pub witness: Vec<u8>,
}

impl Transaction {
    fn serialize(&self, with_witness: bool) -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        if with_witness {
            bytes.extend_from_slice(&[0, 1]);
        }
        bytes.push(1);
        bytes.extend_from_slice(&self.input.0);
        bytes.extend_from_slice(&self.input.1.to_le_bytes());
        push_script(&mut bytes, &self.script_sig);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        push_varint(&mut bytes, self.outputs.len());
        for output in &self.outputs {
            bytes.extend_from_slice(&output.value.to_le_bytes());
            push_script(&mut bytes, &output.script);
        }
        if with_witness {
            bytes.push(1);
            push_script(&mut bytes, &self.witness);
        }
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.serialize(true)
    }

    pub fn txid(&self) -> Hash {
        sha256d(&self.serialize(false))
    }

    pub fn weight(&self) -> usize {
        3 * self.serialize(false).len() + self.bytes().len()
    }

    pub fn virtual_size(&self) -> usize {
        self.weight().div_ceil(4)
    }
}

/// The number `height` as a script pushes it, which is what BIP 34 asks a coinbase to begin with.
pub fn push_height(height: u64) -> Vec<u8> {
    match height {
        0 => vec![0x00],
        1..=16 => vec![0x50 + height as u8],
        _ => {
            let mut digits = height.to_le_bytes().to_vec();
            while digits.last() == Some(&0) {
                digits.pop();
            }
            if digits.last().is_some_and(|top| top & 0x80 != 0) {
                digits.push(0);
            }
            digits.insert(0, digits.len() as u8);
            digits
        }
    }
}

/// The root over transaction (or witness transaction) hashes.
pub fn merkle_root(mut level: Vec<Hash>) -> Hash {
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| {
                let mut both = [0; 64];
                both[..32].copy_from_slice(&pair[0]);
                both[32..].copy_from_slice(&pair[pair.len() - 1]);
                sha256d(&both)
            })
            .collect();
    }
    level[0]
}

/// The script of the output that commits to the witnesses of transactions with these hashes
/// (the coinbase left out), with a reserved value of zeros.
pub fn witness_commitment(witness_hashes: impl IntoIterator<Item = Hash>) -> Vec<u8> {
    let mut leaves = vec![[0; 32]];
    leaves.extend(witness_hashes);
    let mut committed = merkle_root(leaves).to_vec();
    committed.extend_from_slice(&[0; 32]);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(&sha256d(&committed));
    script
}

/// nBits as the 256-bit number it stands for, most significant byte first.
pub fn target_of(bits: u32) -> Hash {
    let mut target = [0; 32];
    let size = (bits >> 24) as usize;
    for (place, byte) in (bits & 0x00ff_ffff).to_be_bytes()[1..].iter().enumerate() {
        // The mantissa's first byte weighs 256^(size - 1).
        if let Some(weight) = size.checked_sub(1 + place) {
            assert!(weight < 32 || *byte == 0, "bits {bits:08x} are out of range");
            if weight < 32 {
                target[31 - weight] = *byte;
            }
        }
    }
    target
}

/// A block being put together; change what a test wants wrong, then [`solve`](Self::solve) it.
pub struct Block {
    pub version: u32,
    pub previous: Hash,
    pub time: u32,
    pub bits: u32,
    pub nonce: u32,
    pub coinbase: Transaction,
    /// The template's transactions: txid and bytes.
    pub transactions: Vec<(Hash, Vec<u8>)>,
    /// Instead of the root that the transactions have.
    pub merkle_root: Option<Hash>,
}

impl Block {
    /// The block a template asks for, paid to [`anyone_can_spend`]. `extra` keeps coinbases apart.
    pub fn from_template(template: &Value, extra: u64) -> Self {
        let number = |key: &str| {
            template[key]
                .as_u64()
                .unwrap_or_else(|| panic!("the template has no number {key:?}: {template}"))
        };
        let text = |key: &str| {
            template[key]
                .as_str()
                .unwrap_or_else(|| panic!("the template has no text {key:?}: {template}"))
        };
        let mut script_sig = push_height(number("height"));
        script_sig.push(8);
        script_sig.extend_from_slice(&extra.to_le_bytes());
        let mut outputs =
            vec![Output { value: number("coinbasevalue"), script: anyone_can_spend() }];
        if let Some(script) = template["default_witness_commitment"].as_str() {
            outputs.push(Output {
                value: 0,
                script: hex::decode(script).expect("the commitment is hex"),
            });
        }
        let transactions = template["transactions"]
            .as_array()
            .expect("the template has a list of transactions")
            .iter()
            .map(|transaction| {
                let data = transaction["data"].as_str().unwrap_or_default();
                let txid = transaction["txid"].as_str().unwrap_or_default();
                (parse_display(txid), hex::decode(data).expect("data is hex"))
            })
            .collect();
        Self {
            version: template["version"].as_i64().expect("the template has a version") as u32,
            previous: parse_display(text("previousblockhash")),
            time: number("curtime") as u32,
            bits: u32::from_str_radix(text("bits"), 16).expect("bits are hex"),
            nonce: 0,
            coinbase: Transaction {
                input: ([0; 32], u32::MAX),
                script_sig,
                sequence: u32::MAX,
                outputs,
                witness: vec![0; 32],
            },
            transactions,
            merkle_root: None,
        }
    }

    pub fn header(&self) -> [u8; 80] {
        let root = self.merkle_root.unwrap_or_else(|| {
            let mut leaves = vec![self.coinbase.txid()];
            leaves.extend(self.transactions.iter().map(|(txid, _)| txid));
            merkle_root(leaves)
        });
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header[76..].copy_from_slice(&self.nonce.to_le_bytes());
        header
    }

    pub fn hash(&self) -> Hash {
        sha256d(&self.header())
    }

    pub fn meets_target(&self) -> bool {
        meets(&self.hash(), &target_of(self.bits))
    }

    /// Tries nonces from 0 until the block's own target is met.
    pub fn solve(&mut self) {
        self.search(true);
    }

    /// Tries nonces from 0 until the block's own target is missed.
    pub fn unsolve(&mut self) {
        self.search(false);
    }

    fn search(&mut self, wanted: bool) {
        let target = target_of(self.bits);
        let mut header = self.header();
        for nonce in 0..=u32::MAX {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            if meets(&sha256d(&header), &target) == wanted {
                self.nonce = nonce;
                return;
            }
        }
        panic!("no nonce will do");
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header().to_vec();
        push_varint(&mut bytes, 1 + self.transactions.len());
        bytes.extend_from_slice(&self.coinbase.bytes());
        for (_, transaction) in &self.transactions {
            bytes.extend_from_slice(transaction);
        }
        bytes
    }

    pub fn hex(&self) -> String {
        hex::encode(self.bytes())
    }
}

/// Whether the hash, read as a little-endian number, is at most the target.
fn meets(hash: &Hash, target: &Hash) -> bool {
    hash.iter().rev().le(target.iter())
}
