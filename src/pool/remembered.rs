//! Operator settings of backends that are gone. DNS may leave a node out of one answer: when it is
//! back, a drained node must still be drained.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backend::Backend;
use super::states::OperatorState;
use super::status::{BackendStatus, OperatorSettings};

/// Names kept per pool, the latest ones. As many as one answer of discovery may hold, so that a
/// whole set may vanish.
const MAX_REMEMBERED: usize = crate::net::dns::MAX_RECORDS;

/// Settings by name, only of backends for which the operator has set something.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The oldest first.
    settings: VecDeque<(Arc<str>, OperatorSettings)>,
}

impl Remembered {
    /// Keeps the settings of a backend that leaves the pool, in case it comes back.
    pub(super) fn keep(&mut self, backend: &Backend) {
        let operator = backend.status().operator;
        if operator.state == OperatorState::Ready && operator.weight.is_none() {
            return;
        }
        if self.settings.len() == MAX_REMEMBERED {
            self.settings.pop_front();
        }
        self.settings.push_back((backend.name().clone(), operator));
    }

    /// Gives a new backend the settings of the last one of its name.
    pub(super) fn restore(&mut self, status: &mut BackendStatus) {
        let wanted = status.settings().name.as_str();
        let position = self.settings.iter().position(|(name, _)| **name == *wanted);
        if let Some((_, operator)) = position.and_then(|position| self.settings.remove(position)) {
            status.operator = operator;
        }
    }
}
