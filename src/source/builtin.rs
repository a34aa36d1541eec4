//! The built-in regtest chain as a source: nothing to install, and no one is paid.

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

/// How long a height is left alone on which the chain refused our block. It never should.
const SETBACK: Duration = Duration::from_secs(1);

/// The source.
#[derive(Clone, Debug)]
pub struct Builtin {
    /// Who is paid, for what that is worth here; nobody in particular where none is named.
    pub payout: Option<PayoutScript>,
    /// What stands in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// The time from one block to the next, where there is to be one.
    pub every: Option<Duration>,
}

impl Source for Builtin {
    fn name(&self) -> String {
        "builtin".to_owned()
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
                    // Nothing is mined that could be found: this is the end.
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
            let verdict = match chain.submit_hex(&block_hex(&solution), now()) {
                Ok(()) => Verdict::Accepted,
                Err(reject) => reject.into(),
            };
            let refused = verdict != Verdict::Accepted;
            port.verdict(&solution, verdict);
            if refused {
                tokio::time::sleep(SETBACK).await;
            }
            if let Some(schedule) = &mut schedule {
                schedule.done(Instant::now());
            }
        }
    }
}

/// The whole block, as it would be sent to a node.
fn block_hex(solution: &Solution) -> String {
    match (&solution.job.merkle_root, &solution.job.body) {
        (MerkleRoot::Rolled(coinbase), Some(body)) => {
            block::assemble_hex(&solution.header, coinbase, solution.extranonce, body)
        }
        // Our own jobs have both.
        _ => String::new(),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
