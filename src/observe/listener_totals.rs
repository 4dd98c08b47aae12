//! All numbers of one listener, as they go to the next process in an upgrade: it adds what they
//! grow by to its own, so that no total begins anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counters::{ListenerCounters, ListenerValues};
use super::histogram::TimeTotals;
use super::refusal::Refusal;
use super::termination::{Cause, Phase, Side, Termination};

/// Numbers of one listener at one moment. Words that a reader does not know are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerTotals {
    values: ListenerValues,
    /// Refusals by reason.
    refused: BTreeMap<String, u64>,
    /// Ends by `side phase how`.
    ends: BTreeMap<String, u64>,
    times: TimeTotals,
}

impl ListenerTotals {
    pub(crate) fn of(counters: &ListenerCounters) -> ListenerTotals {
        let refused = Refusal::ALL.iter().filter_map(|&reason| {
            let count = counters.refused.of(reason);
            (count > 0).then(|| (reason.word().to_owned(), count))
        });
        let ends = counters.ends.seen().into_iter();
        ListenerTotals {
            values: counters.values(),
            refused: refused.collect(),
            ends: ends.map(|(end, count)| (end.to_string(), count)).collect(),
            times: counters.times.totals(),
        }
    }

    /// Adds to `counters` what has grown since `before`.
    pub(crate) fn add_growth(&self, before: &ListenerTotals, counters: &ListenerCounters) {
        counters.grow(&before.values, &self.values);
        counters.times.grow(&before.times, &self.times);
        for (word, count) in grown(&before.refused, &self.refused) {
            if let Some(reason) = Refusal::of_word(word) {
                counters.refused.add(reason, count);
            }
        }
        for (words, count) in grown(&before.ends, &self.ends) {
            if let Some(end) = termination(words) {
                counters.ends.add(end, count);
            }
        }
    }

    /// Takes one out of what lives.
    pub(crate) fn forget_one(&mut self) {
        self.values.live = self.values.live.wrapping_sub(1);
    }

    /// The same without what lives: its process is gone.
    pub(crate) fn totals(&self) -> ListenerTotals {
        ListenerTotals {
            values: self.values.totals(),
            ..self.clone()
        }
    }
}

fn grown<'a>(
    before: &BTreeMap<String, u64>,
    now: &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = (&'a str, u64)> {
    now.iter().map(|(key, count)| {
        let before = before.get(key).copied().unwrap_or(0);
        (key.as_str(), count.saturating_sub(before))
    })
}

fn termination(words: &str) -> Option<Termination> {
    let mut words = words.split(' ');
    let side = Side::of_word(words.next()?)?;
    let phase = Phase::of_word(words.next()?)?;
    let how = Cause::of_word(words.next()?)?;
    Some(Termination::new(side, phase, how))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::config::{AccessLog, LogOutput};
    use crate::observe::Journal;

    fn counters() -> Arc<ListenerCounters> {
        let settings = AccessLog {
            output: LogOutput::Off,
            ..AccessLog::default()
        };
        ListenerCounters::new("main", &Journal::new(&settings).unwrap())
    }

    #[test]
    fn totals_go_on_and_what_lives_goes_with_its_process() {
        let (old, new) = (counters(), counters());
        let end = Termination::new(Side::Client, Phase::Relay, Cause::Fin);
        old.accepted.fetch_add(7, Relaxed);
        old.live.fetch_add(3, Relaxed);
        old.refused.count(Refusal::Denied);
        old.ends.count(end);
        let first = ListenerTotals::of(&old);
        first.add_growth(&ListenerTotals::default(), &new);
        assert_eq!(ListenerTotals::of(&new), first);
        old.accepted.fetch_add(1, Relaxed);
        old.live.fetch_sub(1, Relaxed);
        old.ends.count(end);
        new.live.fetch_add(10, Relaxed);
        let second = ListenerTotals::of(&old);
        second.add_growth(&first, &new);
        assert_eq!(
            (new.accepted.load(Relaxed), new.live.load(Relaxed)),
            (8, 12)
        );
        assert_eq!((new.ends.of(end), new.refused.of(Refusal::Denied)), (2, 1));
        second.totals().add_growth(&second, &new);
        assert_eq!(
            (new.accepted.load(Relaxed), new.live.load(Relaxed)),
            (8, 10)
        );
    }

    #[test]
    fn totals_are_read_as_they_were_written_and_unknown_words_are_left_out() {
        let old = counters();
        old.ends
            .count(Termination::new(Side::Evenkeel, Phase::Queue, Cause::Full));
        let totals = ListenerTotals::of(&old);
        let text = serde_json::to_string(&totals).unwrap();
        assert_eq!(
            serde_json::from_str::<ListenerTotals>(&text).unwrap(),
            totals
        );
        let newer = r#"{"values":{"accepted":2,"another":1},"ends":{"a b c":1},"more":[]}"#;
        let read: ListenerTotals = serde_json::from_str(newer).unwrap();
        let new = counters();
        read.add_growth(&ListenerTotals::default(), &new);
        assert_eq!(new.accepted.load(Relaxed), 2);
        assert!(new.ends.seen().is_empty());
    }
}
