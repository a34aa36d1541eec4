//! Why the value of an option or a setting is not taken, and how that is said.

/// Why a value is not taken. It never repeats the value: that may hold a secret, and the caller that shows
/// the error knows what may be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ValueError {
    /// Why.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ValueError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The one of `known` that looks most like `word`.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Letters that have changed places are one slip, not two; of equals, the one that begins alike.
    let slips = |known: &str| strsim::osa_distance(&word, known);
    let likeness = |known: &str| strsim::jaro_winkler(&word, known);
    known
        .into_iter()
        .min_by(|a, b| slips(a).cmp(&slips(b)).then(likeness(b).total_cmp(&likeness(a))))
}

/// The same, when it looks like a slip and not like another word altogether.
pub(crate) fn slip<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(word, known).filter(|near| strsim::jaro_winkler(&word.to_lowercase(), near) > 0.7)
}

/// `value` without what stands between its scheme and its last `@`: a user name and a password.
#[must_use]
pub fn redact(value: &str) -> String {
    match value.rfind('@') {
        None => value.to_owned(),
        Some(at) => {
            let from = value.find("://").map_or(0, |scheme| scheme + 3).min(at);
            format!("{}***{}", &value[..from], &value[at..])
        }
    }
}
