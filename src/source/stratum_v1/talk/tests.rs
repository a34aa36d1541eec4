//! A connection without a stream and without a clock: lines in, jobs and the end out.

use std::sync::mpsc::Receiver;

use serde_json::{Value, json};

use super::super::{Config, Timing};
use super::*;
use crate::engine::{Engine, Goal, Seats};
use crate::event::{Announcement, Announcer, Event};
use crate::secret::Secret;
use crate::source::net::{Endpoint, Transport};

/// A session at an engine that hashes nothing.
struct Bench {
    _engine: Engine,
    seats: Seats,
    events: Receiver<Announcement>,
    session: Session,
}

impl Bench {
    fn new(timing: Timing) -> Self {
        let (announcer, events) = Announcer::new();
        let names = vec!["pool".to_owned()];
        let (engine, seats) =
            Engine::with_sources(Vec::new(), names, Goal::default(), announcer).unwrap();
        let config = Config {
            endpoint: Endpoint { host: "127.0.0.1".into(), port: 3333, tls: false },
            transport: Transport::new(),
            user: "alice".into(),
            password: Secret::from("x".to_owned()),
            version_rolling: true,
            suggest_difficulty: None,
            timing,
        };
        let session = Session::new(config, "pool".into(), seats.open(0));
        Self { _engine: engine, seats, events, session }
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
        assert!(!bench.seats.health()[0].is_ready, "{line}: its job was withdrawn");
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
    assert!(bench.seats.health()[0].is_ready, "what is found for its job may still count");
}
