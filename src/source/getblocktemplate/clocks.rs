//! Notices that the wall clock has jumped: the machine slept, or its clock was set.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// A jump by less than this does not count.
const JUMP: Duration = Duration::from_secs(3);

/// Both of the machine's clocks at one moment. The monotonic one stops while a machine sleeps and is
/// never set; the wall clock goes on, and may be set.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

/// How far the wall clock has moved beyond the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// Ahead: the machine slept, or the clock was set forward.
    Ahead(Duration),
    /// Back: the clock was set back.
    Back(Duration),
}

/// `the clock has jumped 3600 s ahead: …`.
impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(
                f,
                "the clock has jumped {} s ahead: this machine slept, or its clock was set",
                by.as_secs()
            ),
            Self::Back(by) => write!(f, "the clock was set back by {} s", by.as_secs()),
        }
    }
}

impl Clocks {
    /// The clocks now.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How the wall clock has jumped since `earlier`, if it has.
    pub fn jump_since(self, earlier: Self) -> Option<Jump> {
        let passed = self.monotonic.saturating_duration_since(earlier.monotonic);
        let jump = match self.wall.duration_since(earlier.wall) {
            Ok(wall) if wall < passed => Jump::Back(passed.saturating_sub(wall)),
            Ok(wall) => Jump::Ahead(wall.saturating_sub(passed)),
            Err(back) => Jump::Back(passed + back.duration()),
        };
        let (Jump::Ahead(by) | Jump::Back(by)) = jump;
        (by >= JUMP).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jump_is_reported() {
        let earlier = Clocks::now();
        let later = |monotonic, wall: i64| {
            let by = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 { earlier.wall - by } else { earlier.wall + by };
            let monotonic = earlier.monotonic + Duration::from_secs(monotonic);
            Clocks { monotonic, wall }.jump_since(earlier)
        };
        let seconds = Duration::from_secs;
        assert_eq!(later(0, 0), None);
        assert_eq!(later(600, 601), None);
        assert_eq!(later(10, 7_210), Some(Jump::Ahead(seconds(7_200))));
        assert_eq!(later(10, 5), Some(Jump::Back(seconds(5))));
        assert_eq!(later(10, -3_600), Some(Jump::Back(seconds(3_610))));
    }
}
