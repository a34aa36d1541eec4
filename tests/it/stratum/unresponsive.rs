//! Pools that take shares, send jobs, and answer nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit::event::{Event, SourceState};
use adit::source::stratum_v1::Config;

use crate::common::poll;
use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::stratum::miner::{Miner, SOON, config};

const WHY: &str = "it takes shares and has answered none for 1 s";

/// A pool that is deaf as long as the flag says so.
fn pool() -> (ScriptedPool, Arc<AtomicBool>) {
    let is_deaf = Arc::new(AtomicBool::new(true));
    let flag = is_deaf.clone();
    let pool = ScriptedPool::scripted(Rules { clean: false, ..Rules::default() }, move |request| {
        if request.method == "mining.submit" && flag.load(Ordering::SeqCst) {
            return vec![];
        }
        vec![Say::AsUsual]
    });
    (pool, is_deaf)
}

fn impatient(pool: &ScriptedPool, cooldown: Duration) -> Config {
    let mut config = config(pool);
    config.timing.answer = Duration::from_millis(200);
    config.timing.unanswered_shares = (8, Duration::from_secs(1));
    config.timing.fault_cooldown = cooldown;
    config
}

/// Sends jobs, as such a pool does, until something has come.
#[track_caller]
fn sending_jobs<T>(pool: &ScriptedPool, come: impl Fn() -> Option<T>) -> T {
    let come = poll(SOON, || {
        pool.new_job(false);
        std::thread::sleep(Duration::from_millis(20));
        come()
    });
    come.expect("it comes in time")
}

/// Which source was mined each time that this changed, and what else was said of them.
fn said(miner: &Miner) -> Vec<(SourceState, String, String)> {
    let of = |event| match event {
        Event::Source { state, source, reason, .. } => {
            Some((state, source, reason.unwrap_or_default()))
        }
        _ => None,
    };
    miner.events().into_iter().filter_map(of).collect()
}

#[test]
fn a_pool_that_answers_no_share_is_left_and_mined_again_where_there_is_no_other() {
    let (pool, is_deaf) = pool();
    let miner = Miner::start(impatient(&pool, Duration::from_secs(3600)));
    let lost = |miner: &Miner| said(miner).iter().any(|(.., why)| why == WHY).then_some(());
    sending_jobs(&pool, || lost(&miner));
    // It is connected to anew, and gets shares, but is not said to be well.
    sending_jobs(&pool, || (pool.connections() == 2).then_some(()));
    let before = pool.requests().len();
    sending_jobs(&pool, || (pool.requests().len() > before + 10).then_some(()));
    let states =
        |miner: &Miner| said(miner).into_iter().map(|(state, ..)| state).collect::<Vec<_>>();
    assert_eq!(states(&miner)[..2], [SourceState::Connected, SourceState::Lost]);
    assert!(!states(&miner)[2..].contains(&SourceState::Connected), "{:?}", said(&miner));
    // One answer, and it is.
    is_deaf.store(false, Ordering::SeqCst);
    miner.wait_for_shares("accepted", 1);
    assert_eq!(states(&miner).last(), Some(&SourceState::Connected));
    let ended = miner.stop();
    ended.outcome.unwrap();
    assert_eq!(ended.summary.shares.rejected, 0);
    assert!(ended.summary.shares.unknown >= 8);
}

#[test]
fn the_next_pool_is_mined_instead_of_one_that_answers_no_share() {
    let (deaf, _) = pool();
    let good = ScriptedPool::start(Rules::default());
    let miner = Miner::start_on(vec![impatient(&deaf, Duration::from_secs(3600)), config(&good)]);
    sending_jobs(&deaf, || (good.accepted() > 3).then_some(()));
    // The first one is there again, and has jobs, for longer than one that is well is waited for.
    sending_jobs(&deaf, || (deaf.connections() == 2).then_some(()));
    let begun = std::time::Instant::now();
    sending_jobs(&deaf, || (begun.elapsed() > Duration::from_secs(4)).then_some(()));
    let before = good.accepted();
    sending_jobs(&deaf, || (good.accepted() > before + 3).then_some(()));
    let said = said(&miner);
    assert_eq!(said.iter().filter(|(_, source, _)| *source == deaf.url()).count(), 2, "{said:?}");
    assert!(said.contains(&(SourceState::Lost, deaf.url(), WHY.into())), "{said:?}");
    assert!(deaf.shares().is_empty() && deaf.connections() == 2);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_pool_that_answered_no_share_gets_another_chance() {
    let (first, is_deaf) = pool();
    let good = ScriptedPool::start(Rules::default());
    let miner = Miner::start_on(vec![impatient(&first, Duration::from_secs(2)), config(&good)]);
    sending_jobs(&first, || (good.accepted() > 3).then_some(()));
    is_deaf.store(false, Ordering::SeqCst);
    sending_jobs(&first, || (first.accepted() > 3).then_some(()));
    miner.wait(|event| match event {
        Event::Source { source, reason: Some(why), .. } => {
            (*source == first.url() && why.contains("healthy again")).then_some(())
        }
        _ => None,
    });
    let ended = miner.stop();
    ended.outcome.unwrap();
    assert_eq!(ended.summary.shares.rejected, 0);
}
