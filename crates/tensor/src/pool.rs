//! Recycled memory blocks: what a dropped tensor leaves is what the next tensor of its size gets.
//!
//! A page fault costs more than the arithmetic on the page, so fresh memory is the slowest memory.
//! Policy: sizes are rounded up to four classes per power of two. Blocks of up to 16 KiB go to free
//! lists of the thread that drops them, at most 128 KiB a class. Larger ones go to one shared pool,
//! bounded by [`set_limit`] bytes; where a block does not fit, blocks of other classes make room.
//!
//! Every block is zeroed when it is fresh and holds nothing but numbers ever after, so recycled
//! memory is stale but never uninitialised.
#![expect(unsafe_code, reason = "raw memory blocks with a header")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Data starts this many bytes after the header, and is aligned to it.
pub(crate) const ALIGN: usize = 64;
/// What the system allocator is asked for; from here on blocks are aligned by hand, because a
/// larger alignment makes the allocator write zeros over pages that the kernel has zeroed already.
const BASE_ALIGN: usize = 16;
const SMALLEST_LOG2: usize = 7;
const SMALL_LIMIT: usize = 16 << 10;
const SMALL_BYTES_PER_CLASS: usize = 128 << 10;
const SMALL_CLASSES: usize = 32;
const CLASSES: usize = 4 * (usize::BITS as usize - SMALLEST_LOG2);
const DEFAULT_LIMIT: usize = 2 << 30;

/// What stands in the first [`ALIGN`] bytes of a block.
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) refs: AtomicUsize,
    pub(crate) len: usize,
    /// Bytes of the block, header included; a class size.
    bytes: usize,
    /// Distance from the system's pointer to the header.
    shift: usize,
}

/// A block that nobody else refers to.
pub(crate) struct Block(pub(crate) NonNull<Header>);

// SAFETY: a `Block` is the only reference to plain memory without thread affinity.
unsafe impl Send for Block {}

/// Counters of the pool, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Large blocks (above 16 KiB) in use by tensors of all threads.
    pub live_bytes: usize,
    /// Large blocks waiting in the shared pool.
    pub pooled_bytes: usize,
    /// How many large blocks were asked of the system since the program began.
    pub fresh_blocks: usize,
    /// Small blocks taken minus small blocks dropped by the calling thread.
    pub small_live_bytes: isize,
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static FRESH: AtomicUsize = AtomicUsize::new(0);
static SHARED: Mutex<Shared> = Mutex::new(Shared::new());

struct Shared {
    lists: [Vec<Block>; CLASSES],
    bytes: usize,
    limit: usize,
}

impl Shared {
    const fn new() -> Self {
        Shared { lists: [const { Vec::new() }; CLASSES], bytes: 0, limit: DEFAULT_LIMIT }
    }

    /// Removes blocks, largest first, sparing `class`, until `bytes` more fit.
    fn make_room(&mut self, bytes: usize, class: usize, removed: &mut Vec<Block>) -> bool {
        let own: usize = self.lists.get(class).map_or(0, |l| l.iter().map(Block::bytes).sum());
        if own.saturating_add(bytes) > self.limit {
            // Nothing that may go would make enough room.
            return false;
        }
        for c in (0..CLASSES).rev() {
            while c != class && self.bytes.saturating_add(bytes) > self.limit {
                let Some(block) = self.lists[c].pop() else { break };
                self.bytes -= block.bytes();
                removed.push(block);
            }
        }
        true
    }
}

struct Small {
    lists: [Vec<Block>; SMALL_CLASSES],
    live: isize,
}

impl Drop for Small {
    fn drop(&mut self) {
        for list in &mut self.lists {
            list.drain(..).for_each(free);
        }
    }
}

thread_local! {
    static SMALL: RefCell<Small> =
        const { RefCell::new(Small { lists: [const { Vec::new() }; SMALL_CLASSES], live: 0 }) };
}

fn shared() -> MutexGuard<'static, Shared> {
    // The state is valid between any two statements that could panic, so poison says nothing.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Class index and size in bytes of the smallest class that holds `bytes`.
fn class_of(bytes: usize) -> (usize, usize) {
    let bytes = bytes.max((1 << SMALLEST_LOG2) + 1);
    // For 2^e < bytes <= 2^(e+1), sizes are 2^e plus a multiple of 2^(e-2).
    let e = (usize::BITS - 1 - (bytes - 1).leading_zeros()) as usize;
    let step = 1_usize << (e - 2);
    let quarters = (bytes - (1 << e)).div_ceil(step);
    (4 * (e - SMALLEST_LOG2) + quarters - 1, (1 << e) + quarters * step)
}

impl Block {
    fn bytes(&self) -> usize {
        // SAFETY: a block's header is written before the block is handed out, and `self` is its
        // only reference.
        unsafe { self.0.as_ref() }.bytes
    }
}

/// A block with room for `data_bytes` after its header. Its `len` and `refs` are the caller's to set.
pub(crate) fn take(data_bytes: usize) -> Block {
    let (class, bytes) = class_of(data_bytes + ALIGN);
    if bytes <= SMALL_LIMIT {
        let recycled = SMALL.try_with(|small| {
            let mut small = small.borrow_mut();
            small.live += bytes as isize;
            small.lists[class].pop()
        });
        return recycled.ok().flatten().unwrap_or_else(|| fresh(bytes));
    }
    LIVE.fetch_add(bytes, Ordering::Relaxed);
    let recycled = {
        let mut shared = shared();
        let block = shared.lists[class].pop();
        if block.is_some() {
            shared.bytes -= bytes;
        }
        block
    };
    recycled.unwrap_or_else(|| {
        FRESH.fetch_add(1, Ordering::Relaxed);
        fresh(bytes)
    })
}

/// Takes a block back.
pub(crate) fn give(block: Block) {
    let bytes = block.bytes();
    let (class, _) = class_of(bytes);
    if bytes <= SMALL_LIMIT {
        let mut block = Some(block);
        let _ = SMALL.try_with(|small| {
            let mut small = small.borrow_mut();
            small.live -= bytes as isize;
            let list = &mut small.lists[class];
            if (list.len() + 1) * bytes <= SMALL_BYTES_PER_CLASS {
                list.extend(block.take());
            }
        });
        if let Some(block) = block {
            free(block);
        }
        return;
    }
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
    let mut removed = Vec::new();
    {
        let mut shared = shared();
        if shared.make_room(bytes, class, &mut removed) {
            shared.bytes += bytes;
            shared.lists[class].push(block);
        } else {
            removed.push(block);
        }
    }
    removed.into_iter().for_each(free);
}

fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes + ALIGN, BASE_ALIGN) {
        Ok(layout) => layout,
        // `Shape::checked_numel` keeps tensors below half the address space.
        Err(_) => unreachable!("bug: a block of {bytes} bytes"),
    }
}

fn fresh(bytes: usize) -> Block {
    let layout = layout(bytes);
    // SAFETY: the layout's size is at least `ALIGN`, so not zero.
    let base = unsafe { alloc_zeroed(layout) };
    if base.is_null() {
        handle_alloc_error(layout);
    }
    let shift = base.align_offset(ALIGN);
    // SAFETY: `shift < ALIGN` (the base is 16-aligned), and the allocation is `bytes + ALIGN` long.
    let header = unsafe { base.add(shift) }.cast::<Header>();
    // SAFETY: `header` is 64-aligned and `bytes >= 128` bytes of the allocation follow it.
    unsafe { header.write(Header { refs: AtomicUsize::new(0), len: 0, bytes, shift }) };
    // SAFETY: derived by an in-bounds offset from a pointer that is not null.
    Block(unsafe { NonNull::new_unchecked(header) })
}

#[expect(clippy::needless_pass_by_value, reason = "the block ends here")]
fn free(block: Block) {
    // SAFETY: the header was written by `fresh`, and `block` is its only reference.
    let &Header { bytes, shift, .. } = unsafe { block.0.as_ref() };
    // SAFETY: `fresh` put the header `shift` bytes after the system's pointer.
    let base = unsafe { block.0.as_ptr().cast::<u8>().sub(shift) };
    // SAFETY: `base` came from `alloc_zeroed` with this very layout.
    unsafe { dealloc(base, layout(bytes)) };
}

/// The counters as they stand.
pub fn stats() -> Stats {
    Stats {
        live_bytes: LIVE.load(Ordering::Relaxed),
        pooled_bytes: shared().bytes,
        fresh_blocks: FRESH.load(Ordering::Relaxed),
        small_live_bytes: SMALL.try_with(|s| s.borrow().live).unwrap_or(0),
    }
}

/// Returns all waiting blocks to the system: the shared ones, and the calling thread's small ones.
pub fn clear() {
    let mut removed = Vec::new();
    {
        let mut shared = shared();
        shared.lists.iter_mut().for_each(|list| removed.append(list));
        shared.bytes = 0;
    }
    let _ = SMALL.try_with(|small| {
        small.borrow_mut().lists.iter_mut().for_each(|list| removed.append(list));
    });
    removed.into_iter().for_each(free);
}

/// Bounds the bytes that may wait in the shared pool (2 GiB at first); 0 turns it off.
pub fn set_limit(bytes: usize) {
    let mut removed = Vec::new();
    {
        let mut shared = shared();
        shared.limit = bytes;
        shared.make_room(0, CLASSES, &mut removed);
    }
    removed.into_iter().for_each(free);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_asked_for_and_are_stable() {
        let mut last = 0;
        for bytes in (1..5000).chain([16 << 10, (16 << 10) + 1, 1 << 20, (1 << 30) + 3]) {
            let (class, size) = class_of(bytes);
            assert!(size >= bytes && (bytes <= 160 || size <= bytes + bytes / 4 + 1));
            assert_eq!(class_of(size), (class, size));
            assert!(class >= last);
            assert!(size > SMALL_LIMIT || class < SMALL_CLASSES);
            last = class;
        }
    }

    #[test]
    fn a_dropped_block_comes_back() {
        for bytes in [100, 3 << 20] {
            let first = take(bytes);
            let address = first.0;
            give(first);
            let second = take(bytes);
            // Another test's thread may have taken the shared block in between.
            assert!(second.0 == address || bytes > SMALL_LIMIT);
            assert_eq!(second.0.as_ptr().align_offset(ALIGN), 0);
            give(second);
        }
    }
}
