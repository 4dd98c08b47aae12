//! Small numbers, packed into as few bits as the largest of them needs.

/// A list of numbers below a bound.
#[derive(Debug)]
pub(super) struct Packed {
    count: usize,
    bits: u32,
    /// Numbers in a word; none lies in two.
    per_word: usize,
    words: Vec<u64>,
}

impl Packed {
    /// `numbers` are below `bound`.
    pub(super) fn new(numbers: &[u16], bound: usize) -> Self {
        let bits = (usize::BITS - bound.saturating_sub(1).leading_zeros()).clamp(1, u16::BITS);
        let per_word = (u64::BITS / bits) as usize;
        let word = |numbers: &[u16]| {
            let reversed = numbers.iter().rev();
            reversed.fold(0, |word, number| word << bits | u64::from(*number))
        };
        Packed {
            count: numbers.len(),
            bits,
            per_word,
            words: numbers.chunks(per_word).map(word).collect(),
        }
    }

    /// `None` behind the last number.
    pub(super) fn at(&self, index: usize) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        let (word, place) = (index / self.per_word, index % self.per_word);
        let shifted = self.words.get(word)? >> (place as u32 * self.bits);
        usize::try_from(shifted & ((1 << self.bits) - 1)).ok()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_number_comes_back(bound in 1usize..=65_535, seeds in prop::collection::vec(any::<u16>(), 0..200)) {
            let numbers: Vec<u16> = seeds.iter().map(|seed| (usize::from(*seed) % bound) as u16).collect();
            let packed = Packed::new(&numbers, bound);
            for (index, number) in numbers.iter().enumerate() {
                prop_assert_eq!(packed.at(index), Some(usize::from(*number)));
            }
            prop_assert_eq!(packed.at(numbers.len()), None);
        }
    }
}
