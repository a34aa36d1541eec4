use super::*;

fn notices(listener: &Listener) -> Vec<String> {
    let text = |told: Announcement| match told.event {
        Event::Notice(text) => Some(text),
        _ => None,
    };
    listener.try_iter().filter_map(text).collect()
}

fn rate() -> Event {
    Event::Rate { total: HashRate::from_f64(1.0), backends: Vec::new() }
}

fn frequent(listener: &Listener) -> usize {
    listener.try_iter().filter(|told| told.event.is_frequent()).count()
}

#[test]
fn a_slow_listener_is_told_what_it_lost_and_the_others_lose_nothing() {
    let (announcer, quick) = Announcer::new();
    let slow = announcer.subscribe_with(3);
    for _ in 0..10 {
        announcer.announce(rate());
    }
    assert_eq!((frequent(&quick), frequent(&slow)), (10, 3));
    assert_eq!((quick.lost(), slow.lost(), announcer.lost()), (0, 7, 7));
    assert_eq!((slow.newly_lost(), slow.newly_lost()), (7, 0));
    announcer.announce(rate());
    assert_eq!((frequent(&slow), slow.newly_lost()), (1, 0));
}

#[test]
fn a_failure_is_heard_where_blocks_are_lost() {
    let (announcer, listener) = Announcer::new();
    let full = Announcer::CAPACITY + RESERVED;
    for number in 0..full {
        announcer.announce(rate());
        if number + 10 > full {
            announcer.announce(Event::Notice(number.to_string()));
        }
    }
    assert_eq!(listener.lost(), RESERVED as u64);
    assert_eq!(notices(&listener).len(), 9);
    // What is said without end is bounded all the same.
    let slow = announcer.subscribe_with(3);
    for number in 0..2 * RESERVED {
        announcer.announce(Event::Notice(number.to_string()));
    }
    assert_eq!((notices(&slow).len(), slow.lost()), (RESERVED + 3, RESERVED as u64 - 3));
}

#[test]
fn who_comes_later_hears_the_rest_and_who_has_gone_costs_nothing() {
    let (announcer, first) = Announcer::new();
    announcer.announce(Event::Notice("a".to_owned()));
    let second = announcer.subscribe();
    drop(first);
    for text in ["b", "c"] {
        announcer.announce(Event::Notice(text.to_owned()));
    }
    assert_eq!(notices(&second), ["b", "c"]);
    assert_eq!((announcer.outlets().len(), announcer.lost()), (1, 0));
    drop(second);
    announcer.announce(Event::Notice("d".to_owned()));
    assert!(announcer.outlets().is_empty());
}

#[test]
fn each_listener_hears_the_end_and_then_nothing() {
    let (announcer, quick) = Announcer::new();
    let slow = announcer.subscribe_with(1);
    for _ in 0..=RESERVED {
        announcer.announce(Event::Notice("in the way".to_owned()));
    }
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        slow.into_iter().last()
    });
    announcer.conclude(Summary::default());
    for last in [quick.into_iter().last(), reader.join().unwrap()] {
        assert!(matches!(last.unwrap().event, Event::Summary(_)));
    }
}

#[test]
fn reasons_are_a_set() {
    let both = PauseReasons::default().with(PauseReason::Power).with(PauseReason::User);
    assert_eq!(both.to_string(), "user, power");
    assert_eq!(both.with(PauseReason::User), both);
    let one = both.without(PauseReason::User);
    assert!(one.contains(PauseReason::Power) && !one.contains(PauseReason::User));
    assert!(!one.is_empty() && one.without(PauseReason::Power).is_empty());
}
