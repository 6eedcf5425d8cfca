//! Derivatives of functions as functions: what `torch.func` has, on plain closures of variables.
//!
//! Inputs on no tape give results on no tape. Inputs on a tape, tracked or not, give results that are
//! recorded there and can be differentiated again, so that transforms nest. Where a derivative does
//! not depend on an input it is zero, not an error.

use rayon::prelude::*;
use tensor::{Error, Float, Result, Tensor};

use crate::engine;
use crate::gradients::Gradients;
use crate::ops::total;
use crate::tape::{Tape, record};
use crate::var::Var;

/// Outputs, or something for each input.
pub type Variables<T> = Vec<Var<T>>;

/// The inputs as variables of their own, so that a derivative in them does not see other ways from
/// the caller's variables to the output.
struct Inputs<T: Float> {
    tape: Tape<T>,
    x: Vec<Var<T>>,
    /// Whether results stay on the caller's tape.
    nested: bool,
}

impl<T: Float> Inputs<T> {
    fn new(op: &'static str, inputs: &[Var<T>]) -> Result<Self> {
        let mut tapes = inputs.iter().filter_map(Var::tape);
        let found = tapes.next();
        if found.is_some_and(|first| tapes.any(|t| !t.same(first))) {
            return Err(Error::MixedTapes { op });
        }
        let (nested, tape) = (found.is_some(), found.cloned().unwrap_or_default());
        let x = inputs.iter().map(|x| alias(&tape, x)).collect();
        Ok(Inputs { tape, x, nested })
    }

    fn refs(&self) -> Vec<&Var<T>> {
        self.x.iter().collect()
    }

    /// Gradients of `Σ ⟨upstream, outputs⟩`; zeros where an output does not depend on an input.
    fn gradients(
        &self,
        outputs: &[Var<T>],
        upstream: &[Var<T>],
        create_graph: bool,
    ) -> Result<Vec<Var<T>>> {
        same_number("upstream", outputs.len(), upstream.len())?;
        let pairs = outputs.iter().zip(upstream).filter(|(y, _)| y.is_tracked());
        let (y, u): (Vec<_>, Vec<_>) = pairs.map(|(y, u)| (y, u.clone())).unzip();
        let found = engine::grad(&y, &self.refs(), &u, create_graph)?;
        let zeros = |x: &Var<T>| self.tape.constant(x.value().zeros_like());
        Ok(found.into_iter().zip(&self.x).map(|(g, x)| g.unwrap_or_else(|| zeros(x))).collect())
    }

    /// Results as the caller gets them: off the tape, unless that is the caller's.
    fn finish(&self, results: Vec<Var<T>>) -> Vec<Var<T>> {
        if self.nested {
            return results;
        }
        results.into_iter().map(|r| Var::constant(r.into_value())).collect()
    }
}

/// `y = x` as a node of its own on `tape`.
pub(crate) fn alias<T: Float>(tape: &Tape<T>, x: &Var<T>) -> Var<T> {
    if !x.is_tracked() {
        return tape.var(x.value().clone());
    }
    total(record("alias", [x.node()], [], x.value().clone(), |_, g, sink| sink.add(0, g)))
}

fn same_number(name: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let reason = format!("has {found} entries, expected {expected}");
    Err(Error::InvalidArgument { op: "transform", name, reason })
}

fn scalar<T: Float>(op: &'static str, y: &Var<T>) -> Result<Var<T>> {
    if y.value().numel() != 1 {
        return Err(Error::NotScalar { op, shape: y.shape().to_vec() });
    }
    Ok(Var::constant(y.value().ones_like()))
}

/// The gradient of a function of one element, in each input. `torch.func.grad`.
///
/// # Errors
/// [`Error::NotScalar`] unless `f` gives one element; what `f` and its backward return.
///
/// # Examples
/// ```
/// use autograd::{transforms, Tensor, Var};
/// let x = Var::constant(Tensor::scalar(0.5_f64));
/// let cube = |x: &[Var<f64>]| Ok(&x[0] * &x[0] * &x[0]);
/// let slope = |x: &[Var<f64>]| Ok(transforms::grad(cube, x)?.remove(0));
/// assert_eq!(slope(&[x.clone()])?.item()?, 0.75);
/// assert_eq!(transforms::grad(slope, &[x])?[0].item()?, 3.0); // 6x
/// # Ok::<(), autograd::Error>(())
/// ```
pub fn grad<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    inputs: &[Var<T>],
) -> Result<Vec<Var<T>>> {
    value_and_grad(f, inputs).map(|(_, g)| g)
}

/// The value of a function of one element, and its gradient in each input.
/// `torch.func.grad_and_value`.
///
/// # Errors
/// As [`grad`].
pub fn value_and_grad<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    inputs: &[Var<T>],
) -> Result<(Var<T>, Vec<Var<T>>)> {
    let inputs = Inputs::new("grad", inputs)?;
    let y = f(&inputs.x)?;
    let one = scalar("grad", &y)?;
    let g = inputs.gradients(std::slice::from_ref(&y), &[one], inputs.nested)?;
    Ok((inputs.finish(vec![y]).remove(0), inputs.finish(g)))
}

/// The outputs of `f`, and the vector-Jacobian product `uᵀ·J`: for each input the gradient of
/// `Σ ⟨upstream, outputs⟩`. `torch.func.vjp`.
///
/// # Errors
/// [`Error::ShapeMismatch`] and [`Error::InvalidArgument`] for upstream gradients that do not fit the
/// outputs; what `f` and its backward return.
pub fn vjp<T: Float, O: Into<Vec<Var<T>>>>(
    f: impl Fn(&[Var<T>]) -> Result<O>,
    inputs: &[Var<T>],
    upstream: &[Var<T>],
) -> Result<(Variables<T>, Variables<T>)> {
    let inputs = Inputs::new("vjp", inputs)?;
    let y = f(&inputs.x)?.into();
    let g = inputs.gradients(&y, upstream, inputs.nested)?;
    Ok((inputs.finish(y), inputs.finish(g)))
}

/// The outputs of `f`, and the Jacobian-vector product `J·v`: for each output its derivative along
/// `tangents`. `torch.func.jvp`.
///
/// Computed as the derivative of [`vjp`], which is linear, in its upstream gradient.
///
/// # Errors
/// [`Error::ShapeMismatch`] and [`Error::InvalidArgument`] for tangents that do not fit the inputs;
/// what `f` and its backward return; [`Error::HighestOrder`] where an operation has first derivatives
/// only.
pub fn jvp<T: Float, O: Into<Vec<Var<T>>>>(
    f: impl Fn(&[Var<T>]) -> Result<O>,
    inputs: &[Var<T>],
    tangents: &[Var<T>],
) -> Result<(Variables<T>, Variables<T>)> {
    let inputs = Inputs::new("jvp", inputs)?;
    same_number("tangents", inputs.x.len(), tangents.len())?;
    inputs.x.iter().zip(tangents).try_for_each(|(x, v)| engine::same_shape("jvp", x, v.value()))?;
    let y: Vec<Var<T>> = f(&inputs.x)?.into();
    let x = y.iter().map(|y| inputs.tape.var(y.value().zeros_like())).collect();
    let upstream = Inputs { tape: inputs.tape.clone(), x, nested: inputs.nested };
    let g = inputs.gradients(&y, &upstream.x, true)?;
    let along = upstream.gradients(&g, tangents, inputs.nested)?;
    Ok((inputs.finish(y), inputs.finish(along)))
}

/// The Hessian-vector product `H·v` of a function of one element: for each input the derivative of
/// the gradient along `vectors`. Zeros for a linear function. `torch.autograd.functional.hvp`.
///
/// # Errors
/// [`Error::NotScalar`] unless `f` gives one element; [`Error::ShapeMismatch`] and
/// [`Error::InvalidArgument`] for vectors that do not fit the inputs; what `f` and its backward
/// return.
pub fn hvp<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    inputs: &[Var<T>],
    vectors: &[Var<T>],
) -> Result<Vec<Var<T>>> {
    let inputs = Inputs::new("hvp", inputs)?;
    let y = f(&inputs.x)?;
    let one = scalar("hvp", &y)?;
    let g = inputs.gradients(&[y], &[one], true)?;
    same_number("vectors", g.len(), vectors.len())?;
    g.iter().zip(vectors).try_for_each(|(g, v)| engine::same_shape("hvp", g, v.value()))?;
    let product = inputs.gradients(&g, vectors, inputs.nested)?;
    Ok(inputs.finish(product))
}

/// The Jacobian of `f` in each input: of the shape of the output followed by that of the input.
/// `torch.func.jacrev`.
///
/// One backward for each element of the output.
///
/// # Errors
/// What `f` and its backward return.
///
/// # Examples
/// ```
/// use autograd::{transforms, Tensor, Var};
/// let x = Var::constant(Tensor::from([1.0_f64, 2.0]));
/// let jacobian = transforms::jacobian(|x| Ok(&x[0] * &x[0]), &[x])?;
/// assert_eq!(jacobian[0].value().to_vec(), [2.0, 0.0, 0.0, 4.0]);
/// # Ok::<(), autograd::Error>(())
/// ```
pub fn jacobian<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    inputs: &[Var<T>],
) -> Result<Vec<Var<T>>> {
    let inputs = Inputs::new("jacobian", inputs)?;
    let y = f(&inputs.x)?;
    let rows = rows(&inputs, &y)?;
    Ok(inputs.finish(rows))
}

/// The Hessian of a function of one element: block `[i][j]` has the shape of input i followed by that
/// of input j. `torch.func.hessian`.
///
/// # Errors
/// [`Error::NotScalar`] unless `f` gives one element; what `f` and its backward return.
pub fn hessian<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    inputs: &[Var<T>],
) -> Result<Vec<Vec<Var<T>>>> {
    let inputs = Inputs::new("hessian", inputs)?;
    let y = f(&inputs.x)?;
    let one = scalar("hessian", &y)?;
    let g = inputs.gradients(&[y], &[one], true)?;
    g.iter().map(|g| Ok(inputs.finish(rows(&inputs, g)?))).collect()
}

/// The derivatives of every element of `y`, one below the other.
fn rows<T: Float>(inputs: &Inputs<T>, y: &Var<T>) -> Result<Vec<Var<T>>> {
    let n = y.value().numel();
    let mut of_input: Vec<Vec<Var<T>>> = vec![Vec::with_capacity(n); inputs.x.len()];
    let mut unit = vec![T::ZERO; n];
    for k in 0..n {
        unit[k] = T::ONE;
        let u = Var::constant(Tensor::from_slice(&unit, y.shape())?);
        unit[k] = T::ZERO;
        let row = inputs.gradients(std::slice::from_ref(y), &[u], inputs.nested)?;
        of_input.iter_mut().zip(row).for_each(|(rows, g)| rows.push(g));
    }
    let stack = |(rows, x): (Vec<Var<T>>, &Var<T>)| {
        let shape = [y.shape(), x.shape()].concat();
        if rows.is_empty() {
            return Ok(inputs.tape.constant(Tensor::zeros(shape)?));
        }
        Var::stack(&rows.iter().collect::<Vec<_>>(), 0)?.reshape(shape)
    };
    of_input.into_iter().zip(&inputs.x).map(stack).collect()
}

/// The gradients of `n` losses one by one, each on a tape of its own, over all threads: `loss(tape,
/// i)` is the i-th. For models, whose parameters bind to the tape.
///
/// # Errors
/// Those of `loss` and of its backward.
pub fn per_sample_gradients<T: Float>(
    n: usize,
    loss: impl Fn(&Tape<T>, usize) -> Result<Var<T>> + Sync,
) -> Result<Vec<Gradients<T>>> {
    (0..n).into_par_iter().map(|i| loss(&Tape::new(), i)?.backward()).collect()
}

/// The gradient of each of `n` losses in each of `inputs`, `[n, ..]` for an input of shape `[..]`:
/// `loss(x, i)` is the i-th loss as a function of the inputs. `torch.func.vmap(grad(f))`, here one
/// tape a sample, over all threads.
///
/// # Errors
/// Those of `loss` and of its backward.
///
/// # Examples
/// ```
/// use autograd::{transforms, Tensor};
/// let (w, data) = (Tensor::from([2.0_f64]), [1.0, 3.0]);
/// let square = |w: &[autograd::Var<f64>], i: usize| Ok((&w[0] * data[i]).square().sum());
/// let g = transforms::per_sample_grad(2, square, &[w])?;
/// assert_eq!(g[0].to_vec(), [4.0, 36.0]); // 2·w·data²
/// # Ok::<(), autograd::Error>(())
/// ```
pub fn per_sample_grad<T: Float>(
    n: usize,
    loss: impl Fn(&[Var<T>], usize) -> Result<Var<T>> + Sync,
    inputs: &[Tensor<T>],
) -> Result<Vec<Tensor<T>>> {
    let one = |i: usize| -> Result<Vec<Tensor<T>>> {
        let x: Vec<_> = inputs.iter().cloned().map(Var::constant).collect();
        Ok(grad(|x| loss(x, i), &x)?.into_iter().map(Var::into_value).collect())
    };
    let each: Vec<Vec<Tensor<T>>> = (0..n).into_par_iter().map(one).collect::<Result<_>>()?;
    let stack = |(k, x): (usize, &Tensor<T>)| {
        if n == 0 {
            return Tensor::zeros([&[0], x.shape()].concat());
        }
        Tensor::stack(&each.iter().map(|g| &g[k]).collect::<Vec<_>>(), 0)
    };
    inputs.iter().enumerate().map(stack).collect()
}
