//! Sketches of sets: two of them, added up, say in which elements the sets differ, in two bytes for each of those.
//!
//! Elements are non-zero numbers of 16 bits, as points of the field of 65,536. A sketch of capacity c is the sums of the
//! set's elements to the powers 1, 3, 5, ..., 2c - 1: the syndromes of a binary BCH code, as in PinSketch (Dodis et
//! al., "Fuzzy extractors"). What both sets have falls out of the sum of two sketches. From what is left the polynomial
//! is found whose roots are the elements that only one of them has (Berlekamp and Massey), if they are fewer than c; its
//! roots nobody has to search for, since each side tries its own elements.
//!
//! Nothing here is a proof: sets that differ in more than c elements are told apart from those that do not with a
//! chance of some 65,535 in 65,536, and two elements may be the same number. Who uses what comes out has to check it.

use alloc::vec;
use alloc::vec::Vec;

/// The most elements that a sketch can have room for: what it takes to add one, and to find out what differs.
pub(crate) const MOST: usize = 96;

/// See the module's caption.
#[derive(Clone, Debug)]
pub(crate) struct Sketch(Vec<u16>);

/// The polynomial whose roots are the elements of a set: its coefficients from the second highest on, the highest being 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Roots(Vec<u16>);

impl Sketch {
    /// Of the empty set, with room for fewer elements than `capacity`.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(vec![0; capacity.min(MOST)])
    }

    /// One that somebody sent. What is too long is cut off.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(numbers(bytes).take(MOST).collect())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&self.0)
    }

    /// Adds an element, or takes it away again.
    pub(crate) fn add(&mut self, element: u16) {
        let square = times(element, element);
        let mut power = element;
        for sum in &mut self.0 {
            *sum ^= power;
            power = times(power, square);
        }
    }

    /// The elements that an odd number of additions have brought; `None` if they are too many.
    pub(crate) fn roots(&self) -> Option<Roots> {
        // A square of a sum is the sum of the squares here, so the even powers need not be sent.
        let mut sums = vec![0; 2 * self.0.len()];
        for i in 0..sums.len() {
            sums[i] = if i % 2 == 0 { self.0[i / 2] } else { times(sums[i / 2], sums[i / 2]) };
        }
        // The shortest recurrence that makes these sums: its coefficients from the first on are the polynomial's.
        let (mut recurrence, mut before) = (vec![1u16], vec![1u16]);
        let (mut length, mut since, mut last) = (0, 1, 1u16);
        for n in 0..sums.len() {
            let further = (1..=length.min(recurrence.len() - 1)).map(|i| times(recurrence[i], sums[n - i]));
            let off = further.fold(sums[n], |all, one| all ^ one);
            if off == 0 {
                since += 1;
                continue;
            }
            let former = recurrence.clone();
            let factor = times(off, inverse(last));
            recurrence.resize(recurrence.len().max(before.len() + since), 0);
            for (i, coefficient) in before.iter().enumerate() {
                recurrence[i + since] ^= times(factor, *coefficient);
            }
            if 2 * length <= n {
                (length, before, last, since) = (n + 1 - length, former, off, 1);
            } else {
                since += 1;
            }
        }
        while recurrence.last() == Some(&0) {
            recurrence.pop();
        }
        // One sum more than there are elements: chance alone seldom makes it fit.
        let fits = recurrence.len() == length + 1 && length < self.0.len().max(1);
        fits.then(|| Roots(recurrence.split_off(1)))
    }
}

impl Roots {
    /// What somebody sent.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(numbers(bytes).take(MOST).collect())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&self.0)
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn has(&self, element: u16) -> bool {
        let value = self.0.iter().fold(1, |value, coefficient| times(value, element) ^ coefficient);
        value == 0 && !self.0.is_empty()
    }

    /// Leaves this one out, which is among them.
    pub(crate) fn take_out(&mut self, element: u16) {
        let mut value = 1;
        for coefficient in &mut self.0 {
            value = times(value, element) ^ *coefficient;
            *coefficient = value;
        }
        self.0.pop();
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]))
}

fn to_bytes(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The product in the field: of polynomials over two elements, modulo x^16 + x^5 + x^3 + x^2 + 1.
fn times(a: u16, b: u16) -> u16 {
    let (a, b) = (u32::from(a), u32::from(b));
    let product = (0..16).fold(0, |sum, i| sum ^ ((a << i) & ((b >> i) & 1).wrapping_neg()));
    let fold = |product: u32| {
        let high = product >> 16;
        (product & 0xFFFF) ^ high ^ (high << 2) ^ (high << 3) ^ (high << 5)
    };
    fold(fold(product)) as u16
}

/// One divided by it: it to the power 2^16 - 2.
fn inverse(a: u16) -> u16 {
    let mut square = times(a, a);
    let mut product = square;
    for _ in 0..14 {
        square = times(square, square);
        product = times(product, square);
    }
    product
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn sketch(set: &BTreeSet<u16>, capacity: usize) -> Sketch {
        let mut sketch = Sketch::new(capacity);
        set.iter().for_each(|element| sketch.add(*element));
        sketch
    }

    fn sum(one: &Sketch, other: &Sketch) -> Sketch {
        Sketch(one.0.iter().zip(&other.0).map(|(a, b)| a ^ b).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

        /// A field: what is divided and multiplied again is what it was.
        #[test]
        fn every_number_but_none_has_an_inverse((a, b) in (1..=u16::MAX, any::<u16>())) {
            prop_assert_eq!(times(times(b, a), inverse(a)), b);
            prop_assert_eq!(times(a, b), times(b, a));
        }

        /// Whatever they have in common: the elements that differ come out, where there is room for them.
        #[test]
        fn what_differs_comes_out(
            common in btree_set(1..=u16::MAX, 0..60),
            (one, other) in (btree_set(1..=u16::MAX, 0..20), btree_set(1..=u16::MAX, 0..20)),
            spare in 1..5usize,
        ) {
            let (mine, theirs): (BTreeSet<u16>, BTreeSet<u16>) = (&common | &one, &common | &other);
            let differ = &mine ^ &theirs;
            let capacity = differ.len() + spare;
            let sent = Sketch::from_bytes(&sketch(&theirs, capacity).to_bytes());
            let mut roots = sum(&sketch(&mine, capacity), &sent).roots().expect("there is room");
            prop_assert_eq!(roots.len(), differ.len());
            for element in mine.union(&theirs) {
                prop_assert_eq!(roots.has(*element), differ.contains(element));
            }
            // Those of one side taken out, the other's are left.
            mine.difference(&theirs).for_each(|element| roots.take_out(*element));
            let left = Roots::from_bytes(&roots.to_bytes());
            prop_assert_eq!(left.len(), theirs.difference(&mine).count());
            for element in mine.union(&theirs) {
                prop_assert_eq!(left.has(*element), theirs.contains(element) && !mine.contains(element));
            }
        }

        /// Too many are hardly ever taken for few; and whatever is sent, something or nothing comes out.
        #[test]
        fn too_many_are_seen_to_be(set in btree_set(1..=u16::MAX, 12..40), sent in prop::collection::vec(any::<u8>(), 0..300)) {
            let capacity = set.len() - 4;
            // Once in 65,536.
            if let Some(roots) = sketch(&set, capacity).roots() {
                prop_assert!(!set.iter().all(|element| roots.has(*element)));
            }
            if let Some(roots) = Sketch::from_bytes(&sent).roots() {
                prop_assert!(roots.len() < MOST);
            }
        }
    }

    #[test]
    fn nothing_differs_from_itself() {
        for capacity in 0..3 {
            let roots = Sketch::new(capacity).roots().expect("none");
            assert_eq!((roots.len(), roots.has(1)), (0, false));
        }
        assert_eq!(Sketch::new(MOST + 9).to_bytes().len(), 2 * MOST);
    }
}
