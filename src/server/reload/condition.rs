//! Conditions of `reload --if`: `KEY OP NUMBER`, as in `removes<=2`.

use std::fmt;
use std::str::FromStr;

use super::plan::Totals;

/// Allowed conditions, for messages.
const ALLOWED: &str = "KEY OP NUMBER, as in \"removes=0\"; keys: changes, adds, removes, closes, left_behind; \
     operators: =, !=, <, <=, >, >=";

/// A comparison that must hold of the totals of a reload for it to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    key: ConditionKey,
    operator: Operator,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConditionKey {
    Changes,
    Adds,
    Removes,
    Closes,
    LeftBehind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

const KEYS: [(&str, ConditionKey); 5] = [
    ("changes", ConditionKey::Changes),
    ("adds", ConditionKey::Adds),
    ("removes", ConditionKey::Removes),
    ("closes", ConditionKey::Closes),
    ("left_behind", ConditionKey::LeftBehind),
];

/// Operators, the longer ones first: `<` begins `<=`.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::More),
];

impl Condition {
    pub(super) fn holds(&self, totals: &Totals) -> bool {
        let value = self.value(totals);
        match self.operator {
            Operator::Equal => value == self.number,
            Operator::Unequal => value != self.number,
            Operator::Less => value < self.number,
            Operator::AtMost => value <= self.number,
            Operator::More => value > self.number,
            Operator::AtLeast => value >= self.number,
        }
    }

    /// Value of the key in `totals`.
    pub(super) fn value(&self, totals: &Totals) -> u64 {
        match self.key {
            ConditionKey::Changes => totals.changes,
            ConditionKey::Adds => totals.adds,
            ConditionKey::Removes => totals.removes,
            ConditionKey::Closes => totals.closes,
            ConditionKey::LeftBehind => totals.left_behind,
        }
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
        let (_, key) = KEYS
            .iter()
            .find(|(word, _)| *word == key)
            .ok_or_else(wrong)?;
        let mut operators = OPERATORS.iter();
        let (operator, number) = operators
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
            .ok_or_else(wrong)?;
        let number = number.trim_start();
        if number.starts_with('+') {
            return Err(wrong());
        }
        Ok(Condition {
            key: *key,
            operator,
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = KEYS.iter().find(|(_, key)| *key == self.key);
        let operator = OPERATORS.iter().find(|(_, one)| *one == self.operator);
        let (key, operator) = (
            key.map_or("", |one| one.0),
            operator.map_or("", |one| one.0),
        );
        write!(f, "{key}{operator}{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals() -> Totals {
        Totals {
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
