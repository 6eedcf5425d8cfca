//! Cross entropy with a probability for each class, the other half of `Var::cross_entropy`.
//!
//! For coefficients `c_k = w_k·((1−ε)·q_k + ε/C)` and `a = Σ_k c_k` (which is not 1 where q is not
//! normalised), `loss = −Σ_k c_k·log p_k`, `dx_k = s·(a·p_k − c_k)` and `dc_k = −s·log p_k`.

use std::sync::Arc;

use tensor::kernels::softmax as kernel;
use tensor::{Error, Float, Result, Tensor};

use super::class_loss::{ClassOptions, RowLosses, Total};
use super::cross_entropy::{Times, uniform_part};
use super::normalization::Affine;
use crate::tape::{Save, Tag, record, record_tagged};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// The loss for probabilities q, with the weights of the options, or with tracked ones.
    #[track_caller]
    pub(super) fn soft_cross_entropy(
        &self,
        op: &'static str,
        q: &Self,
        row_weight: Option<&Tensor<T>>,
        class_weight: Option<&Self>,
        options: &ClassOptions<T>,
    ) -> Result<(Self, Arc<RowLosses>)> {
        let mut over = RowLosses::new(op, self.shape(), options, row_weight)?;
        if q.shape() != self.shape() {
            let (lhs, rhs) = (self.shape().to_vec(), q.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        if let Some(class) = options.ignore_index.filter(|&class| class >= 0) {
            let reason = format!("is for class indices; with probabilities there is none: {class}");
            return Err(Error::InvalidArgument { op, name: "ignore_index", reason });
        }
        let mut rows = Total::default();
        (0..over.shape.numel()).for_each(|row| rows.add(over.weight(row)));
        let rows = rows.value();
        over.divide(op, options, rows, rows)?;
        let c = match class_weight {
            None => self.coefficients_of(q, &over, options)?,
            Some(w) => {
                let even = ClassOptions { weight: None, ..options.clone() };
                let mut shape = vec![1; self.value().rank()];
                shape[over.dim] = over.classes;
                self.coefficients_of(q, &over, &even)?.times(&w.reshape(shape)?)?
            }
        };
        self.coefficient_loss((op, Tag::Plain), &c, over)
    }

    /// The loss with coefficients c, in the shape of the logits.
    #[track_caller]
    pub(super) fn coefficient_loss(
        &self,
        op: (&'static str, Tag),
        c: &Self,
        mut over: RowLosses,
    ) -> Result<(Self, Arc<RowLosses>)> {
        over.found(kernel::soft_cross_entropy(self.value(), c.value(), over.dim));
        let loss = over.reduce()?;
        let over = Arc::new(over);
        let soft = Arc::new(Soft { over: Arc::clone(&over), all_count: c.is_tracked() });
        let saved = [Save::Input(self), Save::Input(c)];
        let nodes = [self.node(), c.node()];
        let loss = record_tagged(op, &nodes, &saved, loss, move |ctx, g, sink| {
            let (over, x, c) = (&soft.over, ctx.saved(0), ctx.saved(1));
            if ctx.needs(1) {
                let s = over.by_row(|row| -over.weight(row) * over.share())?;
                let s = over.upstream(&g)?.times(&s)?;
                let used = over.by_row::<T>(|row| over.weight(row).abs())?;
                let log_p = x.threshold_backward(used.value())?.log_softmax(over.dim as isize)?;
                // A masked class without a share in the target has none in its gradient.
                let masked = log_p.value().eq(-T::INFINITY)?;
                let none = masked.logical_and(&c.value().eq(T::ZERO)?)?;
                sink.add(1, log_p.masked_fill(&none, T::ZERO)?.times(&s)?)?;
            }
            if ctx.needs(0) {
                sink.add(0, soft.gradient(&x, &c, &g)?)?;
            }
            Ok(())
        })?;
        Ok((loss, over))
    }

    /// `c_k = w_k·((1−ε)·q_k + ε/C)`; linear in q.
    #[track_caller]
    fn coefficients_of(
        &self,
        q: &Self,
        over: &RowLosses,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        let smoothing = options.label_smoothing;
        if options.weight.is_none() && smoothing == 0.0 {
            return Ok(q.clone());
        }
        // Both factors rounded once, from f64.
        let weights = options.weight.as_ref().map(Tensor::to_vec);
        let weight = |k: usize| weights.as_ref().map_or(1.0, |w| w[k].to_f64());
        let x = self.value();
        let factor = uniform_part(over, x, (1.0 - smoothing) * over.classes as f64, false, weight)?;
        let uniform = uniform_part(over, x, smoothing, options.smooth_over_finite, weight)?;
        let name = "smoothed_target";
        let c = q.value().zip3::<T, Affine>(name, &factor, &uniform)?;
        record(name, [q.node()], [], c, move |_, g, sink| {
            sink.add(0, g.gate::<Times>("smoothed_target_backward", &factor)?)
        })
    }
}

/// A recorded loss: what its gradient needs beside logits and coefficients.
struct Soft {
    over: Arc<RowLosses>,
    /// Whether the coefficients are tracked, so that a row of zeros has derivatives, too.
    all_count: bool,
}

impl Soft {
    /// `dx = (s·a + t)·p − s·c` as a function of x, c and the upstream gradient g (s = g/divisor, and t
    /// the part of λ).
    ///
    /// With upstream gradient v it has `dx = s·a·p·(v − ⟨p, v⟩)`, `dc = s·(⟨p, v⟩ − v)` and
    /// `dg = ⟨a·p − c, v⟩/divisor`, besides what comes from λ.
    #[track_caller]
    fn gradient<T: Float>(self: &Arc<Self>, x: &Var<T>, c: &Var<T>, g: &Var<T>) -> Result<Var<T>> {
        let (over, factors) = (&self.over, self.over.factors(g.value()));
        let dx = kernel::soft_cross_entropy_backward(
            x.value(),
            c.value(),
            over.dim,
            &over.rows,
            factors,
        );
        let saved = [Save::Input(x), Save::Input(c), Save::Input(g)];
        let nodes = [x.node(), c.node(), g.node()];
        let soft = Arc::clone(self);
        record("cross_entropy_backward", nodes, saved, dx, move |ctx, v, sink| {
            let (x, c, g) = (ctx.saved(0), ctx.saved(1), ctx.saved(2));
            let (over, dims) = (&soft.over, [soft.over.dim as isize]);
            let a = c.sum_dim(&dims, true)?;
            let used = |row: usize| over.rows[row].used || soft.all_count;
            let (dx, centred, s) = over.second([&x, &g, &v], &a, used)?;
            if ctx.needs(0) {
                sink.add(0, dx)?;
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
    use crate::ops::class_loss::Reduction;
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
