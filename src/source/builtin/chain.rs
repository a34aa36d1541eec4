//! A regtest chain in this process: real rules, no node, no money.
//!
//! It checks what a node checks of a block, and rejects it in a node's words. It has no mempool and
//! keeps no coins, so the one thing that a node would accept and it does not is a block with
//! transactions besides the coinbase: there is nothing to spend.
//!
//! Of each block it keeps what is needed to check the next one (height and the last 11 times, about a
//! hundred bytes), and that only of the last [`KEPT`] blocks: memory stays the same however long it
//! runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::consensus::encode::{deserialize, deserialize_hex};
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Transaction, Weight};

use crate::chain::block::BlockBody;
use crate::chain::coinbase::{CoinbaseTemplate, ScriptSigData};
use crate::chain::commitment::WitnessCommitment;
use crate::chain::merkle::{self, Hash256};
use crate::chain::payout::PayoutScript;
use crate::chain::subsidy::subsidy;
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::job::{Job, JobKey, MerkleRoot, TimeRange, Verdict};
use crate::source::node_reject::verdict_for;

/// How many blocks (the last ones to arrive) the chain remembers, so that others can build on them.
pub const KEPT: usize = 288;

/// Regtest's nBits, at every height: it never retargets.
const NBITS: u32 = 0x207f_ffff;
/// BIP 9's version with no bit set.
const VERSION: u32 = 0x2000_0000;
/// Seconds that nTime may be ahead of the clock (Bitcoin Core's `MAX_FUTURE_BLOCK_TIME`).
const MAX_AHEAD: u64 = 2 * 60 * 60;
/// The most signature operations of a block, counted as before segwit (`MAX_BLOCK_SIGOPS_COST` / 4).
const MAX_SIGOPS: usize = 20_000;
/// Lock times below this are heights, others are times (`LOCKTIME_THRESHOLD`).
const LOCK_TIME_THRESHOLD: u32 = 500_000_000;

/// Why a block was rejected. Its text is a node's response to `submitblock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The block could not be parsed.
    #[error("Block decode failed")]
    Undecodable,
    /// The hash does not meet nBits, or nBits holds no target that regtest allows.
    #[error("high-hash")]
    HighHash,
    /// The merkle root is not that of the transactions.
    #[error("bad-txnmrklroot")]
    MerkleRoot,
    /// The merkle tree repeats itself (CVE-2012-2459).
    #[error("bad-txns-duplicate")]
    DuplicateTransactions,
    /// No transactions, or more than a block can have.
    #[error("bad-blk-length")]
    Length,
    /// The first transaction is not a coinbase.
    #[error("bad-cb-missing")]
    CoinbaseMissing,
    /// Another transaction is a coinbase too.
    #[error("bad-cb-multiple")]
    CoinbaseMultiple,
    /// The coinbase's scriptSig is not 2 to 100 bytes long.
    #[error("bad-cb-length")]
    CoinbaseLength,
    /// A transaction is invalid by itself.
    #[error("bad-txns-{0}")]
    Transaction(&'static str),
    /// Too many signature operations.
    #[error("bad-blk-sigops")]
    SigOps,
    /// The block is known, and valid.
    #[error("duplicate")]
    Duplicate,
    /// The block is known, and was rejected.
    #[error("duplicate-invalid")]
    DuplicateInvalid,
    /// The block builds on an unknown one, or on one that is no longer known, [`KEPT`] blocks later.
    #[error("prev-blk-not-found")]
    PreviousNotFound,
    /// The block builds on one that was rejected.
    #[error("bad-prevblk")]
    PreviousInvalid,
    /// nBits is not regtest's.
    #[error("bad-diffbits")]
    DifficultyBits,
    /// nTime is not later than the median time past.
    #[error("time-too-old")]
    TimeTooOld,
    /// nTime is more than two hours ahead of the clock.
    #[error("time-too-new")]
    TimeTooNew,
    /// The version is below 4 (BIPs 34, 66 and 65, in force from regtest's first block on).
    #[error("bad-version(0x{0:08x})")]
    Version(i32),
    /// The coinbase does not begin with the height (BIP 34).
    #[error("bad-cb-height")]
    CoinbaseHeight,
    /// The coinbase commits to witnesses and its own is not one item of 32 bytes (BIP 141).
    #[error("bad-witness-nonce-size")]
    WitnessNonceSize,
    /// The witness commitment is wrong (BIP 141).
    #[error("bad-witness-merkle-match")]
    WitnessMerkleMatch,
    /// There are witnesses and no commitment (BIP 141).
    #[error("unexpected-witness")]
    UnexpectedWitness,
    /// Over 4,000,000 weight units.
    #[error("bad-blk-weight")]
    Weight,
    /// The coinbase pays more than the subsidy.
    #[error("bad-cb-amount")]
    CoinbaseAmount,
    /// The block is valid and kept, and another block stays the tip.
    #[error("inconclusive")]
    Inconclusive,
}

impl From<Reject> for Verdict {
    fn from(reject: Reject) -> Self {
        verdict_for(&reject.to_string())
    }
}

/// What the next block must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The tip.
    pub previous_block_hash: BlockHash,
    /// One more than the tip's.
    pub height: u32,
    /// The header's version.
    pub version: u32,
    /// The header's nBits.
    pub nbits: CompactTarget,
    /// The lowest nTime allowed, in seconds since 1970: one more than the median of the last 11.
    pub min_time: u32,
    /// The nTime that a node would propose: the clock's, or `min_time` if the chain is ahead of it.
    pub current_time: u32,
    /// The coinbase's value: the subsidy, since there are no fees.
    pub value: Amount,
}

impl Template {
    /// Makes a job of this template. The reward is paid to `payout`, and `data` goes into the
    /// coinbase.
    ///
    /// It starts at `min_time`, not at the clock's: a chain can have no more than about six blocks
    /// a second of its own time, so one that follows the clock and then grows by thousands a second
    /// is two hours ahead, and stops, after some 43,000 blocks. Beginning in 2011, when regtest's
    /// genesis block was made, leaves room for some 3,000 million blocks.
    #[must_use]
    pub fn job(&self, key: JobKey, payout: &PayoutScript, data: &ScriptSigData) -> Job {
        let coinbase = CoinbaseTemplate {
            height: self.height,
            data: data.clone(),
            value: self.value,
            payout: payout.clone(),
            witness_commitment: Some(WitnessCommitment::of(&[]).script()),
        };
        Job {
            key,
            version: self.version,
            version_mask: VersionMask::BIP320,
            previous_block_hash: self.previous_block_hash,
            height: Some(self.height),
            nbits: self.nbits,
            ntime: TimeRange::fixed(self.min_time),
            merkle_root: MerkleRoot::Rolled(coinbase.build(Vec::new())),
            share_target: target(),
            network_target: target(),
            clean: true,
            ends_when_solved: true,
            body: Some(Arc::new(BlockBody {
                segwit: true,
                transaction_count: 0,
                transactions_hex: String::new(),
            })),
            received: Instant::now(),
        }
    }
}

/// Regtest's target, `7fffff00…`: every other hash meets it.
fn target() -> Target {
    let mut bytes = [0; 32];
    bytes[..3].copy_from_slice(&[0x7f, 0xff, 0xff]);
    Target::from_be_bytes(bytes)
}

/// The times of a block and the (up to ten) blocks before it, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct RecentTimes {
    /// The newest first; `len` of them count.
    times: [u32; Self::SPAN],
    len: usize,
}

impl RecentTimes {
    /// Bitcoin Core's `nMedianTimeSpan`.
    const SPAN: usize = 11;

    /// The times of the genesis block.
    fn of_first(time: u32) -> Self {
        let mut times = [0; Self::SPAN];
        times[0] = time;
        Self { times, len: 1 }
    }

    /// The times of the next block.
    fn followed_by(&self, time: u32) -> Self {
        let mut times = [0; Self::SPAN];
        times[0] = time;
        times[1..].copy_from_slice(&self.times[..Self::SPAN - 1]);
        Self { times, len: (self.len + 1).min(Self::SPAN) }
    }

    /// The median time past (BIP 113): the upper one of the two middle ones of an even number.
    fn median(&self) -> u32 {
        let mut times = self.times;
        let times = &mut times[..self.len];
        times.sort_unstable();
        times[self.len / 2]
    }
}

/// What is kept of a block.
#[derive(Clone, Copy, Debug)]
struct Known {
    height: u32,
    times: RecentTimes,
    /// Whether it was accepted.
    valid: bool,
}

/// A regtest chain.
#[derive(Debug)]
pub struct RegtestChain {
    tip: BlockHash,
    /// What is kept of the tip.
    tip_known: Known,
    /// What is kept of the last blocks to arrive.
    known: HashMap<BlockHash, Known>,
    /// Their hashes, the oldest first.
    arrivals: VecDeque<BlockHash>,
}

impl Default for RegtestChain {
    fn default() -> Self {
        Self::new()
    }
}

impl RegtestChain {
    /// A chain of regtest's genesis block alone.
    #[must_use]
    pub fn new() -> Self {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest).header;
        let tip = genesis.block_hash();
        let tip_known =
            Known { height: 0, times: RecentTimes::of_first(genesis.time), valid: true };
        let mut chain = Self { tip, tip_known, known: HashMap::new(), arrivals: VecDeque::new() };
        chain.keep(tip, tip_known);
        chain
    }

    /// The last block's hash.
    #[must_use]
    pub fn tip(&self) -> BlockHash {
        self.tip
    }

    /// The last block's height; the genesis block's is 0.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.tip_known.height
    }

    /// What the next block must contain. `now`: seconds since 1970.
    #[must_use]
    pub fn template(&self, now: u64) -> Template {
        let height = self.height().saturating_add(1);
        let min_time = self.tip_known.times.median().saturating_add(1);
        Template {
            previous_block_hash: self.tip,
            height,
            version: VERSION,
            nbits: CompactTarget::from_consensus(NBITS),
            min_time,
            current_time: u32::try_from(now).unwrap_or(u32::MAX).max(min_time),
            value: subsidy(Network::Regtest, height.into()),
        }
    }

    /// Submits a block in hex, as `submitblock` does. `now`: seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::submit`], or [`Reject::Undecodable`].
    pub fn submit_hex(&mut self, block: &str, now: u64) -> Result<(), Reject> {
        let block: Block = deserialize_hex(block).map_err(|_| Reject::Undecodable)?;
        self.submit(&block, now)
    }

    /// Submits a serialized block. `now`: seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::submit`], or [`Reject::Undecodable`].
    pub fn submit_bytes(&mut self, block: &[u8], now: u64) -> Result<(), Reject> {
        let block: Block = deserialize(block).map_err(|_| Reject::Undecodable)?;
        self.submit(&block, now)
    }

    /// Checks a block and keeps it; it becomes the tip if it is the highest. `now`: seconds since
    /// 1970.
    ///
    /// The checks are a node's, in a node's order (Bitcoin Core's `ProcessNewBlock`), so that a
    /// block with two faults is rejected in the same words. Two things are stricter: a block on a
    /// side chain is checked completely at once and not only before it would become the tip, and a
    /// coinbase without its witness is not given one (`submitblock` does that, the peer-to-peer
    /// network does not).
    ///
    /// # Errors
    /// Why it was rejected; or [`Reject::Inconclusive`] if it is valid and did not become the tip.
    pub fn submit(&mut self, block: &Block, now: u64) -> Result<(), Reject> {
        let hash = block.block_hash();
        check_alone(block, hash)?;
        match self.find(hash) {
            Some(Known { valid: true, .. }) => return Err(Reject::Duplicate),
            Some(Known { valid: false, .. }) => return Err(Reject::DuplicateInvalid),
            None => {}
        }
        let parent = self.find(block.header.prev_blockhash).ok_or(Reject::PreviousNotFound)?;
        if !parent.valid {
            return Err(Reject::PreviousInvalid);
        }
        check_header(block, &parent.times, now)?;
        let known = Known {
            height: parent.height.saturating_add(1),
            times: parent.times.followed_by(block.header.time),
            valid: true,
        };
        if let Err(reject) = check_in_place(block, known.height, parent.times.median()) {
            // The witness is not part of the block's hash: the right one may still come.
            let of_this_hash = !matches!(
                reject,
                Reject::WitnessNonceSize | Reject::WitnessMerkleMatch | Reject::UnexpectedWitness
            );
            if of_this_hash {
                self.keep(hash, Known { valid: false, ..known });
            }
            return Err(reject);
        }
        self.keep(hash, known);
        // All blocks have the same work, so the most work is the greatest height, and of two the
        // first to come.
        if known.height <= self.height() {
            return Err(Reject::Inconclusive);
        }
        (self.tip, self.tip_known) = (hash, known);
        Ok(())
    }

    /// What is kept of a block, if anything is.
    fn find(&self, hash: BlockHash) -> Option<Known> {
        if hash == self.tip { Some(self.tip_known) } else { self.known.get(&hash).copied() }
    }

    /// Keeps what is known of a new block, and drops what is known of the oldest.
    fn keep(&mut self, hash: BlockHash, known: Known) {
        if self.arrivals.len() == KEPT
            && let Some(oldest) = self.arrivals.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.arrivals.push_back(hash);
        self.known.insert(hash, known);
    }
}

/// Checks what does not depend on the block's place in the chain (Bitcoin Core's `CheckBlock`).
fn check_alone(block: &Block, hash: BlockHash) -> Result<(), Reject> {
    // Regtest's limit is 7fff…ff: half of all hashes, and a little more than nBits can say.
    let claimed = Target::from_nbits(block.header.bits).map_err(|_| Reject::HighHash)?;
    if claimed.to_be_bytes()[0] > 0x7f || !claimed.is_met_by(&hash) {
        return Err(Reject::HighHash);
    }

    let txids = block.txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
    let (root, repeats) = merkle_root(txids);
    if root != block.header.merkle_root.to_byte_array() {
        return Err(Reject::MerkleRoot);
    }
    if repeats {
        return Err(Reject::DuplicateTransactions);
    }

    let max = Weight::MAX_BLOCK.to_wu();
    let count = block.txdata.len() as u64;
    // Weight is three times the stripped size and once the total size.
    let total = block.total_size() as u64;
    let stripped = (block.weight().to_wu() - total) / 3;
    if count == 0 || count * 4 > max || stripped * 4 > max {
        return Err(Reject::Length);
    }

    let mut transactions = block.txdata.iter();
    if !transactions.next().is_some_and(Transaction::is_coinbase) {
        return Err(Reject::CoinbaseMissing);
    }
    if transactions.any(Transaction::is_coinbase) {
        return Err(Reject::CoinbaseMultiple);
    }
    block.txdata.iter().try_for_each(check_transaction)?;

    let scripts = block.txdata.iter().flat_map(|tx| {
        let inputs = tx.input.iter().map(|input| &input.script_sig);
        inputs.chain(tx.output.iter().map(|output| &output.script_pubkey))
    });
    if scripts.map(|script| script.count_sigops_legacy()).sum::<usize>() > MAX_SIGOPS {
        return Err(Reject::SigOps);
    }
    Ok(())
}

/// Checks what does not depend on a transaction's inputs (Bitcoin Core's `CheckTransaction`; that
/// it is not larger than a block was checked with the block).
fn check_transaction(tx: &Transaction) -> Result<(), Reject> {
    if tx.input.is_empty() {
        return Err(Reject::Transaction("vin-empty"));
    }
    if tx.output.is_empty() {
        return Err(Reject::Transaction("vout-empty"));
    }
    let mut total = 0;
    for output in &tx.output {
        // A node reads it as a signed number.
        let value = output.value.to_sat();
        if value > i64::MAX as u64 {
            return Err(Reject::Transaction("vout-negative"));
        }
        if value > Amount::MAX_MONEY.to_sat() {
            return Err(Reject::Transaction("vout-toolarge"));
        }
        total += value;
        if total > Amount::MAX_MONEY.to_sat() {
            return Err(Reject::Transaction("txouttotal-toolarge"));
        }
    }
    let mut spent: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    spent.sort_unstable();
    if spent.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Reject::Transaction("inputs-duplicate"));
    }
    if tx.is_coinbase() {
        if !(2..=100).contains(&tx.input[0].script_sig.len()) {
            return Err(Reject::CoinbaseLength);
        }
    } else if spent.iter().any(OutPoint::is_null) {
        return Err(Reject::Transaction("prevout-null"));
    }
    Ok(())
}

/// Checks a header in its place in the chain (Bitcoin Core's `ContextualCheckBlockHeader`). `past`:
/// the times of the blocks before it.
fn check_header(block: &Block, past: &RecentTimes, now: u64) -> Result<(), Reject> {
    let header = &block.header;
    if header.bits.to_consensus() != NBITS {
        return Err(Reject::DifficultyBits);
    }
    if header.time <= past.median() {
        return Err(Reject::TimeTooOld);
    }
    if u64::from(header.time) > now.saturating_add(MAX_AHEAD) {
        return Err(Reject::TimeTooNew);
    }
    if header.version.to_consensus() < 4 {
        return Err(Reject::Version(header.version.to_consensus()));
    }
    Ok(())
}

/// Checks a block in its place in the chain (Bitcoin Core's `ContextualCheckBlock` and
/// `ConnectBlock`). `past`: the median time of the blocks before it.
///
/// BIP 30 is not checked: since no chain has two coinbases of one height, no chain has two of one
/// txid.
fn check_in_place(block: &Block, height: u32, past: u32) -> Result<(), Reject> {
    if !block.txdata.iter().all(|tx| is_final(tx, height, past)) {
        return Err(Reject::Transaction("nonfinal"));
    }
    let coinbase = &block.txdata[0];
    let pushed = Builder::new().push_int(i64::from(height)).into_bytes();
    if !coinbase.input[0].script_sig.as_bytes().starts_with(&pushed) {
        return Err(Reject::CoinbaseHeight);
    }
    check_witnesses(block)?;
    if block.weight() > Weight::MAX_BLOCK {
        return Err(Reject::Weight);
    }
    if block.txdata.len() > 1 {
        return Err(Reject::Transaction("inputs-missingorspent"));
    }
    let paid: u64 = coinbase.output.iter().map(|output| output.value.to_sat()).sum();
    if paid > subsidy(Network::Regtest, height.into()).to_sat() {
        return Err(Reject::CoinbaseAmount);
    }
    Ok(())
}

/// Whether a transaction's lock time has passed (`IsFinalTx`, with BIP 113's clock).
fn is_final(tx: &Transaction, height: u32, past: u32) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let reached = if lock < LOCK_TIME_THRESHOLD { height } else { past };
    lock == 0 || lock < reached || tx.input.iter().all(|input| input.sequence.is_final())
}

/// Checks the rules of BIP 141 on commitment and witnesses (Bitcoin Core's `CheckWitnessMalleation`).
fn check_witnesses(block: &Block) -> Result<(), Reject> {
    let coinbase = &block.txdata[0];
    // The last commitment counts.
    let commitment = coinbase
        .output
        .iter()
        .rev()
        .find_map(|output| WitnessCommitment::in_script(&output.script_pubkey));
    let Some(commitment) = commitment else {
        let bare = |tx: &Transaction| tx.input.iter().all(|input| input.witness.is_empty());
        return if block.txdata.iter().all(bare) { Ok(()) } else { Err(Reject::UnexpectedWitness) };
    };
    let witness = &coinbase.input[0].witness;
    let reserved_value = match witness.nth(0).map(<&[u8; 32]>::try_from) {
        Some(Ok(value)) if witness.len() == 1 => value,
        _ => return Err(Reject::WitnessNonceSize),
    };
    let wtxids: Vec<Hash256> =
        block.txdata[1..].iter().map(|tx| tx.compute_wtxid().to_byte_array()).collect();
    if WitnessCommitment::with_reserved_value(&wtxids, reserved_value) != commitment {
        return Err(Reject::WitnessMerkleMatch);
    }
    Ok(())
}

/// The merkle root (zero if there are no leaves), and whether two neighbouring nodes are equal
/// somewhere: then another list of leaves has the same root (CVE-2012-2459).
fn merkle_root(mut level: Vec<Hash256>) -> (Hash256, bool) {
    let mut repeats = false;
    while level.len() > 1 {
        repeats |= level.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        level = level
            .chunks(2)
            .map(|pair| merkle::sha256d([pair[0], pair[pair.len() - 1]].as_flattened()))
            .collect();
    }
    (level.first().copied().unwrap_or_default(), repeats)
}

#[cfg(test)]
mod tests;
