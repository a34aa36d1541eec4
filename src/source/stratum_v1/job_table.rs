//! The jobs that shares may be sent for.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bitcoin::BlockHash;

use super::work::{Extranonce, Work};
use crate::chain::target::Target;
use crate::job::JobKey;

/// How many jobs are remembered. A pool that sends more before a clean one has itself forgotten the
/// oldest.
const JOBS: usize = 128;

/// Why a share is not sent: its id stands for something else.
const OVERWRITTEN: &str = "the pool has used the job's id for another job since; not sent";
/// Why a share is not sent: its id stands for nothing.
const REPLACED: &str = "found for a job that had been replaced; not sent";

/// The jobs of the current session.
#[derive(Debug, Default)]
pub struct JobTable {
    /// Counts sessions. One that the pool has resumed is the same.
    connection: u64,
    /// Counts jobs.
    number: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    id: String,
    /// What the job is, so that it is known again.
    work: u64,
    /// What the pool asks of a share that goes by this id.
    target: Target,
    /// Why no share may go by this id any more.
    lost: Option<&'static str>,
    /// A clean job has ended it. A block may still go by its id: what it builds on may be the tip
    /// still.
    ended: bool,
}

impl JobTable {
    /// Adds a job under the id that the pool gave it, with what it asks of a share. A clean one ends
    /// all others, but for those that are the same work: what is found for them may go by the new id.
    /// Whether there are such.
    pub fn add(
        &mut self,
        id: &str,
        work: &Work,
        extranonce: &Extranonce,
        target: Target,
        clean: bool,
    ) -> (JobKey, bool) {
        let mut hasher = DefaultHasher::new();
        (work, extranonce).hash(&mut hasher);
        let work = hasher.finish();
        let mut again = false;
        for entry in &mut self.entries {
            let same = entry.work == work && !entry.ended;
            again |= same;
            if entry.id == id {
                entry.lost = (!same).then_some(OVERWRITTEN);
            } else if clean {
                entry.lost.get_or_insert(REPLACED);
            }
            entry.ended |= clean && !same;
        }
        if self.entries.len() == JOBS {
            self.entries.pop_front();
        }
        self.number += 1;
        let number = self.number;
        let id = id.to_owned();
        self.entries.push_back(Entry { number, id, work, target, lost: None, ended: false });
        (JobKey { connection: self.connection, number }, again)
    }

    /// The id under which a share of this hash for this job is to be sent: of those that stand for
    /// the same work and ask no more than the hash is, the newest, which the pool is sure to know.
    ///
    /// # Errors
    /// Why it must not be sent.
    pub fn id(&self, key: JobKey, hash: &BlockHash) -> Result<&str, &'static str> {
        if key.connection != self.connection {
            return Err("found for an earlier connection; not sent");
        }
        let own = self.own(key).ok_or(REPLACED)?;
        let takes = |entry: &&Entry| {
            entry.work == own.work && entry.lost.is_none() && entry.target.is_met_by(hash)
        };
        match self.entries.iter().rev().find(takes) {
            Some(entry) => Ok(&entry.id),
            None => own.lost.map_or(Ok(&own.id), Err),
        }
    }

    /// The id under which a block for this job may be sent, though no share may: the pool may know the
    /// job still, and submit the block.
    #[must_use]
    pub fn id_of_block(&self, key: JobKey) -> Option<&str> {
        let own = self.own(key).filter(|_| key.connection == self.connection)?;
        (own.lost != Some(OVERWRITTEN)).then_some(&own.id)
    }

    fn own(&self, key: JobKey) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&key.number, |entry| entry.number).ok()?;
        self.entries.get(at)
    }

    /// Begins a new session, whose jobs have nothing to do with those before.
    pub fn begin_session(&mut self) {
        self.connection += 1;
        self.entries.clear();
    }

    /// Whether there is no job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    fn work(ntime: u32) -> Work {
        Work {
            previous_block_hash: BlockHash::all_zeros(),
            prefix: vec![1],
            suffix: vec![2],
            merkle_branch: Vec::new(),
            version: 0x2000_0000,
            nbits: Target::DIFFICULTY_1.to_nbits(),
            network_target: Target::DIFFICULTY_1,
            ntime,
        }
    }

    /// Adds a job whose shares are to begin with so many zero bits.
    fn add(table: &mut JobTable, id: &str, ntime: u32, bits: u32, clean: bool) -> JobKey {
        let extranonce = Extranonce { fixed: vec![1], len: 4 };
        table.add(id, &work(ntime), &extranonce, target(bits), clean).0
    }

    fn target(bits: u32) -> Target {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xff >> bits;
        Target::from_be_bytes(bytes)
    }

    /// A hash that begins with so many zero bits.
    fn hash(bits: u32) -> BlockHash {
        let mut bytes = [0x80; 32];
        bytes[31] = 0x80 >> bits;
        BlockHash::from_byte_array(bytes)
    }

    #[test]
    fn shares_find_their_job_or_none() {
        let mut table = JobTable::default();
        let hash = hash(2);
        let first = add(&mut table, "\"a\"", 1, 1, true);
        let again = add(&mut table, "\"a\"", 1, 1, false);
        let second = add(&mut table, "\"b\"", 2, 1, false);
        assert_eq!(
            [first, again, second].map(|key| table.id(key, &hash).unwrap()),
            ["\"a\"", "\"a\"", "\"b\""]
        );
        let other = add(&mut table, "\"a\"", 3, 1, false);
        assert_eq!([first, again].map(|key| table.id(key, &hash)), [Err(OVERWRITTEN); 2]);
        assert_eq!((table.id(second, &hash), table.id(other, &hash)), (Ok("\"b\""), Ok("\"a\"")));
        // The same work under another id: that is the one to be sent.
        let renamed = add(&mut table, "\"b2\"", 2, 1, true);
        assert_eq!([second, renamed].map(|key| table.id(key, &hash)), [Ok("\"b2\""); 2]);
        assert_eq!(table.id(other, &hash), Err(REPLACED));
        assert_eq!(table.id_of_block(other), Some("\"a\""));
        assert_eq!(table.id_of_block(first), None, "its id stands for another job");
        let clean = add(&mut table, "\"c\"", 4, 1, true);
        assert_eq!((table.id(second, &hash), table.id(clean, &hash)), (Err(REPLACED), Ok("\"c\"")));
        for ntime in 5..1_000 {
            add(&mut table, "\"d\"", ntime, 1, false);
        }
        assert_eq!(table.entries.len(), JOBS);
        assert_eq!(table.id(clean, &hash), Err(REPLACED));
        table.begin_session();
        assert!(table.id(clean, &hash).unwrap_err().contains("earlier connection"));
        assert_eq!(table.id_of_block(clean), None);
        assert!(table.is_empty());
    }

    #[test]
    fn a_share_goes_by_an_id_whose_difficulty_it_has() {
        let mut table = JobTable::default();
        let easy = add(&mut table, "easy", 1, 1, false);
        let hard = add(&mut table, "hard", 1, 4, false);
        for key in [easy, hard] {
            assert_eq!(
                (table.id(key, &hash(1)), table.id(key, &hash(4))),
                (Ok("easy"), Ok("hard"))
            );
        }
        // The old id is worthless from here on, and so is what is not good enough for the new one.
        let new = add(&mut table, "new", 1, 3, true);
        assert_eq!(
            (table.id(easy, &hash(1)), table.id(easy, &hash(3))),
            (Err(REPLACED), Ok("new"))
        );
        // The same id with more asked: the pool may mean either, so it is left to it.
        add(&mut table, "new", 1, 5, false);
        assert_eq!((table.id(new, &hash(3)), table.id(new, &hash(5))), (Ok("new"), Ok("new")));
        // Another job has taken the id, and the work comes back under one that asks for more.
        add(&mut table, "new", 2, 1, false);
        add(&mut table, "last", 1, 4, false);
        assert_eq!(
            (table.id(new, &hash(3)), table.id(new, &hash(4))),
            (Err(OVERWRITTEN), Ok("last"))
        );
    }
}
