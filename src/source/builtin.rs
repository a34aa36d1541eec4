//! The built-in regtest chain as a source: nothing to install, and the coins are worth nothing.

mod chain;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::Network;

pub use self::chain::{KEPT, RegtestChain, Reject, Template};

use super::block_schedule::{Schedule, skipped_notice};
use super::{NO_ADDRESS, Run, Source, SourceError};
use crate::chain::block;
use crate::chain::coinbase::{CoinbaseText, ScriptSigData};
use crate::chain::payout::PayoutScript;
use crate::chain::version::VersionMask;
use crate::engine::Port;
use crate::event::SourceState;
use crate::job::{JobKey, MerkleRoot, Solution, Verdict};

/// How long to wait after the chain rejected our block, which it never should.
const REJECTED_PAUSE: Duration = Duration::from_secs(1);

/// A regtest chain in this process as a source of jobs. It has no connection, so a request to reconnect
/// changes nothing.
#[derive(Clone, Debug)]
pub struct Builtin {
    /// Who is paid; without one, a script that anyone can spend.
    pub payout: Option<PayoutScript>,
    /// The text in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// The time from one block to the next; without one, blocks follow each other as fast as
    /// possible.
    pub every: Option<Duration>,
}

impl Source for Builtin {
    fn name(&self) -> String {
        "builtin".to_owned()
    }

    fn kind(&self) -> &'static str {
        "builtin"
    }

    fn run(self: Box<Self>, port: Port) -> Run {
        Box::pin(async move {
            self.mine(port).await;
            Ok::<_, SourceError>(())
        })
    }
}

impl Builtin {
    async fn mine(&self, mut port: Port) {
        let mut chain = RegtestChain::new();
        let data = ScriptSigData::from(&self.text);
        port.started(Some(Network::Regtest));
        port.source_is(SourceState::Connected, None);
        let payout = self.payout.clone().unwrap_or_else(|| {
            port.notice(NO_ADDRESS);
            PayoutScript::anyone_can_spend()
        });
        let mut number = 0;
        let mut schedule = self.every.map(|every| Schedule::new(Instant::now(), every));
        loop {
            if let Some(schedule) = &mut schedule {
                tokio::select! {
                    // Nothing is mined that could be found, so the channel has been closed.
                    _ = port.solution() => return,
                    () = tokio::time::sleep_until(schedule.due().into()) => {}
                }
                schedule.begin(Instant::now());
                if let Some(number) = schedule.take_skipped(Instant::now()) {
                    port.notice(skipped_notice(number));
                }
            }
            number += 1;
            let key = JobKey { connection: 0, number };
            let mut job = chain.template(now()).job(key, &payout, &data);
            if !self.version_rolling {
                job.version_mask = VersionMask::NONE;
            }
            port.publish(job);
            let Some(solution) = port.solution().await else { return };
            let verdict = match chain.submit_bytes(&block_bytes(&solution), now()) {
                Ok(()) => Verdict::Accepted,
                Err(reject) => reject.into(),
            };
            let refused = verdict != Verdict::Accepted;
            port.verdict(&solution, verdict);
            if refused {
                tokio::time::sleep(REJECTED_PAUSE).await;
            }
            if let Some(schedule) = &mut schedule {
                schedule.done(Instant::now());
            }
        }
    }
}

/// The whole block, serialized: this chain's blocks have no transactions but the coinbase.
fn block_bytes(solution: &Solution) -> Vec<u8> {
    match (&solution.job.merkle_root, &solution.job.body) {
        (MerkleRoot::Rolled(coinbase), Some(body)) => {
            block::head(&solution.header, coinbase, solution.extranonce, body)
        }
        // The jobs of this source have both.
        _ => Vec::new(),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
