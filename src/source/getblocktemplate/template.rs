//! A node's block template (BIP 22, 23, 9, 145): parsed, checked, and made into a job.
//!
//! A template of 4,000 transactions is 8 MB of JSON, and hashing can begin only when it is parsed.
//! So the transactions' text is borrowed, checked once, and copied once into the block.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, BlockHash, CompactTarget, ScriptBuf};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::bounded::{self, Text};
use super::rpc::{Envelope, RpcError};
use crate::chain::block;
use crate::chain::block::BlockBody;
use crate::chain::coinbase::{AuxTooLong, Coinbase, CoinbaseTemplate, CoinbaseText, ScriptSigData};
use crate::chain::commitment::WitnessCommitment;
use crate::chain::merkle::{self, Hash256};
use crate::chain::payout::PayoutScript;
use crate::chain::target::{Difficulty, NBitsError, Target};
use crate::chain::version::VersionMask;
use crate::job::{Job, JobKey, MerkleRoot, TimeRange};
use crate::printable;

/// The rules that adit supports (BIP 9, "getblocktemplate changes"). A template that has another one
/// as `!rule` cannot be mined.
const RULES: [&str; 5] = ["csv", "segwit", "taproot", "signet", "testdummy"];

/// 21 million coins in satoshis: no coinbase pays more.
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// A block has 4,000,000 weight units (BIP 141), and a transaction at least 60 bytes of 4 each
/// (Bitcoin Core's `MIN_TRANSACTION_WEIGHT`).
const TRANSACTIONS_MAX: usize = 4_000_000 / 240;
/// Hex digits of all transactions together: a byte has at least one weight unit.
const TRANSACTIONS_HEX_MAX: usize = 2 * 4_000_000;
/// The most entries of `rules`, `capabilities`, `vbavailable` and `coinbaseaux`: there are 29 version
/// bits, and nodes list fewer rules than that.
const ENTRIES_MAX: usize = 64;

/// What a job needs beyond the template.
#[derive(Clone, Debug)]
pub struct Payout {
    /// Who is paid.
    pub script: PayoutScript,
    /// The text in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
}

/// Why a template cannot be mined.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The call failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It is not a template.
    #[error("the template cannot be read: {0}")]
    Json(String),
    /// A field is not what it must be.
    #[error("the template's {field} is wrong: {why}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It needs something that adit does not support.
    #[error("the template asks for {0}, which adit does not know")]
    Unsupported(String),
    /// It wants more in the coinbase than fits.
    #[error(transparent)]
    CoinbaseAux(#[from] AuxTooLong),
    /// A signet whose blocks need a signature.
    #[error("blocks of this signet need a signature")]
    SignetSignature,
}

/// The most characters that are shown of a node's words.
const SHOWN: usize = 80;

/// A node's words on one short line.
fn shown(words: &str) -> String {
    printable::printable(words, SHOWN)
}

/// A field that is not what it must be.
fn field(field: &'static str, why: impl Into<String>) -> TemplateError {
    TemplateError::Field { field, why: why.into() }
}

/// The fields that are read, as they are in the JSON.
#[derive(Debug, Deserialize)]
pub struct Template<'a> {
    version: i64,
    #[serde(borrow)]
    previousblockhash: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "transactions")]
    transactions: Vec<Transaction<'a>>,
    #[serde(default, borrow, deserialize_with = "capabilities")]
    capabilities: Vec<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "coinbaseaux")]
    coinbaseaux: Vec<(Cow<'a, str>, Text<'a>)>,
    coinbasevalue: Option<i64>,
    #[serde(default)]
    coinbasetxn: Option<IgnoredAny>,
    #[serde(default)]
    workid: Option<IgnoredAny>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    mintime: i64,
    curtime: i64,
    #[serde(borrow)]
    bits: Cow<'a, str>,
    height: i64,
    #[serde(default, borrow, deserialize_with = "rules")]
    rules: Vec<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "vbavailable")]
    vbavailable: Vec<(Cow<'a, str>, i64)>,
    vbrequired: Option<i64>,
    #[serde(default, borrow)]
    noncerange: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    signet_challenge: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    default_witness_commitment: Option<Cow<'a, str>>,
}

fn transactions<'de, D>(deserializer: D) -> Result<Vec<Transaction<'de>>, D::Error>
where
    D: Deserializer<'de>,
{
    bounded::list(deserializer, "transactions", TRANSACTIONS_MAX)
}

fn capabilities<'de, D>(deserializer: D) -> Result<Vec<Text<'de>>, D::Error>
where
    D: Deserializer<'de>,
{
    bounded::optional_list(deserializer, "capabilities", ENTRIES_MAX)
}

fn coinbaseaux<'de, D>(deserializer: D) -> Result<Vec<(Cow<'de, str>, Text<'de>)>, D::Error>
where
    D: Deserializer<'de>,
{
    bounded::optional_members(deserializer, "entries of coinbaseaux", ENTRIES_MAX)
}

fn rules<'de, D>(deserializer: D) -> Result<Vec<Text<'de>>, D::Error>
where
    D: Deserializer<'de>,
{
    bounded::optional_list(deserializer, "rules", ENTRIES_MAX)
}

fn vbavailable<'de, D>(deserializer: D) -> Result<Vec<(Cow<'de, str>, i64)>, D::Error>
where
    D: Deserializer<'de>,
{
    bounded::optional_members(deserializer, "entries of vbavailable", ENTRIES_MAX)
}

#[derive(Debug, Deserialize)]
struct Transaction<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    txid: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
}

/// A template made into all that a [`Job`] needs except its key.
#[derive(Debug)]
pub struct PreparedTemplate {
    job: Job,
    /// Tells whether another template would be mined the same way.
    pub fingerprint: Fingerprint,
    /// The node's time, for which its bits hold: seconds since 1970.
    pub curtime: u32,
    /// What our blocks have in common.
    pub layout: Layout,
    /// Whether the node judges blocks before they are solved (BIP 23, "Block Proposal").
    pub takes_proposals: bool,
}

/// What is the same in all of our blocks, whatever their height, transactions and reward: if a node
/// rejects one block for it, it rejects all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    script_sig_data: ScriptSigData,
    payout: PayoutScript,
    commits_to_witnesses: bool,
}

/// A digest of what a template asks for: of two with equal ones, the second needs no new job,
/// except for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    previous_block_hash: BlockHash,
    version: u32,
    nbits: CompactTarget,
    coinbase_value: u64,
    transactions: Hash256,
}

impl PreparedTemplate {
    /// The job, under this key.
    #[must_use]
    pub fn into_job(mut self, key: JobKey, clean: bool) -> Job {
        self.job.key = key;
        self.job.clean = clean;
        self.job
    }

    /// The block that it builds on.
    #[must_use]
    pub fn previous_block_hash(&self) -> BlockHash {
        self.job.previous_block_hash
    }

    /// The height of the block to be found.
    #[must_use]
    pub fn height(&self) -> Option<u32> {
        self.job.height
    }

    /// The header's nBits.
    #[must_use]
    pub fn nbits(&self) -> CompactTarget {
        self.job.nbits
    }

    /// The difficulty of nBits.
    #[must_use]
    pub fn difficulty(&self) -> Difficulty {
        self.job.network_target.difficulty()
    }

    /// The header's nTime: seconds since 1970.
    #[must_use]
    pub fn ntime(&self) -> u32 {
        self.job.ntime.first
    }

    /// An unsolved block of this template: the bytes before its transactions, and the transactions.
    #[must_use]
    pub fn unsolved_block(&self) -> Option<(Vec<u8>, Arc<BlockBody>)> {
        let (MerkleRoot::Rolled(coinbase), Some(body)) = (&self.job.merkle_root, &self.job.body)
        else {
            return None;
        };
        let root = coinbase.merkle_root(0);
        let header = self.job.header(self.job.version, root, self.job.ntime.first, 0);
        Some((block::head(&header, coinbase, 0, body), body.clone()))
    }

    /// When it was received.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.job.received
    }

    /// Whether there is a transaction in it besides the coinbase.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        self.job.body.as_ref().is_some_and(|body| body.transaction_count > 0)
    }

    /// Moves nTime forward to this one, if it is before it: seconds since 1970.
    pub fn not_before(&mut self, ntime: u32) {
        self.job.ntime.first = self.job.ntime.first.max(ntime);
    }
}

/// Parses the response to a single `getblocktemplate` call whose last byte came at `received`.
///
/// # Errors
/// When the node refused, or sent what cannot be mined.
pub fn parse_template(
    body: &Bytes,
    payout: &Payout,
    received: Instant,
) -> Result<PreparedTemplate, TemplateError> {
    let envelope: Envelope<Template<'_>> = parse(body)?;
    prepare(envelope, payout, received)
}

/// Parses JSON. Errors are one line, whatever the node sent.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, TemplateError> {
    if !bounded::is_plain(body) {
        let why = "it is large and holds what no template does, escapes or other than ASCII";
        return Err(TemplateError::Json(why.to_owned()));
    }
    serde_json::from_slice(body)
        .map_err(|error| TemplateError::Json(printable::printable_display(&error, SHOWN)))
}

/// Prepares the template in a response.
///
/// # Errors
/// When the node refused, or sent what cannot be mined.
pub fn prepare(
    envelope: Envelope<Template<'_>>,
    payout: &Payout,
    received: Instant,
) -> Result<PreparedTemplate, TemplateError> {
    match envelope.into_result()? {
        Some(template) => template.prepare(payout, received),
        None => Err(TemplateError::Json("the result is null".to_owned())),
    }
}

impl Template<'_> {
    fn prepare(
        self,
        payout: &Payout,
        received: Instant,
    ) -> Result<PreparedTemplate, TemplateError> {
        self.check_supported()?;
        let version = self.version()?;
        let version_mask = self.version_mask(version, payout)?;
        let previous_block_hash = BlockHash::from_byte_array(
            internal_order(&self.previousblockhash)
                .map_err(|why| field("previousblockhash", why))?,
        );
        let (nbits, target) = self.target()?;
        let height = u32::try_from(self.height)
            .ok()
            .filter(|height| (1..500_000_000).contains(height))
            .ok_or_else(|| field("height", self.height.to_string()))?;
        let (curtime, ntime) = self.times()?;
        let coinbase_value = match self.coinbasevalue.map(u64::try_from) {
            Some(Ok(value)) if value <= MAX_MONEY => value,
            Some(_) => return Err(field("coinbasevalue", "it is not an amount of money")),
            None if self.coinbasetxn.is_some() => {
                return Err(TemplateError::Unsupported(
                    "a given coinbase (coinbasetxn)".to_owned(),
                ));
            }
            None => return Err(field("coinbasevalue", "it is missing")),
        };

        let ids = self.transaction_ids()?;
        let segwit = self.is_segwit(&ids);
        let witness_commitment =
            if segwit { Some(self.witness_commitment(&ids.witness)?) } else { None };
        let merkle_branch = merkle::branch(ids.plain);
        let transactions = merkle::sha256d(merkle_branch.as_flattened());

        let layout = Layout {
            script_sig_data: self.script_sig_data(payout)?,
            payout: payout.script.clone(),
            commits_to_witnesses: segwit,
        };
        let mut coinbase = CoinbaseTemplate {
            height,
            data: layout.script_sig_data.clone(),
            value: Amount::from_sat(coinbase_value),
            payout: layout.payout.clone(),
            witness_commitment,
        }
        .build(merkle_branch);
        randomize_extranonce(&mut coinbase);
        let body = BlockBody {
            segwit,
            transaction_count: self.transactions.len(),
            transactions_hex: self.transactions_hex()?,
        };
        let fingerprint =
            Fingerprint { previous_block_hash, version, nbits, coinbase_value, transactions };
        let job = Job {
            key: JobKey { connection: 0, number: 0 },
            version,
            version_mask,
            previous_block_hash,
            height: Some(height),
            nbits,
            ntime,
            merkle_root: MerkleRoot::Rolled(coinbase),
            share_target: target,
            network_target: target,
            clean: true,
            ends_when_solved: true,
            body: Some(body.into()),
            received,
        };
        Ok(PreparedTemplate {
            job,
            fingerprint,
            curtime,
            layout,
            takes_proposals: self.capabilities.iter().any(|Text(name)| name == "proposal"),
        })
    }

    /// Checks that nothing is asked for that adit does not support.
    fn check_supported(&self) -> Result<(), TemplateError> {
        let unknown =
            |rule: &&Text<'_>| rule.0.strip_prefix('!').is_some_and(|rule| !RULES.contains(&rule));
        if let Some(Text(rule)) = self.rules.iter().find(unknown) {
            return Err(TemplateError::Unsupported(format!("the rule {}", shown(rule))));
        }
        if self.workid.is_some() {
            return Err(TemplateError::Unsupported("a workid with each block".to_owned()));
        }
        if self.noncerange.as_deref().is_some_and(|range| range != "00000000ffffffff") {
            return Err(TemplateError::Unsupported("a part of the nonces only".to_owned()));
        }
        if self.signet_challenge.as_deref().is_some_and(|challenge| !is_trivial(challenge)) {
            return Err(TemplateError::SignetSignature);
        }
        Ok(())
    }

    fn version(&self) -> Result<u32, TemplateError> {
        // The field is signed in the protocol; some servers print it unsigned.
        let version = i32::try_from(self.version)
            .map(i32::cast_unsigned)
            .or_else(|_| u32::try_from(self.version))
            .map_err(|_| field("version", self.version.to_string()))?;
        Ok(version | self.required_bits()?)
    }

    fn required_bits(&self) -> Result<u32, TemplateError> {
        let bits = self.vbrequired.unwrap_or(0);
        u32::try_from(bits).map_err(|_| field("vbrequired", bits.to_string()))
    }

    /// The BIP 320 bits, but none that the template uses, lists in `vbavailable` or requires.
    fn version_mask(&self, version: u32, payout: &Payout) -> Result<VersionMask, TemplateError> {
        if !payout.version_rolling {
            return Ok(VersionMask::NONE);
        }
        let mut taken = version;
        for &(_, bit) in &self.vbavailable {
            let bit = u32::try_from(bit)
                .ok()
                .and_then(|bit| 1u32.checked_shl(bit))
                .ok_or_else(|| field("vbavailable", format!("there is no version bit {bit}")))?;
            taken |= bit;
        }
        Ok(VersionMask::new(VersionMask::BIP320.bits() & !taken))
    }

    fn target(&self) -> Result<(CompactTarget, Target), TemplateError> {
        let bits = (self.bits.len() == 8)
            .then(|| u32::from_str_radix(&self.bits, 16).ok())
            .flatten()
            .ok_or_else(|| field("bits", format!("{:?}", shown(&self.bits))))?;
        let nbits = CompactTarget::from_consensus(bits);
        let target = Target::from_nbits(nbits)
            .map_err(|error: NBitsError| field("bits", error.to_string()))?;
        let said = fixed_hex(&self.target).map_err(|why| field("target", why))?;
        if Target::from_be_bytes(said) != target {
            return Err(field("target", "it is not the target of bits"));
        }
        Ok((nbits, target))
    }

    /// The node's time, and the nTime to be mined.
    fn times(&self) -> Result<(u32, TimeRange), TemplateError> {
        let seconds = |name, value: i64| {
            u32::try_from(value).map_err(|_| field(name, format!("{value} is not a time")))
        };
        let (current, least) =
            (seconds("curtime", self.curtime)?, seconds("mintime", self.mintime)?);
        // The extranonce is wide enough that nTime need not be rolled, and each new template has the
        // node's time.
        Ok((current, TimeRange::fixed(current.max(least))))
    }

    fn script_sig_data(&self, payout: &Payout) -> Result<ScriptSigData, TemplateError> {
        let mut aux = Vec::new();
        for (_, Text(value)) in &self.coinbaseaux {
            let value: &str = value;
            aux.extend(hex::decode(value).map_err(|_| field("coinbaseaux", "it is not hex"))?);
        }
        Ok(ScriptSigData::new(&aux, &payout.text)?)
    }

    fn transaction_ids(&self) -> Result<Ids, TemplateError> {
        let mut ids = Ids {
            plain: Vec::with_capacity(self.transactions.len()),
            witness: Vec::with_capacity(self.transactions.len()),
        };
        for transaction in &self.transactions {
            let txid = internal_order(&transaction.txid).map_err(|why| field("txid", why))?;
            let wtxid = internal_order(&transaction.hash).map_err(|why| field("hash", why))?;
            ids.plain.push(txid);
            ids.witness.push(wtxid);
        }
        Ok(ids)
    }

    /// Whether the block is one of BIP 141, whose coinbase commits to the witnesses: by the rules
    /// in force, or, if the node lists none (btcd does not), by what only such a block has.
    fn is_segwit(&self, ids: &Ids) -> bool {
        self.rules.iter().any(|Text(rule)| rule.trim_start_matches('!') == "segwit")
            || self.default_witness_commitment.is_some()
            || ids.plain != ids.witness
    }

    /// The commitment to these witness ids. If the template gives one, it must be the same: as the
    /// output's script (BIP 145), or as the bare hash, which is what btcd gives.
    fn witness_commitment(&self, wtxids: &[Hash256]) -> Result<ScriptBuf, TemplateError> {
        let ours = WitnessCommitment::of(wtxids);
        let script = ours.script();
        let is_ours = |theirs: &str| {
            theirs.eq_ignore_ascii_case(&script.to_hex_string())
                || theirs.eq_ignore_ascii_case(&hex::encode(ours.to_byte_array()))
        };
        match &self.default_witness_commitment {
            Some(theirs) if !is_ours(theirs) => {
                let why = "it does not commit to the template's transactions";
                Err(field("default_witness_commitment", why))
            }
            _ => Ok(script),
        }
    }

    /// The transactions' hex, one after the other.
    fn transactions_hex(&self) -> Result<String, TemplateError> {
        let length = self.transactions.iter().map(|transaction| transaction.data.len()).sum();
        if length > TRANSACTIONS_HEX_MAX {
            return Err(field("transactions", "they are more than a block can hold"));
        }
        let mut text = String::with_capacity(length);
        for (index, transaction) in self.transactions.iter().enumerate() {
            if !is_hex(&transaction.data) {
                return Err(field(
                    "transactions",
                    format!("the data of number {index} is not hex"),
                ));
            }
            text.push_str(&transaction.data);
        }
        Ok(text)
    }
}

/// Gives half of the extranonce a random value. Otherwise two miners on one node that pay the same
/// address would do the same work; and after `invalidateblock`, where the template is the old one
/// again, a miner would find the very block that was invalidated.
fn randomize_extranonce(coinbase: &mut Coinbase) {
    // std's hash keys are random, and need no other crate.
    let random = RandomState::new().build_hasher().finish();
    let bytes = usize::from(coinbase.extranonce_len / 2);
    coinbase.fixed_extranonce.extend_from_slice(&random.to_le_bytes()[..bytes]);
    coinbase.extranonce_len -= bytes as u8;
}

/// Whether a signet's challenge, in hex, is met by an empty solution (BIP 325): a script that does
/// nothing but push a true value, OP_TRUE to OP_16 or some bytes of which the last is not zero.
fn is_trivial(challenge: &str) -> bool {
    match hex::decode(challenge).as_deref() {
        Ok([op]) => (0x51..=0x60).contains(op),
        Ok([length @ 1..=75, pushed @ ..]) => {
            usize::from(*length) == pushed.len()
                && pushed.last().is_some_and(|last| !matches!(last, 0 | 0x80))
        }
        _ => false,
    }
}

/// Transaction ids with and without witness, in internal byte order.
struct Ids {
    plain: Vec<Hash256>,
    witness: Vec<Hash256>,
}

/// Whether `text` is hex of whole bytes, and not empty. Without branches, so that it is vectorized:
/// a template holds megabytes of it.
fn is_hex(text: &str) -> bool {
    let digit = |byte: u8| byte.wrapping_sub(b'0') < 10 || (byte | 0x20).wrapping_sub(b'a') < 6;
    !text.is_empty()
        && text.len().is_multiple_of(2)
        && text.as_bytes().chunks(4096).all(|chunk| chunk.iter().fold(true, |ok, &b| ok & digit(b)))
}

/// 32 bytes of hex, in the order of the text.
fn fixed_hex(text: &str) -> Result<Hash256, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| format!("{:?} is not 64 hex digits", shown(text)))?;
    Ok(bytes)
}

/// 32 bytes of hex in display order, turned to internal order.
fn internal_order(text: &str) -> Result<Hash256, String> {
    let mut bytes = fixed_hex(text)?;
    bytes.reverse();
    Ok(bytes)
}
