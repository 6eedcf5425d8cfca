//! The gradient checker: analytic against numeric derivatives, in `f64`.
//!
//! The function's output is contracted with a random upstream gradient u, so that no symmetry of a
//! plain sum hides an error. The numeric derivative of φ(x) = ⟨u, f(x)⟩ is the central difference at
//! two steps h and h/2, extrapolated: error O(h⁴) and O(ε·|φ|/h). Where the two steps disagree by more
//! than rounding and curvature allow, there is a kink within h, and the element is reported as such.

use std::collections::BTreeMap;
use std::fmt;

use tensor::{Error, Float, Generator, Result, Tensor};

use crate::engine::{backward, grad};
use crate::tape::Tape;
use crate::var::Var;

/// Settings of [`gradcheck`] and [`gradgradcheck`].
#[derive(Clone, Debug)]
pub struct GradcheckOptions {
    /// Largest error relative to the larger of the two derivatives.
    pub rtol: f64,
    /// Error that is always accepted; covers the rounding of the difference quotient.
    pub atol: f64,
    /// Step, relative to max(1, |x|).
    pub step: f64,
    /// Elements of an input up to which each is checked; beyond it, that many random directions.
    pub max_elements: usize,
    /// Seed of the upstream gradient and the directions.
    pub seed: u64,
    /// Allows `f32`, whose difference quotients are good for two digits at best.
    pub allow_f32: bool,
    /// The seed of [`Tape::training`], to check what a function is in training: dropout draws the same
    /// numbers at every evaluation. `None` for evaluation mode.
    pub training: Option<u64>,
}

impl Default for GradcheckOptions {
    fn default() -> Self {
        // With h = 1e-4 the truncation error is h⁴ ~ 1e-16 times the fifth derivative, the rounding
        // error ε/h ~ 2e-12 times the value; 1e-7 and 1e-9 leave room for both.
        GradcheckOptions {
            rtol: 1e-7,
            atol: 1e-9,
            step: 1e-4,
            max_elements: 256,
            seed: 0,
            allow_f32: false,
            training: None,
        }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which input.
    pub input: usize,
    /// Which element of it; `None` for a random direction.
    pub index: Option<Vec<usize>>,
    /// The derivative from backward.
    pub analytic: f64,
    /// The derivative from differences.
    pub numeric: f64,
    /// `|analytic − numeric|`.
    pub absolute: f64,
    /// `absolute` over the larger magnitude of the two.
    pub relative: f64,
}

/// What [`gradcheck`] found. Print it with `{}`.
#[derive(Clone, Debug)]
#[must_use]
pub struct GradcheckReport {
    /// How many comparisons were made.
    pub checked: usize,
    /// The comparison with the largest error in units of its tolerance, kinks apart.
    pub worst: Option<Entry>,
    /// Comparisons outside the tolerance, kinks apart.
    pub failures: Vec<Entry>,
    /// Places where two step sizes disagree: the function has a kink there, or is not smooth enough.
    pub kinks: Vec<Entry>,
    /// Inputs whose gradient differed between two runs of the same backward.
    pub nondeterministic: Vec<usize>,
    /// What the inputs are called in print, where they have names.
    pub names: Vec<String>,
    /// The tolerances that applied.
    pub options: GradcheckOptions,
}

impl GradcheckReport {
    /// Whether all comparisons that could be made agree, some could, and backward is deterministic.
    pub fn passed(&self) -> bool {
        let judged = self.checked > self.kinks.len() || self.checked == 0;
        judged && self.failures.is_empty() && self.nondeterministic.is_empty()
    }
}

impl fmt::Display for GradcheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let GradcheckOptions { rtol, atol, .. } = self.options;
        writeln!(
            f,
            "gradcheck {verdict}: {} derivatives, {} outside rtol {rtol:.0e} + atol {atol:.0e}",
            self.checked,
            self.failures.len()
        )?;
        if let Some(worst) = &self.worst {
            writeln!(f, "  worst: {}", self.line(worst))?;
        }
        // The worst of each input: one that is wrong throughout must not hide another.
        let mut of_input: BTreeMap<usize, (usize, &Entry)> = BTreeMap::new();
        for failure in &self.failures {
            let (count, worst) = of_input.entry(failure.input).or_insert((0, failure));
            *count += 1;
            if failure.absolute > worst.absolute {
                *worst = failure;
            }
        }
        for (count, worst) in of_input.values() {
            let line = self.line(worst);
            writeln!(f, "  wrong: {line} (the worst of {count} wrong ones of this input)")?;
        }
        for kink in self.kinks.iter().take(3) {
            writeln!(f, "  kink, not judged: {}", self.line(kink))?;
        }
        for &input in &self.nondeterministic {
            let name = self.name(input);
            writeln!(f, "  two runs of backward gave different gradients for {name}")?;
        }
        Ok(())
    }
}

impl GradcheckReport {
    fn name(&self, input: usize) -> String {
        self.names.get(input).cloned().unwrap_or_else(|| format!("input {input}"))
    }

    fn line(&self, entry: &Entry) -> String {
        let place = match &entry.index {
            Some(index) => format!("at {index:?}"),
            None => "along a random direction".into(),
        };
        format!(
            "{} {place}: analytic {:.9e}, numeric {:.9e}, absolute error {:.2e}, relative error {:.2e}",
            self.name(entry.input),
            entry.analytic,
            entry.numeric,
            entry.absolute,
            entry.relative
        )
    }
}

/// Compares the gradient of `f` with difference quotients, for every input, under a random upstream
/// gradient.
///
/// `f` gets one variable for each of `inputs`, returns one variable or several (an array or a `Vec` of
/// them), and may be called many times.
///
/// # Errors
/// [`Error::InvalidArgument`] for `f32`, unless the options allow it; whatever `f` or its backward
/// return. A wrong gradient is no error: see [`GradcheckReport::passed`].
///
/// # Examples
/// ```
/// use autograd::{gradcheck, GradcheckOptions, Tensor};
/// let x = Tensor::from_vec(vec![0.3_f64, -0.7, 1.1], [3])?;
/// let report = gradcheck(|x| Ok(x[0].tanh() * &x[0]), &[x], &GradcheckOptions::default())?;
/// assert!(report.passed(), "{report}");
/// # Ok::<(), autograd::Error>(())
/// ```
///
/// # Reference
/// `torch.autograd.gradcheck`.
pub fn gradcheck<T: Float, O: Into<Vec<Var<T>>>>(
    f: impl Fn(&[Var<T>]) -> Result<O>,
    inputs: &[Tensor<T>],
    options: &GradcheckOptions,
) -> Result<GradcheckReport> {
    if T::NAME == "f32" && !options.allow_f32 {
        return Err(Error::InvalidArgument {
            op: "gradcheck",
            name: "inputs",
            reason: "are f32, too coarse for differences; use f64 (or set allow_f32)".into(),
        });
    }
    if options.max_elements == 0 {
        let reason = "must be at least 1".into();
        return Err(Error::InvalidArgument { op: "gradcheck", name: "max_elements", reason });
    }
    let f = |x: &[Var<T>]| f(x).map(Into::into);
    let mut generator = Generator::new(options.seed);
    let upstream = random_upstream(&f, inputs, options, &mut generator)?;
    let analytic = gradients(&f, inputs, &upstream, options)?;
    let again = gradients(&f, inputs, &upstream, options)?;
    let bits = |g: &[T]| g.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
    let mut report = GradcheckReport {
        checked: 0,
        worst: None,
        failures: vec![],
        kinks: vec![],
        nondeterministic: (0..inputs.len())
            .filter(|&i| bits(&analytic[i]) != bits(&again[i]))
            .collect(),
        names: vec![],
        options: options.clone(),
    };
    let upstream = upstream.iter().flat_map(Tensor::to_vec).collect();
    let check = Check { f: &f, inputs, upstream, options };
    for (input, x) in inputs.iter().enumerate() {
        let n = x.numel();
        for k in 0..n.min(options.max_elements) {
            let (direction, index) = if n <= options.max_elements {
                let mut unit = vec![0.0; n];
                unit[k] = 1.0;
                (unit, Some(unravel(k, x.shape())))
            } else {
                (Tensor::<f64>::randn([n], &mut generator)?.to_vec(), None)
            };
            let exact: f64 =
                analytic[input].iter().zip(&direction).map(|(g, d)| g.to_f64() * d).sum();
            check.compare(input, &direction, index, exact, &mut report)?;
        }
    }
    Ok(report)
}

/// Compares the second derivatives of `f` with difference quotients of the gradient that
/// [`grad`] records with `create_graph`, in every input and in the upstream gradients.
///
/// In the report the inputs come first, then the upstream gradient of each output.
///
/// # Errors
/// As [`gradcheck`]; [`Error::HighestOrder`] where an operation has no second derivative.
///
/// # Examples
/// ```
/// use autograd::{gradgradcheck, GradcheckOptions, Tensor};
/// let x = Tensor::from_vec(vec![0.3_f64, -0.7, 1.1], [3])?;
/// let report = gradgradcheck(|x| x[0].softmax(0), &[x], &GradcheckOptions::default())?;
/// assert!(report.passed(), "{report}");
/// # Ok::<(), autograd::Error>(())
/// ```
///
/// # Reference
/// `torch.autograd.gradgradcheck`.
pub fn gradgradcheck<T: Float, O: Into<Vec<Var<T>>>>(
    f: impl Fn(&[Var<T>]) -> Result<O>,
    inputs: &[Tensor<T>],
    options: &GradcheckOptions,
) -> Result<GradcheckReport> {
    let f = |x: &[Var<T>]| f(x).map(Into::into);
    let upstream = random_upstream(&f, inputs, options, &mut Generator::new(!options.seed))?;
    let (n, m) = (inputs.len(), upstream.len());
    let all: Vec<_> = inputs.iter().cloned().chain(upstream).collect();
    let mut report = gradcheck(|v| gradient_of(&f, &v[..n], &v[n..]), &all, options)?;
    report.names = (0..n).map(|i| format!("input {i}")).collect();
    report.names.extend((0..m).map(|i| format!("upstream gradient {i}")));
    Ok(report)
}

fn random_upstream<T: Float>(
    f: &impl Fn(&[Var<T>]) -> Result<Vec<Var<T>>>,
    inputs: &[Tensor<T>],
    options: &GradcheckOptions,
    generator: &mut Generator,
) -> Result<Vec<Tensor<T>>> {
    let tape = Tape::with_seed(options.training);
    let constants: Vec<_> = inputs.iter().map(|x| tape.constant(x.clone())).collect();
    f(&constants)?.iter().map(|y| Tensor::randn(y.shape(), generator)).collect()
}

/// The recorded gradient of `Σ ⟨upstream, f(inputs)⟩` in the inputs; zeros where there is none.
pub(crate) fn gradient_of<T: Float>(
    f: &impl Fn(&[Var<T>]) -> Result<Vec<Var<T>>>,
    inputs: &[Var<T>],
    upstream: &[Var<T>],
) -> Result<Vec<Var<T>>> {
    // A constant input has no gradient to differentiate: differentiate at a tracked copy.
    let own = Tape::new();
    let tape = inputs.iter().chain(upstream).find_map(Var::tape).unwrap_or(&own);
    let x: Vec<_> = (inputs.iter())
        .map(|x| if x.is_tracked() { x.clone() } else { tape.var(x.value().clone()) })
        .collect();
    let y = f(&x)?;
    let (y, u): (Vec<_>, Vec<_>) = y.iter().zip(upstream).filter(|(y, _)| y.is_tracked()).unzip();
    let u: Vec<_> = u.into_iter().cloned().collect();
    let found = grad(&y, &x.iter().collect::<Vec<_>>(), &u, true)?;
    let zeros = |x: &Var<T>| tape.constant(x.value().zeros_like());
    Ok(found.into_iter().zip(&x).map(|(g, x)| g.unwrap_or_else(|| zeros(x))).collect())
}

/// The gradient of each input from one backward; zeros where no output depends on it.
fn gradients<T: Float>(
    f: &impl Fn(&[Var<T>]) -> Result<Vec<Var<T>>>,
    inputs: &[Tensor<T>],
    upstream: &[Tensor<T>],
    options: &GradcheckOptions,
) -> Result<Vec<Vec<T>>> {
    let tape = Tape::with_seed(options.training);
    let variables: Vec<_> = inputs.iter().map(|x| tape.var(x.clone())).collect();
    let y = f(&variables)?;
    let (y, u): (Vec<_>, Vec<_>) = y.iter().zip(upstream).filter(|(y, _)| y.is_tracked()).unzip();
    if y.is_empty() {
        return Ok(inputs.iter().map(|x| vec![T::ZERO; x.numel()]).collect());
    }
    let u: Vec<_> = u.into_iter().cloned().collect();
    let grads = backward(&y, &u)?;
    let gradient = |x: &Var<T>| match grads.wrt(x) {
        Ok(g) => Ok(g.to_vec()),
        Err(Error::NoGradient { .. }) => Ok(vec![T::ZERO; x.value().numel()]),
        Err(error) => Err(error),
    };
    variables.iter().map(gradient).collect()
}

struct Check<'a, T: Float, F> {
    f: &'a F,
    inputs: &'a [Tensor<T>],
    /// Of all outputs, one after another.
    upstream: Vec<T>,
    options: &'a GradcheckOptions,
}

impl<T: Float, F: Fn(&[Var<T>]) -> Result<Vec<Var<T>>>> Check<'_, T, F> {
    /// ⟨u, f(x + h·d)⟩ with d in one input, and Σ|u·f|, which bounds its rounding.
    fn phi(&self, input: usize, direction: &[f64], h: f64) -> Result<(f64, f64)> {
        let mut values = self.inputs.to_vec();
        let moved = values[input].make_mut().iter_mut().zip(direction);
        moved.for_each(|(x, d)| *x = T::from_f64(x.to_f64() + h * d));
        let tape = Tape::with_seed(self.options.training);
        let variables: Vec<_> = values.into_iter().map(|x| tape.constant(x)).collect();
        let y: Vec<T> = (self.f)(&variables)?.iter().flat_map(|y| y.value().to_vec()).collect();
        let products = y.iter().zip(&self.upstream).map(|(y, u)| y.to_f64() * u.to_f64());
        Ok(products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs())))
    }

    fn compare(
        &self,
        input: usize,
        direction: &[f64],
        index: Option<Vec<usize>>,
        analytic: f64,
        report: &mut GradcheckReport,
    ) -> Result<()> {
        let at = self.inputs[input].to_vec();
        let size = (at.iter().zip(direction).filter(|(_, d)| **d != 0.0))
            .map(|(x, _)| x.to_f64().abs())
            .fold(1.0, f64::max);
        let h = self.options.step * size;
        let (middle, scale) = self.phi(input, direction, 0.0)?;
        // The central slope, and by how much the slopes on the two sides differ.
        let slope = |h: f64| -> Result<(f64, f64)> {
            let (up, down) = (self.phi(input, direction, h)?.0, self.phi(input, direction, -h)?.0);
            Ok(((up - down) / (2.0 * h), (up - 2.0 * middle + down) / h))
        };
        let ((coarse, coarse_bend), (fine, fine_bend)) = (slope(h)?, slope(h / 2.0)?);
        let numeric = (4.0 * fine - coarse) / 3.0;
        let absolute = (analytic - numeric).abs();
        let largest = analytic.abs().max(numeric.abs());
        let relative = if largest > 0.0 { absolute / largest } else { 0.0 };
        let entry = Entry { input, index, analytic, numeric, absolute, relative };
        report.checked += 1;
        let GradcheckOptions { rtol, atol, .. } = *self.options;
        let tolerance = atol + rtol * largest;
        // Written so that NaN fails.
        let agrees = absolute <= tolerance;
        // Where f is smooth, the two slopes differ by O(h²), and the bend halves with h. A kink
        // inside the interval changes the slope by a fixed share; one at x keeps the bend.
        let rounding = 64.0 * T::EPSILON.to_f64() * scale / h;
        let steep = 1e-3 * coarse.abs().max(fine.abs()) + rounding;
        let kink = (coarse - fine).abs() > steep
            || (fine_bend.abs() > steep && fine_bend.abs() > 0.75 * coarse_bend.abs());
        // Even there a derivative lies between the slopes of the two sides.
        let half = fine_bend.abs() / 2.0 + tolerance;
        let between = (analytic - fine).abs() <= half;
        if !agrees && kink && between {
            report.kinks.push(entry);
            return Ok(());
        }
        let errors = |e: &Entry| e.absolute / (atol + rtol * e.analytic.abs().max(e.numeric.abs()));
        let worse = |w: &Entry| errors(&entry) > errors(w) || errors(&entry).is_nan();
        if report.worst.as_ref().is_none_or(worse) {
            report.worst = Some(entry.clone());
        }
        if !agrees {
            report.failures.push(entry);
        }
        Ok(())
    }
}

fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &size) in index.iter_mut().zip(shape).rev() {
        *i = flat % size;
        flat /= size;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Save, record};

    fn input() -> Tensor<f64> {
        Tensor::randn([3, 4], &mut Generator::new(9)).unwrap()
    }

    /// `y = softmax(x)` along dim 1 with a backward of the test's choice, given y and g.
    fn softmax_with(
        x: &Var<f64>,
        backward: impl Fn(Var<f64>, Var<f64>) -> Result<Var<f64>> + Send + 'static,
    ) -> Result<Var<f64>> {
        let y = x.detach().softmax(1)?.into_value();
        record("softmax", [x.node()], [Save::Output], y, move |ctx, g, sink| {
            sink.add(0, backward(ctx.saved(0), g)?)
        })
    }

    fn right(y: &Var<f64>, g: &Var<f64>, dim: isize) -> Result<Var<f64>> {
        Ok(&(g - (g * y).sum_dim(&[dim], true)?) * y)
    }

    fn verdict(f: impl Fn(&[Var<f64>]) -> Result<Var<f64>>) -> bool {
        gradcheck(f, &[input()], &GradcheckOptions::default()).unwrap().passed()
    }

    #[test]
    fn accepts_the_right_backward_and_no_wrong_one() {
        assert!(verdict(|x| softmax_with(&x[0], |y, g| right(&y, &g, 1))));
        assert!(!verdict(|x| softmax_with(&x[0], |y, g| Ok(right(&y, &g, 1)? * 1.01))), "scaled");
        assert!(!verdict(|x| softmax_with(&x[0], |y, g| right(&y, &g, 0))), "wrong dim");
        assert!(!verdict(|x| softmax_with(&x[0], |y, g| Ok(g * y))), "missing sum");
        assert!(!verdict(|x| softmax_with(&x[0], |y, g| Ok(-right(&y, &g, 1)?))), "wrong sign");
        assert!(!verdict(|x| softmax_with(&x[0], |y, g| Ok(right(&y, &g, 1)? * f64::NAN))), "NaN");
    }

    #[test]
    fn finds_a_backward_that_is_not_deterministic() {
        use std::sync::atomic::{AtomicU64, Ordering};
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let report = gradcheck(
            |x| {
                softmax_with(&x[0], |y, g| {
                    let noise = CALLS.fetch_add(1, Ordering::Relaxed) as f64 * 1e-15;
                    Ok(right(&y, &g, 1)? * (1.0 + noise))
                })
            },
            &[input()],
            &GradcheckOptions::default(),
        )
        .unwrap();
        assert!(!report.passed() && report.nondeterministic == [0]);
    }

    #[test]
    fn reports_where_and_by_how_much() {
        let report = gradcheck(
            |x| softmax_with(&x[0], |y, g| Ok(right(&y, &g, 1)? * 2.0)),
            &[input()],
            &GradcheckOptions::default(),
        )
        .unwrap();
        let worst = report.worst.as_ref().unwrap();
        assert!((worst.relative - 0.5).abs() < 1e-6 && worst.index.as_ref().unwrap().len() == 2);
        let text = report.to_string();
        assert!(text.starts_with("gradcheck FAILED: 12 derivatives, 12 outside"), "{text}");
        assert!(text.contains("analytic") && text.contains("numeric"), "{text}");
    }

    #[test]
    fn a_kink_is_named_and_not_judged() {
        let x = Tensor::from_vec(vec![0.0, 1e-5, 1.0, -1.0], [4]).unwrap();
        let report = gradcheck(|x| Ok(x[0].relu()), &[x], &GradcheckOptions::default()).unwrap();
        assert!(report.passed(), "{report}");
        assert_eq!(report.kinks.len(), 2);
        // A kink excuses no derivative that neither side has, and a flat place is no kink.
        let wrong = |x: &Var<f64>, slope: f64| {
            let y = x.value().relu();
            record("relu", [x.node()], [], y, move |_, g, sink| sink.add(0, g * slope))
        };
        let options = GradcheckOptions::default();
        let zero = [Tensor::from_vec(vec![0.0], [1]).unwrap()];
        assert!(!gradcheck(|x| wrong(&x[0], 7.0), &zero, &options).unwrap().passed());
        let cube = |x: &Var<f64>| {
            let y = x.value() * x.value() * x.value();
            record("cube", [x.node()], [], y, |_, g, sink| sink.add(0, g * 5.0))
        };
        assert!(!gradcheck(|x| cube(&x[0]), &zero, &options).unwrap().passed());
    }

    #[test]
    fn large_inputs_are_checked_along_random_directions() {
        let x = Tensor::randn([40, 40], &mut Generator::new(1)).unwrap();
        let options = GradcheckOptions { max_elements: 8, ..GradcheckOptions::default() };
        let wrong = |x: &[Var<f64>]| softmax_with(&x[0], |y, g| Ok(g * y));
        assert!(!gradcheck(wrong, std::slice::from_ref(&x), &options).unwrap().passed());
        let report = gradcheck(|x| x[0].softmax(1), &[x], &options).unwrap();
        assert!(report.passed() && report.checked == 8, "{report}");
    }

    #[test]
    fn f32_is_refused_unless_allowed() {
        let x = Tensor::from_vec(vec![0.5_f32, 1.0], [2]).unwrap();
        let options = GradcheckOptions::default();
        assert!(gradcheck(|x| Ok(x[0].exp()), std::slice::from_ref(&x), &options).is_err());
        let options =
            GradcheckOptions { allow_f32: true, step: 1e-2, rtol: 1e-2, atol: 1e-3, ..options };
        assert!(gradcheck(|x| Ok(x[0].exp()), &[x], &options).unwrap().passed());
    }
}
