//! Sent = accepted + rejected + stale + unknown, and the pool's own count agrees.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use adit::event::Event;
use serde_json::json;

use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::stratum::miner::{Ended, Miner, SOON, config, shares};

/// Compares what both sides know about each share.
#[track_caller]
pub fn audit(pool: &ScriptedPool, ended: &Ended) {
    let tally = &ended.summary.shares;
    let told =
        ended.events.iter().filter(|event| matches!(event, Event::Share { .. })).count() as u64;
    assert_eq!(tally.accepted + tally.rejected + tally.stale + tally.unknown, told);

    let of = |result: &str| -> HashSet<String> {
        let all = shares(&ended.events, result);
        let set: HashSet<String> = all.iter().map(|(hash, _)| hash.clone()).collect();
        assert_eq!(set.len(), all.len(), "no share has two verdicts");
        set
    };
    let [accepted, rejected, stale, unknown] = ["accepted", "rejected", "stale", "unknown"].map(of);
    let mut theirs: HashMap<String, Option<&'static str>> = HashMap::new();
    for share in pool.shares() {
        let Some(hash) = share.hash else {
            // No header can be made of it: its job is over.
            assert_eq!(share.refused, Some("Job not found"), "{share:?}");
            continue;
        };
        let again = theirs.insert(hash, share.refused);
        assert_eq!(again, None, "no share is sent twice");
    }
    for hash in &accepted {
        assert_eq!(
            theirs.get(hash),
            Some(&None),
            "what we count as accepted, the pool has accepted"
        );
    }
    for hash in &rejected {
        assert!(matches!(theirs.get(hash), Some(Some(_))), "{hash}");
    }
    for (hash, refused) in &theirs {
        assert!(
            if refused.is_none() { accepted.contains(hash) } else { rejected.contains(hash) }
                || unknown.contains(hash),
            "{hash} {refused:?}"
        );
        assert!(!stale.contains(hash) || refused.is_some(), "what was not sent did not arrive");
    }
    let theirs_accepted = theirs.values().filter(|refused| refused.is_none()).count() as u64;
    assert!((tally.accepted..=tally.accepted + tally.unknown).contains(&theirs_accepted));
    assert_eq!(tally.rejected, 0, "{:?}", shares(&ended.events, "rejected"));
}

/// A pool that hangs up at random: before an answer, after it, and in the middle of it.
fn unreliable(rules: Rules, seed: u64) -> ScriptedPool {
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    ScriptedPool::scripted(rules, move |request| {
        let mut random = random.lock().unwrap();
        if request.method != "mining.submit" {
            return match random.u32(0..40) {
                0 => vec![Say::HangUp],
                _ => vec![Say::AsUsual],
            };
        }
        match random.u32(0..400) {
            0 => vec![Say::HangUp],
            1 => vec![Say::AsUsual, Say::HangUp],
            2 => vec![Say::Raw(b"{\"id\":".to_vec()), Say::HangUp],
            3 => vec![Say::Wait(Duration::from_millis(30)), Say::AsUsual],
            _ => vec![Say::AsUsual],
        }
    })
}

fn account(rules: Rules, seed: u64, wanted: usize) {
    let pool = unreliable(rules, seed);
    let miner = Miner::start(config(&pool));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut jobs = 0;
    let done = crate::common::poll(3 * SOON, || {
        if random.u32(0..20) == 0 {
            jobs += 1;
            pool.new_job(jobs % 3 == 0);
        }
        (pool.accepted() >= wanted).then_some(())
    });
    assert!(done.is_some(), "{} of {wanted}", pool.accepted());
    let ended = miner.stop();
    assert!(pool.connections() > 3, "{}", pool.connections());
    ended.outcome.clone().unwrap();
    audit(&pool, &ended);
}

#[test]
fn the_accounts_agree_over_random_disconnects() {
    account(Rules { difficulty: -24, clean: false, ..Rules::default() }, 1, 2_000);
}

#[test]
fn the_accounts_agree_where_sessions_are_resumed() {
    account(Rules { difficulty: -24, clean: false, resumes: true, ..Rules::default() }, 2, 2_000);
}

#[test]
fn the_accounts_agree_when_stopped_with_shares_on_their_way() {
    let pool = ScriptedPool::scripted(Rules { difficulty: -24, ..Rules::default() }, |request| {
        match request.method.as_str() {
            "mining.submit" => vec![Say::Wait(Duration::from_millis(20)), Say::AsUsual],
            _ => vec![Say::AsUsual],
        }
    });
    let miner = Miner::start(config(&pool));
    pool.wait_for_accepted(20, SOON);
    let ended = miner.stop();
    audit(&pool, &ended);
    // All that were sent were answered before the end.
    assert_eq!(ended.summary.shares.unknown, 0);
    assert_eq!(pool.accepted() as u64, ended.summary.shares.accepted);
}

#[test]
fn answers_after_the_timeout_change_nothing() {
    let held = Mutex::new(Vec::new());
    let pool = ScriptedPool::scripted(Rules::default(), move |request| {
        if request.method != "mining.submit" {
            return vec![Say::AsUsual];
        }
        let mut held = held.lock().unwrap();
        held.push(request.id.clone());
        // Every answer comes ten shares later.
        if held.len() <= 10 {
            return vec![Say::json(json!({"method": "mining.teapot", "params": []}))];
        }
        vec![Say::json(json!({"id": held.remove(0), "result": true, "error": null}))]
    });
    let mut config = config(&pool);
    config.timing.answer = Duration::from_millis(5);
    let miner = Miner::start(config);
    miner.wait_for_shares("unknown", 30);
    let ended = miner.stop();
    let tally = ended.summary.shares;
    let told =
        ended.events.iter().filter(|event| matches!(event, Event::Share { .. })).count() as u64;
    assert_eq!(tally.accepted + tally.rejected + tally.stale + tally.unknown, told);
}
