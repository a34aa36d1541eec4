//! Blocks at a pool: what its yes means, and those that it might never hear of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::event::Event;
use adit::job::Verdict;
use serde_json::Value;

use crate::common::adit::Adit;
use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::common::{poll, promised};
use crate::stratum::miner::{Miner, SOON, config};

/// What the verdicts on blocks were, in their order: hash, result, and whether it was announced before.
fn blocks(miner: &Miner) -> Vec<(String, &'static str, bool)> {
    let of = |event: &Event| match event {
        Event::Block { hash, verdict, was_unknown, .. } => {
            Some((hash.to_string(), verdict.result(), *was_unknown))
        }
        _ => None,
    };
    miner.events().iter().filter_map(of).collect()
}

/// Shares that are blocks once in a while: the network's target is the shares' and some.
fn block_rules() -> Rules {
    Rules { difficulty: -20, nbits: 0x1e0f_ffff, ..Rules::default() }
}

#[test]
fn a_block_is_accepted_when_the_next_job_builds_on_it() {
    let pool = ScriptedPool::start(block_rules());
    let miner = Miner::start(config(&pool));
    let first = poll(SOON, || blocks(&miner).first().cloned()).expect("a block");
    assert_eq!((first.1, first.2), ("unknown", false));
    // Another job on the same tip says nothing of it.
    pool.refresh_job(false);
    std::thread::sleep(Duration::from_millis(200));
    let before = blocks(&miner);
    assert!(before.iter().all(|block| block.1 == "unknown"), "{before:?} {:?}", miner.events());
    pool.build_on(&first.0);
    let settled =
        poll(SOON, || blocks(&miner).into_iter().find(|block| block.0 == first.0 && block.2));
    assert_eq!(settled.expect("its fate").1, "accepted");
    let ended = miner.stop();
    assert_eq!(ended.summary.blocks.accepted, 1);
    // Any other block found meanwhile is at the height of that one.
    let told = |result| {
        let all = ended.events.iter().filter(
            |event| matches!(event, Event::Block { verdict, .. } if verdict.result() == result),
        );
        all.count() as u64
    };
    assert_eq!(ended.summary.blocks.stale, told("stale"));
    assert_eq!(
        ended.summary.blocks.unknown,
        told("unknown") - told("accepted") - told("stale"),
        "unknown are those that no job has shown anything of"
    );
}

#[test]
fn a_block_is_stale_when_the_next_job_builds_on_another() {
    let pool = ScriptedPool::start(block_rules());
    let miner = Miner::start(config(&pool));
    let first = poll(SOON, || blocks(&miner).first().cloned()).expect("a block");
    pool.new_job(true);
    let settled =
        poll(SOON, || blocks(&miner).into_iter().find(|block| block.0 == first.0 && block.2));
    assert_eq!(settled.expect("its fate").1, "stale");
    let ended = miner.stop();
    assert_eq!(ended.summary.blocks.accepted, 0);
    let why = ended.events.iter().find_map(|event| match event {
        Event::Block { verdict: Verdict::Stale(why), .. } => Some(why.to_string()),
        _ => None,
    });
    assert_eq!(why.unwrap(), "the pool's next job builds on another block");
}

#[test]
fn the_goal_of_blocks_counts_confirmed_ones() {
    // The pool answers with the job that builds on the block before it answers the share.
    let pool = Arc::new(ScriptedPool::start(Rules { clean: true, ..block_rules() }));
    let watched = pool.clone();
    let (done, is_over) = std::sync::mpsc::channel::<()>();
    let builds = std::thread::spawn(move || {
        let target = u128::from_str_radix("00000fffff0000000000000000000000", 16).unwrap();
        let mut built = Vec::new();
        poll(SOON, || {
            for share in watched.shares() {
                let Some(hash) = share.hash.filter(|hash| !built.contains(hash)) else { continue };
                if u128::from_str_radix(&hash[..32], 16).unwrap() <= target {
                    watched.build_on(&hash);
                    built.push(hash);
                }
            }
            let is_over = is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected);
            is_over.then_some(())
        });
    });
    let exit = Adit::new(["mine", "--json", &pool.url(), "--user", "a", "--blocks", "2"])
        .run(SOON)
        .expect_code(0);
    drop(done);
    let events = promised::check(&exit.stdout);
    let of = |result: &str| -> Vec<Value> {
        let all = events.iter().filter(|e| e["event"] == "block" && e["result"] == result);
        all.map(|event| event["hash"].clone()).collect()
    };
    let accepted = of("accepted");
    assert_eq!(accepted.len(), 2, "{events:#?}");
    assert!(accepted.iter().all(|hash| of("unknown").contains(hash)), "each was unknown before");
    let summary = events.last().unwrap();
    assert_eq!(summary["blocks"]["accepted"], 2);
    drop(pool);
    builds.join().unwrap();
}

/// A block that is too easy for a share is sent, once on each tip: some pools look for blocks first.
#[test]
fn a_block_that_is_no_share_is_sent_once_on_a_tip() {
    let pool = ScriptedPool::start(Rules {
        // Some 2^44 hashes a share, and 2^16 a block.
        difficulty: 12,
        nbits: 0x1f00_ffff,
        ..Rules::default()
    });
    let miner = Miner::start(config(&pool));
    let submitted = |count: usize| poll(SOON, || (pool.shares().len() >= count).then_some(()));
    assert!(submitted(1).is_some(), "a block is sent");
    std::thread::sleep(Duration::from_millis(300));
    pool.refresh_job(true);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pool.shares().len(), 1, "one on a tip is enough");
    assert_eq!(pool.shares()[0].refused, Some("Low difficulty share"));
    let first = blocks(&miner);
    assert_eq!((first.len(), first[0].1), (1, "unknown"));
    pool.new_job(true);
    assert!(submitted(2).is_some(), "and another on the next");
    let ended = miner.stop();
    let Ok(()) = ended.outcome else { panic!() };
    // They are no shares of ours that the pool has refused.
    assert_eq!(ended.summary.shares.rejected, 0);
}

/// What is found for a job that another on the same tip has replaced is sent, if it is a block.
#[test]
fn a_block_of_a_replaced_job_is_sent_where_the_tip_is_the_same() {
    let answered = Arc::new(Mutex::new(0));
    let count = answered.clone();
    let pool = ScriptedPool::scripted(
        Rules { difficulty: -20, nbits: 0x1f00_ffff, ..Rules::default() },
        move |request| {
            if request.method == "mining.submit" {
                *count.lock().unwrap() += 1;
            }
            vec![Say::AsUsual]
        },
    );
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 1);
    // Each job replaces the one before in the middle of its shares: of those that are blocks some
    // come for a job that is over.
    let stale = poll(SOON, || {
        pool.refresh_job(true);
        std::thread::sleep(Duration::from_millis(3));
        let late = pool.shares().iter().any(|share| share.refused == Some("Job not found"));
        late.then_some(())
    });
    assert!(stale.is_some(), "none came for a replaced job");
    miner.stop();
}
