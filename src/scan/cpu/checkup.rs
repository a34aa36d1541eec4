//! Examines the kernels of this processor, on as many threads as it has: one bad core is enough to
//! lose a block.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Opened;
use super::{KernelName, Unavailable};
use crate::scan::Kernel;
use crate::scan::self_test::{Lie, long_self_test};

/// How many random headers each thread tries, besides the known blocks.
const HEADERS: u32 = 32;

/// Why a kernel is not to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The processor cannot run it, or is not to. No fault of anyone's.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It failed its self-test.
    #[error(transparent)]
    Lie(#[from] Lie),
}

/// What an examination came to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The kernel.
    pub kernel: KernelName,
    /// Whether it can be trusted.
    pub result: Result<(), Unfit>,
    /// How long that took.
    pub took: Duration,
}

impl Checked {
    /// What it got wrong, if it did.
    #[must_use]
    pub fn lie(&self) -> Option<&Lie> {
        match &self.result {
            Err(Unfit::Lie(lie)) => Some(lie),
            _ => None,
        }
    }
}

/// Holds a kernel against plain code on `threads` threads at once: known blocks, and random headers
/// that `seed` leads to, others on each thread.
///
/// # Errors
/// When the system gives no threads.
pub fn check_up(opened: &Opened, threads: usize, seed: u64) -> io::Result<Checked> {
    let begun = Instant::now();
    let (kernel, found) = opened;
    let result = match found {
        Err(missing) => Err(Unfit::from(*missing)),
        Ok(kernel) => on_all_threads(kernel, threads, seed)?.map_err(Unfit::from),
    };
    Ok(Checked { kernel: *kernel, result, took: begun.elapsed() })
}

fn on_all_threads(
    kernel: &Arc<dyn Kernel>,
    threads: usize,
    seed: u64,
) -> io::Result<Result<(), Lie>> {
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
    use super::super::fault::{Fault, Liar};
    use super::super::{CpuFeature, CpuFeatures, Sha2, open_all};
    use super::*;

    #[test]
    fn the_kernels_of_this_machine_are_fit_or_missing() {
        for opened in open_all(CpuFeatures::detected()) {
            let checked = check_up(&opened, 2, 7).unwrap();
            assert_eq!(checked.result.is_ok(), opened.1.is_ok(), "{checked:?}");
            assert_eq!(checked.lie(), None);
        }
    }

    #[test]
    fn a_kernel_is_told_by_what_is_wrong_with_it() {
        let name = KernelName::find("sha2").unwrap();
        for (reason, told) in [
            (Unavailable::Missing(CpuFeature::Sse41), "this processor has no sse4.1"),
            (Unavailable::Disabled(CpuFeature::Sha), "sha is disabled by --disable-cpu-features"),
        ] {
            let checked = check_up(&(name, Err(reason)), 1, 0).unwrap();
            assert_eq!(checked.lie(), None);
            assert_eq!(checked.result.unwrap_err().to_string(), told);
        }
        let liar = Liar { kernel: Arc::new(Sha2), fault: Fault::LastNonce };
        let lies = check_up(&(name, Ok(Arc::new(liar))), 3, 0).unwrap();
        assert!(lies.lie().is_some_and(|lie| lie.to_string().contains("nonce ffffffff")));
    }
}
