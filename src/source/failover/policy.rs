//! Which source runs, and which is mined: decided by the sources' health and the time alone.

use std::time::{Duration, Instant};

use crate::engine::Health;

/// How long a source may take to give its first job, or to recover while its last job still counts,
/// before the next in the order is started.
const GRACE: Duration = Duration::from_secs(5);
/// How long a preferred source must have been healthy before it is returned to. Doubled each time
/// that it did not stay so.
const STABLE_FOR: Duration = Duration::from_secs(1);
/// The longest that this may be.
const STABLE_FOR_MAX: Duration = Duration::from_secs(120);
/// A source that was healthy for this long is reliable again.
const RELIABLE_AFTER: Duration = Duration::from_secs(60);
/// How long a source is kept running after a preferred one is mined again.
const KEEP_RUNNING: Duration = Duration::from_secs(30);
/// How long a source that was told to stop may take before those after it are started without it.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start this source.
    Start(usize),
    /// Mine this one, for this reason.
    Choose(usize, &'static str),
    /// Tell this source to stop.
    Close(usize),
}

/// Whether a source runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunState {
    /// Not started, or stopped as it was told to.
    Stopped,
    Running,
    /// Told to stop.
    Stopping,
    /// Failed for good.
    Disabled,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug)]
struct SourceRecord {
    run: RunState,
    health: Health,
    /// When it was started, became healthy, ceased to be, or was told to stop.
    since: Instant,
    /// How many times in a row it was healthy for a short while only.
    lapses: u32,
}

impl SourceRecord {
    fn is_healthy(&self) -> bool {
        self.run == RunState::Running && self.health.is_healthy()
    }

    /// When it has been healthy for long enough to be returned to.
    fn stable_after(&self) -> Instant {
        self.since + STABLE_FOR_MAX.min(STABLE_FOR * 2u32.saturating_pow(self.lapses.min(16)))
    }
}

/// Decides which sources run, and which one is mined.
#[derive(Debug)]
pub(super) struct Policy {
    sources: Vec<SourceRecord>,
    /// The source that comes before all others, if the user wants one to.
    preferred: Option<usize>,
    chosen: usize,
    chosen_at: Instant,
}

impl Policy {
    /// For this many sources, none of which runs. The engine mines the first one from the start.
    pub(super) fn new(sources: usize, now: Instant) -> Self {
        let source = SourceRecord {
            run: RunState::Stopped,
            health: Health::default(),
            since: now,
            lapses: 0,
        };
        Self { sources: vec![source; sources], preferred: None, chosen: 0, chosen_at: now }
    }

    /// Notes that a source has stopped; returns whether it was told to.
    pub(super) fn ended(&mut self, index: usize, now: Instant) -> bool {
        let source = &mut self.sources[index];
        let was_told_to = source.run == RunState::Stopping;
        source.run = RunState::Stopped;
        source.since = now;
        was_told_to
    }

    /// Notes that a source has failed for good.
    pub(super) fn disable(&mut self, index: usize) {
        self.sources[index].run = RunState::Disabled;
    }

    /// Whether every source has failed for good.
    pub(super) fn all_disabled(&self) -> bool {
        self.sources.iter().all(|source| source.run == RunState::Disabled)
    }

    /// Puts this source before all others, or none.
    pub(super) fn prefer(&mut self, source: Option<usize>) {
        self.preferred = source.filter(|index| *index < self.sources.len());
    }

    /// The sources, the best first.
    fn order(&self) -> Vec<usize> {
        let others = (0..self.sources.len()).filter(|index| Some(*index) != self.preferred);
        self.preferred.into_iter().chain(others).collect()
    }

    /// What to do now, and when to ask again if nothing happens before.
    pub(super) fn steps(
        &mut self,
        now: Instant,
        health: &[Health],
    ) -> (Vec<Step>, Option<Instant>) {
        self.observe(now, health);
        let mut steps = Vec::new();
        let mut wake: Option<Instant> = None;
        let mut ask_again =
            |at: Instant| wake = Some(wake.map_or(at, |wake: Instant| wake.min(at)));
        self.choose(now, &mut steps, &mut ask_again);
        self.start(now, &mut steps, &mut ask_again);
        self.close(now, &mut steps, &mut ask_again);
        (steps, wake)
    }

    /// Notes each source's health.
    fn observe(&mut self, now: Instant, health: &[Health]) {
        for (source, health) in self.sources.iter_mut().zip(health) {
            let (was_healthy, lasted) =
                (source.is_healthy(), now.duration_since(source.since) >= RELIABLE_AFTER);
            source.health = *health;
            if source.is_healthy() != was_healthy {
                source.since = now;
                if was_healthy {
                    source.lapses = if lasted { 0 } else { source.lapses + 1 };
                }
            }
        }
    }

    /// Chooses the source that is mined.
    fn choose(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        let chosen_is_healthy = self.sources[self.chosen].is_healthy();
        let mut is_before_chosen = true;
        for index in self.order() {
            let source = &self.sources[index];
            is_before_chosen &= index != self.chosen;
            if index == self.chosen && chosen_is_healthy {
                return;
            }
            if index == self.chosen || !source.is_healthy() {
                continue;
            }
            if chosen_is_healthy && now < source.stable_after() {
                ask_again(source.stable_after());
                continue;
            }
            let why = if self.preferred == Some(index) {
                "it is preferred, and mined"
            } else if is_before_chosen {
                "it is healthy again and is mined"
            } else {
                "it is mined because those before it are not healthy"
            };
            steps.push(Step::Choose(index, why));
            (self.chosen, self.chosen_at) = (index, now);
            return;
        }
    }

    /// Starts all sources up to the first that is healthy or may soon be.
    fn start(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        for index in self.order() {
            let source = &mut self.sources[index];
            match source.run {
                RunState::Disabled => continue,
                // When it has stopped, this is asked again.
                RunState::Stopping => {
                    let stop_until = source.since + STOP_TIMEOUT;
                    if now < stop_until {
                        ask_again(stop_until);
                        return;
                    }
                    continue;
                }
                RunState::Stopped => {
                    steps.push(Step::Start(index));
                    source.run = RunState::Running;
                    source.since = now;
                }
                RunState::Running => {}
            }
            if source.is_healthy() {
                return;
            }
            let is_lost = source.health.is_degraded && !source.health.is_ready;
            let grace_until = source.since + GRACE;
            if !is_lost && now < grace_until {
                ask_again(grace_until);
                return;
            }
        }
    }

    /// Stops those after the chosen one once that has been healthy for a while.
    fn close(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        let chosen = self.sources[self.chosen];
        if !chosen.is_healthy() {
            return;
        }
        let due = chosen.since.max(self.chosen_at) + KEEP_RUNNING;
        let below = self.order().into_iter().skip_while(|index| *index != self.chosen).skip(1);
        for index in below {
            let source = &mut self.sources[index];
            if source.run != RunState::Running {
                continue;
            }
            if now < due {
                ask_again(due);
            } else {
                source.run = RunState::Stopping;
                source.since = now;
                steps.push(Step::Close(index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTING: Health = Health { is_ready: false, is_degraded: false };
    const HEALTHY: Health = Health { is_ready: true, is_degraded: false };
    const DEGRADED: Health = Health { is_ready: true, is_degraded: true };
    const LOST: Health = Health { is_ready: false, is_degraded: true };

    /// A policy with a clock of its own.
    struct Harness {
        policy: Policy,
        now: Instant,
        health: Vec<Health>,
    }

    impl Harness {
        fn new(sources: usize) -> Self {
            let now = Instant::now();
            Self { policy: Policy::new(sources, now), now, health: vec![CONNECTING; sources] }
        }

        fn step(&mut self) -> Vec<Step> {
            self.policy.steps(self.now, &self.health).0
        }

        fn becomes(&mut self, index: usize, health: Health) -> Vec<Step> {
            self.health[index] = health;
            self.step()
        }

        /// Lets time pass, waking as often as the policy asks for it.
        fn pass(&mut self, time: Duration) -> Vec<Step> {
            let end = self.now + time;
            let mut all = Vec::new();
            for _ in 0..1_000 {
                let (steps, wake) = self.policy.steps(self.now, &self.health);
                all.extend(steps);
                let Some(wake) = wake.filter(|wake| *wake <= end) else {
                    self.now = end;
                    return all;
                };
                assert!(wake > self.now, "it would spin");
                self.now = wake;
            }
            panic!("it wakes for ever");
        }
    }

    fn chosen(steps: &[Step]) -> Vec<usize> {
        let of = |step: &Step| if let Step::Choose(index, _) = step { Some(*index) } else { None };
        steps.iter().filter_map(of).collect()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_preferred_source_is_mined_while_it_is_healthy() {
        let mut harness = Harness::new(3);
        harness.step();
        harness.becomes(0, HEALTHY);
        harness.pass(HOUR);
        harness.policy.prefer(Some(2));
        assert_eq!(harness.step(), [Step::Start(2)]);
        let mut steps = harness.becomes(2, HEALTHY);
        steps.extend(harness.pass(HOUR));
        assert_eq!(chosen(&steps), [2]);
        assert!(steps.contains(&Step::Close(0)), "{steps:?}");
        harness.policy.ended(0, harness.now);
        harness.health[0] = CONNECTING;
        // When it fails, the order of the others decides.
        harness.becomes(2, LOST);
        assert_eq!(chosen(&harness.becomes(0, HEALTHY)), [0]);
        harness.becomes(2, HEALTHY);
        assert_eq!(chosen(&harness.pass(HOUR)), [2]);
        harness.policy.ended(0, harness.now);
        harness.health[0] = CONNECTING;
        harness.policy.prefer(None);
        let mut steps = harness.step();
        steps.extend(harness.becomes(0, HEALTHY));
        steps.extend(harness.pass(HOUR));
        assert_eq!(chosen(&steps), [0]);
        assert!(steps.contains(&Step::Close(2)), "{steps:?}");
    }

    #[test]
    fn while_a_source_is_healthy_no_other_is_started() {
        let mut harness = Harness::new(3);
        assert_eq!(harness.step(), [Step::Start(0)]);
        assert_eq!(harness.becomes(0, HEALTHY), []);
        assert_eq!(harness.pass(HOUR), []);
    }

    #[test]
    fn a_silent_source_is_waited_for_and_one_that_fails_is_not() {
        let mut harness = Harness::new(3);
        assert_eq!(harness.step(), [Step::Start(0)]);
        assert_eq!(harness.pass(GRACE), [Step::Start(1)]);
        assert_eq!(harness.becomes(1, LOST), [Step::Start(2)]);
        assert_eq!(chosen(&harness.becomes(2, HEALTHY)), [2]);
        assert_eq!(harness.pass(HOUR), []);
    }

    #[test]
    fn a_short_gap_is_waited_out_where_the_last_job_counts() {
        let mut harness = Harness::new(2);
        harness.step();
        harness.becomes(0, HEALTHY);
        harness.now += HOUR;
        assert_eq!(harness.becomes(0, DEGRADED), []);
        assert_eq!(harness.pass(GRACE / 2), []);
        assert_eq!(harness.becomes(0, HEALTHY), []);
        assert_eq!(harness.becomes(0, DEGRADED), []);
        assert_eq!(harness.pass(GRACE), [Step::Start(1)]);
        assert_eq!(chosen(&harness.becomes(1, HEALTHY)), [1]);
    }

    #[test]
    fn the_preferred_one_is_returned_to_and_the_other_stops() {
        let mut harness = Harness::new(2);
        harness.step();
        harness.becomes(0, HEALTHY);
        harness.now += HOUR;
        assert_eq!(harness.becomes(0, LOST), [Step::Start(1)]);
        assert_eq!(chosen(&harness.becomes(1, HEALTHY)), [1]);
        harness.now += HOUR;
        assert_eq!(harness.becomes(0, HEALTHY), []);
        let steps = harness.pass(STABLE_FOR);
        assert_eq!(chosen(&steps), [0]);
        assert_eq!(harness.pass(KEEP_RUNNING), [Step::Close(1)]);
        assert!(harness.policy.ended(1, harness.now), "it was told to");
        harness.health[1] = CONNECTING;
        assert_eq!(harness.pass(HOUR), []);
        assert_eq!(harness.becomes(0, LOST), [Step::Start(1)], "and again");
    }

    #[test]
    fn an_unreliable_source_is_returned_to_less_and_less_often() {
        let mut harness = Harness::new(2);
        harness.step();
        harness.becomes(0, LOST);
        harness.becomes(1, HEALTHY);
        let mut switches = 0;
        for _ in 0..600 {
            switches += chosen(&harness.becomes(0, HEALTHY)).len();
            switches += chosen(&harness.pass(Duration::from_secs(3))).len();
            switches += chosen(&harness.becomes(0, LOST)).len();
            switches += chosen(&harness.pass(Duration::from_secs(3))).len();
        }
        assert!(switches < 8, "{switches} switches in an hour");
        // Once it lasts, all is as it was.
        harness.becomes(0, HEALTHY);
        assert_eq!(chosen(&harness.pass(STABLE_FOR_MAX)), [0]);
        assert_eq!(harness.pass(RELIABLE_AFTER), [Step::Close(1)]);
        harness.policy.ended(1, harness.now);
        harness.becomes(1, CONNECTING);
        assert_eq!(harness.becomes(0, LOST), [Step::Start(1)]);
        assert_eq!(chosen(&harness.becomes(1, HEALTHY)), [1]);
        harness.becomes(0, HEALTHY);
        assert_eq!(chosen(&harness.pass(STABLE_FOR)), [0]);
    }

    #[test]
    fn if_no_other_is_healthy_the_first_to_be_is_chosen_at_once() {
        let mut harness = Harness::new(2);
        harness.step();
        harness.becomes(0, LOST);
        assert_eq!(chosen(&harness.becomes(1, HEALTHY)), [1]);
        harness.becomes(1, LOST);
        assert_eq!(chosen(&harness.becomes(0, HEALTHY)), [0]);
    }

    #[test]
    fn a_source_that_failed_is_disabled() {
        let mut harness = Harness::new(2);
        harness.step();
        assert!(!harness.policy.ended(0, harness.now));
        harness.policy.disable(0);
        assert!(!harness.policy.all_disabled());
        assert_eq!(harness.step(), [Step::Start(1)]);
        assert_eq!(chosen(&harness.becomes(1, HEALTHY)), [1]);
        assert_eq!(harness.pass(HOUR), []);
        harness.policy.ended(1, harness.now);
        harness.policy.disable(1);
        assert!(harness.policy.all_disabled());
        assert_eq!(harness.pass(HOUR), []);
    }

    #[test]
    fn a_source_that_is_slow_to_stop_does_not_hold_up_those_after_it() {
        let mut harness = Harness::new(3);
        harness.step();
        harness.becomes(0, LOST);
        harness.becomes(1, HEALTHY);
        harness.becomes(0, HEALTHY);
        assert!(harness.pass(STABLE_FOR + KEEP_RUNNING).contains(&Step::Close(1)));
        harness.health[1] = CONNECTING;
        assert_eq!(harness.becomes(0, LOST), [], "it may still stop");
        assert_eq!(harness.pass(STOP_TIMEOUT), [Step::Start(2)]);
        harness.policy.ended(1, harness.now);
        assert_eq!(harness.step(), [Step::Start(1)]);
    }

    #[test]
    fn a_source_that_is_still_stopping_is_not_started_twice() {
        let mut harness = Harness::new(2);
        harness.step();
        harness.becomes(0, LOST);
        harness.becomes(1, HEALTHY);
        harness.becomes(0, HEALTHY);
        harness.pass(STABLE_FOR + KEEP_RUNNING);
        harness.health[1] = CONNECTING;
        assert_eq!(harness.becomes(0, LOST), [], "it is still stopping");
        harness.policy.ended(1, harness.now);
        assert_eq!(harness.step(), [Step::Start(1)]);
    }
}
