//! Mining on a node: finding it, keeping its template fresh, and publishing it.

use super::*;

impl Session {
    pub(super) async fn run(&mut self) -> Result<(), SourceError> {
        loop {
            let Some(payout) = self.connect().await? else { return Ok(()) };
            match self.mine(&payout).await? {
                End::Stopped => return Ok(()),
                End::Lost(reason) => {
                    self.submit.hang_up();
                    if std::mem::take(&mut self.served) {
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
    pub(super) fn say(&mut self, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            self.port.source_is(SourceState::Retrying, Some(reason.clone()));
            self.trouble = Some(reason);
        }
    }

    /// Says that all is well, if it was not.
    pub(super) fn well(&mut self) {
        if self.trouble.take().is_some() {
            self.port.source_is(SourceState::Connected, None);
        }
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

    /// Calls the node over the connection that submits, keeping what is found meanwhile.
    pub(super) async fn call(&mut self, body: String, limit: usize) -> Result<Bytes, RpcError> {
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
                // A node that takes no connection serves no longpoll either.
                if matches!(error, RpcError::Connection(_)) {
                    self.left_open = None;
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
        let mut fetch: Option<Fetch> = Some(self.fetch(None, None, payout));
        let mut kept: Option<Rpc> = None;
        let mut longpoll: Option<Fetch> = None;
        let mut refresh_at = Instant::now() + REFRESH;
        self.watch_mempool();
        self.clocks = Clocks::now();
        self.known_tips.clear();
        loop {
            if self.clock_jumped() {
                // The machine may have slept, and every connection with it.
                fetch = None;
                kept = None;
                if longpoll.take().is_some() {
                    self.left_open = self.tip();
                }
                self.submit.hang_up();
                self.watch_mempool();
                refresh_at = Instant::now();
            }
            let wake = self.wake(refresh_at, longpoll.is_some());
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
                        Ok(Next::Template(ready)) => match self.take(*ready, true).await {
                            Ok(at) => refresh_at = at,
                            Err(lost) => return Ok(End::Lost(lost)),
                        },
                        Ok(Next::FetchIn(wait)) => refresh_at = Instant::now() + wait,
                        Err(Trouble::Passing(reason)) => return Ok(End::Lost(reason)),
                        Err(Trouble::Final(error)) => return Err(error),
                    }
                }
                (rpc, outcome) = next(&mut fetch) => {
                    fetch = None;
                    kept = Some(rpc);
                    match outcome {
                        Ok(ready) => match self.take(ready, longpoll.is_some()).await {
                            Ok(at) => refresh_at = at,
                            Err(lost) => return Ok(End::Lost(lost)),
                        },
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
                            match self.take(ready, true).await {
                                Ok(at) => refresh_at = at,
                                Err(lost) => return Ok(End::Lost(lost)),
                            }
                        }
                        Err(error) => {
                            // The node may still be waiting on our behalf.
                            self.left_open = self.tip();
                            tracing::debug!(%error, "longpoll broke off");
                            refresh_at = Instant::now();
                        }
                    }
                }
                () = self.proposals.answered() => {
                    if let Some(why) = self.proposals.refusal(self.connection) {
                        self.say(why);
                    }
                }
                sighting = self.pacer.sighting(), if self.pacer.rests() => match sighting {
                    Ok(sighting) => {
                        refresh_at = Instant::now();
                        self.pacer.seen(sighting, refresh_at);
                    }
                    Err(error) => match self.trouble_of(error) {
                        Trouble::Final(error) => return Err(error),
                        Trouble::Passing(lost) => return Ok(End::Lost(lost)),
                    },
                },
                () = sleep_until(wake.into()) => {
                    let now = Instant::now();
                    if self.pacer.due().is_some_and(|due| due <= now) {
                        if let Some(number) = self.pacer.begin(now) {
                            self.port.notice(left_out(number));
                        }
                        refresh_at = now;
                    }
                    if now >= refresh_at && !self.pacer.rests() {
                        // One that is still on its way has its own deadline.
                        refresh_at = now + REFRESH;
                        if fetch.is_none() {
                            fetch = Some(self.fetch(kept.take(), None, payout));
                        }
                    }
                    if longpoll.is_none() && self.may_longpoll() && self.has_lasted() {
                        let id = self.current.as_ref().and_then(|c| c.longpollid.clone());
                        longpoll = Some(self.fetch(None, id, payout));
                    }
                    if let Err(error) = self.keeper.journal.flush() {
                        self.port.notice(error.to_string());
                    }
                }
            }
            // Nothing is mined that a longpoll could tell of.
            if self.pacer.rests() && longpoll.take().is_some() {
                self.left_open = self.tip();
            }
        }
    }

    /// When there is something to be done without anything having happened.
    fn wake(&self, refresh_at: Instant, longpolls: bool) -> Instant {
        let now = Instant::now();
        let wake = if self.pacer.rests() {
            now + LOOK_AROUND
        } else if !longpolls && self.may_longpoll() {
            refresh_at.min(now + LONGPOLL_AFTER)
        } else {
            refresh_at
        };
        self.pacer.due().map_or(wake, |due| due.min(wake))
    }

    /// Fetches a template, at once or by longpoll.
    fn fetch(&self, rpc: Option<Rpc>, longpollid: Option<String>, payout: &Payout) -> Fetch {
        let rpc = rpc.unwrap_or_else(|| self.submit.sibling());
        // At a pace, each is to hold what the mempool holds by then. And where the clock was set
        // back, a node may have kept a template of before that, which it would refuse.
        let fresh = self.pacer.pace().is_some() || self.kept_templates == Kept::Distrusted;
        let request = template_request(longpollid.as_deref(), fresh);
        fetch_template(rpc, request, longpollid.is_some(), payout.clone())
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

    /// Takes a template: it is mined, or not, as the pace has it. When to fetch the next, where no
    /// longpoll `tells` of one; or why the node is not the one that it was.
    async fn take(&mut self, ready: Ready, tells: bool) -> Result<Instant, String> {
        self.recognize(ready.previous_block_hash()).await?;
        self.answered();
        Ok(match self.pacer.wants(ready.has_transactions(), Instant::now()) {
            Wanted::Yes => {
                self.learn_tip_time(&ready).await;
                self.publish(ready);
                let now = Instant::now();
                let polled = !tells && !self.may_longpoll();
                let refresh_at = now + if polled { POLL } else { REFRESH };
                let until = self.current.as_ref().and_then(|current| current.until);
                until.map_or(refresh_at, |until| until.min(refresh_at))
            }
            Wanted::Another(wait) => {
                self.rest();
                Instant::now() + wait
            }
            Wanted::No => {
                self.rest();
                Instant::now() + REFRESH
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
        let body = self.submit.call(call.into(), ANSWER_BYTES, ASIDE).await;
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
        let body = self.submit.call(call.into(), ANSWER_BYTES, ASIDE).await;
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

    /// Whether a longpoll may be opened on the current template.
    pub(super) fn may_longpoll(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.longpollid.is_some() && self.left_open != Some(current.previous_block_hash)
        })
    }

    /// Whether the current template is older than one of a chain that is just growing.
    pub(super) fn has_lasted(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.published.elapsed() >= LONGPOLL_AFTER)
    }

    /// The node has given a template.
    fn answered(&mut self) {
        match self.proposals.refusal(self.connection) {
            Some(why) => self.say(why),
            None => self.well(),
        }
        self.served = true;
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
        let longpollid = ready.longpollid.clone();
        if same {
            if let Some(current) = &mut self.current {
                current.longpollid = longpollid;
                current.until = until;
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

/// The call for a template: at once, or when the one that `longpollid` names is out of date; one
/// that the node has just made, or one made for this call.
pub(super) fn template_request(longpollid: Option<&str>, fresh: bool) -> String {
    let mut request_object = serde_json::json!({ "rules": ["segwit", "signet"] });
    if let Some(id) = longpollid {
        request_object["longpollid"] = id.into();
    }
    if fresh {
        // Knots keeps a template for five seconds unless it is asked for one with limits of its own:
        // here the usual room for the coinbase and one weight unit of four. Bitcoin Core does not
        // know this.
        request_object["blockreservedweight"] = 8_004.into();
    }
    request("getblocktemplate", &request_object.to_string())
}

/// Fetches a template over `rpc`, by longpoll or not, and makes it ready.
fn fetch_template(mut rpc: Rpc, request: String, longpoll: bool, payout: Payout) -> Fetch {
    Box::pin(async move {
        let deadline = if longpoll { LONGPOLL } else { DEADLINE };
        let answer = rpc.call(request.into(), TEMPLATE_BYTES, deadline).await;
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
