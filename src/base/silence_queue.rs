//! Silent connections by source, in the order of eviction when capacity runs short: first the
//! oldest of the source that has most of them. So silent connections lock no client out, least of
//! all other sources.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::source_prefix::SourcePrefix;

/// Silent connections in the order in which they fell silent, each with a value of its owner. No
/// step takes longer than a search in a tree: an attacker decides how many there are.
#[derive(Debug)]
pub(crate) struct SilenceQueue<T> {
    sources: HashMap<SourcePrefix, BTreeMap<u64, T>>,
    /// Number of connections and oldest one of each source.
    sizes: BTreeSet<(usize, Reverse<u64>, SourcePrefix)>,
    next: u64,
}

/// Names one silent connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SilentId {
    source: SourcePrefix,
    number: u64,
}

impl<T> Default for SilenceQueue<T> {
    fn default() -> Self {
        Self {
            sources: HashMap::new(),
            sizes: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<T> SilenceQueue<T> {
    /// Adds a connection that falls silent.
    pub(crate) fn push(&mut self, source: SourcePrefix, kept: T) -> SilentId {
        let number = self.next;
        self.next += 1;
        self.change(source, |silent| silent.insert(number, kept));
        SilentId { source, number }
    }

    /// Removes a connection that speaks, or is gone. `None`: it was evicted before.
    pub(crate) fn remove(&mut self, silent: SilentId) -> Option<T> {
        self.change(silent.source, |all| all.remove(&silent.number))
    }

    /// The next one to evict, and how many its source has.
    pub(crate) fn first(&self) -> Option<(&T, usize)> {
        let (count, Reverse(oldest), source) = self.sizes.last()?;
        let kept = self.sources.get(source)?.get(oldest)?;
        Some((kept, *count))
    }

    /// Evicts the next one.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (_, Reverse(number), source) = *self.sizes.last()?;
        self.remove(SilentId { source, number })
    }

    fn change<R>(
        &mut self,
        source: SourcePrefix,
        change: impl FnOnce(&mut BTreeMap<u64, T>) -> R,
    ) -> R {
        let all = self.sources.entry(source).or_default();
        let size = |all: &BTreeMap<u64, T>| {
            let oldest = *all.first_key_value()?.0;
            Some((all.len(), Reverse(oldest), source))
        };
        if let Some(before) = size(all) {
            self.sizes.remove(&before);
        }
        let changed = change(all);
        match size(all) {
            Some(now) => drop(self.sizes.insert(now)),
            None => drop(self.sources.remove(&source)),
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(number: u8) -> SourcePrefix {
        SourcePrefix::V4([192, 0, 2, number])
    }

    #[test]
    fn the_oldest_of_the_source_with_most_goes_first() {
        let mut silence = SilenceQueue::default();
        let named: Vec<_> = [9, 1, 1, 1, 9]
            .into_iter()
            .enumerate()
            .map(|(name, number)| silence.push(source(number), name))
            .collect();
        assert_eq!(silence.first(), Some((&1, 3)));
        assert_eq!(silence.pop(), Some(1));
        assert_eq!(silence.pop(), Some(0), "of as many the older one");
        assert_eq!(silence.remove(named[0]), None);
        assert_eq!(silence.remove(named[2]), Some(2));
        assert_eq!((silence.pop(), silence.pop()), (Some(3), Some(4)));
        assert_eq!(silence.first(), None);
        assert_eq!(silence.pop(), None);
        assert!(silence.sources.is_empty() && silence.sizes.is_empty());
    }

    proptest! {
        #[test]
        fn as_a_search_through_all_of_them(steps in prop::collection::vec((0u8..4, any::<bool>()), 1..60)) {
            let mut silence = SilenceQueue::default();
            let mut all: Vec<(SilentId, u8)> = Vec::new();
            for (number, comes) in steps {
                if comes {
                    all.push((silence.push(source(number), number), number));
                } else if number == 0 {
                    let count = |of: u8| all.iter().filter(|(_, one)| *one == of).count();
                    let most = all.iter().map(|(_, one)| count(*one)).max();
                    let at = all.iter().position(|(_, one)| Some(count(*one)) == most);
                    let wanted = at.map(|at| all.remove(at).1);
                    prop_assert_eq!(silence.pop(), wanted);
                } else if !all.is_empty() {
                    let (silent, one) = all.remove(usize::from(number) % all.len());
                    prop_assert_eq!(silence.remove(silent), Some(one));
                }
            }
        }
    }
}
