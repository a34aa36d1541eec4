//! Several sources in order of preference: the first that works is mined, and a preferred one is
//! returned to when it works again.
//!
//! A source knows nothing of that: it has its port, and what it publishes there shows whether it
//! works. The next in the order is started only when those before it do not work, and stopped some
//! time after one of them works again; a preferred one is never stopped, but goes on trying as it
//! would alone.

mod policy;

use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::{Refused, Source, SourceError};
use crate::engine::{SourceInfo, Sources};
use crate::job::SourceId;
use policy::{Policy, Step};

/// Makes a source, each time it is to be started.
pub type Make = Box<dyn Fn() -> Box<dyn Source> + Send>;

/// The sources in order of preference, and which of them runs and is mined.
pub struct Failover {
    sources: Vec<Make>,
}

impl Failover {
    /// One source or several, the preferred one first.
    #[must_use]
    pub fn new(sources: Vec<Make>) -> Self {
        Self { sources }
    }

    /// What the engine is to know of each source.
    #[must_use]
    pub fn infos(&self) -> Vec<SourceInfo> {
        self.sources.iter().map(|make| make().info()).collect()
    }

    /// Runs until it is time to stop, or until every source has failed for good.
    ///
    /// # Errors
    /// That of the last source to fail.
    pub async fn run(self, mut sources: Sources) -> Result<(), SourceError> {
        let mut policy = Policy::new(self.sources.len(), Instant::now());
        let mut running = JoinSet::new();
        let mut index_of = std::collections::HashMap::new();
        loop {
            let wake = if sources.is_stopped() {
                if running.is_empty() {
                    return Ok(());
                }
                None
            } else {
                policy.prefer(sources.preferred().map(SourceId::index));
                let (steps, wake) = policy.steps(Instant::now(), &sources.health());
                for step in steps {
                    match step {
                        Step::Start(index) => {
                            let source = (self.sources[index])();
                            let task = running.spawn(source.run(sources.open(SourceId(index))));
                            index_of.insert(task.id(), index);
                        }
                        Step::Choose(index, why) => sources.choose(SourceId(index), why.to_owned()),
                        Step::Close(index) => sources.close(SourceId(index)),
                    }
                }
                wake
            };
            let ended = tokio::select! {
                ended = running.join_next_with_id(), if !running.is_empty() => ended,
                () = sources.changed() => None,
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => None,
            };
            let Some(ended) = ended else { continue };
            let (id, outcome) = match ended {
                Ok((id, outcome)) => (id, outcome),
                Err(error) => (error.id(), Err(bug(&error))),
            };
            let Some(index) = index_of.remove(&id) else { continue };
            let was_told_to = policy.ended(index, Instant::now()) || sources.is_stopped();
            let source = SourceId(index);
            sources.close(source);
            sources.settle(source);
            let error = match outcome {
                Ok(()) if was_told_to => continue,
                Ok(()) => SourceError::new(Refused::Failure, sources.name(source), "it ended"),
                Err(error) => error,
            };
            policy.disable(index);
            if policy.all_disabled() {
                return Err(error);
            }
            sources.disable(source, format!("disabled: {error}"));
        }
    }
}

/// The error of a source that panicked.
fn bug(error: &tokio::task::JoinError) -> SourceError {
    SourceError::new(Refused::Failure, "source", format!("a bug in adit: {error}"))
}
