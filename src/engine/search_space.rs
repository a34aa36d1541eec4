//! Cuts a job into work units that never overlap and leave nothing out.
//!
//! The space has four dimensions. From the outside in: nTime (it moves with the clock), the
//! extranonce, the version, the nonce. Everything but the nonce is cut into *slabs*, runs of
//! versions of one (nTime, extranonce), as wide as the backend that opens one likes; a slab's
//! nonces are then handed out in order, in pieces of any size. Backends that ask for the same width
//! share a slab, so that its midstates are made once.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chain::merkle::Hash256;
use crate::chain::target::Target;
use crate::job::{Job, MerkleRoot, SourceId};
use crate::scan::{MAX_MIDSTATES, Midstate, NonceRange, SecondBlock, WorkTemplate, WorkUnit};

/// What [`SearchSpace::take`] hands out.
#[derive(Debug)]
pub enum NextWork {
    /// Work.
    Unit(WorkUnit),
    /// All is handed out until the clock allows the next nTime, this much later.
    Later(Duration),
    /// All is handed out for good.
    Exhausted,
}

/// A run of versions with nonces left to hand out.
#[derive(Debug)]
struct Slab {
    template: Arc<WorkTemplate>,
    midstates: Range<usize>,
    nonces: NonceRange,
    /// How many midstates the backend asked for that opened it; `None` is for any backend.
    width: Option<usize>,
}

impl Slab {
    /// The same under another job that is the same work.
    fn of_job(&self, job: &Arc<Job>) -> Self {
        let WorkTemplate { extranonce, merkle_root, ntime, midstates, second_block, .. } =
            &*self.template;
        let template = WorkTemplate {
            job: job.clone(),
            extranonce: *extranonce,
            merkle_root: *merkle_root,
            ntime: *ntime,
            midstates: midstates.clone(),
            second_block: *second_block,
        };
        Self {
            template: Arc::new(template),
            midstates: self.midstates.clone(),
            nonces: self.nonces,
            width: self.width,
        }
    }
}

/// The next slab to be opened.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Seconds past the job's first nTime.
    seconds: u32,
    extranonce: u64,
    /// Index of the version, as [`crate::chain::version::VersionMask::roll`] takes it.
    version: u64,
}

/// Where a solution takes fewer hashes than this on average, versions are not rolled side by side:
/// making the midstates would take longer than they save.
const EASY: f64 = 1024.0;

/// What is left of one job.
#[derive(Debug)]
pub struct SearchSpace {
    job: Arc<Job>,
    /// The easiest hash that is worth reporting.
    target: Target,
    source: SourceId,
    generation: u64,
    versions: u64,
    extranonces: u64,
    /// The most midstates that a slab is opened with.
    widest: usize,
    cursor: Option<Cursor>,
    /// The merkle root of the cursor's extranonce, once made.
    merkle_root: Option<Hash256>,
    slabs: Vec<Slab>,
    /// When nTime began to move.
    since: Instant,
}

impl SearchSpace {
    /// The whole of `job`'s space. Its units will carry `generation`.
    #[must_use]
    pub fn new(job: Arc<Job>, generation: u64) -> Self {
        let extranonces = match &job.merkle_root {
            MerkleRoot::Fixed(_) => 1,
            MerkleRoot::Rolled(coinbase) => coinbase.extranonces(),
        };
        // Blocks that are easier than shares are sought only until there is one.
        let easy = job.share_target.difficulty().expected_hashes() < EASY;
        Self {
            widest: if easy { 1 } else { MAX_MIDSTATES },
            versions: job.version_mask.versions(),
            extranonces,
            cursor: Some(Cursor { seconds: 0, extranonce: 0, version: 0 }),
            merkle_root: None,
            slabs: Vec::new(),
            since: job.received,
            target: job.easiest_target(),
            job,
            source: SourceId::default(),
            generation,
        }
    }

    /// What is left of this space, for a job that is the same work: its target, its key and its mask
    /// may differ. Pools repeat jobs, with the same id or another; begun from the start, such a
    /// job would give the same shares again. (What was handed out and not scanned when the job
    /// changed is lost: a millisecond's work.) `None` where the job is other work.
    #[must_use]
    pub fn carried_on(&self, job: &Arc<Job>, generation: u64) -> Option<Self> {
        if !self.job.is_same_work(job) {
            return None;
        }
        let mut space = Self { since: self.since, ..Self::new(job.clone(), generation) };
        if job.version_mask == self.job.version_mask {
            space.cursor = self.cursor;
            space.merkle_root = self.merkle_root;
            space.slabs = self.slabs.iter().map(|slab| slab.of_job(job)).collect();
        } else {
            // Other versions, of which some may have been tried: only what was not begun is safe.
            let begun = |at: Cursor| at.version > 0 || !self.slabs.is_empty();
            space.cursor = self.cursor.and_then(|at| {
                let next = if begun(at) { self.after(at, self.versions) } else { Some(at) };
                next.map(|next| Cursor { version: 0, ..next })
            });
        }
        Some(space)
    }

    /// The same as work of this source.
    #[must_use]
    pub fn of_source(self, source: SourceId) -> Self {
        Self { source, ..self }
    }

    /// From here on only shares are sought: a block on the same tip has been found already, and where
    /// blocks are easier than shares, more of them would be of no use.
    pub fn seek_shares_only(&mut self) {
        self.target = self.job.share_target;
    }

    /// What is handed out from here on carries `generation`.
    pub fn renew(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// The job that is cut.
    #[must_use]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// The next piece: at most `midstates` midstates and `nonces` nonces (0 of either is taken as
    /// 1). Fewer where a slab runs out, or where the target is so easy that one midstate is plenty.
    pub fn take(&mut self, midstates: usize, nonces: u64, now: Instant) -> NextWork {
        let width = midstates.clamp(1, self.widest);
        let fits = |slab: &Slab| slab.width.is_none_or(|w| w == width);
        let index = match self.slabs.iter().position(fits) {
            Some(index) => index,
            None => match self.open(width, now) {
                Ok(slab) => {
                    self.slabs.push(slab);
                    self.slabs.len() - 1
                }
                // Nothing new to open: help with what others have opened.
                Err(_) if !self.slabs.is_empty() => 0,
                Err(nothing) => return nothing,
            },
        };
        NextWork::Unit(self.hand_out(index, width, nonces))
    }

    /// Gives back what a backend took and could not do; it is handed out before anything new.
    pub fn put_back(&mut self, unit: WorkUnit) {
        if unit.generation == self.generation {
            let WorkUnit { template, midstates, nonces, .. } = unit;
            self.slabs.insert(0, Slab { template, midstates, nonces, width: None });
        }
    }

    /// Hands out a piece of the slab at `index`, and drops the slab if that was the last.
    fn hand_out(&mut self, index: usize, width: usize, nonces: u64) -> WorkUnit {
        let slab = &mut self.slabs[index];
        if slab.midstates.len() > width {
            // Too wide for this backend: the versions beyond its width become a slab of their own.
            let cut = slab.midstates.start + width;
            let beyond = cut..slab.midstates.end;
            slab.midstates.end = cut;
            let rest = Slab {
                template: slab.template.clone(),
                midstates: beyond,
                nonces: slab.nonces,
                width: None,
            };
            self.slabs.push(rest);
        }
        let slab = &mut self.slabs[index];
        let (handed_out, rest) = slab.nonces.split(nonces);
        let unit = WorkUnit {
            template: slab.template.clone(),
            midstates: slab.midstates.clone(),
            nonces: handed_out,
            target: self.target,
            source: self.source,
            generation: self.generation,
        };
        match rest {
            Some(rest) => slab.nonces = rest,
            None => drop(self.slabs.remove(index)),
        }
        unit
    }

    /// Opens the next slab and moves the cursor past it.
    fn open(&mut self, width: usize, now: Instant) -> Result<Slab, NextWork> {
        let Some(at) = self.cursor else { return Err(NextWork::Exhausted) };
        let due = Duration::from_secs(u64::from(at.seconds));
        let passed = now.saturating_duration_since(self.since);
        if passed < due {
            return Err(NextWork::Later(due.saturating_sub(passed)));
        }

        let merkle_root = *self.merkle_root.get_or_insert_with(|| match &self.job.merkle_root {
            MerkleRoot::Fixed(root) => *root,
            MerkleRoot::Rolled(coinbase) => coinbase.merkle_root(at.extranonce),
        });
        let end = self.versions.min(at.version + width as u64);
        let template = prepare(&self.job, at, merkle_root, at.version..end);
        self.cursor = self.after(at, end);
        if self.cursor.is_none_or(|next| next.extranonce != at.extranonce) {
            self.merkle_root = None;
        }
        let midstates = 0..template.midstates.len();
        Ok(Slab {
            template: Arc::new(template),
            midstates,
            nonces: NonceRange::full(),
            width: Some(width),
        })
    }

    /// Where the cursor goes when the versions below `version_end` are handed out.
    fn after(&self, at: Cursor, version_end: u64) -> Option<Cursor> {
        if version_end < self.versions {
            return Some(Cursor { version: version_end, ..at });
        }
        if at.extranonce + 1 < self.extranonces {
            return Some(Cursor { extranonce: at.extranonce + 1, version: 0, ..at });
        }
        (at.seconds < self.job.ntime.ahead).then(|| Cursor {
            seconds: at.seconds + 1,
            extranonce: 0,
            version: 0,
        })
    }
}

/// Makes the midstates and the shared second block of one run of versions.
fn prepare(job: &Arc<Job>, at: Cursor, merkle_root: Hash256, versions: Range<u64>) -> WorkTemplate {
    let ntime = job.ntime.first.saturating_add(at.seconds);
    let header = bitcoin::consensus::serialize(&job.header(job.version, merkle_root, ntime, 0));
    let (first, rest) = header.split_first_chunk::<64>().expect("a header has 80 bytes");
    let (tail, _nonce) = rest.split_first_chunk::<12>().expect("a header has 80 bytes");
    let mut first = *first;
    let midstates = versions
        .map(|index| {
            let version = job.version_mask.roll(job.version, index);
            first[..4].copy_from_slice(&version.to_le_bytes());
            Midstate::of(version, &first)
        })
        .collect();
    WorkTemplate {
        job: job.clone(),
        extranonce: at.extranonce,
        merkle_root,
        ntime,
        midstates,
        second_block: SecondBlock::of(tail),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::coinbase::Coinbase;
    use crate::chain::version::VersionMask;
    use crate::job::{JobKey, TimeRange};
    use bitcoin::hashes::Hash as _;

    fn job(mask: u32, ahead: u32, rolled: bool) -> Arc<Job> {
        let merkle_root = if rolled {
            MerkleRoot::Rolled(Coinbase {
                prefix: vec![1, 2, 3],
                fixed_extranonce: vec![4],
                extranonce_len: 1,
                suffix: vec![5, 6],
                merkle_branch: vec![[7; 32]],
            })
        } else {
            MerkleRoot::Fixed([9; 32])
        };
        Arc::new(Job {
            key: JobKey { connection: 0, number: 0 },
            version: 0x2000_0000,
            version_mask: VersionMask::new(mask),
            previous_block_hash: bitcoin::BlockHash::all_zeros(),
            height: None,
            nbits: bitcoin::CompactTarget::from_consensus(0x1d00_ffff),
            ntime: TimeRange { first: 1_700_000_000, ahead },
            merkle_root,
            share_target: Target::DIFFICULTY_1,
            network_target: Target::DIFFICULTY_1,
            clean: true,
            ends_when_solved: false,
            body: None,
            received: Instant::now(),
        })
    }

    /// Takes everything, with a random one of `asks` each time, giving some pieces back, and checks
    /// that every (nTime, extranonce, version, nonce) was handed out exactly once.
    fn check(job: &Arc<Job>, asks: &[(usize, u64)], give_back_each: usize) {
        let late = job.received + Duration::from_secs(3600);
        let mut space = SearchSpace::new(job.clone(), 7);
        let mut handed_out: BTreeMap<(u32, u64, u32), Vec<(u64, u64)>> = BTreeMap::new();
        let mut taken = 0usize;
        loop {
            let (k, n) = asks[taken % asks.len()];
            let unit = match space.take(k, n, late) {
                NextWork::Unit(unit) => unit,
                NextWork::Exhausted => break,
                NextWork::Later(_) => panic!("the clock has moved far enough"),
            };
            taken += 1;
            assert!(unit.midstates.len() <= k.max(1) && unit.nonces.count() <= n.max(1));
            assert_eq!(unit.generation, 7);
            if give_back_each > 0 && taken.is_multiple_of(give_back_each) {
                space.put_back(unit);
                continue;
            }
            let header =
                |i: usize| crate::scan::Candidate { unit: &unit, midstate: i, nonce: 0 }.header();
            for (i, midstate) in unit.scan().midstates.iter().enumerate() {
                let bytes = bitcoin::consensus::serialize(&header(i));
                assert_eq!(
                    Midstate::of(midstate.version, bytes[..64].try_into().unwrap()),
                    *midstate
                );
                assert_eq!(
                    SecondBlock::of(bytes[64..76].try_into().unwrap()),
                    unit.template.second_block
                );
                handed_out
                    .entry((unit.template.ntime, unit.template.extranonce, midstate.version))
                    .or_default()
                    .push((u64::from(unit.nonces.first()), unit.nonces.end()));
            }
        }
        let extranonces = match &job.merkle_root {
            MerkleRoot::Fixed(_) => 1,
            MerkleRoot::Rolled(_) => 256,
        };
        let expected = u64::from(job.ntime.ahead + 1) * extranonces * job.version_mask.versions();
        assert_eq!(handed_out.len() as u64, expected, "every place was visited");
        for (place, mut ranges) in handed_out {
            ranges.sort_unstable();
            let mut next = 0;
            for (first, end) in ranges {
                assert_eq!(first, next, "gap or overlap at {place:x?}");
                next = end;
            }
            assert_eq!(next, NonceRange::ALL, "nonces left out at {place:x?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn units_never_overlap_and_leave_nothing_out(
            mask_bits in 0u32..5,
            ahead in 0u32..3,
            rolled in any::<bool>(),
            asks in proptest::collection::vec((0usize..70, (1u64 << 30)..(1 << 33)), 1..5),
            give_back_each in prop_oneof![Just(0usize), 2usize..7],
        ) {
            let mask = (0x1fff_e000u32 >> (16 - mask_bits)) & 0x1fff_e000;
            check(&job(mask, ahead, rolled && mask_bits < 4), &asks, give_back_each);
        }

        #[test]
        fn every_version_under_a_mask_is_rolled_once_and_no_other_bit_moves(
            mask in any::<u32>(), version in any::<u32>(),
        ) {
            let mask = VersionMask::new(mask & 0x00f3_0a80);
            let all: std::collections::BTreeSet<u32> =
                (0..mask.versions()).map(|i| mask.roll(version, i)).collect();
            prop_assert_eq!(all.len() as u64, mask.versions());
            prop_assert!(all.iter().all(|v| (v ^ version) & !mask.bits() == 0));
        }
    }

    #[test]
    fn the_same_work_is_carried_on() {
        let old = job(0x6000, 1, true);
        let again = |mask, received| {
            let mut job = Arc::into_inner(job(mask, 1, true)).unwrap();
            job.key.number = 9;
            job.share_target = Target::max();
            job.received = received;
            Arc::new(job)
        };
        let mut first = SearchSpace::new(old.clone(), 1);
        let mut seen = std::collections::BTreeSet::new();
        let mut note = |taken: NextWork| {
            let NextWork::Unit(unit) = taken else { panic!("{taken:?}") };
            for midstate in unit.scan().midstates {
                let place = (unit.template.ntime, unit.template.extranonce, midstate.version);
                assert!(seen.insert((place, unit.nonces.first())), "handed out twice");
            }
            unit
        };
        for _ in 0..7 {
            note(first.take(3, 1 << 31, old.received));
        }
        // The same mask: to the nonce.
        let late = old.received + Duration::from_secs(3600);
        let mut second = first.carried_on(&again(0x6000, late), 2).unwrap();
        for _ in 0..5 {
            let unit = note(second.take(3, 1 << 31, late));
            assert_eq!((unit.generation, unit.template.job.key.number), (2, 9));
            assert_eq!(unit.template.job.share_target, Target::max());
        }
        // Another mask: from the next extranonce on, and through to the last second.
        let mut third = second.carried_on(&again(0x2000, late), 3).unwrap();
        let mut taken = 0;
        while let unit @ NextWork::Unit(_) = third.take(3, 1 << 32, late) {
            note(unit);
            taken += 1;
        }
        assert!(taken > 500, "{taken}");
        assert!(matches!(third.take(1, 1, late), NextWork::Exhausted));
        assert!(third.carried_on(&job(0x2000, 0, false), 4).is_none());
    }

    #[test]
    fn nothing_at_all_is_asked_for_and_something_is_given() {
        check(&job(0x6000, 1, false), &[(0, 1 << 31), (3, u64::MAX)], 0);
    }

    #[test]
    fn an_easy_target_is_tried_with_one_version_at_a_time() {
        let mut easy = Arc::into_inner(job(0x6000, 0, false)).unwrap();
        easy.share_target = Target::max();
        let easy = Arc::new(easy);
        let mut space = SearchSpace::new(easy.clone(), 1);
        let NextWork::Unit(unit) = space.take(16, 256, Instant::now()) else { panic!() };
        assert_eq!(unit.scan().midstates.len(), 1);
        check(&easy, &[(16, 1 << 31), (2, 1 << 30)], 3);
    }

    #[test]
    fn ntime_waits_for_the_clock() {
        let job = job(0, 2, false);
        let mut space = SearchSpace::new(job.clone(), 1);
        assert!(matches!(space.take(16, u64::MAX, job.received), NextWork::Unit(_)));
        match space.take(16, u64::MAX, job.received + Duration::from_millis(400)) {
            NextWork::Later(wait) => assert_eq!(wait, Duration::from_millis(600)),
            other => panic!("{other:?}"),
        }
        match space.take(16, u64::MAX, job.received + Duration::from_secs(1)) {
            NextWork::Unit(unit) => assert_eq!(unit.template.ntime, job.ntime.first + 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_unit_of_another_job_is_not_taken_back() {
        let mut old = SearchSpace::new(job(0, 0, false), 1);
        let NextWork::Unit(unit) = old.take(1, 10, Instant::now()) else { panic!() };
        let mut new = SearchSpace::new(job(0, 0, false), 2);
        new.put_back(unit);
        assert!(new.slabs.is_empty());
    }
}
