//! The gradient as a step takes it: clipped and turned on the way, in one trip through memory.

use autograd::{Error, Float, Result};
use tensor::kernels::{Kernel, dispatch};

/// How a step clips the gradients it is given, which stay as they are.
///
/// [`Gradients::clip_norm`](autograd::Gradients::clip_norm) and
/// [`clip_value`](autograd::Gradients::clip_value) are the same as functions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ClipGrad {
    /// Not at all.
    #[default]
    None,
    /// Scales the gradients of the parameters that the step updates, all together, so that their
    /// Euclidean norm is at most this. `torch.nn.utils.clip_grad_norm_`, which divides by the norm and
    /// 1e-6.
    Norm(f64),
    /// Limits each element to [−limit, limit]; NaN stays. `torch.nn.utils.clip_grad_value_`.
    Value(f64),
}

impl ClipGrad {
    pub(super) fn check(self, op: &'static str) -> Result<()> {
        let (name, value) = match self {
            ClipGrad::None => return Ok(()),
            ClipGrad::Norm(value) => ("max_norm", value),
            ClipGrad::Value(value) => ("limit", value),
        };
        if value > 0.0 {
            return Ok(());
        }
        Err(Error::InvalidArgument { op, name, reason: format!("must be positive, found {value}") })
    }
}

/// What is done to a gradient: `clamp(scale·g, −limit, limit)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit<T> {
    pub(super) scale: T,
    pub(super) limit: T,
}

/// The elements of a gradient.
#[derive(Clone, Copy, Debug)]
pub struct Gradient<'a, T: Float> {
    elements: &'a [T],
    /// `None` where nothing is to be done.
    edit: Option<Edit<T>>,
}

/// Elements of a part; shorter parameters stay on one thread.
const PART: usize = 32 << 10;

/// Elements that are edited at a time, on the stack.
const TILE: usize = 512;

impl<'a, T: Float> Gradient<'a, T> {
    pub(super) fn new(elements: &'a [T], edit: Edit<T>) -> Self {
        let edits = edit.scale != T::ONE || edit.limit != T::INFINITY;
        Gradient { elements, edit: edits.then_some(edit) }
    }

    /// Elements that are taken as they are.
    pub(super) fn plain(elements: &'a [T]) -> Self {
        Gradient { elements, edit: None }
    }

    /// Calls `update(parts of the state, the same part of the gradient)` for all of some slices of
    /// the gradient's length, on several threads where they are long. What a call does to an element
    /// must not depend on the others.
    pub fn in_parts<const N: usize>(
        self,
        state: [&mut [T]; N],
        update: &(impl Fn([&mut [T]; N], &[T]) + Sync),
    ) {
        let n = self.elements.len();
        if n <= PART || rayon::current_num_threads() == 1 {
            return match self.edit {
                None => update(state, self.elements),
                Some(edit) => in_tiles(self.elements, edit, state, update),
            };
        }
        // Halves that end with a vector.
        let (first, second) = self.elements.split_at((n / 2).next_multiple_of(16));
        let (left, right) = split(state, first.len());
        let of = |elements| Gradient { elements, ..self };
        rayon::join(|| of(first).in_parts(left, update), || of(second).in_parts(right, update));
    }
}

/// The edited gradient, a tile at a time. Apart, so that only it pays for the tile.
#[inline(never)]
fn in_tiles<T: Float, const N: usize>(
    elements: &[T],
    edit: Edit<T>,
    mut state: [&mut [T]; N],
    update: &(impl Fn([&mut [T]; N], &[T]) + Sync),
) {
    let mut tile = [T::ZERO; TILE];
    for g in elements.chunks(TILE) {
        let (now, later) = split(state, g.len());
        let out = &mut tile[..g.len()];
        dispatch(Edited { g, out, edit });
        update(now, out);
        state = later;
    }
}

/// All slices, split at the same place.
fn split<T, const N: usize>(state: [&mut [T]; N], at: usize) -> ([&mut [T]; N], [&mut [T]; N]) {
    let mut halves = state.map(|s| s.split_at_mut(at));
    let left = halves.each_mut().map(|half| std::mem::take(&mut half.0));
    (left, halves.map(|half| half.1))
}

struct Edited<'a, T> {
    g: &'a [T],
    out: &'a mut [T],
    edit: Edit<T>,
}

impl<T: Float> Kernel for Edited<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Edited { g, out, edit: Edit { scale, limit } } = self;
        for (out, &g) in out.iter_mut().zip(g) {
            let g = scale * g;
            // A comparison with NaN is false, so that NaN stays.
            let g = if g > limit { limit } else { g };
            *out = if g < -limit { -limit } else { g };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_every_element_once_and_keeps_nan() {
        for n in [0, 1, TILE - 1, TILE, TILE + 1, PART + 5, 3 * PART] {
            let g: Vec<f64> = (0..n).map(|i| if i == 3 { f64::NAN } else { i as f64 }).collect();
            let mut w = vec![0.5; n];
            let edit = Edit { scale: -2.0, limit: 9.0 };
            Gradient::new(&g, edit).in_parts([&mut w], &|[w], g| {
                w.iter_mut().zip(g).for_each(|(w, g)| *w += g);
            });
            for (i, w) in w.into_iter().enumerate() {
                let expected = 0.5 + (-2.0 * i as f64).max(-9.0);
                assert!(if i == 3 { w.is_nan() } else { w == expected }, "{n}: {i}: {w}");
            }
        }
    }

    #[test]
    fn limits_that_are_not_positive_are_refused() {
        let text = |clip: ClipGrad| clip.check("Sgd").unwrap_err().to_string();
        assert_eq!(text(ClipGrad::Norm(0.0)), "Sgd: max_norm must be positive, found 0");
        assert_eq!(text(ClipGrad::Value(f64::NAN)), "Sgd: limit must be positive, found NaN");
        ClipGrad::None.check("Sgd").unwrap();
    }
}
