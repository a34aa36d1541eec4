//! How much of the cores we had: what Linux counts of our threads' running, and of their waiting for
//! somebody else to leave a core.

use std::fs;

/// Times of all our threads so far, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    ran: u64,
    waited: u64,
}

impl Times {
    /// From Linux's `schedstat` of each thread; `None` where there is none.
    pub(super) fn now() -> Option<Self> {
        let mut times = Self::default();
        for thread in fs::read_dir("/proc/self/task").ok()?.flatten() {
            // A thread may end meanwhile; its times then are in neither reading, or in the first
            // alone, which is caught below.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else {
                return None;
            };
            times.ran += ran;
            times.waited += waited;
        }
        (times.ran > 0).then_some(times)
    }

    /// The share of the time in which our threads ran, of that in which they could have, 0 to 1.
    pub(super) fn share_since(self, before: Self) -> Option<f64> {
        let ran = self.ran.checked_sub(before.ran)? as f64;
        let waited = self.waited.checked_sub(before.waited)? as f64;
        (ran > 0.0).then(|| ran / (ran + waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_running() {
        let before = Times { ran: 100, waited: 10 };
        let share = Times { ran: 175, waited: 35 }.share_since(before).unwrap();
        assert!((share - 0.75).abs() < 1e-12);
        assert_eq!(before.share_since(before), None);
        assert_eq!(Times::default().share_since(before), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_times_grow() {
        let before = Times::now().unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(20) {}
        let share = Times::now().unwrap().share_since(before);
        assert!(share.is_none_or(|share| share > 0.0 && share <= 1.0), "{share:?}");
    }
}
