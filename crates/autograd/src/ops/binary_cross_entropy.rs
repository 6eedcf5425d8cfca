//! Losses of yes-or-no questions: each element is one, with a target t in [0, 1].

use tensor::{Error, Float, Result, Tensor};

use super::class_loss::Reduction;
use super::cross_entropy::Times;
use super::regression::{not_negative, same_shape};
use crate::tape::{Save, record};
use crate::var::Var;

/// Beyond this logit a sigmoid is 0 or 1 in every type.
const FAR: f64 = 800.0;

/// Options of [`Var::binary_cross_entropy_with_logits`] and [`Var::binary_cross_entropy`].
#[derive(Clone, Debug)]
pub struct BinaryOptions<T: Float> {
    /// A factor for each element; its shape broadcasts to the input's. Finite and not negative; an
    /// element of factor 0 is not read.
    pub weight: Option<Tensor<T>>,
    /// A factor for the positive part, as `weight`: above 1 it raises recall, below precision.
    pub pos_weight: Option<Tensor<T>>,
    /// What becomes of the elements' losses. A mean divides by their number.
    pub reduction: Reduction,
}

impl<T: Float> Default for BinaryOptions<T> {
    fn default() -> Self {
        BinaryOptions { weight: None, pos_weight: None, reduction: Reduction::Mean }
    }
}

impl<T: Float> BinaryOptions<T> {
    /// Checks all that can be checked without an input.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming `op` and the option.
    pub fn validate(&self, op: &'static str) -> Result<()> {
        self.reduction.validate(op)?;
        for (name, weight) in [("weight", &self.weight), ("pos_weight", &self.pos_weight)] {
            let values = weight.iter().flat_map(Tensor::to_vec);
            if let Some(w) = values.map(T::to_f64).find(|w| !(*w >= 0.0 && w.is_finite())) {
                let reason = format!("must be finite and not negative, found {w}");
                return Err(Error::InvalidArgument { op, name, reason });
            }
        }
        Ok(())
    }
}

impl<T: Float> Var<T> {
    /// Binary cross entropy of logits: `(1−t)·softplus(x) + w₊·t·softplus(−x)`, in nats.
    ///
    /// # Shape
    /// x and t of the same shape; weights broadcast to it. The result has it too, or rank 0.
    ///
    /// # Gradient
    /// `dx = g·((1−t)·σ(x) − w₊·t·σ(−x))`, `dt = g·(w₊·softplus(−x) − softplus(x))`. Saves x and t. Any
    /// order.
    ///
    /// # Numerics
    /// Both sides are computed apart, so that confident elements keep their digits (PyTorch gives
    /// loss 0 at x = −20, t = 0, and gradient 0 at x = 20, t = 1), and a side of coefficient 0 is 0
    /// even at an infinite logit (PyTorch: NaN).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`]; [`Error::InvalidArgument`] for options; [`Error::MixedTapes`].
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor, Var};
    /// let x = Tape::new().var(Tensor::from([-20.0_f32, 20.0]));
    /// let t = Var::constant(Tensor::from([0.0_f32, 1.0]));
    /// let loss = x.binary_cross_entropy_with_logits(&t, &Default::default())?;
    /// assert!((loss.item()? / 2.061_153_6e-9 - 1.0).abs() < 1e-6);
    /// let dx = loss.backward()?.wrt(&x)?.to_vec();
    /// assert!(dx[0] > 1e-9 && dx[1] < -1e-9);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.binary_cross_entropy_with_logits`.
    #[doc(alias = "bce_with_logits")]
    #[track_caller]
    pub fn binary_cross_entropy_with_logits(
        &self,
        target: &Self,
        options: &BinaryOptions<T>,
    ) -> Result<Self> {
        let op = "binary_cross_entropy_with_logits";
        let (read, positive) = self.checked_binary(op, target, options)?;
        let y = read.value().zip3::<T, LogitLoss>(op, target.value(), &positive)?;
        let saved = [Save::Input(&read), Save::Input(target)];
        let y = record(op, [read.node(), target.node()], saved, y, move |ctx, g, sink| {
            let (x, t) = (ctx.saved(0), ctx.saved(1));
            let w = Var::constant(positive.clone());
            if ctx.needs(1) {
                sink.add(1, &g * ((-&x).logsigmoid() - x.logsigmoid().times(&w)?))?;
            }
            if !ctx.needs(0) {
                return Ok(());
            }
            if !ctx.create_graph() {
                let slope = x.value().zip3::<T, LogitSlope>(op, t.value(), &positive)?;
                return sink.add(0, g * Var::constant(slope));
            }
            let slope = (-&t + T::ONE) * x.sigmoid() - t * w * (-x).sigmoid();
            sink.add(0, g * slope)
        })?;
        y.weighted(op, options.weight.as_ref())?.reduced(op, options.reduction)
    }

    /// Binary cross entropy of probabilities x: `−(1−t)·ln(1−x) − w₊·t·ln x`, in nats. For logits
    /// [`Var::binary_cross_entropy_with_logits`] is exact where a rounded probability has lost its
    /// digits.
    ///
    /// # Shape
    /// As there.
    ///
    /// # Gradient
    /// `dx = g·((1−t)/(1−x) − w₊·t/x)`, `dt = g·(ln(1−x) − w₊·ln x)`. A side of coefficient 0 is 0. Saves
    /// x and t. Any order.
    ///
    /// # Numerics
    /// At x = 0 with t > 0 the loss is ∞, as it should be; PyTorch holds the logarithm at −100, so that
    /// in f64 all of 1e-44 and below costs the same, and has gradient 0 there.
    ///
    /// # Errors
    /// As there; [`Error::InvalidArgument`] for an x outside [0, 1].
    ///
    /// # Reference
    /// `torch.nn.functional.binary_cross_entropy`.
    #[track_caller]
    pub fn binary_cross_entropy(&self, target: &Self, options: &BinaryOptions<T>) -> Result<Self> {
        let op = "binary_cross_entropy";
        let (read, positive) = self.checked_binary(op, target, options)?;
        let outside = |x: &T| *x < T::ZERO || *x > T::ONE;
        if let Some(x) = read.value().to_vec().into_iter().find(outside) {
            let reason = format!("must be probabilities in [0, 1], found {x:?}");
            return Err(Error::InvalidArgument { op, name: "input", reason });
        }
        let y = read.value().zip3::<T, ProbabilityLoss>(op, target.value(), &positive)?;
        let saved = [Save::Input(&read), Save::Input(target)];
        let y = record(op, [read.node(), target.node()], saved, y, move |ctx, g, sink| {
            let (x, t) = (ctx.saved(0), ctx.saved(1));
            let (rest, w) = (-&x + T::ONE, Var::constant(positive.clone()));
            if ctx.needs(1) {
                sink.add(1, &g * ((-&x).log1p() - x.log().times(&w)?))?;
            }
            if ctx.needs(0) {
                // Divisors of sides that do not count are replaced: no 0/0.
                let (u, t) = (-&t + T::ONE, t * w);
                let x = x.masked_fill(&t.value().eq(T::ZERO)?, T::ONE)?;
                let rest = rest.masked_fill(&u.value().eq(T::ZERO)?, T::ONE)?;
                sink.add(0, g * (u / rest - t / x))?;
            }
            Ok(())
        })?;
        y.weighted(op, options.weight.as_ref())?.reduced(op, options.reduction)
    }

    /// Focal loss of logits: `α_t·(1−p_t)^γ·bce` with `p_t` the probability of the target and
    /// `α_t = α·t + (1−α)·(1−t)`; without α it is 1. RetinaNet has γ = 2, α = ¼. (For γ strictly
    /// between 0 and 1 the second derivative holds `(1−p_t)^(γ−2)`, which may overflow for an element
    /// that is certain.)
    ///
    /// # Shape
    /// As [`Var::binary_cross_entropy_with_logits`].
    ///
    /// # Gradient
    /// For t of 0 or 1 `dx = g·α_t·(2t−1)·(1−p_t)^γ·(γ·p_t·ln p_t + p_t − 1)`; dt that of the formula.
    /// Any order.
    ///
    /// # Errors
    /// As there; [`Error::InvalidArgument`] for a negative γ or an α outside [0, 1].
    ///
    /// # Reference
    /// Lin et al., arXiv 1708.02002. Not in `torch.nn`; torchvision calls it by the same name.
    #[track_caller]
    pub fn sigmoid_focal_loss(
        &self,
        target: &Self,
        gamma: f64,
        alpha: Option<f64>,
        reduction: Reduction,
    ) -> Result<Self> {
        let op = "sigmoid_focal_loss";
        not_negative(op, "gamma", gamma)?;
        if let Some(alpha) = alpha.filter(|a| !(0.0..=1.0).contains(a)) {
            let reason = format!("must be in [0, 1], found {alpha}");
            return Err(Error::InvalidArgument { op, name: "alpha", reason });
        }
        same_shape(op, self.value(), target.value())?;
        let each = BinaryOptions { reduction: Reduction::None, ..Default::default() };
        let mut loss = self.binary_cross_entropy_with_logits(target, &each)?;
        let against = -target + T::ONE;
        if gamma != 0.0 {
            // Farther out the factor is 0 or 1: its derivative, times an infinite loss, must be 0.
            let x = self.clamp(-T::from_f64(FAR), T::from_f64(FAR))?;
            let miss = (-&x).sigmoid() * target + x.sigmoid() * &against;
            loss = loss * miss.focal_factor(gamma)?;
        }
        if let Some(alpha) = alpha {
            let (a, b) = (T::from_f64(alpha), T::from_f64(1.0 - alpha));
            loss = loss.times(&(target * a + against * b))?;
        }
        loss.reduced(op, reduction)
    }

    /// `xᵞ` for x in [0, 1], whose derivatives at 0 are 0: there it is multiplied by a loss of 0.
    #[track_caller]
    pub(super) fn focal_factor(&self, gamma: f64) -> Result<Self> {
        let single = size_of::<T>() == 4;
        let tiny = if single { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
        self.clamp_min(T::from_f64(tiny))?.pow(T::from_f64(gamma))
    }

    /// Checks the operands. The input, with 1/2 in the place of elements that do not count, and the
    /// weight of the positive side, as a tensor that broadcasts.
    #[track_caller]
    fn checked_binary(
        &self,
        op: &'static str,
        target: &Self,
        options: &BinaryOptions<T>,
    ) -> Result<(Self, Tensor<T>)> {
        options.validate(op)?;
        same_shape(op, self.value(), target.value())?;
        for weight in [&options.weight, &options.pos_weight].into_iter().flatten() {
            if weight.expand(self.shape()).is_err() {
                let (lhs, rhs) = (self.shape().to_vec(), weight.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
        }
        let read = match &options.weight {
            Some(w) if w.to_vec().contains(&T::ZERO) => {
                let none = w.eq(T::ZERO)?.expand(self.shape())?;
                self.masked_fill(&none, T::from_f64(0.5))?
            }
            _ => self.clone(),
        };
        Ok((read, options.pos_weight.clone().unwrap_or_else(|| Tensor::scalar(T::ONE))))
    }

    #[track_caller]
    fn weighted(self, op: &'static str, weight: Option<&Tensor<T>>) -> Result<Self> {
        weight.map_or(Ok(self.clone()), |w| self.gate::<Times>(op, w))
    }
}

/// `c·y`, where a coefficient of 0 makes 0 of any y.
#[inline(always)]
fn side<T: Float>(c: T, y: T) -> T {
    if c == T::ZERO { T::ZERO } else { c * y }
}

kernels! { Zip3(x: T, t: T, w: T) -> T:
    LogitLoss = {
        let rest = (-x.abs()).vexp::<FMA>().vlog1p::<FMA>();
        let zero = T::ZERO;
        // Written so that NaN stays NaN.
        let no = if x < zero { zero } else { x } + rest;
        let yes = if x > zero { zero } else { -x } + rest;
        side(T::ONE - t, no) + side(w * t, yes)
    };
    LogitSlope = {
        let no = side(T::ONE - t, x.vsigmoid::<FMA>());
        no - side(w * t, (-x).vsigmoid::<FMA>())
    };
    ProbabilityLoss = {
        let no = side(t - T::ONE, (-x).vlog1p::<FMA>());
        no - side(w * t, x.vlog::<FMA>())
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let mut rows = Vec::new();
    let (weight, pos_weight) =
        (Tensor::from([0.5, 0.0, 2.0, 1.25]), Tensor::from([3.0, 1.0, 0.0, 0.5]));
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(2.5)] {
        for weighted in [false, true] {
            let o = BinaryOptions {
                weight: weighted.then(|| weight.clone()),
                pos_weight: weighted.then(|| pos_weight.clone()),
                reduction,
            };
            for shape in [&[4][..], &[3, 4], &[0, 4]] {
                let (of_logits, of_probabilities) = (o.clone(), o.clone());
                let name = "binary_cross_entropy_with_logits";
                rows.push(Row::of(name, &[shape, shape], move |x| {
                    x[0].binary_cross_entropy_with_logits(&x[1], &of_logits)
                }));
                let f = move |x: &[Var<f64>]| x[0].binary_cross_entropy(&x[1], &of_probabilities);
                rows.push(Row::of("binary_cross_entropy", &[shape, shape], f).between(0.05, 0.95));
            }
        }
        for (gamma, alpha) in [(0.0, None), (2.0, Some(0.25)), (0.5, Some(1.0)), (1.0, None)] {
            let f = move |x: &[Var<f64>]| x[0].sigmoid_focal_loss(&x[1], gamma, alpha, reduction);
            rows.push(Row::of("sigmoid_focal_loss", &[&[3, 4], &[3, 4]], f).between(0.0, 1.0));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn run<T: Float>(
        f: impl Fn(&Var<T>, &Var<T>) -> Result<Var<T>>,
        x: &[f64],
        t: &[f64],
    ) -> (Vec<f64>, Vec<f64>) {
        let tensor = |v: &[f64]| {
            Tensor::from_vec(v.iter().map(|&v| T::from_f64(v)).collect(), [v.len()]).unwrap()
        };
        let (x, t) = (Tape::new().var(tensor(x)), Var::constant(tensor(t)));
        let y = f(&x, &t).unwrap();
        let dx = y.sum().backward().unwrap().wrt(&x).unwrap().to_vec();
        let floats = |v: Vec<T>| v.into_iter().map(T::to_f64).collect::<Vec<_>>();
        (floats(y.value().to_vec()), floats(dx))
    }

    fn each<T: Float>() -> BinaryOptions<T> {
        BinaryOptions { reduction: Reduction::None, ..Default::default() }
    }

    fn check_logits<T: Float>(bound: f64) {
        let inf = f64::INFINITY;
        // Confident and right, confident and wrong, undecided, infinite.
        let x = [-20.0, 20.0, 80.0, -80.0, 0.0, inf, -inf, inf, -inf];
        let t = [0.0, 1.0, 1.0, 1.0, 0.25, 1.0, 0.0, 0.0, 1.0];
        let (y, dx) = run::<T>(|x, t| x.binary_cross_entropy_with_logits(t, &each()), &x, &t);
        let small = |x: f64| (-x).exp().ln_1p();
        let want = [small(20.0), small(20.0), small(80.0), 80.0, 2.0_f64.ln(), 0.0, 0.0, inf, inf];
        for (y, want) in y.iter().zip(want) {
            assert!(*y == want || (y / want - 1.0).abs() < bound, "{y:e} {want:e}");
        }
        let s = |x: f64| 1.0 / (1.0 + x.exp());
        let want = [s(20.0), -s(20.0), -s(80.0), -1.0, 0.25, 0.0, 0.0, 1.0, -1.0];
        for (dx, want) in dx.iter().zip(want) {
            assert!(*dx == want || (dx / want - 1.0).abs() < bound, "{dx:e} {want:e}");
        }
    }

    #[test]
    fn confident_elements_keep_their_digits_and_infinite_ones_are_no_nan() {
        check_logits::<f32>(4.0 * 2.0_f64.powi(-24));
        check_logits::<f64>(4.0 * 2.0_f64.powi(-53));
    }

    #[test]
    fn elements_of_weight_zero_do_not_count() {
        let (nan, weight) = (f64::NAN, Some(Tensor::from([0.0, 1.0])));
        for bad in [nan, f64::INFINITY, 0.0, 1.0] {
            let tape = Tape::new();
            let x = tape.var(Tensor::from([bad, 0.5]));
            let t = tape.var(Tensor::from([1.0, 1.0]));
            let o = BinaryOptions { weight: weight.clone(), ..each() };
            let logits = x.binary_cross_entropy_with_logits(&t, &o).unwrap();
            for loss in [logits, x.binary_cross_entropy(&t, &o).unwrap()] {
                let g = crate::grad(&[&loss.sum()], &[&x, &t], &[], true).unwrap();
                let of = |i: usize| g[i].as_ref().unwrap().value().to_vec();
                assert!(of(0)[0] == 0.0 && of(1)[0] == 0.0, "{bad}: {:?} {:?}", of(0), of(1));
            }
        }
        let o = BinaryOptions { pos_weight: Some(Tensor::scalar(0.0)), ..each() };
        let tape = Tape::new();
        let (x, t) = (tape.var(Tensor::from([0.0])), tape.var(Tensor::from([1.0])));
        let loss = x.binary_cross_entropy(&t, &o).unwrap();
        let grads = loss.sum().backward().unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0]);
        assert_eq!(grads.wrt(&t).unwrap().to_vec(), [0.0]);
        let o = BinaryOptions { weight, ..each() };
        let (y, dx) = run::<f64>(
            |x, t| x.binary_cross_entropy_with_logits(t, &o),
            &[f64::INFINITY, 0.0],
            &[0.0, 1.0],
        );
        assert_eq!((y, dx), (vec![0.0, 2.0_f64.ln()], vec![0.0, -0.5]));
        let (y, _) =
            run::<f64>(|x, t| x.binary_cross_entropy_with_logits(t, &each()), &[nan], &[0.5]);
        assert!(y[0].is_nan());
    }

    #[test]
    fn probabilities_of_zero_and_one() {
        let inf = f64::INFINITY;
        let f = |x: &Var<f64>, t: &Var<f64>| x.binary_cross_entropy(t, &each());
        let (y, dx) = run(f, &[0.0, 1.0, 1.0, 0.0, 1e-60], &[0.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(y[..4], [0.0, 0.0, inf, inf]);
        assert!((y[4] - 60.0 * 10.0_f64.ln()).abs() < 1e-13);
        assert_eq!(dx[..4], [1.0, -1.0, inf, -inf]);
    }

    #[test]
    fn focal_loss_of_certain_elements_has_no_nan() {
        let f = |x: &Var<f64>, t: &Var<f64>| x.sigmoid_focal_loss(t, 2.0, None, Reduction::None);
        let inf = f64::INFINITY;
        assert_eq!(run(f, &[-inf, inf], &[1.0, 1.0]), (vec![inf, 0.0], vec![-1.0, 0.0]));
        let f =
            |x: &Var<f64>, t: &Var<f64>| x.sigmoid_focal_loss(t, 0.0, Some(0.0), Reduction::None);
        assert_eq!(run(f, &[-inf], &[1.0]).0, [0.0]);
        for gamma in [0.0, 0.5, 1.0, 2.0] {
            let f = |x: &Var<f32>, t: &Var<f32>| {
                x.sigmoid_focal_loss(t, gamma, Some(0.25), Reduction::None)
            };
            let (y, dx) = run(f, &[200.0, -200.0, 0.0], &[1.0, 0.0, 1.0]);
            assert_eq!((&y[..2], &dx[..2]), (&[0.0; 2][..], &[0.0; 2][..]));
            let want = 0.25 * 0.5_f64.powf(gamma) * 2.0_f64.ln();
            assert!((y[2] / want - 1.0).abs() < 1e-6);
            let p = 0.5_f64;
            let want = 0.25 * p.powf(gamma) * (gamma * p * p.ln() + p - 1.0);
            assert!((dx[2] / want - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let x = Var::constant(Tensor::from([0.5, 1.5]));
        let t = Var::constant(Tensor::from([0.0, 1.0]));
        let text = |y: Result<Var<f64>>| y.unwrap_err().to_string();
        let o = BinaryOptions::default();
        assert_eq!(
            text(x.binary_cross_entropy(&t, &o)),
            "binary_cross_entropy: input must be probabilities in [0, 1], found 1.5"
        );
        let negative = BinaryOptions { pos_weight: Some(Tensor::from([1.0, -1.0])), ..o.clone() };
        assert_eq!(
            text(x.binary_cross_entropy_with_logits(&t, &negative)),
            "binary_cross_entropy_with_logits: pos_weight must be finite and not negative, found -1"
        );
        let long = BinaryOptions { weight: Some(Tensor::from([1.0; 3])), ..o.clone() };
        assert!(text(x.binary_cross_entropy_with_logits(&t, &long)).contains("[2] and [3]"));
        let one = Var::constant(Tensor::from([1.0]));
        assert!(text(x.binary_cross_entropy_with_logits(&one, &o)).contains("[2] and [1]"));
        let r = Reduction::Mean;
        assert!(text(x.sigmoid_focal_loss(&t, -1.0, None, r)).contains("gamma"));
        assert!(
            text(x.sigmoid_focal_loss(&t, 1.0, Some(1.5), r)).contains("alpha must be in [0, 1]")
        );
    }
}
