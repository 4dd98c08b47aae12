//! Marks of the things that were seen in the last look, to find those that changed.

use std::collections::BTreeMap;

/// Marks by name.
#[derive(Debug)]
pub(super) struct Marks<K, M>(BTreeMap<K, M>);

/// Difference of two looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference<K, M, T> {
    /// This is new, or changed from these marks.
    Seen(T, Option<M>),
    Gone(K),
}

impl<K, M> Default for Marks<K, M> {
    fn default() -> Marks<K, M> {
        Marks(BTreeMap::new())
    }
}

impl<K: Ord, M: PartialEq> Marks<K, M> {
    /// Takes the marks of this look and returns what differs from the last one, in the order of
    /// `now`, and then what is gone.
    pub(super) fn replace<T>(
        &mut self,
        now: impl IntoIterator<Item = (K, M, T)>,
    ) -> Vec<Difference<K, M, T>> {
        let mut before = std::mem::take(&mut self.0);
        let mut differences = Vec::new();
        for (key, marks, item) in now {
            let old = before.remove(&key);
            if old.as_ref() != Some(&marks) {
                differences.push(Difference::Seen(item, old));
            }
            self.0.insert(key, marks);
        }
        differences.extend(before.into_keys().map(Difference::Gone));
        differences
    }

    pub(super) fn of(&self, key: &K) -> Option<&M> {
        self.0.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_changed_or_gone_differs() {
        let mut marks = Marks::default();
        let first = marks.replace([("a", 1, 'a'), ("b", 1, 'b'), ("c", 1, 'c')]);
        assert_eq!(first.len(), 3);
        let second = marks.replace([("d", 1, 'd'), ("a", 1, 'a'), ("b", 2, 'b')]);
        let wanted = [
            Difference::Seen('d', None),
            Difference::Seen('b', Some(1)),
            Difference::Gone("c"),
        ];
        assert_eq!(second, wanted);
        assert_eq!(
            marks.replace([("a", 1, 'a'), ("b", 2, 'b'), ("d", 1, 'd')]),
            []
        );
        assert_eq!(marks.of(&"b"), Some(&2));
    }
}
