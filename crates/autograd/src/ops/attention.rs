//! Scaled dot product attention: `softmax(q·kᵀ·scale + mask)·v`, composed of matrix products and one
//! softmax that knows rows without anything to attend to.

use tensor::kernels::softmax as kernel;
use tensor::{Error, Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// What queries may attend to.
#[derive(Clone, Debug)]
pub enum AttentionMask<T: Float> {
    /// Only where this holds; broadcasts to `[.., L, S]`.
    Keep(Tensor<bool>),
    /// Everything, with this added to the scores; broadcasts to `[.., L, S]`. −∞ masks. May be tracked:
    /// a learned bias.
    Add(Var<T>),
}

/// Options of [`Var::scaled_dot_product_attention`]; the defaults are PyTorch's.
#[derive(Clone, Debug)]
pub struct AttentionOptions<T: Float> {
    /// What queries may attend to, of what `causal` leaves.
    pub mask: Option<AttentionMask<T>>,
    /// Whether query i attends to the keys 0 to i only.
    pub causal: bool,
    /// The factor of the scores; 1/√E where `None`.
    pub scale: Option<f64>,
    /// The share of the softmax that is set to 0 in training, as [`Var::dropout`] does.
    pub dropout: f64,
}

impl<T: Float> Default for AttentionOptions<T> {
    fn default() -> Self {
        AttentionOptions { mask: None, causal: false, scale: None, dropout: 0.0 }
    }
}

impl<T: Float> Var<T> {
    /// Attention of the queries `self` to keys k with values v: `softmax(q·kᵀ·scale + mask)·v`, the
    /// softmax over the keys.
    ///
    /// With `causal` query i sees the keys 0 to i, also where L and S differ (aligned at the top left).
    /// A query that sees no key at all has output 0 and gradient 0, never NaN.
    ///
    /// # Shape
    /// `q: [.., L, E]`, `k: [.., S, E]`, `v: [.., S, D]` → `[.., L, D]`; leading dims broadcast.
    ///
    /// # Gradient
    /// With `P` the softmax, `G` the gradient of the output, and `dZ = P·(G·vᵀ − Σ P·(G·vᵀ))`:
    /// `dq = scale·dZ·k`, `dk = scale·dZᵀ·q`, `dv = Pᵀ·G`, and dZ for a mask that is added. Saves q, k, v
    /// and P, which is `[.., L, S]`. Any order. With dropout P is the softmax times its mask.
    ///
    /// # Numerics
    /// q is scaled before the product. The softmax subtracts the maximum of its row.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] below rank 2; [`Error::InnerDimensions`] if q and k differ in E, or k
    /// and v in S; [`Error::InvalidArgument`] for `dropout` outside [0, 1]; [`Error::ShapeMismatch`] if leading dims do not broadcast, or a mask does not broadcast
    /// to the scores.
    ///
    /// # Examples
    /// ```
    /// use autograd::{AttentionOptions, Tensor, Var};
    /// let q = Var::constant(Tensor::from([[1.0_f64], [1.0]]));
    /// let v = Var::constant(Tensor::from([[2.0], [4.0]]));
    /// let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
    /// let y = q.scaled_dot_product_attention(&q, &v, &options)?;
    /// assert_eq!(y.value().to_vec(), [2.0, 3.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.scaled_dot_product_attention`; unlike it, `causal` and a mask may be given
    /// together. Vaswani et al., arXiv 1706.03762.
    #[track_caller]
    pub fn scaled_dot_product_attention(
        &self,
        k: &Self,
        v: &Self,
        options: &AttentionOptions<T>,
    ) -> Result<Self> {
        let op = "scaled_dot_product_attention";
        let [length, width] = matrix(op, self)?;
        let ([keys, k_width], [values, _]) = (matrix(op, k)?, matrix(op, v)?);
        for (agree, x, y) in [(width == k_width, self, k), (keys == values, k, v)] {
            if !agree {
                let (lhs, rhs) = (x.shape().to_vec(), y.shape().to_vec());
                return Err(Error::InnerDimensions { op, lhs, rhs });
            }
        }
        let scale = options.scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt());
        // [..,L,E]·[..,S,E]ᵀ
        let mut scores = (self * T::from_f64(scale)).matmul(&k.transpose(-2, -1)?)?;
        let mut keep = options.causal.then(|| lower_triangle(length, keys)).transpose()?;
        if let Some(mask) = &options.mask {
            let shape = match mask {
                AttentionMask::Keep(mask) => mask.shape(),
                AttentionMask::Add(mask) => mask.shape(),
            };
            if !fits(shape, scores.shape()) {
                let (lhs, rhs) = (shape.to_vec(), scores.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            match mask {
                AttentionMask::Add(mask) => scores = scores.checked_add(mask)?,
                AttentionMask::Keep(mask) => {
                    keep = Some(match keep {
                        Some(causal) => causal.logical_and(mask)?,
                        None => mask.clone(),
                    });
                }
            }
        }
        // [..,L,S]·[..,S,D]
        scores.masked_softmax(keep.as_ref())?.dropout(options.dropout)?.matmul(v)
    }

    /// Softmax over the last dim of what `keep` leaves; 0 elsewhere, and in rows of nothing but −∞.
    /// `dx = y·(g − Σ g·y)`. Saves the output.
    #[track_caller]
    fn masked_softmax(&self, keep: Option<&Tensor<bool>>) -> Result<Self> {
        let masked = match keep {
            Some(keep) => keep.where_cond(self.value(), -T::INFINITY)?,
            None => self.value().clone(),
        };
        let mut y = kernel::softmax(&masked, masked.rank() - 1);
        // Nothing to attend to: 0/0 would be NaN. Without keys there is no row, and no maximum.
        if masked.numel() > 0 {
            let empty = masked.amax(&[-1], true)?.eq(-T::INFINITY)?;
            if empty.any().item()? {
                y = empty.where_cond(T::ZERO, &y)?;
            }
        }
        record("masked_softmax", [self.node()], [Save::Output], y, |ctx, g, sink| {
            let y = ctx.saved(0);
            let mean = (&g * &y).sum_dim(&[-1], true)?;
            sink.add(0, (g - mean) * y)
        })
    }
}

/// The last two sizes.
fn matrix<T: Float>(op: &'static str, x: &Var<T>) -> Result<[usize; 2]> {
    match x.shape() {
        [.., rows, columns] => Ok([*rows, *columns]),
        shape => {
            let (expected, shape) = ("[.., L, E]", shape.to_vec());
            Err(Error::RankMismatch { op, expected, shape })
        }
    }
}

/// Whether a shape broadcasts to another without enlarging it.
fn fits(shape: &[usize], to: &[usize]) -> bool {
    let sizes = shape.iter().rev().zip(to.iter().rev());
    shape.len() <= to.len() && sizes.fold(true, |fit, (&n, &m)| fit && (n == m || n == 1))
}

/// Where the column is at most the row.
fn lower_triangle(rows: usize, columns: usize) -> Result<Tensor<bool>> {
    let row = Tensor::<i64>::arange(0, rows as i64, 1)?.unsqueeze(1)?;
    Tensor::<i64>::arange(0, columns as i64, 1)?.le(&row)
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    fn attend(x: &[Var<f64>], options: &AttentionOptions<f64>) -> Result<Var<f64>> {
        x[0].scaled_dot_product_attention(&x[1], &x[2], options)
    }
    fn causal() -> AttentionOptions<f64> {
        AttentionOptions { causal: true, ..AttentionOptions::default() }
    }
    fn keep(mask: Tensor<bool>) -> AttentionOptions<f64> {
        AttentionOptions { mask: Some(AttentionMask::Keep(mask)), ..AttentionOptions::default() }
    }
    let name = "scaled_dot_product_attention";
    vec![
        Row::of(name, &[&[1, 2], &[1, 2], &[1, 1]], |x| attend(x, &AttentionOptions::default()))
            .and(&[&[2, 1]], |x| {
                x[0].scaled_dot_product_attention(&x[0], &x[0], &AttentionOptions::default())
            })
            .and(&[&[2, 3, 2], &[2, 4, 2], &[2, 4, 3]], |x| {
                attend(x, &AttentionOptions { scale: Some(0.7), ..AttentionOptions::default() })
            })
            .and(&[&[2, 3, 2], &[2, 3, 2], &[2, 3, 3]], |x| attend(x, &causal()))
            .and(&[&[2, 2], &[4, 2], &[4, 1]], |x| attend(x, &causal()))
            .and(&[&[4, 2], &[2, 2], &[2, 1]], |x| attend(x, &causal()))
            .and(&[&[2, 1, 3, 2], &[3, 2, 2], &[1, 2, 2]], |x| {
                attend(x, &AttentionOptions::default())
            })
            .and(&[&[3, 2], &[3, 2], &[3, 2]], |x| {
                let mask =
                    Tensor::from([[true, false, true], [false, false, false], [false, true, true]]);
                attend(x, &keep(mask))
            })
            .and(&[&[2, 3, 2], &[2, 3, 2], &[2, 3, 2]], |x| {
                let mask = Tensor::from([[[false, true, true]], [[true, true, false]]]);
                attend(x, &AttentionOptions { causal: true, ..keep(mask) })
            })
            .and(&[&[2, 3, 2], &[2, 4, 2], &[2, 4, 1], &[3, 4]], |x| {
                let mask = Some(AttentionMask::Add(x[3].clone()));
                attend(x, &AttentionOptions { mask, ..causal() })
            })
            .and(&[&[3, 2], &[2, 4], &[3, 4]], |x| {
                let (q, k) = (x[0].transpose(0, 1)?, x[1].transpose(0, 1)?);
                let v = x[2].transpose(0, 1)?;
                let k = k.matmul(&x[0].transpose(0, 1)?)?;
                q.scaled_dot_product_attention(&k, &v, &AttentionOptions::default())
            })
            .and(&[&[0, 2], &[3, 2], &[3, 2]], |x| attend(x, &causal()))
            .and(&[&[3, 2], &[0, 2], &[0, 2]], |x| attend(x, &causal()))
            .and(&[&[3, 0], &[2, 0], &[2, 2]], |x| attend(x, &AttentionOptions::default())),
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

    /// The outputs of one head, from their definition; `sees(i, j)` is what is added to a score.
    fn naive(
        [q, k, v]: [&Tensor<f64>; 3],
        scale: f64,
        sees: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        let ([l, e], [s, d]) = (q.dims("q").unwrap(), v.dims("v").unwrap());
        let [q, k, v] = [q, k, v].map(Tensor::to_vec);
        let mut out = Vec::new();
        for i in 0..l {
            let score = |j| (0..e).map(|t| q[i * e + t] * k[j * e + t]).sum::<f64>();
            let p: Vec<f64> = (0..s).map(|j| (score(j) * scale + sees(i, j)).exp()).collect();
            let total: f64 = p.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..s).map(|j| p[j] * v[j * d + c]).sum();
                out.push(if total == 0.0 { 0.0 } else { sum / total });
            }
        }
        out
    }

    fn attend(x: [&Tensor<f64>; 3], options: &AttentionOptions<f64>) -> Vec<f64> {
        let [q, k, v] = x.map(|x| Var::constant(x.clone()));
        q.scaled_dot_product_attention(&k, &v, options).unwrap().value().to_vec()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13), "{a:?} {b:?}");
    }

    #[test]
    fn matches_naive() {
        let hidden = f64::NEG_INFINITY;
        for (l, s) in [(4, 4), (3, 5), (5, 2)] {
            let x = [&randn(&[l, 3], 1), &randn(&[s, 3], 2), &randn(&[s, 2], 3)];
            let root = 1.0 / 3.0_f64.sqrt();
            let options = AttentionOptions::default();
            close(&attend(x, &options), &naive(x, root, |_, _| 0.0));
            // Aligned at the top left, as PyTorch.
            let causal = AttentionOptions { causal: true, ..options.clone() };
            let below = |i: usize, j: usize| if j <= i { 0.0 } else { hidden };
            close(&attend(x, &causal), &naive(x, root, below));
            let bias = randn(&[l, s], 4);
            let mask = Some(AttentionMask::Add(Var::constant(bias.clone())));
            let options = AttentionOptions { mask, scale: Some(2.0), causal: true, dropout: 0.0 };
            let bias = bias.to_vec();
            close(&attend(x, &options), &naive(x, 2.0, |i, j| bias[i * s + j] + below(i, j)));
            let keep = Tensor::<i64>::arange(0, (l * s) as i64, 1).unwrap().remainder(3).unwrap();
            let keep = keep.gt(0).unwrap().reshape([l, s]).unwrap();
            let seen = keep.to_vec();
            let mask = Some(AttentionMask::Keep(keep));
            let options = AttentionOptions { mask, ..AttentionOptions::default() };
            let sees = |i, j| if seen[i * s + j] { 0.0 } else { hidden };
            close(&attend(x, &options), &naive(x, root, sees));
        }
    }

    #[test]
    fn a_query_that_sees_nothing_has_neither_output_nor_gradient() {
        let tape = Tape::new();
        let [q, k, v] = [1, 2, 3].map(|seed| tape.var(randn(&[2, 3], seed)));
        let bias = tape.var(Tensor::from([[f64::NEG_INFINITY; 2], [0.0; 2]]));
        let keep = Tensor::from([[true, true], [false, false]]);
        for mask in [AttentionMask::Keep(keep), AttentionMask::Add(bias.clone())] {
            let blind = if matches!(mask, AttentionMask::Keep(_)) { 1 } else { 0 };
            let options = AttentionOptions { mask: Some(mask), ..AttentionOptions::default() };
            let y = q.scaled_dot_product_attention(&k, &v, &options).unwrap();
            assert_eq!(y.value().select(0, blind).unwrap().to_vec(), [0.0; 3]);
            let upstream = [Var::constant(randn(&[2, 3], 4))];
            let dx = crate::grad(&[&y], &[&q, &k, &v], &upstream, false).unwrap();
            let dx: Vec<_> = dx.into_iter().map(|g| g.unwrap().into_value()).collect();
            assert!(dx.iter().all(|g| g.isfinite().all().item().unwrap()));
            assert_eq!(dx[0].select(0, blind).unwrap().to_vec(), [0.0; 3]);
            assert!(dx[0].select(0, 1 - blind).unwrap().to_vec() != [0.0; 3]);
        }
    }

    #[test]
    fn scores_of_any_size_are_safe() {
        let x = Var::constant(Tensor::from([[1e3_f32], [-1e3]]));
        let y = x.scaled_dot_product_attention(&x, &x, &AttentionOptions::default()).unwrap();
        assert_eq!(y.value().to_vec(), [1e3, -1e3]);
        let nan = Var::constant(Tensor::from([[f32::NAN], [0.0]]));
        let y = nan.scaled_dot_product_attention(&x, &x, &AttentionOptions::default()).unwrap();
        assert!(y.value().to_vec()[0].is_nan() && y.value().to_vec()[1] == 0.0);
    }

    #[test]
    fn rejects_what_does_not_fit() {
        let z = |shape: &[usize]| Var::constant(Tensor::<f64>::zeros(shape).unwrap());
        let text = |q: &[usize], k: &[usize], v: &[usize], options: &AttentionOptions<f64>| {
            z(q).scaled_dot_product_attention(&z(k), &z(v), options).unwrap_err().to_string()
        };
        let plain = AttentionOptions::default();
        let op = "scaled_dot_product_attention";
        assert_eq!(
            text(&[3, 2], &[4, 3], &[4, 2], &plain),
            format!("{op}: inner dimensions differ: [3, 2] × [4, 3]")
        );
        assert!(text(&[3, 2], &[4, 2], &[3, 2], &plain).contains("inner dimensions"));
        assert!(text(&[2], &[4, 2], &[4, 2], &plain).contains("expected [.., L, E]"));
        assert!(text(&[2, 3, 2], &[3, 4, 2], &[4, 2], &plain).contains("shapes do not match"));
        // A mask may not add dims of its own.
        for shape in [&[2, 4][..], &[1, 3, 4], &[4, 3]] {
            let masks = [
                AttentionMask::Add(z(shape)),
                AttentionMask::Keep(Tensor::full(shape, true).unwrap()),
            ];
            for mask in masks {
                let options = AttentionOptions { mask: Some(mask), ..plain.clone() };
                assert!(text(&[3, 2], &[4, 2], &[4, 2], &options).starts_with(op));
            }
        }
    }
}
