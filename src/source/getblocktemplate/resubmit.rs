//! Blocks that the node could not judge yet.
//!
//! A node that crashed starts behind its last tip, and does not know the block before one that is sent
//! again (`prev-blk-not-found`); one whose clock was set back finds it too new (`time-too-new`). That
//! is no fate: such blocks stay pending in the journal and are sent again at every new tip and on
//! every connection, and now and then without either, until the node judges them or its chain has
//! gone on for [`GIVE_UP_AFTER`] blocks past them.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use tokio::sync::mpsc;

use super::rpc::Rpc;
use super::submission::submit_aside;
use super::{EntryId, FoundBlock, ReportedBlock};
use crate::job::Verdict;
use crate::journal::{Journal, Pending};

/// How far the node's chain must be past a block for it to be given up.
const GIVE_UP_AFTER: u32 = 100;
/// The least time between two tries: a chain of easy blocks has many tips a second.
const PAUSE: Duration = Duration::from_secs(1);
/// The part of the time that tries may take is one of so many.
const SHARE: u32 = 20;
/// How often they are sent without a new tip: the node's clock goes on.
const WITHOUT_TIP: Duration = Duration::from_secs(30);

/// A block that the node could not judge yet.
#[derive(Debug)]
pub(super) struct UnresolvedBlock {
    pub(super) reported: ReportedBlock,
    /// Where it is on disk.
    pub(super) entry: Option<EntryId>,
    /// The block in hex where it is not on disk.
    block_hex: Option<Arc<str>>,
}

impl UnresolvedBlock {
    /// A block of this run, about to be announced as unknown.
    pub(super) fn found_now(found: &FoundBlock) -> Self {
        let reported = ReportedBlock {
            height: found.solution.job.height,
            header: found.solution.header,
            was_unknown: true,
            resent: false,
        };
        let block_hex = found.entry.is_none().then(|| Arc::from(&*found.block_hex));
        Self { reported, entry: found.entry, block_hex }
    }

    /// A block from the journal. One of an earlier run is announced when its fate is known; one of
    /// this run, whose source has ended meanwhile, was announced as unknown.
    pub(super) const fn of_journal(found: &Pending) -> Self {
        let resent = found.id.is_adopted();
        let reported = ReportedBlock {
            height: found.height,
            header: found.header,
            was_unknown: !resent,
            resent,
        };
        Self { reported, entry: Some(found.id), block_hex: None }
    }

    fn hash(&self) -> BlockHash {
        self.reported.header.block_hash()
    }
}

/// The blocks that the node could not judge yet.
#[derive(Debug, Default)]
pub(super) struct ResubmitQueue {
    blocks: Vec<UnresolvedBlock>,
    /// The node's tip in the last template.
    tip: Option<BlockHash>,
    /// Its height.
    height: Option<u32>,
    /// Its height when the last try began.
    height_at_try: Option<u32>,
    /// Whether there is a new tip or connection since the last try.
    tip_moved: bool,
    /// When the last try began.
    begun: Option<Instant>,
    /// How long it took, once it is over.
    took: Duration,
    /// The judgments of the try under way.
    judgments: Option<mpsc::Receiver<(BlockHash, Verdict)>>,
}

impl ResubmitQueue {
    /// One more; it was sent just now.
    pub(super) fn add(&mut self, block: UnresolvedBlock) {
        if self.blocks.is_empty() {
            self.begun = Some(Instant::now());
            self.tip_moved = false;
        }
        self.blocks.push(block);
    }

    /// How many are of earlier runs.
    pub(super) fn of_earlier_runs(&self) -> usize {
        self.blocks.iter().filter(|block| block.reported.resent).count()
    }

    /// Takes out the one of this hash.
    pub(super) fn remove(&mut self, hash: BlockHash) -> Option<UnresolvedBlock> {
        let place = self.blocks.iter().position(|block| block.hash() == hash)?;
        Some(self.blocks.remove(place))
    }

    /// The node has a new tip, or this is a new connection to it.
    pub(super) const fn tip_moved(&mut self) {
        self.tip_moved = true;
    }

    /// The node gave a template on `tip`; `height` is that of the block to be found.
    pub(super) fn template_is_on(&mut self, tip: BlockHash, height: Option<u32>) {
        self.height = height.and_then(|height| height.checked_sub(1));
        if self.tip.replace(tip) != Some(tip) {
            self.tip_moved = true;
        }
    }

    /// Whether the node's chain was well past the block of this hash when the last try began.
    pub(super) fn is_passed_by(&self, hash: BlockHash) -> bool {
        let block = self.blocks.iter().find(|block| block.hash() == hash);
        let height = block.and_then(|block| block.reported.height);
        let tip = self.height_at_try;
        height.zip(tip).is_some_and(|(height, tip)| height.saturating_add(GIVE_UP_AFTER) <= tip)
    }

    /// When they are sent next; none where there is none, or they are being sent.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.blocks.is_empty() || self.judgments.is_some() {
            return None;
        }
        let begun = self.begun?;
        let pause = PAUSE.max(self.took * SHARE);
        Some(begun + if self.tip_moved { pause } else { pause.max(WITHOUT_TIP) })
    }

    /// Sends them again, one after the other, if that is due.
    pub(super) fn send(&mut self, journal: &Arc<Journal>, rpc: impl FnOnce() -> Rpc) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.tip_moved = false;
        self.height_at_try = self.height;
        self.begun = Some(Instant::now());
        let (tell, judgments) = mpsc::channel(1);
        self.judgments = Some(judgments);
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
                // The next new tip is the next try.
                let judged = submit_aside(&mut rpc, &block_hex, hash).await;
                let Ok(verdict) = judged.inspect_err(|error| {
                    tracing::debug!(%error, "a block was not sent again");
                }) else {
                    return;
                };
                if tell.send((hash, verdict)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// WaitPolicy for the next judgment of the try under way, or its end (none); for ever where there is
    /// no try. May be dropped at any time and called again.
    pub(super) async fn judged(&mut self) -> Option<(BlockHash, Verdict)> {
        let Some(judgments) = &mut self.judgments else { return pending().await };
        let judgment = judgments.recv().await;
        if judgment.is_none() {
            self.judgments = None;
            self.took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        }
        judgment
    }
}
