//! Keeps the few values that were used last, because each is costly to make.

/// Up to `capacity` values. The value that was not used for the longest time makes room first.
#[derive(Debug)]
pub struct RecentlyUsed<T> {
    capacity: usize,
    /// The most recently used value is last.
    values: Vec<T>,
}

impl<T> RecentlyUsed<T> {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), values: Vec::new() }
    }

    /// Finds a value, which counts as a use of it.
    pub fn find(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let index = self.values.iter().position(is_wanted)?;
        self.values[index..].rotate_left(1);
        self.values.last()
    }

    /// Adds a value. If there is no room, the least recently used value is dropped.
    pub fn insert(&mut self, value: T) -> &T {
        self.make_room();
        self.values.push(value);
        self.values.last().expect("a value was pushed")
    }

    /// Finds a value, or makes it. Room is made first, so that the old value and the new one
    /// never take memory at the same time.
    pub fn find_or_make(&mut self, is_wanted: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &T {
        if self.find(is_wanted).is_none() {
            self.make_room();
            self.values.push(make());
        }
        self.values.last().expect("a value was found or pushed")
    }

    /// Every value, the least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    fn make_room(&mut self) {
        if self.values.len() >= self.capacity {
            drop(self.values.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(values: &RecentlyUsed<u8>) -> Vec<u8> {
        values.iter().copied().collect()
    }

    #[test]
    fn a_value_that_is_used_again_outlives_one_that_is_not() {
        let mut values = RecentlyUsed::new(3);
        for value in [1, 2, 3] {
            values.insert(value);
        }
        assert_eq!(values.find(|&value| value == 1), Some(&1));
        assert_eq!(held(&values), [2, 3, 1]);
        assert_eq!(values.insert(4), &4);
        assert_eq!(held(&values), [3, 1, 4]);
        assert_eq!(values.find(|&value| value == 2), None);
        assert_eq!(held(&values), [3, 1, 4]);
    }

    #[test]
    fn a_value_is_made_once_and_after_there_is_room() {
        use std::rc::Rc;
        let first = Rc::new(1);
        let mut values = RecentlyUsed::new(1);
        values.insert(Rc::clone(&first));
        let found = values.find_or_make(|value| **value == 1, || panic!("it is there"));
        assert_eq!(**found, 1);
        let made = values.find_or_make(
            |value| **value == 2,
            || {
                assert_eq!(Rc::strong_count(&first), 1, "the old value is dropped before");
                Rc::new(2)
            },
        );
        assert_eq!(**made, 2);
    }
}
