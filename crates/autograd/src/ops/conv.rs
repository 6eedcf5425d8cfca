//! Convolutions: `y = x ⋆ w`. With g the gradient of y there are three bilinear maps, `conv(x, w) → y`,
//! `conv_input(g, w) → dx` and `conv_weight(x, g) → dw`, all of them adjoints of each other: the
//! gradient of each is written with the other two, and derivatives of every order follow.

use tensor::{ConvOptions, Error, Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// What the three maps share.
#[derive(Clone, Copy)]
struct Convolution {
    /// Height and width of x.
    size: [usize; 2],
    kernel: [usize; 2],
    options: ConvOptions<2>,
}

/// `x` where backward needs it; else something small in its place, which it does not read.
fn needed<T: Float>(x: &Var<T>, needed: bool) -> Var<T> {
    if needed { x.clone() } else { Var::constant(Tensor::scalar(T::ZERO)) }
}

/// The last two sizes, which rank 4 promises.
fn plane(shape: &[usize]) -> [usize; 2] {
    let [.., h, w] = shape else { unreachable!("bug: rank checked by the forward map") };
    [*h, *w]
}

fn rank_mismatch<T>(op: &'static str, expected: &'static str, shape: &[usize]) -> Result<T> {
    Err(Error::RankMismatch { op, expected, shape: shape.to_vec() })
}

/// Options over one dim as those over two, the first of which has size 1.
fn flat(options: &ConvOptions<1>) -> ConvOptions<2> {
    let ConvOptions { stride: [stride], padding: [padding], dilation: [dilation], groups } =
        *options;
    ConvOptions { stride: [1, stride], padding: [0, padding], dilation: [1, dilation], groups }
}

impl<T: Float> Var<T> {
    /// Cross-correlation with a kernel over two dims:
    /// `y[n,o,i,j] = b[o] + Σ_{c,k,l} w[o,c,k,l]·x[n, c, i·stride + k·dilation − padding, …]`, with
    /// x = 0 outside and c in the group of o.
    ///
    /// # Shape
    /// `x: [N, C, H, W]` or `[C, H, W]`, `w: [O, C/groups, KH, KW]`, `b: [O]` →
    /// `[N, O, OH, OW]` or `[O, OH, OW]`, `OH = ⌊(H + 2·padding − dilation·(KH − 1) − 1)/stride⌋ + 1`.
    ///
    /// # Gradient
    /// dx is the transposed convolution of g with w, dw the correlation of x with g, `db = Σ g`
    /// over all dims but O. Saves x where w is tracked, and w where x is. Any order.
    ///
    /// # Numerics
    /// Sums as a matrix product has them; the bits do not depend on the number of threads.
    ///
    /// # Errors
    /// [`Error::RankMismatch`]; [`Error::InvalidArgument`] for groups that do not divide the
    /// channels, for another number of input channels, for a stride, dilation or kernel of 0, and for
    /// a kernel larger than the padded input; [`Error::ShapeMismatch`] for b.
    ///
    /// # Examples
    /// ```
    /// use autograd::{ConvOptions, Tape, Tensor};
    /// let tape = Tape::new();
    /// let x = tape.var(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2])?);
    /// let w = tape.var(Tensor::from_vec(vec![1.0, 10.0], [1, 1, 1, 2])?);
    /// let y = x.conv2d(&w, None, &ConvOptions { padding: [0, 1], ..ConvOptions::default() })?;
    /// assert_eq!(y.value().to_vec(), [10.0, 21.0, 2.0, 30.0, 43.0, 4.0]);
    /// assert_eq!(y.sum().backward()?.wrt(&w)?.to_vec(), [10.0, 10.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.conv2d`.
    #[track_caller]
    pub fn conv2d(&self, w: &Self, b: Option<&Self>, options: &ConvOptions<2>) -> Result<Self> {
        if self.value().rank() == 3 {
            return self.unsqueeze(0)?.conv2d(w, b, options)?.squeeze(0);
        }
        let y = self.value().conv2d(w.value(), b.map(Var::value), options)?;
        let (size, kernel) = (plane(self.shape()), plane(w.shape()));
        let map = Convolution { size, kernel, options: *options };
        let nodes = [self.node(), w.node(), b.and_then(Var::node)];
        let (x, weight) = (needed(self, w.is_tracked()), needed(w, self.is_tracked()));
        let saved = [Save::Input(&x), Save::Input(&weight)];
        record("conv2d", nodes, saved, y, move |ctx, g, sink| {
            if ctx.needs(2) {
                sink.add(2, g.sum_dim(&[0, 2, 3], false)?)?;
            }
            if ctx.needs(1) {
                sink.add(1, ctx.saved(0).conv2d_weight(&g, map)?)?;
            }
            if ctx.needs(0) {
                sink.add(0, g.conv2d_input(&ctx.saved(1), map)?)?;
            }
            Ok(())
        })
    }

    /// `conv_input(g, w) → dx`, bilinear: with upstream v, `dg = conv(v, w)`, `dw = conv_weight(v, g)`.
    #[track_caller]
    fn conv2d_input(&self, w: &Self, map: Convolution) -> Result<Self> {
        let dx = self.value().conv2d_input(w.value(), map.size, &map.options)?;
        let (g, weight) = (needed(self, w.is_tracked()), needed(w, self.is_tracked()));
        let (nodes, saved) = ([self.node(), w.node()], [Save::Input(&g), Save::Input(&weight)]);
        record("conv2d_input", nodes, saved, dx, move |ctx, v, sink| {
            if ctx.needs(1) {
                sink.add(1, v.conv2d_weight(&ctx.saved(0), map)?)?;
            }
            if ctx.needs(0) {
                sink.add(0, v.conv2d(&ctx.saved(1), None, &map.options)?)?;
            }
            Ok(())
        })
    }

    /// `conv_weight(x, g) → dw`, bilinear: with upstream v, `dx = conv_input(g, v)`, `dg = conv(x, v)`.
    #[track_caller]
    fn conv2d_weight(&self, g: &Self, map: Convolution) -> Result<Self> {
        let dw = self.value().conv2d_weight(g.value(), map.kernel, &map.options)?;
        let (x, upstream) = (needed(self, g.is_tracked()), needed(g, self.is_tracked()));
        let (nodes, saved) = ([self.node(), g.node()], [Save::Input(&x), Save::Input(&upstream)]);
        record("conv2d_weight", nodes, saved, dw, move |ctx, v, sink| {
            if ctx.needs(0) {
                sink.add(0, ctx.saved(1).conv2d_input(&v, map)?)?;
            }
            if ctx.needs(1) {
                sink.add(1, ctx.saved(0).conv2d(&v, None, &map.options)?)?;
            }
            Ok(())
        })
    }

    /// [`Var::conv2d`] over one dim: `y[n,o,i] = b[o] + Σ_{c,k} w[o,c,k]·x[n, c, i·stride +
    /// k·dilation − padding]`.
    ///
    /// # Shape
    /// `x: [N, C, L]` or `[C, L]`, `w: [O, C/groups, K]`, `b: [O]` → `[N, O, M]` or `[O, M]`,
    /// `M = ⌊(L + 2·padding − dilation·(K − 1) − 1)/stride⌋ + 1`.
    ///
    /// # Gradient
    /// dx is the transposed convolution of g with w, dw the correlation of x with g, `db = Σ g`
    /// over all dims but O. Saves x where w is tracked, and w where x is. Any order.
    ///
    /// # Errors
    /// As [`Var::conv2d`], which the messages name.
    ///
    /// # Reference
    /// `torch.nn.functional.conv1d`.
    #[track_caller]
    pub fn conv1d(&self, w: &Self, b: Option<&Self>, options: &ConvOptions<1>) -> Result<Self> {
        if !(2..=3).contains(&self.value().rank()) {
            return rank_mismatch("conv1d", "[N, C, L] or [C, L]", self.shape());
        }
        if w.value().rank() != 3 {
            return rank_mismatch("conv1d", "a weight [O, C/groups, K]", w.shape());
        }
        self.unsqueeze(-2)?.conv2d(&w.unsqueeze(-2)?, b, &flat(options))?.squeeze(-2)
    }

    /// The adjoint of [`Var::conv2d`] as a layer: each element of x adds w, times itself, to a window
    /// of y. `output_padding` makes y larger at its end by less than the stride, of which the size of
    /// y is otherwise the smallest that [`Var::conv2d`] maps to the size of x.
    ///
    /// # Shape
    /// `x: [N, C, H, W]` or `[C, H, W]`, `w: [C, O/groups, KH, KW]`, `b: [O]` →
    /// `[N, O, OH, OW]` or `[O, OH, OW]`,
    /// `OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + output_padding + 1`.
    ///
    /// # Gradient
    /// dx is the convolution of g with w, dw the correlation of g with x, `db = Σ g` over all dims
    /// but O. Saves x where w is tracked, and w where x is. Any order.
    ///
    /// # Errors
    /// As [`Var::conv2d`]; [`Error::InvalidArgument`] for an `output_padding` that is not smaller
    /// than the stride (PyTorch also takes one that is smaller than the dilation), and where the
    /// padding leaves nothing of y.
    ///
    /// # Reference
    /// `torch.nn.functional.conv_transpose2d`.
    #[track_caller]
    pub fn conv_transpose2d(
        &self,
        w: &Self,
        b: Option<&Self>,
        options: &ConvOptions<2>,
        output_padding: [usize; 2],
    ) -> Result<Self> {
        if self.value().rank() == 3 {
            let y = self.unsqueeze(0)?.conv_transpose2d(w, b, options, output_padding)?;
            return y.squeeze(0);
        }
        let op = "conv_transpose2d";
        if self.value().rank() != 4 {
            return rank_mismatch(op, "[N, C, H, W] or [C, H, W]", self.shape());
        }
        let [channels, group, kernel @ ..] = w.shape() else {
            return rank_mismatch(op, "a weight [C, O/groups, KH, KW]", w.shape());
        };
        let Ok(kernel) = <[usize; 2]>::try_from(kernel) else {
            return rank_mismatch(op, "a weight [C, O/groups, KH, KW]", w.shape());
        };
        if self.shape()[1] != *channels {
            let (lhs, rhs) = (self.shape().to_vec(), w.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let outputs = group.saturating_mul(options.groups);
        if let Some(b) = b
            && b.shape() != [outputs]
        {
            let (lhs, rhs) = (w.shape().to_vec(), b.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let size = transposed_size(op, plane(self.shape()), kernel, options, output_padding)?;
        let y = self.conv2d_input(w, Convolution { size, kernel, options: *options })?;
        match b {
            Some(b) => y.checked_add(&b.reshape([outputs, 1, 1])?),
            None => Ok(y),
        }
    }

    /// [`Var::conv_transpose2d`] over one dim.
    ///
    /// # Shape
    /// `x: [N, C, L]` or `[C, L]`, `w: [C, O/groups, K]`, `b: [O]` → `[N, O, M]` or `[O, M]`,
    /// `M = (L − 1)·stride − 2·padding + dilation·(K − 1) + output_padding + 1`.
    ///
    /// # Gradient
    /// dx is the convolution of g with w, dw the correlation of g with x, `db = Σ g` over all dims
    /// but O. Saves x where w is tracked, and w where x is. Any order.
    ///
    /// # Errors
    /// As [`Var::conv_transpose2d`], which the messages name.
    ///
    /// # Reference
    /// `torch.nn.functional.conv_transpose1d`.
    #[track_caller]
    pub fn conv_transpose1d(
        &self,
        w: &Self,
        b: Option<&Self>,
        options: &ConvOptions<1>,
        output_padding: usize,
    ) -> Result<Self> {
        if !(2..=3).contains(&self.value().rank()) {
            return rank_mismatch("conv_transpose1d", "[N, C, L] or [C, L]", self.shape());
        }
        if w.value().rank() != 3 {
            return rank_mismatch("conv_transpose1d", "a weight [C, O/groups, K]", w.shape());
        }
        let (x, w) = (self.unsqueeze(-2)?, w.unsqueeze(-2)?);
        x.conv_transpose2d(&w, b, &flat(options), [0, output_padding])?.squeeze(-2)
    }
}

/// Height and width of a transposed convolution's result.
fn transposed_size(
    op: &'static str,
    size: [usize; 2],
    kernel: [usize; 2],
    options: &ConvOptions<2>,
    output_padding: [usize; 2],
) -> Result<[usize; 2]> {
    let ConvOptions { stride, padding, dilation, .. } = *options;
    let mut out = [0; 2];
    for d in 0..2 {
        if output_padding[d] >= stride[d] {
            let reason = format!("must be below the stride {stride:?}, found {output_padding:?}");
            return Err(Error::InvalidArgument { op, name: "output_padding", reason });
        }
        let whole = || {
            let steps = size[d].checked_sub(1)?.checked_mul(stride[d])?;
            let taps = kernel[d].checked_sub(1)?.checked_mul(dilation[d])?;
            let padded = steps.checked_add(taps)?.checked_add(output_padding[d] + 1)?;
            padded.checked_sub(padding[d].checked_mul(2)?).filter(|&n| n > 0)
        };
        let Some(n) = whole() else {
            let reason = format!(
                "{padding:?} leaves nothing of size {size:?} with kernel {kernel:?} and stride {stride:?}"
            );
            return Err(Error::InvalidArgument { op, name: "padding", reason });
        };
        out[d] = n;
    }
    Ok(out)
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let plain = ConvOptions::<2>::default();
    let mixed = ConvOptions { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 1 };
    let grouped = ConvOptions { stride: [1, 2], padding: [1, 0], dilation: [2, 1], groups: 2 };
    let line = ConvOptions::<1>::default();
    let far = ConvOptions { stride: [2], padding: [2], dilation: [2], groups: 2 };
    vec![
        // Two numbers each, so that this one is checked to the third order.
        Row::of("conv2d", &[&[1, 1, 1, 2], &[1, 1, 1, 2]], move |x| {
            x[0].conv2d(&x[1], None, &ConvOptions { padding: [0, 1], ..plain })
        })
        .and(&[&[2, 2, 3, 4], &[3, 2, 2, 3], &[3]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &plain)
        })
        .and(&[&[2, 2, 4, 3], &[2, 2, 3, 2], &[2]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &mixed)
        })
        .and(&[&[1, 4, 5, 4], &[2, 2, 3, 2], &[2]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &grouped)
        })
        .and(&[&[2, 3, 2, 2], &[3, 1, 2, 2]], move |x| {
            x[0].conv2d(&x[1], None, &ConvOptions { groups: 3, padding: [1, 1], ..plain })
        })
        .and(&[&[2, 2, 3, 2], &[3, 2, 1, 1], &[3]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &plain)
        })
        .and(&[&[1, 2, 5, 4], &[2, 2, 1, 1]], move |x| {
            x[0].conv2d(&x[1], None, &ConvOptions { stride: [2, 3], ..plain })
        })
        .and(&[&[2, 4, 3], &[3, 2, 2, 2], &[3]], move |x| x[0].conv2d(&x[1], Some(&x[2]), &plain))
        .and(&[&[0, 2, 3, 3], &[2, 2, 2, 2], &[2]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &plain)
        })
        .and(&[&[2, 0, 3, 3], &[2, 0, 2, 2], &[2]], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &plain)
        })
        .and(&[&[3, 2, 1, 2], &[2, 3, 1, 2], &[1]], move |x| {
            let w = x[1].permute(&[1, 0, 3, 2])?;
            x[0].permute(&[2, 1, 0, 3])?.conv2d(&w, Some(&x[2].expand([3])?), &plain)
        })
        .and(&[&[1, 2, 3, 1], &[2, 2, 2, 2]], move |x| {
            x[0].expand([2, 2, 3, 3])?.conv2d(&x[1], None, &plain)
        })
        .and(&[&[2, 2, 2, 2]], move |x| {
            x[0].conv2d(&x[0], None, &ConvOptions { padding: [1, 1], ..plain })
        }),
        Row::of("conv1d", &[&[1, 1, 3], &[1, 1, 2]], move |x| x[0].conv1d(&x[1], None, &line))
            .and(&[&[2, 2, 5], &[3, 2, 3], &[3]], move |x| x[0].conv1d(&x[1], Some(&x[2]), &line))
            .and(&[&[2, 2, 5], &[4, 1, 3], &[4]], move |x| x[0].conv1d(&x[1], Some(&x[2]), &far))
            .and(&[&[2, 5], &[3, 2, 3], &[3]], move |x| x[0].conv1d(&x[1], Some(&x[2]), &line))
            .and(&[&[5, 2], &[3, 3, 2]], move |x| {
                x[0].transpose(0, 1)?.conv1d(&x[1].permute(&[1, 2, 0])?, None, &line)
            })
            .and(&[&[0, 2, 5], &[3, 2, 3]], move |x| x[0].conv1d(&x[1], None, &line)),
        Row::of("conv_transpose2d", &[&[1, 1, 1, 2], &[1, 1, 1, 2]], move |x| {
            x[0].conv_transpose2d(&x[1], None, &plain, [0, 0])
        })
        .and(&[&[2, 2, 2, 3], &[2, 3, 2, 3], &[3]], move |x| {
            x[0].conv_transpose2d(&x[1], Some(&x[2]), &plain, [0, 0])
        })
        .and(&[&[1, 2, 3, 2], &[2, 2, 3, 3], &[2]], move |x| {
            x[0].conv_transpose2d(&x[1], Some(&x[2]), &mixed, [1, 0])
        })
        .and(&[&[2, 4, 2, 2], &[4, 1, 2, 2], &[2]], move |x| {
            x[0].conv_transpose2d(&x[1], Some(&x[2]), &grouped, [0, 1])
        })
        .and(&[&[2, 2, 3], &[2, 3, 2, 2]], move |x| {
            x[0].conv_transpose2d(&x[1], None, &plain, [0, 0])
        })
        .and(&[&[2, 2, 1, 1]], move |x| x[0].conv_transpose2d(&x[0], None, &plain, [0, 0])),
        Row::of("conv_transpose1d", &[&[1, 1, 2], &[1, 1, 2]], move |x| {
            x[0].conv_transpose1d(&x[1], None, &line, 0)
        })
        .and(&[&[2, 2, 3], &[2, 3, 2], &[3]], move |x| {
            x[0].conv_transpose1d(&x[1], Some(&x[2]), &line, 0)
        })
        .and(&[&[4, 3], &[4, 1, 3], &[2]], move |x| {
            x[0].conv_transpose1d(&x[1], Some(&x[2]), &far, 1)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;
    use tensor::Generator;

    fn randn(shape: &[usize], seed: u64) -> Tensor<f64> {
        Tensor::randn(shape, &mut Generator::new(seed)).unwrap()
    }

    /// `y[n,o,i,j]` from its definition.
    fn naive(x: &Tensor<f64>, w: &Tensor<f64>, options: &ConvOptions<2>) -> Vec<f64> {
        let ([n, c, h, wide], [o, per, kh, kw]) = (x.dims("x").unwrap(), w.dims("w").unwrap());
        let (xs, ws) = (x.to_vec(), w.to_vec());
        let ConvOptions { stride, padding, dilation, groups } = *options;
        let count = |size: usize, kernel: usize, d: usize| {
            (size + 2 * padding[d] - dilation[d] * (kernel - 1) - 1) / stride[d] + 1
        };
        let mut y = Vec::new();
        for n in 0..n {
            for out in 0..o {
                let first = out / (o / groups) * per;
                for i in 0..count(h, kh, 0) {
                    for j in 0..count(wide, kw, 1) {
                        let mut sum = 0.0;
                        for (a, (k, l)) in
                            (0..per).flat_map(|a| (0..kh * kw).map(move |t| (a, (t / kw, t % kw))))
                        {
                            let row = (i * stride[0] + k * dilation[0]).wrapping_sub(padding[0]);
                            let column = (j * stride[1] + l * dilation[1]).wrapping_sub(padding[1]);
                            if row < h && column < wide {
                                let x = xs[((n * c + first + a) * h + row) * wide + column];
                                sum += x * ws[((out * per + a) * kh + k) * kw + l];
                            }
                        }
                        y.push(sum);
                    }
                }
            }
        }
        y
    }

    #[test]
    fn matches_naive_for_every_option() {
        for (i, kernel) in [[1, 1], [3, 2], [2, 4]].into_iter().enumerate() {
            for (stride, padding) in [([1, 1], [0, 0]), ([2, 1], [1, 0]), ([3, 2], [2, 3])] {
                for (dilation, groups) in [([1, 1], 1), ([2, 1], 2), ([1, 2], 4)] {
                    let options = ConvOptions { stride, padding, dilation, groups };
                    let x = randn(&[2, 4, 7, 8], i as u64);
                    let w = randn(&[8, 4 / groups, kernel[0], kernel[1]], 7);
                    let y = Var::constant(x.clone())
                        .conv2d(&Var::constant(w.clone()), None, &options)
                        .unwrap();
                    // At most 32 products of numbers of size 1.
                    let close = |(a, b): (f64, f64)| (a - b).abs() < 1e-13;
                    let want = naive(&x, &w, &options);
                    assert_eq!(y.value().numel(), want.len());
                    assert!(y.value().to_vec().into_iter().zip(want).all(close), "{options:?}");
                }
            }
        }
    }

    #[test]
    fn the_transposed_convolution_is_the_adjoint() {
        // ⟨conv(x, w), g⟩ = ⟨x, conv_transpose(g, w)⟩; the size needs the output padding.
        let options = ConvOptions { stride: [3, 2], padding: [1, 0], dilation: [1, 2], groups: 2 };
        let (x, w) = (randn(&[2, 4, 6, 8], 1), randn(&[6, 2, 2, 3], 2));
        let (x, w) = (Var::constant(x), Var::constant(w));
        let y = x.conv2d(&w, None, &options).unwrap();
        let g = Var::constant(randn(y.shape(), 3));
        let back = g.conv_transpose2d(&w, None, &options, [0, 1]).unwrap();
        assert_eq!(back.shape(), x.shape());
        let inner = |a: &Var<f64>, b: &Var<f64>| (a * b).sum().item().unwrap();
        assert!((inner(&y, &g) - inner(&x, &back)).abs() < 1e-11);
    }

    #[test]
    fn only_what_the_gradient_needs_is_saved() {
        let tape = Tape::new();
        let x = tape.var(randn(&[1, 2, 4, 4], 1));
        let w = randn(&[3, 2, 3, 3], 2);
        let y = x.conv2d(&tape.constant(w), None, &ConvOptions::default()).unwrap();
        let graph = tape.0.graph.borrow();
        let saved: Vec<usize> = graph.saved_of(1).iter().map(|s| s.value.numel()).collect();
        assert_eq!((y.shape(), saved), (&[1, 3, 2, 2][..], vec![1, 54]));
    }

    #[test]
    fn rejects_bad_shapes_and_options() {
        let z = |shape: &[usize]| Var::constant(Tensor::<f64>::zeros(shape).unwrap());
        let plain = ConvOptions::<2>::default();
        let text = |r: Result<Var<f64>>| r.unwrap_err().to_string();
        let (x, w) = (z(&[1, 2, 4, 4]), z(&[3, 2, 2, 2]));
        assert!(text(z(&[4, 4]).conv2d(&w, None, &plain)).contains("expected [N, C, H, W]"));
        assert!(text(x.conv2d(&w, Some(&z(&[2])), &plain)).contains("shapes do not match"));
        assert!(text(x.conv2d(&z(&[3, 2, 5, 1]), None, &plain)).contains("spans 5 entries"));
        let line = ConvOptions::<1>::default();
        assert!(text(x.conv1d(&z(&[3, 2, 2]), None, &line)).contains("expected [N, C, L]"));
        assert!(text(z(&[2, 4]).conv1d(&w, None, &line)).contains("expected a weight"));
        let w = z(&[2, 3, 2, 2]);
        assert_eq!(
            text(x.conv_transpose2d(&w, None, &plain, [0, 1])),
            "conv_transpose2d: output_padding must be below the stride [1, 1], found [0, 1]"
        );
        let deep = ConvOptions { padding: [9, 0], ..plain };
        assert!(text(x.conv_transpose2d(&w, None, &deep, [0, 0])).contains("leaves nothing"));
        assert!(
            text(x.conv_transpose2d(&z(&[3, 2, 2, 2]), None, &plain, [0; 2])).contains("match")
        );
        let b = z(&[2]);
        assert!(text(x.conv_transpose2d(&w, Some(&b), &plain, [0; 2])).contains("shapes do not"));
        let still = ConvOptions { stride: [0, 1], ..plain };
        assert!(x.conv_transpose2d(&w, None, &still, [0; 2]).is_err());
        let w = z(&[2, 3, 2]);
        assert!(z(&[2]).conv_transpose1d(&w, None, &line, 0).is_err());
        assert!(z(&[2, 4]).conv_transpose1d(&b, None, &line, 0).is_err());
    }
}
