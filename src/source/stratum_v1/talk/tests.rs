//! A connection without a stream and without a clock: lines in, jobs and the end out.

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, block};
use serde_json::{Value, json};

use super::super::habits::DifficultyHolds;
use super::super::session::Trust;
use super::super::{Config, Timing, difficulty};
use super::*;
use crate::chain::coinbase::Coinbase;
use crate::chain::version::VersionMask;
use crate::engine::{Engine, Goal, Sources};
use crate::event::{Announcer, Event, Listener};
use crate::job::{Job, JobKey, MerkleRoot, Solution, SourceId, TimeRange};
use crate::secret::Secret;
use crate::source::net::{Endpoint, Transport};

/// A session at an engine that hashes nothing.
struct Bench {
    _engine: Engine,
    sources: Sources,
    events: Listener,
    session: Session,
}

impl Bench {
    fn new(timing: Timing) -> Self {
        let (announcer, events) = Announcer::new();
        let names = vec!["pool".to_owned()];
        let (engine, sources) =
            Engine::with_sources(Vec::new(), names, Goal::default(), announcer).unwrap();
        let config = Config {
            endpoint: Endpoint { host: "127.0.0.1".into(), port: 3333, tls: false },
            transport: Transport::new(),
            user: "alice".into(),
            password: Secret::from("x".to_owned()),
            version_rolling: true,
            suggest_difficulty: None,
            habits: None,
            timing,
        };
        let session = Session::new(config, "pool".into(), sources.open(SourceId(0)));
        Self { _engine: engine, sources, events, session }
    }

    /// How many jobs were begun since this was last asked.
    fn jobs(&self) -> usize {
        self.events.try_iter().filter(|told| matches!(told.event, Event::Job { .. })).count()
    }
}

impl Talk<'_> {
    fn hear(&mut self, line: &Value) -> Result<(), End> {
        self.lines.room().extend_from_slice(format!("{line}\n").as_bytes());
        self.received = Instant::now();
        self.take_lines()
    }

    /// Up to the login, with no job and no difficulty yet.
    fn log_in(&mut self, subscriptions: &Value) {
        self.greet();
        for result in [
            json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}),
            json!([subscriptions, "08000000", 4]),
            json!(true),
        ] {
            let (id, ..) = *self.asked.last().unwrap();
            assert!(self.hear(&json!({"id": id, "result": result, "error": null})).is_ok());
        }
        assert_eq!(self.stage, Stage::Mining);
    }
}

fn call(method: &str, params: &Value) -> Value {
    json!({"id": null, "method": method, "params": params})
}

fn notify(id: &str) -> Value {
    let zeros = "00".repeat(32);
    let params = json!([id, zeros, "01", "02", [], "20000000", "1d00ffff", "65000000", true]);
    call("mining.notify", &params)
}

/// Something found for a job.
fn solution(key: JobKey) -> Solution {
    let job = Job {
        key,
        version: 0x2000_0000,
        version_mask: VersionMask::new(0),
        previous_block_hash: BlockHash::all_zeros(),
        height: None,
        nbits: CompactTarget::from_consensus(0x1d00_ffff),
        ntime: TimeRange { first: 0, ahead: 0 },
        merkle_root: MerkleRoot::Rolled(Coinbase {
            prefix: vec![1],
            fixed_extranonce: vec![8, 0, 0, 0],
            extranonce_len: 4,
            suffix: vec![2],
            merkle_branch: Vec::new(),
        }),
        share_target: Target::DIFFICULTY_1,
        network_target: Target::DIFFICULTY_1,
        clean: true,
        ends_when_solved: false,
        body: None,
        received: Instant::now(),
    };
    let header = block::Header {
        version: block::Version::from_consensus(0x2000_0000),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: job.nbits,
        nonce: 0,
    };
    let hash = header.block_hash();
    Solution { id: 0, job: Arc::new(job), extranonce: 0, header, hash, found: Instant::now() }
}

#[test]
fn nothing_is_begun_where_the_pool_wants_us_to_connect_anew() {
    let late_mask = json!({"version-rolling": true, "version-rolling.mask": "00006000"});
    for line in [
        call("mining.set_version_mask", &json!(["00006000"])),
        call("mining.set_difficulty", &json!([0.5])),
        notify("b"),
        json!({"id": 77, "result": late_mask, "error": null}),
    ] {
        let mut bench = Bench::new(Timing::default());
        let mut talk = Talk::new(&mut bench.session);
        talk.log_in(&json!([]));
        assert!(talk.hear(&notify("a")).is_ok());
        talk.asked.push((77, Ask::Configure, Instant::now()));
        assert!(talk.hear(&call("client.reconnect", &json!([]))).is_ok());
        assert!(talk.hear(&line).is_ok());
        talk.repaced();
        assert_eq!(bench.jobs(), 1, "{line}");
        assert!(!bench.sources.health()[0].is_ready, "{line}: its job was withdrawn");
    }
}

#[test]
fn a_session_that_may_be_resumed_is_not_begun_anew_while_it_is_left() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!(["mining.notify", "session"]));
    assert!(talk.hear(&notify("a")).is_ok());
    assert!(talk.hear(&call("client.reconnect", &json!([]))).is_ok());
    assert!(talk.hear(&call("mining.set_difficulty", &json!([0.5]))).is_ok());
    assert_eq!(bench.jobs(), 1);
    assert!(bench.sources.health()[0].is_ready, "what is found for its job may still count");
}

/// Shares that the pool takes, and their answers that never come in time; all else is heard of it.
struct Unanswered<'a> {
    talk: Talk<'a>,
    begun: Instant,
    /// Counts the session's connections, from 1.
    number: u64,
}

impl<'a> Unanswered<'a> {
    fn on(bench: &'a mut Bench, number: u64) -> Self {
        let mut talk = Talk::new(&mut bench.session);
        talk.log_in(&json!([]));
        assert!(talk.hear(&notify("a")).is_ok());
        Self { talk, begun: Instant::now(), number }
    }

    /// Sends so many shares; gives the last one's number.
    fn send(&mut self, shares: u32) -> u64 {
        // One job a session, and one session a connection.
        let number = self.number;
        for _ in 0..shares {
            self.talk.take_solution(solution(JobKey { connection: number, number }));
        }
        self.talk.next_id - 1
    }

    /// What happens so many seconds after the beginning, where the pool has taken all and sent
    /// something of no weight.
    fn at(&mut self, seconds: u64) -> Result<(), End> {
        let now = self.begun + Duration::from_secs(seconds);
        self.talk.heard = now;
        (self.talk.stuck, self.talk.out) = (None, BytesMut::new());
        self.talk.on_time(now)
    }
}

#[test]
fn a_pool_that_answers_no_share_is_left() {
    let mut bench = Bench::new(Timing::default());
    let mut shares = Unanswered::on(&mut bench, 1);
    shares.send(7);
    assert!(shares.at(1_000).is_ok(), "seven are not enough");
    assert_eq!(shares.talk.sent.len(), 0);

    let mut bench = Bench::new(Timing::default());
    let mut shares = Unanswered::on(&mut bench, 1);
    shares.send(8);
    for seconds in [61, 120, 179] {
        assert!(shares.at(seconds).is_ok(), "not yet after {seconds} s");
    }
    assert!(shares.talk.due() <= shares.begun + Duration::from_secs(181), "it wakes for that");
    let Err(End::Lost(why)) = shares.at(181) else { panic!("it is not left") };
    assert_eq!(why, "it takes shares and has answered none for 180 s");
}

#[test]
fn any_answer_to_a_share_is_a_sign_of_life_also_a_late_one() {
    for (late, answer) in [
        (false, json!({"result": true, "error": null})),
        (true, json!({"result": true, "error": null})),
        (true, json!({"result": null, "error": [21, "stale", null]})),
    ] {
        let mut bench = Bench::new(Timing::default());
        let mut shares = Unanswered::on(&mut bench, 1);
        let mut number = shares.send(8);
        assert!(shares.at(120).is_ok());
        if !late {
            number = shares.send(1);
        }
        let mut answer = answer;
        answer["id"] = json!(number);
        assert!(shares.talk.hear(&answer).is_ok());
        assert!(shares.at(1_000).is_ok(), "{answer} {late}");
    }
    // An answer to something else is none.
    let mut bench = Bench::new(Timing::default());
    let mut shares = Unanswered::on(&mut bench, 1);
    shares.send(8);
    assert!(shares.at(120).is_ok());
    for id in [1, 2, 1_000_000] {
        assert!(shares.talk.hear(&json!({"id": id, "result": true, "error": null})).is_ok());
    }
    assert!(shares.at(1_000).is_err());
}

#[test]
fn a_pool_that_answers_no_share_is_not_well_until_it_does_or_time_has_passed() {
    for (deaf, answers, is_well) in [(600, false, false), (600, true, true), (0, false, true)] {
        let deaf = Duration::from_secs(deaf);
        let mut bench = Bench::new(Timing { deaf, ..Timing::default() });
        let mut shares = Unanswered::on(&mut bench, 1);
        shares.send(8);
        assert!(shares.at(120).is_ok());
        assert!(shares.at(181).is_err());
        bench.session.lost("for that".to_owned());

        let mut shares = Unanswered::on(&mut bench, 2);
        if answers {
            let id = shares.send(1);
            let refused = json!({"id": id, "result": false, "error": [23, "low", null]});
            assert!(shares.talk.hear(&refused).is_ok());
        }
        let health = bench.sources.health()[0];
        assert!(health.is_ready, "its job is there, should there be nothing better");
        assert_eq!(health.is_healthy(), is_well, "{deaf:?} {answers}");
    }
}

/// Something found for the first job, whose hash begins with so many zero bits.
fn found(zeros: usize, is_block: bool) -> Solution {
    let mut found = solution(JobKey { connection: 1, number: 1 });
    let job = Arc::get_mut(&mut found.job).unwrap();
    let easy = Target::DIFFICULTY_1;
    let hard = difficulty::target_of("1e30").unwrap();
    (job.share_target, job.network_target) = if is_block { (hard, easy) } else { (easy, hard) };
    let mut hash = [0x55; 32];
    hash[32 - zeros / 8..].fill(0);
    hash[31 - zeros / 8] = 0x55 >> (zeros % 8);
    found.hash = BlockHash::from_byte_array(hash);
    found
}

#[test]
fn a_lower_difficulty_is_tried_with_one_share_whatever_comes_meanwhile() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!([]));
    assert!(talk.hear(&call("mining.set_difficulty", &json!([65_536]))).is_ok());
    assert!(talk.hear(&notify("a")).is_ok());
    let as_sent = talk.current.as_ref().unwrap().as_sent;
    let later = || Instant::now() + Duration::from_secs(10);
    let mined_at = |talk: &Talk<'_>| talk.current.as_ref().unwrap().target;

    assert!(talk.hear(&call("mining.set_difficulty", &json!([2]))).is_ok());
    talk.try_lower(Instant::now());
    assert_eq!(mined_at(&talk), as_sent, "a job may follow");
    talk.try_lower(later());
    assert_eq!((talk.lowered, mined_at(&talk)), (Lowered::Seeking, talk.target));
    // Another difficulty: the job at hand has its own again, until that one is tried.
    assert!(talk.hear(&call("mining.set_difficulty", &json!([4]))).is_ok());
    assert!(matches!(talk.lowered, Lowered::Since(_)));
    assert_eq!(mined_at(&talk), as_sent);
    talk.try_lower(later());
    assert_eq!((talk.lowered, mined_at(&talk)), (Lowered::Seeking, talk.target));

    // A block that is too easy for a share is sent, and tells nothing of the difficulty.
    talk.take_solution(found(32, true));
    assert_eq!((talk.sent.len(), talk.lowered), (1, Lowered::Seeking));
    talk.take_solution(found(36, false));
    assert!(matches!(talk.lowered, Lowered::Asked(_)));
    talk.take_solution(found(37, false));
    assert_eq!(talk.sent.len(), 2, "one is enough");
    assert_eq!(mined_at(&talk), as_sent);
    let id = talk.next_id - 1;
    let refused = json!({"id": id, "result": false, "error": [23, "Low difficulty share", null]});
    assert!(talk.hear(&refused).is_ok());
    assert_eq!(talk.session.habits.difficulty(), Some(DifficultyHolds::ForLaterJobs));
    assert_eq!((talk.lowered, mined_at(&talk)), (Lowered::No, as_sent));
}

#[test]
fn a_difficulty_that_comes_right_after_its_job_is_tried_too() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!([]));
    assert!(talk.hear(&call("mining.set_difficulty", &json!([65_536]))).is_ok());
    talk.lines.room().extend_from_slice(format!("{}\n", notify("a")).as_bytes());
    assert!(talk.hear(&call("mining.set_difficulty", &json!([2]))).is_ok());
    assert!(matches!(talk.lowered, Lowered::Since(_)), "{:?}", talk.lowered);
}

#[test]
fn a_refused_request_is_left_out_only_if_little_was_said_after_it() {
    let refused = json!({"result": null, "error": [-3, "Method not found", null]});
    for (seconds, wants) in [(0, false), (9, false), (11, true), (7_200, true)] {
        for answer in [&refused, &json!({"result": false, "error": null})] {
            let mut bench = Bench::new(Timing::default());
            let mut talk = Talk::new(&mut bench.session);
            talk.log_in(&json!([]));
            let (id, ask, _) = *talk.asked.last().unwrap();
            assert_eq!(ask, Ask::Extranonce);
            let mut answer = answer.clone();
            answer["id"] = json!(id);
            assert!(talk.hear(&answer).is_ok());
            talk.received += Duration::from_secs(seconds);
            talk.blame();
            assert_eq!(bench.session.wants(Optional::Extranonce), wants, "{seconds} {answer}");
        }
    }
}

#[test]
fn lines_of_no_use_are_counted_by_time_and_between_those_of_use() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!([]));
    let begun = Instant::now();
    let garbage = |talk: &mut Talk<'_>, seconds: u64| {
        talk.lines.room().extend_from_slice(b"garbage\n");
        talk.received = begun + Duration::from_secs(seconds);
        talk.take_lines()
    };
    for round in 0..20 {
        for _ in 0..15 {
            assert!(garbage(&mut talk, round).is_ok());
        }
        assert!(talk.hear(&notify(&format!("job{round}"))).is_ok());
    }
    for second in (100..10_000).step_by(5) {
        assert!(garbage(&mut talk, second).is_ok(), "twelve a minute");
    }
    let of_use = call("mining.notify", &json!([]));
    let last = (20_000..20_016).map(|second| {
        // What can be read and is of no use counts too, and what is small talk changes nothing.
        talk.received = begun + Duration::from_secs(second);
        talk.on_line(call("mining.ping", &json!([])).to_string().as_bytes())?;
        talk.on_line(of_use.to_string().as_bytes())
    });
    let ends: Vec<bool> = last.map(|outcome| outcome.is_err()).collect();
    assert_eq!(ends.iter().position(|ended| *ended), Some(15), "{ends:?}");
}

#[test]
fn a_share_that_is_refused_while_the_login_has_no_answer_does_not_end_the_run() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!([]));
    talk.asked.push((500, Ask::Authorize, Instant::now()));
    assert!(talk.hear(&notify("a")).is_ok());
    let refuse = |talk: &mut Talk<'_>| {
        talk.take_solution(solution(JobKey { connection: 1, number: 1 }));
        let id = talk.next_id - 1;
        talk.hear(&json!({"id": id, "result": null, "error": [24, "Unauthorized worker", null]}))
    };
    for _ in 0..10 {
        assert!(refuse(&mut talk).is_ok());
    }
    assert!(talk.hear(&json!({"id": 500, "result": true, "error": null})).is_ok());
    let outcomes: Vec<_> = (0..3).map(|_| refuse(&mut talk)).collect();
    assert!(matches!(outcomes[..], [Ok(()), Ok(()), Err(End::Final(_))]));
}

/// Sends so many shares for the one job of this connection, counted from 1, and has each answered so.
/// Before the answers come, the pool may have replaced the job. Whether the pool is left.
fn answered(
    bench: &mut Bench,
    connection: u64,
    shares: u64,
    answer: &Value,
    replaced: bool,
) -> bool {
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!([]));
    assert!(talk.hear(&notify("a")).is_ok());
    let first = talk.next_id;
    for _ in 0..shares {
        let mut share = solution(JobKey { connection, number: connection });
        Arc::get_mut(&mut share.job).unwrap().share_target = Target::max();
        talk.take_solution(share);
    }
    if replaced {
        let mut other = notify("b");
        other["params"][7] = json!("65000001");
        assert!(talk.hear(&other).is_ok());
    }
    (first..first + shares).any(|id| {
        let mut answer = answer.clone();
        answer["id"] = json!(id);
        talk.hear(&answer).is_err()
    })
}

#[test]
fn refusals_are_counted_over_connections_until_one_is_accepted() {
    let timing = Timing { refused: (16, Duration::ZERO), ..Timing::default() };
    for (error, leaves_if_replaced) in [
        (json!([20, "no", null]), true),
        (json!([21, "Job not found", null]), false),
        (json!([24, "Unauthorized worker", null]), true),
    ] {
        let refused = json!({"result": null, "error": error});
        let mut bench = Bench::new(timing);
        // Else a worker that is not known is the end.
        bench.session.trust = Trust::Proven;
        assert!(!answered(&mut bench, 1, 15, &refused, false), "{refused}");
        assert!(answered(&mut bench, 2, 1, &refused, false), "{refused}");
        bench.session.lost("for that".to_owned());
        answered(&mut bench, 3, 0, &refused, false);
        assert!(!bench.sources.health()[0].is_healthy(), "{refused}");
        assert!(!answered(&mut bench, 4, 1, &json!({"result": true, "error": null}), false));
        assert!(bench.sources.health()[0].is_healthy(), "{refused}");

        // What was late for its job is no wonder.
        let mut bench = Bench::new(timing);
        bench.session.trust = Trust::Proven;
        assert_eq!(answered(&mut bench, 1, 40, &refused, true), leaves_if_replaced, "{refused}");
        let mut bench = Bench::new(timing);
        bench.session.trust = Trust::Proven;
        for connection in (1..20).step_by(2) {
            assert!(!answered(&mut bench, connection, 8, &refused, false), "{refused}");
            let accepted = json!({"result": true, "error": null});
            assert!(!answered(&mut bench, connection + 1, 1, &accepted, false), "{refused}");
        }
    }
}

/// A connection on which the pool seems to have resumed the session of the one before, with shares for
/// the job of that one; gives the number of the only one that is sent.
fn resumed(talk: &mut Talk<'_>, found: Vec<Solution>) -> u64 {
    talk.greet();
    for solution in found {
        talk.take_solution(solution);
    }
    for result in [
        json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}),
        json!([["mining.notify", "session"], "08000000", 4]),
        json!(true),
    ] {
        let (id, ..) = *talk.asked.last().unwrap();
        assert!(talk.hear(&json!({"id": id, "result": result, "error": null})).is_ok());
    }
    assert_eq!(talk.sent.len(), 1, "the others wait for its answer");
    *talk.sent.first_key_value().unwrap().0
}

#[test]
fn one_share_tells_whether_a_resumed_pool_knows_its_jobs() {
    for (answer, sent, resumes) in [
        (json!({"result": true, "error": null}), 5, true),
        (json!({"result": null, "error": [23, "low", null]}), 5, true),
        (json!({"result": null, "error": [21, "stale", null]}), 0, true),
        (json!({"result": null, "error": [21, "Job not found", null]}), 0, false),
    ] {
        let mut bench = Bench::new(Timing::default());
        let mut talk = Talk::new(&mut bench.session);
        talk.log_in(&json!(["mining.notify", "session"]));
        assert!(talk.hear(&notify("a")).is_ok());
        let found = || solution(JobKey { connection: 1, number: 1 });
        let found: Vec<Solution> = (0..6).map(|_| found()).collect();
        bench.session.connected = true;
        let mut talk = Talk::new(&mut bench.session);
        let id = resumed(&mut talk, found);
        let mut line = answer.clone();
        line["id"] = json!(id);
        assert!(talk.hear(&line).is_ok());
        assert_eq!(talk.sent.len(), sent, "{answer}");
        talk.take_solution(solution(JobKey { connection: 1, number: 1 }));
        let resumption = &bench.session.resumption;
        assert_eq!(matches!(resumption, Resumption::May(_)), resumes, "{answer} {resumption:?}");
    }
}

#[test]
fn a_resumed_pool_that_does_not_answer_the_first_share_gets_the_others_all_the_same() {
    let mut bench = Bench::new(Timing::default());
    let mut talk = Talk::new(&mut bench.session);
    talk.log_in(&json!(["mining.notify", "session"]));
    assert!(talk.hear(&notify("a")).is_ok());
    let found: Vec<Solution> =
        (0..6).map(|_| solution(JobKey { connection: 1, number: 1 })).collect();
    bench.session.connected = true;
    let mut talk = Talk::new(&mut bench.session);
    resumed(&mut talk, found);
    let late = talk.begun + Duration::from_secs(61);
    talk.heard = late;
    assert!(talk.expire(late).is_ok());
    assert_eq!(talk.sent.len(), 5);
}
