//! What a node's refusals mean: its words (BIP 22's answers to `submitblock`, and the reject reasons
//! of Bitcoin Core's and Knots's validation) with ours beside them.

use crate::job::{Refusal, Verdict};
use crate::printable::printable;

/// The most characters kept of what a node says.
pub const WORDS_MAX: usize = 200;

/// How a refusal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The node has the block; where it stands is to be asked.
    AlreadyKnown,
    /// The block was not judged: the node lacks what it needs for that.
    Undecided,
    /// The block is wrong.
    Rejected,
    /// The block is right, or was, and another is in its place.
    Stale,
}
use Kind::{AlreadyKnown, Rejected, Stale, Undecided};

/// Answers word for word.
const TABLE: &[(&str, Kind, &str)] = &[
    // What became of it (BIP 22, and Bitcoin Core's submitblock).
    ("duplicate", AlreadyKnown, "the node has this block already"),
    ("duplicate-invalid", Rejected, "the node has found this very block invalid before"),
    (
        "duplicate-inconclusive",
        AlreadyKnown,
        "the node has this block already and has not made it part of its best chain",
    ),
    ("inconclusive", AlreadyKnown, "the block is valid so far, but not the tip of the best chain"),
    ("inconclusive-not-best-prevblk", Stale, "the block does not build on the node's tip any more"),
    ("stale-prevblk", Stale, "the block does not build on the node's tip any more"),
    ("stale-work", Stale, "the template is too old"),
    ("unknown-work", Rejected, "the node does not know the template this was made from"),
    ("unknown-user", Rejected, "the node does not know the user"),
    ("rejected", Rejected, "the node gives no reason"),
    ("", Rejected, "the node gives no reason"),
    (
        "prev-blk-not-found",
        Undecided,
        "the node does not know the block before: it was restarted on another chain, or is another node",
    ),
    ("bad-prevblk", Rejected, "the block before is invalid to the node"),
    ("Block decode failed", Rejected, "the node could not read the block"),
    ("Block does not start with a coinbase", Rejected, "the first transaction is not a coinbase"),
    // The header.
    ("high-hash", Rejected, "the hash does not meet the target"),
    ("bad-diffbits", Rejected, "nBits is not what the chain asks for at this height and time"),
    ("time-too-old", Rejected, "nTime is not later than the median of the last 11 blocks' times"),
    ("time-too-new", Undecided, "nTime is more than two hours ahead of the node's clock"),
    ("time-invalid", Rejected, "nTime is out of bounds"),
    (
        "time-timewarp-attack",
        Rejected,
        "nTime of a period's first block is over 10 minutes before its predecessor's (BIP 94)",
    ),
    ("bad-version", Rejected, "the version is too low or has bits the node does not take"),
    (
        "bad-version-sha256d",
        Rejected,
        "the version's highest bit is set, which means another form of header to Bitcoin Knots",
    ),
    (
        "bad-version-blake2b",
        Rejected,
        "this node's chain is not mined with SHA-256d at this height any more",
    ),
    ("too-little-chainwork", Rejected, "the chain it builds on has too little work"),
    ("bad-fork-prior-to-checkpoint", Rejected, "it forks off before a checkpoint"),
    ("bad-signet-blksig", Rejected, "the signet solution is missing or wrong (BIP 325)"),
    // The coinbase.
    ("bad-cb-missing", Rejected, "the first transaction is not a coinbase"),
    ("bad-cb-multiple", Rejected, "there is more than one coinbase"),
    ("bad-cb-length", Rejected, "the coinbase's scriptSig is not 2 to 100 bytes long"),
    ("bad-cb-height", Rejected, "the coinbase does not begin with the block's height (BIP 34)"),
    ("bad-cb-amount", Rejected, "the coinbase pays more than subsidy and fees"),
    ("bad-cb-flag", Rejected, "the coinbase has a flag the node does not take"),
    ("bad-cb-prefix", Rejected, "the coinbase does not begin as the node asks"),
    // The block.
    ("bad-txnmrklroot", Rejected, "the merkle root is not that of the transactions"),
    (
        "bad-txns-duplicate",
        Rejected,
        "transactions are repeated so that the merkle root stays the same (CVE-2012-2459)",
    ),
    (
        "bad-witness-nonce-size",
        Rejected,
        "the coinbase's witness is not one item of 32 bytes (BIP 141)",
    ),
    (
        "bad-witness-merkle-match",
        Rejected,
        "the witness commitment is not that of the transactions (BIP 141)",
    ),
    (
        "unexpected-witness",
        Rejected,
        "there are witnesses, and no commitment to them in the coinbase (BIP 141)",
    ),
    ("bad-blk-length", Rejected, "the block has no transaction, or too many bytes"),
    ("bad-blk-weight", Rejected, "the block is heavier than 4,000,000 weight units"),
    ("bad-blk-sigops", Rejected, "the block has too many signature operations"),
    // Its transactions.
    ("bad-txns", Rejected, "a transaction is invalid"),
    (
        "bad-txns-inputs-missingorspent",
        Rejected,
        "a transaction spends what is not there or is spent",
    ),
    (
        "bad-txns-premature-spend-of-coinbase",
        Rejected,
        "a transaction spends a coinbase less than 100 blocks old",
    ),
    ("bad-txns-in-belowout", Rejected, "a transaction pays more than it takes"),
    ("bad-txns-nonfinal", Rejected, "a transaction's lock time or sequence lock is not over"),
    ("bad-txns-BIP30", Rejected, "a transaction has the id of one that is not spent yet (BIP 30)"),
];

/// Answers that go on after a common beginning.
const PREFIXES: &[(&str, &str)] = &[
    ("bad-version(", "the version is too low for the rules in force, or has bits it may not have"),
    ("bad-txns-", "a transaction is invalid"),
    ("block-script-verify-flag-failed", "a transaction's script fails"),
    ("mandatory-script-verify-flag-failed", "a transaction's script fails"),
    ("non-mandatory-script-verify-flag", "a transaction's script fails"),
    ("bad-cb-", "the coinbase is invalid"),
    ("bad-witness-", "the witnesses are invalid"),
    ("bad-blk-", "the block is invalid"),
    ("time-", "nTime is out of bounds"),
];

/// What a node's answer to a submitted block says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitResponse {
    /// What became of the block.
    Verdict(Verdict),
    /// The node has the block: in its best chain, beside it, or before it has come to it, which
    /// `getblockheader` tells.
    AlreadyKnown(Refusal),
    /// The node could not judge the block. A node that was restarted after a crash starts behind its
    /// last tip and does not know the block before (`prev-blk-not-found`), and one whose clock was
    /// set back finds the block too new (`time-too-new`). The same block may be taken later.
    Undecided(Refusal),
}

/// What a node's answer to a submitted block says of it. (A node that takes a block answers `null`,
/// that is with no words at all, which is for the caller to see.)
///
/// The words are kept as they are, on one line of at most [`WORDS_MAX`] characters.
#[must_use]
pub fn parse_response(words: &str) -> SubmitResponse {
    let (kind, meaning) = TABLE
        .iter()
        .find(|(known, ..)| *known == words)
        .map(|(_, kind, meaning)| (*kind, *meaning))
        .or_else(|| {
            let (_, meaning) = PREFIXES.iter().find(|(start, _)| words.starts_with(start))?;
            Some((Rejected, *meaning))
        })
        .unwrap_or((Rejected, ""));
    let refusal = Refusal::new(printable(words, WORDS_MAX), meaning);
    match kind {
        AlreadyKnown => SubmitResponse::AlreadyKnown(refusal),
        Undecided => SubmitResponse::Undecided(refusal),
        Rejected => SubmitResponse::Verdict(Verdict::Rejected(refusal)),
        Stale => SubmitResponse::Verdict(Verdict::Stale(refusal)),
    }
}

/// The verdict where the node can neither be asked further nor be sent the block again: what it has
/// already is too late, and what it could not judge is refused.
#[must_use]
pub fn verdict_for(words: &str) -> Verdict {
    match parse_response(words) {
        SubmitResponse::Verdict(verdict) => verdict,
        SubmitResponse::AlreadyKnown(why) => Verdict::Stale(why),
        SubmitResponse::Undecided(why) => Verdict::Rejected(why),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_has_each_answer_once_and_explains_it() {
        let mut seen = HashSet::new();
        for (words, kind, meaning) in TABLE {
            assert!(seen.insert(words), "{words} is there twice");
            assert!(!meaning.is_empty() && !meaning.ends_with('.'), "{words}");
            let verdict = verdict_for(words);
            let refusal = verdict.refusal().unwrap();
            assert_eq!((refusal.words.as_str(), refusal.meaning), (*words, *meaning));
            let is_stale = matches!(kind, Stale | AlreadyKnown);
            assert_eq!(matches!(verdict, Verdict::Stale(_)), is_stale);
        }
    }

    #[test]
    fn a_refusal_reads_well() {
        let line = |words| verdict_for(words).refusal().unwrap().to_string();
        assert_eq!(line("high-hash"), "high-hash (the hash does not meet the target)");
        assert_eq!(line(""), "the node gives no reason");
        assert_eq!(
            line("bad-version(0x00000003)"),
            "bad-version(0x00000003) (the version is too low for the rules in force, or has bits \
             it may not have)"
        );
        assert_eq!(
            line("bad-txns-vout-negative"),
            "bad-txns-vout-negative (a transaction is invalid)"
        );
        assert_eq!(line("of-the-year-3000"), "of-the-year-3000");
    }

    #[test]
    fn a_lost_race_is_stale_and_a_lost_parent_is_not() {
        assert_eq!(verdict_for("inconclusive").result(), "stale");
        assert_eq!(verdict_for("prev-blk-not-found").result(), "rejected");
    }

    #[test]
    fn a_block_that_the_node_has_or_cannot_judge_has_no_verdict_yet() {
        assert!(matches!(parse_response("duplicate"), SubmitResponse::AlreadyKnown(_)));
        assert!(matches!(
            parse_response("duplicate-inconclusive"),
            SubmitResponse::AlreadyKnown(_)
        ));
        assert!(matches!(parse_response("prev-blk-not-found"), SubmitResponse::Undecided(_)));
        assert!(matches!(parse_response("time-too-new"), SubmitResponse::Undecided(_)));
        assert_eq!(
            parse_response("duplicate-invalid"),
            SubmitResponse::Verdict(verdict_for("duplicate-invalid"))
        );
    }

    proptest! {
        #[test]
        fn hostile_words_stay_one_short_line(words in "\\PC{0,10}[\\x00-\\x1f\u{202e}a-z]{0,400}") {
            if let Some(refusal) = verdict_for(&words).refusal() {
                prop_assert!(refusal.words.chars().count() <= WORDS_MAX);
                prop_assert!(refusal.words.chars().all(crate::printable::is_printable));
            }
        }
    }
}
