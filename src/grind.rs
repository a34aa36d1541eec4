//! Solves one given header: only its nonce changes, and the target is its own nBits.
//!
//! The contract is that of `bitcoin-util grind`, down to what counts as a header: hex of an even
//! number of digits in either case, of which the first 160 are read.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;

use crate::chain::merkle::sha256d;
use crate::chain::target::{NBitsError, Target};
use crate::chain::version::VersionMask;
use crate::engine::{NextWork, SearchSpace};
use crate::job::{Job, JobKey, MerkleRoot, TimeRange};
use crate::scan::{BackendError, Candidate, Feed, Hit, Scanner, WorkUnit};
use crate::units::HashRate;

/// Why there is no solved header. Displayed, each is the sentence that `bitcoin-util grind` says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrindError {
    /// There was no argument, or more than one.
    #[error("Must specify block header to grind")]
    NotOne,
    /// It is no header in hex.
    #[error("Could not decode block header")]
    NoHeader,
    /// No hash can meet the target.
    #[error("Could not satisfy difficulty target")]
    NoTarget(NBitsError),
    /// No nonce meets the target.
    #[error("Could not satisfy difficulty target")]
    NoNonce,
    /// The backend failed before all nonces were tried.
    #[error("the backend failed: {0}")]
    Backend(BackendError),
}

impl GrindError {
    /// What can be done about it, or what lies behind it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotOne => "give one argument: the header's 80 bytes as 160 hex characters".into(),
            Self::NoHeader => "a header is 80 bytes, that is 160 hex characters".into(),
            Self::NoTarget(error) => error.to_string(),
            Self::NoNonce => {
                "all 4,294,967,296 nonces were tried; change the time or the merkle root, and try \
                 again"
                    .into()
            }
            Self::Backend(_) => "--backend names another".into(),
        }
    }
}

/// A header and the target that its nBits stand for.
#[derive(Clone, Copy, Debug)]
pub struct Puzzle {
    header: Header,
    target: Target,
}

impl Puzzle {
    /// Reads a header's 80 bytes in hex. What follows them is left unread.
    ///
    /// # Errors
    /// When it is no header, or its nBits field holds no target.
    pub fn read(hex: &str) -> Result<Self, GrindError> {
        let bytes = hex::decode(hex).map_err(|_| GrindError::NoHeader)?;
        let header = bytes.get(..80).ok_or(GrindError::NoHeader)?;
        let header: Header = deserialize(header).map_err(|_| GrindError::NoHeader)?;
        let target = Target::from_nbits(header.bits).map_err(GrindError::NoTarget)?;
        Ok(Self { header, target })
    }

    /// How many hashes it takes on average.
    #[must_use]
    pub fn expected_hashes(&self) -> f64 {
        self.target.difficulty().expected_hashes()
    }

    /// The header in hex with `nonce` in it.
    #[must_use]
    pub fn solved(&self, nonce: u32) -> String {
        hex::encode(serialize(&Header { nonce, ..self.header }))
    }

    fn job(&self) -> Job {
        Job {
            key: JobKey { connection: 0, number: 0 },
            version: self.header.version.to_consensus().cast_unsigned(),
            version_mask: VersionMask::NONE,
            previous_block_hash: self.header.prev_blockhash,
            height: None,
            nbits: self.header.bits,
            ntime: TimeRange::fixed(self.header.time),
            merkle_root: MerkleRoot::Fixed(self.header.merkle_root.to_byte_array()),
            share_target: self.target,
            network_target: self.target,
            clean: true,
            ends_when_solved: true,
            body: None,
            received: Instant::now(),
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Nonces tried.
    pub tried: u64,
    /// Hashes per second so far.
    pub rate: HashRate,
}

/// Tries all nonces from 0 on with `scanner`. Every `tick` the caller is shown how far it is, and may
/// break it off: then there is `Ok(None)`. The nonce that is given was verified by the reference implementation.
///
/// # Errors
/// When no nonce meets the target.
pub fn grind(
    puzzle: &Puzzle,
    scanner: &dyn Scanner,
    tick: Duration,
    shown: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<u32>, GrindError> {
    let feed = Grindstone {
        target: puzzle.target,
        state: Mutex::new(State {
            space: Some(SearchSpace::new(puzzle.job().into(), 0)),
            nonce: None,
            failed: None,
            ended: false,
        }),
        ended: Condvar::new(),
        tried: AtomicU64::new(0),
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let scan = || {
            let _ended = Ended(&feed);
            if let Err(error) = scanner.run(&feed) {
                feed.state().failed = Some(error);
            }
        };
        std::thread::Builder::new().name("grind".into()).spawn_scoped(scope, scan).map_err(
            |error| GrindError::Backend(BackendError::Device(format!("no thread: {error}"))),
        )?;
        let mut state = feed.state();
        while !state.ended {
            let (woken, waited) =
                feed.ended.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && !state.ended {
                let tried = feed.tried.load(Ordering::Relaxed);
                let rate = HashRate::of(tried, begun.elapsed().as_secs_f64());
                drop(state);
                let broken_off = shown(Progress { tried, rate }).is_break();
                state = feed.state();
                if broken_off {
                    state.space = None;
                    return Ok(state.nonce);
                }
            }
        }
        let none = state.failed.clone().map_or(GrindError::NoNonce, GrindError::Backend);
        state.nonce.map(Some).ok_or(none)
    })
}

/// Hands out one header's nonces until one of them does.
struct Grindstone {
    target: Target,
    state: Mutex<State>,
    ended: Condvar,
    tried: AtomicU64,
}

struct State {
    /// What is left; gone once no more is wanted.
    space: Option<SearchSpace>,
    nonce: Option<u32>,
    failed: Option<BackendError>,
    ended: bool,
}

impl Grindstone {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for Grindstone {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        match self.state().space.as_mut()?.take(midstates, nonces, Instant::now()) {
            NextWork::Unit(unit) => Some(unit),
            // The time stands still here, so there is no later.
            NextWork::Later(_) | NextWork::Exhausted => None,
        }
    }

    fn try_next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        self.next(midstates, nonces)
    }

    fn give_back(&self, unit: WorkUnit) {
        if let Some(space) = &mut self.state().space {
            space.put_back(unit);
        }
    }

    fn wants(&self, _: &WorkUnit) -> bool {
        !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.state().space.is_none()
    }

    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        if hit.midstate >= unit.midstates.len() {
            return ControlFlow::Continue(());
        }
        let candidate = Candidate { unit, midstate: hit.midstate, nonce: hit.nonce };
        let hash = BlockHash::from_byte_array(sha256d(&serialize(&candidate.header())));
        if !self.target.is_met_by(&hash) {
            return ControlFlow::Continue(());
        }
        let mut state = self.state();
        state.nonce.get_or_insert(hit.nonce);
        state.space = None;
        ControlFlow::Break(())
    }

    fn count(&self, _: usize, hashes: u64) {
        self.tried.fetch_add(hashes, Ordering::Relaxed);
    }
}

/// Says that the scanner has ended, even by a panic: nothing waits for it forever.
struct Ended<'a>(&'a Grindstone);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scan::cpu::tests::runnable_kernels;
    use crate::scan::cpu::{CpuScanner, Sha2};
    use crate::scan::{BackendError, BackendId, BackendInfo, Kernel, NonceRange};

    const GENESIS: &str = "0100000000000000000000000000000000000000000000000000000000000000000000\
                           003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab\
                           5f49ffff001d1dac2b7c";

    fn with_nbits(nbits: u32) -> String {
        format!("{}{}{}", &GENESIS[..144], hex::encode(nbits.to_le_bytes()), &GENESIS[152..])
    }

    fn scanner(kernel: Arc<dyn Kernel>) -> CpuScanner {
        CpuScanner::new(kernel, 2).unwrap()
    }

    fn ground(hex: &str, scanner: &dyn Scanner) -> Result<Option<u32>, GrindError> {
        let never = &mut |_| ControlFlow::Continue(());
        grind(&Puzzle::read(hex).unwrap(), scanner, Duration::from_secs(1), never)
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let odd = &GENESIS[..159];
        let not_hex = &format!("{}zz", &GENESIS[..158]);
        for bad in ["", "00", odd, not_hex, &GENESIS[..152], &format!(" {GENESIS}"), "0x", "\u{e9}"]
        {
            assert_eq!(Puzzle::read(bad).unwrap_err(), GrindError::NoHeader, "{bad:?}");
        }
        for nbits in [0, 0x1d80_ffff, 0x2300_0001] {
            let error = Puzzle::read(&with_nbits(nbits)).unwrap_err();
            assert!(matches!(error, GrindError::NoTarget(_)), "{nbits:08x}");
        }
        assert!(Puzzle::read(&GENESIS.to_uppercase()).is_ok());
        assert!(Puzzle::read(&format!("{GENESIS}ff")).is_ok(), "as bitcoin-util has it");
    }

    #[test]
    fn every_kernel_solves_a_header() {
        for kernel in runnable_kernels() {
            for nbits in [0x207f_ffff, 0x2000_ffff, 0x1f00_ffff] {
                let hex = with_nbits(nbits);
                let puzzle = Puzzle::read(&hex).unwrap();
                let nonce = ground(&hex, &scanner(kernel.clone())).unwrap().unwrap();
                let solved = puzzle.solved(nonce);
                assert_eq!(solved[..152], hex[..152]);
                let hash = BlockHash::from_byte_array(sha256d(&hex::decode(&solved).unwrap()));
                assert!(puzzle.target.is_met_by(&hash), "{} {nbits:08x}", kernel.name());
            }
        }
    }

    /// A backend that is through in no time, with no hits or a few of them.
    #[derive(Debug)]
    struct Hasty(Vec<u32>);

    impl Scanner for Hasty {
        fn info(&self) -> BackendInfo {
            BackendInfo {
                id: BackendId::Cpu("hasty"),
                kernel: "hasty".into(),
                device: "none".into(),
                threads: 1,
            }
        }

        fn run(&self, feed: &dyn Feed) -> Result<(), BackendError> {
            while let Some(unit) = feed.next(4, NonceRange::ALL / 3) {
                for nonce in &self.0 {
                    let in_unit = unit.nonces.end() > u64::from(*nonce);
                    if in_unit && unit.nonces.first() <= *nonce {
                        let _ = feed.hit(&unit, Hit { midstate: 0, nonce: *nonce });
                    }
                }
                feed.count(0, unit.nonces.count());
            }
            Ok(())
        }
    }

    #[test]
    fn the_whole_range_is_tried_and_only_the_truth_is_believed() {
        assert_eq!(ground(GENESIS, &Hasty(vec![])), Err(GrindError::NoNonce));
        assert_eq!(ground(GENESIS, &Hasty(vec![1, 77, u32::MAX])), Err(GrindError::NoNonce));
        let (_, nonce) = GENESIS.split_at(152);
        let nonce = u32::from_str_radix(nonce, 16).unwrap().swap_bytes();
        assert_eq!(ground(GENESIS, &Hasty(vec![5, nonce])), Ok(Some(nonce)));
    }

    #[test]
    fn it_can_be_watched_and_broken_off() {
        let puzzle = Puzzle::read(&with_nbits(0x0300_0001)).unwrap();
        let mut ticks = 0;
        let broken_off =
            grind(&puzzle, &scanner(Arc::new(Sha2)), Duration::from_millis(20), &mut |at| {
                ticks += 1;
                if ticks == 3 {
                    assert!(at.tried > 0 && at.rate > HashRate::default());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
        assert_eq!(broken_off, Ok(None));
    }
}
