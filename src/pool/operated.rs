//! Settings of a backend that the operator makes: its state and its weight.

use super::backend::Backend;
use super::clock::clock;
use super::states::OperatorState;

impl Backend {
    pub fn set_operator(&self, operator: OperatorState) {
        let left_maintenance = self.write(clock(), |status| status.set_operator(operator));
        if left_maintenance {
            self.check_wanted.notify_one();
        }
        self.losses().notify();
    }

    /// Notes that the operator ends its connections, or has ended them: while it is drained, sticky
    /// cookies are not followed.
    pub fn set_emptying(&self, emptying: bool) {
        self.write(clock(), |status| status.operator.emptying = emptying);
    }

    pub fn operator(&self) -> OperatorState {
        self.status().operator.state
    }

    /// Sets the operator's weight, 0..=256; kept over reloads. `None` = the configured one.
    pub fn set_weight(&self, weight: Option<u16>) {
        self.write(clock(), |status| status.operator.weight = weight);
    }

    /// The operator's weight; `None`: the configured one is in force.
    pub fn operator_weight(&self) -> Option<u16> {
        self.status().operator.weight
    }

    /// The weight in force: the operator's or the configured one.
    pub fn weight(&self) -> u16 {
        self.status().weight()
    }
}
