//! One number for each dim of a tensor: up to four stand inline and are copied as a block.
//!
//! A list of a length known only at run time is copied by a call, which costs more than all else that
//! an operation on one element does with its shape.

use std::fmt;
use std::ops::{Deref, DerefMut};

const INLINE: usize = 4;

#[derive(Clone)]
pub(crate) enum Dims<T> {
    Inline(u8, [T; INLINE]),
    Spilled(Vec<T>),
}

impl<T: Copy + Default> Dims<T> {
    pub(crate) fn new() -> Self {
        Dims::Inline(0, [T::default(); INLINE])
    }

    #[inline]
    pub(crate) fn from_elem(value: T, len: usize) -> Self {
        if len <= INLINE {
            Dims::Inline(len as u8, [value; INLINE])
        } else {
            vec![value; len].into()
        }
    }

    #[inline]
    pub(crate) fn from_slice(items: &[T]) -> Self {
        if items.len() > INLINE {
            return items.to_vec().into();
        }
        let mut inline = [T::default(); INLINE];
        for (to, &from) in inline.iter_mut().zip(items) {
            *to = from;
        }
        Dims::Inline(items.len() as u8, inline)
    }

    pub(crate) fn push(&mut self, item: T) {
        self.insert(self.len(), item);
    }

    pub(crate) fn insert(&mut self, at: usize, item: T) {
        match self {
            Dims::Spilled(items) => items.insert(at, item),
            Dims::Inline(len, items) if usize::from(*len) < INLINE => {
                *len += 1;
                items[at..usize::from(*len)].rotate_right(1);
                items[at] = item;
            }
            Dims::Inline(_, items) => {
                let mut spilled = items.to_vec();
                spilled.insert(at, item);
                *self = Dims::Spilled(spilled);
            }
        }
    }

    pub(crate) fn remove(&mut self, at: usize) {
        match self {
            Dims::Spilled(items) => {
                items.remove(at);
            }
            Dims::Inline(len, items) => {
                items[at..usize::from(*len)].rotate_left(1);
                *len -= 1;
            }
        }
    }
}

impl<T> From<Vec<T>> for Dims<T> {
    fn from(items: Vec<T>) -> Self {
        Dims::Spilled(items)
    }
}

impl<T: Copy + Default> FromIterator<T> for Dims<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut all = Dims::new();
        items.into_iter().for_each(|item| all.push(item));
        all
    }
}

impl<T> Deref for Dims<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Dims::Inline(len, items) => &items[..usize::from(*len)],
            Dims::Spilled(items) => items,
        }
    }
}

impl<T> DerefMut for Dims<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Dims::Inline(len, items) => &mut items[..usize::from(*len)],
            Dims::Spilled(items) => items,
        }
    }
}

impl<T: PartialEq> PartialEq for Dims<T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // One by one: a comparison of a length known at run time is a call.
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

impl<T: Eq> Eq for Dims<T> {}

impl<T: fmt::Debug> fmt::Debug for Dims<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_agree_with_a_vec_on_both_sides_of_the_spill() {
        for len in 0..8 {
            let vec: Vec<usize> = (10..10 + len).collect();
            let dims = Dims::from_slice(&vec);
            assert_eq!((&*dims, &dims), (&*vec, &vec.iter().copied().collect()));
            for at in 0..=len {
                let (mut longer, mut expected) = (dims.clone(), vec.clone());
                longer.insert(at, 7);
                expected.insert(at, 7);
                assert_eq!(&*longer, &*expected);
                longer.remove(at);
                assert_eq!(longer, dims);
            }
        }
        assert_eq!(Dims::from_elem(3, 5), Dims::from(vec![3; 5]));
    }
}
