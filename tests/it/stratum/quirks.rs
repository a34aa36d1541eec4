//! What pools do in their own way, and adit learns: version bits and difficulties.

use std::path::Path;
use std::time::{Duration, Instant};

use adit::event::Event;
use adit::source::stratum_v1::Config;
use serde_json::json;

use crate::common::poll;
use crate::common::pool::{Rules, Say, ScriptedPool, VersionBits};
use crate::stratum::miner::{Miner, SOON, config};

fn learning(pool: &ScriptedPool, folder: &Path) -> Config {
    Config { quirks_dir: Some(folder.to_owned()), ..config(pool) }
}

fn refused(pool: &ScriptedPool) -> usize {
    pool.shares().iter().filter(|share| share.refused.is_some()).count()
}

/// Regtest signals in bit 28 from height 144 on, and others set bits of their own.
#[test]
fn version_bits_are_sent_as_each_kind_of_pool_takes_them() {
    for kind in [VersionBits::Replace, VersionBits::Or, VersionBits::Xor] {
        for version in [0x2000_0000, 0x3000_0000, 0x2080_0000] {
            let rules = Rules { version, version_bits: kind, ..Rules::default() };
            let pool = ScriptedPool::start(rules);
            let folder = tempfile::tempdir().unwrap();
            let learns = kind == VersionBits::Xor && version != 0x2000_0000;

            let miner = Miner::start(learning(&pool, folder.path()));
            miner.wait_for_shares("accepted", 20);
            let notices = |miner: &Miner| {
                let all = miner.events().into_iter().filter(
                    |event| matches!(event, Event::Notice(text) if text.contains("XORs version bits")),
                );
                all.count()
            };
            assert_eq!(notices(&miner), usize::from(learns), "{kind:?} {version:x}");
            let ended = miner.stop();
            assert_eq!(refused(&pool) > 0, learns, "{kind:?} {version:x}");
            for (_, verdict) in crate::stratum::miner::shares(&ended.events, "rejected") {
                let why = verdict.reject_reason().unwrap().to_string();
                assert!(why.contains("the hash is right"), "{why}");
            }
            // No bit of the job's is cleared, whatever is sent.
            for share in pool.shares().iter().filter(|share| share.refused.is_none()) {
                let bits = share.params[5].as_str().unwrap();
                let bits = u32::from_str_radix(bits, 16).unwrap();
                if kind != VersionBits::Xor {
                    assert_eq!(bits & version & 0x1fff_e000, version & 0x1fff_e000);
                }
            }

            // The next run knows it.
            let before = refused(&pool);
            let miner = Miner::start(learning(&pool, folder.path()));
            miner.wait_for_shares("accepted", 20);
            assert_eq!(notices(&miner), 0, "it was said");
            miner.stop();
            assert_eq!(refused(&pool), before, "{kind:?} {version:x}");
        }
    }
}

#[test]
fn where_no_form_helps_the_version_is_not_rolled() {
    let rules =
        Rules { version: 0x3000_0000, version_bits: VersionBits::Neither, ..Rules::default() };
    let pool = ScriptedPool::start(rules);
    let miner = Miner::start(config(&pool));
    miner.wait_for_source_error("it refuses valid shares, however their version bits are sent");
    miner.wait_for_shares("accepted", 3);
    assert!(!pool.methods(1).contains(&"mining.configure".to_owned()));
    miner.stop();
}

/// Answers a suggested difficulty by setting it, sends no job for long, and judges by the newest
/// difficulty: as public-pool does.
fn public_pool(difficulty: i32) -> ScriptedPool {
    let rules = Rules { difficulty, newest_difficulty: true, clean: false, ..Rules::default() };
    ScriptedPool::scripted(rules, |_| vec![Say::AsUsual])
}

#[test]
fn a_difficulty_that_was_raised_is_met_at_once_after_the_first_refusals() {
    let pool = public_pool(-24);
    let folder = tempfile::tempdir().unwrap();
    let miner = Miner::start(learning(&pool, folder.path()));
    miner.wait_for_shares("accepted", 5);
    pool.set_difficulty(-14);
    let before = pool.accepted();
    miner.wait_for_shares("rejected", 1);
    pool.wait_for_accepted(before + 3, SOON);
    // Some were on their way; since then none is too easy.
    let settled = refused(&pool);
    pool.wait_for_accepted(pool.accepted() + 3, SOON);
    assert_eq!(refused(&pool), settled);
    // The next time it is known.
    pool.set_difficulty(-13);
    pool.wait_for_accepted(pool.accepted() + 2, SOON);
    assert!(refused(&pool) <= settled + 1, "one may have been on its way");
    miner.stop();
}

#[test]
fn a_difficulty_that_was_lowered_is_tried_with_one_share() {
    // Some 2^44 hashes a share at first: none comes.
    let pool = public_pool(12);
    let folder = tempfile::tempdir().unwrap();
    let miner = Miner::start(learning(&pool, folder.path()));
    miner.wait(|event| matches!(event, Event::Job { .. }).then_some(()));
    pool.set_difficulty(-20);
    let begun = Instant::now();
    pool.wait_for_accepted(20, SOON);
    println!("20 shares {:?} after the difficulty was lowered", begun.elapsed());
    assert_eq!(refused(&pool), 0);
    miner.stop();

    // The next run does not even wait.
    pool.change(|rules| rules.difficulty = 12);
    pool.new_job(true);
    let miner = Miner::start(learning(&pool, folder.path()));
    miner.wait(|event| matches!(event, Event::Job { .. }).then_some(()));
    pool.set_difficulty(-20);
    pool.wait_for_accepted(pool.accepted() + 20, SOON);
    miner.stop();
}

#[test]
fn where_a_lower_difficulty_is_for_later_jobs_one_share_is_refused() {
    let pool = ScriptedPool::start(Rules { difficulty: 12, clean: false, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    miner.wait(|event| matches!(event, Event::Job { .. }).then_some(()));
    pool.set_difficulty(-20);
    miner.wait_for_shares("rejected", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pool.shares().len(), 1, "one was tried, and no more");
    pool.new_job(false);
    miner.wait_for_shares("accepted", 3);
    assert_eq!(refused(&pool), 1);
    miner.stop();
}

/// The first job of a public pool already has the difficulty that was suggested.
#[test]
fn a_suggestion_comes_before_the_first_job() {
    let rules = Rules { difficulty: 12, newest_difficulty: true, ..Rules::default() };
    let pool = ScriptedPool::scripted(rules, |request| match request.method.as_str() {
        "mining.suggest_difficulty" => vec![
            Say::json(
                json!({"id": null, "method": "mining.set_difficulty", "params": request.params}),
            ),
            Say::result(request, json!(true)),
        ],
        // The job comes with the difficulty that this connection has.
        "mining.authorize" | "mining.submit" => vec![Say::result(request, json!(true))],
        _ => vec![Say::AsUsual],
    });
    let config = Config { suggest_difficulty: Some("0.000001".into()), ..config(&pool) };
    let begun = Instant::now();
    let miner = Miner::start(config);
    let asked = |method: &str| pool.methods(0).iter().position(|asked| asked == method);
    poll(SOON, || asked("mining.authorize")).expect("a login");
    assert!(asked("mining.suggest_difficulty") < asked("mining.authorize"));
    // No one is authorized at this pool but by the script, so the job is said to all by hand.
    pool.say_raw(format!("{}\n", pool.notify()).as_bytes());
    miner.wait_for_shares("accepted", 1);
    println!("first share {:?} after the start", begun.elapsed());
    miner.stop();
}
