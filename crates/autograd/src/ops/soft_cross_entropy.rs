//! Cross entropy with a probability for each class, the other half of `Var::cross_entropy`.
//!
//! For coefficients `c_k = w_k·((1−ε)·q_k + ε/C)` and `a = Σ_k c_k` (which is not 1 where q is not
//! normalised), `loss = −Σ_k c_k·log p_k`, `dx_k = s·(a·p_k − c_k)` and `dc_k = −s·log p_k`.

use std::sync::Arc;

use tensor::kernels::softmax::{self as kernel, SoftRow};
use tensor::{Error, Float, Result, Tensor};

use super::cross_entropy::{ClassOptions, RowLosses};
use super::normalization::Affine;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    #[track_caller]
    pub(super) fn soft_cross_entropy(
        &self,
        op: &'static str,
        q: &Self,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        let mut over = RowLosses::new(op, self.value(), options)?;
        if q.shape() != self.shape() {
            let (lhs, rhs) = (self.shape().to_vec(), q.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        if let Some(class) = options.ignore_index.filter(|&class| class >= 0) {
            let reason = format!("is for class indices; with probabilities there is none: {class}");
            return Err(Error::InvalidArgument { op, name: "ignore_index", reason });
        }
        over.divide(options.reduction, over.count() as f64);
        let c = self.coefficients_of(q, over.dim, options)?;
        let rows = kernel::soft_cross_entropy(self.value(), c.value(), over.dim);
        let losses: Vec<f64> = rows.iter().map(|r| r.loss).collect();
        let loss = over.reduce(&losses)?;
        let soft = Arc::new(Soft { over, rows, all_count: c.is_tracked() });
        let saved = [Save::Input(self), Save::Input(&c)];
        record(op, [self.node(), c.node()], saved, loss, move |ctx, g, sink| {
            let (x, c) = (ctx.saved(0), ctx.saved(1));
            if ctx.needs(1) {
                let s = soft.over.upstream(&g * T::from_f64(-soft.over.share()))?;
                sink.add(1, x.log_softmax(soft.over.dim as isize)? * s)?;
            }
            if ctx.needs(0) {
                sink.add(0, soft.gradient(&x, &c, &g)?)?;
            }
            Ok(())
        })
    }

    /// `c_k = w_k·((1−ε)·q_k + ε/C)`; linear in q.
    #[track_caller]
    fn coefficients_of(&self, q: &Self, dim: usize, options: &ClassOptions<T>) -> Result<Self> {
        let (smoothing, classes) = (options.label_smoothing, self.shape()[dim]);
        if options.weight.is_none() && smoothing == 0.0 {
            return Ok(q.clone());
        }
        // Both factors rounded once, from f64.
        let weights = options.weight.as_ref().map(Tensor::to_vec);
        let of_class = |factor: f64| {
            let weight = |k: usize| weights.as_ref().map_or(1.0, |w| w[k].to_f64());
            let values = (0..classes).map(|k| T::from_f64(factor * weight(k))).collect();
            let mut shape = vec![1; self.value().rank()];
            shape[dim] = classes;
            Tensor::from_vec(values, shape)
        };
        let factor = of_class(1.0 - smoothing)?;
        let uniform = of_class(smoothing / classes.max(1) as f64)?;
        let name = "smoothed_target";
        let c = q.value().zip3::<T, Affine>(name, &factor, &uniform)?;
        record(name, [q.node()], [], c, move |_, g, sink| {
            sink.add(0, g * Var::constant(factor.clone()))
        })
    }
}

/// A recorded loss: what its gradient needs beside logits and coefficients.
struct Soft {
    over: RowLosses,
    rows: Vec<SoftRow>,
    /// Whether the coefficients are tracked, so that a row of zeros has derivatives, too.
    all_count: bool,
}

impl Soft {
    /// `dx = s·(a·p − c)` as a function of x, c and the upstream gradient g (s = g/divisor).
    ///
    /// With upstream gradient v it has `dx = s·a·p·(v − ⟨p, v⟩)`, `dc = s·(⟨p, v⟩ − v)` and
    /// `dg = ⟨a·p − c, v⟩/divisor`.
    #[track_caller]
    fn gradient<T: Float>(self: &Arc<Self>, x: &Var<T>, c: &Var<T>, g: &Var<T>) -> Result<Var<T>> {
        let (scale, dim) = (self.over.scale(g.value()), self.over.dim);
        let dx = kernel::soft_cross_entropy_backward(x.value(), c.value(), dim, &self.rows, scale);
        let saved = [Save::Input(x), Save::Input(c), Save::Input(g)];
        let nodes = [x.node(), c.node(), g.node()];
        let soft = Arc::clone(self);
        record("cross_entropy_backward", nodes, saved, dx, move |ctx, v, sink| {
            let (x, c, g) = (ctx.saved(0), ctx.saved(1), ctx.saved(2));
            let (over, dims) = (&soft.over, [soft.over.dim as isize]);
            // Rows that do not count are replaced before they are read: NaN must not spread.
            let used = |r: &SoftRow| if r.used || soft.all_count { 1.0 } else { 0.0 };
            let used = over.by_row::<T>(soft.rows.iter().map(used))?;
            let p = x.threshold_backward(used.value())?.softmax(dims[0])?;
            let centred = &v - (&p * &v).sum_dim(&dims, true)?;
            let s = over.upstream(&g * T::from_f64(over.share()))?;
            if ctx.needs(0) {
                sink.add(0, p * &centred * (&s * c.sum_dim(&dims, true)?))?;
            }
            if ctx.needs(1) {
                sink.add(1, -(centred * s))?;
            }
            if ctx.needs(2) {
                let unit = Var::constant(g.value().ones_like());
                sink.add(2, over.total(soft.gradient(&x, &c, &unit)? * v)?)?;
            }
            Ok(())
        })
    }
}

/// What the gradient-checking suite tries, with each of `options`.
#[cfg(any(test, feature = "suite"))]
pub(super) fn rows(options: Vec<ClassOptions<f64>>) -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let mut rows = Vec::new();
    for options in options.into_iter().filter(|o| o.ignore_index.is_none()) {
        for shape in [&[4][..], &[3, 4], &[2, 4, 3], &[0, 4]] {
            let o = options.clone();
            let f = move |x: &[Var<f64>]| x[0].cross_entropy(&x[1], &o);
            rows.push(Row::of("cross_entropy", &[shape, shape], f));
        }
    }
    rows.push(Row::of("cross_entropy", &[&[4, 3], &[1, 4]], |x| {
        let q = x[1].expand([3, 4])?;
        x[0].transpose(0, 1)?.cross_entropy(&q, &ClassOptions::default())
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cross_entropy::Reduction;
    use crate::tape::Tape;

    #[test]
    fn probabilities_of_one_class_agree_with_its_index() {
        let mut rng = tensor::Generator::new(3);
        let x = Tensor::<f32>::randn([5, 4], &mut rng).unwrap() * 9.0;
        let classes = Tensor::from_vec(vec![3, 0, 1, 1, 2], [5]).unwrap();
        let one_hot = classes.unsqueeze(1).unwrap().eq(&Tensor::from([0, 1, 2, 3])).unwrap();
        let one_hot = one_hot.cast::<f32>();
        let weight = Some(Tensor::from([0.5_f32, 0.0, 2.0, 1.25]));
        for (weight, label_smoothing) in
            [(None, 0.0), (None, 0.1), (weight.clone(), 0.0), (weight, 1.0)]
        {
            let o = ClassOptions {
                weight,
                label_smoothing,
                reduction: Reduction::Sum,
                ..Default::default()
            };
            let (a, b) = (Tape::new().var(x.clone()), Tape::new().var(x.clone()));
            let hard = a.cross_entropy(&classes, &o).unwrap();
            let soft = b.cross_entropy(&one_hot, &o).unwrap();
            let (l, m) = (hard.item().unwrap(), soft.item().unwrap());
            assert!((l - m).abs() <= 4e-7 * l.abs(), "{l} {m}");
            let (g, h) = (hard.backward().unwrap(), soft.backward().unwrap());
            for (g, h) in g.wrt(&a).unwrap().to_vec().iter().zip(h.wrt(&b).unwrap().to_vec()) {
                assert!((g - h).abs() <= 4e-7 * (1.0 + g.abs()), "{g} {h}");
            }
        }
    }

    #[test]
    fn confident_rows_keep_their_digits() {
        let x = Tape::new().var(Tensor::from_vec(vec![40.0_f32, 0.0], [1, 2]).unwrap());
        let q = Tensor::from_vec(vec![1.0_f32, 0.0], [1, 2]).unwrap();
        let loss = x.cross_entropy(&q, &ClassOptions::default()).unwrap();
        let want = (-40.0_f32).exp();
        assert!((loss.item().unwrap() / want - 1.0).abs() < 2.4e-7);
        let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
        assert!((dx[0] / -want - 1.0).abs() < 4e-7 && (dx[1] / want - 1.0).abs() < 4e-7);
    }

    #[test]
    fn terms_of_coefficient_zero_do_not_count() {
        let inf = f64::INFINITY;
        let x = Tensor::from_vec(vec![1.0, -inf, 0.0, f64::NAN, inf, 0.0], [2, 3]).unwrap();
        let q = Tensor::from_vec(vec![0.5, 0.0, 0.5, 0.0, 0.0, 0.0], [2, 3]).unwrap();
        let x = Tape::new().var(x);
        let loss = x.cross_entropy(&q, &ClassOptions::default()).unwrap();
        let lse = 1.0_f64.exp().ln_1p();
        assert!((loss.item().unwrap() - (lse - 0.5) / 2.0).abs() < 1e-15);
        let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
        assert!(dx.iter().all(|g| g.is_finite()) && dx[1] == 0.0 && dx[3..] == [0.0; 3], "{dx:?}");
        let none = Var::constant(Tensor::<f64>::zeros([0, 3]).unwrap());
        let mean = none.cross_entropy(none.value(), &ClassOptions::default()).unwrap();
        assert!(mean.item().unwrap().is_nan());
    }

    #[test]
    fn a_row_of_zeros_has_derivatives_in_its_probabilities_alone() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from_vec(vec![1.0_f64, 3.0], [1, 2]).unwrap());
        let q = tape.var(Tensor::zeros([1, 2]).unwrap());
        let loss = x.cross_entropy(&q, &ClassOptions::default()).unwrap();
        let g = crate::grad(&[&loss], &[&x, &q], &[], true).unwrap();
        let (dx, dq) = (g[0].clone().unwrap(), g[1].clone().unwrap());
        assert_eq!((loss.item().unwrap(), dx.value().to_vec()), (0.0, vec![0.0, 0.0]));
        let close = |got: Vec<f64>, want: [f64; 2]| {
            let near = got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14);
            assert!(near, "{got:?}, {want:?}");
        };
        let lse = 3.0 + (-2.0_f64).exp().ln_1p();
        close(dq.value().to_vec(), [lse - 1.0, lse - 3.0]);
        // d⟨dx, (1, 0)⟩/dq = p₀ − (1, 0).
        let first = Var::constant(Tensor::from_vec(vec![1.0, 0.0], [1, 2]).unwrap());
        let second = crate::grad(&[&(dx * first).sum()], &[&q], &[], false).unwrap();
        let p = (1.0 - lse).exp();
        close(second[0].as_ref().unwrap().value().to_vec(), [p - 1.0, p]);
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let x = Var::constant(Tensor::<f64>::zeros([2, 3]).unwrap());
        let text =
            |q: &Tensor<f64>, o: &ClassOptions<f64>| x.cross_entropy(q, o).unwrap_err().to_string();
        let o = ClassOptions::default();
        let q = Tensor::zeros([1, 3]).unwrap();
        assert_eq!(text(&q, &o), "cross_entropy: shapes do not match: [2, 3] and [1, 3]");
        let o = ClassOptions { ignore_index: Some(1), ..o };
        let expected =
            "cross_entropy: ignore_index is for class indices; with probabilities there is none: 1";
        assert_eq!(text(x.value(), &o), expected);
    }
}
