//! Pools that refuse what they need not, forget, or take their time: mining goes on, there or elsewhere.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit::event::{Event, SourceState};
use adit::source::Refused;
use adit::source::net::{CaFile, Transport};
use adit::source::stratum_v1::Config;
use serde_json::{Value, json};

use crate::common::poll;
use crate::common::pool::{Request, Rules, Say, ScriptedPool};
use crate::common::stunnel::Stunnel;
use crate::stratum::miner::{Miner, SOON, config};

/// Everything as usual, but for one method.
fn but(
    method: &'static str,
    say: impl Fn(&Request) -> Vec<Say> + Send + Sync + 'static,
) -> ScriptedPool {
    ScriptedPool::scripted(Rules::default(), move |request| {
        if request.method == method { say(request) } else { vec![Say::AsUsual] }
    })
}

fn unknown(request: &Request) -> Say {
    Say::error(request, Value::Null, json!([-3, "Method not found", null]))
}

#[test]
fn an_optional_request_that_is_refused_before_the_pool_hangs_up_is_left_out() {
    let pause = Say::Wait(Duration::from_millis(100));
    for method in ["mining.configure", "mining.extranonce.subscribe", "mining.suggest_difficulty"] {
        for (refusal, pause) in [
            (json!({"result": null, "error": [-3, "Method not found", null]}), None),
            (json!({"result": false, "error": null}), Some(pause.clone())),
        ] {
            let pool = but(method, move |request| {
                let mut refusal = refusal.clone();
                refusal["id"] = request.id.clone();
                [Some(Say::json(refusal)), pause.clone(), Some(Say::HangUp)]
                    .into_iter()
                    .flatten()
                    .collect()
            });
            let mut config = config(&pool);
            config.suggest_difficulty = Some("0.25".into());
            let miner = Miner::start(config);
            miner.wait_for_shares("accepted", 3);
            let last = pool.connections() - 1;
            assert!(!pool.methods(last).contains(&method.to_owned()), "{:?}", pool.methods(last));
            assert!(last <= 3, "{method}: {last}");
            miner.stop().outcome.unwrap();
        }
    }
}

#[test]
fn an_optional_request_that_is_refused_before_the_pool_falls_silent_is_left_out() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| {
        match (request.connection, request.method.as_str()) {
            (0, "mining.configure") => vec![unknown(request)],
            (0, _) => vec![],
            _ => vec![Say::AsUsual],
        }
    });
    let mut config = config(&pool);
    config.timing.subscribe = Duration::from_millis(300);
    let miner = Miner::start(config);
    miner.wait_for_shares("accepted", 1);
    assert!(!pool.methods(1).contains(&"mining.configure".to_owned()), "{:?}", pool.methods(1));
    miner.stop().outcome.unwrap();
}

const WHY: &str = "it refuses every share, the last with: Low difficulty share";

/// A pool that refuses every share as long as the flag says so.
fn refusing() -> (ScriptedPool, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let flag = refuses.clone();
    let pool = but("mining.submit", move |request| {
        if flag.load(Ordering::SeqCst) {
            let error = json!([23, "Low difficulty share", null]);
            return vec![Say::error(request, Value::Null, error)];
        }
        vec![Say::AsUsual]
    });
    (pool, refuses)
}

fn impatient(pool: &ScriptedPool, fault_cooldown: Duration) -> Config {
    let mut config = config(pool);
    config.timing.refused = (16, Duration::from_millis(200));
    config.timing.fault_cooldown = fault_cooldown;
    config
}

/// What was said of a source: its state and the reason.
fn said(miner: &Miner, of: &str) -> Vec<(SourceState, String)> {
    let said = |event| match event {
        Event::Source { state, source, reason, .. } if source == of => {
            Some((state, reason.unwrap_or_default()))
        }
        _ => None,
    };
    miner.events().into_iter().filter_map(said).collect()
}

#[test]
fn a_pool_that_refuses_every_share_is_said_and_mined_on_where_there_is_no_other() {
    let (pool, refuses) = refusing();
    let miner = Miner::start(impatient(&pool, Duration::from_secs(3600)));
    miner.wait_for_trouble(WHY);
    // Connected to again and again, and given shares; that is not said each time, nor is it well.
    pool.wait_for_connections(5, SOON);
    let said_of_it = said(&miner, &pool.url());
    let warnings = said_of_it.iter().filter(|(_, why)| why.starts_with(WHY)).count();
    assert!(warnings <= 2, "{said_of_it:?}");
    let connected = said_of_it.iter().filter(|(state, _)| *state == SourceState::Connected);
    assert_eq!(connected.count(), 1, "{said_of_it:?}");
    refuses.store(false, Ordering::SeqCst);
    miner.wait_for_shares("accepted", 1);
    assert_eq!(said(&miner, &pool.url()).last().unwrap().0, SourceState::Connected);
    miner.stop().outcome.unwrap();
}

#[test]
fn the_next_pool_is_mined_instead_of_one_that_refuses_every_share_until_it_is_tried_again() {
    let (first, refuses) = refusing();
    let good = ScriptedPool::start(Rules::default());
    let miner = Miner::start_on(vec![impatient(&first, Duration::from_secs(3)), config(&good)]);
    good.wait_for_accepted(3, SOON);
    assert!(said(&miner, &first.url()).iter().any(|(_, why)| why.starts_with(WHY)));
    refuses.store(false, Ordering::SeqCst);
    let tried_again = poll(SOON, || {
        first.new_job(false);
        std::thread::sleep(Duration::from_millis(20));
        (first.accepted() >= 3).then_some(())
    });
    assert!(tried_again.is_some());
    miner.wait(|event| match event {
        Event::Source { source, reason: Some(why), .. } => {
            (*source == first.url() && why.contains("healthy again")).then_some(())
        }
        _ => None,
    });
    miner.stop().outcome.unwrap();
}

#[test]
fn a_pool_that_refuses_all_after_changing_the_extranonce_is_not_asked_for_that_again() {
    // It does not itself go by what it says.
    let pool = but("mining.extranonce.subscribe", |request| {
        let params = json!(["0badcafe", 4]);
        let line = json!({"id": null, "method": "mining.set_extranonce", "params": params});
        vec![Say::result(request, json!(true)), Say::json(line)]
    });
    let miner = Miner::start(impatient(&pool, Duration::from_secs(3600)));
    let accepted_on_another = poll(SOON, || {
        pool.new_job(true);
        std::thread::sleep(Duration::from_millis(200));
        let shares = pool.shares();
        shares.iter().any(|share| share.connection > 0 && share.refused.is_none()).then_some(())
    });
    assert!(accepted_on_another.is_some(), "{:?}", pool.requests());
    miner.wait_for_trouble(WHY);
    let last = pool.methods(pool.connections() - 1);
    assert!(!last.contains(&"mining.extranonce.subscribe".to_owned()), "{last:?}");
    miner.stop().outcome.unwrap();
}

/// A pool that refuses the login on so many connections, with this error.
fn locked(connections: usize, error: Value) -> ScriptedPool {
    but("mining.authorize", move |request| {
        if request.connection < connections {
            return vec![Say::error(request, json!(false), error.clone())];
        }
        vec![Say::AsUsual]
    })
}

#[test]
fn a_login_that_is_refused_for_a_passing_reason_is_tried_again() {
    let words = "Internal error: database is starting up, try again";
    let pool = locked(3, json!([20, words, null]));
    let miner = Miner::start(config(&pool));
    miner.wait_for_trouble(&format!("it does not let us log in: {words}"));
    miner.wait_for_shares("accepted", 3);
    assert_eq!(pool.connections(), 4);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_login_that_stays_refused_is_the_end_and_final_words_are_so_at_once() {
    for (error, tries) in [
        (json!([20, "Server is busy", null]), 8),
        (json!([20, "Other/Unknown", null]), 8),
        (json!([20, "Invalid address", null]), 1),
        (json!([24, "Unauthorized worker", null]), 1),
    ] {
        let pool = locked(usize::MAX, error.clone());
        let ended = Miner::start(config(&pool)).end();
        let refusal = ended.outcome.unwrap_err();
        assert_eq!(refusal.refused, Refused::BySource);
        assert!(refusal.why.contains(error[1].as_str().unwrap()), "{refusal}");
        assert_eq!(pool.connections(), tries, "{error}");
    }
}

#[test]
fn a_refused_login_does_not_end_the_run_where_another_pool_works() {
    for error in [json!([24, "Unauthorized worker", null]), json!([20, "Server is busy", null])] {
        let (locked, good) = (locked(usize::MAX, error), ScriptedPool::start(Rules::default()));
        let miner = Miner::start_on(vec![config(&locked), config(&good)]);
        good.wait_for_accepted(3, SOON);
        miner.stop().outcome.unwrap();
    }
}

#[test]
fn a_pool_that_has_forgotten_the_jobs_gets_one_share_of_them_and_is_not_resumed_again() {
    let rules = Rules { resumes: true, ..Rules::default() };
    let pool = ScriptedPool::scripted(rules, |request| {
        match (request.connection, request.method.as_str()) {
            // In this time shares are found for the job from before.
            (1, "mining.subscribe") => vec![Say::Wait(Duration::from_secs(3)), Say::AsUsual],
            _ => vec![Say::AsUsual],
        }
    });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 3);
    pool.hang_up();
    pool.new_job(true);
    pool.wait_for_connections(2, SOON);
    let before = pool.accepted();
    pool.wait_for_accepted(before + 3, SOON);
    let forgotten =
        || pool.shares().iter().filter(|share| share.refused == Some("Job not found")).count();
    assert!(forgotten() <= 1, "{:?}", pool.shares());
    let was_asked = forgotten() == 1;
    pool.hang_up();
    pool.wait_for_connections(3, SOON);
    let before = pool.accepted();
    pool.wait_for_accepted(before + 1, SOON);
    let subscribed = pool.requests().into_iter().filter(|r| r.method == "mining.subscribe");
    let asked: Vec<bool> = subscribed.map(|request| request.params.get(1).is_some()).collect();
    assert_eq!(asked[..2], [false, true]);
    assert_eq!(asked[2], !was_asked);
    assert_eq!(miner.stop().summary.shares.rejected, 0);
}

#[test]
fn a_slow_subscription_is_waited_for_longer_each_time() {
    let pool = but("mining.subscribe", |_| vec![Say::Wait(Duration::from_secs(1)), Say::AsUsual]);
    let mut config = config(&pool);
    config.timing.subscribe = Duration::from_millis(400);
    let miner = Miner::start(config);
    miner.wait_for_shares("accepted", 3);
    assert!(pool.connections() > 1);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_tls_port_is_suspected_where_nothing_at_all_comes_back() {
    let hint = "if this is a TLS port, write stratum+tls:// to it";
    for say in [vec![], vec![Say::HangUp]] {
        let pool = ScriptedPool::scripted(Rules::default(), move |_| say.clone());
        let mut config = config(&pool);
        config.timing.subscribe = Duration::from_millis(300);
        let miner = Miner::start(config);
        miner.wait_for_trouble(hint);
        miner.stop().outcome.unwrap();
    }
    // A server that does answer is not suspected.
    let pool = but("mining.subscribe", |_| vec![Say::HangUp]);
    let miner = Miner::start(config(&pool));
    let said = miner.wait_for_trouble("it closed the connection at mining.subscribe");
    assert!(!said.contains("TLS"), "{said}");
    miner.stop().outcome.unwrap();
}

#[test]
fn a_real_tls_port_that_is_spoken_to_without_tls_is_named() {
    let pool = ScriptedPool::start(Rules::default());
    let tls = Stunnel::start(pool.address());
    let mut config = config(&pool);
    config.endpoint.port = tls.address().port();
    let miner = Miner::start(config);
    miner.wait_for_trouble("stratum+tls://");
    miner.stop().outcome.unwrap();
}

/// In front of a server: the first connections get an answer that is no TLS, the others get through.
fn garbling(server: SocketAddr, connections: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(mut client) = client else { continue };
            if number < connections {
                let mut hello = [0; 512];
                let _ = client.read(&mut hello);
                let _ = client.write_all(b"\x16\x03\x03\x00\x05garbled, every byte of it");
                continue;
            }
            let Ok(mut server) = TcpStream::connect(server) else { continue };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    address
}

#[test]
fn a_first_tls_handshake_that_is_garbled_is_tried_again_but_not_without_end() {
    let pool = ScriptedPool::start(Rules::default());
    let tls = Stunnel::start(pool.address());
    let on = |garbled: usize| {
        let mut config = config(&pool);
        config.endpoint.host = "localhost".into();
        config.endpoint.port = garbling(tls.address(), garbled).port();
        config.transport = Transport::new().tls().trust(CaFile::read(tls.ca()).unwrap());
        Miner::start(config)
    };
    let miner = on(1);
    miner.wait_for_shares("accepted", 1);
    miner.stop().outcome.unwrap();
    let refusal = on(usize::MAX).end().outcome.unwrap_err();
    assert_eq!(refusal.refused, Refused::BySource);
    assert!(refusal.hint.is_some(), "{refusal}");
}
