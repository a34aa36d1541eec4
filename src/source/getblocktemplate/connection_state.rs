//! How we stand with a node, as far as it was said: nothing is said twice.

use crate::engine::Port;
use crate::event::SourceState;

/// What was said of the connection.
#[derive(Debug)]
pub struct ConnectionState {
    said: Said,
    /// Whether the node has given a template since it was last said to be lost.
    served: bool,
    /// Whether it was said that a call has stalled, since the last template.
    said_stalled: bool,
}

/// What was said last.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Connected,
    Lost,
    /// It is tried again, and why.
    Retrying(String),
}

impl ConnectionState {
    /// Nothing has been said.
    pub const fn new() -> Self {
        Self { said: Said::Nothing, served: false, said_stalled: false }
    }

    /// Says what is wrong, once.
    pub fn say(&mut self, port: &Port, reason: String) {
        let said = Said::Retrying(reason.clone());
        if self.said != said {
            self.said = said;
            port.source_is(SourceState::Retrying, Some(reason));
        }
    }

    /// Says that all is well, if it was not.
    pub fn well(&mut self, port: &Port) {
        if std::mem::replace(&mut self.said, Said::Connected) != Said::Connected {
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
            self.said = Said::Lost;
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
        if self.said == Said::Nothing {
            self.say(port, "mining here has ended before the node gave a template".to_owned());
        }
    }
}
