//! Every reject reason of the built-in chain, from a block that is otherwise valid.

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Txid, Witness, transaction};

use super::*;
use crate::chain::block;
use crate::chain::coinbase::CoinbaseText;

const NOW: u64 = 1_800_000_000;

fn key() -> JobKey {
    JobKey { connection: 0, number: 0 }
}

/// Finds a nonce for the block, by whatever target its nBits stand for.
fn mine(block: &mut Block) {
    let target = Target::from_nbits(block.header.bits).unwrap_or_else(|_| Target::max());
    while !target.is_met_by(&block.block_hash()) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
}

/// Makes the commitment (if there is one), the merkle root and the proof of work right again.
fn seal(block: &mut Block) {
    let wtxids: Vec<Hash256> =
        block.txdata.iter().skip(1).map(|tx| tx.compute_wtxid().to_byte_array()).collect();
    if let Some(output) = block.txdata.first_mut().and_then(|coinbase| {
        coinbase
            .output
            .iter_mut()
            .rev()
            .find(|output| WitnessCommitment::in_script(&output.script_pubkey).is_some())
    }) {
        output.script_pubkey = WitnessCommitment::of(&wtxids).script();
    }
    reroot(block);
}

/// Makes the merkle root and the proof of work right again.
fn reroot(block: &mut Block) {
    let root = block.compute_merkle_root();
    block.header.merkle_root = root.unwrap_or_else(|| TxMerkleNode::from_byte_array([0; 32]));
    mine(block);
}

/// The block that the whole path makes of a template: job, header, assembled hex.
fn block_of(template: &Template, extranonce: u64) -> Block {
    let text = CoinbaseText::new("built in").unwrap();
    let job = template.job(key(), &PayoutScript::anyone_can_spend(), &ScriptSigData::from(&text));
    let MerkleRoot::Rolled(coinbase) = &job.merkle_root else { panic!("a fixed root") };
    let root = coinbase.merkle_root(extranonce);
    let header = (0..=u32::MAX)
        .map(|nonce| job.header(job.version, root, job.ntime.first, nonce))
        .find(|header| job.network_target.is_met_by(&header.block_hash()))
        .unwrap();
    let body = job.body.as_ref().unwrap();
    deserialize_hex(&block::assemble_hex(&header, coinbase, extranonce, body)).unwrap()
}

fn next(chain: &RegtestChain) -> Block {
    block_of(&chain.template(NOW), 0)
}

fn grown(blocks: u32) -> RegtestChain {
    let mut chain = RegtestChain::new();
    for _ in 0..blocks {
        chain.submit(&next(&chain), NOW).unwrap();
    }
    chain
}

/// A transaction that is not a coinbase.
fn spend(number: u8) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([number; 32]), 0),
            ..TxIn::default()
        }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() }],
    }
}

fn set_script_sig(block: &mut Block, bytes: &[u8]) {
    block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(bytes.to_vec());
}

fn set_witness(block: &mut Block, items: &[&[u8]]) {
    block.txdata[0].input[0].witness = Witness::from_slice(items);
}

/// A block made wrong, and the words it is refused with.
type Refused = (&'static str, fn(&mut Block));

/// Every rejection that one block is enough for. `next` comes right from a template at a height
/// above 16.
const REFUSED: &[Refused] = &[
    ("high-hash", |b| {
        while target().is_met_by(&b.block_hash()) {
            b.header.nonce += 1;
        }
    }),
    ("high-hash", |b| {
        b.header.bits = CompactTarget::from_consensus(0);
        mine(b);
    }),
    ("high-hash", |b| {
        b.header.bits = CompactTarget::from_consensus(0x2080_ffff);
        mine(b);
    }),
    ("high-hash", |b| {
        b.header.bits = CompactTarget::from_consensus(0x2100_8000);
        mine(b);
    }),
    ("bad-txnmrklroot", |b| {
        b.header.merkle_root = TxMerkleNode::from_byte_array([1; 32]);
        mine(b);
    }),
    ("bad-txnmrklroot", |b| {
        b.txdata[0].output[0].value = Amount::ZERO;
        mine(b);
    }),
    ("bad-txns-duplicate", |b| {
        b.txdata.extend([spend(1), spend(2)]);
        seal(b);
        b.txdata.push(spend(2));
    }),
    ("bad-txns-duplicate", |b| {
        // One level up: two pairs repeated.
        b.txdata.extend((1..=5).map(spend));
        seal(b);
        b.txdata.extend([spend(4), spend(5)]);
    }),
    ("bad-blk-length", |b| {
        b.txdata.clear();
        seal(b);
    }),
    ("bad-blk-length", |b| {
        b.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
        seal(b);
    }),
    ("bad-cb-missing", |b| {
        b.txdata.insert(0, spend(1));
        seal(b);
    }),
    ("bad-cb-multiple", |b| {
        let mut another = b.txdata[0].clone();
        another.output[0].value = Amount::ZERO;
        b.txdata.push(another);
        seal(b);
    }),
    ("bad-cb-length", |b| {
        set_script_sig(b, &[0x51]);
        seal(b);
    }),
    ("bad-cb-length", |b| {
        set_script_sig(b, &[0x51; 101]);
        seal(b);
    }),
    ("bad-txns-vout-empty", |b| {
        b.txdata[0].output.clear();
        seal(b);
    }),
    ("bad-txns-vout-negative", |b| {
        b.txdata[0].output[0].value = Amount::from_sat(u64::MAX);
        seal(b);
    }),
    ("bad-txns-vout-toolarge", |b| {
        b.txdata[0].output[0].value = Amount::MAX_MONEY + Amount::from_sat(1);
        seal(b);
    }),
    ("bad-txns-txouttotal-toolarge", |b| {
        b.txdata[0].output[0].value = Amount::MAX_MONEY;
        b.txdata[0].output[1].value = Amount::from_sat(1);
        seal(b);
    }),
    ("bad-txns-inputs-duplicate", |b| {
        let mut twice = spend(1);
        twice.input.push(twice.input[0].clone());
        b.txdata.push(twice);
        seal(b);
    }),
    ("bad-txns-prevout-null", |b| {
        let mut null = spend(1);
        null.input.push(TxIn::default());
        b.txdata.push(null);
        seal(b);
    }),
    ("bad-blk-sigops", |b| {
        b.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_001]);
        seal(b);
    }),
    ("prev-blk-not-found", |b| {
        b.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
        mine(b);
    }),
    ("bad-diffbits", |b| {
        b.header.bits = CompactTarget::from_consensus(0x207f_fffe);
        mine(b);
    }),
    ("time-too-old", |b| {
        // A template's time is the first one that is allowed.
        b.header.time -= 1;
        mine(b);
    }),
    ("bad-version(0x00000003)", |b| {
        b.header.version = Version::from_consensus(3);
        mine(b);
    }),
    ("bad-version(0x00000000)", |b| {
        b.header.version = Version::from_consensus(0);
        mine(b);
    }),
    ("bad-txns-nonfinal", |b| {
        let height = b.txdata[0].lock_time.to_consensus_u32() + 1;
        b.txdata[0].lock_time = LockTime::from_consensus(height);
        seal(b);
    }),
    ("bad-txns-nonfinal", |b| {
        // The median of the times before, which is just not over.
        b.txdata[0].lock_time = LockTime::from_consensus(b.header.time - 1);
        seal(b);
    }),
    ("bad-cb-height", |b| {
        let height = i64::from(b.txdata[0].lock_time.to_consensus_u32()) + 2;
        set_script_sig(b, Builder::new().push_int(height).push_int(0).as_bytes());
        seal(b);
    }),
    ("bad-cb-height", |b| {
        // The right height, but not pushed the shortest way.
        let height = b.txdata[0].lock_time.to_consensus_u32() + 1;
        set_script_sig(b, &[2, u8::try_from(height).unwrap(), 0]);
        seal(b);
    }),
    ("bad-witness-nonce-size", |b| set_witness(b, &[&[0; 31]])),
    ("bad-witness-nonce-size", |b| set_witness(b, &[&[0; 32], &[0; 32]])),
    ("bad-witness-merkle-match", |b| {
        let wrong = WitnessCommitment::of(&[[9; 32]]).script();
        b.txdata[0].output[1].script_pubkey = wrong;
        reroot(b);
    }),
    ("bad-witness-merkle-match", |b| set_witness(b, &[&[1; 32]])),
    ("unexpected-witness", |b| {
        b.txdata[0].output.truncate(1);
        reroot(b);
    }),
    ("bad-blk-weight", |b| {
        let mut heavy = spend(1);
        heavy.input[0].witness = Witness::from_slice(&[vec![0; 4_000_000 - 1_000]]);
        b.txdata.push(heavy);
        seal(b);
    }),
    ("bad-txns-inputs-missingorspent", |b| {
        b.txdata.push(spend(1));
        seal(b);
    }),
    ("bad-cb-amount", |b| {
        b.txdata[0].output[0].value += Amount::from_sat(1);
        seal(b);
    }),
    ("bad-cb-amount", |b| {
        b.txdata[0].output[1].value += Amount::from_sat(1);
        seal(b);
    }),
];

/// Blocks that are unusual and right.
const TAKEN: &[fn(&mut Block)] = &[
    |_| {},
    |b| {
        // Nothing committed to, and nothing to commit to.
        b.txdata[0].output.truncate(1);
        set_witness(b, &[]);
        seal(b);
    },
    |b| {
        // Another reserved value.
        set_witness(b, &[&[5; 32]]);
        b.txdata[0].output[1].script_pubkey =
            WitnessCommitment::with_reserved_value(&[], &[5; 32]).script();
        reroot(b);
    },
    |b| {
        // Of two commitments the last one counts.
        let wrong = WitnessCommitment::of(&[[9; 32]]).script();
        b.txdata[0].output.insert(1, TxOut { value: Amount::ZERO, script_pubkey: wrong });
        reroot(b);
    },
    |b| {
        // A lock time that is not over, on an input that doesn't care.
        b.txdata[0].lock_time = LockTime::from_consensus(499_999_999);
        b.txdata[0].input[0].sequence = Sequence::MAX;
        seal(b);
    },
    |b| {
        // Every bit of BIP 320 rolled, and the reward given away.
        b.header.version = Version::from_consensus(0x3fff_e000);
        b.txdata[0].output[0].value = Amount::ZERO;
        seal(b);
    },
];

fn words(result: Result<(), Reject>) -> String {
    result.map_or_else(|reject| reject.to_string(), |()| "null".into())
}

/// Blocks in the order they are submitted in, from the genesis block on, each with the answer.
fn script() -> Vec<(Block, String)> {
    let mut script = Vec::new();
    let mut chain = RegtestChain::new();
    let mut say = |chain: &mut RegtestChain, block: &Block, expected: &str| {
        assert_eq!(words(chain.submit(block, NOW)), expected);
        script.push((block.clone(), expected.to_owned()));
    };
    // Far enough for heights to be pushed as numbers and the median to have 11 times.
    for _ in 0..20 {
        let block = next(&chain);
        say(&mut chain, &block, "null");
    }
    for (expected, make_wrong) in REFUSED {
        let mut block = next(&chain);
        make_wrong(&mut block);
        say(&mut chain, &block, expected);
    }
    for make_unusual in TAKEN {
        let mut block = next(&chain);
        make_unusual(&mut block);
        say(&mut chain, &block, "null");
        say(&mut chain, &block, "duplicate");
    }

    // Known to be invalid, and what builds on that.
    let mut invalid = next(&chain);
    set_script_sig(&mut invalid, &[1, 99, 0]);
    seal(&mut invalid);
    say(&mut chain, &invalid, "bad-cb-height");
    say(&mut chain, &invalid, "duplicate-invalid");
    let mut child = next(&chain);
    child.header.prev_blockhash = invalid.block_hash();
    mine(&mut child);
    say(&mut chain, &child, "bad-prevblk");
    // A wrong witness doesn't spoil the right one.
    let good = next(&chain);
    let mut bad = good.clone();
    set_witness(&mut bad, &[&[3; 32]]);
    assert_eq!(bad.block_hash(), good.block_hash());
    let fork = chain.template(NOW);
    say(&mut chain, &bad, "bad-witness-merkle-match");
    say(&mut chain, &good, "null");
    say(&mut chain, &bad, "duplicate");

    // A race: the first one stays, until the other branch is longer.
    let late = block_of(&fork, 1);
    say(&mut chain, &late, "inconclusive");
    say(&mut chain, &late, "duplicate");
    assert_eq!(chain.tip(), good.block_hash());
    let mut longer = next(&chain);
    longer.header.prev_blockhash = late.block_hash();
    mine(&mut longer);
    say(&mut chain, &longer, "null");
    assert_eq!(chain.tip(), longer.block_hash());
    let block = next(&chain);
    say(&mut chain, &block, "null");
    script
}

#[test]
fn it_begins_as_regtest_does() {
    let chain = RegtestChain::new();
    assert_eq!(
        chain.tip().to_string(),
        "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
    );
    let template = chain.template(NOW);
    assert_eq!(template.height, 1);
    assert_eq!(template.min_time, 1_296_688_603);
    assert_eq!(template.current_time, 1_800_000_000);
    assert_eq!(template.value, Amount::from_sat(5_000_000_000));
    assert_eq!(chain.template(0).current_time, template.min_time);
    assert_eq!(Target::from_nbits(template.nbits), Ok(target()));
}

#[test]
fn every_refusal_is_given_for_its_own_reason() {
    assert!(script().len() > 60);
}

#[test]
fn a_refused_block_changes_nothing() {
    let mut chain = grown(20);
    for (expected, make_wrong) in REFUSED {
        let before = chain.template(NOW);
        let mut block = next(&chain);
        make_wrong(&mut block);
        let verdict = Verdict::from(chain.submit(&block, NOW).unwrap_err());
        let Verdict::Rejected(reason) = verdict else { panic!("{expected}: {verdict:?}") };
        assert_eq!(reason.words, *expected);
        assert!(!reason.meaning.is_empty(), "{expected}");
        assert_eq!(chain.template(NOW), before);
    }
    chain.submit(&next(&chain), NOW).unwrap();
}

#[test]
fn what_it_takes_the_bitcoin_crate_finds_right_too() {
    for (block, answer) in script() {
        let commits = block.txdata.first().is_some_and(|coinbase| coinbase.output.len() > 1);
        match answer.as_str() {
            "null" => {
                assert!(block.check_merkle_root());
                if commits {
                    assert!(block.check_witness_commitment());
                }
                assert!(block.header.validate_pow(block.header.target()).is_ok());
            }
            "bad-txnmrklroot" => assert!(!block.check_merkle_root()),
            "bad-witness-merkle-match" | "bad-witness-nonce-size" => {
                assert!(!block.check_witness_commitment());
            }
            "high-hash" if block.header.bits.to_consensus() == NBITS => {
                assert!(block.header.validate_pow(block.header.target()).is_err());
            }
            _ => {}
        }
    }
}

#[test]
fn heights_are_those_that_the_bitcoin_crate_reads() {
    let mut chain = RegtestChain::new();
    for height in 1..300 {
        let block = next(&chain);
        // It doesn't read OP_1 to OP_16.
        if height > 16 {
            assert_eq!(block.bip34_block_height(), Ok(height));
        }
        chain.submit(&block, NOW).unwrap();
        assert_eq!(u64::from(chain.height()), height);
    }
}

#[test]
fn the_low_heights_are_checked() {
    let mut chain = RegtestChain::new();
    for _ in 1..=16 {
        let mut block = next(&chain);
        let height = block.txdata[0].input[0].script_sig.as_bytes()[0] - 0x50;
        set_script_sig(&mut block, &[1, height, 0]);
        seal(&mut block);
        assert_eq!(chain.submit(&block, NOW), Err(Reject::CoinbaseHeight));
        chain.submit(&next(&chain), NOW).unwrap();
    }
}

#[test]
fn a_coinbase_without_witness_or_transaction_without_input_is_refused() {
    let mut chain = grown(1);
    let mut block = next(&chain);
    set_witness(&mut block, &[]);
    assert_eq!(chain.submit(&block, NOW), Err(Reject::WitnessNonceSize));
    let mut block = next(&chain);
    block.txdata.push(Transaction { input: vec![], ..spend(1) });
    seal(&mut block);
    assert_eq!(chain.submit(&block, NOW), Err(Reject::Transaction("vin-empty")));
}

#[test]
fn a_version_is_a_signed_number() {
    // Not in the script: Bitcoin Knots refuses these too, in words of its own.
    let mut chain = grown(1);
    let mut block = next(&chain);
    block.header.version = Version::from_consensus(i32::MIN);
    mine(&mut block);
    let reject = chain.submit(&block, NOW).unwrap_err();
    assert_eq!(reject.to_string(), "bad-version(0x80000000)");
}

#[test]
fn time_is_bounded_on_both_sides() {
    let mut chain = grown(20);
    for (time, expected) in [
        (u64::from(chain.template(NOW).min_time) - 1, Err(Reject::TimeTooOld)),
        (NOW + MAX_AHEAD + 1, Err(Reject::TimeTooNew)),
        (NOW + MAX_AHEAD, Ok(())),
    ] {
        let mut block = next(&chain);
        block.header.time = time.try_into().unwrap();
        mine(&mut block);
        assert_eq!(chain.submit(&block, NOW), expected);
    }
}

#[test]
fn the_median_is_a_nodes() {
    let mut times = RecentTimes::of_first(100);
    assert_eq!(times.median(), 100);
    for (time, median) in [(50, 100), (70, 70), (60, 70), (10, 60)] {
        times = times.followed_by(time);
        assert_eq!(times.median(), median);
    }
    for time in 200..211 {
        times = times.followed_by(time);
    }
    assert_eq!(times.median(), 205);
}

#[test]
fn memory_stays_the_same_and_old_blocks_are_forgotten() {
    let mut chain = RegtestChain::new();
    let first = next(&chain);
    let fork = block_of(&chain.template(NOW), 1);
    for _ in 0..KEPT + 10 {
        chain.submit(&next(&chain), NOW).unwrap();
    }
    assert_eq!((chain.known.len(), chain.arrivals.len()), (KEPT, KEPT));
    assert_eq!(chain.submit(&first, NOW), Err(Reject::PreviousNotFound));
    assert_eq!(chain.submit(&fork, NOW), Err(Reject::PreviousNotFound));

    // Nor does a flood of blocks beside the tip make it forget the tip, or grow.
    let tip = chain.tip();
    let late = chain.template(NOW);
    chain.submit(&next(&chain), NOW).unwrap();
    let other = chain.tip();
    for extranonce in 1..2 * KEPT as u64 {
        let block = block_of(&late, extranonce);
        assert_eq!(
            chain.submit(&block, NOW),
            Err(if extranonce < KEPT as u64 {
                Reject::Inconclusive
            } else {
                // By now the parent is forgotten too.
                Reject::PreviousNotFound
            })
        );
    }
    assert_ne!(tip, other);
    assert_eq!((chain.tip(), chain.known.len()), (other, KEPT));
    chain.submit(&next(&chain), NOW).unwrap();
}

#[test]
fn hex_is_read_or_refused() {
    let mut chain = RegtestChain::new();
    let hex = serialize_hex(&next(&chain));
    for bad in ["", "00", "zz", &hex[..hex.len() - 2], &hex[1..], "ü", &"f".repeat(10_000)] {
        assert_eq!(chain.submit_hex(bad, NOW), Err(Reject::Undecodable));
    }
    assert_eq!(chain.submit_hex(&hex.to_uppercase(), NOW), Ok(()));
    // Known is not the same as part of the best chain.
    for placed in [Reject::Duplicate, Reject::Inconclusive] {
        assert_eq!(Verdict::from(placed).result(), "stale");
    }
}

/// The script, as tests/it/node_reject.rs plays it to a real node and to the chain: each line the
/// answer and the block in hex, in the order to submit them. The largest are left out.
#[test]
fn the_script_for_a_real_node_is_up_to_date() {
    let line = |(block, answer): &(Block, String)| format!("{answer} {}\n", serialize_hex(block));
    // Megabytes of hex for the few that are too large would help no reader.
    let short = |(block, _): &&(Block, String)| block.total_size() < 50_000;
    let script = script().iter().filter(short).map(line).collect::<String>();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/regtest_blocks.txt");
    if std::env::var_os("ADIT_WRITE_FIXTURES").is_some() {
        std::fs::write(path, &script).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(script == written, "run the test once with ADIT_WRITE_FIXTURES=1");
}
