//! Mining on a node: finding it, keeping its template fresh, and publishing it.

use std::pin::pin;

use super::fetch::{Fetched, Fetching};
use super::mempool::Report;
use super::tip::{News, TipWatch};
use super::*;

impl Session {
    pub(super) async fn run(&mut self) -> Result<(), SourceError> {
        loop {
            let end = match self.connect().await? {
                Some(payout) => self.mine(&payout).await?,
                None => End::Stopped,
            };
            match end {
                End::Stopped => {
                    self.standing.ended(&self.port);
                    return Ok(());
                }
                End::Lost(reason) => {
                    self.submit.hang_up();
                    self.standing.lost(&self.port, reason);
                    let wait = self.backoff.next();
                    if self.wait(wait).await == Waited::Stopped {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Says what is wrong, once.
    pub(super) fn say(&mut self, reason: String) {
        self.standing.say(&self.port, reason);
    }

    /// Tries until the node answers and is one that we can mine on; `None` if it is time to go.
    pub(super) async fn connect(&mut self) -> Result<Option<Payout>, SourceError> {
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
    pub(super) fn give_up_old_template(&mut self) {
        if self.renewed.elapsed() > MINE_WITHOUT_NODE {
            self.give_up();
        }
    }

    /// Calls the node over the connection that submits, keeping what is found meanwhile. Goes on when
    /// it is time to go: a block may be on its way.
    pub(super) async fn call(&mut self, body: String, limit: usize) -> Result<Bytes, RpcError> {
        let Self { submit, port, keeper, unanswered, config, standing, .. } = self;
        let (mut stopping, mut stalled) = (false, false);
        let mut call = pin!(submit.call(body.into(), limit, DEADLINE));
        let mut reason = pin!(stall::reason(|| config.client()));
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return answer,
                solution = port.solution(), if !stopping => {
                    if let Some(solution) = solution {
                        unanswered.push(keeper.keep(solution, port));
                    } else {
                        stopping = true;
                        standing.ended(port);
                    }
                }
                reason = &mut reason, if !stalled => {
                    stalled = true;
                    standing.stalled(port, reason);
                }
            }
        }
    }

    /// Asks the node something small while it is mined.
    async fn ask_aside(&mut self, call: String) -> Result<Bytes, RpcError> {
        let Self { submit, port, config, standing, .. } = self;
        let mut call = pin!(submit.call(call.into(), ANSWER_BYTES, ASIDE));
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            reason = stall::reason(|| config.client()) => standing.stalled(port, reason),
        }
        call.await
    }

    /// Waits, keeping what is found meanwhile.
    pub(super) async fn wait(&mut self, time: Duration) -> Waited {
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
    pub(super) async fn introduce(&mut self) -> Result<Payout, Trouble> {
        let body = match self.call(request("getblockchaininfo", ""), ANSWER_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                if matches!(error, RpcError::Connection(_)) {
                    self.unreachable = Some(Instant::now());
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
        self.params = Some(params);
        self.keeper.network = params.name;
        self.port.started(Some(params.network));
        self.send_again().await.map_err(|error| self.trouble_of(error))?;
        if !std::mem::replace(&mut self.asked_journal, true) {
            self.earlier = self.keeper.journal.pending(params.name);
        }
        self.send_earlier_runs().await.map_err(|error| self.trouble_of(error))?;
        self.waiting.tip_moved();
        if self.config.address.is_none() && self.connection == 0 {
            self.port.notice(NO_ADDRESS);
        }
        Ok(payout)
    }

    /// Checks the chain against what was asked for, and the address against the chain.
    pub(super) fn payout(&self, params: &Params) -> Result<Payout, Trouble> {
        if let Some(wanted) = self.config.network.filter(|wanted| *wanted != params.network) {
            let wanted = Params::of(wanted).name;
            let why = format!("it is a node of {}, not of {wanted}", params.name);
            let hint = format!("start a node of {wanted}, or name the source by its address");
            return Err(self.refused(Refused::BySource, why, Some(hint)));
        }
        if let Some(pace) = self.pacer.pace().filter(|_| !params.is_paced_at_will()) {
            let why = format!("blocks of {} do not come at will", params.name);
            let error = SourceError::new(Refused::Configuration, pace.options(), why);
            let hint = "the pace is for regtest and for signets that need no signature";
            return Err(Trouble::Final(error.hint(hint)));
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

    /// Mines until the connection is lost or it is time to go.
    pub(super) async fn mine(&mut self, payout: &Payout) -> Result<End, SourceError> {
        let mut fetching = Fetching::new();
        let mut tips = self.watch_tip();
        self.watch_mempool();
        self.clocks = Clocks::now();
        self.known_tips.clear();
        // Also where no block is due yet: it shows that the node gives templates.
        self.begin_fetch(payout, &mut fetching);
        loop {
            if self.clock_jumped() {
                // The machine may have slept, and every connection with it.
                fetching.start_again();
                tips = self.watch_tip();
                self.submit.hang_up();
                self.watch_mempool();
            }
            tips.mining_on(self.tip());
            let wake = self.wake(fetching.due);
            let end = tokio::select! {
                biased;
                solution = self.port.solution() => match solution {
                    Some(solution) => self.on_solution(solution, payout, &mut fetching).await?,
                    None => return Ok(End::Stopped),
                },
                fetched = fetching.next() => self.on_fetched(fetched, &mut fetching).await?,
                news = tips.news() => {
                    self.on_news(news, &mut fetching);
                    None
                }
                report = self.pacer.mempool(), if self.pacer.rests() => {
                    self.on_mempool(report, &mut fetching)?
                }
                judged = self.waiting.judged() => {
                    if self.on_judged(judged) == Some(Verdict::Accepted) {
                        // It may be the tip now.
                        fetching.tip_moved();
                    }
                    None
                }
                () = self.proposals.answered() => {
                    if let Some(why) = self.proposals.refusal(self.connection) {
                        self.say(why);
                    }
                    None
                }
                () = sleep_until(wake.into()) => {
                    self.on_wake(payout, &mut fetching);
                    None
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Submits a block.
    async fn on_solution(
        &mut self,
        solution: Solution,
        payout: &Payout,
        fetching: &mut Fetching,
    ) -> Result<Option<End>, SourceError> {
        // Whatever is under way was asked for before this block.
        fetching.drop_under_way();
        match self.submit(solution, payout).await {
            Ok(Next::Template(ready)) => return Ok(self.take_next(*ready, fetching).await),
            Ok(Next::FetchIn(wait)) => fetching.next_at(Instant::now() + wait),
            Err(Trouble::Passing(reason)) => return Ok(Some(End::Lost(reason))),
            Err(Trouble::Final(error)) => return Err(error),
        }
        Ok(None)
    }

    /// Takes the template that was fetched, or bears that there is none.
    async fn on_fetched(
        &mut self,
        fetched: Fetched,
        fetching: &mut Fetching,
    ) -> Result<Option<End>, SourceError> {
        match fetched {
            Fetched::Stalled(reason) => self.standing.stalled(&self.port, reason),
            Fetched::Answer(Ok(ready)) => return Ok(self.take_next(*ready, fetching).await),
            Fetched::Answer(Err(error)) => {
                if let Some(lost) = self.survive(error)? {
                    return Ok(Some(End::Lost(lost)));
                }
                self.give_up_old_template();
                fetching.next_at(Instant::now() + self.backoff.next());
            }
        }
        Ok(None)
    }

    /// Has a template fetched on a tip that is neither the last one nor a block of ours.
    fn on_news(&mut self, news: News, fetching: &mut Fetching) {
        let is_known = matches!(news, News::Tip(tip) if self.known_tips.contains(&tip));
        if !is_known {
            self.waiting.tip_moved();
            self.send_waiting();
        }
        if !is_known && !self.pacer.rests() {
            fetching.tip_moved();
        }
    }

    /// Has a template fetched for what is in the mempool.
    fn on_mempool(
        &mut self,
        report: Report,
        fetching: &mut Fetching,
    ) -> Result<Option<End>, SourceError> {
        match report {
            Report::Seen(sighting) => {
                fetching.due = Instant::now();
                self.pacer.seen(sighting, fetching.due);
                Ok(None)
            }
            Report::Stalled(reason) => {
                self.standing.stalled(&self.port, reason);
                Ok(None)
            }
            Report::Failed(error) => match self.trouble_of(error) {
                Trouble::Final(error) => Err(error),
                Trouble::Passing(lost) => Ok(Some(End::Lost(lost))),
            },
        }
    }

    /// Does what is due by the clock.
    fn on_wake(&mut self, payout: &Payout, fetching: &mut Fetching) {
        let now = Instant::now();
        if self.pacer.due().is_some_and(|due| due <= now) {
            if let Some(number) = self.pacer.begin(now) {
                self.port.notice(skipped_notice(number));
            }
            fetching.due = now;
        }
        if !self.pacer.rests() {
            self.begin_fetch(payout, fetching);
        }
        self.send_waiting();
        if let Err(error) = self.keeper.journal.flush() {
            self.port.notice(error.to_string());
        }
    }

    /// Begins to fetch a template, if one is due.
    fn begin_fetch(&self, payout: &Payout, fetching: &mut Fetching) {
        // At a pace, each is to hold what the mempool holds by then. And where the clock was set
        // back, a node may have kept a template of before that, which it would refuse.
        let fresh = self.pacer.pace().is_some() || self.kept_templates == Kept::Distrusted;
        fetching.begin(&self.submit, fresh, payout);
    }

    /// When there is something to be done without anything having happened.
    fn wake(&self, fetch_due: Instant) -> Instant {
        let mut wake = if self.pacer.rests() { Instant::now() + LOOK_AROUND } else { fetch_due };
        // The journal is written to when no block has come for a moment.
        if let Some(current) = self.current.as_ref().filter(|current| !current.has_lasted()) {
            wake = wake.min(current.published + LASTING);
        }
        if let Some(due) = self.waiting.due() {
            wake = wake.min(due);
        }
        self.pacer.due().map_or(wake, |due| due.min(wake))
    }

    /// Watches the node's tip, over connections of its own.
    fn watch_tip(&self) -> TipWatch {
        TipWatch::start(&self.submit, self.config.endpoint.clone())
    }

    /// Watches the mempool, where the pace wants that, over connections of its own.
    fn watch_mempool(&mut self) {
        let Self { pacer, submit, config, .. } = self;
        pacer.connected(Instant::now(), || {
            MempoolWatch::start(submit.sibling(), config.endpoint.clone())
        });
    }

    /// Whether the wall clock has jumped since the last look; says so.
    fn clock_jumped(&mut self) -> bool {
        let now = Clocks::now();
        let jump = now.jump_since(std::mem::replace(&mut self.clocks, now));
        if let Some(jump) = jump {
            self.port.notice(format!("{jump}; the node is asked afresh"));
        }
        jump.is_some()
    }

    /// Takes a template, and plans when the next is fetched.
    async fn take_next(&mut self, ready: Ready, fetching: &mut Fetching) -> Option<End> {
        match self.take(ready).await {
            Ok(due) => {
                fetching.next_at(due);
                None
            }
            Err(lost) => Some(End::Lost(lost)),
        }
    }

    /// Takes a template: it is mined, or not, as the pace has it. When to fetch the next; or why the
    /// node is not the one that it was.
    async fn take(&mut self, ready: Ready) -> Result<Instant, String> {
        self.recognize(ready.previous_block_hash()).await?;
        self.answered();
        self.waiting.template_is_on(ready.previous_block_hash(), ready.height());
        self.send_waiting();
        let refresh_at = Instant::now() + REFRESH;
        Ok(match self.pacer.wants(ready.has_transactions(), Instant::now()) {
            Wanted::Yes => {
                self.learn_tip_time(&ready).await;
                self.publish(ready);
                let until = self.current.as_ref().and_then(|current| current.until);
                until.map_or(refresh_at, |until| until.min(refresh_at))
            }
            Wanted::Another(wait) => {
                self.rest();
                Instant::now() + wait
            }
            Wanted::No => {
                self.rest();
                refresh_at
            }
        })
    }

    /// Makes sure that the node is still one of its chain when its tip is neither the one it was nor
    /// a block of ours: one that was restarted so quickly that it was never missed may be of another,
    /// where nobody would be paid, or somebody else.
    async fn recognize(&mut self, tip: BlockHash) -> Result<(), String> {
        let known = self.known_tips.is_empty() || self.known_tips.contains(&tip);
        self.known_tips.clear();
        self.known_tips.push(tip);
        if known {
            return Ok(());
        }
        let call = request("getblockchaininfo", "");
        let body = self.ask_aside(call).await;
        let body = body.map_err(|error| error.to_string())?;
        let envelope: Envelope<ChainInfo<'_>> =
            template::parse(&body).map_err(|error| error.to_string())?;
        let info = envelope.into_result().map_err(|error| error.to_string())?;
        let chain = info.map(|info| printable(&info.chain, 40)).unwrap_or_default();
        if self.params.is_some_and(|params| params.chain_name == chain) {
            Ok(())
        } else {
            self.give_up();
            Err(format!("the node is on another chain now, {chain:?}"))
        }
    }

    /// Mines nothing until there is a template that is wanted: the node is well all the same.
    fn rest(&mut self) {
        self.current = None;
        self.port.rests();
    }

    /// Stops mining.
    fn give_up(&mut self) {
        if self.current.take().is_some() {
            self.port.withdraw();
        }
    }

    /// Asks the node for the nTime of the block that a template builds on, where a rule goes by it.
    async fn learn_tip_time(&mut self, ready: &Ready) {
        let hash = ready.previous_block_hash();
        let known = self.tip_time.is_some_and(|(of, _)| of == hash);
        if known || !self.params.is_some_and(Params::has_twenty_minute_rule) {
            return;
        }
        self.tip_time = None;
        let call = request("getblockheader", &format!("\"{hash}\""));
        let body = self.ask_aside(call).await;
        let time = body.and_then(|body| {
            serde_json::from_slice::<Envelope<BlockHeader>>(&body)
                .map_err(|error| RpcError::Nonsense(error.to_string()))?
                .into_result()
        });
        match time {
            Ok(Some(BlockHeader { time })) => self.tip_time = Some((hash, time)),
            Ok(None) => {}
            // The template is good without: its bits hold for its own time, and it is renewed.
            Err(error) => tracing::debug!(%error, "the time of the tip is not known"),
        }
    }

    /// The block that the current template builds on.
    pub(super) fn tip(&self) -> Option<BlockHash> {
        self.current.as_ref().map(|current| current.previous_block_hash)
    }

    /// Minds the twenty-minute rule and BIP 94, where the chain has them: no nTime is mined with bits
    /// of the other side. Says which difficulty is mined; gives back when another template is
    /// needed.
    fn mind_the_line(&mut self, ready: &mut Ready) -> Result<Option<Instant>, String> {
        let of_tip = |(hash, _): &(BlockHash, u32)| *hash == ready.previous_block_hash();
        let (Some(params), Some((_, tip_time)), Some(height)) =
            (self.params, self.tip_time.filter(of_tip), ready.height())
        else {
            return Ok(None);
        };
        let stage = Stage::of(height, tip_time, ready.curtime);
        if let Some(earliest) = bip94_earliest(params.network, height, tip_time) {
            ready.not_before(earliest);
        }
        if !stage.holds_at(ready.ntime()) {
            return Err(format!(
                "the template's bits are for {}, and it may be mined from {} on only, where others \
                 hold",
                ready.curtime,
                ready.ntime()
            ));
        }
        let nbits = ready.nbits();
        if self.stage.replace((stage, nbits)) != Some((stage, nbits)) {
            self.port.stage(stage, ready.difficulty());
        }
        Ok(match stage {
            // The node's clock is not ahead of its template's.
            Stage::Period { last } => {
                let seconds = (u64::from(last) + 1).saturating_sub(u64::from(ready.curtime));
                Some(ready.received() + Duration::from_secs(seconds.max(1)))
            }
            Stage::Minimum { .. } | Stage::PeriodStart => None,
        })
    }

    /// The node has given a template.
    fn answered(&mut self) {
        match self.proposals.refusal(self.connection) {
            Some(why) => self.say(why),
            None => self.standing.well(&self.port),
        }
        self.standing.served();
        self.backoff.reset();
        self.renewed = Instant::now();
    }

    /// Publishes a template as a job, unless it would be mined just as the current one.
    fn publish(&mut self, mut ready: Ready) {
        let until = match self.mind_the_line(&mut ready) {
            Ok(until) => until,
            Err(why) => return self.say(why),
        };
        let clean = self
            .current
            .as_ref()
            .is_none_or(|current| current.previous_block_hash != ready.previous_block_hash());
        let same = self.current.as_ref().is_some_and(|current| {
            current.fingerprint == ready.fingerprint && current.published.elapsed() < NTIME_AGE
        });
        if same {
            if let Some(current) = &mut self.current {
                current.until = until;
            }
            return;
        }
        self.current = Some(Current {
            previous_block_hash: ready.previous_block_hash(),
            fingerprint: ready.fingerprint.clone(),
            published: Instant::now(),
            until,
        });
        self.proposals.consider(&ready, self.connection, || self.submit.sibling());
        self.jobs += 1;
        let key = JobKey { connection: self.connection, number: self.jobs };
        self.port.publish(ready.into_job(key, clean));
    }
}

/// What we want to know of a block.
#[derive(Debug, Deserialize)]
struct BlockHeader {
    time: u32,
}

/// What we want to know of a node.
#[derive(Debug, Deserialize)]
struct ChainInfo<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
}

/// A JSON-RPC call. `params` are JSON already.
pub(super) fn request(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"1.0\",\"id\":\"adit\",\"method\":\"{method}\",\"params\":[{params}]}}")
}
