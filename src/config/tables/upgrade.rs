//! `[upgrade]`: the handover to a new binary.

use std::time::Duration;

use crate::config::spec::{DAY, HOUR, seconds, time};

table! {
    /// Handover to a new binary, by `evenkeel upgrade` or SIGUSR2.
    #[derive(Copy, Eq)]
    pub struct Upgrade: Default {
        /// Longest time that connections which stay in the old process may go on. Over the second
        /// half they are closed, evenly spread. Without it: `global.hard_stop_after`.
        hard_stop_after: Option<Duration> = time(0, DAY), optional;
        /// Time in which the old process keeps the listeners open, and accepts again if the new one
        /// ends.
        ///
        /// A binary that cannot bear the traffic mostly shows it within seconds.
        probation: Duration = time(0, HOUR), default(seconds(30));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool};

    #[test]
    fn each_wrong_value_is_refused() {
        let upgrade = |keys: &str| format!("{}\n[upgrade]\n{keys}\n", pool(""));
        each_refused([
            (
                upgrade("hard_stop_after = \"8d\""),
                "upgrade.hard_stop_after",
                ErrorKind::Value,
            ),
            (
                upgrade("probation = \"2h\""),
                "upgrade.probation",
                ErrorKind::Value,
            ),
            (
                upgrade("probation = true"),
                "upgrade.probation",
                ErrorKind::Type,
            ),
        ]);
    }
}
