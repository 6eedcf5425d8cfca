//! The choice of an instruction set, made once per process.
#![expect(unsafe_code, reason = "calls functions compiled for instruction sets found at run time")]

use std::sync::OnceLock;

/// A computation that is compiled once for each instruction set.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// The computation. Mark it `#[inline(always)]`, and everything it calls; `FMA` says whether
    /// fused multiply-add is an instruction.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 and FMA (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
    Avx512,
}

/// The instruction set in use.
#[inline]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let limit = match std::env::var("TENSOR_ISA").as_deref() {
            Ok("baseline") => Isa::Baseline,
            Ok("avx2") => Isa::Avx2,
            _ => Isa::Avx512,
        };
        detected().min(limit)
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Isa {
    Isa::Baseline
}

/// Asks for the memory that is so many bytes after `x`; what lies there, if anything, does not matter.
#[inline(always)]
pub(crate) fn prefetch<T>(x: &T, bytes: usize) {
    // SAFETY: a hint that reads and writes nothing, for which any address will do.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>((&raw const *x).cast::<i8>().wrapping_add(bytes));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (x, bytes);
}

/// Runs `kernel` with the best instructions of this processor.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match isa() {
        // SAFETY: `isa` returns this value only after detecting the wrapper's features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { vector_avx512(kernel) },
        // SAFETY: `isa` returns this value only after detecting the wrapper's features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { vector_avx2(kernel) },
        // Fused multiply-add belongs to the baseline of aarch64, not of x86-64.
        _ => vector_baseline(kernel),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
fn vector_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn vector_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[inline(never)]
fn vector_baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<{ cfg!(target_arch = "aarch64") }>()
}
