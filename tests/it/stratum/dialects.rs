//! Dialects: what pools do differently.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit::event::{Event, SourceState};
use serde_json::{Value, json};

use crate::common::poll;
use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::stratum::miner::{Miner, SOON, config};

/// Mines on a pool until it has accepted some shares, and stops.
#[track_caller]
fn mine(pool: &ScriptedPool, shares: usize) -> crate::stratum::miner::Ended {
    let miner = Miner::start(config(pool));
    miner.wait_for_shares("accepted", shares);
    let ended = miner.stop();
    ended.outcome.clone().unwrap();
    assert_eq!(ended.summary.shares.rejected, 0, "{:?}", pool.shares());
    assert_eq!(pool.accepted() as u64, ended.summary.shares.accepted);
    ended
}

#[test]
fn a_pool_by_the_book() {
    let pool = ScriptedPool::start(Rules::default());
    let ended = mine(&pool, 20);
    let methods = pool.methods(0);
    assert_eq!(
        methods[..4],
        ["mining.configure", "mining.subscribe", "mining.authorize", "mining.extranonce.subscribe"]
    );
    let requests = pool.requests();
    assert_eq!(
        requests[0].params,
        json!([["version-rolling"], {
            "version-rolling.mask": "1fffe000",
            "version-rolling.min-bit-count": 2,
        }])
    );
    assert_eq!(requests[1].params, json!([concat!("adit/", env!("CARGO_PKG_VERSION"))]));
    assert_eq!(requests[2].params, json!(["alice.1", "secret"]));
    let share = &pool.shares()[0];
    assert_eq!(share.params[0], "alice.1");
    assert_eq!(share.params.as_array().unwrap().len(), 6);
    assert!(ended.events.iter().any(|event| matches!(event, Event::Started { network: None, .. })));
    let height = ended.events.iter().find_map(|event| match event {
        Event::Job { height, .. } => Some(*height),
        _ => None,
    });
    assert_eq!(height, Some(Some(201)));
}

#[test]
fn extranonces_of_every_size_and_no_branch() {
    for extranonce2 in [1, 2, 3, 4, 7, 8, 9, 16] {
        let pool = ScriptedPool::start(Rules { extranonce2, ..Rules::default() });
        // The third job of the tests' pool has no branch, those before it have one and two.
        for _ in 1..extranonce2.min(3) {
            pool.new_job(true);
        }
        mine(&pool, 3);
    }
}

#[test]
fn version_rolling_is_asked_for_and_not_had() {
    // An error, no answer, and `false`.
    let pool = ScriptedPool::start(Rules { mask: None, ..Rules::default() });
    mine(&pool, 3);
    assert_eq!(pool.shares()[0].params.as_array().unwrap().len(), 5);

    let pool = ScriptedPool::scripted(Rules { mask: None, ..Rules::default() }, |request| {
        match request.method.as_str() {
            "mining.configure" => vec![],
            _ => vec![Say::AsUsual],
        }
    });
    mine(&pool, 3);
    assert_eq!(pool.methods(0)[..2], ["mining.configure", "mining.subscribe"]);

    let pool = ScriptedPool::scripted(Rules { mask: None, ..Rules::default() }, |request| {
        match request.method.as_str() {
            "mining.configure" => vec![Say::result(request, json!({"version-rolling": false}))],
            _ => vec![Say::AsUsual],
        }
    });
    mine(&pool, 3);
}

#[test]
fn a_pool_that_hangs_up_on_what_it_does_not_know_is_asked_less() {
    let rules = Rules { mask: None, ..Rules::default() };
    let pool = ScriptedPool::scripted(rules, |request| match request.method.as_str() {
        "mining.configure" | "mining.extranonce.subscribe" => vec![Say::HangUp],
        _ => vec![Say::AsUsual],
    });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 3);
    miner.stop();
    assert_eq!(pool.methods(0), ["mining.configure"]);
    let last = pool.methods(pool.connections() - 1);
    assert_eq!(last[..2], ["mining.subscribe", "mining.authorize"]);
    assert!(!last.contains(&"mining.extranonce.subscribe".to_owned()));
}

#[test]
fn a_proxy_whose_server_restarts_costs_no_version_rolling() {
    // Once, and often enough for version rolling to be suspected and then cleared.
    for away in [1, 3] {
        let pool = ScriptedPool::scripted(Rules::default(), move |request| {
            let closed = (1..=away).contains(&request.connection);
            if closed { vec![Say::HangUp] } else { vec![Say::AsUsual] }
        });
        let miner = Miner::start(config(&pool));
        miner.wait_for_shares("accepted", 2);
        pool.hang_up();
        pool.wait_for_connections(away + 2, SOON);
        pool.wait_for_accepted(pool.accepted() + 2, SOON);
        miner.stop();
        assert_eq!(pool.methods(away + 1)[0], "mining.configure");
        assert_eq!(pool.shares().last().unwrap().params.as_array().unwrap().len(), 6);
    }
}

#[test]
fn version_rolling_that_is_lost_is_said() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.configure" if request.connection > 0 => vec![Say::HangUp],
        _ => vec![Say::AsUsual],
    });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 2);
    pool.hang_up();
    miner.wait_for_notice("no version rolling for up to 60 minutes");
    miner.wait_for_shares("accepted", 4);
    miner.stop();
    assert_eq!(pool.shares().last().unwrap().params.as_array().unwrap().len(), 5);
}

#[test]
fn what_a_pool_need_not_know_is_asked_one_at_a_time() {
    // This pool closes the connection at the second request: the first is not suspected.
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.suggest_difficulty" => vec![Say::HangUp],
        "mining.extranonce.subscribe" => vec![],
        _ => vec![Say::AsUsual],
    });
    let mut config = config(&pool);
    config.suggest_difficulty = Some("0.001".into());
    let miner = Miner::start(config);
    pool.wait_for_connections(2, SOON);
    pool.wait_for_accepted(pool.accepted() + 2, SOON);
    miner.stop();
    let methods = pool.methods(1);
    assert!(methods.contains(&"mining.extranonce.subscribe".to_owned()), "{methods:?}");
    assert!(!methods.contains(&"mining.suggest_difficulty".to_owned()), "{methods:?}");
}

#[test]
fn version_rolling_can_be_off() {
    let pool = ScriptedPool::start(Rules::default());
    let mut config = config(&pool);
    config.version_rolling = false;
    let miner = Miner::start(config);
    miner.wait_for_shares("accepted", 3);
    miner.stop();
    assert_eq!(pool.methods(0)[0], "mining.subscribe");
    assert_eq!(pool.shares()[0].params.as_array().unwrap().len(), 5);
}

#[test]
fn jobs_and_difficulty_may_come_before_the_login_and_in_any_order() {
    // Job, then difficulty, then the answer to the login; and the first job before subscribing.
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.authorize" => vec![
            Say::json(
                json!({"method": "mining.set_difficulty", "params": ["0.00000095367431640625"]}),
            ),
            Say::AsUsual,
            Say::result(request, json!(true)),
            Say::error(request, json!(false), json!([24, "again", null])),
        ],
        _ => vec![Say::AsUsual],
    });
    mine(&pool, 3);

    let notify = Arc::new(std::sync::Mutex::new(Value::Null));
    let early = notify.clone();
    let pool = ScriptedPool::scripted(Rules::default(), move |request| {
        match request.method.as_str() {
            "mining.subscribe" => {
                vec![
                    Say::json(early.lock().unwrap().clone()),
                    Say::Wait(Duration::from_millis(50)),
                    Say::AsUsual,
                ]
            }
            "mining.authorize" => vec![
                // No job again, and the difficulty only after it.
                Say::json(json!({"method": "mining.set_difficulty", "params": [2f64.powi(-20)]})),
                Say::AsUsual,
            ],
            _ => vec![Say::AsUsual],
        }
    });
    *notify.lock().unwrap() = pool.notify();
    mine(&pool, 3);
}

#[test]
fn the_first_difficulty_holds_for_the_job_at_hand_and_the_next_for_later_ones() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.authorize" | "mining.submit" => vec![Say::result(request, json!(true))],
        _ => vec![Say::AsUsual],
    });
    let miner = Miner::start(config(&pool));
    assert!(
        poll(SOON, || pool.methods(0).contains(&"mining.authorize".into()).then_some(())).is_some()
    );
    pool.say_raw(format!("{}\n", pool.notify()).as_bytes());
    miner.wait_for_difficulty(1.0);
    pool.say_raw(b"{\"method\":\"mining.set_difficulty\",\"params\":[0.015625]}\n");
    miner.wait_for_difficulty(0.015625);
    pool.say_raw(b"{\"method\":\"mining.set_difficulty\",\"params\":[64]}\n");
    pool.say_raw(b"{\"method\":\"client.get_version\",\"id\":5,\"params\":[]}\n");
    // It has been read by now, and had no effect.
    assert!(poll(SOON, || pool.methods(0).contains(&"answer".into()).then_some(())).is_some());
    assert_eq!(miner.jobs().len(), 2, "{:?}", miner.jobs());
    pool.say_raw(format!("{}\n", pool.notify()).as_bytes());
    miner.wait_for_difficulty(64.0);
    miner.stop();
}

#[test]
fn a_login_without_an_answer_is_taken_for_granted() {
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = logins.clone();
    let pool =
        ScriptedPool::scripted(Rules::default(), move |request| match request.method.as_str() {
            "mining.authorize" => {
                counted.fetch_add(1, Ordering::SeqCst);
                vec![]
            }
            "mining.submit" => vec![Say::result(request, json!(true))],
            _ => vec![Say::AsUsual],
        });
    let miner = Miner::start(config(&pool));
    assert!(poll(SOON, || (logins.load(Ordering::SeqCst) == 1).then_some(())).is_some());
    pool.say_raw(b"{\"method\":\"mining.set_difficulty\",\"params\":[0.000001]}\n");
    pool.say_raw(format!("{}\n", pool.notify()).as_bytes());
    miner.wait_for_shares("accepted", 1);
    miner.stop();
}

#[test]
fn a_refused_login_is_the_end() {
    for (result, error, said) in [
        (json!(false), Value::Null, "it rejects the worker \"alice.1\""),
        (Value::Null, json!([24, "Unauthorized worker", null]), "\"alice.1\": Unauthorized worker"),
        (json!(false), json!({"code": 24, "message": "no\u{1b}[2J"}), "\"alice.1\": no\u{fffd}[2J"),
    ] {
        let pool = ScriptedPool::scripted(Rules::default(), move |request| {
            match request.method.as_str() {
                "mining.authorize" => vec![Say::error(request, result.clone(), error.clone())],
                _ => vec![Say::AsUsual],
            }
        });
        let ended = Miner::start(config(&pool)).end();
        let error = ended.outcome.unwrap_err();
        assert_eq!(error.refused, adit::source::Refused::BySource);
        assert_eq!(
            error.to_string(),
            format!("pool {}: {said}", pool.url()).replace(": \"", ": it rejects the worker \"")
        );
        assert!(error.hint.unwrap().contains("--user"));
    }
}

#[test]
fn a_login_that_was_good_before_is_tried_again() {
    let logins = AtomicUsize::new(0);
    let pool =
        ScriptedPool::scripted(Rules::default(), move |request| match request.method.as_str() {
            "mining.authorize" if logins.fetch_add(1, Ordering::SeqCst) == 1 => {
                vec![Say::error(request, json!(false), json!("the database is away"))]
            }
            _ => vec![Say::AsUsual],
        });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 2);
    pool.hang_up();
    miner.wait_for_source_error("authorization failed, as it did not before: the database is away");
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 2);
    miner.stop();
}

#[test]
fn a_worker_that_is_unknown_share_by_share_is_the_end() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.submit" => {
            vec![Say::error(request, Value::Null, json!([24, "Unauthorized worker", null]))]
        }
        _ => vec![Say::AsUsual],
    });
    let error = Miner::start(config(&pool)).end().outcome.unwrap_err();
    assert!(error.to_string().contains("Unauthorized worker"), "{error}");
}

#[test]
fn verdicts_come_late_in_any_order_and_in_many_shapes() {
    let held = std::sync::Mutex::new(Vec::new());
    let pool = ScriptedPool::scripted(Rules::default(), move |request| {
        if request.method != "mining.submit" {
            return vec![Say::AsUsual];
        }
        let mut held = held.lock().unwrap();
        held.push(request.id.clone());
        if held.len() < 8 {
            return vec![];
        }
        let shapes = [
            json!({"result": true, "error": null}),
            json!({"result": true}),
            json!({"result": false, "error": [23, "low difficulty share", null]}),
            json!({"result": null, "error": {"code": 22, "message": "duplicate"}}),
            json!({"result": false, "error": "Above target"}),
            json!({"result": null, "error": [21, "Job not found", null]}),
            json!({"result": false, "error": null, "reject-reason": "Stale"}),
            json!({"result": false}),
        ];
        let mut lines: Vec<Say> = held
            .drain(..)
            .zip(shapes)
            .enumerate()
            .map(|(nth, (id, mut line))| {
                line["id"] = if nth % 2 == 0 { id } else { json!(id.to_string()) };
                Say::json(line)
            })
            .collect();
        lines.reverse();
        lines
    });
    let mut config = config(&pool);
    config.timing.answer = Duration::from_secs(2);
    let miner = Miner::start(config);
    for (result, count) in [("accepted", 4), ("rejected", 8), ("stale", 4)] {
        miner.wait_for_shares(result, count);
    }
    let rejected = miner.shares("rejected");
    let said: Vec<String> = rejected[..4]
        .iter()
        .map(|(_, verdict)| verdict.reject_reason().unwrap().to_string())
        .collect();
    assert_eq!(
        said,
        [
            "the pool gives no reason",
            "Above target (the hash does not meet the pool's target)",
            "duplicate (the pool has had this share before)",
            "low difficulty share (the hash does not meet the pool's target)",
        ]
    );
    miner.stop();
}

#[test]
fn a_new_extranonce_holds_for_later_jobs() {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 2);
    // The pool of the tests keeps one extranonce; so it refuses what is found with the new one.
    pool.say(&json!({"method": "mining.set_extranonce", "params": ["08aaaaaa", 4]}));
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 20);
    assert_eq!(miner.shares("rejected").len(), 0);
    pool.new_job(true);
    miner.wait_for_shares("rejected", 2);
    assert!(
        miner.shares("rejected")[0].1.reject_reason().unwrap().words.contains("Low difficulty")
    );
    miner.stop();
}

#[test]
fn a_version_mask_holds_at_once() {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 5);
    let bits = |share: &crate::common::pool::Share| {
        u32::from_str_radix(share.params[5].as_str().unwrap(), 16).unwrap()
    };
    pool.say(&json!({"method": "mining.set_version_mask", "params": ["00006000"]}));
    pool.say(&json!({"method": "client.get_version", "id": 5, "params": []}));
    assert!(poll(SOON, || pool.methods(0).contains(&"answer".into()).then_some(())).is_some());
    let before = pool.shares().len();
    pool.wait_for_accepted(before + 20, SOON);
    let shares = pool.shares();
    assert!(shares[before..].iter().all(|share| bits(share) & !0x6000 == 0));
    // Now none at all, and the sixth parameter is still there.
    pool.say(&json!({"method": "mining.set_version_mask", "params": ["00000000"]}));
    pool.new_job(true);
    let zeros = || pool.shares().iter().filter(|share| share.params[5] == "00000000").count();
    assert!(poll(SOON, || (zeros() > 40).then_some(())).is_some());
    let ended = miner.stop();
    assert_eq!(
        ended.summary.shares.rejected,
        0,
        "{:?}",
        crate::stratum::miner::shares(&ended.events, "rejected")
    );
}

#[test]
fn small_talk_is_made() {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 1);
    pool.say(&json!({"id": 7, "method": "client.get_version", "params": []}));
    pool.say(&json!({"id": "p", "method": "mining.ping", "params": []}));
    pool.say(&json!({"id": 8, "method": "mining.teapot", "params": {}}));
    pool.say(&json!({"id": null, "method": "mining.teapot"}));
    pool.say(&json!({"method": "client.show_message", "params": ["hello\u{1b}[2J\r\nerror: you"]}));
    miner.wait_for_notice("the pool says: hello\u{fffd}[2J\u{fffd}\u{fffd}error: you");
    let answers = || {
        let all = pool.requests().into_iter().filter(|request| request.method == "answer");
        all.map(|request| request.params).collect::<Vec<_>>()
    };
    assert!(poll(SOON, || (answers().len() == 3).then_some(())).is_some());
    let agent = concat!("adit/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        answers(),
        [
            json!({"id": 7, "result": agent, "error": null}),
            json!({"id": "p", "result": "pong", "error": null}),
            json!({"id": 8, "result": null, "error": [-3, "Method not found", null]}),
        ]
    );
    miner.stop();
}

#[test]
fn a_suggested_difficulty_may_be_answered_as_the_pool_likes() {
    for answer in [
        json!({"method": "mining.set_difficulty", "params": [2f64.powi(-20)]}),
        json!({"id": 5, "result": null, "error": [20, "unknown", null]}),
        Value::Null,
    ] {
        let pool = ScriptedPool::scripted(Rules::default(), move |request| {
            match request.method.as_str() {
                "mining.suggest_difficulty" => {
                    assert_eq!(request.params, json!([0.5]));
                    if answer.is_null() { vec![] } else { vec![Say::json(answer.clone())] }
                }
                _ => vec![Say::AsUsual],
            }
        });
        let mut config = config(&pool);
        config.suggest_difficulty = Some("0.5".into());
        let miner = Miner::start(config);
        miner.wait_for_shares("accepted", 2);
        miner.stop();
        assert!(pool.methods(0).contains(&"mining.suggest_difficulty".into()));
    }
}

#[test]
fn reconnecting_is_done_to_the_same_host_only() {
    let pool = ScriptedPool::start(Rules::default());
    let elsewhere = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 2);
    for (host, port) in [
        (json!("evil.example"), json!(3333)),
        (json!("localhost"), json!(elsewhere.address().port())),
        (json!("127.0.0.1"), json!(99_999)),
        (json!("127.0.0.1"), json!("x")),
    ] {
        pool.say(&json!({"id": null, "method": "client.reconnect", "params": [host, port, 0]}));
    }
    miner.wait_for_notice(
        "the pool redirects to \"evil.example\", which is not the host that you named",
    );
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 2);
    assert_eq!((pool.connections(), elsewhere.connections()), (1, 0));

    // No host at all is the same one.
    pool.say(&json!({"id": null, "method": "client.reconnect", "params": []}));
    pool.wait_for_connections(2, SOON);
    pool.wait_for_accepted(pool.accepted() + 2, SOON);
    // Another port of the same host.
    let port = elsewhere.address().port().to_string();
    pool.say(&json!({"id": null, "method": "client.reconnect", "params": ["127.0.0.1", port]}));
    elsewhere.wait_for_accepted(3, SOON);
    assert_eq!((pool.connections(), elsewhere.connections()), (2, 1));
    let ended = miner.stop();
    assert_eq!((ended.summary.shares.rejected, ended.summary.shares.unknown), (0, 0));
}

#[test]
fn a_port_that_the_pool_sent_us_to_is_not_the_end() {
    // Redirected before the login was accepted, and refused there.
    let elsewhere =
        ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
            "mining.authorize" => {
                vec![Say::error(request, json!(false), json!([24, "not here", null]))]
            }
            _ => vec![Say::AsUsual],
        });
    let port = elsewhere.address().port();
    let pool = ScriptedPool::scripted(Rules::default(), move |request| {
        match (request.method.as_str(), request.connection) {
            ("mining.authorize", 0) => {
                let params = json!(["", port]);
                vec![Say::json(json!({"method": "client.reconnect", "params": params}))]
            }
            _ => vec![Say::AsUsual],
        }
    });
    let miner = Miner::start(config(&pool));
    miner.wait_for_source_error("not here");
    miner.wait_for_shares("accepted", 2);
    assert_eq!((pool.connections(), elsewhere.connections()), (2, 1));
    miner.stop().outcome.unwrap();
}

#[test]
fn a_job_that_is_sent_again_is_carried_on() {
    let pool = ScriptedPool::start(Rules { clean: false, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    for round in 0..6 {
        let before = pool.accepted();
        pool.wait_for_accepted(before + 10, SOON);
        match round {
            0 | 3 => pool.same_job(None),
            1 => pool.same_job(Some("other")),
            2 => {
                pool.set_difficulty(-22);
                pool.same_job(Some("easier"));
            }
            _ => {
                pool.set_difficulty(-18);
                pool.same_job(Some("harder"));
            }
        }
    }
    let ended = miner.stop();
    let refused: Vec<_> = pool.shares().into_iter().filter_map(|share| share.refused).collect();
    assert_eq!(refused, Vec::<&str>::new());
    assert_eq!(ended.summary.shares.rejected + ended.summary.shares.stale, 0);
}

#[test]
fn a_session_is_taken_up_again_and_what_was_found_meanwhile_counts() {
    let pool = ScriptedPool::start(Rules { resumes: true, clean: false, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 5);
    for lost in 1..5 {
        let before = pool.accepted();
        pool.hang_up();
        pool.wait_for_connections(lost + 1, SOON);
        pool.wait_for_accepted(before + 10, SOON);
    }
    let ended = miner.stop();
    let subscribed: Vec<Value> = pool
        .requests()
        .into_iter()
        .filter(|request| request.method == "mining.subscribe")
        .map(|request| request.params[1].clone())
        .collect();
    assert_eq!(subscribed[1..], ["session0", "session0", "session0", "session0"]);
    // The same job in the same session: no share twice, none too late.
    assert_eq!(
        (ended.summary.shares.rejected, ended.summary.shares.stale),
        (0, 0),
        "{:?}",
        pool.shares()
    );
}

#[test]
fn a_pool_that_does_not_resume_is_not_given_what_was_found_before() {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    for lost in 0..4 {
        let before = pool.accepted();
        pool.wait_for_accepted(before + 5, SOON);
        pool.hang_up();
        pool.wait_for_connections(lost + 2, SOON);
    }
    let ended = miner.stop();
    assert_eq!(ended.summary.shares.rejected, 0, "{:?}", pool.shares());
    // It is asked once, and after that it is known.
    let asked = pool
        .requests()
        .into_iter()
        .filter(|request| request.params.get(1) == Some(&json!("session0")));
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_share_that_is_a_block_is_said_to_be_one() {
    let pool = ScriptedPool::start(Rules { nbits: 0x1e0f_ffff, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    // Not every share is one, wherever the share limit has settled.
    miner.wait(|event| matches!(event, Event::Block { .. }).then_some(()));
    let ended = miner.stop();
    ended.outcome.clone().unwrap();
    let blocks = ended.events.iter().filter(|event| match event {
        Event::Block { height, verdict, was_unknown, .. } => {
            assert_eq!((*height, verdict.result(), *was_unknown), (Some(201), "unknown", false));
            true
        }
        _ => false,
    });
    let blocks = blocks.count() as u64;
    assert!(blocks > 0);
    // No job has shown what became of them.
    assert_eq!((ended.summary.blocks.accepted, ended.summary.blocks.unknown), (0, blocks));
}

#[test]
fn the_connection_is_announced() {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 1);
    pool.hang_up();
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 1);
    let ended = miner.stop();
    let states: Vec<SourceState> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Source { state, source, .. } => {
                assert_eq!(*source, pool.url());
                Some(*state)
            }
            _ => None,
        })
        .collect();
    assert_eq!(states, [SourceState::Connected, SourceState::Lost, SourceState::Connected]);
}
