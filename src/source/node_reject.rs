//! What a node's reject reasons mean: its words (BIP 22's responses to `submitblock`, and the
//! reasons of Bitcoin Core's and Knots's validation) with an explanation.

use crate::job::{RejectReason, Verdict};
use crate::printable::printable;

/// The most characters kept of what a node says.
pub const WORDS_MAX: usize = 200;

/// What a response means for the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The node has the block already; whether it is in the best chain has to be asked.
    AlreadyKnown,
    /// The block was not judged: the node lacks what it needs for that.
    Undecided,
    /// The block is invalid.
    Rejected,
    /// The block is valid, or was, and another one is in its place.
    Stale,
}
use Kind::{AlreadyKnown, Rejected, Stale, Undecided};

/// Responses word for word.
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
    ("inconclusive-not-best-prevblk", Stale, "the block no longer builds on the node's tip"),
    ("stale-prevblk", Stale, "the block no longer builds on the node's tip"),
    ("stale-work", Stale, "the template is too old"),
    ("unknown-work", Rejected, "the node does not know the template this was made from"),
    ("unknown-user", Rejected, "the node does not know the user"),
    ("rejected", Rejected, "the node gives no reason"),
    ("", Rejected, "the node gives no reason"),
    (
        "prev-blk-not-found",
        Undecided,
        "the node does not know the previous block: it was restarted on another chain, or is another node",
    ),
    ("bad-prevblk", Rejected, "the node has found the previous block invalid"),
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
        "nTime of a period's first block is over 10 minutes before its parent's (BIP 94)",
    ),
    ("bad-version", Rejected, "the version is too low or has bits that the node does not accept"),
    (
        "bad-version-sha256d",
        Rejected,
        "the version's highest bit is set, which marks another form of header for Bitcoin Knots",
    ),
    (
        "bad-version-blake2b",
        Rejected,
        "this node's chain is no longer mined with SHA-256d at this height",
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
    ("bad-cb-flag", Rejected, "the coinbase has a flag that the node does not accept"),
    ("bad-cb-prefix", Rejected, "the coinbase does not begin as the node requires"),
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
        "there are witnesses, but no commitment to them in the coinbase (BIP 141)",
    ),
    ("bad-blk-length", Rejected, "the block has no transaction, or too many bytes"),
    ("bad-blk-weight", Rejected, "the block is heavier than 4,000,000 weight units"),
    ("bad-blk-sigops", Rejected, "the block has too many signature operations"),
    // Its transactions.
    ("bad-txns", Rejected, "a transaction is invalid"),
    (
        "bad-txns-inputs-missingorspent",
        Rejected,
        "a transaction spends an output that does not exist or is spent",
    ),
    (
        "bad-txns-premature-spend-of-coinbase",
        Rejected,
        "a transaction spends a coinbase less than 100 blocks old",
    ),
    ("bad-txns-in-belowout", Rejected, "a transaction pays more than it spends"),
    ("bad-txns-nonfinal", Rejected, "a transaction's lock time or sequence lock has not passed"),
    ("bad-txns-BIP30", Rejected, "a transaction has the id of one that is not spent yet (BIP 30)"),
];

/// Responses that begin like this.
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

/// What a node's response says of a submitted block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitResponse {
    /// The block's verdict.
    Verdict(Verdict),
    /// The node has the block already: in its best chain, beside it, or not yet processed, which
    /// `getblockheader` tells.
    AlreadyKnown(RejectReason),
    /// The node could not judge the block. A node that was restarted after a crash starts behind its
    /// last tip and does not know the previous block (`prev-blk-not-found`), and one whose clock was
    /// set back finds the block too new (`time-too-new`). The same block may be accepted later.
    Undecided(RejectReason),
}

/// What a node's words say of a submitted block. (A node that accepts a block responds with `null`,
/// that is without words; the caller handles that.)
///
/// The words are kept on one line of at most [`WORDS_MAX`] characters.
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
    let reason = RejectReason::new(printable(words, WORDS_MAX), meaning);
    match kind {
        AlreadyKnown => SubmitResponse::AlreadyKnown(reason),
        Undecided => SubmitResponse::Undecided(reason),
        Rejected => SubmitResponse::Verdict(Verdict::Rejected(reason)),
        Stale => SubmitResponse::Verdict(Verdict::Stale(reason)),
    }
}

/// The verdict if the node can neither be asked further nor be sent the block again: one that it has
/// already is stale, and one that it could not judge is rejected.
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
    fn the_table_has_each_response_once_and_explains_it() {
        let mut seen = HashSet::new();
        for (words, kind, meaning) in TABLE {
            assert!(seen.insert(words), "{words} is in the table twice");
            assert!(!meaning.is_empty() && !meaning.ends_with('.'), "{words}");
            let verdict = verdict_for(words);
            let reason = verdict.reject_reason().unwrap();
            assert_eq!((reason.words.as_str(), reason.meaning), (*words, *meaning));
            let is_stale = matches!(kind, Stale | AlreadyKnown);
            assert_eq!(matches!(verdict, Verdict::Stale(_)), is_stale);
        }
    }

    #[test]
    fn a_reject_reason_reads_well() {
        let line = |words| verdict_for(words).reject_reason().unwrap().to_string();
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
            if let Some(reason) = verdict_for(&words).reject_reason() {
                prop_assert!(reason.words.chars().count() <= WORDS_MAX);
                prop_assert!(reason.words.chars().all(crate::printable::is_printable));
            }
        }
    }
}
