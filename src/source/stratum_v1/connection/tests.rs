//! A connection without a stream and with a clock of the test's: lines go in, jobs and the end come out.

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, block};
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::config::Timing;
use super::super::difficulty;
use super::super::profile::{Resumption, Trust};
use super::super::quirks::DifficultyHolds;
use super::*;
use crate::chain::coinbase::Coinbase;
use crate::chain::version::VersionMask;
use crate::engine::{Engine, Goal, SourceInfo, Sources};
use crate::event::{Announcer, Event, Listener};
use crate::job::{Job, JobKey, MerkleRoot, Solution, SourceId, TimeRange};
use crate::secret::Secret;
use crate::source::net::{Endpoint, Transport};

/// A client at an engine that hashes nothing.
struct Bench {
    _engine: Engine,
    sources: Sources,
    events: Listener,
    client: Client,
}

impl Bench {
    fn new(timing: Timing) -> Self {
        let (announcer, events) = Announcer::new();
        let sources = vec![SourceInfo::new("pool", "test")];
        let (engine, sources) =
            Engine::with_sources(Vec::new(), sources, Goal::default(), announcer).unwrap();
        let config = Config {
            endpoint: Endpoint { host: "127.0.0.1".into(), port: 3333 },
            transport: Transport::new(),
            user: "alice".into(),
            password: Secret::from("x".to_owned()),
            version_rolling: true,
            suggest_difficulty: None,
            quirks_dir: None,
            timing,
        };
        let client = Client::new(config, "pool".into(), sources.open(SourceId(0)));
        Self { _engine: engine, sources, events, client }
    }

    /// How many jobs were published since this was last called.
    fn jobs(&self) -> usize {
        self.events.try_iter().filter(|told| matches!(told.event, Event::Job { .. })).count()
    }
}

impl Connection<'_> {
    fn handle_message(&mut self, line: &Value) -> Result<(), End> {
        self.lines.room().extend_from_slice(format!("{line}\n").as_bytes());
        self.last_bytes = Instant::now();
        self.process_lines()
    }

    /// Up to the login, with no job and no difficulty yet.
    fn log_in(&mut self, subscriptions: &Value) {
        self.send_configure();
        for result in [
            json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}),
            json!([subscriptions, "08000000", 4]),
            json!(true),
        ] {
            let (id, ..) = *self.pending_requests.last().unwrap();
            assert!(
                self.handle_message(&json!({"id": id, "result": result, "error": null})).is_ok()
            );
        }
        assert_eq!(self.phase, HandshakePhase::Mining);
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

/// A solution of a job.
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
fn nothing_is_published_once_the_pool_has_asked_for_a_new_connection() {
    let late_mask = json!({"version-rolling": true, "version-rolling.mask": "00006000"});
    for line in [
        call("mining.set_version_mask", &json!(["00006000"])),
        call("mining.set_difficulty", &json!([0.5])),
        notify("b"),
        json!({"id": 77, "result": late_mask, "error": null}),
    ] {
        let mut bench = Bench::new(Timing::default());
        let mut connection = bench.client.connection();
        connection.log_in(&json!([]));
        assert!(connection.handle_message(&notify("a")).is_ok());
        connection.pending_requests.push((77, Request::Configure, Instant::now()));
        assert!(connection.handle_message(&call("client.reconnect", &json!([]))).is_ok());
        assert!(connection.handle_message(&line).is_ok());
        connection.republish_at_limit();
        assert_eq!(bench.jobs(), 1, "{line}");
        assert!(!bench.sources.health()[0].is_ready, "{line}: its job was withdrawn");
    }
}

#[test]
fn the_job_of_a_session_that_may_be_resumed_stays_while_the_connection_is_left() {
    let mut bench = Bench::new(Timing::default());
    let mut connection = bench.client.connection();
    connection.log_in(&json!(["mining.notify", "session"]));
    assert!(connection.handle_message(&notify("a")).is_ok());
    assert!(connection.handle_message(&call("client.reconnect", &json!([]))).is_ok());
    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([0.5]))).is_ok());
    assert_eq!(bench.jobs(), 1);
    assert!(bench.sources.health()[0].is_ready, "what is found for its job may still count");
}

/// A connection to a pool that takes shares and answers none in time, and sends everything else.
struct SilentPool<'a> {
    connection: Connection<'a>,
    begun: Instant,
    /// Counts the session's connections, from 1.
    number: u64,
}

impl<'a> SilentPool<'a> {
    fn on(bench: &'a mut Bench, number: u64) -> Self {
        let mut connection = bench.client.connection();
        connection.log_in(&json!([]));
        assert!(connection.handle_message(&notify("a")).is_ok());
        Self { connection, begun: Instant::now(), number }
    }

    /// Sends this many shares; gives the id of the last one's request.
    fn send(&mut self, shares: u32) -> u64 {
        // One job a session, and one session a connection.
        let number = self.number;
        for _ in 0..shares {
            self.connection.take_solution(solution(JobKey { connection: number, number }));
        }
        self.connection.next_id - 1
    }

    /// What happens this many seconds after the beginning, where the pool has read everything and sent
    /// something without effect.
    fn at(&mut self, seconds: u64) -> Result<(), End> {
        let now = self.begun + Duration::from_secs(seconds);
        self.connection.last_message = now;
        (self.connection.write_blocked, self.connection.out) = (None, BytesMut::new());
        self.connection.on_timer(now)
    }
}

#[test]
fn a_pool_that_answers_no_share_is_left() {
    let mut bench = Bench::new(Timing::default());
    let mut shares = SilentPool::on(&mut bench, 1);
    shares.send(7);
    assert!(shares.at(1_000).is_ok(), "seven are not enough");
    assert_eq!(shares.connection.in_flight.len(), 0);

    let mut bench = Bench::new(Timing::default());
    let mut shares = SilentPool::on(&mut bench, 1);
    shares.send(8);
    for seconds in [61, 120, 179] {
        assert!(shares.at(seconds).is_ok(), "not yet after {seconds} s");
    }
    assert!(
        shares.connection.due() <= shares.begun + Duration::from_secs(181),
        "it wakes for that"
    );
    let Err(End::Lost(why)) = shares.at(181) else { panic!("it is not left") };
    assert_eq!(why, "it takes shares and has answered none for 180 s");
}

#[test]
fn any_answer_to_a_share_shows_that_the_pool_responds_even_a_late_one() {
    for (late, answer) in [
        (false, json!({"result": true, "error": null})),
        (true, json!({"result": true, "error": null})),
        (true, json!({"result": null, "error": [21, "stale", null]})),
    ] {
        let mut bench = Bench::new(Timing::default());
        let mut shares = SilentPool::on(&mut bench, 1);
        let mut number = shares.send(8);
        assert!(shares.at(120).is_ok());
        if !late {
            number = shares.send(1);
        }
        let mut answer = answer;
        answer["id"] = json!(number);
        assert!(shares.connection.handle_message(&answer).is_ok());
        assert!(shares.at(1_000).is_ok(), "{answer} {late}");
    }
    // An answer to something else does not count.
    let mut bench = Bench::new(Timing::default());
    let mut shares = SilentPool::on(&mut bench, 1);
    shares.send(8);
    assert!(shares.at(120).is_ok());
    for id in [1, 2, 1_000_000] {
        assert!(
            shares
                .connection
                .handle_message(&json!({"id": id, "result": true, "error": null}))
                .is_ok()
        );
    }
    assert!(shares.at(1_000).is_err());
}

#[test]
fn a_pool_that_answers_no_share_is_not_healthy_until_it_does_or_the_cooldown_is_over() {
    for (cooldown, answers, is_healthy) in
        [(600, false, false), (600, true, true), (0, false, true)]
    {
        let fault_cooldown = Duration::from_secs(cooldown);
        let mut bench = Bench::new(Timing { fault_cooldown, ..Timing::default() });
        let mut shares = SilentPool::on(&mut bench, 1);
        shares.send(8);
        assert!(shares.at(120).is_ok());
        assert!(shares.at(181).is_err());
        bench.client.lost("for that".to_owned());

        let mut shares = SilentPool::on(&mut bench, 2);
        if answers {
            let id = shares.send(1);
            let refused = json!({"id": id, "result": false, "error": [23, "low", null]});
            assert!(shares.connection.handle_message(&refused).is_ok());
        }
        let health = bench.sources.health()[0];
        assert!(health.is_ready, "its job is there, should there be nothing better");
        assert_eq!(health.is_healthy(), is_healthy, "{cooldown} {answers}");
    }
}

/// A solution of the first job whose hash begins with this many zero bits.
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
    let mut connection = bench.client.connection();
    connection.log_in(&json!([]));
    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([65_536]))).is_ok());
    assert!(connection.handle_message(&notify("a")).is_ok());
    let target_at_arrival = connection.current_job.as_ref().unwrap().target_at_arrival;
    let later = || Instant::now() + Duration::from_secs(10);
    let mined_at = |connection: &Connection<'_>| connection.current_job.as_ref().unwrap().target;

    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([2]))).is_ok());
    connection.probe_lower(Instant::now());
    assert_eq!(mined_at(&connection), target_at_arrival, "a job may follow");
    connection.probe_lower(later());
    assert_eq!(
        (connection.lower_difficulty, mined_at(&connection)),
        (LowerDifficulty::Searching, connection.target)
    );
    // Another difficulty: the job at hand has its own again, until that one is tried.
    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([4]))).is_ok());
    assert!(matches!(connection.lower_difficulty, LowerDifficulty::Since(_)));
    assert_eq!(mined_at(&connection), target_at_arrival);
    connection.probe_lower(later());
    assert_eq!(
        (connection.lower_difficulty, mined_at(&connection)),
        (LowerDifficulty::Searching, connection.target)
    );

    // A block that is too easy for a share is sent, and shows nothing about the difficulty.
    connection.take_solution(found(32, true));
    assert_eq!(
        (connection.in_flight.len(), connection.lower_difficulty),
        (1, LowerDifficulty::Searching)
    );
    connection.take_solution(found(36, false));
    assert!(matches!(connection.lower_difficulty, LowerDifficulty::Sent(_)));
    connection.take_solution(found(37, false));
    assert_eq!(connection.in_flight.len(), 2, "one is enough");
    assert_eq!(mined_at(&connection), target_at_arrival);
    let id = connection.next_id - 1;
    let refused = json!({"id": id, "result": false, "error": [23, "Low difficulty share", null]});
    assert!(connection.handle_message(&refused).is_ok());
    assert_eq!(connection.pool.profile.quirks.difficulty(), Some(DifficultyHolds::ForLaterJobs));
    assert_eq!(
        (connection.lower_difficulty, mined_at(&connection)),
        (LowerDifficulty::No, target_at_arrival)
    );
}

#[test]
fn a_difficulty_that_comes_right_after_its_job_is_tried_too() {
    let mut bench = Bench::new(Timing::default());
    let mut connection = bench.client.connection();
    connection.log_in(&json!([]));
    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([65_536]))).is_ok());
    connection.lines.room().extend_from_slice(format!("{}\n", notify("a")).as_bytes());
    assert!(connection.handle_message(&call("mining.set_difficulty", &json!([2]))).is_ok());
    assert!(
        matches!(connection.lower_difficulty, LowerDifficulty::Since(_)),
        "{:?}",
        connection.lower_difficulty
    );
}

#[test]
fn a_refused_request_is_skipped_only_if_the_pool_sent_nothing_much_later() {
    let refused = json!({"result": null, "error": [-3, "Method not found", null]});
    for (seconds, wants) in [(0, false), (9, false), (11, true), (7_200, true)] {
        for answer in [&refused, &json!({"result": false, "error": null})] {
            let mut bench = Bench::new(Timing::default());
            let mut connection = bench.client.connection();
            connection.log_in(&json!([]));
            let (id, ask, _) = *connection.pending_requests.last().unwrap();
            assert_eq!(ask, Request::Extranonce);
            let mut answer = answer.clone();
            answer["id"] = json!(id);
            assert!(connection.handle_message(&answer).is_ok());
            connection.last_bytes += Duration::from_secs(seconds);
            connection.skip_suspects();
            assert_eq!(
                bench.client.pool.profile.wants(OptionalRequest::Extranonce),
                wants,
                "{seconds} {answer}"
            );
        }
    }
}

#[test]
fn unusable_messages_are_counted_by_time_and_between_usable_ones() {
    let mut bench = Bench::new(Timing::default());
    let mut connection = bench.client.connection();
    connection.log_in(&json!([]));
    let begun = Instant::now();
    let garbage = |connection: &mut Connection<'_>, seconds: u64| {
        connection.lines.room().extend_from_slice(b"garbage\n");
        connection.last_bytes = begun + Duration::from_secs(seconds);
        connection.process_lines()
    };
    for round in 0..20 {
        for _ in 0..15 {
            assert!(garbage(&mut connection, round).is_ok());
        }
        assert!(connection.handle_message(&notify(&format!("job{round}"))).is_ok());
    }
    for second in (100..10_000).step_by(5) {
        assert!(garbage(&mut connection, second).is_ok(), "twelve a minute");
    }
    let unusable = call("mining.notify", &json!([]));
    let last = (20_000..20_016).map(|second| {
        // What is readable and unusable counts too, and a ping changes nothing.
        connection.last_bytes = begun + Duration::from_secs(second);
        connection.on_line(call("mining.ping", &json!([])).to_string().as_bytes())?;
        connection.on_line(unusable.to_string().as_bytes())
    });
    let ends: Vec<bool> = last.map(|outcome| outcome.is_err()).collect();
    assert_eq!(ends.iter().position(|ended| *ended), Some(15), "{ends:?}");
}

#[test]
fn a_share_that_is_refused_while_the_login_has_no_answer_does_not_end_the_run() {
    let mut bench = Bench::new(Timing::default());
    let mut connection = bench.client.connection();
    connection.log_in(&json!([]));
    connection.pending_requests.push((500, Request::Authorize, Instant::now()));
    assert!(connection.handle_message(&notify("a")).is_ok());
    let refuse = |connection: &mut Connection<'_>| {
        connection.take_solution(solution(JobKey { connection: 1, number: 1 }));
        let id = connection.next_id - 1;
        connection.handle_message(
            &json!({"id": id, "result": null, "error": [24, "Unauthorized worker", null]}),
        )
    };
    for _ in 0..10 {
        assert!(refuse(&mut connection).is_ok());
    }
    assert!(connection.handle_message(&json!({"id": 500, "result": true, "error": null})).is_ok());
    let outcomes: Vec<_> = (0..3).map(|_| refuse(&mut connection)).collect();
    assert!(matches!(outcomes[..], [Ok(()), Ok(()), Err(End::Rejected(_))]));
}

/// Sends this many shares for the one job of this session, counted from 1, and gives each the same
/// answer. Before the answers come, the pool may have replaced the job. Whether the pool is left.
fn answered(bench: &mut Bench, session: u64, shares: u64, answer: &Value, replaced: bool) -> bool {
    let mut connection = bench.client.connection();
    connection.log_in(&json!([]));
    assert!(connection.handle_message(&notify("a")).is_ok());
    let first = connection.next_id;
    for _ in 0..shares {
        let mut share = solution(JobKey { connection: session, number: session });
        Arc::get_mut(&mut share.job).unwrap().share_target = Target::max();
        connection.take_solution(share);
    }
    if replaced {
        let mut other = notify("b");
        other["params"][7] = json!("65000001");
        assert!(connection.handle_message(&other).is_ok());
    }
    (first..first + shares).any(|id| {
        let mut answer = answer.clone();
        answer["id"] = json!(id);
        connection.handle_message(&answer).is_err()
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
        // Otherwise an unknown worker ends the run.
        bench.client.pool.profile.trust = Trust::ShareAccepted;
        assert!(!answered(&mut bench, 1, 15, &refused, false), "{refused}");
        assert!(answered(&mut bench, 2, 1, &refused, false), "{refused}");
        bench.client.lost("for that".to_owned());
        answered(&mut bench, 3, 0, &refused, false);
        assert!(!bench.sources.health()[0].is_healthy(), "{refused}");
        assert!(!answered(&mut bench, 4, 1, &json!({"result": true, "error": null}), false));
        assert!(bench.sources.health()[0].is_healthy(), "{refused}");

        // A share that is late for its job does not count.
        let mut bench = Bench::new(timing);
        bench.client.pool.profile.trust = Trust::ShareAccepted;
        assert_eq!(answered(&mut bench, 1, 40, &refused, true), leaves_if_replaced, "{refused}");
        let mut bench = Bench::new(timing);
        bench.client.pool.profile.trust = Trust::ShareAccepted;
        for session in (1..20).step_by(2) {
            assert!(!answered(&mut bench, session, 8, &refused, false), "{refused}");
            let accepted = json!({"result": true, "error": null});
            assert!(!answered(&mut bench, session + 1, 1, &accepted, false), "{refused}");
        }
    }
}

/// A connection on which the pool seems to have resumed the session of the one before, with shares for
/// the job of that one; gives the id of the only one that is sent.
fn resumed(connection: &mut Connection<'_>, found: Vec<Solution>) -> u64 {
    connection.send_configure();
    for solution in found {
        connection.take_solution(solution);
    }
    for result in [
        json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}),
        json!([["mining.notify", "session"], "08000000", 4]),
        json!(true),
    ] {
        let (id, ..) = *connection.pending_requests.last().unwrap();
        assert!(
            connection.handle_message(&json!({"id": id, "result": result, "error": null})).is_ok()
        );
    }
    assert_eq!(connection.in_flight.len(), 1, "the others wait for its answer");
    connection.next_id - 1
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
        let mut connection = bench.client.connection();
        connection.log_in(&json!(["mining.notify", "session"]));
        assert!(connection.handle_message(&notify("a")).is_ok());
        let found = || solution(JobKey { connection: 1, number: 1 });
        let found: Vec<Solution> = (0..6).map(|_| found()).collect();
        bench.client.pool.session.is_connected = true;
        let mut connection = bench.client.connection();
        let id = resumed(&mut connection, found);
        let mut line = answer.clone();
        line["id"] = json!(id);
        assert!(connection.handle_message(&line).is_ok());
        assert_eq!(connection.in_flight.len(), sent, "{answer}");
        connection.take_solution(solution(JobKey { connection: 1, number: 1 }));
        let resumption = &bench.client.pool.profile.resumption;
        assert_eq!(matches!(resumption, Resumption::May(_)), resumes, "{answer} {resumption:?}");
    }
}

#[test]
fn a_resumed_pool_that_does_not_answer_the_first_share_gets_the_others_all_the_same() {
    let mut bench = Bench::new(Timing::default());
    let mut connection = bench.client.connection();
    connection.log_in(&json!(["mining.notify", "session"]));
    assert!(connection.handle_message(&notify("a")).is_ok());
    let found: Vec<Solution> =
        (0..6).map(|_| solution(JobKey { connection: 1, number: 1 })).collect();
    bench.client.pool.session.is_connected = true;
    let mut connection = bench.client.connection();
    resumed(&mut connection, found);
    let late = connection.opened + Duration::from_secs(61);
    connection.last_message = late;
    assert!(connection.expire(late).is_ok());
    assert_eq!(connection.in_flight.len(), 5);
}
