//! What a pool's answer to a share means: its words, and an explanation beside them.

use serde_json::value::RawValue;

use super::message::{Answer, PoolError};
use crate::job::{RejectReason, Verdict};

/// Why a share was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectKind {
    /// The job is over.
    Stale,
    /// The pool does not know the job: it is over, or the pool has forgotten it.
    UnknownJob,
    /// The pool has had it before.
    Duplicate,
    /// Its hash is above the pool's target.
    LowDifficulty,
    /// The worker is unknown, or not logged in.
    Unauthorized,
    /// The pool has forgotten the subscription.
    NotSubscribed,
    /// Its nTime is out of the pool's bounds.
    Time,
    /// Its version bits are not allowed.
    Version,
    /// The pool may have built another header from its version bits.
    OtherHeader,
    /// The pool gives another reason.
    Other,
    /// The pool gives no reason.
    Silent,
}

impl RejectKind {
    /// An explanation for the user; empty where there is none.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Stale | Self::UnknownJob => "the job was over when the share came",
            Self::Duplicate => "the pool has had this share before",
            Self::LowDifficulty => "the hash does not meet the pool's target",
            Self::Unauthorized => "the pool does not know this worker",
            Self::NotSubscribed => "the pool has forgotten this connection's subscription",
            Self::Time => "nTime is out of the pool's bounds",
            Self::Version => "the version has bits that the pool does not allow",
            Self::OtherHeader => {
                "the hash is right: the pool may have built another version from the version bits"
            }
            Self::Other => "",
            Self::Silent => "the pool gives no reason",
        }
    }
}

/// What pools write, in lower case, as a part of their words; the first that matches counts.
const WORDS: &[(&str, RejectKind)] = &[
    ("duplicate", RejectKind::Duplicate),
    ("already submitted", RejectKind::Duplicate),
    ("low diff", RejectKind::LowDifficulty),
    ("low-diff", RejectKind::LowDifficulty),
    ("lowdiff", RejectKind::LowDifficulty),
    ("difficulty too low", RejectKind::LowDifficulty),
    ("difficulty-too-low", RejectKind::LowDifficulty),
    ("above target", RejectKind::LowDifficulty),
    ("high-hash", RejectKind::LowDifficulty),
    ("high hash", RejectKind::LowDifficulty),
    ("not meet target", RejectKind::LowDifficulty),
    ("stale", RejectKind::Stale),
    ("job not found", RejectKind::UnknownJob),
    ("job-not-found", RejectKind::UnknownJob),
    ("unknown job", RejectKind::UnknownJob),
    ("unknown-job", RejectKind::UnknownJob),
    ("unknown work", RejectKind::UnknownJob),
    ("invalid job", RejectKind::UnknownJob),
    ("invalid jobid", RejectKind::UnknownJob),
    ("no such job", RejectKind::UnknownJob),
    ("old job", RejectKind::Stale),
    ("not subscribed", RejectKind::NotSubscribed),
    ("unauthori", RejectKind::Unauthorized),
    ("not authori", RejectKind::Unauthorized),
    ("unknown worker", RejectKind::Unauthorized),
    ("unknown-user", RejectKind::Unauthorized),
    ("ntime", RejectKind::Time),
    ("time-too", RejectKind::Time),
    ("version", RejectKind::Version),
];

/// Why a share was refused. The words tell more than the numbers (20 and up, from the first Stratum
/// pool), which some pools use differently.
#[must_use]
pub fn classify(pool_error: &PoolError) -> RejectKind {
    let words = pool_error.words.to_lowercase();
    if let Some((_, kind)) = WORDS.iter().find(|(part, _)| words.contains(part)) {
        return *kind;
    }
    match pool_error.code {
        Some(21) => RejectKind::UnknownJob,
        Some(22) => RejectKind::Duplicate,
        Some(23) => RejectKind::LowDifficulty,
        Some(24) => RejectKind::Unauthorized,
        Some(25) => RejectKind::NotSubscribed,
        None if words.is_empty() => RejectKind::Silent,
        _ => RejectKind::Other,
    }
}

/// Words about a login that may be accepted a little later.
const PASSING: &[&str] = &[
    "later",
    "internal",
    "starting",
    "startup",
    "temporar",
    "timeout",
    "timed out",
    "time out",
    "unavailable",
    "busy",
    "overload",
    "maintenance",
    "database",
    "sync",
    "too many",
    "rate limit",
    "throttl",
    "not ready",
    "backend",
    "upstream",
    "connection",
];
/// Words about a login that never will be accepted.
const FINAL: &[&str] = &[
    "unauthori",
    "not authori",
    "unknown user",
    "unknown worker",
    "unknown-user",
    "no such user",
    "no such worker",
    "user not found",
    "worker not found",
    "invalid user",
    "invalid worker",
    "invalid username",
    "bad user",
    "invalid address",
    "bad address",
    "address",
    "password",
    "invalid login",
    "login failed",
    "authentication failed",
    "credentials",
    "banned",
    "blocked",
    "not allowed",
    "forbidden",
    "denied",
    "disabled",
    "not registered",
    "does not exist",
];

/// Whether a login that was refused in these words will be refused again. Words that leave it open may
/// pass; no words at all are the usual way to refuse a worker.
#[must_use]
pub fn is_final_login(pool_error: &PoolError) -> bool {
    let words = pool_error.words.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if words.is_empty() {
        return true;
    }
    // "Try again" also comes with a wrong password.
    let is_unknown = || pool_error.code == Some(24) && !words.contains("try again");
    !says(PASSING) && (says(FINAL) || is_unknown())
}

/// Whether a result means yes: `true`, or one of the other forms that pools use for it.
#[must_use]
pub fn is_yes(result: Option<&RawValue>) -> bool {
    match result.map(RawValue::get) {
        Some("true" | "1" | "\"true\"" | "\"OK\"" | "\"ok\"" | "\"accepted\"") => true,
        Some(text) if text.starts_with('{') => {
            #[derive(serde::Deserialize)]
            struct Status {
                status: String,
            }
            serde_json::from_str::<Status>(text)
                .is_ok_and(|status| status.status.eq_ignore_ascii_case("ok"))
        }
        _ => false,
    }
}

/// The verdict that the answer to a share gives, and the reason if it was refused. `maybe_other_header`
/// says that the pool may have hashed another header than the miner.
#[must_use]
pub fn verdict_of(answer: &Answer<'_>, maybe_other_header: bool) -> (Verdict, Option<RejectKind>) {
    let pool_error = match &answer.error {
        None if is_yes(answer.result) => return (Verdict::Accepted, None),
        None => PoolError::default(),
        Some(pool_error) => pool_error.clone(),
    };
    let kind = match classify(&pool_error) {
        RejectKind::LowDifficulty
        | RejectKind::Version
        | RejectKind::Other
        | RejectKind::Silent
            if maybe_other_header =>
        {
            RejectKind::OtherHeader
        }
        kind => kind,
    };
    let words = match pool_error.code {
        Some(code) if pool_error.words.is_empty() => format!("error {code}"),
        _ => pool_error.words,
    };
    let reason = RejectReason::new(words, kind.meaning());
    let verdict = match kind {
        RejectKind::Stale | RejectKind::UnknownJob => Verdict::Stale(reason),
        _ => Verdict::Rejected(reason),
    };
    (verdict, Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stratum_v1::message::{self, Message};

    fn verdict(line: &str) -> Verdict {
        match message::read(line.as_bytes()).unwrap() {
            Message::Answer(answer) => verdict_of(&answer, false).0,
            Message::Call { .. } => panic!("{line}"),
        }
    }

    #[test]
    fn only_plain_words_end_a_login() {
        let is_final =
            |code, words: &str| is_final_login(&PoolError { code, words: words.to_owned() });
        for (code, words) in [
            (None, ""),
            (Some(24), "Unauthorized worker"),
            (Some(24), "no"),
            (None, "Invalid address"),
            (Some(20), "User not found"),
            (None, "your IP is banned"),
            (Some(20), "Invalid username or password, please try again"),
        ] {
            assert!(is_final(code, words), "{code:?} {words}");
        }
        for (code, words) in [
            (Some(20), "Internal error: database is starting up, try again"),
            (Some(24), "Unauthorized: login server timeout"),
            (None, "too many connections"),
            (Some(24), "Please try again"),
            (None, "Unauthorized for now, try later"),
            (Some(20), "Other/Unknown"),
        ] {
            assert!(!is_final(code, words), "{code:?} {words}");
        }
    }

    #[test]
    fn answers_are_understood() {
        for line in [
            r#"{"id":1,"result":true,"error":null}"#,
            r#"{"id":1,"result":true}"#,
            r#"{"id":1,"result":true,"error":[]}"#,
            r#"{"id":1,"result":{"status":"OK"},"error":null}"#,
            r#"{"id":1,"result":true,"error":{}}"#,
            r#"{"id":1,"result":true,"error":{"code":0}}"#,
            r#"{"id":1,"result":true,"error":{"code":0,"message":""}}"#,
            r#"{"id":1,"result":true,"error":[0,"",null]}"#,
        ] {
            assert_eq!(verdict(line), Verdict::Accepted, "{line}");
        }
        for (line, result, said) in [
            (r#"{"id":1,"result":false}"#, "rejected", "the pool gives no reason"),
            (r#"{"id":1,"result":null,"error":null}"#, "rejected", "the pool gives no reason"),
            (
                r#"{"id":1,"result":null,"error":[21,"Job not found",null]}"#,
                "stale",
                "Job not found (the job was over when the share came)",
            ),
            (
                r#"{"id":1,"result":false,"error":[22,"Duplicate share",null]}"#,
                "rejected",
                "Duplicate share (the pool has had this share before)",
            ),
            (
                r#"{"id":1,"result":false,"error":{"code":23,"message":""}}"#,
                "rejected",
                "error 23 (the hash does not meet the pool's target)",
            ),
            (
                r#"{"id":1,"result":true,"error":"Above target"}"#,
                "rejected",
                "Above target (the hash does not meet the pool's target)",
            ),
            (
                r#"{"id":1,"result":null,"error":[20,"Stale share",null]}"#,
                "stale",
                "Stale share (the job was over when the share came)",
            ),
            (
                r#"{"id":1,"result":null,"error":[24,"Unauthorized worker",null]}"#,
                "rejected",
                "Unauthorized worker (the pool does not know this worker)",
            ),
            (
                r#"{"id":1,"result":null,"error":[20,"ntime out of range",null]}"#,
                "rejected",
                "ntime out of range (nTime is out of the pool's bounds)",
            ),
            (r#"{"id":1,"result":null,"error":[20,"Go away",null]}"#, "rejected", "Go away"),
            (r#"{"id":1,"error":-1}"#, "rejected", "error -1"),
        ] {
            let verdict = verdict(line);
            assert_eq!(verdict.result(), result, "{line}");
            assert_eq!(verdict.reject_reason().unwrap().to_string(), said, "{line}");
        }
    }
}
