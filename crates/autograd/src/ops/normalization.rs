//! Normalisation: `y = x̂·w + b` with `x̂ = (x − μ)/σ` and `σ² = mean (x − μ)² + ε` over some dims;
//! layers, groups, batches, and (with μ = 0) root mean squares differ in those dims only.
//!
//! Two maps are closed under differentiation: x̂ has `dx = (h − mean h − x̂·mean(h·x̂))/σ` with
//! `h = g·w`, and σ has `dx = g·x̂/n`. Without a mean to subtract, `mean h` is missing too.

use std::sync::Arc;

use tensor::kernels::standardise::{Numbers, Standard, standardise};
use tensor::kernels::{Zip, Zip3};
use tensor::{Error, Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// What is normalised, and how.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    op: &'static str,
    /// The dims whose elements share a mean: a row.
    dims: Vec<isize>,
    /// Elements of a row.
    pub(super) n: usize,
    /// √ε.
    floor: f64,
    /// Whether the mean is subtracted.
    centred: bool,
}

/// Numbers of each row.
#[derive(Clone)]
pub(super) struct Rows<T: Float> {
    /// The mean, and what rounding it left over: together they are exact enough for rows far from 0.
    /// `None` where rows are not centred.
    pub(super) mean: Option<(Tensor<T>, Tensor<T>)>,
    /// `√(mean (x − μ)²)`.
    pub(super) spread: Tensor<T>,
    /// `σ = √(spread² + ε)`.
    deviation: Tensor<T>,
    /// The same in one list, where rows are one run of memory after the other.
    runs: Option<Arc<[Standard<T>]>>,
}

/// `√(x² + y²)` for x, y ≥ 0, the squares of which may leave the range.
struct Hypotenuse;
impl<T: Float> Zip<T> for Hypotenuse {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, y: T) -> T {
        let (small, large) = if x > y { (y, x) } else { (x, y) };
        let ratio = if large == T::ZERO { small } else { small / large };
        large * (T::ONE + ratio * ratio).sqrt()
    }
}

/// `(x − d)/σ`.
struct Standardise;
impl<T: Float> Zip3<T, T> for Standardise {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, d: T, deviation: T) -> T {
        (x - d) / deviation
    }
}

/// `x·w + b`.
pub(super) struct Affine;
impl<T: Float> Zip3<T, T> for Affine {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, w: T, b: T) -> T {
        x.mul_add::<FMA>(w, b)
    }
}

impl Norm {
    /// A norm over `dims`, which are in range, of a shape.
    pub(super) fn new(
        op: &'static str,
        shape: &[usize],
        dims: Vec<usize>,
        eps: f64,
        centred: bool,
    ) -> Result<Self> {
        if !(0.0..f64::INFINITY).contains(&eps) {
            let reason = format!("must be finite and not negative, found {eps}");
            return Err(Error::InvalidArgument { op, name: "eps", reason });
        }
        let n = dims.iter().map(|&d| shape[d]).product();
        let dims = dims.into_iter().map(|d| d as isize).collect();
        Ok(Norm { op, dims, n, floor: eps.sqrt(), centred })
    }

    /// `x̂·w + b` and the numbers of its rows; w and b broadcast to the shape of x.
    fn affine<T: Float>(
        &self,
        x: &Tensor<T>,
        w: Option<&Tensor<T>>,
        b: Option<&Tensor<T>>,
    ) -> Result<(Tensor<T>, Rows<T>)> {
        let row = &x.shape()[x.rank() - self.dims.len()..];
        let of_row =
            |p: Option<&Tensor<T>>| p.is_none_or(|p| p.shape() == row && p.as_slice().is_some());
        if of_row(w) && of_row(b) {
            let slices = [w.and_then(Tensor::as_slice), b.and_then(Tensor::as_slice)];
            if let Some(done) = self.by_runs(x, slices)? {
                return Ok(done);
            }
        }
        let (y, rows) = self.forward(x)?;
        let y = match (w, b) {
            (None, None) => y,
            (Some(w), None) => y * w,
            (None, Some(b)) => y + b,
            (Some(w), Some(b)) => y.zip3::<T, Affine>(self.op, w, b)?,
        };
        Ok((y, rows))
    }

    /// [`Norm::affine`] in one trip through memory, if the rows are one run of it after the other.
    fn by_runs<T: Float>(
        &self,
        x: &Tensor<T>,
        affine: [Option<&[T]>; 2],
    ) -> Result<Option<(Tensor<T>, Rows<T>)>> {
        let first = x.rank() - self.dims.len();
        if !self.dims.iter().copied().eq((first..x.rank()).map(|d| d as isize)) {
            return Ok(None);
        }
        let numbers = Numbers::Measured { floor: self.floor, centred: self.centred };
        let Some((y, found)) = standardise(x, self.n, numbers, affine) else { return Ok(None) };
        let shape = (0..x.rank()).map(|d| if d < first { x.shape()[d] } else { 1 });
        let shape = shape.collect::<Vec<_>>();
        let all = |number: fn(&Standard<T>) -> T| {
            Tensor::from_vec(found.iter().map(number).collect(), &shape[..])
        };
        let mean = if self.centred { Some((all(|s| s.mean)?, all(|s| s.rest)?)) } else { None };
        let (spread, deviation) = (all(|s| s.spread)?, all(|s| s.deviation)?);
        Ok(Some((y, Rows { mean, spread, deviation, runs: Some(found.into()) })))
    }

    /// x̂ and the numbers of its rows.
    fn forward<T: Float>(&self, x: &Tensor<T>) -> Result<(Tensor<T>, Rows<T>)> {
        if let Some(done) = self.by_runs(x, [None, None])? {
            return Ok(done);
        }
        let (mean, away) = if self.centred {
            let mean = x.mean_dim(&self.dims, true)?;
            let away = x - &mean;
            let rest = away.mean_dim(&self.dims, true)?;
            let away = away - &rest;
            (Some((mean, rest)), away)
        } else {
            (None, x.clone())
        };
        let root = T::from_f64((self.n as f64).sqrt());
        let mut spread = away.norm_dim(2.0, &self.dims, true)? / root;
        let overflowed = spread.isinf();
        if overflowed.any().item()? {
            // A length may leave the range where that of a share of the row does not.
            let share = (&away / root).norm_dim(2.0, &self.dims, true)?;
            spread = overflowed.where_cond(&share, &spread)?;
        }
        let deviation = spread.zip::<T, Hypotenuse>(self.op, T::from_f64(self.floor))?;
        Ok((away / &deviation, Rows { mean, spread, deviation, runs: None }))
    }

    /// x̂ again, with the same bits.
    fn again<T: Float>(&self, x: &Tensor<T>, rows: &Rows<T>) -> Result<Tensor<T>> {
        let runs = rows.runs.as_deref().map(Numbers::Known);
        if let Some((y, _)) = runs.and_then(|runs| standardise(x, self.n, runs, [None, None])) {
            return Ok(y);
        }
        match &rows.mean {
            None => Ok(x / &rows.deviation),
            Some((mean, rest)) => (x - mean).zip3::<T, Standardise>(self.op, rest, &rows.deviation),
        }
    }
}

impl<T: Float> Var<T> {
    /// `x̂·w + b`, and the numbers of its rows; w and b broadcast to the shape of x.
    #[track_caller]
    pub(super) fn normalise(
        &self,
        norm: Norm,
        w: Option<&Self>,
        b: Option<&Self>,
    ) -> Result<(Self, Rows<T>)> {
        let (y, rows) = norm.affine(self.value(), w.map(Var::value), b.map(Var::value))?;
        let nothing = Var::constant(Tensor::scalar(T::ONE));
        let weighted = w.is_some();
        let (scaled, needs_x) = match w {
            Some(w) if self.is_tracked() => (w, true),
            Some(w) => (&nothing, w.is_tracked()),
            None => (&nothing, self.is_tracked()),
        };
        let saved = [Save::Input(if needs_x { self } else { &nothing }), Save::Input(scaled)];
        let nodes = [self.node(), w.and_then(Var::node), b.and_then(Var::node)];
        let (op, kept) = (norm.op, rows.clone());
        let y = record(op, nodes, saved, y, move |ctx, g, sink| {
            if ctx.needs(2) {
                sink.add_broadcast(2, g.clone())?;
            }
            if !(ctx.needs(0) || ctx.needs(1)) {
                return Ok(());
            }
            let x = ctx.saved(0);
            let (normal, deviation) = if ctx.create_graph() {
                (x.normalise(norm.clone(), None, None)?.0, x.deviation(norm.clone())?)
            } else {
                let normal = norm.again(x.value(), &kept)?;
                (Var::constant(normal), Var::constant(kept.deviation.clone()))
            };
            if ctx.needs(1) {
                sink.add_broadcast(1, &g * &normal)?;
            }
            if ctx.needs(0) {
                let h = if weighted { g * ctx.saved(1) } else { g };
                let along = (&h * &normal).mean_dim(&norm.dims, true)?;
                let level = if norm.centred { Some(h.mean_dim(&norm.dims, true)?) } else { None };
                let h = match level {
                    Some(level) => h - level,
                    None => h,
                };
                sink.add(0, (h - normal * along) / deviation)?;
            }
            Ok(())
        })?;
        Ok((y, rows))
    }

    /// σ of each row: `dx = g·x̂/n`.
    #[track_caller]
    fn deviation(&self, norm: Norm) -> Result<Self> {
        let (_, rows) = norm.forward(self.value())?;
        let (n, deviation) = (T::from_f64(norm.n as f64), rows.deviation.clone());
        record("deviation", [self.node()], [Save::Input(self)], deviation, move |ctx, g, sink| {
            let x = ctx.saved(0);
            let normal = if ctx.create_graph() {
                x.normalise(norm.clone(), None, None)?.0
            } else {
                Var::constant(norm.again(x.value(), &rows)?)
            };
            sink.add(0, g / n * normal)
        })
    }

    /// Layer normalisation over the last dims, which have the shape `normalized_shape`:
    /// `y = (x − μ)/√(var + ε)·w + b`, with mean and variance (over n) of each row of those dims.
    ///
    /// # Shape
    /// `[.., D]` → the same; `normalized_shape = [D]`, or more dims; w and b have that shape.
    ///
    /// # Gradient
    /// With `h = g·w`: `dx = (h − mean h − x̂·mean(h·x̂))/σ`, `dw = Σ g·x̂` and `db = Σ g` over the
    /// leading dims. Saves x, w and a few numbers per row. Any order.
    ///
    /// # Numerics
    /// Mean and variance take two passes and are corrected for the rounding of the mean, so that rows
    /// far from 0 keep the digits they have. A constant row gives b, and its gradient is finite if
    /// ε > 0. Squares do not overflow.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless x ends in `normalized_shape`, which w and b have;
    /// [`Error::InvalidArgument`] if that is empty, or for an ε that is negative or not finite.
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from([[1.0_f64, 3.0], [5.0, 5.0]]));
    /// let y = x.layer_norm(&[2], None, None, 1e-12)?;
    /// assert!((y.value().to_vec()[1] - 1.0).abs() < 1e-11);
    /// assert_eq!(y.value().to_vec()[2..], [0.0, 0.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.layer_norm`; Ba, Kiros & Hinton, arXiv 1607.06450.
    #[track_caller]
    pub fn layer_norm(
        &self,
        normalized_shape: &[usize],
        w: Option<&Self>,
        b: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        let dims = self.trailing("layer_norm", normalized_shape, [w, b])?;
        let norm = Norm::new("layer_norm", self.shape(), dims, eps, true)?;
        Ok(self.normalise(norm, w, b)?.0)
    }

    /// Root mean square normalisation over the last dims: `y = x/√(mean x² + ε)·w`.
    ///
    /// # Shape
    /// `[.., D]` → the same; `normalized_shape = [D]`, or more dims; w has that shape.
    ///
    /// # Gradient
    /// With `h = g·w` and `x̂ = x/σ`: `dx = (h − x̂·mean(h·x̂))/σ`, `dw = Σ g·x̂` over the leading
    /// dims. Saves x, w and a few numbers per row. Any order.
    ///
    /// # Errors
    /// As [`Var::layer_norm`].
    ///
    /// # Reference
    /// `torch.nn.functional.rms_norm`; Zhang & Sennrich, arXiv 1910.07467.
    #[track_caller]
    pub fn rms_norm(&self, normalized_shape: &[usize], w: Option<&Self>, eps: f64) -> Result<Self> {
        let dims = self.trailing("rms_norm", normalized_shape, [w, None])?;
        let norm = Norm::new("rms_norm", self.shape(), dims, eps, false)?;
        Ok(self.normalise(norm, w, None)?.0)
    }

    /// Group normalisation: mean and variance (over n) of each sample's channels, in `groups` parts:
    /// `y = (x − μ)/√(var + ε)·w + b`. One group is a layer norm, C groups are an instance norm.
    ///
    /// # Shape
    /// `[N, C, ..]` → the same; w and b: `[C]`.
    ///
    /// # Gradient
    /// With `h = g·w`: `dx = (h − mean h − x̂·mean(h·x̂))/σ`, `dw = Σ g·x̂` and `db = Σ g` over all
    /// dims but C. Saves x, w and a few numbers per group. Any order.
    ///
    /// # Numerics
    /// As [`Var::layer_norm`]. A group of one element gives b (PyTorch refuses it).
    ///
    /// # Errors
    /// [`Error::RankMismatch`] below rank 2; [`Error::ShapeMismatch`] for w and b;
    /// [`Error::InvalidArgument`] for groups that do not divide C, and for ε as
    /// [`Var::layer_norm`].
    ///
    /// # Reference
    /// `torch.nn.functional.group_norm`; Wu & He, arXiv 1803.08494.
    #[track_caller]
    pub fn group_norm(
        &self,
        groups: usize,
        w: Option<&Self>,
        b: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        let op = "group_norm";
        let channels = self.channels(op, [w, b])?;
        if groups == 0 || !channels.is_multiple_of(groups) {
            let reason = format!("must divide the {channels} channels, found {groups}");
            return Err(Error::InvalidArgument { op, name: "groups", reason });
        }
        let inner = self.shape()[2..].iter().product();
        let x = self.reshape([self.shape()[0], groups, channels / groups, inner])?;
        let [w, b] = shaped([w, b], &[groups, channels / groups, 1])?;
        let norm = Norm::new(op, x.shape(), vec![2, 3], eps, true)?;
        x.normalise(norm, w.as_ref(), b.as_ref())?.0.reshape(self.shape())
    }

    /// The last dims, checked to have this shape, as the parameters have.
    fn trailing(
        &self,
        op: &'static str,
        normalized_shape: &[usize],
        parameters: [Option<&Self>; 2],
    ) -> Result<Vec<usize>> {
        if normalized_shape.is_empty() {
            let reason = "must name one dim or more".into();
            return Err(Error::InvalidArgument { op, name: "normalized_shape", reason });
        }
        if !self.shape().ends_with(normalized_shape) {
            let (lhs, rhs) = (self.shape().to_vec(), normalized_shape.to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        for parameter in parameters.into_iter().flatten() {
            self.check_shape(op, parameter.shape(), normalized_shape)?;
        }
        let rank = self.value().rank();
        Ok((rank - normalized_shape.len()..rank).collect())
    }

    /// The number of channels, that of the elements of each parameter.
    pub(super) fn channels(
        &self,
        op: &'static str,
        parameters: [Option<&Self>; 2],
    ) -> Result<usize> {
        let [_, channels, ..] = *self.shape() else {
            let (expected, shape) = ("[N, C, ..]", self.shape().to_vec());
            return Err(Error::RankMismatch { op, expected, shape });
        };
        for parameter in parameters.into_iter().flatten() {
            self.check_shape(op, parameter.shape(), &[channels])?;
        }
        Ok(channels)
    }

    pub(super) fn check_shape(
        &self,
        op: &'static str,
        found: &[usize],
        wanted: &[usize],
    ) -> Result<()> {
        if found == wanted {
            return Ok(());
        }
        Err(Error::ShapeMismatch { op, lhs: self.shape().to_vec(), rhs: found.to_vec() })
    }
}

/// Parameters under another shape.
#[track_caller]
pub(super) fn shaped<T: Float>(
    [w, b]: [Option<&Var<T>>; 2],
    shape: &[usize],
) -> Result<[Option<Var<T>>; 2]> {
    let w = match w {
        Some(w) => Some(w.reshape(shape)?),
        None => None,
    };
    let b = match b {
        Some(b) => Some(b.reshape(shape)?),
        None => None,
    };
    Ok([w, b])
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::of("layer_norm", &[&[2, 3]], |x| x[0].layer_norm(&[3], None, None, 0.1))
            .and(&[&[2, 4, 3], &[3], &[3]], |x| {
                x[0].layer_norm(&[3], Some(&x[1]), Some(&x[2]), 1e-3)
            })
            .and(&[&[3, 2, 4], &[2, 4], &[2, 4]], |x| {
                x[0].layer_norm(&[2, 4], Some(&x[1]), Some(&x[2]), 1e-5)
            })
            .and(&[&[3, 4], &[4]], |x| x[0].layer_norm(&[4], Some(&x[1]), None, 1e-5))
            .and(&[&[3, 4], &[4]], |x| x[0].layer_norm(&[4], None, Some(&x[1]), 0.0))
            .and(&[&[4, 5], &[4]], |x| {
                x[0].transpose(0, 1)?.layer_norm(&[4], Some(&x[1]), Some(&x[1]), 1e-5)
            })
            .and(&[&[3, 4], &[1]], |x| {
                let w = x[1].expand([4])?;
                x[0].expand([2, 3, 4])?.layer_norm(&[4], Some(&w), None, 1e-5)
            })
            .and(&[&[3]], |x| x[0].layer_norm(&[3], Some(&x[0]), Some(&x[0]), 1e-5))
            .and(&[&[2, 1], &[1], &[1]], |x| x[0].layer_norm(&[1], Some(&x[1]), Some(&x[2]), 1e-2))
            .and(&[&[0, 3], &[3], &[3]], |x| x[0].layer_norm(&[3], Some(&x[1]), Some(&x[2]), 0.1))
            .and(&[&[2, 0], &[0]], |x| x[0].layer_norm(&[0], Some(&x[1]), None, 0.1)),
        Row::of("rms_norm", &[&[2, 3]], |x| x[0].rms_norm(&[3], None, 0.1))
            .and(&[&[2, 4, 3], &[3]], |x| x[0].rms_norm(&[3], Some(&x[1]), 1e-3))
            .and(&[&[3, 2, 4], &[2, 4]], |x| x[0].rms_norm(&[2, 4], Some(&x[1]), 1e-5))
            .and(&[&[4, 5], &[4]], |x| x[0].transpose(0, 1)?.rms_norm(&[4], Some(&x[1]), 0.0))
            .and(&[&[3]], |x| x[0].rms_norm(&[3], Some(&x[0]), 1e-5))
            .and(&[&[2, 1]], |x| x[0].rms_norm(&[1], None, 0.1))
            .and(&[&[0, 3], &[3]], |x| x[0].rms_norm(&[3], Some(&x[1]), 0.1))
            .and(&[&[2, 0]], |x| x[0].rms_norm(&[0], None, 0.1)),
        Row::of("group_norm", &[&[1, 2, 3]], |x| x[0].group_norm(2, None, None, 0.1))
            .and(&[&[2, 4, 3], &[4], &[4]], |x| x[0].group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3))
            .and(&[&[2, 3, 2, 2], &[3], &[3]], |x| {
                x[0].group_norm(1, Some(&x[1]), Some(&x[2]), 1e-5)
            })
            .and(&[&[3, 6], &[6]], |x| x[0].group_norm(2, Some(&x[1]), None, 1e-5))
            .and(&[&[3, 4, 2], &[4]], |x| {
                x[0].permute(&[2, 1, 0])?.group_norm(2, None, Some(&x[1]), 1e-5)
            })
            .and(&[&[0, 4, 2], &[4]], |x| x[0].group_norm(2, Some(&x[1]), None, 1e-5)),
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

    fn close(a: &Tensor<f64>, b: &Tensor<f64>) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a.to_vec().into_iter().zip(b.to_vec()) {
            assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    /// `(x − mean)/√(var + ε)` of each row of `dims`, by the methods of tensors.
    fn plain(x: &Tensor<f64>, dims: &[isize], eps: f64) -> Tensor<f64> {
        let var = x.var_dim(dims, 0, true).unwrap();
        (x - &x.mean_dim(dims, true).unwrap()) / &(var + eps).sqrt()
    }

    #[test]
    fn each_norm_is_the_formula_over_its_dims() {
        let (x, w, b) = (randn(&[3, 4, 2, 5], 1), randn(&[4], 2), randn(&[4], 3));
        let [v, weight, bias] = [&x, &w, &b].map(|t| Var::constant(t.clone()));
        let [w, b] = [&w, &b].map(|t| t.reshape([4, 1, 1]).unwrap());
        let (p, q) = (Some(&weight), Some(&bias));
        close(v.layer_norm(&[2, 5], None, None, 0.1).unwrap().value(), &plain(&x, &[2, 3], 0.1));
        let grouped = x.reshape([3, 2, 2, 10]).unwrap();
        let grouped = plain(&grouped, &[2, 3], 1e-3).reshape([3, 4, 2, 5]).unwrap() * &w + &b;
        close(v.group_norm(2, p, q, 1e-3).unwrap().value(), &grouped);
        let square = x.square().mean_dim(&[-1], true).unwrap();
        let rms = &x / &(square + 1e-3).sqrt();
        close(v.rms_norm(&[5], None, 1e-3).unwrap().value(), &rms);
    }

    #[test]
    fn a_constant_row_is_zero_and_has_a_finite_gradient() {
        let x = Tape::new().var(Tensor::full([2, 4], 1e6_f32 + 0.1).unwrap());
        let y = x.layer_norm(&[4], None, None, 1e-5).unwrap();
        assert_eq!(y.value().to_vec(), [0.0; 8]);
        let g = Tensor::from([[1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]);
        let dx = y.backward_with(&g).unwrap().wrt(&x).unwrap().to_vec();
        let slope = 1.0 / 1e-5_f32.sqrt();
        assert!((dx[0] / (0.75 * slope) - 1.0).abs() < 1e-6, "{dx:?}");
        assert_eq!(dx[4..], [0.0; 4]);
    }

    #[test]
    fn rows_far_from_zero_keep_their_digits() {
        // Numbers of f32 near 10⁶ are 1/16 apart; the spread is two of those steps.
        let x: Vec<f32> = (0..768).map(|i| 1e6 + f32::from((i * 7 % 11) as u8) / 16.0).collect();
        let exact: Tensor<f64> = Tensor::from_slice(&x, [1, 768]).unwrap().cast();
        let want = plain(&(exact - 1e6), &[1], 1e-5).to_vec();
        let x = Var::constant(Tensor::from_vec(x, [1, 768]).unwrap());
        let y = x.layer_norm(&[768], None, None, 1e-5).unwrap().value().to_vec();
        for (y, want) in y.into_iter().zip(want) {
            // A few roundings of numbers of size 1.
            assert!((f64::from(y) - want).abs() < 1e-6, "{y} {want}");
        }
    }

    #[test]
    fn extreme_rows_neither_overflow_nor_hide_nan() {
        let row = |x: [f32; 2], eps: f64| {
            let x = Var::constant(Tensor::from_slice(&x, [1, 2]).unwrap());
            x.layer_norm(&[2], None, None, eps).unwrap().value().to_vec()
        };
        for scale in [1e30, 1e-30, 3e-39_f32] {
            let y = row([-scale, scale], 0.0);
            assert!((y[0] + 1.0).abs() < 1e-6 && (y[1] - 1.0).abs() < 1e-6, "{y:?}");
        }
        assert!(row([1.0, f32::NAN], 1e-5).iter().all(|y| y.is_nan()));
        assert!(row([1.0, f32::INFINITY], 1e-5)[1].is_nan());
        // 0/0 without an ε, as the formula has it.
        assert!(row([2.0, 2.0], 0.0).iter().all(|y| y.is_nan()));
        let x = Var::constant(Tensor::from([3e38_f32, 3e38]));
        assert_eq!(x.rms_norm(&[2], None, 1e-5).unwrap().value().to_vec(), [1.0, 1.0]);
    }

    #[test]
    fn a_parameter_alone_is_tracked() {
        let tape = Tape::new();
        let (x, w) = (tape.constant(randn(&[2, 3], 1)), tape.var(randn(&[3], 2)));
        let y = x.layer_norm(&[3], None, Some(&w), 1e-5).unwrap();
        // Neither x nor anything of its size is kept for the gradient of a bias.
        let numel: usize = tape.0.graph.borrow().saved_of(1).iter().map(|s| s.value.numel()).sum();
        assert_eq!(numel, 2);
        assert_eq!(y.sum().backward().unwrap().wrt(&w).unwrap().to_vec(), [2.0; 3]);
    }

    #[test]
    fn rejects_bad_shapes_and_options() {
        let z = |shape: &[usize]| Var::constant(Tensor::<f64>::zeros(shape).unwrap());
        let text = |r: Result<Var<f64>>| r.unwrap_err().to_string();
        let (x, w) = (z(&[2, 3, 4]), z(&[3]));
        assert_eq!(
            text(x.layer_norm(&[3], None, None, 1e-5)),
            "layer_norm: shapes do not match: [2, 3, 4] and [3]"
        );
        assert!(text(x.layer_norm(&[], None, None, 1e-5)).contains("must name one dim"));
        assert!(text(x.layer_norm(&[4], Some(&w), None, 1e-5)).contains("do not match"));
        assert!(text(x.layer_norm(&[4], None, Some(&w), 1e-5)).contains("do not match"));
        assert_eq!(
            text(x.rms_norm(&[4], None, -1.0)),
            "rms_norm: eps must be finite and not negative, found -1"
        );
        assert!(text(x.rms_norm(&[4], None, f64::NAN)).contains("found NaN"));
        assert_eq!(
            text(x.group_norm(2, None, None, 1e-5)),
            "group_norm: groups must divide the 3 channels, found 2"
        );
        assert!(text(x.group_norm(0, None, None, 1e-5)).contains("found 0"));
        assert!(text(w.group_norm(1, None, None, 1e-5)).contains("expected [N, C, ..]"));
    }
}
