//! A Bitcoin node's `getblocktemplate` and `submitblock`.
//!
//! Three connections, so that nothing waits behind anything else: one submits blocks (and brings
//! the next template in the same batch, which is what makes a regtest chain grow quickly), one
//! refreshes the template, one long-polls. A node serves each open longpoll with a thread of its
//! own, also when nobody listens any more; so there is never more than one, and after one was left
//! open there is no other until the tip has moved, which ends them all.

mod cookie;
mod rpc;
mod template;

use std::borrow::Cow;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::{BlockHash, Network};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::sleep_until;

pub use self::cookie::cookie_files;
pub use self::rpc::{Credentials, Endpoint, Rpc, RpcError};
pub use self::template::{Payout, Ready, Template, TemplateError, read_answer};

use self::rpc::Envelope;
use super::refusals;
use super::{NO_ADDRESS, Refused, Run, Source, SourceError};
use crate::chain::block;
use crate::chain::coinbase::CoinbaseText;
use crate::chain::params::Params;
use crate::chain::payout::{PayoutError, PayoutScript};
use crate::engine::Port;
use crate::event::SourceState;
use crate::job::{JobKey, MerkleRoot, Solution, Verdict};
use crate::journal::{EntryId, Fate, Found, Journal};
use crate::printable::printable;

/// The largest template that is read: a block's 4 million weight units are 8 MB of hex, and 16,000
/// small transactions bring 10 MB of names and hashes with them.
const TEMPLATE_BYTES: usize = 32 << 20;
/// The largest other answer that is read.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a node may take for anything but a longpoll.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a longpoll may stay open. It ends with the next block, so this is only for a node that
/// has vanished without a word; the refreshes notice that sooner.
const LONGPOLL: Duration = Duration::from_secs(24 * 3600);
/// How long a template must have lasted before a longpoll is opened on it. On regtest none does,
/// and none is opened.
const LONGPOLL_AFTER: Duration = Duration::from_millis(500);
/// How often the template is fetched again for new transactions. Nodes cache theirs for 5 s.
const REFRESH: Duration = Duration::from_secs(10);
/// The same where there is no longpoll to tell of a new tip.
const POLL: Duration = Duration::from_secs(1);
/// How old a job may grow before it is replaced for the sake of its nTime alone.
const NTIME_AGE: Duration = Duration::from_secs(60);
/// How long the last template is mined on while the node is away. What is found is kept and sent
/// when it is back.
const MINE_WITHOUT_NODE: Duration = Duration::from_secs(60);
/// How long a node that has just been started may be without its cookie.
const COOKIE_IS_WRITTEN: Duration = Duration::from_secs(1);
/// The waits between tries, doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The waits before a height is tried again on which the node refused our block.
const SETBACK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Templates larger than this are read on another thread, so that a solution need not wait.
const READ_ASIDE_BYTES: usize = 64 << 10;

/// What to mine on a node, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node listens.
    pub endpoint: Endpoint,
    /// How we prove who we are.
    pub credentials: Credentials,
    /// The chain that the node must be on, where that was said.
    pub network: Option<Network>,
    /// Who is paid; only on regtest may it be nobody in particular.
    pub address: Option<Address<NetworkUnchecked>>,
    /// What stands in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
}

/// The source.
#[derive(Debug)]
pub struct GetBlockTemplate {
    config: Config,
    journal: Arc<Journal>,
}

impl GetBlockTemplate {
    /// Mines on a node; found blocks go through `journal`.
    #[must_use]
    pub fn new(config: Config, journal: Arc<Journal>) -> Self {
        Self { config, journal }
    }
}

impl Source for GetBlockTemplate {
    fn name(&self) -> String {
        format!("http://{}", self.config.endpoint)
    }

    fn run(self: Box<Self>, port: Port) -> Run {
        let name = if self.config.endpoint.is_loopback() {
            format!("http://127.0.0.1:{}", self.config.endpoint.port)
        } else {
            self.name()
        };
        Box::pin(async move {
            let submit = Rpc::new(self.config.endpoint.clone(), self.config.credentials.clone());
            let mut session = Session {
                keeper: Keeper { journal: self.journal, name, network: "" },
                config: self.config,
                port,
                submit,
                unanswered: Vec::new(),
                connection: 0,
                jobs: 0,
                current: None,
                left_open: None,
                setbacks: 0,
                batches: true,
                trouble: Some(String::new()),
                backoff: Backoff::new(BACKOFF),
                renewed: Instant::now(),
                begun: Instant::now(),
                earlier: Vec::new(),
                asked_journal: false,
            };
            let outcome = session.run().await;
            if let Err(error) = session.keeper.journal.flush() {
                session.port.notice(error.to_string());
            }
            outcome
        })
    }
}

/// A block that was sent, or will be as soon as that can be done, and has no answer.
#[derive(Debug)]
struct Unanswered {
    solution: Solution,
    block_hex: String,
    entry: Option<EntryId>,
}

/// The template that is mined.
#[derive(Debug)]
struct Current {
    previous_block_hash: BlockHash,
    longpollid: Option<String>,
    fingerprint: template::Fingerprint,
    published: Instant,
}

/// What ends mining on one connection.
enum End {
    /// It is time to go.
    Stopped,
    /// The node is gone.
    Lost(String),
}

/// The answers to a batch of `submitblock` and `getblocktemplate`.
type Both<'a, T> = (Envelope<Cow<'a, str>>, T);

/// A template on its way, with the connection it comes over.
type Fetch = Pin<Box<dyn Future<Output = (Rpc, Result<Ready, TemplateError>)> + Send>>;

/// Makes blocks of solutions and keeps them on disk.
struct Keeper {
    journal: Arc<Journal>,
    /// The node, as the journal names it: one name for each spelling of this machine.
    name: String,
    /// The node's chain.
    network: &'static str,
}

impl Keeper {
    /// Builds the block and writes it to the journal.
    fn keep(&self, solution: Solution, port: &Port) -> Unanswered {
        let job = &solution.job;
        let block_hex = match (&job.merkle_root, &job.body) {
            (MerkleRoot::Rolled(coinbase), Some(body)) => {
                block::assemble_hex(&solution.header, coinbase, solution.extranonce, body)
            }
            // Jobs of this source have both.
            _ => String::new(),
        };
        let found = Found {
            network: self.network,
            source: &self.name,
            height: job.height,
            header: &solution.header,
            block_hex: &block_hex,
        };
        let entry = match self.journal.record(&found) {
            Ok(entry) => Some(entry),
            Err(error) => {
                // A block that is not on disk is still worth sending.
                port.notice(format!("{error}; the block is sent without being on disk"));
                None
            }
        };
        Unanswered { solution, block_hex, entry }
    }

    /// Notes in the journal what became of a block.
    fn record_fate(&self, entry: EntryId, verdict: &Verdict) {
        if let Some(fate) = Fate::of(verdict) {
            self.journal.settle(entry, fate);
        }
    }
}

struct Session {
    keeper: Keeper,
    config: Config,
    port: Port,
    submit: Rpc,
    unanswered: Vec<Unanswered>,
    connection: u64,
    jobs: u64,
    current: Option<Current>,
    /// The tip under which a longpoll was left open on the node.
    left_open: Option<BlockHash>,
    /// Blocks refused in a row.
    setbacks: u32,
    /// Whether the node takes batches.
    batches: bool,
    /// What is wrong at present, so that it is said once.
    trouble: Option<String>,
    /// The wait before the next try, where tries fail.
    backoff: Backoff,
    /// When the node last gave a template.
    renewed: Instant,
    /// When all began.
    begun: Instant,
    /// Blocks of earlier runs that may have to be sent again.
    earlier: Vec<EntryId>,
    /// Whether the journal was asked for them.
    asked_journal: bool,
}

impl Session {
    async fn run(&mut self) -> Result<(), SourceError> {
        loop {
            let Some(payout) = self.connect().await? else { return Ok(()) };
            match self.mine(&payout).await? {
                End::Stopped => return Ok(()),
                End::Lost(reason) => {
                    self.submit.hang_up();
                    if self.trouble.is_none() {
                        // The first try is announced whatever it says.
                        self.trouble = Some(String::new());
                        self.port.source_is(SourceState::Lost, Some(reason));
                    } else {
                        self.say(reason);
                    }
                    let wait = self.backoff.next();
                    if self.wait(wait).await == Waited::Stopped {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Says what is wrong, once.
    fn say(&mut self, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            self.port.source_is(SourceState::Retrying, Some(reason.clone()));
            self.trouble = Some(reason);
        }
    }

    /// Says that all is well, if it was not.
    fn well(&mut self) {
        if self.trouble.take().is_some() {
            self.port.source_is(SourceState::Connected, None);
        }
    }

    /// Tries until the node answers and is one that we can mine on; `None` if it is time to go.
    async fn connect(&mut self) -> Result<Option<Payout>, SourceError> {
        loop {
            match self.introduce().await {
                Ok(payout) => {
                    self.connection += 1;
                    return Ok(Some(payout));
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(reason)) => self.say(reason),
            }
            self.give_up_old_template();
            let wait = self.backoff.next();
            if self.wait(wait).await == Waited::Stopped {
                return Ok(None);
            }
        }
    }

    /// Stops mining on a template that the node has not renewed for long.
    fn give_up_old_template(&mut self) {
        if self.renewed.elapsed() > MINE_WITHOUT_NODE && self.current.take().is_some() {
            self.port.withdraw();
        }
    }

    /// Calls the node over the connection that submits, keeping what is found meanwhile.
    async fn call(&mut self, body: String, limit: usize) -> Result<Bytes, RpcError> {
        let mut stopping = false;
        let mut call = std::pin::pin!(self.submit.call(body.into(), limit, DEADLINE));
        loop {
            tokio::select! {
                answer = &mut call => return answer,
                solution = self.port.solution(), if !stopping => match solution {
                    Some(solution) => {
                        let found = self.keeper.keep(solution, &self.port);
                        self.unanswered.push(found);
                    }
                    None => stopping = true,
                },
            }
        }
    }

    /// Waits, keeping what is found meanwhile.
    async fn wait(&mut self, time: Duration) -> Waited {
        let over = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                solution = self.port.solution() => match solution {
                    Some(solution) => {
                        let found = self.keeper.keep(solution, &self.port);
                        self.unanswered.push(found);
                    }
                    None => return Waited::Stopped,
                },
                () = sleep_until(over) => return Waited::Over,
            }
        }
    }

    /// Asks the node who it is, and sends again what has no answer yet.
    async fn introduce(&mut self) -> Result<Payout, Trouble> {
        let body = match self.call(request("getblockchaininfo", ""), ANSWER_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                // A node that takes no connection serves no longpoll either.
                if matches!(error, RpcError::Connection(_)) {
                    self.left_open = None;
                }
                return Err(self.trouble_of(error));
            }
        };
        let envelope: Envelope<ChainInfo<'_>> =
            template::parse(&body).map_err(|error| Trouble::Passing(error.to_string()))?;
        let info = match envelope.into_result() {
            Ok(Some(info)) => info,
            Ok(None) => return Err(Trouble::Passing("the node says nothing of itself".to_owned())),
            Err(error) => return Err(self.trouble_of(error)),
        };
        let Some(params) = Params::from_chain_name(&info.chain) else {
            let chain = printable(&info.chain, 40);
            let why = format!("it is on the chain {chain:?}, which adit does not know");
            return Err(self.refused(Refused::BySource, why, None));
        };
        let payout = self.payout(params)?;
        self.keeper.network = params.name;
        self.port.started(Some(params.network));
        self.send_again().await.map_err(|error| self.trouble_of(error))?;
        if !std::mem::replace(&mut self.asked_journal, true) {
            self.earlier = self.keeper.journal.pending(params.name);
        }
        self.send_earlier_runs().await.map_err(|error| self.trouble_of(error))?;
        if self.config.address.is_none() && self.connection == 0 {
            self.port.notice(NO_ADDRESS);
        }
        Ok(payout)
    }

    /// Checks the chain against what was asked for, and the address against the chain.
    fn payout(&self, params: &Params) -> Result<Payout, Trouble> {
        if let Some(wanted) = self.config.network.filter(|wanted| *wanted != params.network) {
            let wanted = Params::of(wanted).name;
            let why = format!("it is a node of {}, not of {wanted}", params.name);
            let hint = format!("start a node of {wanted}, or name the source by its address");
            return Err(self.refused(Refused::BySource, why, Some(hint)));
        }
        let what = "pay-out address";
        let script = match &self.config.address {
            Some(address) => PayoutScript::of(address, params.network).map_err(|error| {
                let refused = match error {
                    PayoutError::OtherNetwork { .. } => Refused::BySource,
                    _ => Refused::Configuration,
                };
                let hint = format!("give an address of {} with --address", params.name);
                Trouble::Final(SourceError::new(refused, what, error.to_string()).hint(hint))
            })?,
            None if params.network == Network::Regtest => PayoutScript::anyone_can_spend(),
            None => {
                let why = format!("mining on {} needs one", params.name);
                let error = SourceError::new(Refused::Configuration, what, why);
                return Err(Trouble::Final(error.hint("give it with --address")));
            }
        };
        Ok(Payout {
            script,
            text: self.config.text.clone(),
            version_rolling: self.config.version_rolling,
        })
    }

    /// Sends blocks again whose answer never came.
    async fn send_again(&mut self) -> Result<(), RpcError> {
        while let Some(block_hex) = self.unanswered.first().map(|found| found.block_hex.clone()) {
            let verdict = self.submit_alone(&block_hex).await?;
            let found = self.unanswered.remove(0);
            self.settle(&found, verdict);
        }
        Ok(())
    }

    /// Sends blocks of earlier runs on this node whose fate nobody knows.
    async fn send_earlier_runs(&mut self) -> Result<(), RpcError> {
        while let Some(entry) = self.earlier.first().copied() {
            match self.keeper.journal.read(entry) {
                Ok(Some(found)) if found.source == self.keeper.name => {
                    let verdict = self.submit_alone(&found.block_hex).await?;
                    let why = verdict.refusal().map(|why| format!(": {why}")).unwrap_or_default();
                    self.port.notice(format!(
                        "block {} of an earlier run was sent again, since its fate was unknown: {}{why}",
                        found.hash,
                        verdict.result(),
                    ));
                    self.keeper.record_fate(entry, &verdict);
                }
                Ok(Some(found)) => self.port.notice(format!(
                    "the journal has block {} for {}, whose fate is unknown: mine there to have it \
                     sent again",
                    found.hash, found.source,
                )),
                Ok(None) => {}
                Err(error) => self.port.notice(error.to_string()),
            }
            self.earlier.remove(0);
        }
        Ok(())
    }

    /// Submits a block in a call of its own.
    async fn submit_alone(&mut self, block_hex: &str) -> Result<Verdict, RpcError> {
        let answer = self.call(submit_request(block_hex, "", ""), ANSWER_BYTES).await?;
        let envelope: Envelope<String> = serde_json::from_slice(&answer)
            .map_err(|error| RpcError::Nonsense(error.to_string()))?;
        verdict_of(envelope.into_result())
    }

    /// Mines until the connection is lost or it is time to go.
    async fn mine(&mut self, payout: &Payout) -> Result<End, SourceError> {
        let sibling = self.submit.sibling();
        let mut fetch: Option<Fetch> = Some(fetch_template(sibling, None, payout.clone()));
        let mut kept: Option<Rpc> = None;
        let mut longpoll: Option<Fetch> = None;
        let mut refresh_at = Instant::now() + REFRESH;
        loop {
            let wake = if longpoll.is_none() && self.may_longpoll() {
                refresh_at.min(Instant::now() + LONGPOLL_AFTER)
            } else {
                refresh_at
            };
            tokio::select! {
                biased;
                solution = self.port.solution() => {
                    let Some(solution) = solution else { return Ok(End::Stopped) };
                    // Whatever is under way was asked for before this block.
                    fetch = None;
                    if longpoll.take().is_some() {
                        self.left_open = Some(solution.job.previous_block_hash);
                    }
                    match self.submit(solution, payout).await {
                        Ok(Next::Template(ready)) => {
                            self.publish(*ready);
                            refresh_at = Instant::now() + REFRESH;
                        }
                        Ok(Next::FetchIn(wait)) => refresh_at = Instant::now() + wait,
                        Err(Trouble::Passing(reason)) => return Ok(End::Lost(reason)),
                        Err(Trouble::Final(error)) => return Err(error),
                    }
                }
                (rpc, outcome) = next(&mut fetch) => {
                    fetch = None;
                    kept = Some(rpc);
                    match outcome {
                        Ok(ready) => {
                            self.publish(ready);
                            let polled = longpoll.is_none() && !self.may_longpoll();
                            refresh_at = Instant::now() + if polled { POLL } else { REFRESH };
                        }
                        Err(error) => {
                            if let Some(lost) = self.survive(error)? {
                                self.left_open = longpoll.and(self.tip());
                                return Ok(End::Lost(lost));
                            }
                            self.give_up_old_template();
                            refresh_at = Instant::now() + self.backoff.next();
                        }
                    }
                }
                (_, outcome) = next(&mut longpoll) => {
                    longpoll = None;
                    match outcome {
                        Ok(ready) => {
                            fetch = None;
                            self.publish(ready);
                            refresh_at = Instant::now() + REFRESH;
                        }
                        Err(error) => {
                            // The node may still be waiting on our behalf.
                            self.left_open = self.tip();
                            tracing::debug!(%error, "longpoll broke off");
                            refresh_at = Instant::now();
                        }
                    }
                }
                () = sleep_until(wake.into()) => {
                    if Instant::now() >= refresh_at {
                        // One that is still on its way has its own deadline.
                        refresh_at = Instant::now() + REFRESH;
                        if fetch.is_none() {
                            let rpc = kept.take().unwrap_or_else(|| self.submit.sibling());
                            fetch = Some(fetch_template(rpc, None, payout.clone()));
                        }
                    }
                    if longpoll.is_none() && self.may_longpoll() && self.has_lasted() {
                        let id = self.current.as_ref().and_then(|c| c.longpollid.clone());
                        longpoll = Some(fetch_template(self.submit.sibling(), id, payout.clone()));
                    }
                    if let Err(error) = self.keeper.journal.flush() {
                        self.port.notice(error.to_string());
                    }
                }
            }
        }
    }

    /// The block that the current template builds on.
    fn tip(&self) -> Option<BlockHash> {
        self.current.as_ref().map(|current| current.previous_block_hash)
    }

    /// Whether a longpoll may be opened on the current template.
    fn may_longpoll(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.longpollid.is_some() && self.left_open != Some(current.previous_block_hash)
        })
    }

    /// Whether the current template is older than one of a chain that is just growing.
    fn has_lasted(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.published.elapsed() >= LONGPOLL_AFTER)
    }

    /// Publishes a template as a job, unless it would be mined just as the current one.
    fn publish(&mut self, ready: Ready) {
        self.well();
        self.backoff = Backoff::new(BACKOFF);
        self.renewed = Instant::now();
        let clean = self
            .current
            .as_ref()
            .is_none_or(|current| current.previous_block_hash != ready.previous_block_hash());
        let same = self.current.as_ref().is_some_and(|current| {
            current.fingerprint == ready.fingerprint && current.published.elapsed() < NTIME_AGE
        });
        let longpollid = ready.longpollid.clone();
        if same {
            if let Some(current) = &mut self.current {
                current.longpollid = longpollid;
            }
            return;
        }
        // A new tip ends every longpoll on the old one, also those left open.
        if self.left_open.is_some_and(|tip| tip != ready.previous_block_hash()) {
            self.left_open = None;
        }
        self.current = Some(Current {
            previous_block_hash: ready.previous_block_hash(),
            longpollid,
            fingerprint: ready.fingerprint.clone(),
            published: Instant::now(),
        });
        self.jobs += 1;
        let key = JobKey { connection: self.connection, number: self.jobs };
        self.port.publish(ready.into_job(key, clean));
    }

    /// Submits a block, and fetches the next template with it.
    async fn submit(&mut self, solution: Solution, payout: &Payout) -> Result<Next, Trouble> {
        let found = self.keeper.keep(solution, &self.port);
        tracing::debug!(
            hash = %found.solution.hash,
            after = ?found.solution.found.elapsed(),
            "submitting"
        );
        if !self.batches {
            return self.submit_apart(found).await;
        }
        let and_template = format!(",{}]", template_request(None));
        let batch = submit_request(&found.block_hex, "[", &and_template);
        let body = match self.call(batch, TEMPLATE_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.trouble_of(error));
            }
        };
        let received = Instant::now();
        if !body.starts_with(b"[") {
            let lone = template::parse::<Envelope<IgnoredAny>>(&body);
            return match lone.map(Envelope::into_result) {
                // Parse error, invalid request, unknown method: it takes no batches.
                Ok(Err(RpcError::Node { code: -32700 | -32600 | -32601, .. })) => {
                    tracing::debug!("the node does not take batches");
                    self.batches = false;
                    self.submit_apart(found).await
                }
                Ok(Err(error)) => {
                    self.unanswered.push(found);
                    Err(self.trouble_of(error))
                }
                Ok(Ok(_)) | Err(_) => {
                    self.unanswered.push(found);
                    Err(Trouble::Passing("the answer to a batch is no list".to_owned()))
                }
            };
        }
        let (answer, template) = match template::parse::<Both<'_, Envelope<Template<'_>>>>(&body) {
            Ok((answer, template)) => (answer, template::make(template, payout, received)),
            // A template that can't be read must not hide the block's fate.
            Err(error) => match template::parse::<Both<'_, IgnoredAny>>(&body) {
                Ok((answer, _)) => (answer, Err(error)),
                Err(error) => {
                    self.unanswered.push(found);
                    return Err(Trouble::Passing(error.to_string()));
                }
            },
        };
        let answer = answer.into_result().map(|answer| answer.map(Cow::into_owned));
        let verdict = match verdict_of(answer) {
            Ok(verdict) => verdict,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.trouble_of(error));
            }
        };
        let stale = matches!(verdict, Verdict::Stale(_));
        let wait = self.settle(&found, verdict);
        let lost_to = |ready: &Ready| {
            stale && ready.previous_block_hash() != found.solution.job.previous_block_hash
        };
        match (wait, template) {
            // The block that won the race is there to build on.
            (Some(_), Ok(ready)) if lost_to(&ready) => Ok(Next::Template(Box::new(ready))),
            (Some(wait), _) => Ok(Next::FetchIn(wait)),
            (None, Ok(ready)) => Ok(Next::Template(Box::new(ready))),
            (None, Err(error)) => match self.survive(error) {
                Ok(None) => Ok(Next::FetchIn(BACKOFF.0)),
                Ok(Some(lost)) => Err(Trouble::Passing(lost)),
                Err(error) => Err(Trouble::Final(error)),
            },
        }
    }

    /// Submits a block in a call of its own.
    async fn submit_apart(&mut self, found: Unanswered) -> Result<Next, Trouble> {
        match self.submit_alone(&found.block_hex).await {
            Ok(verdict) => {
                let wait = self.settle(&found, verdict);
                Ok(Next::FetchIn(wait.unwrap_or(Duration::ZERO)))
            }
            Err(error) => {
                self.unanswered.push(found);
                Err(self.trouble_of(error))
            }
        }
    }

    /// Records a block's fate, and says how long to leave its height alone if it was not taken.
    fn settle(&mut self, found: &Unanswered, verdict: Verdict) -> Option<Duration> {
        if let Some(entry) = found.entry {
            self.keeper.record_fate(entry, &verdict);
        }
        let refused = matches!(verdict, Verdict::Rejected(_) | Verdict::Stale(_));
        self.setbacks = if refused { self.setbacks + 1 } else { 0 };
        self.port.verdict(&found.solution, verdict);
        // The job is over: a template like its own would be a new one.
        self.current = None;
        // And would be refused the same way: no storm of it.
        refused.then(|| doubled(SETBACK, self.setbacks - 1))
    }
}

impl Session {
    /// Whether a template that failed ends it all; whether the connection is to be made anew is in
    /// the answer: `Some` with the reason.
    fn survive(&mut self, error: TemplateError) -> Result<Option<String>, SourceError> {
        let reason = error.to_string();
        match error {
            TemplateError::Rpc(error) => {
                let lost = matches!(error, RpcError::Connection(_) | RpcError::Deadline(_));
                match self.trouble_of(error) {
                    Trouble::Final(error) => return Err(error),
                    Trouble::Passing(reason) if lost => return Ok(Some(reason)),
                    Trouble::Passing(reason) => self.say(reason),
                }
            }
            TemplateError::Unsupported(_) => {
                let error = SourceError::new(Refused::BySource, self.what(), reason);
                return Err(error.hint("a node of a released Bitcoin Core or Knots will do"));
            }
            TemplateError::SignetSignature => {
                let error = SourceError::new(Refused::BySource, self.what(), reason);
                return Err(error.hint(
                    "only whoever holds the signet's key can mine there; a signet with \
                     -signetchallenge=51 needs none",
                ));
            }
            TemplateError::Json(_)
            | TemplateError::Field { .. }
            | TemplateError::CoinbaseAux(_) => {
                self.say(reason);
            }
        }
        Ok(None)
    }

    /// What a failed call means: the end, or another try.
    fn trouble_of(&self, error: RpcError) -> Trouble {
        let why = error.to_string();
        // A node that is starting again has no cookie yet, or not the one that we read.
        let by_cookie = matches!(self.config.credentials, Credentials::Cookie(_));
        let (refused, hint) = match &error {
            RpcError::NoCookie(_) | RpcError::BadCookie { .. } | RpcError::Unauthorized(_)
                if by_cookie
                    && (self.connection > 0 || self.begun.elapsed() < COOKIE_IS_WRITTEN) =>
            {
                return Trouble::Passing(why);
            }
            RpcError::Unauthorized(_) => (
                Refused::BySource,
                match self.config.credentials {
                    Credentials::UserPassword { .. } => {
                        "check --rpc-user and ADIT_RPC_PASSWORD against the node's rpcauth or rpcuser"
                    }
                    Credentials::Cookie(_) => {
                        "is it the cookie of this node? name its file with --rpc-cookie, or its data \
                         directory with --datadir"
                    }
                },
            ),
            RpcError::Forbidden => (Refused::BySource, "allow it with the node's -rpcallowip"),
            RpcError::NoCookie(_) => (
                Refused::Configuration,
                "name the node's data directory with --datadir, its cookie with --rpc-cookie, or log \
                 in with --rpc-user and ADIT_RPC_PASSWORD",
            ),
            RpcError::BadCookie { .. } => {
                (Refused::Configuration, "name the node's cookie with --rpc-cookie")
            }
            // Method not found: a wallet, a proxy, another daemon.
            RpcError::Node { code: -32601, .. } => {
                (Refused::BySource, "the source must be a node that knows getblocktemplate")
            }
            RpcError::Node { code: -8, message } if message.contains("rule") => {
                (Refused::BySource, "this chain needs rules that adit does not know")
            }
            _ => return Trouble::Passing(why),
        };
        Trouble::Final(SourceError::new(refused, self.what(), why).hint(hint))
    }

    /// What fails when the node will not have us.
    fn what(&self) -> String {
        format!("node {}", self.config.endpoint)
    }

    fn refused(&self, refused: Refused, why: String, hint: Option<String>) -> Trouble {
        Trouble::Final(SourceError { hint, ..SourceError::new(refused, self.what(), why) })
    }
}

/// What went wrong: for good, or for now.
enum Trouble {
    Final(SourceError),
    Passing(String),
}

/// What follows a submitted block.
enum Next {
    /// The template that came with the answer.
    Template(Box<Ready>),
    /// A template is to be fetched, this much later.
    FetchIn(Duration),
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Over,
    Stopped,
}

/// What we want to know of a node.
#[derive(Debug, Deserialize)]
struct ChainInfo<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
}

/// Waits that double.
struct Backoff {
    range: (Duration, Duration),
    tries: u32,
}

impl Backoff {
    const fn new(range: (Duration, Duration)) -> Self {
        Self { range, tries: 0 }
    }

    fn next(&mut self) -> Duration {
        self.tries += 1;
        doubled(self.range, self.tries - 1)
    }
}

/// The first wait doubled `times` times, and never more than the last.
fn doubled((first, last): (Duration, Duration), times: u32) -> Duration {
    last.min(first * 2u32.saturating_pow(times.min(16)))
}

/// A JSON-RPC call. `params` are JSON already.
fn request(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"1.0\",\"id\":\"adit\",\"method\":\"{method}\",\"params\":[{params}]}}")
}

/// The call for a template: at once, or when the one that `longpollid` names is out of date.
fn template_request(longpollid: Option<&str>) -> String {
    let mut request_object = serde_json::json!({ "rules": ["segwit", "signet"] });
    if let Some(id) = longpollid {
        request_object["longpollid"] = id.into();
    }
    request("getblocktemplate", &request_object.to_string())
}

/// Fetches a template over `rpc`, at once or by longpoll, and makes it ready.
fn fetch_template(mut rpc: Rpc, longpollid: Option<String>, payout: Payout) -> Fetch {
    Box::pin(async move {
        let deadline = if longpollid.is_some() { LONGPOLL } else { DEADLINE };
        let body = template_request(longpollid.as_deref());
        let answer = rpc.call(body.into(), TEMPLATE_BYTES, deadline).await;
        let received = Instant::now();
        let ready = match answer {
            Ok(body) => read_where_it_disturbs_nobody(body, payout, received).await,
            Err(error) => Err(error.into()),
        };
        (rpc, ready)
    })
}

async fn read_where_it_disturbs_nobody(
    body: Bytes,
    payout: Payout,
    received: Instant,
) -> Result<Ready, TemplateError> {
    if body.len() <= READ_ASIDE_BYTES {
        return read_answer(&body, &payout, received);
    }
    let read = move || read_answer(&body, &payout, received);
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_| Err(TemplateError::Json("reading it failed".to_owned())))
}

/// What a pending template comes to; never returns where none is pending.
async fn next(fetch: &mut Option<Fetch>) -> (Rpc, Result<Ready, TemplateError>) {
    match fetch {
        Some(fetch) => fetch.await,
        None => pending().await,
    }
}

/// The call that submits a block, between two other pieces of text. A block can be megabytes of hex:
/// it is copied once.
fn submit_request(block_hex: &str, before: &str, after: &str) -> String {
    let (head, tail) =
        (r#"{"jsonrpc":"1.0","id":"adit","method":"submitblock","params":[""#, "\"]}");
    let parts = [before, head, block_hex, tail, after];
    let mut body = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    body.extend(parts);
    body
}

/// What the answer to `submitblock` says of the block (null is `None`). Errors are verdicts only
/// where they speak of the block: Bitcoin Core's RPC_DESERIALIZATION_ERROR and RPC_VERIFY_*. A node
/// that is starting, stopping or overloaded has not looked at it.
fn verdict_of(answer: Result<Option<String>, RpcError>) -> Result<Verdict, RpcError> {
    match answer {
        Ok(None) => Ok(Verdict::Accepted),
        Ok(Some(words)) => Ok(refusals::verdict_for(&words)),
        Err(RpcError::Node { code: -22 | -25 | -26 | -27, message }) => {
            Ok(refusals::verdict_for(&message))
        }
        Err(error) => Err(error),
    }
}
