//! In which form a pool takes the version bits of a share.
//!
//! The sixth parameter of `mining.submit` (BIP 310) makes a header's version of the job's in one of
//! three ways: the pool puts it in place of the job's bits under the mask, as the BIP says, ORs it into
//! the job's version, or XORs it. All are the same while the job sets no bit under the mask. Where it
//! does (regtest signals in bit 28 from height 144 to 431, which lies under most masks), a pool that
//! means the other way makes another header, and refuses each share as one whose hash is not good
//! enough. No bit that the job sets is ever cleared, so the first two ways stay the same.

use serde::{Deserialize, Serialize};

/// How many right shares a pool has to refuse in a row until another form is tried.
const REFUSED: u32 = 3;

/// What is sent as a share's version bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The header's bits under the mask, for pools that put them in place of the job's (BIP 310) or
    /// OR them into the job's.
    Header,
    /// The bits in which the header differs from the job, for pools that XOR them.
    Difference,
}

impl Form {
    /// The bits to be sent for a header of this version, of a job of that one.
    #[must_use]
    pub const fn bits(self, header: u32, job: u32, mask: u32) -> u32 {
        match self {
            Self::Header => header & mask,
            Self::Difference => (header ^ job) & mask,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Header => Self::Difference,
            Self::Difference => Self::Header,
        }
    }
}

/// What an answer has taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Nothing new.
    Nothing,
    /// The pool takes the form that is sent.
    Proven(Form),
    /// The other form is sent from now on.
    Switched,
    /// The pool takes neither.
    NeitherForm,
}

/// Learns a pool's form from its answers to shares for which the forms differ.
#[derive(Clone, Copy, Debug)]
pub struct Learner {
    form: Form,
    is_proven: bool,
    has_switched: bool,
    refused: u32,
}

impl Learner {
    /// Begins with the form that the pool took before, or the one that most pools take.
    #[must_use]
    pub fn new(known: Option<Form>) -> Self {
        let form = known.unwrap_or(Form::Header);
        Self { form, is_proven: false, has_switched: false, refused: 0 }
    }

    /// The form to be sent.
    #[must_use]
    pub const fn form(self) -> Form {
        self.form
    }

    /// Whether the pool has taken a share in this form.
    #[must_use]
    pub const fn is_proven(self) -> bool {
        self.is_proven
    }

    /// The pool has taken a share that was sent in `form`.
    pub fn accepted(&mut self, form: Form) -> Learned {
        let is_news = !self.is_proven || self.form != form;
        *self = Self { form, is_proven: true, has_switched: self.has_switched, refused: 0 };
        if is_news { Learned::Proven(form) } else { Learned::Nothing }
    }

    /// The pool has refused a share that was right and was sent in `form`.
    pub fn refused(&mut self, form: Form) -> Learned {
        // Those that were on their way when the form was switched say nothing of the new one.
        if self.is_proven || form != self.form {
            return Learned::Nothing;
        }
        self.refused += 1;
        if self.refused < REFUSED {
            return Learned::Nothing;
        }
        if self.has_switched {
            *self = Self::new(None);
            return Learned::NeitherForm;
        }
        *self = Self { form: form.other(), has_switched: true, refused: 0, ..*self };
        Learned::Switched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 0x1fff_e000;

    #[test]
    fn each_form_makes_the_header_at_the_pools_that_it_is_for() {
        for job in [0x2000_0000, 0x3000_0000, 0x2080_0000, 0x3fff_e000] {
            for rolled in [0, 0x0000_2000, 0x1fff_e000, 0x0a0a_a000] {
                let header = job | (rolled & MASK);
                let sent = Form::Header.bits(header, job, MASK);
                assert_eq!((job & !MASK) | sent, header, "BIP 310");
                assert_eq!(job | sent, header, "OR");
                assert_eq!(job ^ Form::Difference.bits(header, job, MASK), header, "XOR");
            }
        }
    }

    #[test]
    fn a_form_is_switched_after_refusals_and_given_up_after_more() {
        let mut learner = Learner::new(None);
        let refuse = |learner: &mut Learner, form| {
            (0..REFUSED).map(|_| learner.refused(form)).last().unwrap()
        };
        assert_eq!(refuse(&mut learner, Form::Header), Learned::Switched);
        // Still on their way when it was switched.
        assert_eq!(refuse(&mut learner, Form::Header), Learned::Nothing);
        assert_eq!(learner.form(), Form::Difference);
        let mut proven = learner;
        assert_eq!(proven.accepted(Form::Difference), Learned::Proven(Form::Difference));
        assert_eq!(proven.accepted(Form::Difference), Learned::Nothing);
        assert_eq!(refuse(&mut proven, Form::Difference), Learned::Nothing);
        assert_eq!(refuse(&mut learner, Form::Difference), Learned::NeitherForm);
        assert_eq!(learner.form(), Form::Header);
    }

    #[test]
    fn what_was_learned_before_is_tried_first_and_may_be_wrong() {
        let mut learner = Learner::new(Some(Form::Difference));
        assert_eq!(learner.form(), Form::Difference);
        for _ in 0..REFUSED {
            learner.refused(Form::Difference);
        }
        assert_eq!(learner.accepted(Form::Header), Learned::Proven(Form::Header));
    }

    #[test]
    fn two_refusals_and_an_acceptance_switch_nothing() {
        let mut learner = Learner::new(None);
        learner.refused(Form::Header);
        learner.refused(Form::Header);
        learner.accepted(Form::Header);
        learner.refused(Form::Header);
        assert_eq!(learner.form(), Form::Header);
    }
}
