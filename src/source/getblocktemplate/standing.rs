//! How we stand with a node, as far as it was said: nothing is said twice.

use crate::engine::Port;
use crate::event::SourceState;

/// What was said of the connection.
#[derive(Debug)]
pub struct Standing {
    /// What is wrong at present; empty where nothing has been said yet.
    trouble: Option<String>,
    /// Whether the node has given a template since it was last said to be lost.
    served: bool,
    /// Whether it was said that a call has stalled, since the last template.
    said_stalled: bool,
}

impl Standing {
    /// Nothing has been said.
    pub const fn new() -> Self {
        Self { trouble: Some(String::new()), served: false, said_stalled: false }
    }

    /// Says what is wrong, once.
    pub fn say(&mut self, port: &Port, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            port.source_is(SourceState::Retrying, Some(reason.clone()));
            self.trouble = Some(reason);
        }
    }

    /// Says that all is well, if it was not.
    pub fn well(&mut self, port: &Port) {
        if self.trouble.take().is_some() {
            port.source_is(SourceState::Connected, None);
        }
    }

    /// The node has given a template.
    pub const fn served(&mut self) {
        self.served = true;
        self.said_stalled = false;
    }

    /// Says that the node is lost, or, where it gave no template since that was last said, why.
    pub fn lost(&mut self, port: &Port, reason: String) {
        if std::mem::take(&mut self.served) {
            // The first try is announced whatever it says.
            self.trouble = Some(String::new());
            port.source_is(SourceState::Lost, Some(reason));
        } else {
            self.say(port, reason);
        }
    }

    /// Says once why a call takes so long. While a template is mined that changes nothing: it is
    /// good for a while yet.
    pub fn stalled(&mut self, port: &Port, reason: String) {
        if std::mem::replace(&mut self.said_stalled, true) {
            return;
        }
        if self.served {
            port.notice(format!("the node is slow: {reason}"));
        } else {
            self.say(port, reason);
        }
    }

    /// Says that there has been no template, where nothing was said that explains it: a run that
    /// never mined must not look like one that was merely without luck.
    pub fn ended(&mut self, port: &Port) {
        if self.trouble.as_ref().is_some_and(String::is_empty) {
            self.say(port, "mining here has ended before the node gave a template".to_owned());
        }
    }
}
