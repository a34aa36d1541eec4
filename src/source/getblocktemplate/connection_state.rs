//! The state of the connection to a node as it was last announced: nothing is announced twice.

use crate::engine::Port;
use crate::event::SourceState;

/// What was announced of the connection.
#[derive(Debug)]
pub struct ConnectionState {
    announced: Announced,
    /// Whether the node has given a template since it was last announced as lost.
    has_template: bool,
    /// Whether a slow call was announced since the last template.
    announced_slow: bool,
}

/// The last announcement.
#[derive(Debug, PartialEq, Eq)]
enum Announced {
    Nothing,
    Connected,
    Lost,
    /// Retrying, and why.
    Retrying(String),
}

impl ConnectionState {
    /// Nothing has been announced.
    pub const fn new() -> Self {
        Self { announced: Announced::Nothing, has_template: false, announced_slow: false }
    }

    /// Announces that the source retries, and why, unless that was the last announcement.
    pub fn retrying(&mut self, port: &Port, reason: String) {
        let now = Announced::Retrying(reason.clone());
        if self.announced != now {
            self.announced = now;
            port.source_is(SourceState::Retrying, Some(reason));
        }
    }

    /// Announces that the node is connected, unless that was the last announcement.
    pub fn connected(&mut self, port: &Port) {
        let before = std::mem::replace(&mut self.announced, Announced::Connected);
        if before != Announced::Connected {
            port.source_is(SourceState::Connected, None);
        }
    }

    /// Notes that the node has given a template.
    pub const fn template_received(&mut self) {
        self.has_template = true;
        self.announced_slow = false;
    }

    /// Announces that the node is lost; or, if it has given no template since that was last
    /// announced, that the source still retries.
    pub fn lost(&mut self, port: &Port, reason: String) {
        if std::mem::take(&mut self.has_template) {
            self.announced = Announced::Lost;
            port.source_is(SourceState::Lost, Some(reason));
        } else {
            self.retrying(port, reason);
        }
    }

    /// Announces once why a call takes so long. While a template is mined that is only a notice: the
    /// template stays good for a while.
    pub fn slow(&mut self, port: &Port, reason: String) {
        if std::mem::replace(&mut self.announced_slow, true) {
            return;
        }
        if self.has_template {
            port.notice(format!("the node is slow: {reason}"));
        } else {
            self.retrying(port, reason);
        }
    }

    /// Announces that there has been no template, if nothing was announced that explains it: a run
    /// that never mined must not look like one that merely had no luck.
    pub fn ended(&mut self, port: &Port) {
        if self.announced == Announced::Nothing {
            self.retrying(port, "mining here has ended before the node gave a template".to_owned());
        }
    }
}
