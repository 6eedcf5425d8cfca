//! Losses on class targets: `nll_loss` and the fused `cross_entropy`.
//!
//! For a row x with target y, class weights w and smoothing ε over C classes, let
//! `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k` and `a = Σ_k c_k`. Then
//! `loss = −Σ_k c_k·log p_k = a·lse − Σ_k c_k·x_k` and `dx_k = s·(a·p_k − c_k)`, with s the upstream
//! gradient, over the divisor of a mean. Without weights a = 1: `softmax − smoothed_onehot`.

use std::borrow::Cow;
use std::sync::Arc;

use tensor::kernels::FloatKernels;
use tensor::kernels::softmax::{self as kernel, ClassTargets, RowSums};
use tensor::{Error, Float, Result, Shape, Tensor};

use crate::tape::{NodeRef, Place, Save, Tag, record, record_tagged};
use crate::var::Var;

/// How the losses of the rows become one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// No reduction: one loss for each row.
    None,
    /// The sum over the rows, divided by the sum of the weights of their targets (their number,
    /// without weights). NaN where that is 0; its gradient is then 0.
    #[default]
    Mean,
    /// The sum over the rows.
    Sum,
    /// The sum over the rows, divided by this number: for a mean over several batches.
    Divisor(f64),
}

/// Options of [`Var::cross_entropy`] and [`Var::nll_loss`]; the defaults are PyTorch's.
#[derive(Clone, Debug)]
pub struct ClassOptions<T: Float> {
    /// A factor for each class, `[C]`; finite and not negative. A factor of 0 removes the class.
    pub weight: Option<Tensor<T>>,
    /// Rows with this target do not count: no loss, no gradient, not read.
    pub ignore_index: Option<i64>,
    /// What becomes of the rows' losses.
    pub reduction: Reduction,
    /// ε in [0, 1]: the target distribution is `(1−ε)·onehot + ε/C`.
    pub label_smoothing: f64,
}

impl<T: Float> Default for ClassOptions<T> {
    fn default() -> Self {
        ClassOptions {
            weight: None,
            ignore_index: Some(-100),
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
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
        if let Reduction::Divisor(d) = self.reduction
            && !(d.is_finite() && d > 0.0)
        {
            return invalid("reduction", format!("needs a positive, finite divisor, found {d}"));
        }
        if let Some(weight) = &self.weight {
            let [_] = weight.dims(op)?;
            for (class, w) in weight.to_vec().into_iter().enumerate() {
                if !(w >= T::ZERO && w < T::INFINITY) {
                    let reason =
                        format!("must be finite and not negative, found {w:?} for class {class}");
                    return invalid("weight", reason);
                }
            }
        }
        Ok(())
    }
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

/// The rows of an input along its class dim, and how their losses become one.
pub(super) struct RowLosses {
    /// The class dim.
    pub(super) dim: usize,
    classes: usize,
    /// The shape of the input without the class dim.
    shape: Shape,
    per_row: bool,
    /// What the sum over rows is divided by; NaN where a mean has nothing to average.
    divisor: f64,
}

impl RowLosses {
    /// All checks that need no target.
    pub(super) fn new<T: Float>(
        op: &'static str,
        input: &Tensor<T>,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        options.validate(op)?;
        let dim = match input.rank() {
            0 => {
                let expected = "[C], [N, C] or [N, C, d1, ..]";
                return Err(Error::RankMismatch { op, expected, shape: vec![] });
            }
            1 => 0,
            _ => 1,
        };
        let classes = input.shape()[dim];
        let mut rows = input.shape().to_vec();
        rows.remove(dim);
        let shape = Shape::from(rows);
        if classes == 0 && shape.numel() > 0 {
            let reason = format!("has no classes: dim {dim} of {:?} is empty", input.shape());
            return Err(Error::InvalidArgument { op, name: "input", reason });
        }
        if let Some(w) = &options.weight
            && w.shape() != [classes]
        {
            let (lhs, rhs) = (input.shape().to_vec(), w.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let per_row = options.reduction == Reduction::None;
        Ok(RowLosses { dim, classes, shape, per_row, divisor: 1.0 })
    }

    /// Settles the divisor, with `total` for that of a mean.
    pub(super) fn divide(&mut self, reduction: Reduction, total: f64) {
        self.divisor = match reduction {
            Reduction::None | Reduction::Sum => 1.0,
            Reduction::Mean if total == 0.0 => f64::NAN,
            Reduction::Mean => total,
            Reduction::Divisor(d) => d,
        };
    }

    pub(super) fn count(&self) -> usize {
        self.shape.numel()
    }

    /// The loss from the losses of the rows.
    pub(super) fn reduce<T: Float>(&self, rows: &[f64]) -> Result<Tensor<T>> {
        if self.per_row {
            let rows = rows.iter().map(|&l| T::from_f64(l)).collect();
            return Tensor::from_vec(rows, &self.shape);
        }
        Ok(Tensor::scalar(T::from_f64(f64::sum_slice(rows) / self.divisor)))
    }

    /// The factor of each row's gradient, from the upstream gradient.
    pub(super) fn scale<T: Float>(
        &self,
        upstream: &Tensor<T>,
    ) -> impl Fn(usize) -> f64 + Sync + use<T> {
        let upstream = upstream.to_vec();
        let (per_row, share) = (self.per_row, self.share());
        move |row| upstream[if per_row { row } else { 0 }].to_f64() * share
    }

    /// 1/divisor; 0 where a mean has nothing to average.
    pub(super) fn share(&self) -> f64 {
        if self.divisor.is_nan() { 0.0 } else { 1.0 / self.divisor }
    }

    /// The upstream gradient, made to broadcast against the input.
    pub(super) fn upstream<T: Float>(&self, g: Var<T>) -> Result<Var<T>> {
        if self.per_row { g.unsqueeze(self.dim as isize) } else { Ok(g) }
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
    pub(super) fn by_row<T: Float>(&self, values: impl Iterator<Item = f64>) -> Result<Var<T>> {
        let rows = Tensor::from_vec(values.map(T::from_f64).collect(), &self.shape)?;
        Ok(Var::constant(rows.unsqueeze(self.dim as isize)?))
    }
}

/// Class targets and options, checked against an input, with all that forward and backward share.
struct Plan<T: Float> {
    over: RowLosses,
    /// The class of each row; −1 where the row does not count.
    targets: Vec<i64>,
    weight: Option<Tensor<T>>,
    label_smoothing: f64,
}

impl<T: Float> Plan<T> {
    fn new(
        op: &'static str,
        input: &Tensor<T>,
        target: &Tensor<i64>,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        let over = RowLosses::new(op, input, options)?;
        let classes = over.classes;
        if target.shape() != &*over.shape {
            let (lhs, rhs) = (input.shape().to_vec(), target.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let mut targets = target.to_vec();
        let used = |t: i64| options.ignore_index != Some(t);
        let bad = |t: i64| used(t) && !(0..classes as i64).contains(&t);
        if let Some(row) = targets.iter().position(|&t| bad(t)) {
            let (value, rows) = (targets[row], targets.iter().filter(|&&t| bad(t)).count());
            return Err(Error::TargetOutOfRange { op, row, value, classes, rows });
        }
        let weight = options.weight.as_ref().map(Tensor::contiguous);
        let label_smoothing = options.label_smoothing;
        let mut plan = Plan { over, targets: Vec::new(), weight, label_smoothing };
        let mut total_weight = 0.0;
        let weight = plan.weight.as_ref().and_then(Tensor::as_slice);
        let a = plan.kernel_targets().coefficient_sums(classes);
        for t in &mut targets {
            let class = if used(*t) { *t as usize } else { classes };
            if class < classes {
                total_weight += weight.map_or(1.0, |w| w[class].to_f64());
            }
            // A row whose coefficients are all 0 does not count either.
            if class == classes || a(class) == 0.0 {
                *t = -1;
            }
        }
        drop(a);
        plan.targets = targets;
        plan.over.divide(options.reduction, total_weight);
        Ok(plan)
    }

    fn kernel_targets(&self) -> ClassTargets<'_, T> {
        ClassTargets {
            classes: &self.targets,
            weight: self.weight.as_ref().and_then(Tensor::as_slice),
            label_smoothing: self.label_smoothing,
        }
    }

    /// a/divisor of each row, 0 where the row does not count.
    fn coefficient_sums(&self) -> Result<Var<T>> {
        let (classes, share) = (self.over.classes, self.over.share());
        let a = self.kernel_targets().coefficient_sums(classes);
        let of = |&t: &i64| usize::try_from(t).map_or(0.0, |class| share * a(class));
        self.over.by_row(self.targets.iter().map(of))
    }
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
    /// `dq_k = −s·(1−ε)·w_k·log softmax(x)_k`. Saves x, a few numbers per row, and the coefficients
    /// of probabilities. Any order.
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
        let op = "cross_entropy";
        match target.into() {
            Target::Classes(target) => {
                let plan = Plan::new(op, self.value(), target, options)?;
                self.fused_cross_entropy(plan, Tag::Plain)
            }
            Target::Probabilities(q) => self.soft_cross_entropy(op, &q, options),
        }
    }

    fn fused_cross_entropy(&self, plan: Plan<T>, tag: Tag) -> Result<Self> {
        let (rows, sums) =
            kernel::cross_entropy(self.value(), plan.over.dim, plan.kernel_targets());
        let loss = plan.over.reduce(&rows)?;
        let fused = Arc::new(Fused { plan, sums });
        let op = ("cross_entropy", tag);
        record_tagged(op, &[self.node()], &[Save::Input(self)], loss, move |ctx, g, sink| {
            sink.add(0, fused.gradient(&ctx.saved(0), &g)?)
        })
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
        let plan = Plan::new("nll_loss", self.value(), target, options)?;
        if let Some((logits, past)) = self.fusable_logits(plan.over.dim) {
            return logits.fused_cross_entropy(plan, Tag::FusedLoss { past });
        }
        let rows =
            kernel::negative_log_likelihood(self.value(), plan.over.dim, plan.kernel_targets());
        let loss = plan.over.reduce(&rows)?;
        let like = Tensor::scalar(T::ZERO).expand(self.shape())?;
        record("nll_loss", [self.node()], [], loss, move |ctx, g, sink| {
            if ctx.create_graph() {
                let share = plan.over.share();
                let c = plan.kernel_targets();
                let c = kernel::target_coefficients(&like, plan.over.dim, c, |_| -share);
                return sink.add(0, plan.over.upstream(g)? * Var::constant(c));
            }
            let scale = plan.over.scale(g.value());
            let targets = plan.kernel_targets();
            let dl = kernel::target_coefficients(&like, plan.over.dim, targets, |row| -scale(row));
            sink.add(0, Var::constant(dl))
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
struct Fused<T: Float> {
    plan: Plan<T>,
    sums: Vec<RowSums>,
}

impl<T: Float> Fused<T> {
    /// `dx = s·(a·p − c)` as a function of logits x and upstream gradient g (s = g/divisor).
    ///
    /// With upstream gradient v it has `dx = s·a·p·(v − ⟨p, v⟩)`, the Hessian-vector product, and
    /// `dg = ⟨a·p − c, v⟩/divisor`.
    fn gradient(self: &Arc<Self>, x: &Var<T>, g: &Var<T>) -> Result<Var<T>> {
        let (plan, sums) = (&self.plan, &self.sums);
        let (targets, scale) = (plan.kernel_targets(), plan.over.scale(g.value()));
        let dx = kernel::cross_entropy_backward(x.value(), plan.over.dim, targets, sums, scale);
        let saved = [Save::Input(x), Save::Input(g)];
        let nodes = [x.node(), g.node()];
        let fused = Arc::clone(self);
        record("cross_entropy_backward", nodes, saved, dx, move |ctx, v, sink| {
            let (plan, x, g) = (&fused.plan, ctx.saved(0), ctx.saved(1));
            let dim = plan.over.dim as isize;
            if ctx.needs(0) {
                // Rows that do not count are replaced before they are read: NaN must not spread.
                let used = plan.targets.iter().map(|&t| if t < 0 { 0.0 } else { 1.0 });
                let used = plan.over.by_row::<T>(used)?;
                let p = x.threshold_backward(used.value())?.softmax(dim)?;
                let centred = &v - (&p * &v).sum_dim(&[dim], true)?;
                let s = plan.over.upstream(g.clone())? * plan.coefficient_sums()?;
                sink.add(0, p * centred * s)?;
            }
            if ctx.needs(1) {
                let unit = Var::constant(g.value().ones_like());
                let products = fused.gradient(&x, &unit)? * v;
                sink.add(1, plan.over.total(products)?)?;
            }
            Ok(())
        })
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
