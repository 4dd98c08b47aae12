//! Conditions of `reload --if`: `KEY OP NUMBER`, as in `removes<=2`.

use std::fmt;
use std::str::FromStr;

use super::plan::PlanTotals;
use crate::config::Config;
use crate::server::state::Server;

/// Allowed conditions, for messages.
const ALLOWED: &str = "KEY OP NUMBER, as in \"removes=0\"; keys: changes, adds, removes, closes, left_behind; \
     operators: =, !=, <, <=, >, >=";

/// A key with its value in the totals.
type ConditionKey = (&'static str, fn(&PlanTotals) -> u64);

/// An operator with its comparison.
type ConditionOperator = (&'static str, fn(&u64, &u64) -> bool);

const KEYS: [ConditionKey; 5] = [
    ("changes", |totals| totals.changes),
    ("adds", |totals| totals.adds),
    ("removes", |totals| totals.removes),
    ("closes", |totals| totals.closes),
    ("left_behind", |totals| totals.left_behind),
];

/// Operators, the longer ones first: `<` begins `<=`.
const OPERATORS: [ConditionOperator; 6] = [
    ("!=", u64::ne),
    ("<=", u64::le),
    (">=", u64::ge),
    ("=", u64::eq),
    ("<", u64::lt),
    (">", u64::gt),
];

/// A comparison that must hold of the totals of a reload for it to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Index in `KEYS`.
    key: usize,
    /// Index in `OPERATORS`.
    operator: usize,
    number: u64,
}

impl Condition {
    fn holds(&self, totals: &PlanTotals) -> bool {
        let (_, compare) = OPERATORS[self.operator];
        compare(&self.value(totals), &self.number)
    }

    /// Value of the key in `totals`.
    fn value(&self, totals: &PlanTotals) -> u64 {
        let (_, value) = KEYS[self.key];
        value(totals)
    }
}

impl Server {
    /// Errors of the conditions that do not hold of a reload to `new`.
    pub(super) fn objections(&self, conditions: &[Condition], new: &Config) -> Vec<String> {
        if conditions.is_empty() {
            return Vec::new();
        }
        let totals = self.preview(new).totals;
        let broken = conditions.iter().filter(|one| !one.holds(&totals));
        broken
            .map(|one| format!("{one} does not hold: it would be {}", one.value(&totals)))
            .collect()
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let wrong = || format!("{text:?} is no condition; allowed: {ALLOWED}");
        let bare = text.trim();
        let end = bare.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        let (key, rest) = bare
            .split_at_checked(end.ok_or_else(wrong)?)
            .ok_or_else(wrong)?;
        let rest = rest.trim_start();
        let key = KEYS.iter().position(|(word, _)| *word == key);
        let mut operators = OPERATORS.iter().enumerate();
        let (operator, number) = operators
            .find_map(|(index, (sign, _))| Some((index, rest.strip_prefix(sign)?)))
            .ok_or_else(wrong)?;
        let number = number.trim_start();
        if number.starts_with('+') {
            return Err(wrong());
        }
        Ok(Condition {
            key: key.ok_or_else(wrong)?,
            operator,
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, operator) = (KEYS[self.key].0, OPERATORS[self.operator].0);
        write!(f, "{key}{operator}{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals() -> PlanTotals {
        PlanTotals {
            changes: 6,
            adds: 1,
            removes: 2,
            kept: 9,
            closes: 0,
            left_behind: 40,
        }
    }

    #[test]
    fn each_key_and_operator_is_judged() {
        for (text, holds) in [
            ("closes=0", true),
            ("closes = 1", false),
            (" removes <= 2 ", true),
            ("removes<2", false),
            ("changes>5", true),
            ("changes>6", false),
            ("adds!=1", false),
            ("left_behind>=40", true),
            ("left_behind<40", false),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.holds(&totals()), holds, "{text}");
            let again: Condition = condition.to_string().parse().unwrap();
            assert_eq!(again, condition);
        }
    }

    #[test]
    fn what_is_no_condition_is_told_what_is_allowed() {
        for text in [
            "",
            "closes",
            "closes=",
            "=0",
            "closes==0",
            "closes=-1",
            "closes=+1",
            "closes=0x1",
            "kept=1",
            "closes=0 adds=0",
            "Closes=0",
            "closes=99999999999999999999",
            "closes=0,",
            "closes~0",
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains("removes=0"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}", ours in "(closes|adds)[=<>! ]{0,3}[0-9 ]{0,4}") {
            let _ = (text.parse::<Condition>(), ours.parse::<Condition>());
        }
    }
}
