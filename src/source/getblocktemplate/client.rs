//! Mining on a node: connecting to it ([`connecting`]), keeping its template fresh, publishing it as a
//! job, and submitting what is found.

mod connecting;

use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bytes::Bytes;
use tokio::time::sleep_until;

use super::Config;
use super::calls::{header_request, parse_block_time, parse_chain_name, request};
use super::clocks::Clocks;
use super::fetch::{Fetched, TemplateFetcher};
use super::limits::{REFRESH, RESPONSE_BYTES};
use super::mempool::{MempoolReport, MempoolWatch};
use super::node_error::{ErrorClassifier, NodeError, TemplateFailure};
use super::node_state::NodeState;
use super::pacer::{Pacer, TemplateUse};
use super::publisher::JobPublisher;
use super::rpc::RpcError;
use super::submission::{FoundBlock, SubmitError, Submitted, Submitter};
use super::template::{Payout, PreparedTemplate, TemplateError};
use super::tip::{TipUpdate, TipWatch};
use crate::chain::params::Params;
use crate::engine::Port;
use crate::job::{Solution, Verdict};
use crate::printable::printable;
use crate::source::SourceError;
use crate::source::backoff::Backoff;
use crate::source::block_schedule::skipped_notice;

/// The waits between attempts, doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same for a node on this machine, which costs nothing to ask.
const LOCAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// How often the loop wakes while no block is due.
const IDLE_WAKE: Duration = Duration::from_secs(10);
/// How often it is announced that block time is too far ahead of the clock.
const AHEAD_NOTICE_INTERVAL: Duration = Duration::from_secs(600);

/// What ends mining on one connection.
enum ConnectionEnd {
    /// It is time to stop.
    Stopped,
    /// The node is gone; the reason.
    Lost(String),
    /// The user wants another connection.
    ReconnectRequested,
}

/// Whether mining on the connection goes on (`None`) after something has been handled; the error ends
/// the source.
type Handled = Result<Option<ConnectionEnd>, SourceError>;

/// What is thought of templates that the node may have cached from an earlier call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemplateCache {
    /// They are as good as new ones.
    Trusted,
    /// Their time was too far ahead: the node's clock has been set back since.
    Outdated,
}

/// A node's client for the time that the source runs, over however many connections.
pub struct Client {
    config: Config,
    port: Port,
    submitter: Submitter,
    /// What was announced of the connection.
    state: NodeState,
    errors: ErrorClassifier,
    /// The wait before the next attempt, where attempts fail.
    backoff: Backoff,
    /// The template that is mined.
    publisher: JobPublisher,
    /// The facts of the node's chain.
    params: Option<&'static Params>,
    /// Whether a block is due.
    pacer: Pacer,
    /// The clocks when they were last looked at.
    clocks: Clocks,
    /// When it was last announced that block time is too far ahead of the clock.
    announced_ahead: Option<Instant>,
    /// What the tip may be without another miner having made it: the last template's, and our own
    /// block.
    known_tips: Vec<BlockHash>,
    template_cache: TemplateCache,
}

impl Client {
    /// Mines on the node that `config` names. `submitter` has the connection to it.
    pub fn new(config: Config, submitter: Submitter, port: Port) -> Self {
        let local = config.endpoint.is_loopback();
        Self {
            errors: ErrorClassifier::new(config.endpoint.clone(), config.credentials.clone()),
            backoff: Backoff::new(if local { LOCAL_BACKOFF } else { BACKOFF }),
            pacer: Pacer::new(config.pace),
            config,
            port,
            submitter,
            state: NodeState::default(),
            publisher: JobPublisher::new(),
            params: None,
            clocks: Clocks::now(),
            announced_ahead: None,
            known_tips: Vec::new(),
            template_cache: TemplateCache::Trusted,
        }
    }

    /// Runs until it is time to stop.
    ///
    /// # Errors
    /// When the node cannot be mined on and trying again cannot help.
    pub async fn run(mut self) -> Result<(), SourceError> {
        let outcome = self.reconnect_until_stopped().await;
        self.submitter.flush_journal(&self.port);
        outcome
    }

    /// Mines until the connection is lost or it is time to stop.
    async fn mine(&mut self, payout: &Payout) -> Result<ConnectionEnd, SourceError> {
        let mut fetcher = TemplateFetcher::new();
        let mut tips = self.watch_tip();
        self.watch_mempool();
        self.clocks = Clocks::now();
        self.known_tips.clear();
        // Also where no block is due yet: it shows that the node gives templates.
        self.begin_fetch(payout, &mut fetcher);
        loop {
            if self.clock_jumped() {
                // The machine may have slept, and every connection with it.
                fetcher.start_again();
                tips = self.watch_tip();
                self.submitter.hang_up();
                self.watch_mempool();
            }
            tips.mining_on(self.publisher.tip());
            let wake = self.wake_at(fetcher.due);
            let reconnect = self.port.reconnect_requested();
            let end = tokio::select! {
                biased;
                // Before solutions: of easy blocks there is always one.
                () = reconnect => Some(ConnectionEnd::ReconnectRequested),
                solution = self.port.solution() => {
                    self.on_solution(solution, payout, &mut fetcher).await?
                }
                fetched = fetcher.next() => self.on_fetched(fetched, &mut fetcher).await?,
                update = tips.next() => self.on_tip_update(update, &mut fetcher),
                report = self.pacer.mempool(), if self.pacer.is_idle() => {
                    self.on_mempool(report, &mut fetcher)?
                }
                resubmitted = self.submitter.next_resubmitted() => {
                    self.on_resubmitted(resubmitted, &mut fetcher)
                }
                () = self.publisher.proposals.answered() => self.on_proposal_result(),
                () = sleep_until(wake.into()) => self.on_wake(payout, &mut fetcher),
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Submits a block; `None` means that it is time to stop.
    async fn on_solution(
        &mut self,
        solution: Option<Solution>,
        payout: &Payout,
        fetcher: &mut TemplateFetcher,
    ) -> Handled {
        let Some(solution) = solution else { return Ok(Some(ConnectionEnd::Stopped)) };
        // Whatever is under way was asked for before this block.
        fetcher.drop_under_way();
        // At a pace the next template is not wanted yet.
        let with_template = self.pacer.pace().is_none().then_some(payout);
        let Self { submitter, port, state, .. } = self;
        match submitter.submit(solution, with_template, port, state).await {
            Ok(submitted) => self.on_submitted(submitted, fetcher).await,
            Err(SubmitError::Rpc(error)) => match self.errors.classify(&error) {
                NodeError::Fatal(error) => Err(error),
                NodeError::Temporary(reason) => Ok(Some(ConnectionEnd::Lost(reason))),
            },
            Err(SubmitError::Unreadable(reason)) => Ok(Some(ConnectionEnd::Lost(reason))),
        }
    }

    /// Announces the verdict, and goes on with the template that came with it.
    async fn on_submitted(
        &mut self,
        submitted: Submitted,
        fetcher: &mut TemplateFetcher,
    ) -> Handled {
        let Submitted { found, verdict, template } = submitted;
        let stale = matches!(verdict, Verdict::Stale(_));
        let wait = self.settle(&found, verdict);
        let lost_to = |template: &PreparedTemplate| {
            stale && template.previous_block_hash() != found.solution.job.previous_block_hash
        };
        match (wait, template) {
            // The block that won the race is there to build on.
            (Some(_), Some(Ok(template))) if lost_to(&template) => {
                return Ok(self.use_template_and_plan(template, fetcher).await);
            }
            (Some(wait), _) => fetcher.next_at(Instant::now() + wait),
            (None, Some(Ok(template))) => {
                return Ok(self.use_template_and_plan(template, fetcher).await);
            }
            (None, Some(Err(error))) => {
                if let Some(reason) = self.on_template_error(error)? {
                    return Ok(Some(ConnectionEnd::Lost(reason)));
                }
                fetcher.next_at(Instant::now() + BACKOFF.0);
            }
            (None, None) => fetcher.next_at(Instant::now()),
        }
        Ok(None)
    }

    /// Uses the template that was fetched, or goes on without.
    async fn on_fetched(&mut self, fetched: Fetched, fetcher: &mut TemplateFetcher) -> Handled {
        match fetched {
            Fetched::Slow(reason) => self.state.slow(&self.port, reason),
            Fetched::Template(Ok(template)) => {
                return Ok(self.use_template_and_plan(*template, fetcher).await);
            }
            Fetched::Template(Err(error)) => {
                if let Some(reason) = self.on_template_error(error)? {
                    return Ok(Some(ConnectionEnd::Lost(reason)));
                }
                self.publisher.drop_old_template(&self.port);
                fetcher.next_at(Instant::now() + self.backoff.next());
            }
        }
        Ok(None)
    }

    /// Has a template fetched on a tip that is neither the last one nor a block of ours.
    fn on_tip_update(
        &mut self,
        update: TipUpdate,
        fetcher: &mut TemplateFetcher,
    ) -> Option<ConnectionEnd> {
        let is_known = matches!(update, TipUpdate::Tip(tip) if self.known_tips.contains(&tip));
        if !is_known {
            self.submitter.tip_moved();
            if !self.pacer.is_idle() {
                fetcher.tip_moved();
            }
        }
        None
    }

    /// Has a template fetched for what is in the mempool.
    fn on_mempool(&mut self, report: MempoolReport, fetcher: &mut TemplateFetcher) -> Handled {
        match report {
            MempoolReport::Transactions(change) => {
                fetcher.due = Instant::now();
                self.pacer.mempool_changed(change, fetcher.due);
                Ok(None)
            }
            MempoolReport::Slow(reason) => {
                self.state.slow(&self.port, reason);
                Ok(None)
            }
            MempoolReport::Failed(error) => match self.errors.classify(&error) {
                NodeError::Fatal(error) => Err(error),
                NodeError::Temporary(reason) => Ok(Some(ConnectionEnd::Lost(reason))),
            },
        }
    }

    /// Announces what the node says of a block that it could not judge before (`None`: the round is
    /// over). Has a template fetched if it was accepted: it may be the tip now.
    fn on_resubmitted(
        &mut self,
        resubmitted: Option<(BlockHash, Verdict)>,
        fetcher: &mut TemplateFetcher,
    ) -> Option<ConnectionEnd> {
        let (hash, verdict) = resubmitted?;
        let fate = self.submitter.settle_resubmitted(hash, verdict, &self.port);
        if fate == Some(Verdict::Accepted) {
            fetcher.tip_moved();
        }
        None
    }

    /// Announces that the node would reject our blocks, if it said so.
    fn on_proposal_result(&mut self) -> Option<ConnectionEnd> {
        self.publisher.announce_rejection(&self.port, &mut self.state);
        None
    }

    /// Does what is due by the clock.
    fn on_wake(&mut self, payout: &Payout, fetcher: &mut TemplateFetcher) -> Option<ConnectionEnd> {
        let now = Instant::now();
        if self.pacer.due().is_some_and(|due| due <= now) {
            if let Some(number) = self.pacer.begin(now) {
                self.port.notice(skipped_notice(number));
            }
            fetcher.due = now;
        }
        if !self.pacer.is_idle() {
            self.begin_fetch(payout, fetcher);
        }
        self.submitter.resubmit_due();
        self.submitter.flush_journal(&self.port);
        None
    }

    /// Deals with a template that could not be fetched or read; returns why the connection is lost,
    /// if it is.
    fn on_template_error(&mut self, error: TemplateError) -> Result<Option<String>, SourceError> {
        match self.errors.on_template_error(error) {
            TemplateFailure::AheadOfClock => self.announce_ahead(),
            TemplateFailure::Retry(reason) => self.state.retrying(&self.port, reason),
            TemplateFailure::Lost(reason) => return Ok(Some(reason)),
            TemplateFailure::Fatal(error) => return Err(error),
        }
        Ok(None)
    }

    /// Announces now and then that block time is too far ahead of the clock: on a chain that has
    /// grown quickly for long each second has room for a few blocks, and the node refuses to make a
    /// template in between.
    fn announce_ahead(&mut self) {
        if self.announced_ahead.is_none_or(|at| at.elapsed() > AHEAD_NOTICE_INTERVAL) {
            self.announced_ahead = Some(Instant::now());
            self.port.notice(
                "the chain's time is two hours ahead of the node's clock, which is all it may be: \
                 blocks come as the clock goes on",
            );
        }
    }

    /// Begins to fetch a template, if one is due.
    fn begin_fetch(&self, payout: &Payout, fetcher: &mut TemplateFetcher) {
        // At a pace, each is to hold what the mempool holds by then. And where the clock was set
        // back, a node may have cached a template of before that, which it would refuse.
        let fresh = self.pacer.pace().is_some() || self.template_cache == TemplateCache::Outdated;
        fetcher.begin(self.submitter.rpc(), fresh, payout);
    }

    /// When to wake if nothing happens before.
    fn wake_at(&self, fetch_due: Instant) -> Instant {
        let mut wake = if self.pacer.is_idle() { Instant::now() + IDLE_WAKE } else { fetch_due };
        // The journal is written to when no block has come for a moment.
        if let Some(lasts_at) = self.publisher.lasts_at() {
            wake = wake.min(lasts_at);
        }
        if let Some(due) = self.submitter.resubmit_at() {
            wake = wake.min(due);
        }
        self.pacer.due().map_or(wake, |due| due.min(wake))
    }

    /// Watches the node's tip, over connections of its own.
    fn watch_tip(&self) -> TipWatch {
        TipWatch::start(self.submitter.rpc(), self.config.endpoint.clone())
    }

    /// Watches the mempool, if the pace needs that, over connections of its own.
    fn watch_mempool(&mut self) {
        let Self { pacer, submitter, config, .. } = self;
        pacer.connected(Instant::now(), || {
            MempoolWatch::start(submitter.rpc().sibling(), config.endpoint.clone())
        });
    }

    /// Whether the wall clock has jumped since it was last looked at; announces it.
    fn clock_jumped(&mut self) -> bool {
        let now = Clocks::now();
        let jump = now.jump_since(std::mem::replace(&mut self.clocks, now));
        if let Some(jump) = jump {
            self.port.notice(format!("{jump}; connecting to the node again"));
        }
        jump.is_some()
    }

    /// Uses a template, and plans when the next is fetched.
    async fn use_template_and_plan(
        &mut self,
        template: PreparedTemplate,
        fetcher: &mut TemplateFetcher,
    ) -> Option<ConnectionEnd> {
        match self.use_template(template).await {
            Ok(due) => {
                fetcher.next_at(due);
                None
            }
            Err(reason) => Some(ConnectionEnd::Lost(reason)),
        }
    }

    /// Mines a template, or not, as the pace has it. Returns when to fetch the next, or why the
    /// node is not the one that it was.
    async fn use_template(&mut self, template: PreparedTemplate) -> Result<Instant, String> {
        self.check_same_chain(template.previous_block_hash()).await?;
        self.publisher.on_template_received(&self.port, &mut self.state);
        self.backoff.reset();
        self.submitter.template_received(template.previous_block_hash(), template.height());
        let refresh_at = Instant::now() + REFRESH;
        Ok(match self.pacer.template_use(template.has_transactions(), Instant::now()) {
            TemplateUse::Mine => {
                self.ask_tip_time(&template).await;
                let Self { publisher, params, port, state, submitter, .. } = self;
                publisher.publish(template, *params, port, state, || submitter.rpc().sibling());
                publisher.until().map_or(refresh_at, |until| until.min(refresh_at))
            }
            TemplateUse::FetchAgain(wait) => {
                self.publisher.rest(&self.port);
                Instant::now() + wait
            }
            TemplateUse::Skip => {
                self.publisher.rest(&self.port);
                refresh_at
            }
        })
    }

    /// Makes sure that the node is still on its chain when its tip is neither the one it was nor a
    /// block of ours: one that was restarted so quickly that no call failed may be on another,
    /// where the coins would be lost or go to someone else.
    async fn check_same_chain(&mut self, tip: BlockHash) -> Result<(), String> {
        let known = self.known_tips.is_empty() || self.known_tips.contains(&tip);
        self.known_tips.clear();
        self.known_tips.push(tip);
        if known {
            return Ok(());
        }
        let body = self.small_call(request("getblockchaininfo", "")).await;
        let body = body.map_err(|error| error.to_string())?;
        let chain = parse_chain_name(&body).map_err(|error| error.to_string())?;
        let chain = chain.map(|chain| printable(&chain, 40)).unwrap_or_default();
        if self.params.is_some_and(|params| params.chain_name == chain) {
            Ok(())
        } else {
            self.publisher.stop_mining(&self.port);
            Err(format!("the node is on another chain now, {chain:?}"))
        }
    }

    /// Asks the node for the nTime of the block that a template builds on, if a rule depends on it.
    async fn ask_tip_time(&mut self, template: &PreparedTemplate) {
        let Some(hash) = self.publisher.min_difficulty.unknown_tip(template, self.params) else {
            return;
        };
        let body = self.small_call(header_request(hash)).await;
        match body.and_then(|body| parse_block_time(&body)) {
            Ok(Some(time)) => self.publisher.min_difficulty.set_tip_time(hash, time),
            Ok(None) => {}
            // The template is good without: its bits hold for its own time, and it is renewed.
            Err(error) => tracing::debug!(%error, "the time of the tip is not known"),
        }
    }

    /// Announces the verdict of a block and notes what it means for the next one; how long to wait
    /// before its height is mined again, if the block was not accepted.
    fn settle(&mut self, found: &FoundBlock, verdict: Verdict) -> Option<Duration> {
        let wait = self.submitter.settle(found, &verdict);
        if verdict.reject_reason().is_some_and(|why| why.words == "time-too-new") {
            self.template_cache = TemplateCache::Outdated;
            self.announce_ahead();
        } else {
            self.template_cache = TemplateCache::Trusted;
        }
        let accepted = verdict == Verdict::Accepted;
        self.port.verdict(&found.solution, verdict);
        self.publisher.job_solved();
        if accepted {
            self.known_tips.push(found.solution.hash);
            self.pacer.block_made(Instant::now());
        }
        wait
    }

    /// Makes a small call over the connection that submits, before mining or while it goes on, and
    /// keeps what is found meanwhile.
    async fn call(&mut self, body: String) -> Result<Bytes, RpcError> {
        let Self { submitter, port, state, .. } = self;
        submitter.call(body, RESPONSE_BYTES, port, state).await
    }

    /// Makes a small call that must not take long, since what is found meanwhile waits.
    async fn small_call(&mut self, body: String) -> Result<Bytes, RpcError> {
        let Self { submitter, port, state, .. } = self;
        submitter.small_call(body, port, state).await
    }
}
