//! What outlives a connection: the jobs, the shares that wait, the pool's manners, the waits between
//! tries.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::Config;
use super::habits::Habits;
use super::pace::Pace;
use super::table::JobTable;
use super::talk::{End, Talk};
use super::version_bits::Learner;
use super::work::Extranonce;
use crate::engine::Port;
use crate::event::SourceState;
use crate::job::{Refusal, Solution, Verdict};
use crate::source::net::ConnectError;
use crate::source::{Refused, SourceError};

/// How many shares wait for a session to be resumed, or for the pool to let us in.
const HELD: usize = 1_024;

/// How often a first TLS handshake has to fail until that is final.
const GARBLED_HANDSHAKES: u32 = 3;
/// How often the patience for a subscription is doubled at most.
const SLOW_SUBSCRIPTIONS: u32 = 3;

/// A request that a pool need not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Optional {
    Configure,
    Extranonce,
    Suggest,
}

/// What the pool gave to take a session up again.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    /// The session's id.
    pub id: String,
    /// The room it gave us in the coinbase: the same again, and it is the same session.
    pub extranonce: Extranonce,
}

/// Whether the pool takes sessions up again.
#[derive(Clone, Debug)]
pub(super) enum Resumption {
    /// It has given nothing to do it with.
    Unknown,
    /// It may.
    May(Resume),
    /// It was asked to, and gave us another session.
    Never,
}

/// How far the pool has ever trusted us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Not at all yet.
    Stranger,
    /// It has let us in.
    Welcome,
    /// It has accepted a share.
    Proven,
}

/// Connections in a row that ended before the pool had said a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    count: u32,
    /// How many of them are put down to what was asked.
    enough: u32,
}

impl Default for Silence {
    fn default() -> Self {
        Self { count: 0, enough: 2 }
    }
}

impl Silence {
    /// Notes another one; says whether that is put down to what was asked. If it ended so `without`
    /// what pools need not know, that was not the reason before either: the next doubt takes longer.
    pub(super) fn blames(&mut self, without: bool) -> bool {
        self.count += 1;
        if self.count < self.enough && !without {
            return false;
        }
        self.count = 0;
        if without {
            self.enough = (self.enough * 2).min(8);
        }
        !without
    }
}

/// Why a pool is not well although it has jobs for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It takes shares and answers none.
    AnswersNone,
    /// It refuses every share.
    RefusesAll,
}

/// Shares that the pool has refused since it last accepted one, on whatever connection: some pools
/// close it after a few.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedInARow {
    /// When the first refusal came.
    pub since: Instant,
    pub count: u32,
}

/// A pool that was left for a fault.
#[derive(Clone, Copy, Debug)]
struct Faulty {
    fault: Fault,
    /// Until when it is not taken for well.
    until: Instant,
    /// How often it was left for a fault, and has not shown in between that it is over.
    times: u32,
}

pub(super) struct Session {
    pub(super) config: Config,
    pub(super) name: String,
    pub(super) port: Port,
    pub(super) table: JobTable,
    pub(super) pace: Pace,
    pub(super) resumption: Resumption,
    pub(super) trust: Trust,
    /// What the pool took badly, and until when it is left out.
    grudges: Vec<(Optional, Instant)>,
    pub(super) silence: Silence,
    /// Whether version rolling was agreed on, and nothing else was said since.
    pub(super) rolled: bool,
    /// Shares that cannot be sent yet.
    held: VecDeque<Solution>,
    /// Until when the last job is mined on without a connection.
    gap_until: Option<Instant>,
    /// Whether shares that are found now may still count.
    pub(super) connected: bool,
    /// Where the pool was left for a fault.
    faulty: Option<Faulty>,
    pub(super) refused: Option<RefusedInARow>,
    /// What was learned of the pool.
    pub(super) habits: Habits,
    /// In which form it takes version bits.
    pub(super) version_bits: Learner,
    /// How often a subscription was not answered in time.
    slow_subscriptions: u32,
    /// How often a first login was refused for what may pass.
    pub(super) logins_refused: u32,
    /// How often the first connection failed for what looks lasting.
    lasting_failures: u32,
    /// Another port of the same host, where the pool has sent us.
    pub(super) moved_to: Option<u16>,
    /// The least wait before the next try, where the pool asked for one.
    pub(super) least_wait: Duration,
    /// What is wrong at present, so that it is said once.
    trouble: Option<String>,
    /// Whether there was work since the pool was last said to be lost.
    served: bool,
    /// Tries in a row that came to nothing.
    failures: u32,
}

impl Session {
    pub(super) fn new(config: Config, name: String, port: Port) -> Self {
        let habits = Habits::of(&config.endpoint, config.habits.as_deref());
        Self {
            version_bits: Learner::new(habits.version_bits()),
            habits,
            slow_subscriptions: 0,
            logins_refused: 0,
            lasting_failures: 0,
            config,
            name,
            port,
            table: JobTable::default(),
            pace: Pace::new(Instant::now()),
            resumption: Resumption::Unknown,
            trust: Trust::Stranger,
            grudges: Vec::new(),
            silence: Silence::default(),
            rolled: false,
            held: VecDeque::new(),
            gap_until: None,
            connected: false,
            faulty: None,
            refused: None,
            moved_to: None,
            least_wait: Duration::ZERO,
            trouble: Some(String::new()),
            served: false,
            failures: 0,
        }
    }

    /// Mines until it is time to go, or the pool will not have us.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let outcome = loop {
            let mut endpoint = self.config.endpoint.clone();
            let moved_to = self.moved_to.take();
            endpoint.port = moved_to.unwrap_or(endpoint.port);
            let transport = self.config.transport.clone();
            let attempt = async move { transport.connect(&endpoint).await };
            let reason = match self.meanwhile(attempt).await {
                None => break Ok(()),
                Some(Ok(stream)) => {
                    self.connected = true;
                    let (end, useful) = Talk::new(&mut self).run(stream).await;
                    self.connected = false;
                    if useful {
                        self.failures = 0;
                        self.moved_to = self.moved_to.or(moved_to);
                    }
                    match end {
                        End::Stopped => break Ok(()),
                        // The pool itself has sent us there.
                        End::Final(error) if moved_to.is_some() => {
                            self.moved_to = None;
                            error.to_string()
                        }
                        End::Final(error) => break Err(error),
                        End::Lost(reason) => reason,
                    }
                }
                Some(Err(error)) if moved_to.is_some() => error.to_string(),
                Some(Err(error)) => match self.final_error(&error) {
                    Some(error) => break Err(error),
                    None => error.to_string(),
                },
            };
            self.lost(reason);
            let wait = self.next_wait();
            if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                break Ok(());
            }
        };
        self.give_up("the connection was lost before it could be sent");
        outcome
    }

    /// Whether a failed connection is the end: what cannot get better by itself, if it never worked. A
    /// handshake that fails once may have been garbled on its way.
    fn final_error(&mut self, error: &ConnectError) -> Option<SourceError> {
        let is_lasting = error.is_final() && self.trust == Trust::Stranger;
        self.lasting_failures = if is_lasting { self.lasting_failures + 1 } else { 0 };
        let enough = if error.may_be_garbled() { GARBLED_HANDSHAKES } else { 1 };
        (self.lasting_failures >= enough).then(|| {
            let refusal = SourceError::new(Refused::BySource, self.what(), error.to_string());
            SourceError { hint: error.hint().map(Into::into), ..refusal }
        })
    }

    /// What fails when the pool will not have us.
    pub(super) fn what(&self) -> String {
        format!("pool {}", self.name)
    }

    /// What is to be done when there is no connection any more.
    pub(super) fn lost(&mut self, reason: String) {
        if !matches!(self.resumption, Resumption::May(_)) || self.table.is_empty() {
            self.give_up("the connection was lost before it could be sent");
        } else if self.gap_until.is_none() {
            self.gap_until = Some(Instant::now() + self.config.timing.gap);
        }
        if std::mem::take(&mut self.served) {
            // The next failure is announced whatever it says.
            self.trouble = Some(String::new());
            self.port.source_is(SourceState::Lost, Some(reason));
        } else if self.trouble.as_ref() != Some(&reason) {
            self.port.source_is(SourceState::Retrying, Some(reason.clone()));
            self.trouble = Some(reason);
        }
    }

    /// Says that all is well, if it was not. A pool that has a job for us may still be one that
    /// answers no share or refuses all; its jobs are mined where there is nothing better.
    pub(super) fn well(&mut self) {
        self.port.started(None);
        if self.faulty.is_some_and(|faulty| Instant::now() < faulty.until) {
            return;
        }
        self.served = true;
        if self.trouble.take().is_some() {
            self.port.source_is(SourceState::Connected, None);
        }
    }

    /// The pool has answered no share, or refused every one: it is not well for a while, twice as long
    /// each time.
    pub(super) fn is_faulty(&mut self, fault: Fault) {
        let times = self.faulty.map_or(0, |faulty| faulty.times);
        let wait = self.config.timing.deaf * 2u32.pow(times.min(3));
        self.faulty = Some(Faulty { fault, until: Instant::now() + wait, times: times + 1 });
    }

    /// The pool has shown that this fault is over.
    pub(super) fn is_over(&mut self, fault: Fault) {
        if self.faulty.take_if(|faulty| faulty.fault == fault).is_some() {
            self.well();
        }
    }

    /// How long an answer to `mining.subscribe` is waited for: longer each time that none came.
    pub(super) fn subscribe_patience(&self) -> Duration {
        let longer = 2u32.pow(self.slow_subscriptions.min(SLOW_SUBSCRIPTIONS));
        self.config.timing.subscribe * longer
    }

    /// No answer to `mining.subscribe` came in time.
    pub(super) fn subscribes_slowly(&mut self) {
        self.slow_subscriptions += 1;
    }

    /// The wait before the next try: twice as long each time, and never the same for two miners whose
    /// pool was lost at the same moment.
    fn next_wait(&mut self) -> Duration {
        let (first, last) = self.config.timing.backoff;
        let wait = last.min(first * 2u32.saturating_pow(self.failures.min(16)));
        self.failures += 1;
        wait.mul_f64(0.5 + fastrand::f64()).max(std::mem::take(&mut self.least_wait))
    }

    /// Does `work`, keeping what is found meanwhile; `None` if it is time to go.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let gap = self.gap_until;
            let gap_is_over = async {
                match gap {
                    Some(until) => sleep_until(until.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                done = &mut work => return Some(done),
                solution = self.port.solution() => match solution {
                    Some(solution) => self.hold(solution),
                    None => return None,
                },
                () = gap_is_over => self.give_up("the pool did not come back in time; not sent"),
            }
        }
    }

    /// Keeps a share until it can be sent, if it ever can.
    pub(super) fn hold(&mut self, solution: Solution) {
        if !self.connected && self.gap_until.is_none() {
            self.too_late(&solution, "there is no connection to the pool; not sent");
        } else if self.held.len() == HELD {
            self.too_late(&solution, "too many shares wait for the pool; not sent");
        } else {
            self.held.push_back(solution);
        }
    }

    /// The shares that wait, the oldest first.
    pub(super) fn take_held(&mut self) -> VecDeque<Solution> {
        std::mem::take(&mut self.held)
    }

    /// Ends mining for a session that is over.
    fn give_up(&mut self, why: &'static str) {
        self.gap_until = None;
        self.port.clear_job();
        for solution in self.take_held() {
            self.too_late(&solution, why);
        }
    }

    /// Begins a session that has nothing to do with the one before.
    pub(super) fn begin_session(&mut self) {
        if !self.table.is_empty() {
            self.give_up("the pool did not resume the session it was found in; not sent");
        }
        self.gap_until = None;
        self.table.begin_session();
    }

    /// Goes on with the session that was interrupted.
    pub(super) fn go_on(&mut self) {
        if self.gap_until.take().is_none() {
            // Mining had stopped; what is found from now on belongs to the session all the same.
            tracing::debug!("the pool has resumed the session after mining had stopped");
        }
    }

    /// A share that must not be sent.
    pub(super) fn too_late(&self, solution: &Solution, why: &'static str) {
        self.port.verdict(solution, Verdict::Stale(Refusal::new("", why)));
    }

    /// Whether something that pools need not know is sent to this one.
    pub(super) fn wants(&self, what: Optional) -> bool {
        self.grudges.iter().all(|(which, until)| *which != what || *until < Instant::now())
    }

    /// Leaves something out for a while that the pool took badly.
    pub(super) fn leave_out(&mut self, what: Optional) {
        tracing::debug!(?what, "left out with this pool from now on");
        self.grudges.retain(|(which, _)| *which != what);
        self.grudges.push((what, Instant::now() + self.config.timing.grudge));
    }

    /// Sends something again that was left out for nothing.
    pub(super) fn take_back_in(&mut self, what: Optional) {
        self.grudges.retain(|(which, _)| *which != what);
    }
}
