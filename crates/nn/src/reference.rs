//! The losses as their definitions say, in `f64`, one row or element at a time: slow, short, and
//! written apart from the kernels, so that tests can hold those against them. Not for training: they
//! panic where lengths, classes or ranks do not fit.
//!
//! ```
//! use nn::reference;
//! let x = [1.0, 2.0, 3.0];
//! // H(q, p) = −Σ q·ln p, with a one-hot q, is the log-sum-exp less the target's logit.
//! let h = reference::expected(&[0.0, 0.0, 1.0], &reference::log_softmax(&x));
//! assert!((h - (x.iter().map(|v: &f64| v.exp()).sum::<f64>().ln() - 3.0)).abs() < 1e-15);
//! ```

use autograd::{ClassOptions, EmptyMean, Error, Reduction, Result, Target, Tensor};

/// `ln Σ exp(x_k)`: the largest, and `ln(1 + Σ exp(x_k − largest))` over the others.
pub fn logsumexp(x: &[f64]) -> f64 {
    let (top, others) = split(x);
    top + others.ln_1p()
}

/// `x_k − ln Σ exp(x_j)`. Of the largest entry the logarithm is left, with all its digits.
pub fn log_softmax(x: &[f64]) -> Vec<f64> {
    let (top, others) = split(x);
    x.iter().map(|v| (v - top) - others.ln_1p()).collect()
}

/// The largest entry, and the sum of the exponentials of the others, in units of its own.
fn split(x: &[f64]) -> (f64, f64) {
    let top = (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap_or(0);
    let others = x.iter().enumerate().filter(|&(k, _)| k != top);
    (x[top], others.map(|(_, v)| (v - x[top]).exp()).sum())
}

/// `exp(x_k)/Σ exp(x_j)`.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    log_softmax(x).into_iter().map(f64::exp).collect()
}

/// `−Σ c_k·l_k`: for probabilities c and log-probabilities l the cross entropy. A term of coefficient
/// 0 is 0, whatever l is.
pub fn expected(c: &[f64], l: &[f64]) -> f64 {
    -c.iter().zip(l).map(|(&c, &l)| if c == 0.0 { 0.0 } else { c * l }).sum::<f64>()
}

/// The entropy `−Σ p·ln p` of `p = softmax(x)`.
pub fn entropy(x: &[f64]) -> f64 {
    expected(&softmax(x), &log_softmax(x))
}

/// `Σ q·(ln q − l)`, where terms of q = 0 are 0.
pub fn kl_div(l: &[f64], q: &[f64]) -> f64 {
    let term = |(&l, &q): (&f64, &f64)| if q == 0.0 { 0.0 } else { q * (q.ln() - l) };
    l.iter().zip(q).map(term).sum()
}

/// `τ²·KL(softmax(t/τ) ‖ softmax(x/τ))` of one row.
pub fn distillation_loss(x: &[f64], teacher: &[f64], temperature: f64) -> f64 {
    let scaled = |x: &[f64]| x.iter().map(|v| v / temperature).collect::<Vec<_>>();
    temperature.powi(2) * kl_div(&log_softmax(&scaled(x)), &softmax(&scaled(teacher)))
}

/// `(1−p_y)^γ·(−ln p_y)` of one row.
pub fn focal_loss(x: &[f64], class: usize, gamma: f64) -> f64 {
    let others = softmax(x).iter().enumerate().filter(|(k, _)| *k != class).map(|(_, p)| p).sum();
    f64::powf(others, gamma) * -log_softmax(x)[class]
}

/// `−ln p_y + ε·(1−p_y)` of one row.
pub fn poly_loss(x: &[f64], class: usize, epsilon: f64) -> f64 {
    -log_softmax(x)[class] + epsilon * (1.0 - softmax(x)[class])
}

/// `ln(1 + eˣ)`.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `(1−t)·softplus(x) + w₊·t·softplus(−x)`, where a side of coefficient 0 is 0.
pub fn binary_cross_entropy_with_logits(x: f64, t: f64, pos_weight: f64) -> f64 {
    let side = |c: f64, x: f64| if c == 0.0 { 0.0 } else { c * softplus(x) };
    side(1.0 - t, x) + side(pos_weight * t, -x)
}

/// `−(1−t)·ln(1−x) − w₊·t·ln x`, where a side of coefficient 0 is 0.
pub fn binary_cross_entropy(x: f64, t: f64, pos_weight: f64) -> f64 {
    expected(&[1.0 - t, pos_weight * t], &[(-x).ln_1p(), x.ln()])
}

/// `α_t·(1−p_t)^γ·bce`; α_t is 1 without α.
pub fn sigmoid_focal_loss(x: f64, t: f64, gamma: f64, alpha: Option<f64>) -> f64 {
    let sigmoid = |x: f64| (-softplus(-x)).exp();
    let miss = t * sigmoid(-x) + (1.0 - t) * sigmoid(x);
    let alpha = alpha.map_or(1.0, |a| a * t + (1.0 - a) * (1.0 - t));
    alpha * miss.powf(gamma) * binary_cross_entropy_with_logits(x, t, 1.0)
}

/// `d²`.
pub fn mse_loss(d: f64) -> f64 {
    d * d
}

/// `|d|`.
pub fn l1_loss(d: f64) -> f64 {
    d.abs()
}

/// `d²/2` up to δ, then `δ·(|d| − δ/2)`.
pub fn huber_loss(d: f64, delta: f64) -> f64 {
    if d.abs() <= delta { d * d / 2.0 } else { delta * (d.abs() - delta / 2.0) }
}

/// `d²/(2β)` up to β, then `|d| − β/2`; β = 0 is `|d|`.
pub fn smooth_l1_loss(d: f64, beta: f64) -> f64 {
    if d.abs() < beta { d * d / (2.0 * beta) } else { d.abs() - beta / 2.0 }
}

/// Cross entropy with its options, and its first two derivatives, row by row.
///
/// With `q'` the smoothed target and w the weights of the classes, a row has coefficients
/// `c_k = w_k·q'_k`, for class indices `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k`, which is the same but for
/// the weight. Then its loss is `−Σ c_k·ln p_k + λ·lse²`, times its own weight r.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    rows: Vec<Row>,
    /// Shape of the logits, and the place of the class dim in it.
    shape: Vec<usize>,
    dim: usize,
    per_row: bool,
    /// What the losses of the rows become where there is nothing to average.
    empty: Option<f64>,
    z_loss: f64,
}

#[derive(Clone, Debug)]
struct Row {
    x: Vec<f64>,
    c: Vec<f64>,
    counts: bool,
    /// r over the divisor, for cross entropy and for the part of λ.
    share: f64,
    z_share: f64,
}

impl CrossEntropy {
    /// Looks at every row. What is not valid is left to the operation itself to say.
    ///
    /// # Errors
    /// Those of reshaping; [`Error::InvalidArgument`] where the mean over nothing was asked to be one.
    pub fn new(
        logits: &Tensor<f64>,
        target: &Target<'_, f64>,
        row_weight: Option<&Tensor<f64>>,
        options: &ClassOptions<f64>,
    ) -> Result<Self> {
        let dim = usize::from(logits.rank() > 1);
        let classes = logits.shape()[dim];
        let by_row = |x: &Tensor<f64>| -> Result<Vec<Vec<f64>>> {
            let last = x.unsqueeze(-1)?.transpose(dim as isize, -1)?.to_vec();
            Ok(last.chunks_exact(classes.max(1)).map(<[f64]>::to_vec).collect())
        };
        let weight = options.weight.as_ref().map(Tensor::to_vec);
        let weight = |k: usize| weight.as_ref().map_or(1.0, |w| w[k]);
        let (eps, own) = (options.label_smoothing, row_weight.map(Tensor::to_vec));
        let x = by_row(logits)?;
        let targets = match target {
            Target::Classes(t) => t.to_vec().into_iter().map(Some).collect(),
            Target::Probabilities(_) => vec![None; x.len()],
        };
        let q = match target {
            Target::Classes(_) => x.clone(),
            Target::Probabilities(q) => by_row(q.value())?,
        };
        let (mut rows, mut weights, mut number) = (Vec::new(), 0.0, 0.0);
        for (n, x) in x.into_iter().enumerate() {
            let r = own.as_ref().map_or(1.0, |own| own[n]);
            let ignored = targets[n].is_some_and(|y| options.ignore_index == Some(y));
            let counted = |k: usize| !options.smooth_over_finite || x[k] != f64::NEG_INFINITY;
            let among = (0..classes).filter(|&k| counted(k)).count() as f64;
            let coefficient = |k: usize| {
                // NaN where nothing is finite.
                let uniform = if counted(k) { eps / among } else { 0.0 / among };
                match targets[n] {
                    Some(y) => {
                        let hard = if y == k as i64 { (1.0 - eps) * weight(k) } else { 0.0 };
                        hard + uniform * weight(k)
                    }
                    None => weight(k) * ((1.0 - eps) * q[n][k] + uniform),
                }
            };
            let c: Vec<f64> =
                (0..classes).map(|k| if ignored { 0.0 } else { coefficient(k) }).collect();
            let counts = r != 0.0 && c.iter().any(|&c| c != 0.0);
            if r != 0.0 && !ignored {
                weights += r * targets[n].map_or(1.0, |y| weight(y as usize));
            }
            if counts {
                number += r;
            }
            rows.push(Row { x, c, counts, share: r, z_share: r });
        }
        let (divisor, z_divisor) = match options.reduction {
            Reduction::None | Reduction::Sum => (1.0, 1.0),
            Reduction::Mean => (weights, number),
            Reduction::Divisor(d) => (d, d),
        };
        let inverse = |d: f64| if d == 0.0 || divisor == 0.0 { 0.0 } else { 1.0 / d };
        for row in &mut rows {
            row.share *= inverse(divisor);
            row.z_share *= inverse(z_divisor);
        }
        let empty = match options.empty_mean {
            _ if divisor != 0.0 => None,
            EmptyMean::Nan => Some(f64::NAN),
            EmptyMean::Zero => Some(0.0),
            EmptyMean::Error => {
                let reason = "has no row that counts".into();
                let (op, name) = ("cross_entropy", "target");
                return Err(Error::InvalidArgument { op, name, reason });
            }
        };
        let per_row = options.reduction == Reduction::None;
        let (shape, z_loss) = (logits.shape().to_vec(), options.z_loss);
        Ok(CrossEntropy { rows, shape, dim, per_row, empty, z_loss })
    }

    /// The loss: one number, or one for each row.
    pub fn loss(&self) -> Vec<f64> {
        let of_row = |row: &Row| {
            if !row.counts || row.share == 0.0 {
                return 0.0;
            }
            let z_loss = self.z_loss * logsumexp(&row.x).powi(2);
            let z_loss = if self.z_loss == 0.0 { 0.0 } else { row.z_share * z_loss };
            row.share * expected(&row.c, &log_softmax(&row.x)) + z_loss
        };
        let rows = self.rows.iter().map(of_row);
        if self.per_row {
            rows.collect()
        } else {
            vec![rows.sum::<f64>() + self.empty.unwrap_or(0.0)]
        }
    }

    /// Its gradient in the logits: `s·(a·p − c) + 2λs'·lse·p`, for this upstream gradient.
    ///
    /// # Errors
    /// Those of reshaping.
    pub fn gradient(&self, upstream: &[f64]) -> Result<Tensor<f64>> {
        self.like_logits(|row, n| {
            let (p, a) = (softmax(&row.x), row.c.iter().sum::<f64>());
            let s = row.share * self.of(upstream, n);
            let t = 2.0 * self.z_loss * row.z_share * self.of(upstream, n) * logsumexp(&row.x);
            (0..p.len()).map(|k| s * (a * p[k] - row.c[k]) + t * p[k]).collect()
        })
    }

    /// Its Hessian in the logits times v: `s·a·p∘(v − ⟨p, v⟩)`, besides what comes from λ.
    ///
    /// # Errors
    /// Those of reshaping.
    pub fn hessian_vector(&self, upstream: &[f64], v: &Tensor<f64>) -> Result<Tensor<f64>> {
        let v = v.unsqueeze(-1)?.transpose(self.dim as isize, -1)?.to_vec();
        self.like_logits(|row, n| {
            let (p, a) = (softmax(&row.x), row.c.iter().sum::<f64>());
            let v = &v[n * p.len()..][..p.len()];
            let mean: f64 = p.iter().zip(v).map(|(p, v)| p * v).sum();
            let s = row.share * self.of(upstream, n);
            let t = 2.0 * self.z_loss * row.z_share * self.of(upstream, n);
            let lse = logsumexp(&row.x);
            let of = |k: usize| {
                let centred = v[k] - mean;
                p[k] * (s * a * centred + t * (lse * centred + mean))
            };
            (0..p.len()).map(of).collect()
        })
    }

    /// The magnitude of the terms of [`CrossEntropy::gradient`], `s·(a·p + c) + 2λs'·(|lse| + 1)·p`:
    /// its rounding errors are a few units of it.
    ///
    /// # Errors
    /// Those of reshaping.
    pub fn gradient_scale(&self, upstream: &[f64]) -> Result<Tensor<f64>> {
        self.like_logits(|row, n| {
            let (p, a) = (softmax(&row.x), row.c.iter().map(|c| c.abs()).sum::<f64>());
            let s = (row.share * self.of(upstream, n)).abs();
            let t = 2.0 * self.z_loss * row.z_share * self.of(upstream, n);
            let t = t.abs() * (logsumexp(&row.x).abs() + 1.0);
            (0..p.len()).map(|k| s * (a * p[k] + row.c[k].abs()) + t * p[k]).collect()
        })
    }

    /// The magnitude of the terms of [`CrossEntropy::hessian_vector`].
    ///
    /// # Errors
    /// Those of reshaping.
    pub fn hessian_scale(&self, upstream: &[f64], v: &Tensor<f64>) -> Result<Tensor<f64>> {
        let v = v.abs().unsqueeze(-1)?.transpose(self.dim as isize, -1)?.to_vec();
        self.like_logits(|row, n| {
            let (p, a) = (softmax(&row.x), row.c.iter().map(|c| c.abs()).sum::<f64>());
            let v = &v[n * p.len()..][..p.len()];
            let mean: f64 = p.iter().zip(v).map(|(p, v)| p * v).sum();
            let g = self.of(upstream, n).abs();
            let t = 2.0 * self.z_loss * (row.z_share * g).abs() * (logsumexp(&row.x).abs() + 1.0);
            (0..p.len()).map(|k| p[k] * ((row.share * g).abs() * a + t) * (v[k] + mean)).collect()
        })
    }

    fn of(&self, upstream: &[f64], row: usize) -> f64 {
        upstream[if self.per_row { row } else { 0 }]
    }

    /// A tensor in the shape of the logits from its rows; rows that do not count are 0.
    fn like_logits(&self, row: impl Fn(&Row, usize) -> Vec<f64>) -> Result<Tensor<f64>> {
        let rows = self
            .rows
            .iter()
            .enumerate()
            .flat_map(|(n, r)| if r.counts { row(r, n) } else { vec![0.0; r.x.len()] });
        let mut shape = self.shape.clone();
        shape.push(1);
        shape.swap(self.dim, self.shape.len());
        let rows = Tensor::from_vec(rows.collect(), shape)?;
        Ok(rows.transpose(self.dim as isize, -1)?.squeeze(-1)?.contiguous())
    }
}
