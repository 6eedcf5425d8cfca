//! What the losses on classes share: options, targets, and how the losses of rows become one.

use std::borrow::Cow;

use tensor::kernels::softmax::LossRow;
use tensor::{Error, Float, Result, Shape, Tensor};

use crate::var::Var;

/// How the losses of the rows become one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// No reduction: one loss for each row.
    None,
    /// The sum over the rows, divided by the sum of the weights of their targets (their number,
    /// without weights). What it is where that is 0 says [`EmptyMean`]; its gradient is then 0.
    #[default]
    Mean,
    /// The sum over the rows.
    Sum,
    /// The sum over the rows, divided by this number: for a mean over several batches.
    Divisor(f64),
}

impl Reduction {
    pub(super) fn validate(self, op: &'static str) -> Result<()> {
        match self {
            Reduction::Divisor(d) if !(d.is_finite() && d > 0.0) => {
                let reason = format!("needs a positive, finite divisor, found {d}");
                Err(Error::InvalidArgument { op, name: "reduction", reason })
            }
            _ => Ok(()),
        }
    }
}

/// What a mean over nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyMean {
    /// NaN, as in PyTorch.
    #[default]
    Nan,
    /// 0.
    Zero,
    /// [`Error::InvalidArgument`].
    Error,
}

/// Options of [`Var::cross_entropy`] and [`Var::nll_loss`]; the defaults are PyTorch's.
#[derive(Clone, Debug)]
pub struct ClassOptions<T: Float> {
    /// A factor for each class, `[C]`; finite and not negative. A class of factor 0 stays in the
    /// softmax of the others; a row whose coefficients are all 0 does not count.
    pub weight: Option<Tensor<T>>,
    /// Rows with this target do not count: no loss, no gradient, not read.
    pub ignore_index: Option<i64>,
    /// What becomes of the rows' losses.
    pub reduction: Reduction,
    /// ε in [0, 1]: the target distribution is `(1−ε)·onehot + ε/C`.
    pub label_smoothing: f64,
    /// Spreads ε over the classes whose logit is above −∞ alone, instead of all: with masked classes
    /// the loss stays finite.
    pub smooth_over_finite: bool,
    /// λ ≥ 0: adds `λ·(ln Σ exp(x_j))²` for each row that counts, whatever the weights of the
    /// classes; a mean divides this part by the number of those rows. (PaLM, arXiv 2204.02311.)
    pub z_loss: f64,
    /// What a mean over nothing is.
    pub empty_mean: EmptyMean,
}

impl<T: Float> Default for ClassOptions<T> {
    fn default() -> Self {
        ClassOptions {
            weight: None,
            ignore_index: Some(-100),
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
            smooth_over_finite: false,
            z_loss: 0.0,
            empty_mean: EmptyMean::Nan,
        }
    }
}

impl<T: Float> ClassOptions<T> {
    /// Checks all that can be checked without an input.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming `op` and the option.
    pub fn validate(&self, op: &'static str) -> Result<()> {
        let invalid = |name, reason| Err(Error::InvalidArgument { op, name, reason });
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing;
            return invalid("label_smoothing", format!("must be in [0, 1], found {found}"));
        }
        if !(0.0..f64::INFINITY).contains(&self.z_loss) {
            let found = self.z_loss;
            return invalid("z_loss", format!("must be finite and not negative, found {found}"));
        }
        self.reduction.validate(op)?;
        if let Some(weight) = &self.weight {
            check_weight(op, weight)?;
        }
        Ok(())
    }
}

/// Checks the weights of classes.
pub(super) fn check_weight<T: Float>(op: &'static str, weight: &Tensor<T>) -> Result<()> {
    let [_] = weight.dims(op)?;
    for (class, w) in weight.to_vec().into_iter().enumerate() {
        if !(w >= T::ZERO && w < T::INFINITY) {
            let reason = format!("must be finite and not negative, found {w:?} for class {class}");
            return Err(Error::InvalidArgument { op, name: "weight", reason });
        }
    }
    Ok(())
}

/// What a row of logits should be: a class, or a probability for each.
#[derive(Clone, Debug)]
pub enum Target<'a, T: Float> {
    /// An index for each row, in the shape of the logits without the class dim.
    Classes(&'a Tensor<i64>),
    /// A probability for each class, in the shape of the logits; any numbers are taken, and a tracked
    /// variable receives a gradient.
    Probabilities(Cow<'a, Var<T>>),
}

impl<'a, T: Float> From<&'a Tensor<i64>> for Target<'a, T> {
    fn from(classes: &'a Tensor<i64>) -> Self {
        Target::Classes(classes)
    }
}

impl<'a, T: Float> From<&'a Var<T>> for Target<'a, T> {
    fn from(probabilities: &'a Var<T>) -> Self {
        Target::Probabilities(Cow::Borrowed(probabilities))
    }
}

// For each type by itself: for all of them at once it would overlap with that of the classes.
impl From<&Tensor<f32>> for Target<'_, f32> {
    fn from(probabilities: &Tensor<f32>) -> Self {
        Target::Probabilities(Cow::Owned(Var::constant(probabilities.clone())))
    }
}

impl From<&Tensor<f64>> for Target<'_, f64> {
    fn from(probabilities: &Tensor<f64>) -> Self {
        Target::Probabilities(Cow::Owned(Var::constant(probabilities.clone())))
    }
}

/// Weights that come with a batch, for [`Var::cross_entropy_detailed`].
#[derive(Clone, Copy, Debug)]
pub struct BatchWeights<'a, T: Float> {
    /// A factor for each row, in the shape of the class indices; any finite numbers. It multiplies the
    /// row's loss, and its part in the divisor of a mean. A row of factor 0 does not count, and is not
    /// read.
    pub row: Option<&'a Tensor<T>>,
    /// Weights of the classes that may receive a gradient, in the place of those of the options.
    pub class: Option<&'a Var<T>>,
}

impl<T: Float> Default for BatchWeights<'_, T> {
    fn default() -> Self {
        BatchWeights { row: None, class: None }
    }
}

/// A loss on classes, and what the same pass over the logits found besides.
#[derive(Clone, Debug)]
pub struct ClassLoss<T: Float> {
    /// The loss.
    pub loss: Var<T>,
    /// `ln Σ exp(x_k)` of each row, in the shape of the class indices; 0 where a row does not count.
    pub lse: Tensor<T>,
    /// The number of rows that count.
    pub valid: usize,
    /// How many of them have their target as the first of their largest logits. (For probabilities:
    /// the first of the largest probabilities.)
    pub correct: usize,
}

/// The rows of an input along its class dim, and how their losses become one.
#[derive(Clone)]
pub(super) struct RowLosses {
    /// The class dim.
    pub(super) dim: usize,
    pub(super) classes: usize,
    /// The shape of the input without the class dim.
    pub(super) shape: Shape,
    per_row: bool,
    mean: bool,
    /// A factor for each row.
    weight: Option<Vec<f64>>,
    pub(super) z_loss: f64,
    /// What the sum over rows is divided by; NaN where a mean has nothing to average.
    divisor: f64,
    /// The same for the part of λ.
    z_divisor: f64,
    /// The mean over nothing.
    empty: f64,
    /// What the pass over the logits found.
    pub(super) rows: Vec<LossRow>,
}

impl RowLosses {
    /// All checks that need no target, for logits of shape `input`.
    pub(super) fn new<T: Float>(
        op: &'static str,
        input: &[usize],
        options: &ClassOptions<T>,
        row_weight: Option<&Tensor<T>>,
    ) -> Result<Self> {
        options.validate(op)?;
        let dim = match input.len() {
            0 => {
                let expected = "[C], [N, C] or [N, C, d1, ..]";
                return Err(Error::RankMismatch { op, expected, shape: vec![] });
            }
            1 => 0,
            _ => 1,
        };
        let classes = input[dim];
        let mut rows = input.to_vec();
        rows.remove(dim);
        let shape = Shape::from(rows);
        if classes == 0 && shape.numel() > 0 {
            let reason = format!("has no classes: dim {dim} of {input:?} is empty");
            return Err(Error::InvalidArgument { op, name: "input", reason });
        }
        let mismatch = |rhs: &[usize]| {
            let (lhs, rhs) = (input.to_vec(), rhs.to_vec());
            Err(Error::ShapeMismatch { op, lhs, rhs })
        };
        if let Some(w) = &options.weight
            && w.shape() != [classes]
        {
            return mismatch(w.shape());
        }
        if let Some(w) = row_weight
            && w.shape() != &*shape
        {
            return mismatch(w.shape());
        }
        let weight = row_weight.map(|w| w.to_vec().into_iter().map(T::to_f64).collect());
        let finite = |w: &Vec<f64>| w.iter().position(|w| !w.is_finite());
        if let Some((row, w)) = weight.as_ref().and_then(|w| Some((finite(w)?, w))) {
            let reason = format!("must be finite, found {} in row {row}", w[row]);
            return Err(Error::InvalidArgument { op, name: "row weight", reason });
        }
        Ok(RowLosses {
            dim,
            classes,
            shape,
            per_row: options.reduction == Reduction::None,
            mean: options.reduction == Reduction::Mean,
            weight,
            z_loss: options.z_loss,
            divisor: 1.0,
            z_divisor: 1.0,
            empty: f64::NAN,
            rows: Vec::new(),
        })
    }

    /// Settles the divisors: for a mean the weight of all targets, and of all rows that count (which
    /// [`RowLosses::found`] may settle again). Where the first is 0 there is no loss at all.
    pub(super) fn divide<T: Float>(
        &mut self,
        op: &'static str,
        options: &ClassOptions<T>,
        targets: f64,
        rows: f64,
    ) -> Result<()> {
        let mean = |total: f64| if total == 0.0 { f64::NAN } else { total };
        (self.divisor, self.z_divisor) = match options.reduction {
            Reduction::None | Reduction::Sum => (1.0, 1.0),
            Reduction::Mean if targets == 0.0 => (f64::NAN, f64::NAN),
            Reduction::Mean => (targets, mean(rows)),
            Reduction::Divisor(d) => (d, d),
        };
        match options.empty_mean {
            EmptyMean::Error if self.divisor.is_nan() => {
                let reason = "must have some weight for a mean: it is 0 in all".into();
                return Err(Error::InvalidArgument { op, name: "target", reason });
            }
            EmptyMean::Zero => self.empty = 0.0,
            EmptyMean::Nan | EmptyMean::Error => {}
        }
        Ok(())
    }

    /// Gives the rows that do not count the weight 0.
    pub(super) fn keep(&mut self, counts: impl Fn(usize) -> bool) {
        let weight = |row| if counts(row) { self.weight(row) } else { 0.0 };
        self.weight = Some((0..self.shape.numel()).map(weight).collect());
    }

    /// Whether the losses of the rows become one.
    pub(super) fn reduces(&self) -> bool {
        !self.per_row
    }

    /// The own weight of a row.
    pub(super) fn weight(&self, row: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |w| w[row])
    }

    /// Takes what a pass over the logits found, where only that says which rows count.
    pub(super) fn found(&mut self, rows: Vec<LossRow>) {
        self.rows = rows;
        if self.mean && !self.divisor.is_nan() {
            let mut total = Total::default();
            let counting = (0..self.rows.len()).filter(|&row| self.counts(row));
            counting.for_each(|row| total.add(self.weight(row)));
            let total = total.value();
            self.z_divisor = if total == 0.0 { f64::NAN } else { total };
        }
    }

    /// Whether a row counts.
    pub(super) fn counts(&self, row: usize) -> bool {
        self.rows[row].used && self.weight(row) != 0.0
    }

    /// The loss from what the rows have.
    pub(super) fn reduce<T: Float>(&self) -> Result<Tensor<T>> {
        let of = |row: usize, x: f64| if self.counts(row) { self.weight(row) * x } else { 0.0 };
        let loss = |row: usize| of(row, self.rows[row].loss);
        if self.z_loss == 0.0 {
            return self.reduced(loss);
        }
        let z_loss = |row: usize| of(row, self.z_loss * self.rows[row].lse().powi(2));
        if self.per_row {
            return self.reduced(|row| loss(row) + z_loss(row));
        }
        let mut total = self.sum(loss, self.divisor);
        if !self.z_divisor.is_nan() {
            total += self.sum(z_loss, self.z_divisor);
        }
        Ok(Tensor::scalar(T::from_f64(total)))
    }

    /// The loss from those of the rows.
    pub(super) fn reduced<T: Float>(&self, loss: impl Fn(usize) -> f64) -> Result<Tensor<T>> {
        if self.per_row {
            let losses = (0..self.shape.numel()).map(|row| T::from_f64(loss(row)));
            return Tensor::from_vec(losses.collect(), &self.shape);
        }
        Ok(Tensor::scalar(T::from_f64(self.sum(loss, self.divisor))))
    }

    fn sum(&self, of: impl Fn(usize) -> f64, divisor: f64) -> f64 {
        if divisor.is_nan() {
            return self.empty;
        }
        let mut total = Total::default();
        (0..self.shape.numel()).for_each(|row| total.add(of(row)));
        total.value() / divisor
    }

    /// `s` and `t` of each row's gradient `(s·a + t)·p − s·c`, from the upstream gradient.
    pub(super) fn factors<T: Float>(
        &self,
        upstream: &Tensor<T>,
    ) -> impl Fn(usize, &LossRow) -> (f64, f64) + Sync + use<'_, T> {
        let upstream = upstream.to_vec();
        let (share, z) = (self.share(), 2.0 * self.z_loss * share_of(self.z_divisor));
        move |row, found| {
            let weight = self.weight(row);
            if weight == 0.0 {
                return (0.0, 0.0);
            }
            let g = upstream[if self.per_row { row } else { 0 }].to_f64() * weight;
            (g * share, if z == 0.0 { 0.0 } else { g * z * found.lse() })
        }
    }

    /// 1/divisor; 0 where a mean has nothing to average.
    pub(super) fn share(&self) -> f64 {
        share_of(self.divisor)
    }

    /// The mean, where it has nothing to average; else 0.
    pub(super) fn empty(&self) -> f64 {
        if self.divisor.is_nan() { self.empty } else { 0.0 }
    }

    /// The upstream gradient, made to broadcast against the input.
    pub(super) fn upstream<T: Float>(&self, g: &Var<T>) -> Result<Var<T>> {
        if self.per_row { g.unsqueeze(self.dim as isize) } else { Ok(g.clone()) }
    }

    /// Products with the upstream gradient's coefficients, summed to its shape.
    pub(super) fn total<T: Float>(&self, products: Var<T>) -> Result<Var<T>> {
        if self.per_row {
            products.sum_dim(&[self.dim as isize], false)
        } else {
            Ok(products.sum())
        }
    }

    /// One number for each row, made to broadcast against the input.
    pub(super) fn by_row<T: Float>(&self, value: impl Fn(usize) -> f64) -> Result<Var<T>> {
        let values = (0..self.shape.numel()).map(|row| T::from_f64(value(row)));
        let rows = Tensor::from_vec(values.collect(), &self.shape)?;
        Ok(Var::constant(rows.unsqueeze(self.dim as isize)?))
    }

    /// The derivative in x of `⟨(s·a + t)·p − s·c, v⟩`: with `m = ⟨p, v⟩` of each row
    /// `s·a·p·(v − m)`, and `2λs'·p·(lse·(v − m) + m)` for the λ in t.
    ///
    /// Rows that `used` says do not count are replaced before they are read: NaN must not spread.
    /// `a` broadcasts against x. Also returns `v − m` and s by row.
    pub(super) fn second<T: Float>(
        &self,
        [x, g, v]: [&Var<T>; 3],
        a: &Var<T>,
        used: impl Fn(usize) -> bool,
    ) -> Result<(Var<T>, Var<T>, Var<T>)> {
        let used = |row: usize| f64::from(u8::from(used(row))) * self.weight(row);
        let x = x.threshold_backward(self.by_row(|row| used(row).abs())?.value())?;
        let dims = [self.dim as isize];
        let p = x.softmax(dims[0])?;
        let m = (&p * v).sum_dim(&dims, true)?;
        let centred = v - &m;
        let g = self.upstream(g)?;
        let s = g.times(&self.by_row(|row| used(row) * self.share())?)?;
        let mut dx = (&p * &centred).times(&s.times(a)?)?;
        if self.z_loss != 0.0 {
            let z = 2.0 * self.z_loss * share_of(self.z_divisor);
            let counts = |row: usize| if self.rows[row].used { used(row) } else { 0.0 };
            let z = g.times(&self.by_row(|row| counts(row) * z)?)?;
            dx = dx + (p * (&centred * x.logsumexp_dim(&dims, true)? + m)).times(&z)?;
        }
        Ok((dx, centred, s))
    }

    /// The loss with what the rows have.
    pub(super) fn detailed<T: Float>(&self, loss: Var<T>, correct: usize) -> Result<ClassLoss<T>> {
        let rows = 0..self.rows.len();
        let lse = |row: usize| if self.counts(row) { self.rows[row].lse() } else { 0.0 };
        let lse = rows.clone().map(|row| T::from_f64(lse(row))).collect();
        let lse = Tensor::from_vec(lse, &self.shape)?;
        Ok(ClassLoss { loss, lse, valid: rows.filter(|&row| self.counts(row)).count(), correct })
    }
}

/// A sum that keeps what its additions lose (Neumaier, ZAMM 54, 1974), so that in f64 a mean over
/// many rows is as exact as over a few.
#[derive(Clone, Copy, Default)]
pub(super) struct Total {
    sum: f64,
    lost: f64,
}

impl From<f64> for Total {
    fn from(sum: f64) -> Self {
        Total { sum, lost: 0.0 }
    }
}

impl Total {
    pub(super) fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let (large, small) = if self.sum.abs() >= x.abs() { (self.sum, x) } else { (x, self.sum) };
        self.lost += (large - sum) + small;
        self.sum = sum;
    }

    pub(super) fn value(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

/// 1/divisor; 0 where a mean has nothing to average.
fn share_of(divisor: f64) -> f64 {
    if divisor.is_nan() { 0.0 } else { 1.0 / divisor }
}
