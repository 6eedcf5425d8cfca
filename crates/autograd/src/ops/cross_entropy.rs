//! Losses on class targets: `nll_loss` and the fused `cross_entropy`.
//!
//! For a row x with target y, class weights w and smoothing ε over C classes, let
//! `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k` and `a = Σ_k c_k`. Then
//! `loss = −Σ_k c_k·log p_k = a·lse − Σ_k c_k·x_k` and `dx_k = s·(a·p_k − c_k)`, with s the upstream
//! gradient, over the divisor of a mean. Without weights a = 1: `softmax − smoothed_onehot`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use tensor::kernels::Zip;
use tensor::kernels::softmax::{self as kernel, ClassTargets};
use tensor::{Error, Float, Result, Tensor};

use super::class_loss::{
    BatchWeights, ClassLoss, ClassOptions, EmptyMean, Reduction, RowLosses, Target, Total,
    check_weight,
};
use crate::tape::{NodeRef, Place, Save, Tag, record, record_tagged};
use crate::var::Var;

/// From this many bytes of logits on, the exponentials of the forward pass become the gradient at once.
const AT_ONCE: usize = 128 << 10;

/// Class targets and options, checked against an input.
#[derive(Clone)]
pub(super) struct Plan<T: Float> {
    /// The class of each row; −1 where the row does not count.
    pub(super) targets: Vec<i64>,
    weight: Option<Tensor<T>>,
    label_smoothing: f64,
    smooth_over_finite: bool,
    pub(super) predictions: bool,
}

impl<T: Float> Plan<T> {
    /// For logits of shape `input`.
    pub(super) fn new(
        op: &'static str,
        input: &[usize],
        target: &Tensor<i64>,
        row_weight: Option<&Tensor<T>>,
        options: &ClassOptions<T>,
    ) -> Result<(RowLosses, Self)> {
        let mut over = RowLosses::new(op, input, options, row_weight)?;
        let classes = over.classes;
        if target.shape() != &*over.shape {
            let (lhs, rhs) = (input.to_vec(), target.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let mut targets = target.to_vec();
        let used = |t: i64| options.ignore_index != Some(t);
        let bad = |t: i64| used(t) && !(0..classes as i64).contains(&t);
        if let Some(row) = targets.iter().position(|&t| bad(t)) {
            let (value, rows) = (targets[row], targets.iter().filter(|&&t| bad(t)).count());
            return Err(Error::TargetOutOfRange { op, row, value, classes, rows });
        }
        let smoothing = options.label_smoothing;
        let weight = options.weight.as_ref().map(Tensor::to_vec);
        let weight = |class: usize| weight.as_ref().map_or(1.0, |w| w[class].to_f64());
        let uniform = smoothing > 0.0 && (0..classes).any(|class| weight(class) > 0.0);
        let (mut total_weight, mut total_rows) = (Total::default(), Total::default());
        let plain = options.weight.is_none() && row_weight.is_none();
        if plain {
            targets.iter_mut().filter(|t| !used(**t)).for_each(|t| *t = -1);
            let count = targets.iter().filter(|&&t| t >= 0).count() as f64;
            (total_weight, total_rows) = (Total::from(count), Total::from(count));
        }
        for (row, t) in targets.iter_mut().enumerate().filter(|_| !plain) {
            let own = over.weight(row);
            if !used(*t) || own == 0.0 {
                *t = -1;
                continue;
            }
            let weight = weight(*t as usize);
            total_weight.add(own * weight);
            // A row whose coefficients are all 0 does not count either.
            if uniform || (1.0 - smoothing) * weight > 0.0 {
                total_rows.add(own);
            } else {
                *t = -1;
            }
        }
        over.divide(op, options, total_weight.value(), total_rows.value())?;
        let plan = Plan {
            targets,
            weight: options.weight.as_ref().map(Tensor::contiguous),
            label_smoothing: smoothing,
            smooth_over_finite: options.smooth_over_finite && smoothing > 0.0,
            predictions: false,
        };
        Ok((over, plan))
    }

    pub(super) fn kernel_targets(&self) -> ClassTargets<'_, T> {
        ClassTargets {
            classes: &self.targets,
            weight: self.weight.as_ref().and_then(Tensor::as_slice),
            label_smoothing: self.label_smoothing,
            predictions: self.predictions,
        }
    }

    fn weight(&self, class: usize) -> f64 {
        self.kernel_targets().weight.map_or(1.0, |w| w[class].to_f64())
    }

    /// One number for each row that counts, as a tensor that broadcasts against the input.
    fn by_row(&self, over: &RowLosses, value: impl Fn(usize) -> f64) -> Result<Tensor<T>> {
        let of = |row: usize| usize::try_from(self.targets[row]).map_or(0.0, &value);
        Ok(over.by_row(of)?.value().clone())
    }

    /// The class of each row, 0 where the row does not count, with the dims of the input.
    fn index(&self, over: &RowLosses) -> Result<Tensor<i64>> {
        let index = self.targets.iter().map(|&t| t.max(0)).collect();
        Tensor::from_vec(index, &over.shape)?.unsqueeze(over.dim as isize)
    }

    /// `c`, in the shape of `input`: 0 in rows that do not count.
    fn coefficients(&self, over: &RowLosses, input: &Tensor<T>) -> Result<Tensor<T>> {
        let dim = over.dim as isize;
        let even = if self.label_smoothing == 0.0 {
            input.zeros_like()
        } else {
            let used = self.by_row(over, |_| 1.0)?.expand(input.shape())?;
            used.zip::<T, Times>("smoothed_target", &self.uniform(over, input)?)?
        };
        let hard = |class: usize| (1.0 - self.label_smoothing) * self.weight(class);
        even.scatter_add(dim, &self.index(over)?, &self.by_row(over, hard)?)
    }

    /// `(ε/C)·w_k`, or that of the classes with a finite logit.
    fn uniform(&self, over: &RowLosses, input: &Tensor<T>) -> Result<Tensor<T>> {
        uniform_part(over, input, self.label_smoothing, self.smooth_over_finite, |k| self.weight(k))
    }
}

/// `(ε/C)·w_k` in a shape that broadcasts against `input`; with `finite`, of the classes whose input
/// is above −∞ alone, C being their number.
pub(super) fn uniform_part<T: Float>(
    over: &RowLosses,
    input: &Tensor<T>,
    label_smoothing: f64,
    finite: bool,
    weight: impl Fn(usize) -> f64,
) -> Result<Tensor<T>> {
    let classes = if finite { 1 } else { over.classes.max(1) };
    let values =
        (0..over.classes).map(|k| T::from_f64(label_smoothing / classes as f64 * weight(k)));
    let mut shape = vec![1; input.rank()];
    shape[over.dim] = over.classes;
    let uniform = Tensor::from_vec(values.collect(), shape)?;
    if !finite {
        return Ok(uniform);
    }
    // NaN where there is none: so is such a row.
    let mask = input.ne(-T::INFINITY)?.cast::<T>();
    let count = mask.sum_dim(&[over.dim as isize], true)?;
    mask.checked_mul(&uniform)?.checked_div(&count)
}

/// Cross entropy of logits that the caller owns and class targets, with the gradient of the loss (of
/// the sum of the rows' losses, for [`Reduction::None`]) written over the logits: no second tensor of
/// their size. Loss and gradient have the bits of [`Var::cross_entropy`].
///
/// # Shape
/// As there. A copy of some rows is made at a time (64 KiB, at least one row for each thread). Where
/// the class dim is not the last one, or with `smooth_over_finite`, tensors of their size are
/// allocated, and one takes the place of the logits.
///
/// # Errors
/// As there, and [`Error::InvalidArgument`] for logits that share their storage or are not row-major.
/// Nothing is written then.
///
/// # Examples
/// ```
/// use autograd::{ClassOptions, Tensor, cross_entropy_in_place};
/// let mut logits = Tensor::from_vec(vec![0.0_f64, 0.0], [1, 2])?;
/// let target = Tensor::from_vec(vec![1_i64], [1])?;
/// let loss = cross_entropy_in_place(&mut logits, &target, &ClassOptions::default())?;
/// assert_eq!(loss.item()?, 2.0_f64.ln());
/// assert_eq!(logits.to_vec(), [0.5, -0.5]);
/// # Ok::<(), autograd::Error>(())
/// ```
pub fn cross_entropy_in_place<T: Float>(
    logits: &mut Tensor<T>,
    target: &Tensor<i64>,
    options: &ClassOptions<T>,
) -> Result<Tensor<T>> {
    let op = "cross_entropy_in_place";
    let (mut over, plan) = Plan::new(op, logits.shape(), target, None, options)?;
    let ones = Tensor::scalar(T::ONE).expand(if over.reduces() { &[] } else { target.shape() })?;
    let dim = over.dim;
    if plan.smooth_over_finite {
        let c = plan.coefficients(&over, logits)?;
        over.found(kernel::soft_cross_entropy(logits, &c, dim));
        let factors = over.factors(&ones);
        *logits = kernel::soft_cross_entropy_backward(logits, &c, dim, &over.rows, factors);
    } else if dim + 1 < logits.rank() {
        let factors = over.factors(&ones);
        let targets = plan.kernel_targets();
        let (rows, dx) = kernel::cross_entropy_with_gradient(logits, dim, targets, factors);
        (over.rows, *logits) = (rows, dx);
    } else {
        let factors = over.factors(&ones);
        let rows = kernel::cross_entropy_in_place(logits, plan.kernel_targets(), factors);
        let Some(rows) = rows else {
            let reason = "must own their storage and be row-major, to be written over".into();
            return Err(Error::InvalidArgument { op, name: "logits", reason });
        };
        over.rows = rows;
    }
    over.reduce()
}

impl<T: Float> Var<T> {
    /// Cross entropy of logits and targets, in nats: `loss_n = −Σ_k c_k·log softmax(x_n)_k` with
    /// `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k` for class indices y and
    /// `c_k = w_k·((1−ε)·q_k + ε/C)` for probabilities q.
    ///
    /// A mean divides by the weights of the classes for indices, by the number of rows for
    /// probabilities, whatever the weights.
    ///
    /// # Shape
    /// `x: [C]`, `[N, C]` or `[N, C, d1, ..]`, any strides; class indices: the same without C;
    /// probabilities: the same. The result has rank 0, or the shape of x without C for
    /// [`Reduction::None`].
    ///
    /// # Gradient
    /// `dx_k = s·(a·softmax(x)_k − c_k)`, `a = Σ c_k`: without weights `softmax − smoothed_onehot`;
    /// s is the upstream gradient, over the divisor of a mean. For tracked probabilities
    /// `dq_k = −s·(1−ε)·w_k·log softmax(x)_k` (0 where q = 0 at a logit of −∞). Saves x, a few numbers
    /// per row, and the coefficients of probabilities or of `smooth_over_finite`. From 128 KiB of logits
    /// on, where the loss has rank 0, the forward pass leaves the gradient, too. Any order.
    ///
    /// # Numerics
    /// Full relative accuracy for any confidence: the loss of a row is `log1p(Σ_{k≠y} e_k/e_y)`, and
    /// the target's gradient holds no difference `p − 1`. A row that does not count is not read:
    /// NaN in it reaches neither loss nor gradient.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::RankMismatch`], [`Error::InvalidArgument`] for shapes and
    /// options; [`Error::TargetOutOfRange`] with the first bad row.
    ///
    /// # Examples
    /// ```
    /// use autograd::{ClassOptions, Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from_vec(vec![0.0_f64, 0.0, 3.0_f64.ln(), 0.0], [2, 2])?);
    /// let target = Tensor::from_vec(vec![1_i64, 0], [2])?;
    /// let loss = x.cross_entropy(&target, &ClassOptions::default())?;
    /// assert!((loss.item()? - (2.0_f64.ln() + (4.0_f64 / 3.0).ln()) / 2.0).abs() < 1e-15);
    /// let grads = loss.backward()?;
    /// let dx = grads.wrt(&x)?.to_vec();
    /// assert!(dx.iter().zip([0.25, -0.25, -0.125, 0.125]).all(|(a, b)| (a - b).abs() < 1e-15));
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.cross_entropy`; label smoothing: Szegedy et al., arXiv 1512.00567.
    #[track_caller]
    pub fn cross_entropy<'a>(
        &self,
        target: impl Into<Target<'a, T>>,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        Ok(self.class_loss(target.into(), &BatchWeights::default(), options, false)?.loss)
    }

    /// [`Var::cross_entropy`] with weights that come with the batch, and with what the same pass over
    /// the logits finds besides: the log of each row's sum, how many rows count, how many are right.
    /// (For probabilities, class weights that are variables and `smooth_over_finite`, what is right
    /// takes one more pass.)
    ///
    /// # Shape
    /// As [`Var::cross_entropy`]; the rows' weights and sums have the shape of the class indices.
    ///
    /// # Gradient
    /// `dx` as there, times the row's weight. For tracked class weights, with `c_k = A_k·w_k`,
    /// `dw_k = −s·Σ_n r_n·A_nk·log softmax(x_n)_k`, and less what a mean's divisor takes:
    /// `loss·Σ_n r_n·[y_n = k]` over it. They cost two tensors of the size of x, A and c. Any order.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`]; [`Error::InvalidArgument`] for a row's weight that is not finite.
    ///
    /// # Examples
    /// ```
    /// use autograd::{BatchWeights, ClassOptions, Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from_vec(vec![0.0_f64, 2.0, 3.0, 1.0, 0.0, 0.0], [3, 2])?);
    /// let target = Tensor::from_vec(vec![1_i64, 1, -100], [3])?;
    /// let rows = Tensor::from_vec(vec![1.0, 3.0, 1.0], [3])?;
    /// let weights = BatchWeights { row: Some(&rows), ..Default::default() };
    /// let found = x.cross_entropy_detailed(&target, &weights, &ClassOptions::default())?;
    /// let rest = (-2.0_f64).exp().ln_1p(); // both rows have a gap of 2; the second is wrong by it
    /// assert!((found.loss.item()? - (rest + 3.0 * (rest + 2.0)) / 4.0).abs() < 1e-15);
    /// assert_eq!((found.valid, found.correct), (2, 1));
    /// assert!((found.lse.to_vec()[1] - (3.0 + rest)).abs() < 1e-15);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.cross_entropy`, which has no weights of rows.
    #[track_caller]
    pub fn cross_entropy_detailed<'a>(
        &self,
        target: impl Into<Target<'a, T>>,
        weights: &BatchWeights<'_, T>,
        options: &ClassOptions<T>,
    ) -> Result<ClassLoss<T>> {
        self.class_loss(target.into(), weights, options, true)
    }

    #[track_caller]
    fn class_loss(
        &self,
        target: Target<'_, T>,
        weights: &BatchWeights<'_, T>,
        options: &ClassOptions<T>,
        detailed: bool,
    ) -> Result<ClassLoss<T>> {
        let (op, mut options) = ("cross_entropy", Cow::Borrowed(options));
        if let Some(w) = weights.class {
            check_weight(op, w.value())?;
            options.to_mut().weight = Some(w.value().clone());
        }
        let tracked = weights.class.filter(|w| w.is_tracked());
        let (loss, over) = match &target {
            Target::Probabilities(q) => {
                self.soft_cross_entropy(op, q, weights.row, tracked, &options)?
            }
            Target::Classes(target) => {
                if let Some(w) = tracked {
                    self.weighted_cross_entropy(target, w, weights.row, &options)?
                } else {
                    let plan = Plan::new(op, self.shape(), target, weights.row, &options)?;
                    self.planned(plan, Tag::Plain, detailed)?
                }
            }
        };
        if !detailed {
            return Ok(ClassLoss { loss, lse: Tensor::scalar(T::ZERO), valid: 0, correct: 0 });
        }
        let counted = over.rows.iter().filter(|r| r.correct).count();
        let correct = match &target {
            _ if self.value().numel() == 0 => 0,
            Target::Classes(_) if tracked.is_none() && !options.smooth_over_finite => counted,
            _ => {
                let dim = over.dim as isize;
                let best = self.value().argmax_dim(dim, false)?;
                let right = match target {
                    Target::Classes(target) => best.eq(target)?,
                    Target::Probabilities(q) => best.eq(&q.value().argmax_dim(dim, false)?)?,
                };
                let right = right.to_vec().into_iter().enumerate();
                right.filter(|&(row, right)| right && over.counts(row)).count()
            }
        };
        over.detailed(loss, correct)
    }

    /// Cross entropy with constant weights.
    #[track_caller]
    fn planned(
        &self,
        (mut over, mut plan): (RowLosses, Plan<T>),
        tag: Tag,
        predictions: bool,
    ) -> Result<(Self, Arc<RowLosses>)> {
        let op = ("cross_entropy", tag);
        if plan.smooth_over_finite {
            let c = Var::constant(plan.coefficients(&over, self.value())?);
            return self.coefficient_loss(op, &c, over);
        }
        plan.predictions = predictions;
        let (x, dim, targets) = (self.value(), over.dim, plan.kernel_targets());
        // A loss of rank 0 mostly meets the upstream gradient 1. Then one trip through memory and half
        // of the exponentials are saved; the bits are the same.
        let at_once = self.is_tracked() && over.reduces() && x.numel() * size_of::<T>() >= AT_ONCE;
        let mut ready = None;
        if at_once {
            let factors = over.factors(&Tensor::scalar(T::ONE));
            let (rows, dx) = kernel::cross_entropy_with_gradient(x, dim, targets, factors);
            (over.rows, ready) = (rows, Some(dx));
        } else {
            over.rows = kernel::cross_entropy(x, dim, targets);
        }
        let ready = Mutex::new(ready);
        let loss = over.reduce()?;
        let over = Arc::new(over);
        let fused = Arc::new(Fused { plan, over: Arc::clone(&over) });
        let loss =
            record_tagged(op, &[self.node()], &[Save::Input(self)], loss, move |ctx, g, sink| {
                // Taken, so that nothing of its size is alive beside what is delivered.
                let ready = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
                match ready.filter(|_| !ctx.create_graph() && g.item().is_ok_and(|g| g == T::ONE)) {
                    Some(dx) => sink.add(0, Var::constant(dx)),
                    None => sink.add(0, fused.gradient(&ctx.saved(0), &g)?),
                }
            })?;
        Ok((loss, over))
    }

    /// Class weights w that receive a gradient: `c_k = A_k·w_k` is recorded, and so is the divisor of a
    /// mean.
    #[track_caller]
    fn weighted_cross_entropy(
        &self,
        target: &Tensor<i64>,
        w: &Self,
        row_weight: Option<&Tensor<T>>,
        options: &ClassOptions<T>,
    ) -> Result<(Self, Arc<RowLosses>)> {
        let (op, x) = ("cross_entropy", self.value());
        // Without weights: a row whose weight is 0 has a derivative in it.
        let even = ClassOptions { weight: None, empty_mean: EmptyMean::Nan, ..options.clone() };
        let (mut over, plan) = Plan::new(op, x.shape(), target, row_weight, &even)?;
        let share = plan.coefficients(&over, x)?;
        over.keep(|row| plan.targets[row] >= 0);
        let mut shape = vec![1; x.rank()];
        shape[over.dim] = over.classes;
        let c = w.reshape(shape)?.expand(x.shape())?.gate::<Times>("class_weights", &share)?;
        if options.reduction != Reduction::Mean {
            return self.coefficient_loss((op, Tag::Plain), &c, over);
        }
        let used: Vec<usize> = (0..plan.targets.len()).filter(|&r| plan.targets[r] >= 0).collect();
        let classes =
            Tensor::from_vec(used.iter().map(|&r| plan.targets[r]).collect(), [used.len()])?;
        let rows = used.iter().map(|&r| T::from_f64(over.weight(r))).collect();
        let rows = Tensor::from_vec(rows, [used.len()])?;
        let divisor = (w.index_select(0, &classes)? * Var::constant(rows)).sum();
        let (total, z_loss) = (divisor.item()?, std::mem::replace(&mut over.z_loss, 0.0));
        over.divide(op, options, total.to_f64(), 1.0)?;
        let empty = over.share() == 0.0;
        let (mut loss, over) = self.coefficient_loss((op, Tag::Plain), &c, over)?;
        if !empty {
            // 1, but with a derivative.
            loss = loss * (divisor.reciprocal() * total);
        }
        let weight = |row: usize| if over.counts(row) { over.weight(row) } else { 0.0 };
        let number: f64 = used.iter().map(|&row| weight(row)).sum();
        if z_loss != 0.0 && number != 0.0 && !empty {
            let weight = over.by_row(weight)?;
            let x = self.threshold_backward(&weight.value().abs())?;
            let lse = x.logsumexp_dim(&[over.dim as isize], true)?;
            loss = loss + (lse.square() * weight).sum() * T::from_f64(z_loss / number);
        }
        Ok((loss, over))
    }

    /// Checked targets (−1 where a row does not count), each row's weight over the divisor, both in
    /// the shape of the targets, and what to add where a mean has nothing to average.
    pub(super) fn row_factors(
        &self,
        op: &'static str,
        target: &Tensor<i64>,
        options: &ClassOptions<T>,
    ) -> Result<(Tensor<i64>, Tensor<T>, f64)> {
        let (over, plan) = Plan::new(op, self.shape(), target, None, options)?;
        let factor = |t: &i64| match usize::try_from(*t) {
            Ok(class) => plan.weight(class) * over.share(),
            Err(_) => 0.0,
        };
        let factors = plan.targets.iter().map(|t| T::from_f64(factor(t))).collect();
        let factors = Tensor::from_vec(factors, &over.shape)?;
        Ok((Tensor::from_vec(plan.targets, &over.shape)?, factors, over.empty()))
    }

    /// Negative log-likelihood of class targets, in nats, for log-probabilities L:
    /// `loss_n = −Σ_k c_k·L_nk`, with c as in [`Var::cross_entropy`].
    ///
    /// Directly on the result of [`Var::log_softmax`] along the class dim it records cross entropy
    /// on the logits: same bits, same memory. The log-probabilities then have no gradient of their
    /// own, unless [`Var::retain`] asked for it before.
    ///
    /// # Shape
    /// `L: [C]`, `[N, C]` or `[N, C, d1, ..]`, any strides; `target`: the same without C. The result
    /// has rank 0, or the shape of `target` for [`Reduction::None`].
    ///
    /// # Gradient
    /// `dL_k = −s·c_k`; s is the upstream gradient, over the divisor of a mean. Saves nothing of
    /// L's size. Any order.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`].
    ///
    /// # Reference
    /// `torch.nn.functional.nll_loss`, which has no smoothing.
    #[track_caller]
    pub fn nll_loss(&self, target: &Tensor<i64>, options: &ClassOptions<T>) -> Result<Self> {
        let op = "nll_loss";
        if options.z_loss != 0.0 {
            let reason = "is for logits; log-probabilities have none".into();
            return Err(Error::InvalidArgument { op, name: "z_loss", reason });
        }
        let l = self.value();
        let (over, plan) = Plan::new(op, l.shape(), target, None, options)?;
        if let Some((logits, past)) = self.fusable_logits(over.dim) {
            return Ok(logits.planned((over, plan), Tag::FusedLoss { past }, false)?.0);
        }
        let dim = over.dim as isize;
        let picked = l.gather(dim, &plan.index(&over)?)?.to_vec();
        let even = if plan.label_smoothing == 0.0 {
            Vec::new()
        } else {
            l.zip::<T, Times>(op, &plan.uniform(&over, l)?)?.sum_dim(&[dim], false)?.to_vec()
        };
        let loss = over.reduced(|row| {
            let Ok(class) = usize::try_from(plan.targets[row]) else { return 0.0 };
            let hard = (1.0 - plan.label_smoothing) * plan.weight(class);
            let own = if hard == 0.0 { 0.0 } else { hard * picked[row].to_f64() };
            0.0 - own - even.get(row).map_or(0.0, |x| x.to_f64())
        })?;
        // The coefficients depend on L only by what is finite.
        let l = if plan.smooth_over_finite {
            l.clone()
        } else {
            Tensor::scalar(T::ZERO).expand(l.shape())?
        };
        record(op, [self.node()], [], loss, move |_, g, sink| {
            let dim = over.dim as isize;
            if plan.label_smoothing == 0.0 {
                let hard = plan.by_row(&over, |class| -over.share() * plan.weight(class))?;
                let s = over.upstream(&g)?.times(&Var::constant(hard))?;
                let zeros = Var::constant(l.zeros_like());
                return sink.add(0, zeros.scatter_add(dim, &plan.index(&over)?, &s)?);
            }
            let s = over.upstream(&g)? * T::from_f64(-over.share());
            let c = plan.coefficients(&over, &l)?;
            sink.add(0, s.expand(l.shape())?.gate::<Times>("nll_loss_backward", &c)?)
        })
    }

    /// The logits and the own node, if this is an unmodified result of `log_softmax` along `dim`
    /// that nobody asked to retain.
    fn fusable_logits(&self, dim: usize) -> Option<(Self, u32)> {
        let NodeRef { tape, .. } = self.node()?;
        let Place::Node { index, .. } = self.node()?.current() else { return None };
        let graph = tape.0.graph.borrow();
        let node = &graph.nodes[index as usize];
        if node.tag != (Tag::LogSoftmax { dim: dim as u32 }) || node.retain {
            return None;
        }
        let logits = graph.saved_of(index).first()?;
        Some((Var::new(logits.value.clone(), Some(tape.node(logits.node))), index))
    }
}

/// A recorded cross entropy: what its gradient needs beside the logits.
pub(super) struct Fused<T: Float> {
    pub(super) plan: Plan<T>,
    pub(super) over: Arc<RowLosses>,
}

impl<T: Float> Fused<T> {
    /// `dx = (s·a + t)·p − s·c` as a function of logits x and upstream gradient g (s = g/divisor, and
    /// t the part of λ).
    ///
    /// With upstream gradient v it has `dx = s·a·p·(v − ⟨p, v⟩)`, the Hessian-vector product, and
    /// `dg = ⟨a·p − c, v⟩/divisor`, besides what comes from λ.
    pub(super) fn gradient(self: &Arc<Self>, x: &Var<T>, g: &Var<T>) -> Result<Var<T>> {
        let (over, targets) = (&self.over, self.plan.kernel_targets());
        let factors = over.factors(g.value());
        let dx = kernel::cross_entropy_backward(x.value(), over.dim, targets, &over.rows, factors);
        let saved = [Save::Input(x), Save::Input(g)];
        let nodes = [x.node(), g.node()];
        let fused = Arc::clone(self);
        record("cross_entropy_backward", nodes, saved, dx, move |ctx, v, sink| {
            let (over, x, g) = (&fused.over, ctx.saved(0), ctx.saved(1));
            if ctx.needs(0) {
                let a = over.by_row(|row| over.rows[row].a)?;
                sink.add(0, over.second([&x, &g, &v], &a, |row| over.rows[row].used)?.0)?;
            }
            if ctx.needs(1) {
                let unit = Var::constant(g.value().ones_like());
                let products = fused.gradient(&x, &unit)? * v;
                sink.add(1, over.total(products)?)?;
            }
            Ok(())
        })
    }
}

impl<T: Float> Var<T> {
    /// `x·c`, where a factor of 0 makes 0 of anything. c broadcasts.
    #[track_caller]
    pub(super) fn times(&self, c: &Self) -> Result<Self> {
        let y = self.value().zip::<T, Times>("times", c.value())?;
        let saved = [Save::Input(self), Save::Input(c)];
        record("times", [self.node(), c.node()], saved, y, |ctx, g, sink| {
            if ctx.needs(0) {
                sink.add_broadcast(0, g.times(&ctx.saved(1))?)?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g.times(&ctx.saved(0))?)?;
            }
            Ok(())
        })
    }
}

/// `x·c`, where a factor of 0 makes 0 of anything.
pub(super) struct Times;
impl<T: Float> Zip<T> for Times {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, c: T) -> T {
        if (c == T::ZERO) | (x == T::ZERO) { T::ZERO } else { x * c }
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let mut rows = Vec::new();
    for options in all_options() {
        for (shape, target) in
            [(&[4][..], &[][..]), (&[3, 4], &[3]), (&[2, 4, 3], &[2, 3]), (&[0, 4], &[0])]
        {
            let (o, t) = (options.clone(), targets(target));
            rows.push(Row::of("cross_entropy", &[shape], move |x| x[0].cross_entropy(&t, &o)));
            let (o, t) = (options.clone(), targets(target));
            rows.push(Row::of("nll_loss", &[shape], move |x| x[0].nll_loss(&t, &o)));
            let (o, t) = (options.clone(), targets(target));
            rows.push(Row::of("nll_loss", &[shape], move |x| {
                x[0].log_softmax(if x[0].value().rank() == 1 { 0 } else { 1 })?.nll_loss(&t, &o)
            }));
        }
    }
    let t = targets(&[3]);
    rows.push(Row::of("cross_entropy", &[&[4, 3]], move |x| {
        x[0].transpose(0, 1)?.cross_entropy(&t, &ClassOptions::default())
    }));
    let t = targets(&[3]);
    rows.push(Row::of("cross_entropy", &[&[1, 4]], move |x| {
        x[0].expand([3, 4])?.cross_entropy(&t, &ClassOptions::default())
    }));
    rows.extend(super::soft_cross_entropy::rows(all_options()));
    rows.extend(detailed_rows());
    rows
}

/// Weights of rows, class weights that are variables, λ, and smoothing over finite logits.
#[cfg(any(test, feature = "suite"))]
fn detailed_rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let (name, mut rows) = ("cross_entropy_detailed", Vec::new());
    for (i, options) in all_options().into_iter().filter(|o| o.weight.is_none()).enumerate() {
        let z_loss = [0.0, 0.3][i % 2];
        let o = ClassOptions { smooth_over_finite: i % 3 == 0, z_loss, ..options };
        let row_weight =
            Tensor::from_vec(vec![1.5, 0.0, -0.25, 2.0, 0.5, 1.0], [2, 3]).expect("six weights");
        let with = move |x: &Var<f64>, target: Target<'_, f64>, class: Option<&Var<f64>>| {
            let weights = BatchWeights { row: Some(&row_weight), class };
            Ok(x.cross_entropy_detailed(target, &weights, &o)?.loss)
        };
        let t = targets(&[2, 3]);
        let f = with.clone();
        rows.push(Row::of(name, &[&[2, 4, 3]], move |x| f(&x[0], Target::from(&t), None)));
        let t = targets(&[2, 3]);
        let f = with.clone();
        rows.push(
            Row::of(name, &[&[2, 4, 3], &[4]], move |x| f(&x[0], Target::from(&t), Some(&x[1])))
                .positive(),
        );
        if options.ignore_index.is_none() {
            let f = with.clone();
            rows.push(Row::of(name, &[&[2, 4, 3], &[2, 4, 3], &[4]], move |x| {
                f(&x[0], Target::from(&x[1]), Some(&x[2].square()))
            }));
        }
    }
    rows
}

#[cfg(any(test, feature = "suite"))]
fn all_options() -> Vec<ClassOptions<f64>> {
    let weight = Tensor::from([0.5, 0.0, 2.0, 1.25]);
    let mut all = Vec::new();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(2.5)] {
        for label_smoothing in [0.0, 0.1, 1.0] {
            for weight in [None, Some(weight.clone())] {
                for ignore_index in [None, Some(2)] {
                    all.push(ClassOptions {
                        weight: weight.clone(),
                        ignore_index,
                        reduction,
                        label_smoothing,
                        ..ClassOptions::default()
                    });
                }
            }
        }
    }
    all
}

#[cfg(any(test, feature = "suite"))]
fn targets(shape: &[usize]) -> Tensor<i64> {
    let n = shape.iter().product::<usize>();
    let classes = (0..n as i64).map(|i| (i * 3 + 3) % 4).collect();
    Tensor::from_vec(classes, shape).expect("as many classes as the shape has elements")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::tape::Tape;

    #[test]
    fn the_composition_records_the_fused_node_with_the_same_bits() {
        let x = Tensor::<f32>::randn([5, 4], &mut tensor::Generator::new(1)).unwrap();
        let t = targets(&[5]);
        let weight = Tensor::from_vec(vec![0.5, 0.0, 2.0, 1.25], [4]).unwrap();
        for label_smoothing in [0.0, 0.1] {
            for weight in [None, Some(weight.clone())] {
                let options = ClassOptions { weight, label_smoothing, ..ClassOptions::default() };
                let tape = Tape::new();
                let v = tape.var(x.clone());
                let composed = v.log_softmax(1).unwrap().nll_loss(&t, &options).unwrap();
                assert_eq!(tape.op_names(), ["leaf", "log_softmax", "cross_entropy"]);
                let composed_grad = composed.backward().unwrap().wrt(&v).unwrap().to_vec();
                let v = tape.var(x.clone());
                let direct = v.cross_entropy(&t, &options).unwrap();
                assert_eq!(direct.item().unwrap().to_bits(), composed.item().unwrap().to_bits());
                let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let direct_grad = direct.backward().unwrap().wrt(&v).unwrap().to_vec();
                assert_eq!(bits(direct_grad), bits(composed_grad));
            }
        }
    }

    #[test]
    fn other_uses_of_log_probabilities_still_count() {
        let (x, t) =
            (Tensor::<f64>::randn([3, 4], &mut tensor::Generator::new(1)).unwrap(), targets(&[3]));
        let o = ClassOptions::default();
        let run = |f: &dyn Fn(&Var<f64>) -> Var<f64>| {
            let tape = Tape::new();
            let v = tape.var(x.clone());
            f(&v).backward().unwrap().wrt(&v).unwrap().to_vec()
        };
        let fused = run(&|v| {
            let l = v.log_softmax(1).unwrap();
            l.nll_loss(&t, &o).unwrap() + (&l * &l).sum()
        });
        let unfused = run(&|v| {
            let l = v.log_softmax(1).unwrap();
            l.retain().unwrap();
            l.nll_loss(&t, &o).unwrap() + (&l * &l).sum()
        });
        let viewed = run(&|v| {
            let l = v.log_softmax(1).unwrap();
            l.reshape([3, 4]).unwrap().nll_loss(&t, &o).unwrap() + (&l * &l).sum()
        });
        for ((a, b), c) in fused.iter().zip(&unfused).zip(&viewed) {
            assert!((a - b).abs() < 1e-14 && (b - c).abs() < 1e-14);
        }
    }

    #[test]
    fn the_gradient_of_bypassed_log_probabilities_is_an_error() {
        let tape = Tape::new();
        let v = tape.var(Tensor::<f64>::zeros([2, 4]).unwrap());
        let l = v.log_softmax(1).unwrap();
        let loss = l.nll_loss(&targets(&[2]), &ClassOptions::default()).unwrap();
        assert!(matches!(grad(&[&loss], &[&l], &[], false), Err(Error::Bypassed { .. })));
        let scaled = &loss * 2.0 + (&l * &l).sum();
        assert!(matches!(grad(&[&scaled], &[&l], &[], true), Err(Error::Bypassed { .. })));
        // Something that does not involve the loss has its gradient.
        let other = grad(&[&(&l * &l).sum()], &[&l], &[], false).unwrap();
        assert_eq!(other[0].as_ref().unwrap().shape(), [2, 4]);
        l.retain().unwrap(); // too late
        let grads = loss.backward().unwrap();
        assert!(matches!(grads.wrt(&l), Err(Error::Bypassed { .. })));

        let v = tape.var(Tensor::<f64>::zeros([2, 4]).unwrap());
        let l = v.log_softmax(1).unwrap();
        l.retain().unwrap();
        let loss = l.nll_loss(&targets(&[2]), &ClassOptions::default()).unwrap();
        let grads = loss.backward().unwrap();
        assert_eq!(grads.wrt(&l).unwrap().to_vec(), [0., 0., 0., -0.5, 0., 0., -0.5, 0.]);
    }

    #[test]
    fn ignored_rows_are_not_read() {
        let nan = f64::NAN;
        let x = Tensor::from_vec(vec![0.0, 1.0, nan, f64::INFINITY, 1.0, 0.0], [3, 2]).unwrap();
        let t = Tensor::from_vec(vec![0, -100, 1], [3]).unwrap();
        for label_smoothing in [0.0, 0.1] {
            let o = ClassOptions { label_smoothing, ..ClassOptions::default() };
            let tape = Tape::new();
            let v = tape.var(x.clone());
            let loss = v.cross_entropy(&t, &o).unwrap();
            assert!(loss.item().unwrap().is_finite());
            let second = grad(&[&loss], &[&v], &[], true).unwrap()[0].clone().unwrap();
            let dx = loss.backward().unwrap().wrt(&v).unwrap().to_vec();
            assert!(dx.iter().all(|g| g.is_finite()) && dx[2..4] == [0.0, 0.0], "{dx:?}");
            assert!(second.value().to_vec().iter().zip(&dx).all(|(a, b)| (a - b).abs() < 1e-15));
        }
    }

    #[test]
    fn a_mean_over_nothing_is_nan_with_gradient_zero() {
        let x = Tensor::from_vec(vec![0.5, nan(), 3.0, 4.0], [2, 2]).unwrap();
        let weight = Tensor::from_vec(vec![1.0, 0.0], [2]).unwrap();
        for (t, weight, label_smoothing) in
            [(vec![-100, -100], None, 0.1), (vec![1, 1], Some(weight.clone()), 0.0)]
        {
            let t = Tensor::from_vec(t, [2]).unwrap();
            let o = ClassOptions { weight, label_smoothing, ..ClassOptions::default() };
            let v = Tape::new().var(x.clone());
            let loss = v.cross_entropy(&t, &o).unwrap();
            assert!(loss.item().unwrap().is_nan());
            assert_eq!(loss.backward().unwrap().wrt(&v).unwrap().to_vec(), [0.0; 4]);
            let o = ClassOptions { reduction: Reduction::Sum, ..o };
            assert_eq!(v.detach().cross_entropy(&t, &o).unwrap().item().unwrap(), 0.0);
        }
    }

    #[test]
    fn recorded_gradients_are_as_exact_as_ordinary_ones() {
        let x = Tensor::from_vec(vec![40.0, 0.0, f64::NAN, 1.0], [2, 2]).unwrap();
        let t = Tensor::from_vec(vec![0, -100], [2]).unwrap();
        for composed in [false, true] {
            let o = ClassOptions { reduction: Reduction::None, ..ClassOptions::default() };
            let tape = Tape::new();
            let v = tape.var(x.clone());
            let loss = if composed {
                v.log_softmax(1).unwrap().nll_loss(&t, &o).unwrap()
            } else {
                v.cross_entropy(&t, &o).unwrap()
            };
            let up = Tensor::from_vec(vec![1.0, f64::INFINITY], [2]).unwrap();
            let seed = [Var::constant(up.clone())];
            let recorded = grad(&[&loss], &[&v], &seed, true).unwrap()[0].clone().unwrap();
            let ordinary = loss.backward_with(&up).unwrap().wrt(&v).unwrap().to_vec();
            assert_eq!(recorded.value().to_vec(), ordinary);
            assert!((ordinary[0] / -(-40.0_f64).exp() - 1.0).abs() < 1e-12);
        }
    }

    fn nan() -> f64 {
        f64::NAN
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let x = Var::constant(Tensor::<f64>::zeros([3, 2]).unwrap());
        let o = ClassOptions::default();
        let text = |x: &Var<f64>, t: Vec<i64>, o: &ClassOptions<f64>| {
            let t = Tensor::from_slice(&t, [t.len()]).unwrap();
            x.cross_entropy(&t, o).unwrap_err().to_string()
        };
        assert_eq!(
            text(&x, vec![0, 2, -1], &o),
            "cross_entropy: target 2 in row 1 is out of range for 2 classes (2 rows affected)"
        );
        assert_eq!(text(&x, vec![0], &o), "cross_entropy: shapes do not match: [3, 2] and [1]");
        let bad = |label_smoothing| ClassOptions { label_smoothing, ..o.clone() };
        for smoothing in [-0.1, 1.5, f64::NAN, f64::NEG_INFINITY] {
            let text = text(&x, vec![0, 0, 0], &bad(smoothing));
            assert!(text.starts_with("cross_entropy: label_smoothing must be in [0, 1], found"));
        }
        for w in [-1.0, f64::NAN, f64::INFINITY] {
            let weight = Some(Tensor::from_vec(vec![1.0, w], [2]).unwrap());
            let text = text(&x, vec![0, 0, 0], &ClassOptions { weight, ..o.clone() });
            assert!(text.contains("for class 1"), "{text}");
        }
        let weight = Some(Tensor::<f64>::ones([3]).unwrap());
        assert!(
            text(&x, vec![0, 0, 0], &ClassOptions { weight, ..o.clone() })
                .contains("[3, 2] and [3]")
        );
        let none = Var::constant(Tensor::<f64>::zeros([1, 0]).unwrap());
        assert!(text(&none, vec![0], &o).contains("has no classes"));
        let ignore_none = ClassOptions { ignore_index: None, ..o.clone() };
        assert!(text(&x, vec![0, -100, 0], &ignore_none).contains("target -100 in row 1"));
        assert!(Var::constant(Tensor::scalar(0.0)).cross_entropy(&Tensor::scalar(0), &o).is_err());
    }
}
