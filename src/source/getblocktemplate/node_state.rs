//! The state of the connection to a node as it was last announced, slow calls included.

use crate::engine::Port;
use crate::source::connection_state::ConnectionState;

/// What was announced of the connection.
#[derive(Debug, Default)]
pub struct NodeState {
    connection: ConnectionState,
    /// Whether a slow call was announced since the last template.
    announced_slow: bool,
}

impl NodeState {
    /// Announces that the source retries, and why, unless that was the last announcement.
    pub fn retrying(&mut self, port: &Port, reason: String) {
        self.connection.retrying(port, reason);
    }

    /// Announces that the node is connected, unless that was the last announcement.
    pub fn connected(&mut self, port: &Port) {
        self.connection.connected(port);
    }

    /// Notes that the node has given a template.
    pub const fn template_received(&mut self) {
        self.connection.worked();
        self.announced_slow = false;
    }

    /// Announces that the node is lost; or, if it has given no template since that was last
    /// announced, that the source still retries.
    pub fn lost(&mut self, port: &Port, reason: String) {
        self.connection.lost(port, reason);
    }

    /// Announces once why a call takes so long. While a template is mined that is only a notice: the
    /// template stays good for a while.
    pub fn slow(&mut self, port: &Port, reason: String) {
        if std::mem::replace(&mut self.announced_slow, true) {
            return;
        }
        if self.connection.has_worked() {
            port.notice(format!("the node is slow: {reason}"));
        } else {
            self.connection.retrying(port, reason);
        }
    }

    /// Announces that there has been no template, if nothing was announced that explains it: a run
    /// that never mined must not look like one that merely had no luck.
    pub fn ended(&mut self, port: &Port) {
        if !self.connection.has_announced() {
            let why = "mining here has ended before the node gave a template";
            self.connection.retrying(port, why.to_owned());
        }
    }
}
