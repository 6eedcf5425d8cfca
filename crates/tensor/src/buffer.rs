//! Reference-counted element storage in one block: header and elements side by side.
//!
//! A buffer is written only by its single owner ([`Buffer::get_mut`]); shared buffers are read-only.
#![expect(unsafe_code, reason = "elements live in raw blocks of the pool")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::element::Element;
use crate::pool::{self, ALIGN, Block, Header};

/// A shared, fixed-length array of elements, 64-byte aligned.
pub(crate) struct Buffer<T: Element> {
    header: NonNull<Header>,
    marker: PhantomData<T>,
}

// SAFETY: elements are plain `Send` data, and the count is atomic.
unsafe impl<T: Element> Send for Buffer<T> {}
// SAFETY: through `&Buffer` elements are only read, and `T` is `Sync` plain data.
unsafe impl<T: Element> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// An unshared buffer of `len` elements with unspecified (stale, but valid) values.
    pub(crate) fn stale(len: usize) -> Self {
        const { assert!(align_of::<T>() <= ALIGN) };
        // The wall that every allocation passes: a product that wraps would be undefined behaviour.
        let bytes = len.checked_mul(size_of::<T>()).filter(|&b| b <= isize::MAX as usize / 2);
        let Some(bytes) = bytes else { panic!("{len} elements are more than memory can address") };
        let Block(mut header) = pool::take(bytes);
        // SAFETY: the block was just taken, so this is its only reference.
        let fields = unsafe { header.as_mut() };
        fields.len = len;
        *fields.refs.get_mut() = 1;
        let mut buffer: Buffer<T> = Buffer { header, marker: PhantomData };
        if !T::ANY_BITS_VALID {
            // SAFETY: zero bytes are a valid value of every `Element`, and `len` elements fit.
            unsafe { buffer.data().write_bytes(0, len) };
            debug_assert!(buffer.get_mut().is_some());
        }
        buffer
    }

    fn data(&self) -> *mut T {
        // SAFETY: every block is at least 128 bytes long, so `ALIGN` is in bounds.
        unsafe { self.header.as_ptr().cast::<u8>().add(ALIGN) }.cast()
    }

    fn fields(&self) -> (&AtomicUsize, usize) {
        // SAFETY: the header is valid while a buffer refers to it, and only `refs` (an atomic)
        // changes after `stale` has returned.
        let header = unsafe { self.header.as_ref() };
        (&header.refs, header.len)
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        let (_, len) = self.fields();
        // SAFETY: the block holds `len` elements that are initialised (zeroed when fresh, plain
        // numbers since, re-zeroed in `stale` where not every bit pattern is a value); writers need
        // `get_mut`, hence the only reference.
        unsafe { std::slice::from_raw_parts(self.data(), len) }
    }

    /// The elements, where no other buffer shares them.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [T]> {
        let (refs, len) = self.fields();
        // Acquire pairs with the release in `drop`: what other owners did is over.
        if refs.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: the count is 1 and `&mut self` is that reference, so nobody else reads or writes;
        // initialised as in `as_slice`.
        Some(unsafe { std::slice::from_raw_parts_mut(self.data(), len) })
    }

    /// How many buffers share the elements.
    #[cfg(test)]
    pub(crate) fn ref_count(&self) -> usize {
        self.fields().0.load(Ordering::Relaxed)
    }

    /// Whether `self` and `other` are the same storage.
    pub(crate) fn same_storage(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let (refs, _) = self.fields();
        // Relaxed: a new reference is made from one that is alive. The bound keeps leaked clones
        // from wrapping the count, as in `std::sync::Arc`.
        if refs.fetch_add(1, Ordering::Relaxed) > isize::MAX as usize {
            std::process::abort();
        }
        Buffer { header: self.header, marker: PhantomData }
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.fields().0.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            pool::give(Block(self.header));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_and_only_one_owner_writes() {
        let mut a = Buffer::<f32>::stale(5);
        a.get_mut().unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let b = a.clone();
        assert!(a.get_mut().is_none() && a.same_storage(&b) && a.ref_count() == 2);
        let thread = std::thread::spawn(move || b.as_slice().iter().sum::<f32>());
        assert_eq!(thread.join().unwrap(), 15.0);
        assert!(a.get_mut().is_some());
    }

    #[test]
    fn recycled_memory_is_valid_for_types_with_invalid_bits() {
        let mut a = Buffer::<f64>::stale(300);
        a.get_mut().unwrap().fill(f64::NAN);
        drop(a);
        assert!(Buffer::<bool>::stale(2400).as_slice().iter().all(|&b| !b));
    }

    #[test]
    fn empty_buffers_are_buffers() {
        let mut a = Buffer::<i64>::stale(0);
        assert!(a.as_slice().is_empty() && a.get_mut().unwrap().is_empty());
    }
}
