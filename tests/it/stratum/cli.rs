//! The real binary on a pool.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::adit::{Adit, Home};
use crate::common::pool::{Rules, Say, ScriptedPool};
use crate::common::promised;

const SOON: Duration = Duration::from_secs(60);

fn on(pool: &ScriptedPool) -> Adit {
    Adit::new(["mine", &pool.url(), "--threads", "1"])
}

#[test]
fn shares_are_lines_and_a_number_of_them_is_enough() {
    let pool = ScriptedPool::start(Rules::default());
    let exit = on(&pool).args(["--user", "alice", "--shares", "5"]).run(SOON).expect_code(0);
    let lines: Vec<&str> = exit.stdout.lines().collect();
    for line in &lines[..5] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[0], words[1], words[2].len()), ("share", "accepted", 64), "{line}");
    }
    let row = |name: &str| lines.iter().find(|line| line.starts_with(name)).copied();
    assert!(
        row("shares").unwrap().ends_with("accepted, 0 rejected, 0 stale, 0 unknown"),
        "{exit:#?}"
    );
    assert!(exit.stderr.contains(&format!("mining from {}", pool.url())));
    assert_eq!(pool.requests()[2].params, json!(["alice", "x"]));
}

#[test]
fn json_keeps_its_promise() {
    // Easier than the shares, so that each is a block wherever their pace has settled.
    let pool = ScriptedPool::start(Rules { nbits: 0x1e0f_ffff, ..Rules::default() });
    let exit = on(&pool).args(["--user", "a", "--shares", "20", "--json"]).run(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    let of =
        |name: &str| events.iter().filter(|e| e["event"] == name).cloned().collect::<Vec<Value>>();
    assert_eq!(of("started")[0]["network"], Value::Null);
    assert_eq!(of("started")[0]["source"], pool.url());
    let (shares, blocks) = (of("share"), of("block"));
    assert!(shares.len() >= 20 && !blocks.is_empty());
    for share in &shares {
        assert_eq!((&share["result"], &share["reason"]), (&json!("accepted"), &Value::Null));
        assert!(share["latency_seconds"].as_f64().is_some_and(|s| (0.0..10.0).contains(&s)));
        assert!(share["difficulty"].as_f64().is_some_and(|d| d >= 9.5e-7));
    }
    // No job has shown what became of them.
    for block in &blocks {
        assert_eq!((&block["height"], &block["result"]), (&json!(201), &json!("unknown")));
        let reason = block["reason"].as_str().expect("a reason");
        assert!(
            reason.contains("not confirmed yet: the pool has it, and its next job will show more"),
            "{reason}"
        );
    }
    let summary = &of("summary")[0];
    assert_eq!(summary["shares"]["accepted"].as_u64(), Some(pool.accepted() as u64));
}

#[test]
fn logins_come_from_where_they_may() {
    let seen = |adit: Adit, pool: &ScriptedPool| {
        adit.args(["--shares", "1"]).run(SOON).expect_code(0);
        pool.requests().into_iter().find(|r| r.method == "mining.authorize").unwrap().params
    };
    let pool = ScriptedPool::start(Rules::default());
    let url = pool.url().replace("://", "://bc1q.w%401:p%3Aw@");
    assert_eq!(seen(Adit::new(["mine", &url]), &pool), json!(["bc1q.w@1", "p:w"]));

    let pool = ScriptedPool::start(Rules::default());
    let adit = on(&pool).args(["--user", "bob"]).env("ADIT_POOL_PASSWORD", "hunter2");
    assert_eq!(seen(adit, &pool), json!(["bob", "hunter2"]));

    let pool = ScriptedPool::start(Rules::default());
    let home = Home::new();
    home.write_config(&format!(
        "source = {:?}\nuser = \"carl\"\npassword = \"filed\"\n",
        pool.url()
    ));
    assert_eq!(seen(Adit::new(["mine"]).home(&home), &pool), json!(["carl", "filed"]));

    // The command line beats the file, also where it is the URL that has the login.
    let pool = ScriptedPool::start(Rules::default());
    let url = pool.url().replace("://", "://dora@");
    assert_eq!(seen(Adit::new(["mine", &url]).home(&home), &pool), json!(["dora", "filed"]));
}

#[test]
fn two_logins_of_one_rank_are_one_too_many() {
    let exit = Adit::new(["mine", "stratum+tcp://a:b@h:1", "--user", "c"]).run(SOON).expect_code(2);
    assert_eq!(
        exit.stderr,
        "error: login to the pool: both the source's URL and user give one\n\
         hint: omit one of them\n"
    );
}

#[test]
fn a_pool_needs_a_user() {
    let exit = Adit::new(["mine", "stratum+tcp://127.0.0.1:3333"]).run(SOON).expect_code(2);
    let error = "error: login to stratum+tcp://127.0.0.1:3333: there is no user name\n\
                 hint: give --user; many pools take a pay-out address, or an address, a dot and a name\n";
    assert!(exit.stderr.ends_with(error), "{exit:#?}");
}

#[test]
fn a_refused_login_ends_with_its_code_and_no_password() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.authorize" => {
            vec![Say::error(request, json!(false), json!([24, "Unauthorized worker", null]))]
        }
        _ => vec![Say::AsUsual],
    });
    let run = on(&pool).args(["--user", "eve", "--password", "hunter2", "-vv"]);
    let exit = run.run(SOON).expect_code(4);
    let error = format!(
        "error: pool {}: it rejects the worker \"eve\": Unauthorized worker\n\
         hint: check --user and ADIT_POOL_PASSWORD; many pools take a pay-out address as the user name\n",
        pool.url()
    );
    assert!(exit.stderr.ends_with(&error), "{exit:#?}");
    assert!(!exit.stderr.contains("hunter2") && !exit.stdout.contains("hunter2"), "{exit:#?}");
}

#[test]
fn a_signal_ends_it_cleanly_and_shares_on_their_way_are_answered() {
    let pool = ScriptedPool::scripted(Rules::default(), |request| match request.method.as_str() {
        "mining.submit" => vec![Say::Wait(Duration::from_millis(10)), Say::AsUsual],
        _ => vec![Say::AsUsual],
    });
    let mut running = on(&pool).args(["--user", "a", "--json"]).start();
    running.wait_for_event(|event| event["event"] == "share", SOON);
    running.signal("INT");
    let exit = running.wait(SOON).expect_code(130);
    let summary = exit.event("summary");
    assert_eq!(summary["shares"]["accepted"].as_u64(), Some(pool.accepted() as u64), "{exit:#?}");
    assert_eq!(summary["shares"]["unknown"], 0);
}

#[test]
fn a_silent_pool_does_not_delay_the_end() {
    let pool = ScriptedPool::scripted(Rules::default(), |_| vec![]);
    let mut running = on(&pool).args(["--user", "a", "--json"]).start();
    pool.wait_for_connections(1, SOON);
    running.signal("TERM");
    let exit = running.wait(Duration::from_secs(20)).expect_code(143);
    promised::check_any(&exit.stdout);
}

#[test]
fn a_difficulty_to_suggest_is_a_number() {
    let exit = Adit::new(["mine", "--suggest-difficulty", "-1"]).run(SOON).expect_code(2);
    assert!(exit.stderr.starts_with("error: "), "{exit:#?}");
    let exit = Adit::new(["mine", "--suggest-difficulty=0"]).run(SOON).expect_code(2);
    assert_eq!(exit.stderr, "error: --suggest-difficulty \"0\": it is not above 0\n");
}
