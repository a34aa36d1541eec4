//! Which source runs, and which is mined: decided from what they did and when, and from nothing
//! else.

use std::time::{Duration, Instant};

use crate::engine::Health;

/// How long a source may take to give its first job, or to recover while its last job still counts,
/// before the next in the order is started.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a better-placed source must have been well before it is returned to. Doubled each time
/// that it did not last.
const STEADY: Duration = Duration::from_secs(1);
/// The most that it is doubled to.
const STEADY_MAX: Duration = Duration::from_secs(120);
/// A source that was well for so long has lasted.
const LASTED: Duration = Duration::from_secs(60);
/// How long a lower-placed source is kept running after a better one is mined again.
const KEPT: Duration = Duration::from_secs(30);
/// How long one that was told to end may take before those below it are not kept waiting any more.
const ENDING: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start this source.
    Start(usize),
    /// Mine this one, for this reason.
    Choose(usize, &'static str),
    /// Tell this one that it is time to go.
    Close(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// Not started, or ended as it was told to.
    Down,
    Up,
    /// Told to end.
    Closing,
    /// Of no use.
    Out,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    run: Run,
    health: Health,
    /// When it was started, became well, ceased to be, or was told to end.
    since: Instant,
    /// How many times in a row it was well for a short while only.
    lapses: u32,
}

impl Place {
    fn is_well(&self) -> bool {
        self.run == Run::Up && self.health.is_healthy()
    }

    fn steady_after(&self) -> Instant {
        self.since + STEADY_MAX.min(STEADY * 2u32.saturating_pow(self.lapses.min(16)))
    }
}

#[derive(Debug)]
pub(super) struct Policy {
    places: Vec<Place>,
    /// The source that comes before all others, if the user wants one to.
    preferred: Option<usize>,
    chosen: usize,
    chosen_at: Instant,
}

impl Policy {
    /// So many sources, of which none runs. The engine mines the first from the start.
    pub(super) fn new(sources: usize, now: Instant) -> Self {
        let place = Place { run: Run::Down, health: Health::default(), since: now, lapses: 0 };
        Self { places: vec![place; sources], preferred: None, chosen: 0, chosen_at: now }
    }

    /// Notes that a source has ended; says whether it was told to.
    pub(super) fn ended(&mut self, index: usize, now: Instant) -> bool {
        let place = &mut self.places[index];
        let was_told_to = place.run == Run::Closing;
        place.run = Run::Down;
        place.since = now;
        was_told_to
    }

    /// Notes that a source is of no use.
    pub(super) fn leave_out(&mut self, index: usize) {
        self.places[index].run = Run::Out;
    }

    pub(super) fn is_none_left(&self) -> bool {
        self.places.iter().all(|place| place.run == Run::Out)
    }

    /// Puts this source before all others, or none.
    pub(super) fn prefer(&mut self, source: Option<usize>) {
        self.preferred = source.filter(|index| *index < self.places.len());
    }

    /// The sources, the best first.
    fn order(&self) -> Vec<usize> {
        let others = (0..self.places.len()).filter(|index| Some(*index) != self.preferred);
        self.preferred.into_iter().chain(others).collect()
    }

    /// What is to be done now, and when to ask again if nothing happens before.
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

    fn observe(&mut self, now: Instant, health: &[Health]) {
        for (place, health) in self.places.iter_mut().zip(health) {
            let (was_well, lasted) = (place.is_well(), now.duration_since(place.since) >= LASTED);
            place.health = *health;
            if place.is_well() != was_well {
                place.since = now;
                if was_well {
                    place.lapses = if lasted { 0 } else { place.lapses + 1 };
                }
            }
        }
    }

    fn choose(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        let chosen_is_well = self.places[self.chosen].is_well();
        let mut is_before_chosen = true;
        for index in self.order() {
            let place = &self.places[index];
            is_before_chosen &= index != self.chosen;
            if index == self.chosen && chosen_is_well {
                return;
            }
            if index == self.chosen || !place.is_well() {
                continue;
            }
            if chosen_is_well && now < place.steady_after() {
                ask_again(place.steady_after());
                continue;
            }
            let why = if self.preferred == Some(index) {
                "it is preferred, and mined"
            } else if is_before_chosen {
                "it is well again, and mined"
            } else {
                "it is mined while those before it are not well"
            };
            steps.push(Step::Choose(index, why));
            (self.chosen, self.chosen_at) = (index, now);
            return;
        }
    }

    /// Sees to it that all run up to the first that is well or may soon be.
    fn start(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        for index in self.order() {
            let place = &mut self.places[index];
            match place.run {
                Run::Out => continue,
                // When it has ended, this is asked again.
                Run::Closing => {
                    let ending_until = place.since + ENDING;
                    if now < ending_until {
                        ask_again(ending_until);
                        return;
                    }
                    continue;
                }
                Run::Down => {
                    steps.push(Step::Start(index));
                    place.run = Run::Up;
                    place.since = now;
                }
                Run::Up => {}
            }
            if place.is_well() {
                return;
            }
            let is_lost = place.health.is_degraded && !place.health.is_ready;
            let patient_until = place.since + PATIENCE;
            if !is_lost && now < patient_until {
                ask_again(patient_until);
                return;
            }
        }
    }

    /// Ends those below the chosen one once it has proved steady.
    fn close(&mut self, now: Instant, steps: &mut Vec<Step>, ask_again: &mut dyn FnMut(Instant)) {
        let chosen = self.places[self.chosen];
        if !chosen.is_well() {
            return;
        }
        let due = chosen.since.max(self.chosen_at) + KEPT;
        let below = self.order().into_iter().skip_while(|index| *index != self.chosen).skip(1);
        for index in below {
            let place = &mut self.places[index];
            if place.run != Run::Up {
                continue;
            }
            if now < due {
                ask_again(due);
            } else {
                place.run = Run::Closing;
                place.since = now;
                steps.push(Step::Close(index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTING: Health = Health { is_ready: false, is_degraded: false };
    const WELL: Health = Health { is_ready: true, is_degraded: false };
    const STRUGGLING: Health = Health { is_ready: true, is_degraded: true };
    const LOST: Health = Health { is_ready: false, is_degraded: true };

    /// A policy with a clock of its own.
    struct Bench {
        policy: Policy,
        now: Instant,
        health: Vec<Health>,
    }

    impl Bench {
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
        let mut bench = Bench::new(3);
        bench.step();
        bench.becomes(0, WELL);
        bench.pass(HOUR);
        bench.policy.prefer(Some(2));
        assert_eq!(bench.step(), [Step::Start(2)]);
        let mut steps = bench.becomes(2, WELL);
        steps.extend(bench.pass(HOUR));
        assert_eq!(chosen(&steps), [2]);
        assert!(steps.contains(&Step::Close(0)), "{steps:?}");
        bench.policy.ended(0, bench.now);
        bench.health[0] = CONNECTING;
        // When it fails, the order of the others decides.
        bench.becomes(2, LOST);
        assert_eq!(chosen(&bench.becomes(0, WELL)), [0]);
        bench.becomes(2, WELL);
        assert_eq!(chosen(&bench.pass(HOUR)), [2]);
        bench.policy.ended(0, bench.now);
        bench.health[0] = CONNECTING;
        bench.policy.prefer(None);
        let mut steps = bench.step();
        steps.extend(bench.becomes(0, WELL));
        steps.extend(bench.pass(HOUR));
        assert_eq!(chosen(&steps), [0]);
        assert!(steps.contains(&Step::Close(2)), "{steps:?}");
    }

    #[test]
    fn a_source_that_is_well_has_no_other_started() {
        let mut bench = Bench::new(3);
        assert_eq!(bench.step(), [Step::Start(0)]);
        assert_eq!(bench.becomes(0, WELL), []);
        assert_eq!(bench.pass(HOUR), []);
    }

    #[test]
    fn one_that_says_nothing_is_waited_for_and_one_that_fails_is_not() {
        let mut bench = Bench::new(3);
        assert_eq!(bench.step(), [Step::Start(0)]);
        assert_eq!(bench.pass(PATIENCE), [Step::Start(1)]);
        assert_eq!(bench.becomes(1, LOST), [Step::Start(2)]);
        assert_eq!(chosen(&bench.becomes(2, WELL)), [2]);
        assert_eq!(bench.pass(HOUR), []);
    }

    #[test]
    fn a_short_gap_is_waited_out_where_the_last_job_counts() {
        let mut bench = Bench::new(2);
        bench.step();
        bench.becomes(0, WELL);
        bench.now += HOUR;
        assert_eq!(bench.becomes(0, STRUGGLING), []);
        assert_eq!(bench.pass(PATIENCE / 2), []);
        assert_eq!(bench.becomes(0, WELL), []);
        assert_eq!(bench.becomes(0, STRUGGLING), []);
        assert_eq!(bench.pass(PATIENCE), [Step::Start(1)]);
        assert_eq!(chosen(&bench.becomes(1, WELL)), [1]);
    }

    #[test]
    fn the_better_one_is_returned_to_and_the_other_ends() {
        let mut bench = Bench::new(2);
        bench.step();
        bench.becomes(0, WELL);
        bench.now += HOUR;
        assert_eq!(bench.becomes(0, LOST), [Step::Start(1)]);
        assert_eq!(chosen(&bench.becomes(1, WELL)), [1]);
        bench.now += HOUR;
        assert_eq!(bench.becomes(0, WELL), []);
        let steps = bench.pass(STEADY);
        assert_eq!(chosen(&steps), [0]);
        assert_eq!(bench.pass(KEPT), [Step::Close(1)]);
        assert!(bench.policy.ended(1, bench.now), "it was told to");
        bench.health[1] = CONNECTING;
        assert_eq!(bench.pass(HOUR), []);
        assert_eq!(bench.becomes(0, LOST), [Step::Start(1)], "and again");
    }

    #[test]
    fn one_that_never_lasts_is_returned_to_less_and_less_often() {
        let mut bench = Bench::new(2);
        bench.step();
        bench.becomes(0, LOST);
        bench.becomes(1, WELL);
        let mut switches = 0;
        for _ in 0..600 {
            switches += chosen(&bench.becomes(0, WELL)).len();
            switches += chosen(&bench.pass(Duration::from_secs(3))).len();
            switches += chosen(&bench.becomes(0, LOST)).len();
            switches += chosen(&bench.pass(Duration::from_secs(3))).len();
        }
        assert!(switches < 8, "{switches} switches in an hour");
        // Once it lasts, all is as it was.
        bench.becomes(0, WELL);
        assert_eq!(chosen(&bench.pass(STEADY_MAX)), [0]);
        assert_eq!(bench.pass(LASTED), [Step::Close(1)]);
        bench.policy.ended(1, bench.now);
        bench.becomes(1, CONNECTING);
        assert_eq!(bench.becomes(0, LOST), [Step::Start(1)]);
        assert_eq!(chosen(&bench.becomes(1, WELL)), [1]);
        bench.becomes(0, WELL);
        assert_eq!(chosen(&bench.pass(STEADY)), [0]);
    }

    #[test]
    fn with_nothing_else_well_the_first_to_be_is_taken_at_once() {
        let mut bench = Bench::new(2);
        bench.step();
        bench.becomes(0, LOST);
        assert_eq!(chosen(&bench.becomes(1, WELL)), [1]);
        bench.becomes(1, LOST);
        assert_eq!(chosen(&bench.becomes(0, WELL)), [0]);
    }

    #[test]
    fn one_of_no_use_is_left_out() {
        let mut bench = Bench::new(2);
        bench.step();
        assert!(!bench.policy.ended(0, bench.now));
        bench.policy.leave_out(0);
        assert!(!bench.policy.is_none_left());
        assert_eq!(bench.step(), [Step::Start(1)]);
        assert_eq!(chosen(&bench.becomes(1, WELL)), [1]);
        assert_eq!(bench.pass(HOUR), []);
        bench.policy.ended(1, bench.now);
        bench.policy.leave_out(1);
        assert!(bench.policy.is_none_left());
        assert_eq!(bench.pass(HOUR), []);
    }

    #[test]
    fn one_that_is_slow_to_end_keeps_nothing_below_it_waiting() {
        let mut bench = Bench::new(3);
        bench.step();
        bench.becomes(0, LOST);
        bench.becomes(1, WELL);
        bench.becomes(0, WELL);
        assert!(bench.pass(STEADY + KEPT).contains(&Step::Close(1)));
        bench.health[1] = CONNECTING;
        assert_eq!(bench.becomes(0, LOST), [], "it may still end");
        assert_eq!(bench.pass(ENDING), [Step::Start(2)]);
        bench.policy.ended(1, bench.now);
        assert_eq!(bench.step(), [Step::Start(1)]);
    }

    #[test]
    fn a_source_that_is_still_ending_is_not_started_twice() {
        let mut bench = Bench::new(2);
        bench.step();
        bench.becomes(0, LOST);
        bench.becomes(1, WELL);
        bench.becomes(0, WELL);
        bench.pass(STEADY + KEPT);
        bench.health[1] = CONNECTING;
        assert_eq!(bench.becomes(0, LOST), [], "it is still ending");
        bench.policy.ended(1, bench.now);
        assert_eq!(bench.step(), [Step::Start(1)]);
    }
}
