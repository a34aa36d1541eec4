//! What a node sends.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;

use super::assert_shown_well;
use crate::chain::block;
use crate::chain::coinbase::CoinbaseText;
use crate::chain::payout::PayoutScript;
use crate::job::{JobKey, MerkleRoot, Verdict};
use crate::printable::is_printable;
use crate::source::getblocktemplate::zmtp::{PART_BYTES, Subscriber};
use crate::source::getblocktemplate::{Payout, parse_template, verdict};
use crate::source::node_reject::{SubmitResponse, WORDS_MAX};

static PAYOUT: LazyLock<Payout> = LazyLock::new(|| Payout {
    script: PayoutScript::anyone_can_spend(),
    text: CoinbaseText::default(),
    version_rolling: true,
});

/// The answer to `getblocktemplate`.
///
/// What can be mined makes whole blocks: hex that begins with the header, names as many
/// transactions as there are, and holds theirs as they came. It is the same each time it is read.
pub fn template(input: &[u8]) {
    let received = Instant::now();
    let body = Bytes::copy_from_slice(input);
    let ready = match parse_template(&body, &PAYOUT, received) {
        Ok(ready) => ready,
        Err(error) => return assert_shown_well(&error),
    };
    let again = parse_template(&body, &PAYOUT, received).expect("it was read before");
    assert_eq!(ready.fingerprint, again.fingerprint);
    let job = ready.into_job(JobKey { connection: 0, number: 0 }, true);
    assert!(job.is_same_work(&job));
    let (MerkleRoot::Rolled(coinbase), Some(transactions)) = (&job.merkle_root, &job.body) else {
        panic!("it is no job of a node's")
    };
    assert!(coinbase.extranonces() > 1);
    assert_eq!(job.version_mask.bits() & job.version, 0, "a bit of the template's is rolled");
    let header = job.header(job.version, coinbase.merkle_root(1), job.ntime.first, 7);
    let hex = block::assemble_hex(&header, coinbase, 1, transactions);
    let bytes = hex::decode(&hex).expect("a block is hex");
    assert_eq!(bytes[..80], *bitcoin::consensus::serialize(&header));
    assert!(hex.ends_with(&transactions.transactions_hex));
    let count: bitcoin::VarInt =
        bitcoin::consensus::encode::deserialize_partial(&bytes[80..]).expect("a count").0;
    assert_eq!(count.0, 1 + transactions.transaction_count as u64);
}

/// The answer to `submitblock`.
///
/// A block counts as accepted only where the node said null or `duplicate`; words are fit to be
/// shown.
pub fn submitblock_answer(input: &[u8]) {
    #[derive(Deserialize)]
    struct Said {
        result: Option<String>,
        error: Option<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        message: String,
    }
    let assert_short = |words: &str| {
        assert!(words.chars().count() <= WORDS_MAX && words.chars().all(is_printable));
    };
    match verdict::parse_submit_response(input) {
        Ok(SubmitResponse::Verdict(Verdict::Accepted)) => {
            let said: Said = serde_json::from_slice(input).expect("it was read before");
            let words = said.error.map(|error| error.message).or(said.result);
            assert_eq!(words, None);
        }
        Ok(SubmitResponse::Verdict(verdict)) => {
            assert_short(verdict.reject_reason().map_or("", |reason| reason.words.as_str()));
        }
        Ok(SubmitResponse::AlreadyKnown(reason) | SubmitResponse::Undecided(reason)) => {
            assert_short(&reason.words);
        }
        Err(error) => assert_shown_well(&error),
    }
}

/// A publisher's side of a ZeroMQ connection, from its greeting on.
///
/// Of a message no more is kept than eight parts of 64 bytes, whatever the publisher says that there
/// is, and the end of the stream is an error.
pub fn zmtp(input: &[u8]) {
    let stream = tokio::io::join(input, tokio::io::sink());
    let reads = pin!(async {
        let mut subscriber = match Subscriber::subscribe(stream, "hashtx").await {
            Ok(subscriber) => subscriber,
            Err(error) => return assert_shown_well(&error),
        };
        let mut heard = 0;
        loop {
            match subscriber.message().await {
                Ok(parts) => {
                    assert!((1..=8).contains(&parts.len()));
                    assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
                    // A part has a head of two bytes at least.
                    heard += parts.iter().map(|part| 2 + part.len()).sum::<usize>();
                    assert!(heard <= input.len());
                }
                Err(error) => return assert_shown_well(&error),
            }
        }
    });
    // The stream is read from the input and never waited for.
    assert!(reads.poll(&mut Context::from_waker(Waker::noop())).is_ready());
}
