//! From the last byte of a template to the first nonce hashed: what a new block or new transactions
//! cost before mining goes on. The template holds 4,000 transactions; once as 4 million weight units
//! of bytes without witness (1 MB), once as the most text that a block can be (4 MB, all witness).

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use adit::chain::coinbase::CoinbaseText;
use adit::chain::commitment::WitnessCommitment;
use adit::chain::merkle::sha256d;
use adit::chain::payout::PayoutScript;
use adit::engine::{NextWork, SearchSpace};
use adit::job::JobKey;
use adit::scan::Kernel;
use adit::scan::cpu::Sha2;
use adit::source::getblocktemplate::{Payout, parse_template};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const TRANSACTIONS: u32 = 4000;

/// An answer to `getblocktemplate` with transactions of `size` bytes. Nothing here looks into them,
/// so they are bytes like any others.
fn answer(size: usize) -> Bytes {
    let (mut wtxids, mut transactions) = (Vec::new(), Vec::new());
    for number in 0..TRANSACTIONS {
        let mut data = Vec::with_capacity(size);
        while data.len() < size {
            data.extend(sha256d(
                &[number.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat(),
            ));
        }
        data.truncate(size);
        let (txid, mut wtxid) = (sha256d(&number.to_be_bytes()), sha256d(&data));
        wtxids.push(wtxid);
        wtxid.reverse();
        transactions.push(serde_json::json!({
            "data": hex::encode(data),
            "txid": hex::encode(txid),
            "hash": hex::encode(wtxid),
            "depends": [], "fee": 1000, "sigops": 4, "weight": 1000,
        }));
    }
    let commitment = WitnessCommitment::of(&wtxids).script();
    let template = serde_json::json!({
        "capabilities": ["proposal"], "version": 0x2000_0000, "rules": ["csv", "!segwit", "taproot"],
        "vbavailable": {}, "vbrequired": 0,
        "previousblockhash": "00".repeat(32),
        "transactions": transactions,
        "coinbaseaux": {}, "coinbasevalue": 5_004_000_000_u64,
        "longpollid": "00".repeat(32),
        "target": format!("7fffff{}", "0".repeat(58)), "bits": "207fffff",
        "mintime": 1_700_000_000, "curtime": 1_700_000_600,
        "mutable": ["time", "transactions", "prevblock"], "noncerange": "00000000ffffffff",
        "height": 500, "default_witness_commitment": commitment.to_hex_string(),
    });
    Bytes::from(serde_json::json!({"result": template, "error": null, "id": "adit"}).to_string())
}

fn first_nonce(body: &Bytes, payout: &Payout) -> u64 {
    let received = Instant::now();
    let ready = parse_template(body, payout, received).expect("a sound template");
    let job = ready.into_job(JobKey { connection: 0, number: 0 }, true);
    let mut space = SearchSpace::new(job.into(), 1);
    let NextWork::Unit(unit) = space.take(1, 1, received) else { panic!("there is work") };
    Sha2.scan(&unit.scan(), &mut |_| ControlFlow::Continue(()))
}

fn template_to_first_nonce(criterion: &mut Criterion) {
    let payout = Payout {
        script: PayoutScript::anyone_can_spend(),
        text: CoinbaseText::default(),
        version_rolling: true,
    };
    let mut group = criterion.benchmark_group("template to first nonce");
    group.sample_size(20);
    for (name, size) in [("4 million weight units", 250), ("4 MB of witness", 1000)] {
        let body = answer(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(first_nonce(black_box(&body), &payout)));
        });
    }
    group.finish();
}

criterion_group!(benches, template_to_first_nonce);
criterion_main!(benches);
