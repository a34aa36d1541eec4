//! Blocks that the node could not judge yet, and are submitted again.
//!
//! A node that crashed starts behind its last tip and does not know the parent of a block that is
//! submitted again (`prev-blk-not-found`); one whose clock was set back finds it too new
//! (`time-too-new`). Neither decides the block's fate: such blocks stay pending in the journal and
//! are submitted again at every new tip and with every connection, and now and then without either,
//! until the node judges them or its chain has grown [`GIVE_UP_AFTER`] blocks past them.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use tokio::sync::mpsc;

use super::rpc::Rpc;
use super::verdict::submit_block;
use crate::engine::ReportedBlock;
use crate::job::{Solution, Verdict};
use crate::journal::{EntryId, Journal, Pending};

/// How many blocks the node's chain must be past a block for that to be given up.
const GIVE_UP_AFTER: u32 = 100;
/// The least time between two rounds: a chain of easy blocks has many tips a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Rounds may take one part in this many of the time.
const SHARE: u32 = 20;
/// How often they are submitted without a new tip: the node's clock goes on.
const WITHOUT_TIP: Duration = Duration::from_secs(30);

/// A block that the node could not judge yet.
#[derive(Debug)]
pub struct UnresolvedBlock {
    pub reported: ReportedBlock,
    /// Where it is on disk, if it is.
    pub entry: Option<EntryId>,
    /// The block in hex where it is not on disk.
    block_hex: Option<Arc<str>>,
}

impl UnresolvedBlock {
    /// A block of this run, about to be announced as unknown.
    pub fn of_this_run(solution: &Solution, block_hex: &str, entry: Option<EntryId>) -> Self {
        let reported = ReportedBlock::of(solution, true);
        let block_hex = entry.is_none().then(|| Arc::from(block_hex));
        Self { reported, entry, block_hex }
    }

    /// A block from the journal. One of an earlier run is announced when its fate is known; one of
    /// this run, whose source has ended meanwhile, was announced as unknown.
    pub fn of_journal(found: &Pending) -> Self {
        let resent = found.id.is_adopted();
        let reported = ReportedBlock {
            height: found.height,
            header: found.header,
            hash: found.header.block_hash(),
            was_unknown: !resent,
            resent,
        };
        Self { reported, entry: Some(found.id), block_hex: None }
    }

    fn hash(&self) -> BlockHash {
        self.reported.hash
    }
}

/// The blocks that the node could not judge yet, and when they are submitted again.
#[derive(Debug, Default)]
pub struct ResubmitQueue {
    blocks: Vec<UnresolvedBlock>,
    /// The node's tip in the last template.
    tip: Option<BlockHash>,
    /// Its height.
    height: Option<u32>,
    /// Its height when the last round began.
    height_at_start: Option<u32>,
    /// Whether there is a new tip or connection since the last round.
    tip_moved: bool,
    /// When the last round began.
    started: Option<Instant>,
    /// How long it took, once it is over.
    took: Duration,
    /// The verdicts of the round under way.
    verdicts: Option<mpsc::Receiver<(BlockHash, Verdict)>>,
}

impl ResubmitQueue {
    /// Adds a block that was submitted just now.
    pub fn add(&mut self, block: UnresolvedBlock) {
        if self.blocks.is_empty() {
            self.started = Some(Instant::now());
            self.tip_moved = false;
        }
        self.blocks.push(block);
    }

    /// How many of them are of earlier runs.
    pub fn of_earlier_runs(&self) -> usize {
        self.blocks.iter().filter(|block| block.reported.resent).count()
    }

    /// Removes the block with this hash.
    pub fn remove(&mut self, hash: BlockHash) -> Option<UnresolvedBlock> {
        let index = self.blocks.iter().position(|block| block.hash() == hash)?;
        Some(self.blocks.remove(index))
    }

    /// The node has a new tip, or this is a new connection to it.
    pub const fn tip_moved(&mut self) {
        self.tip_moved = true;
    }

    /// The node gave a template on `tip`; `height` is that of the block to be found.
    pub fn template_received(&mut self, tip: BlockHash, height: Option<u32>) {
        self.height = height.and_then(|height| height.checked_sub(1));
        if self.tip.replace(tip) != Some(tip) {
            self.tip_moved = true;
        }
    }

    /// Whether the node's chain was well past the block of this hash when the last round
    /// began.
    pub fn is_passed_by(&self, hash: BlockHash) -> bool {
        let block = self.blocks.iter().find(|block| block.hash() == hash);
        let height = block.and_then(|block| block.reported.height);
        let tip = self.height_at_start;
        height.zip(tip).is_some_and(|(height, tip)| height.saturating_add(GIVE_UP_AFTER) <= tip)
    }

    /// When they are submitted next; `None` where there are none, or they are being submitted.
    pub fn due(&self) -> Option<Instant> {
        if self.blocks.is_empty() || self.verdicts.is_some() {
            return None;
        }
        let started = self.started?;
        let pause = PAUSE.max(self.took * SHARE);
        Some(started + if self.tip_moved { pause } else { pause.max(WITHOUT_TIP) })
    }

    /// Submits them again, one after the other, if that is due.
    pub fn submit_due(&mut self, journal: &Arc<Journal>, rpc: impl FnOnce() -> Rpc) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.tip_moved = false;
        self.height_at_start = self.height;
        self.started = Some(Instant::now());
        let (tell, verdicts) = mpsc::channel(1);
        self.verdicts = Some(verdicts);
        let blocks: Vec<_> = self
            .blocks
            .iter()
            .map(|block| (block.hash(), block.entry, block.block_hex.clone()))
            .collect();
        let (mut rpc, journal) = (rpc(), Arc::clone(journal));
        tokio::spawn(async move {
            for (hash, entry, block_hex) in blocks {
                let on_disk = entry.and_then(|entry| match journal.read(entry) {
                    Ok(found) => found.map(|found| Arc::from(found.block_hex)),
                    Err(error) => {
                        tracing::warn!("{error}");
                        None
                    }
                });
                let Some(block_hex) = on_disk.or(block_hex) else { continue };
                // The next new tip is the next attempt.
                let verdict = submit_block(&mut rpc, &block_hex, hash).await;
                let Ok(verdict) = verdict.inspect_err(|error| {
                    tracing::debug!(%error, "a block was not submitted again");
                }) else {
                    return;
                };
                if tell.send((hash, verdict)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Waits for the next verdict of the round under way, or its end (`None`); for ever if there is
    /// no round. May be dropped at any time and called again.
    pub async fn next_verdict(&mut self) -> Option<(BlockHash, Verdict)> {
        let Some(verdicts) = &mut self.verdicts else { return pending().await };
        let verdict = verdicts.recv().await;
        if verdict.is_none() {
            self.verdicts = None;
            self.took = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        }
        verdict
    }
}
