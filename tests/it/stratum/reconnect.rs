//! A reconnect that the user asks for.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit::event::{Event, SourceState};
use adit::job::SourceId;
use adit::source::net::{Endpoint, Transport};
use adit::source::stratum_v1::Config;

use crate::common::poll;
use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::stratum::accounting::audit;
use crate::stratum::miner::{Miner, SOON, config};

/// What is announced.
const WHY: &str = "a reconnect was requested";
/// A wait that no test outlasts: what follows it comes because it was asked for.
const NEVER: Duration = Duration::from_secs(3600);
/// Some shares a second.
const SOME: i32 = -13;

/// A configuration that never connects again by itself.
fn patient(pool: &ScriptedPool) -> Config {
    let mut config = config(pool);
    config.timing.backoff = (NEVER, NEVER);
    config
}

/// A pool that answers the shares of the first connection by this once the flag is set.
fn answering(rules: Rules, late: Vec<Say>) -> (ScriptedPool, Arc<AtomicBool>) {
    let is_late = Arc::new(AtomicBool::new(false));
    let flag = is_late.clone();
    let pool = ScriptedPool::scripted(rules, move |request| {
        let is_share = request.method == "mining.submit" && request.connection == 0;
        if is_share && flag.load(Ordering::SeqCst) { late.clone() } else { vec![Say::AsUsual] }
    });
    (pool, is_late)
}

fn submitted(pool: &ScriptedPool, connection: usize) -> usize {
    let requests = pool.requests().into_iter();
    let of_shares = |method: &str| method == "mining.submit";
    requests.filter(|it| it.connection == connection && of_shares(&it.method)).count()
}

#[test]
fn a_requested_reconnect_is_a_new_connection_at_once() {
    for resumes in [false, true] {
        let pool = ScriptedPool::start(Rules { resumes, ..Rules::default() });
        let miner = Miner::start(patient(&pool));
        for connection in 1..4 {
            miner.wait_for_shares("accepted", 3 * connection);
            miner.control().reconnect(SourceId::default()).unwrap();
            pool.wait_for_connections(connection + 1, SOON);
            pool.wait_for_accepted(pool.accepted() + 3, SOON);
        }
        let ended = miner.stop();
        audit(&pool, &ended);
        assert_eq!(ended.summary.shares.unknown, 0);
        let states: Vec<_> = ended
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Source { state, reason, .. } => Some((*state, reason.as_deref())),
                _ => None,
            })
            .collect();
        let again = [(SourceState::Lost, Some(WHY)), (SourceState::Connected, None)];
        let all = [&[(SourceState::Connected, None)][..], &again, &again, &again].concat();
        assert_eq!(states, all);
        ended.outcome.unwrap();
    }
}

#[test]
fn shares_in_flight_are_answered_before_the_connection_is_left() {
    let rules = Rules { difficulty: SOME, ..Rules::default() };
    let (pool, is_late) =
        answering(rules, vec![Say::Wait(Duration::from_millis(200)), Say::AsUsual]);
    let mut config = patient(&pool);
    config.timing.leave = SOON;
    let miner = Miner::start(config);
    miner.wait_for_shares("accepted", 1);
    is_late.store(true, Ordering::SeqCst);
    let before = submitted(&pool, 0);
    poll(SOON, || (submitted(&pool, 0) > before).then_some(())).unwrap();
    miner.control().reconnect(SourceId::default()).unwrap();
    pool.wait_for_connections(2, SOON);
    pool.wait_for_accepted(pool.accepted() + 2, SOON);
    let ended = miner.stop();
    audit(&pool, &ended);
    assert_eq!(ended.summary.shares.unknown, 0, "each answer was waited for");
}

#[test]
fn shares_that_are_not_answered_in_time_are_unknown_once() {
    let rules = Rules { difficulty: SOME, ..Rules::default() };
    let (pool, is_late) = answering(rules, Vec::new());
    let miner = Miner::start(patient(&pool));
    miner.wait_for_shares("accepted", 1);
    is_late.store(true, Ordering::SeqCst);
    let before = miner.shares("accepted").len();
    poll(SOON, || (submitted(&pool, 0) > before).then_some(())).unwrap();
    miner.control().reconnect(SourceId::default()).unwrap();
    pool.wait_for_connections(2, SOON);
    pool.wait_for_accepted(pool.accepted() + 2, SOON);
    let unanswered =
        submitted(&pool, 0) - pool.shares().iter().filter(|it| it.connection == 0).count();
    let ended = miner.stop();
    audit(&pool, &ended);
    assert_eq!(ended.summary.shares.unknown, unanswered as u64);
}

#[test]
fn a_requested_reconnect_ends_the_wait_for_the_next_attempt() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| {
        match (request.method.as_str(), request.connection) {
            ("connect", 0) => vec![Say::HangUp],
            _ => vec![Say::AsUsual],
        }
    });
    let miner = Miner::start(patient(&pool));
    miner.wait_for_source_error("it closed the connection");
    miner.control().reconnect(SourceId::default()).unwrap();
    miner.wait_for_source_error(WHY);
    miner.wait_for_shares("accepted", 2);
    assert_eq!(pool.connections(), 2);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_requested_reconnect_ends_an_attempt_under_way() {
    // Accepts connections, and never answers in TLS.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pool = ScriptedPool::start(Rules::default());
    let mut config = patient(&pool);
    config.endpoint = Endpoint { host: "127.0.0.1".into(), port };
    config.transport = Transport::new().tls().deadline(NEVER);
    let miner = Miner::start(config);
    let first = listener.accept().unwrap();
    miner.control().reconnect(SourceId::default()).unwrap();
    let second = listener.accept().unwrap();
    miner.wait_for_source_error(WHY);
    drop((first, second));
    miner.stop().outcome.unwrap();
}

#[test]
fn a_request_that_had_no_answer_yet_is_not_skipped_after_a_requested_reconnect() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| {
        match (request.method.as_str(), request.connection) {
            ("mining.configure", 0) => Vec::new(),
            _ => vec![Say::AsUsual],
        }
    });
    let mut config = patient(&pool);
    config.timing.configure = NEVER;
    let miner = Miner::start(config);
    poll(SOON, || (pool.methods(0).contains(&"mining.configure".into())).then_some(())).unwrap();
    miner.control().reconnect(SourceId::default()).unwrap();
    miner.wait_for_shares("accepted", 1);
    assert!(pool.methods(1).contains(&"mining.configure".into()), "{:?}", pool.methods(1));
    miner.stop().outcome.unwrap();
}
