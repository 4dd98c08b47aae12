//! What the operator wanted of backends that are gone. DNS may leave a node out of one answer: when it is back, a
//! drained node must still be drained.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pool::status::BackendStatus;
use crate::pool::{Backend, OperatorState};

/// Names kept per pool, the latest ones: as many as one answer of discovery may hold, so that a whole set may vanish.
const MAX_REMEMBERED: usize = crate::net::dns::MAX_RECORDS;

/// By name; only of backends of which the operator wanted something.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The oldest first.
    wishes: VecDeque<OperatorSettings>,
}

#[derive(Debug)]
struct OperatorSettings {
    name: Arc<str>,
    operator: OperatorState,
    weight: Option<u16>,
    emptying: bool,
}

impl Remembered {
    /// `backend` leaves the pool for good, unless a later snapshot or reload names it again.
    pub(super) fn keep(&mut self, backend: &Backend) {
        let (operator, weight, emptying) = {
            let status = backend.status();
            (status.operator, status.weight, status.emptying)
        };
        if operator == OperatorState::Ready && weight.is_none() {
            return;
        }
        if self.wishes.len() == MAX_REMEMBERED {
            self.wishes.pop_front();
        }
        self.wishes.push_back(OperatorSettings {
            name: backend.name().clone(),
            operator,
            weight,
            emptying,
        });
    }

    /// Gives a new backend what was wanted of the one of its name.
    pub(super) fn restore(&mut self, status: &mut BackendStatus) {
        let name = status.settings().name.as_str();
        let position = self.wishes.iter().position(|wish| *wish.name == *name);
        if let Some(wish) = position.and_then(|position| self.wishes.remove(position)) {
            status.operator = wish.operator;
            status.weight = wish.weight;
            status.emptying = wish.emptying;
        }
    }
}
