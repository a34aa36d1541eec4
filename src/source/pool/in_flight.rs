//! Shares that were sent and are not answered yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The shares in flight on one connection, by the ids of their requests. `T` is what the protocol keeps
/// of a share until the answer comes. Ids must rise in the order of sending.
#[derive(Debug)]
pub struct InFlight<T> {
    shares: BTreeMap<u64, Sent<T>>,
}

/// One share in flight.
#[derive(Debug)]
struct Sent<T> {
    share: T,
    at: Instant,
}

/// A share whose answer did not come in time.
#[derive(Debug)]
pub struct Expired<T> {
    /// The request's id.
    pub id: u64,
    /// When it was sent.
    pub sent: Instant,
    /// What was kept of it.
    pub share: T,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self { shares: BTreeMap::new() }
    }
}

impl<T> InFlight<T> {
    /// Keeps a share that is sent at `now` in the request `id`.
    pub fn insert(&mut self, id: u64, share: T, now: Instant) {
        self.shares.insert(id, Sent { share, at: now });
    }

    /// Takes out the share whose answer has come.
    pub fn answered(&mut self, id: u64) -> Option<T> {
        self.shares.remove(&id).map(|sent| sent.share)
    }

    /// Takes out the oldest share if it has waited for `timeout`.
    pub fn expire(&mut self, now: Instant, timeout: Duration) -> Option<Expired<T>> {
        let oldest = self.shares.first_entry()?;
        if now < oldest.get().at + timeout {
            return None;
        }
        let (id, Sent { share, at: sent }) = oldest.remove_entry();
        Some(Expired { id, sent, share })
    }

    /// When the oldest share was sent.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.shares.first_key_value().map(|(_, sent)| sent.at)
    }

    /// Whether the share in the request `id` waits for its answer.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.shares.contains_key(&id)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Takes out all, the oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.shares).into_values().map(|sent| sent.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn shares_leave_when_they_are_answered_or_expire_the_oldest_first() {
        let begun = Instant::now();
        let mut shares = InFlight::default();
        for (id, share) in [(3, "a"), (5, "b"), (6, "c"), (9, "d")] {
            shares.insert(id, share, begun + SECOND * u32::try_from(id).unwrap());
        }
        assert_eq!((shares.len(), shares.oldest()), (4, Some(begun + SECOND * 3)));
        assert_eq!((shares.answered(5), shares.answered(5)), (Some("b"), None));
        assert!(shares.expire(begun + SECOND * 12, SECOND * 10).is_none());
        let expired = shares.expire(begun + SECOND * 13, SECOND * 10).unwrap();
        assert_eq!((expired.id, expired.share), (3, "a"));
        assert_eq!(expired.sent, begun + SECOND * 3);
        assert!(shares.expire(begun + SECOND * 13, SECOND * 10).is_none());
        assert!(shares.contains(6) && !shares.contains(3));
        assert!(shares.drain().eq(["c", "d"]));
        assert!(shares.is_empty() && shares.oldest().is_none());
    }
}
