//! How much of the cores we had: what Linux counts of our threads' running, and of their waiting for
//! somebody else to leave a core.

use std::collections::HashMap;
use std::fs;

/// What one thread did so far, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    ran: u64,
    waited: u64,
}

/// The times of all threads that scan, by the thread's number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times(HashMap<u64, Thread>);

impl Times {
    /// From Linux's `schedstat` of each thread; `None` where there is none.
    pub(super) fn now() -> Option<Self> {
        let mut times = HashMap::new();
        for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Those that verify, or show the progress, are no matter here.
            let name = fs::read_to_string(entry.path().join("comm"));
            if !name.is_ok_and(|name| name.starts_with("scan-")) {
                continue;
            }
            // A thread may end meanwhile; then it is not one of those that hash.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else {
                return None;
            };
            times.insert(number, Thread { ran, waited });
        }
        Some(Self(times))
    }

    /// The share of the time in which `threads` threads ran, of that in which they could have, 0 to
    /// 1. They are those that ran most: the others were but falling asleep.
    pub(super) fn share_since(&self, before: &Self, threads: usize) -> Option<f64> {
        let since = |(number, now): (&u64, &Thread)| {
            let before = before.0.get(number).copied().unwrap_or_default();
            Some((now.ran.checked_sub(before.ran)?, now.waited.checked_sub(before.waited)?))
        };
        let mut all: Vec<_> = self.0.iter().filter_map(since).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let (ran, waited) = all
            .into_iter()
            .take(threads)
            .fold((0.0, 0.0), |(ran, waited), (r, w)| (ran + r as f64, waited + w as f64));
        (ran > 0.0).then(|| ran / (ran + waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(threads: &[(u64, u64, u64)]) -> Times {
        Times(
            threads
                .iter()
                .map(|(n, ran, waited)| (*n, Thread { ran: *ran, waited: *waited }))
                .collect(),
        )
    }

    #[test]
    fn the_share_is_that_of_running() {
        let before = times(&[(1, 100, 10), (2, 0, 0), (3, 50, 0)]);
        let after = times(&[(1, 175, 35), (2, 75, 25), (3, 51, 900)]);
        assert!((after.share_since(&before, 2).unwrap() - 0.75).abs() < 1e-12);
        assert_eq!(before.share_since(&before, 2), None);
        assert_eq!(Times::default().share_since(&before, 2), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_scanning_threads_times_grow() {
        let scan = std::thread::Builder::new().name("scan-0".into()).spawn(|| {
            let before = Times::now().unwrap();
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_millis(20) {}
            Times::now().unwrap().share_since(&before, 1)
        });
        let share = scan.unwrap().join().unwrap();
        assert!(share.is_none_or(|share| share > 0.0 && share <= 1.0), "{share:?}");
    }
}
