//! Engine and sources in the test's own process, with short timeouts.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit::engine::{Control, Engine, Goal};
use adit::event::{Announcer, Event, SourceState, Summary, Tally};
use adit::job::Verdict;
use adit::scan::cpu::{CpuScanner, Sha2};
use adit::secret::Secret;
use adit::source::SourceError;
use adit::source::failover::{Failover, Make};
use adit::source::net::{Endpoint, Transport};
use adit::source::stratum_v1::{Config, StratumV1, Timing};

use crate::common::pool::ScriptedPool;

/// A timeout for what takes a moment on an idle machine.
pub const SOON: Duration = Duration::from_secs(60);

pub fn config(pool: &ScriptedPool) -> Config {
    let address = pool.address();
    Config {
        endpoint: Endpoint { host: address.ip().to_string(), port: address.port() },
        transport: Transport::new(),
        user: "alice.1".into(),
        password: Secret::from("secret".to_owned()),
        version_rolling: true,
        suggest_difficulty: None,
        quirks_dir: None,
        timing: Timing {
            configure: Duration::from_millis(500),
            authorize: Duration::from_millis(500),
            leave: Duration::from_millis(500),
            backoff: (Duration::from_millis(10), Duration::from_millis(100)),
            ..Timing::default()
        },
    }
}

/// What was announced.
#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Event>>,
    more: Condvar,
}

pub struct Miner {
    engine: Engine,
    heard: Arc<Heard>,
    listener: JoinHandle<()>,
    source: JoinHandle<Result<(), SourceError>>,
}

/// How it ended.
pub struct Ended {
    pub summary: Summary,
    pub events: Vec<Event>,
    pub outcome: Result<(), SourceError>,
}

impl Miner {
    pub fn start(config: Config) -> Self {
        Self::start_on(vec![config])
    }

    /// On several pools, the best first.
    pub fn start_on(configs: Vec<Config>) -> Self {
        let make =
            |config: Config| -> Make { Box::new(move || Box::new(StratumV1::new(config.clone()))) };
        Self::start_sources(configs.into_iter().map(make).collect())
    }

    /// On sources of any kind, the best first.
    pub fn start_sources(sources: Vec<Make>) -> Self {
        let scanner = CpuScanner::new(Arc::new(Sha2), 1).expect("a thread");
        let (announcer, events) = Announcer::new();
        let sources = Failover::new(sources);
        let (engine, slots) = Engine::with_sources(
            vec![Arc::new(scanner)],
            sources.infos(),
            Goal::default(),
            announcer,
        )
        .expect("threads");
        let heard = Arc::new(Heard::default());
        let hears = heard.clone();
        let listener = std::thread::spawn(move || {
            for announcement in events {
                hears.events.lock().unwrap().push(announcement.event);
                hears.more.notify_all();
            }
        });
        let source = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(sources.run(slots))
        });
        Self { engine, heard, listener, source }
    }

    /// What steers it.
    pub fn control(&self) -> Control {
        self.engine.control()
    }

    pub fn events(&self) -> Vec<Event> {
        self.heard.events.lock().unwrap().clone()
    }

    /// The first event, past or to come, for which `find` gives something.
    #[track_caller]
    pub fn wait<T>(&self, find: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut events = self.heard.events.lock().unwrap();
        loop {
            if let Some(found) = events.iter().find_map(&find) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.source.is_finished() {
                let from = events.len().saturating_sub(40);
                panic!("what was waited for has not come: {:#?}", &events[from..]);
            }
            events = self
                .heard
                .more
                .wait_timeout(events, left.min(Duration::from_millis(50)))
                .unwrap()
                .0;
        }
    }

    /// A notice that contains `words`.
    #[track_caller]
    pub fn wait_for_notice(&self, words: &str) -> String {
        self.wait(|event| match event {
            Event::Notice(text) if text.contains(words) => Some(text.clone()),
            _ => None,
        })
    }

    /// A reason of a lost or retried source that contains `words`.
    #[track_caller]
    pub fn wait_for_source_error(&self, words: &str) -> String {
        self.wait(|event| match event {
            Event::Source {
                state: SourceState::Lost | SourceState::Retrying,
                reason: Some(reason),
                ..
            } if reason.contains(words) => Some(reason.clone()),
            _ => None,
        })
    }

    /// A job of this difficulty.
    #[track_caller]
    pub fn wait_for_difficulty(&self, wanted: f64) {
        self.wait(|event| match event {
            Event::Job { difficulty, .. } => {
                ((difficulty.to_f64() / wanted - 1.0).abs() < 1e-9).then_some(())
            }
            _ => None,
        });
    }

    /// This many shares with this result.
    #[track_caller]
    pub fn wait_for_shares(&self, result: &str, count: usize) {
        let deadline = Instant::now() + SOON;
        while self.shares(result).len() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} shares {result}; {:?}",
                self.shares(result).len(),
                self.events().last()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Hashes and verdicts of shares with this result.
    pub fn shares(&self, result: &str) -> Vec<(String, Verdict)> {
        shares(&self.events(), result)
    }

    /// The difficulties of the jobs so far.
    pub fn jobs(&self) -> Vec<(f64, bool)> {
        let events = self.events();
        let jobs = events.iter().filter_map(|event| match event {
            Event::Job { difficulty, clean, .. } => Some((difficulty.to_f64(), *clean)),
            _ => None,
        });
        jobs.collect()
    }

    /// Stops as a user would, and waits for the end.
    pub fn stop(self) -> Ended {
        self.engine.stop();
        self.end()
    }

    /// Waits for the end.
    pub fn end(self) -> Ended {
        let deadline = Instant::now() + SOON;
        while !self.source.is_finished() {
            assert!(Instant::now() < deadline, "the source does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let outcome = self.source.join().expect("the source does not panic");
        let summary = self.engine.finish();
        assert_eq!(summary.hardware_errors, 0);
        // Nothing announces events any more, so the listener ends after the last one.
        self.listener.join().expect("the listener does not panic");
        let events = self.heard.events.lock().unwrap().clone();
        assert_eq!(summary.events_lost, 0, "the listener keeps up");
        let told = |result: &str| shares(&events, result).len() as u64;
        let Tally { accepted, rejected, stale, unknown } = summary.shares;
        assert_eq!(
            ["accepted", "rejected", "stale", "unknown"].map(told),
            [accepted, rejected, stale, unknown],
            "every share that is counted is told"
        );
        Ended { summary, events, outcome }
    }
}

/// Hashes and verdicts of the shares with this result.
pub fn shares(events: &[Event], result: &str) -> Vec<(String, Verdict)> {
    let shares = events.iter().filter_map(|event| match event {
        Event::Share { verdict, hash, .. } if verdict.result() == result => {
            Some((hash.to_string(), verdict.clone()))
        }
        _ => None,
    });
    shares.collect()
}
