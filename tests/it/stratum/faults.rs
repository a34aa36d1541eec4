//! Faults of pools: what no pool should do, and some do.

use std::time::{Duration, Instant};

use adit::event::Event;
use adit::source::stratum_v1::{Config, Timing};
use serde_json::{Value, json};

use crate::common::pool::{Request, Rules, Say, ScriptedPool};
use crate::stratum::miner::{Ended, Miner, SOON, config};

/// A pool that does everything as usual except for one method.
fn but(
    method: &'static str,
    say: impl Fn(&Request) -> Vec<Say> + Send + Sync + 'static,
) -> ScriptedPool {
    ScriptedPool::scripted(Rules::default(), move |request| {
        if request.method == method { say(request) } else { vec![Say::AsUsual] }
    })
}

/// A pool that does everything as usual except for one method on the first connection.
fn at_first(
    method: &'static str,
    say: impl Fn(&Request) -> Vec<Say> + Send + Sync + 'static,
) -> ScriptedPool {
    but(method, move |request| match request.connection {
        0 => say(request),
        _ => vec![Say::AsUsual],
    })
}

/// A good pool, and a miner at work on it.
fn at_work() -> (ScriptedPool, Miner) {
    let pool = ScriptedPool::start(Rules::default());
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 1);
    (pool, miner)
}

/// Mines on a pool that must be left for this reason, and that is mined again over a new connection.
#[track_caller]
fn leaves(config: Config, why: &str) -> Ended {
    let miner = Miner::start(config);
    miner.wait_for_source_error(why);
    miner.wait_for_shares("accepted", 3);
    let ended = miner.stop();
    ended.outcome.clone().unwrap();
    assert_eq!(ended.summary.shares.rejected, 0, "{why}");
    ended
}

/// Sends something to a working miner, which must continue on the same connection.
#[track_caller]
fn survives(line: &[u8], notice: &str) {
    let (pool, miner) = at_work();
    pool.say_raw(line);
    miner.wait_for_notice(notice);
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 3);
    let ended = miner.stop();
    assert_eq!(pool.connections(), 1, "{notice}");
    assert_eq!(ended.summary.shares.rejected, 0);
    ended.outcome.unwrap();
}

#[test]
fn a_line_of_garbage_is_said_and_passed_over() {
    survives(b"garbage\n", "the pool sent a line \"garbage\": it is not a JSON object");
    survives(b"\xff\xfe\x00\n", "the pool sent a line");
    survives(b"{\"id\":NaN}\n", "it is not a JSON object");
    survives(b"[1,2]\n", "it is JSON, but not an object");
}

#[test]
fn nothing_but_garbage_is_left() {
    let (pool, miner) = at_work();
    pool.say_raw(&b"lorem ipsum\n".repeat(20));
    miner.wait_for_source_error("too many unusable messages, the last: a line \"lorem ipsum\"");
    pool.wait_for_connections(2, SOON);
    miner.stop();
}

#[test]
fn a_line_without_an_end_is_not_kept() {
    let pool = at_first("connect", |_| {
        let mut piece = Vec::with_capacity(1 << 20);
        piece.resize(1 << 20, b'x');
        vec![Say::Raw(piece); 100]
    });
    let before = resident();
    let miner = Miner::start(config(&pool));
    miner.wait_for_source_error("it sent a line longer than 256 KiB");
    miner.wait_for_shares("accepted", 1);
    // The pool's own megabyte is in this process too.
    assert!(resident().saturating_sub(before) < 60 << 10, "{before} {}", resident());
    miner.stop();
}

/// This process's resident memory, in KiB.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn half_a_line_and_silence_is_left() {
    let pool = at_first("mining.subscribe", |_| vec![Say::Raw(b"{\"id\":2,\"resu".to_vec())]);
    let mut config = config(&pool);
    config.timing.subscribe = Duration::from_millis(300);
    leaves(config, "it does not answer mining.subscribe");
}

#[test]
fn bytes_that_drip_are_no_sign_of_life() {
    let pool = at_first("mining.submit", |_| {
        let drip = [Say::Raw(b" ".to_vec()), Say::Wait(Duration::from_millis(50))];
        (0..40).flat_map(|_| drip.clone()).collect()
    });
    let mut config = config(&pool);
    config.timing.silence = Duration::from_millis(500);
    config.timing.answer = Duration::from_secs(100);
    let ended = leaves(config, "it has said nothing for 0 s");
    assert!(ended.summary.shares.unknown > 0);
}

#[test]
fn a_pool_that_is_silent_from_some_point_on_is_left() {
    for (method, said) in [
        ("mining.subscribe", "it does not answer mining.subscribe"),
        ("mining.authorize", "it sends no job"),
    ] {
        let pool = at_first(method, |_| vec![]);
        let mut config = config(&pool);
        config.timing = Timing {
            subscribe: Duration::from_millis(300),
            first_job: Duration::from_millis(300),
            ..config.timing
        };
        leaves(config, said);
    }
}

#[test]
fn shares_that_are_never_answered_are_unknown() {
    // It keeps sending jobs, so the connection is kept.
    let pool = but("mining.submit", |_| vec![]);
    let mut config = config(&pool);
    config.timing.answer = Duration::from_millis(300);
    let miner = Miner::start(config);
    let begun = Instant::now();
    while miner.shares("unknown").len() < 20 {
        assert!(begun.elapsed() < SOON);
        pool.new_job(true);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, verdict) = &miner.shares("unknown")[0];
    assert_eq!(verdict.reject_reason().unwrap().to_string(), "the pool did not answer in time");
    assert_eq!(pool.connections(), 1);
    miner.stop();

    // It sends nothing any more.
    let pool = at_first("mining.submit", |_| vec![]);
    let mut config = self::config(&pool);
    config.timing.answer = Duration::from_millis(300);
    leaves(config, "it has not answered, nor sent anything else");
}

#[test]
fn a_pool_that_takes_nothing_is_left() {
    let pool = at_first("mining.submit", |_| vec![Say::Wait(Duration::from_secs(30))]);
    let mut config = config(&pool);
    config.timing.write = Duration::from_millis(500);
    // A name that soon fills the buffers of both sides.
    config.user = "x".repeat(60_000);
    let ended = leaves(config, "it does not read what is sent");
    assert!(ended.summary.shares.unknown > 0);
}

#[test]
fn extranonces_without_room_are_refused() {
    for (size, said) in [
        (json!(0), "its extranonce2 has 0 bytes, where 1 to 16 are supported"),
        (json!(64), "its extranonce2 has 64 bytes, where 1 to 16 are supported"),
        (json!(-4), "its extranonce2's size is not a whole number"),
        (Value::Null, "its extranonce2's size is not a whole number"),
    ] {
        let given = size.clone();
        let pool = at_first("mining.subscribe", move |request| {
            vec![Say::result(request, json!([[], "f000000f", given]))]
        });
        leaves(config(&pool), said);

        // The same in the middle of things.
        let (pool, miner) = at_work();
        pool.say(&json!({"method": "mining.set_extranonce", "params": ["f000000f", size]}));
        miner.wait_for_source_error(said);
        let before = pool.accepted();
        pool.wait_for_accepted(before + 3, SOON);
        assert_eq!((pool.connections(), miner.stop().summary.shares.rejected), (2, 0));
    }
}

#[test]
fn a_subscription_that_is_none_is_tried_again() {
    for (answer, said) in [
        (json!({"result": null, "error": [20, "go away", null]}), "subscription failed: go away"),
        (json!({"result": true, "error": null}), "subscription failed: it gives no extranonce"),
        (json!({"result": [[], 5, 4]}), "its extranonce1 is not hex"),
    ] {
        let pool = at_first("mining.subscribe", move |request| {
            let mut answer = answer.clone();
            answer["id"] = request.id.clone();
            vec![Say::json(answer)]
        });
        leaves(config(&pool), said);
    }
}

#[test]
fn difficulties_that_are_none_are_said_and_passed_over() {
    for (value, said) in [
        ("0", "the pool set the difficulty to 0: it is not above 0; it stays at 9.537e-7"),
        ("-1", "the pool set the difficulty to -1: it is not above 0"),
        ("1e300", "the pool set the difficulty to 1e300: no hash can meet it"),
        ("\"NaN\"", "the pool set the difficulty to \"NaN\": it is not a number"),
        ("null", "the pool set the difficulty to null: it is not a number"),
        ("[]", "the pool set the difficulty to []: it is not a number"),
    ] {
        survives(
            format!("{{\"method\":\"mining.set_difficulty\",\"params\":[{value}]}}\n").as_bytes(),
            said,
        );
    }
    survives(b"{\"method\":\"mining.set_difficulty\"}\n", "the pool set the difficulty to nothing");
    survives(
        b"{\"method\":\"mining.set_difficulty\",\"params\":[NaN]}\n",
        "it is not a JSON object",
    );
}

#[test]
fn jobs_that_are_none_are_said_and_passed_over() {
    let pool = ScriptedPool::start(Rules::default());
    let good = pool.notify();
    let with = |index: usize, value: Value| {
        let mut line = good.clone();
        line["params"][index] = value;
        format!("{line}\n").into_bytes()
    };
    for (index, value, said) in [
        (0, Value::Null, "its job id is not a string"),
        (1, json!("00"), "its previous block hash is not 64 hex digits"),
        (2, json!("not hex"), "its coinbase's first part is not hex"),
        (3, json!("abc"), "its coinbase's second part is not hex"),
        (4, json!(["00"]), "its merkle branch is not a list of 64 hex digits each"),
        (6, json!("00000000"), "nBits 00000000 is zero"),
        (6, json!("ff123456"), "nBits ff123456 overflows 256 bits"),
        (7, json!(12), "its nTime is not 8 hex digits"),
        (8, json!("perhaps"), "its clean flag is not true or false"),
    ] {
        survives(&with(index, value), said);
    }
    survives(
        b"{\"method\":\"mining.notify\",\"params\":[]}\n",
        "it has 0 parameters instead of 8 or 9",
    );
    survives(
        b"{\"method\":\"mining.set_version_mask\",\"params\":[\"xyz\"]}\n",
        "an invalid version mask",
    );
}

#[test]
fn an_id_that_is_used_twice_is_not_mistaken() {
    // A job's shares must not be sent once its id means another job, here one with another nTime.
    let pool = ScriptedPool::start(Rules { clean: false, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    let first = pool.notify();
    let ntime = u32::from_str_radix(first["params"][7].as_str().unwrap(), 16).unwrap();
    for number in 1..=20 {
        let before = pool.accepted();
        pool.wait_for_accepted(before + 3, SOON);
        let mut line = first.clone();
        line["params"][7] = json!(format!("{:08x}", ntime + number));
        line["params"][8] = json!(false);
        pool.say(&line);
    }
    assert_eq!(miner.stop().summary.shares.rejected, 0);
    let sent: Vec<_> = pool.shares().into_iter().map(|share| share.params[3].to_string()).collect();
    assert!(sent.is_sorted(), "{sent:?}");
    assert!(sent.last().unwrap() > sent.first().unwrap(), "{sent:?}");
}

#[test]
fn answers_to_nothing_are_passed_over() {
    let (pool, miner) = at_work();
    for line in [
        json!({"id": 123_456, "result": true, "error": null}),
        json!({"id": null, "result": true, "error": null}),
        json!({"id": -1, "result": true}),
        json!({"id": {"a": 1}, "error": [1]}),
        // What was answered long ago.
        json!({"id": 1, "result": {"version-rolling": false}}),
        json!({"id": 2, "result": [[], "00", 0]}),
        json!({"id": 3, "result": false, "error": [24, "no", null]}),
        json!({}),
    ] {
        pool.say(&line);
    }
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 5);
    assert_eq!(pool.connections(), 1);
    miner.stop();
}

#[test]
fn a_connection_may_end_at_every_step() {
    for (step, said) in [
        ("connect", "it closed the connection at mining.configure"),
        ("mining.configure", "it closed the connection at mining.configure"),
        ("mining.subscribe", "it closed the connection at mining.subscribe"),
        ("mining.authorize", "it closed the connection at mining.authorize"),
        ("mining.extranonce.subscribe", "it closed the connection"),
        ("mining.submit", "it closed the connection"),
    ] {
        // Once, and three times.
        for times in [1, 3] {
            let pool = but(step, move |request| {
                if request.connection < times { vec![Say::HangUp] } else { vec![Say::AsUsual] }
            });
            leaves(config(&pool), said);
        }
    }
}

#[test]
fn a_storm_of_reconnects_is_not_joined() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.authorize" => vec![
            Say::AsUsual,
            Say::json(json!({"id": null, "method": "client.reconnect", "params": []})),
        ],
        _ => vec![Say::AsUsual],
    });
    let mut config = config(&pool);
    config.timing.backoff = (Duration::from_millis(100), Duration::from_secs(60));
    let begun = Instant::now();
    let miner = Miner::start(config);
    pool.wait_for_connections(5, SOON);
    // 100, 200, 400 and 800 ms, each but for a half.
    assert!(begun.elapsed() > Duration::from_millis(700), "{:?}", begun.elapsed());
    miner.stop();
}

#[test]
fn a_slow_pool_is_waited_for() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| {
        let pause = if request.method == "mining.submit" { 5 } else { 300 };
        vec![Say::Wait(Duration::from_millis(pause)), Say::AsUsual]
    });
    let mut config = config(&pool);
    config.timing.configure = Duration::from_secs(5);
    config.timing.authorize = Duration::from_secs(5);
    let miner = Miner::start(config);
    miner.wait_for_shares("accepted", 3);
    assert_eq!(pool.connections(), 1);
    let ended = miner.stop();
    assert_eq!(ended.summary.shares.rejected, 0);
    assert!(pool.shares().iter().all(|share| share.params.as_array().unwrap().len() == 6));
}

#[test]
fn a_pool_that_is_not_there_yet_is_waited_for() {
    let pool = ScriptedPool::start(Rules::default());
    let mut config = config(&pool);
    // A port at which nothing listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.endpoint.port = listener.local_addr().unwrap().port();
    drop(listener);
    let miner = Miner::start(config);
    miner.wait_for_source_error("refused");
    let ended = miner.stop();
    ended.outcome.unwrap();
}

#[test]
fn what_is_no_pool_is_named() {
    let pool = but("connect", |_| {
        vec![Say::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Say::HangUp]
    });
    let miner = Miner::start(config(&pool));
    miner.wait_for_source_error("it answers in HTTP, not in Stratum");
    miner.stop();

    // Alerts: a record could not be read, and a message was not expected (10, the end of a line).
    for alert in [50, 10] {
        let bytes = vec![0x15, 3, 3, 0, 2, 2, alert];
        let pool = but("connect", move |_| vec![Say::Raw(bytes.clone()), Say::HangUp]);
        let miner = Miner::start(config(&pool));
        miner.wait_for_source_error("it answers in TLS: write stratum+tls:// to it");
        miner.stop();
    }
}

#[test]
fn a_difficulty_that_floods_is_borne() {
    let rules = Rules { difficulty: -40, ..Rules::default() };
    let pool = ScriptedPool::start(rules);
    let miner = Miner::start(config(&pool));
    miner.wait_for_notice("so low that shares would come by the thousand");
    miner.wait_for_shares("accepted", 300);
    let begun = Instant::now();
    let before = pool.accepted();
    pool.wait_for_accepted(before + 300, SOON);
    let ended = miner.stop();
    let rate = (pool.accepted() - before) as f64 / begun.elapsed().as_secs_f64();
    assert!(rate < 5_000.0, "{rate}");
    assert_eq!(ended.summary.shares.rejected, 0);
    assert_eq!(pool.accepted() as u64, ended.summary.shares.accepted);
}

#[test]
fn a_flood_of_jobs_is_borne() {
    let pool = ScriptedPool::start(Rules { clean: false, ..Rules::default() });
    let miner = Miner::start(config(&pool));
    miner.wait_for_shares("accepted", 1);
    let mut line = pool.notify();
    for number in 0..20_000u32 {
        line["params"][0] = json!(format!("f{number}"));
        line["params"][7] = json!(format!("{:08x}", 1_700_000_000 + number));
        pool.say(&line);
    }
    // It has handled all of them, and works on the next job.
    pool.new_job(true);
    let id = pool.notify()["params"][0].clone();
    let last = || pool.shares().iter().filter(|share| share.params[1] == id).count();
    assert!(crate::common::poll(SOON, || (last() > 3).then_some(())).is_some());
    assert_eq!(pool.connections(), 1);
    miner.stop();
}

#[test]
fn a_pool_that_talks_too_much_is_cut_short() {
    let (pool, miner) = at_work();
    for number in 0..1_000 {
        let text = format!("buy now, {number}");
        pool.say(&json!({"method": "client.show_message", "params": [text]}));
    }
    pool.say(&json!({"id": 1, "method": "mining.ping", "params": []}));
    let answered = || pool.methods(0).contains(&"answer".to_owned());
    assert!(crate::common::poll(SOON, || answered().then_some(())).is_some());
    let notices =
        miner.events().into_iter().filter(|event| matches!(event, Event::Notice(_))).count();
    assert!((1..60).contains(&notices), "{notices}");
    miner.stop();
}

#[test]
fn a_flood_of_questions_is_not_answered_without_end() {
    let (pool, miner) = at_work();
    for number in 0..10_000 {
        pool.say(&json!({"id": number, "method": "mining.ping", "params": []}));
    }
    let before = miner.shares("accepted").len();
    miner.wait_for_shares("accepted", before + 3);
    miner.stop();
}

#[test]
fn lines_with_anything_wrong_in_them_do_no_harm() {
    let (pool, miner) = at_work();
    let good: Vec<String> = [
        pool.notify(),
        json!({"id": null, "method": "mining.set_difficulty", "params": [0.000_25]}),
        json!({"id": null, "method": "mining.set_extranonce", "params": ["0badcafe", 4]}),
        json!({"id": null, "method": "mining.set_version_mask", "params": ["00ffe000"]}),
        json!({"id": null, "method": "client.show_message", "params": ["hello"]}),
        json!({"id": 4, "result": true, "error": null}),
        json!({"id": 5, "result": null, "error": [23, "Low difficulty share", null]}),
        json!({"id": 6, "method": "client.get_version", "params": []}),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    let values =
        ["null", "-1", "1e400", "[[[]]]", "{\"a\":{}}", "\"\\u0000\"", "\"00\"", "true", ""];
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..3_000 {
        let mut line = good[random.usize(0..good.len())].clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..line.len());
            match random.u32(0..4) {
                0 => line[at] = random.u8(..),
                1 => drop(line.remove(at)),
                2 => line.truncate(at.max(1)),
                // Something else from here to the next comma.
                _ => {
                    let rest = &line[at..];
                    let end = at + rest.iter().position(|b| *b == b',').unwrap_or(rest.len());
                    line.splice(at..end, values[random.usize(0..values.len())].bytes());
                }
            }
            if line.is_empty() {
                line.push(b' ');
            }
        }
        line.push(b'\n');
        pool.say_raw(&line);
    }
    // Whatever its state is now, a new connection resets it.
    pool.hang_up();
    let before = pool.accepted();
    pool.wait_for_accepted(before + 3, SOON);
    miner.stop().outcome.unwrap();
}
