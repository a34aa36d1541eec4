//! When a block is wanted of a node: at all times, or at the pace that was asked for.

use std::time::{Duration, Instant};

use super::mempool::{MempoolChange, MempoolReport, MempoolWatch};
use crate::source::block_schedule::{Pace, Schedule};

/// How long a node may give out a template that it made before a transaction came: the five seconds
/// of Bitcoin Core and Knots, and a margin.
const NODE_CACHE: Duration = Duration::from_millis(5500);
/// How often the template is fetched again in that time.
const FETCH_INTERVAL: Duration = Duration::from_millis(500);

/// The block that is wanted next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// A block, with or without transactions.
    Block,
    /// A block if there is a transaction for it. Templates without one may be outdated until then.
    Transactions { until: Instant },
}

/// What is done with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateUse {
    /// Mine it.
    Mine,
    /// Do not mine it; fetch another one after this time.
    FetchAgain(Duration),
    /// Do not mine it: no block is due.
    Skip,
}

/// Decides when a block is wanted, by the pace.
#[derive(Debug)]
pub struct Pacer {
    pace: Option<Pace>,
    schedule: Option<Schedule>,
    watch: Option<MempoolWatch>,
    pending: Option<Due>,
}

impl Pacer {
    /// Without a pace a block is wanted at all times.
    pub const fn new(pace: Option<Pace>) -> Self {
        Self { pace, schedule: None, watch: None, pending: None }
    }

    /// The pace, if there is one.
    pub const fn pace(&self) -> Option<Pace> {
        self.pace
    }

    /// Starts the pace, or goes on with a new connection. `watch` starts a watch of the mempool; it
    /// is called if the pace depends on that.
    pub fn connected(&mut self, now: Instant, watch: impl FnOnce() -> MempoolWatch) {
        let Some(pace) = self.pace else { return };
        if let (None, Some(every)) = (&self.schedule, pace.every()) {
            self.schedule = Some(Schedule::new(now, every));
        }
        if pace.on_transaction() {
            self.watch = Some(watch());
        }
    }

    /// The connection is gone: the mempool is not watched until the next one.
    pub fn disconnected(&mut self) {
        self.watch = None;
    }

    /// Whether no block is wanted.
    pub const fn is_idle(&self) -> bool {
        self.pace.is_some() && self.pending.is_none()
    }

    /// When the next block is due by the clock; `None` if one is wanted already or no clock counts.
    pub fn due(&self) -> Option<Instant> {
        if self.pending == Some(Due::Block) {
            None
        } else {
            self.schedule.as_ref().map(Schedule::due)
        }
    }

    /// Starts the block that is due. Returns how many were skipped, where that is to be announced.
    pub fn begin(&mut self, now: Instant) -> Option<u64> {
        self.pending = Some(Due::Block);
        let schedule = self.schedule.as_mut()?;
        schedule.begin(now);
        schedule.take_skipped(now)
    }

    /// Waits for a report on the mempool; for ever if it is not watched. May be dropped at any time
    /// and called again.
    pub async fn mempool(&mut self) -> MempoolReport {
        match &mut self.watch {
            Some(watch) => watch.report().await,
            None => std::future::pending().await,
        }
    }

    /// The mempool holds something.
    pub fn mempool_changed(&mut self, change: MempoolChange, now: Instant) {
        if self.pending.is_none() {
            let until = match change {
                MempoolChange::New => now + NODE_CACHE,
                // A template that the node has cached holds this too.
                MempoolChange::Unchanged => now,
            };
            self.pending = Some(Due::Transactions { until });
        }
    }

    /// What to do with a template, with or without transactions.
    pub fn template_use(&mut self, has_transactions: bool, now: Instant) -> TemplateUse {
        match self.pending {
            _ if self.pace.is_none() => TemplateUse::Mine,
            // The first template of a connection may hold what was there before.
            None if has_transactions && self.pace.is_some_and(Pace::on_transaction) => {
                self.pending = Some(Due::Transactions { until: now });
                TemplateUse::Mine
            }
            None => TemplateUse::Skip,
            Some(Due::Transactions { until }) if !has_transactions => {
                if now < until {
                    return TemplateUse::FetchAgain(FETCH_INTERVAL);
                }
                self.pending = None;
                TemplateUse::Skip
            }
            Some(_) => TemplateUse::Mine,
        }
    }

    /// The block is accepted: the next is wanted at its time, and the mempool is reported again if it
    /// still holds something.
    pub fn block_made(&mut self, now: Instant) {
        let Some(block) = self.pending.take() else { return };
        if let (Due::Block, Some(schedule)) = (block, &mut self.schedule) {
            schedule.done(now);
        }
        if let Some(watch) = &mut self.watch {
            watch.report_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_pace_a_block_is_wanted_at_all_times() {
        let mut pacer = Pacer::new(None);
        let now = Instant::now();
        assert!(!pacer.is_idle());
        pacer.block_made(now);
        assert_eq!((pacer.template_use(false, now), pacer.due()), (TemplateUse::Mine, None));
    }

    #[test]
    fn a_block_is_wanted_from_when_it_is_due_until_it_is_made() {
        let mut pacer = Pacer::new(Some(Pace::Every(SECOND)));
        let begun = Instant::now();
        pacer.connected(begun, || unreachable!("no mempool is watched"));
        assert!(pacer.is_idle());
        assert_eq!(pacer.due(), Some(begun));
        assert_eq!(pacer.template_use(true, begun), TemplateUse::Skip);
        assert_eq!(pacer.begin(begun), None);
        assert!(!pacer.is_idle());
        // A new connection changes nothing.
        pacer.connected(begun + SECOND, || unreachable!("no mempool is watched"));
        assert_eq!((pacer.template_use(false, begun), pacer.due()), (TemplateUse::Mine, None));
        pacer.block_made(begun + SECOND / 2);
        assert!(pacer.is_idle());
        assert_eq!(pacer.due(), Some(begun + SECOND));
    }

    #[test]
    fn a_transaction_makes_a_block_and_an_empty_template_none() {
        let mut pacer = Pacer::new(Some(Pace::OnTransaction));
        let now = Instant::now();
        assert!(pacer.is_idle());
        pacer.mempool_changed(MempoolChange::New, now);
        assert_eq!(pacer.template_use(false, now), TemplateUse::FetchAgain(FETCH_INTERVAL));
        assert_eq!(pacer.template_use(true, now), TemplateUse::Mine);
        // Another miner has taken them.
        assert_eq!(pacer.template_use(false, now + NODE_CACHE), TemplateUse::Skip);
        assert!(pacer.is_idle());
        pacer.mempool_changed(MempoolChange::Unchanged, now);
        assert_eq!(pacer.template_use(false, now), TemplateUse::Skip);
        // What is there when a connection begins counts too.
        assert_eq!(pacer.template_use(false, now), TemplateUse::Skip);
        assert_eq!(pacer.template_use(true, now), TemplateUse::Mine);
        pacer.block_made(now);
        assert!(pacer.is_idle());
    }
}
