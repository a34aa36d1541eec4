//! The long self-test of the kernels, for `adit check`. It runs on many threads at once, since one bad
//! core is enough to lose a block.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::features::Unavailable;
use super::kernels::{KernelName, Opened};
use crate::scan::Kernel;
use crate::scan::self_test::{SelfTestError, long_self_test};

/// How many random headers each thread hashes, besides the known blocks.
const HEADERS: u32 = 32;

/// Why a kernel cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The processor lacks a feature that it needs, or the user has disabled it.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It failed its self-test.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

/// The result of [`check_kernel`].
#[derive(Clone, Debug)]
pub struct KernelCheck {
    /// The kernel.
    pub kernel: KernelName,
    /// Whether it passed.
    pub result: Result<(), CheckError>,
    /// How long it took.
    pub took: Duration,
}

/// Compares a kernel with the reference implementation on `threads` threads at once: over known blocks,
/// and over random headers generated from `seed`, different ones on each thread.
///
/// # Errors
/// When the threads cannot be created.
pub fn check_kernel(opened: &Opened, threads: usize, seed: u64) -> io::Result<KernelCheck> {
    let begun = Instant::now();
    let (kernel, available) = opened;
    let result = match available {
        Err(unavailable) => Err(CheckError::from(*unavailable)),
        Ok(kernel) => on_all_threads(kernel, threads, seed)?.map_err(CheckError::from),
    };
    Ok(KernelCheck { kernel: *kernel, result, took: begun.elapsed() })
}

fn on_all_threads(
    kernel: &Arc<dyn Kernel>,
    threads: usize,
    seed: u64,
) -> io::Result<Result<(), SelfTestError>> {
    std::thread::scope(|scope| {
        let test = |thread: u64| move || long_self_test(&**kernel, seed ^ thread << 48, HEADERS);
        let start = |thread| std::thread::Builder::new().spawn_scoped(scope, test(thread));
        let tests: Vec<_> = (0..threads.max(1) as u64).map(start).collect::<io::Result<_>>()?;
        Ok(tests.into_iter().try_for_each(|test| match test.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, FaultyKernel};
    use super::super::{CpuFeature, CpuFeatures, Sha2, open_all};
    use super::*;

    #[test]
    fn available_kernels_pass() {
        for opened in open_all(CpuFeatures::detected()) {
            let check = check_kernel(&opened, 2, 7).unwrap();
            let expected = opened.1.map(|_| ()).map_err(CheckError::Unavailable);
            assert_eq!(check.result, expected, "{check:?}");
        }
    }

    #[test]
    fn the_result_says_what_is_wrong() {
        let name = KernelName::find("sha2").unwrap();
        for (reason, text) in [
            (Unavailable::Missing(CpuFeature::Sse41), "this processor has no sse4.1"),
            (Unavailable::Disabled(CpuFeature::Sha), "sha is disabled by --disable-cpu-features"),
        ] {
            let error = check_kernel(&(name, Err(reason)), 1, 0).unwrap().result.unwrap_err();
            assert_eq!(error, CheckError::Unavailable(reason));
            assert_eq!(error.to_string(), text);
        }
        let faulty = FaultyKernel { kernel: Arc::new(Sha2), fault: Fault::MissesLastNonce };
        let error = check_kernel(&(name, Ok(Arc::new(faulty))), 3, 0).unwrap().result.unwrap_err();
        assert!(matches!(error, CheckError::SelfTest(_)), "{error}");
        assert!(error.to_string().contains("nonce ffffffff"), "{error}");
    }
}
