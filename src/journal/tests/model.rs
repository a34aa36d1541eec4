//! Against a model: crashes of every kind at any moment.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Find a block with this many bytes after its header.
    Record(usize),
    /// Learn the fate of one of the blocks that have none.
    Settle(prop::sample::Index),
    Flush,
    Crash(Crash),
    /// End cleanly and start again.
    Reopen,
}

#[derive(Clone, Debug)]
enum Crash {
    /// `kill -9`: everything written is there.
    Kill,
    /// The power fails: what was written since the last sync is lost from here on.
    Cut(prop::sample::Index),
    /// The power fails while a block is recorded: of the sectors that this changes, some are as
    /// before and some as after.
    Tear { extra: usize, sectors: Vec<bool>, cut: Option<prop::sample::Index> },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let tear = (0usize..900, prop::collection::vec(any::<bool>(), 1..8), prop::option::of(index()));
    prop_oneof![
        8 => (0usize..300).prop_map(Step::Record),
        1 => (300usize..3000).prop_map(Step::Record),
        8 => index().prop_map(Step::Settle),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash(Crash::Kill)),
        1 => index().prop_map(|index| Step::Crash(Crash::Cut(index))),
        2 => tear.prop_map(|(extra, sectors, cut)| Step::Crash(Crash::Tear { extra, sectors, cut })),
    ]
}

/// What is known of a block in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Unknown(EntryId),
    /// Its fate is known and may not be in the file.
    Settled,
    /// Its fate is in the file and may not be on disk.
    Flushed,
    /// Its fate is on disk: it may never come back.
    Gone,
}

struct Model {
    dir: TempDir,
    journal: Journal,
    blocks: BTreeMap<u32, State>,
    /// Up to where our own file is surely on disk.
    durable: u64,
    next: u32,
}

impl Model {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path());
        let durable = journal.lock().own.end();
        Self { dir, journal, blocks: BTreeMap::new(), durable, next: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record(extra) => {
                let id = record(&self.journal, self.next, extra);
                self.blocks.insert(self.next, State::Unknown(id));
                self.next += 1;
                self.durable = self.journal.lock().own.end();
            }
            Step::Settle(index) => {
                let unknown = self.unknown();
                if !unknown.is_empty() {
                    let number = *index.get(&unknown);
                    let State::Unknown(id) = self.blocks[&number] else { unreachable!() };
                    self.journal.settle(id, Fate::Accepted);
                    self.blocks.insert(number, State::Settled);
                }
            }
            Step::Flush => {
                self.journal.flush().unwrap();
                for state in self.blocks.values_mut() {
                    if *state == State::Settled {
                        *state = State::Flushed;
                    }
                }
            }
            Step::Reopen => {
                let old = std::mem::replace(&mut self.journal, open(self.dir.path()));
                old.close().unwrap();
                // One that starts before the other has ended adopts nothing; the third does.
                let left = std::mem::replace(&mut self.journal, open(self.dir.path()));
                drop(left);
                for state in self.blocks.values_mut() {
                    if matches!(state, State::Settled | State::Flushed) {
                        *state = State::Gone;
                    }
                }
                self.check();
            }
            Step::Crash(crash) => self.crash(&crash),
        }
    }

    fn unknown(&self) -> Vec<u32> {
        let unknown = self.blocks.iter().filter(|(_, state)| matches!(state, State::Unknown(_)));
        unknown.map(|(&number, _)| number).collect()
    }

    fn crash(&mut self, crash: &Crash) {
        let crashed = copy(self.dir.path());
        let own = own_path(&self.journal);
        let path = crashed.path().join(own.file_name().unwrap());
        let mut bytes = fs::read(&own).unwrap();
        let durable = self.durable as usize;
        match crash {
            Crash::Kill => {
                for state in self.blocks.values_mut() {
                    if *state == State::Flushed {
                        *state = State::Gone;
                    }
                }
            }
            Crash::Cut(index) => bytes.truncate(durable + index.index(bytes.len() - durable + 1)),
            Crash::Tear { extra, sectors, cut } => {
                record(&self.journal, self.next, *extra);
                self.blocks.insert(self.next, State::Settled);
                self.next += 1;
                // Where it went to another file, this one is as it was.
                if own_path(&self.journal) == own {
                    let after = fs::read(&own).unwrap();
                    bytes.resize(after.len().max(bytes.len()), 0);
                    let changed = bytes.chunks_mut(512).zip(after.chunks(512));
                    let changed = changed.filter(|(before, after)| before != after);
                    for ((before, after), written) in changed.zip(sectors.iter().cycle()) {
                        if *written {
                            before[..after.len()].copy_from_slice(after);
                        }
                    }
                    if let Some(index) = cut {
                        bytes.truncate(durable + index.index(bytes.len() - durable + 1));
                    }
                }
            }
        }
        fs::write(path, bytes).unwrap();
        self.journal = Journal::open_with(crashed.path(), 2048).unwrap();
        // What power failures tear may look like damage, and then brings back blocks whose fates are
        // known: they are sent twice. Nothing else does.
        let torn = !self.journal.warnings().is_empty();
        assert!(!torn || matches!(crash, Crash::Tear { .. }), "{crash:?}");
        // Only now: the files' names must not be freed and taken again while the journal is open.
        self.dir = crashed;
        if torn {
            // A line of which half is another's gives a block that no node takes.
            for id in self.journal.pending("regtest") {
                let read = self.journal.read(id).unwrap().unwrap();
                let (_, whole) = block(read.header.nonce, read.block_hex.len() / 2 - 80);
                if read.block_hex != whole {
                    self.journal.settle(id, Fate::Rejected);
                }
            }
            for state in self.blocks.values_mut().filter(|state| **state == State::Gone) {
                *state = State::Flushed;
            }
        }
        self.check();
    }

    /// Compares what is pending after a restart with what may and must be, and goes on from there.
    fn check(&mut self) {
        let pending = numbers(&self.journal);
        for (number, state) in &mut self.blocks {
            *state = match (*state, pending.get(number)) {
                (State::Unknown(_), None) => panic!("block {number} is lost"),
                (State::Gone, Some(_)) => panic!("block {number} came back"),
                (_, Some(&id)) => State::Unknown(id),
                (_, None) => State::Gone,
            };
        }
        assert!(pending.keys().all(|number| self.blocks.contains_key(number)));
        assert_eq!(pending.len(), self.journal.pending("regtest").len());
        self.durable = self.journal.lock().own.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_comes_back_nothing_is_invented(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
            prop_assert_eq!(model.unknown(), keys(&model.journal));
        }
        model.take(Step::Crash(Crash::Kill));
    }
}
