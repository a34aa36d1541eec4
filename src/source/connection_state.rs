//! What was announced of a source's connection: no state is announced twice in a row.

use crate::engine::Port;
use crate::event::SourceState;

/// The state of a source's connection as it was announced last.
#[derive(Debug, Default)]
pub struct ConnectionState {
    announced: Announced,
    /// Whether there was work since the connection was last announced as lost.
    has_worked: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Announced {
    #[default]
    Nothing,
    Connected,
    Lost,
    /// It is tried again, for this reason.
    Retrying(String),
}

impl ConnectionState {
    /// Announces that the source is connected, if it was not.
    pub fn connected(&mut self, port: &Port) {
        if std::mem::replace(&mut self.announced, Announced::Connected) != Announced::Connected {
            port.source_is(SourceState::Connected, None);
        }
    }

    /// The source has given work: the end of this connection is a loss, and not a failed attempt.
    pub const fn worked(&mut self) {
        self.has_worked = true;
    }

    /// Whether there was work since the connection was last announced as lost.
    pub const fn has_worked(&self) -> bool {
        self.has_worked
    }

    /// Whether anything was announced.
    pub fn has_announced(&self) -> bool {
        self.announced != Announced::Nothing
    }

    /// Announces that the connection is lost; that it is tried again, where it has given no work
    /// since that was last announced.
    pub fn lost(&mut self, port: &Port, reason: String) {
        if std::mem::take(&mut self.has_worked) {
            self.announced = Announced::Lost;
            port.source_is(SourceState::Lost, Some(reason));
        } else {
            self.retrying(port, reason);
        }
    }

    /// Announces why the source is tried again, if that is not what was announced last.
    pub fn retrying(&mut self, port: &Port, reason: String) {
        let retrying = Announced::Retrying(reason.clone());
        if self.announced != retrying {
            self.announced = retrying;
            port.source_is(SourceState::Retrying, Some(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Goal, SourceInfo};
    use crate::event::{Announcer, Event, Listener};
    use crate::job::SourceId;

    fn announced(events: &Listener) -> Vec<(SourceState, Option<String>)> {
        let states = events.try_iter().filter_map(|announcement| match announcement.event {
            Event::Source { state, reason, .. } => Some((state, reason)),
            _ => None,
        });
        states.collect()
    }

    #[test]
    fn a_state_is_announced_once_and_a_loss_only_after_work() {
        let (announcer, events) = Announcer::new();
        let sources = vec![SourceInfo::new("pool", "test")];
        let (_engine, sources) =
            Engine::with_sources(Vec::new(), sources, Goal::default(), announcer).unwrap();
        let port = sources.open(SourceId(0));
        let mut state = ConnectionState::default();
        let why = || "refused".to_owned();
        state.lost(&port, why());
        state.retrying(&port, why());
        state.connected(&port);
        state.connected(&port);
        state.retrying(&port, why());
        state.connected(&port);
        state.worked();
        state.lost(&port, why());
        state.lost(&port, why());
        let reason = Some(why());
        assert_eq!(
            announced(&events),
            [
                (SourceState::Retrying, reason.clone()),
                (SourceState::Connected, None),
                (SourceState::Retrying, reason.clone()),
                (SourceState::Connected, None),
                (SourceState::Lost, reason.clone()),
                (SourceState::Retrying, reason),
            ]
        );
    }
}
