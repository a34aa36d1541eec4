//! Rest between ranges or batches.

use std::time::{Duration, Instant};

use super::backend::Feed;

/// How often a wait looks whether it is still wanted.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Rests as long as the feed's throttle asks for after hashing that took `took`. A change of the
/// throttle counts at once; a pause or the end of the run ends the rest.
pub(super) fn rest(took: Duration, feed: &dyn Feed) {
    if !feed.throttle().rests() {
        return;
    }
    let begun = Instant::now();
    loop {
        let left = feed.throttle().after(took).saturating_sub(begun.elapsed());
        if left.is_zero() || feed.is_paused() || feed.has_ended() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}
