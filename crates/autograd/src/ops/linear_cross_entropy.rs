//! Cross entropy of a linear layer's logits `z = x·Wᵀ + b`, which are never there as a whole.
//!
//! With `G = d loss/dz` as in `cross_entropy`: `dx = G·W`, `dW = Gᵀ·x`, `db = Σ_n G_n`.

use std::sync::{Arc, Mutex, PoisonError};

use tensor::kernels::linear_cross_entropy::Head;
use tensor::kernels::softmax as kernel;
use tensor::{Error, Float, Result, Shape, Tensor};

use super::class_loss::{ClassLoss, ClassOptions, RowLosses};
use super::cross_entropy::{Fused, Plan};
use crate::engine::{Ctx, Sink};
use crate::tape::{Save, Tag, record_tagged};
use crate::var::Var;

/// Options of [`Var::linear_cross_entropy`].
#[derive(Clone, Debug)]
pub struct LinearCrossEntropyOptions<T: Float> {
    /// Those of the loss; `smooth_over_finite` is an error here.
    pub class: ClassOptions<T>,
    /// S > 0: the logits are `S·tanh(z/S)`. (Gemma 2, arXiv 2408.00118.)
    pub softcap: Option<f64>,
    /// τ > 0: the logits are divided by it, after the cap.
    pub temperature: f64,
    /// Blocks of 512 classes by the rows of a chunk whose gradient in the logits is nowhere larger than
    /// this (as it is for an upstream gradient of 1) are left out of `dx`, `dW` and `db`. That changes an
    /// entry of `dx` by at most this times `Σ_k |W_kd|`, of `dW` by this times `Σ_n |x_nd|`. 0 leaves out
    /// what is 0.
    pub filter: f64,
    /// How many rows have their logits at a time; chosen for the caches and `max_bytes`, unless given.
    pub chunk_rows: Option<usize>,
    /// How much memory may be used beside inputs and gradients; 64 MiB, or what 80 rows need, unless
    /// given. Where it is not enough for the logits of 80 rows they are computed twice.
    pub max_bytes: Option<usize>,
}

impl<T: Float> Default for LinearCrossEntropyOptions<T> {
    fn default() -> Self {
        LinearCrossEntropyOptions {
            class: ClassOptions::default(),
            softcap: None,
            temperature: 1.0,
            filter: 0.0,
            chunk_rows: None,
            max_bytes: None,
        }
    }
}

impl<T: Float> LinearCrossEntropyOptions<T> {
    /// Checks all that can be checked without an input.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming `op` and the option.
    pub fn validate(&self, op: &'static str) -> Result<()> {
        self.class.validate(op)?;
        let invalid = |name, reason| Err(Error::InvalidArgument { op, name, reason });
        let positive = |x: f64| x > 0.0 && x.is_finite();
        for (name, x) in
            [("softcap", self.softcap.unwrap_or(1.0)), ("temperature", self.temperature)]
        {
            if !positive(x) {
                return invalid(name, format!("must be positive and finite, found {x}"));
            }
        }
        if !(0.0..f64::INFINITY).contains(&self.filter) {
            let found = self.filter;
            return invalid("filter", format!("must be finite and not negative, found {found}"));
        }
        if self.chunk_rows == Some(0) {
            return invalid("chunk_rows", "must be at least 1, found 0".into());
        }
        if self.class.smooth_over_finite {
            let reason = "needs the logits of a row at once; cross_entropy has them".into();
            return invalid("smooth_over_finite", reason);
        }
        Ok(())
    }
}

impl<T: Float> Var<T> {
    /// Cross entropy of the logits `x·Wᵀ + b` and class indices, as [`Var::linear`] followed by
    /// [`Var::cross_entropy`], without a tensor of the logits' size: they are made for some rows and
    /// classes at a time. With V classes and D features it takes 2·N·V·D operations for the loss, and
    /// 4·N·V·D more for the gradients, which the forward pass leaves where the loss has rank 0;
    /// [`Reduction::None`](crate::Reduction::None) makes the logits again in backward. N counts the rows
    /// that count.
    ///
    /// # Shape
    /// `x: [.., D]`, `w: [V, D]`, `b: [V]`, any strides; `target: [..]`. The result has rank 0, or the
    /// shape of `target` for [`Reduction::None`](crate::Reduction::None).
    ///
    /// # Gradient
    /// With `G = s·(a·softmax(z) − c)` as [`Var::cross_entropy`] has it: `dx = G·W`, `dW = Gᵀ·x`,
    /// `db = Σ_n G_n`, and none of them is computed for an operand that is not tracked. Saves x and W.
    /// Any order: a recorded backward pass holds the logits.
    ///
    /// # Numerics
    /// That of [`Var::cross_entropy`]; the part of label smoothing has rank 1 and is subtracted at the
    /// end. A row that does not count is not read. The bits do not depend on the number of threads, but on
    /// the rows of a chunk they do.
    ///
    /// # Errors
    /// [`Error::InnerDimensions`] if the D differ; [`Error::ShapeMismatch`], [`Error::RankMismatch`],
    /// [`Error::InvalidArgument`] for shapes and options, and for `max_bytes` that do not hold the tiles of
    /// one row; [`Error::TargetOutOfRange`] with the first bad row.
    ///
    /// # Examples
    /// ```
    /// use autograd::{LinearCrossEntropyOptions, Tape, Tensor};
    /// let tape = Tape::new();
    /// let x = tape.var(Tensor::from_vec(vec![1.0_f64, 2.0], [1, 2])?);
    /// let w = tape.var(Tensor::from_vec(vec![1.0, 0.0, 0.0, 0.5], [2, 2])?); // both logits are 1
    /// let target = Tensor::from_vec(vec![1_i64], [1])?;
    /// let loss = x.linear_cross_entropy(&w, None, &target, &LinearCrossEntropyOptions::default())?;
    /// assert_eq!(loss.item()?, 2.0_f64.ln());
    /// assert_eq!(loss.backward()?.wrt(&w)?.to_vec(), [0.5, 1.0, -0.5, -1.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.linear_cross_entropy`; Wijmans et al., arXiv 2411.09009; Hsu et al., arXiv
    /// 2410.10989.
    #[track_caller]
    pub fn linear_cross_entropy(
        &self,
        w: &Self,
        b: Option<&Self>,
        target: &Tensor<i64>,
        options: &LinearCrossEntropyOptions<T>,
    ) -> Result<Self> {
        Ok(self.linear_class_loss((w, b), target, None, options, false)?.loss)
    }

    /// [`Var::linear_cross_entropy`] with a weight for each row, and with what the same pass finds
    /// besides: the log of each row's sum, how many rows count, how many are right.
    ///
    /// # Shape
    /// As there; `row_weight` has the shape of `target`.
    ///
    /// # Gradient
    /// As there, times the row's weight. Any order.
    ///
    /// # Errors
    /// As there; [`Error::InvalidArgument`] for a row's weight that is not finite.
    ///
    /// # Reference
    /// `torch.nn.functional.linear_cross_entropy`, which has no weights of rows.
    #[track_caller]
    pub fn linear_cross_entropy_detailed(
        &self,
        w: &Self,
        b: Option<&Self>,
        target: &Tensor<i64>,
        row_weight: Option<&Tensor<T>>,
        options: &LinearCrossEntropyOptions<T>,
    ) -> Result<ClassLoss<T>> {
        self.linear_class_loss((w, b), target, row_weight, options, true)
    }

    #[track_caller]
    fn linear_class_loss(
        &self,
        (w, b): (&Self, Option<&Self>),
        target: &Tensor<i64>,
        row_weight: Option<&Tensor<T>>,
        options: &LinearCrossEntropyOptions<T>,
        predictions: bool,
    ) -> Result<ClassLoss<T>> {
        let op = "linear_cross_entropy";
        let [n, v, d] = check(op, self.value(), w.value(), b.map(Var::value), target.shape())?;
        options.validate(op)?;
        let mut target_of = target.reshape([n])?;
        let mut weight_of = match row_weight {
            Some(w) if w.shape() != target.shape() => {
                let (lhs, rhs) = (target.shape().to_vec(), w.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            weight => weight.map(|w| w.reshape([n])).transpose()?,
        };
        let checked = Plan::new(op, &[n, v], &target_of, weight_of.as_ref(), &options.class)?;
        let (mut over, mut plan) = checked;
        let mut x = self.reshape([n, d])?;
        // Rows that do not count are left out before anything else sees them.
        let used = (0..n as i64).filter(|&row| plan.targets[row as usize] >= 0).collect::<Vec<_>>();
        let used = Tensor::from_slice(&used, [used.len()])?;
        let all = used.numel() == n;
        if !all {
            x = x.index_select(0, &used)?;
            target_of = target_of.index_select(0, &used)?;
            weight_of = weight_of.map(|w| w.index_select(0, &used)).transpose()?;
            let shape = [used.numel(), v];
            (over, plan) = Plan::new(op, &shape, &target_of, weight_of.as_ref(), &options.class)?;
        }
        plan.predictions = predictions;
        let (mut b, mut options) = (b.cloned(), options.clone());
        if options.temperature != 1.0 {
            let inverse = T::from_f64(1.0 / options.temperature);
            (x, b) = (x * inverse, b.map(|b| b * inverse));
            options.softcap = options.softcap.map(|cap| cap / options.temperature);
        }
        let (loss, over) = x.headed((w, b.as_ref()), over, plan, options)?;
        // Back among the rows that do not count.
        let placed = |rows: Var<T>| -> Result<Var<T>> {
            let rows = if all {
                rows
            } else {
                Var::constant(Tensor::zeros([n])?).index_add(0, &used, &rows)?
            };
            rows.reshape(Shape::from(target.shape()))
        };
        let loss = if over.reduces() { loss } else { placed(loss)? };
        if !predictions {
            return Ok(ClassLoss { loss, lse: Tensor::scalar(T::ZERO), valid: 0, correct: 0 });
        }
        let correct = over.rows.iter().filter(|row| row.correct).count();
        let found = over.detailed(loss, correct)?;
        let lse = placed(Var::constant(found.lse))?.value().clone();
        Ok(ClassLoss { lse, ..found })
    }

    /// The loss of rows that all count.
    #[track_caller]
    fn headed(
        &self,
        (w, b): (&Self, Option<&Self>),
        mut over: RowLosses,
        plan: Plan<T>,
        options: LinearCrossEntropyOptions<T>,
    ) -> Result<(Self, Arc<RowLosses>)> {
        let wanted = [self.is_tracked(), w.is_tracked(), b.is_some_and(Var::is_tracked)];
        let bias = b.map(|b| b.value().contiguous());
        let head = head_of(self.value(), w.value(), bias.as_ref(), &options);
        let mut ready = None;
        if over.reduces() && wanted.contains(&true) {
            let factors = over.factors(&Tensor::scalar(T::ONE));
            let targets = plan.kernel_targets();
            let (rows, found) = head.cross_entropy_with_gradients(targets, wanted, factors)?;
            (over.rows, ready) = (rows, Some(found));
        } else {
            over.rows = head.cross_entropy(plan.kernel_targets())?;
        }
        let loss = over.reduce()?;
        let over = Arc::new(over);
        let fused = Fused { plan, over: Arc::clone(&over) };
        let ready = Mutex::new(ready);
        let operands: Vec<&Self> = [Some(self), Some(w), b].into_iter().flatten().collect();
        let parents: Vec<_> = operands.iter().map(|operand| operand.node()).collect();
        let saved: Vec<_> = operands.iter().map(|operand| Save::Input(operand)).collect();
        let op = ("linear_cross_entropy", Tag::Plain);
        let loss = record_tagged(op, &parents, &saved, loss, move |ctx, g, sink| {
            // Taken, so that nothing of their size is alive beside what is delivered.
            let ready = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
            if ctx.create_graph() {
                return recorded((&fused, options.softcap), bias.is_some(), ctx, &g, sink);
            }
            let found = match (ready, g.item()) {
                (Some(found), Ok(g)) if g.abs() < T::INFINITY => {
                    found.map(|found| found.map(|x| if g == T::ONE { x } else { x * g }))
                }
                _ => {
                    let (x, w) = (ctx.saved(0), ctx.saved(1));
                    let bias = bias.is_some().then(|| ctx.saved(2).value().contiguous());
                    let head = head_of(x.value(), w.value(), bias.as_ref(), &options);
                    let needed = [0, 1, 2].map(|i| wanted[i] && ctx.needs(i));
                    let (targets, rows) = (fused.plan.kernel_targets(), &fused.over.rows);
                    let factors = fused.over.factors(g.value());
                    head.cross_entropy_backward(targets, rows, needed, factors)?
                }
            };
            for (i, found) in found.into_iter().enumerate() {
                if let Some(found) = found.filter(|_| ctx.needs(i)) {
                    sink.add_value(i, found)?;
                }
            }
            Ok(())
        })?;
        Ok((loss, over))
    }
}

/// `[N, V, D]`, with the leading dims of x as one.
fn check<T: Float>(
    op: &'static str,
    x: &Tensor<T>,
    w: &Tensor<T>,
    b: Option<&Tensor<T>>,
    target: &[usize],
) -> Result<[usize; 3]> {
    let [v, d] = w.dims(op)?;
    let Some((&inner, lead)) = x.shape().split_last() else {
        return Err(Error::RankMismatch { op, expected: "at least one dim", shape: vec![] });
    };
    if inner != d {
        let (lhs, rhs) = (x.shape().to_vec(), w.shape().to_vec());
        return Err(Error::InnerDimensions { op, lhs, rhs });
    }
    let mismatch = |lhs: &[usize], rhs: &[usize]| {
        Err(Error::ShapeMismatch { op, lhs: lhs.to_vec(), rhs: rhs.to_vec() })
    };
    match b {
        Some(b) if b.shape() != [v] => mismatch(w.shape(), b.shape()),
        _ if lead != target => mismatch(x.shape(), target),
        _ => Ok([lead.iter().product(), v, d]),
    }
}

fn head_of<'a, T: Float>(
    x: &'a Tensor<T>,
    weight: &'a Tensor<T>,
    bias: Option<&'a Tensor<T>>,
    options: &LinearCrossEntropyOptions<T>,
) -> Head<'a, T> {
    let LinearCrossEntropyOptions { softcap, filter, chunk_rows, max_bytes, .. } = *options;
    let bias = bias.and_then(Tensor::as_slice).unwrap_or_default();
    Head { x, weight, bias, softcap, filter, chunk_rows, max_bytes }
}

/// The backward pass as operations of their own, which can be differentiated again.
fn recorded<T: Float>(
    (fused, softcap): (&Fused<T>, Option<f64>),
    bias: bool,
    ctx: &Ctx<'_, T>,
    g: &Var<T>,
    sink: &mut Sink<'_, T>,
) -> Result<()> {
    let (x, w) = (ctx.saved(0), ctx.saved(1));
    let bias = bias.then(|| ctx.saved(2));
    let mut z = x.linear(&w, bias.as_ref())?;
    let cap = softcap.map(T::from_f64);
    if let Some(cap) = cap {
        z = (z / cap).tanh() * cap;
    }
    let plan = fused.plan.clone();
    let mut over = (*fused.over).clone();
    over.rows = kernel::cross_entropy(z.value(), 1, plan.kernel_targets());
    let of_logits = Arc::new(Fused { plan, over: Arc::new(over) });
    let mut dz = of_logits.gradient(&z, g)?;
    if let Some(cap) = cap {
        let share = z / cap;
        dz = dz * (-share.square() + T::ONE);
    }
    if ctx.needs(0) {
        sink.add(0, dz.matmul(&w)?)?;
    }
    if ctx.needs(1) {
        sink.add(1, dz.transpose(0, 1)?.matmul(&x)?)?;
    }
    if bias.is_some() && ctx.needs(2) {
        sink.add(2, dz.sum_dim(&[0], false)?)?;
    }
    Ok(())
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use super::class_loss::Reduction;
    use crate::suite::Row;
    let (name, mut rows) = ("linear_cross_entropy", Vec::new());
    let weight = Tensor::from([0.5, 0.0, 2.0, 1.25, 1.0]);
    let reductions = [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(2.5)];
    for (i, reduction) in reductions.into_iter().enumerate() {
        for label_smoothing in [0.0, 0.1] {
            for softcap in [None, Some(2.0)] {
                let class = ClassOptions {
                    weight: (i % 2 == 1).then(|| weight.clone()),
                    ignore_index: Some(2),
                    reduction,
                    label_smoothing,
                    z_loss: 0.1 * (i / 2) as f64,
                    ..ClassOptions::default()
                };
                let (temperature, chunk_rows) = ([1.0, 1.5][i % 2], [None, Some(2)][i % 2]);
                let options = LinearCrossEntropyOptions {
                    class,
                    softcap,
                    temperature,
                    chunk_rows,
                    ..LinearCrossEntropyOptions::default()
                };
                let target = Tensor::from([1_i64, 2, 4, 0, 3, 2]);
                let target = target.reshape([2, 3]).expect("six classes");
                let t = target.clone();
                let o = options.clone();
                rows.push(Row::of(name, &[&[2, 3, 4], &[5, 4], &[5]], move |x| {
                    x[0].linear_cross_entropy(&x[1], Some(&x[2]), &t, &o)
                }));
                let row_weight = Tensor::from([1.5, 1.0, 0.0, -0.25, 2.0, 0.5]);
                let row_weight = row_weight.reshape([2, 3]).expect("six weights");
                rows.push(Row::of(
                    "linear_cross_entropy_detailed",
                    &[&[2, 3, 4], &[5, 4]],
                    move |x| {
                        let (w, rows) = (&x[1], Some(&row_weight));
                        Ok(x[0]
                            .linear_cross_entropy_detailed(w, None, &target, rows, &options)?
                            .loss)
                    },
                ));
            }
        }
    }
    // A sum: the mean over nothing is NaN.
    let target = Tensor::from_slice(&[], [0]).expect("no classes");
    rows.push(Row::of(name, &[&[0, 4], &[5, 4]], move |x| {
        let class = ClassOptions { reduction: Reduction::Sum, ..ClassOptions::default() };
        let options = LinearCrossEntropyOptions { class, ..Default::default() };
        x[0].linear_cross_entropy(&x[1], None, &target, &options)
    }));
    let target = Tensor::from([2_i64, 0]);
    rows.push(Row::of(name, &[&[4, 2], &[4, 5]], move |x| {
        let (x, w) = (x[0].transpose(0, 1)?, x[1].transpose(0, 1)?);
        x.linear_cross_entropy(&w, None, &target, &LinearCrossEntropyOptions::default())
    }));
    rows
}
