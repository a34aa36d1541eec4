//! The jobs that shares may be sent for.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::work::{Extranonce, Work};
use crate::job::JobKey;

/// How many jobs are remembered. A pool that sends more before a clean one has itself forgotten the
/// oldest.
const JOBS: usize = 128;

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
    /// Whether the pool has used the id for another job since.
    overwritten: bool,
}

impl JobTable {
    /// Adds a job under the id that the pool gave it. A clean one ends all others, but for those that
    /// are the same work: what is found for them goes by the newest id. Whether there are such.
    pub fn add(
        &mut self,
        id: &str,
        work: &Work,
        extranonce: &Extranonce,
        clean: bool,
    ) -> (JobKey, bool) {
        let mut hasher = DefaultHasher::new();
        (work, extranonce).hash(&mut hasher);
        let work = hasher.finish();
        if clean {
            self.entries.retain(|entry| entry.work == work);
        }
        let mut again = false;
        for entry in &mut self.entries {
            if entry.work == work {
                again = true;
                entry.overwritten = false;
                if entry.id != id {
                    id.clone_into(&mut entry.id);
                }
            } else {
                entry.overwritten |= entry.id == id;
            }
        }
        if self.entries.len() == JOBS {
            self.entries.pop_front();
        }
        self.number += 1;
        self.entries.push_back(Entry {
            number: self.number,
            id: id.to_owned(),
            work,
            overwritten: false,
        });
        (JobKey { connection: self.connection, number: self.number }, again)
    }

    /// The id under which a share for this job is to be sent.
    ///
    /// # Errors
    /// Why it must not be sent.
    pub fn id(&self, key: JobKey) -> Result<&str, &'static str> {
        if key.connection != self.connection {
            return Err("found for an earlier connection; not sent");
        }
        match self.entries.binary_search_by_key(&key.number, |entry| entry.number) {
            Ok(at) if self.entries[at].overwritten => {
                Err("the pool has used the job's id for another job since; not sent")
            }
            Ok(at) => Ok(&self.entries[at].id),
            Err(_) => Err("found for a job that had been replaced; not sent"),
        }
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
    use crate::chain::target::Target;

    fn work(ntime: u32) -> Work {
        Work {
            previous_block_hash: bitcoin::BlockHash::all_zeros(),
            prefix: vec![1],
            suffix: vec![2],
            merkle_branch: Vec::new(),
            version: 0x2000_0000,
            nbits: Target::DIFFICULTY_1.to_nbits(),
            network_target: Target::DIFFICULTY_1,
            ntime,
        }
    }

    #[test]
    fn shares_find_their_job_or_none() {
        let extranonce = Extranonce { fixed: vec![1], len: 4 };
        let mut table = JobTable::default();
        let add = |table: &mut JobTable, id: &str, ntime, clean| {
            table.add(id, &work(ntime), &extranonce, clean).0
        };
        let first = add(&mut table, "\"a\"", 1, true);
        let again = add(&mut table, "\"a\"", 1, false);
        let second = add(&mut table, "\"b\"", 2, false);
        assert_eq!(
            [first, again, second].map(|key| table.id(key).unwrap()),
            ["\"a\"", "\"a\"", "\"b\""]
        );
        let other = add(&mut table, "\"a\"", 3, false);
        assert!(table.id(first).unwrap_err().contains("another job"));
        assert!(table.id(again).unwrap_err().contains("another job"));
        assert_eq!((table.id(second), table.id(other)), (Ok("\"b\""), Ok("\"a\"")));
        // The same work under another id: that is the one to be sent.
        let renamed = add(&mut table, "\"b2\"", 2, true);
        assert_eq!((table.id(second), table.id(renamed)), (Ok("\"b2\""), Ok("\"b2\"")));
        assert!(table.id(other).unwrap_err().contains("replaced"));
        let clean = add(&mut table, "\"c\"", 4, true);
        assert!(table.id(second).unwrap_err().contains("replaced"));
        assert_eq!(table.id(clean), Ok("\"c\""));
        for ntime in 5..1_000 {
            add(&mut table, "\"d\"", ntime, false);
        }
        assert_eq!(table.entries.len(), JOBS);
        assert!(table.id(clean).unwrap_err().contains("replaced"));
        table.begin_session();
        assert!(table.id(clean).unwrap_err().contains("earlier connection"));
        assert!(table.is_empty());
    }
}
