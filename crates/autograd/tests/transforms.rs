//! Derivatives of higher order and of functions as functions, against closed forms.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use autograd::{
    ClassOptions, Error, Generator, GradcheckOptions, Reduction, Result, Tape, Tensor, Var, grad,
    gradcheck, gradgradcheck, transforms,
};

/// Sums of some ten products of numbers of size 1 to 100, each rounded: far below 1e-10.
const TOLERANCE: f64 = 1e-10;

fn constant(values: &[f64]) -> Var<f64> {
    Var::constant(Tensor::from_vec(values.to_vec(), [values.len()]).unwrap())
}

fn close(a: &Tensor<f64>, b: &[f64]) {
    assert_eq!(a.numel(), b.len());
    for (a, b) in a.to_vec().iter().zip(b) {
        assert!((a - b).abs() <= TOLERANCE * (1.0 + b.abs()), "{a} ≠ {b}");
    }
}

/// `x³·eᵃˣ` summed, with `a = 0.7`.
fn composed(x: &[Var<f64>]) -> Result<Var<f64>> {
    let x = &x[0];
    Ok((x * x * x * (x * 0.7).exp()).sum())
}

/// Its third derivative: `(a³x³ + 9a²x² + 18ax + 6)·eᵃˣ`.
fn third(x: f64) -> f64 {
    let a = 0.7_f64;
    let polynomial = (a * x).powi(3) + 9.0 * (a * x).powi(2) + 18.0 * a * x + 6.0;
    polynomial * (a * x).exp()
}

const POINTS: [f64; 5] = [-1.7, -0.3, 0.0, 0.4, 2.1];

#[test]
fn third_derivatives_agree_with_the_closed_form() {
    let want = POINTS.map(third);
    // On a tape, one gradient of another.
    let tape = Tape::new();
    let x = tape.var(constant(&POINTS).into_value());
    let mut y = composed(std::slice::from_ref(&x)).unwrap();
    for order in 1..=3 {
        let g = grad(&[&y], &[&x], &[], order < 3).unwrap().remove(0).unwrap();
        if order == 3 {
            close(g.value(), &want);
        }
        y = g.sum();
    }
    // As functions of functions.
    let first = |x: &[Var<f64>]| Ok(transforms::grad(composed, x)?.remove(0).sum());
    let second = |x: &[Var<f64>]| Ok(transforms::grad(first, x)?.remove(0).sum());
    close(transforms::grad(second, &[constant(&POINTS)]).unwrap()[0].value(), &want);
}

#[test]
fn the_hessian_of_cross_entropy_is_its_closed_form() {
    // H = s·a·(diag p − p·pᵀ) for each row, 0 between rows.
    let (n, c) = (3, 4);
    let x = Tensor::<f64>::randn([n, c], &mut Generator::new(4)).unwrap();
    let target = Tensor::from([2_i64, -100, 1]);
    let weight = [0.5, 1.5, 2.0, 0.25];
    let eps = 0.1;
    let s = 1.0 / 8.0;
    for weighted in [false, true] {
        let options = ClassOptions {
            weight: weighted.then(|| Tensor::from(weight)),
            label_smoothing: eps,
            reduction: Reduction::Divisor(8.0),
            ..ClassOptions::default()
        };
        let loss = |x: &[Var<f64>]| x[0].cross_entropy(&target, &options);
        let h = transforms::hessian(loss, &[Var::constant(x.clone())]).unwrap();
        assert_eq!(h[0][0].shape(), [n, c, n, c]);
        let (h, p) = (h[0][0].value().to_vec(), Var::constant(x.clone()).softmax(1).unwrap());
        let p = p.value().to_vec();
        for (i, y) in [(0, Some(2)), (1, None), (2, Some(1))] {
            let w = if weighted { weight } else { [1.0; 4] };
            let a = y.map_or(0.0, |y: usize| {
                (1.0 - eps) * w[y] + eps / c as f64 * w.iter().sum::<f64>()
            });
            for (k, j, l) in itertools(c, n) {
                let found = h[((i * c + k) * n + j) * c + l];
                let diagonal = if k == l { p[i * c + k] } else { 0.0 };
                let inside = s * a * (diagonal - p[i * c + k] * p[i * c + l]);
                let want = if i == j { inside } else { 0.0 };
                assert!((found - want).abs() < 1e-14, "[{i},{k},{j},{l}] {found} ≠ {want}");
            }
        }
    }
}

/// All `(k, j, l)` with k, l below `c` and j below `n`.
fn itertools(c: usize, n: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..c).flat_map(move |k| (0..n).flat_map(move |j| (0..c).map(move |l| (k, j, l))))
}

#[test]
fn products_with_the_jacobian_agree_with_the_jacobian() {
    // f: two inputs, two outputs.
    let f = |x: &[Var<f64>]| -> Result<[Var<f64>; 2]> {
        Ok([(&x[0] * &x[1]).tanh(), x[0].log_softmax(0)?])
    };
    let x = [constant(&[0.3, -0.8, 1.2]), constant(&[1.0, 0.5, -0.7])];
    let (v, u) = (
        [constant(&[0.2, 0.9, -1.0]), constant(&[-0.4, 0.6, 0.3])],
        [constant(&[1.1, -0.5, 0.8]), constant(&[0.7, 0.1, -0.9])],
    );
    let (y, along) = transforms::jvp(f, &x, &v).unwrap();
    let (again, back) = transforms::vjp(f, &x, &u).unwrap();
    let mut total = 0.0;
    for k in 0..2 {
        assert_eq!(y[k].value().to_vec(), again[k].value().to_vec());
        let mut want = [0.0; 3];
        for (i, v) in v.iter().enumerate() {
            let j = transforms::jacobian(|x| Ok(f(x)?[k].clone()), &x).unwrap();
            assert_eq!(j[i].shape(), [3, 3]);
            let product = j[i].value().matmul(v.value()).unwrap().to_vec();
            want.iter_mut().zip(product).for_each(|(w, p)| *w += p);
        }
        close(along[k].value(), &want);
        total += (u[k].value() * along[k].value()).sum().item().unwrap();
        total -= (v[k].value() * back[k].value()).sum().item().unwrap();
    }
    assert!(total.abs() < 1e-14, "⟨u, J·v⟩ = ⟨uᵀ·J, v⟩");
}

#[test]
fn what_does_not_depend_on_the_input_is_zero() {
    let (x, v) = (constant(&[1.0, 2.0]), constant(&[3.0, 4.0]));
    let linear = |x: &[Var<f64>]| Ok((&x[0] * 2.0).sum());
    let zero = transforms::hvp(linear, std::slice::from_ref(&x), std::slice::from_ref(&v)).unwrap();
    close(zero[0].value(), &[0.0, 0.0]);
    let h = transforms::hessian(linear, std::slice::from_ref(&x)).unwrap();
    close(h[0][0].value(), &[0.0; 4]);
    let fixed = |_: &[Var<f64>]| Ok(constant(&[5.0]));
    close(transforms::grad(fixed, std::slice::from_ref(&x)).unwrap()[0].value(), &[0.0, 0.0]);
    let (_, along) = transforms::jvp(fixed, std::slice::from_ref(&x), &[v]).unwrap();
    close(along[0].value(), &[0.0]);
    let empty = constant(&[]);
    let j = transforms::jacobian(|x| Ok(x[0].exp()), &[empty]).unwrap();
    assert_eq!(j[0].shape(), [0, 0]);
}

#[test]
fn hessian_vector_products_agree_with_the_hessian() {
    let x = constant(&[0.3, -0.8, 1.2]);
    let f = |x: &[Var<f64>]| Ok((x[0].tanh() * x[0].exp().sum()).sum());
    let v = constant(&[0.5, -1.0, 2.0]);
    let h = transforms::hessian(f, std::slice::from_ref(&x)).unwrap();
    let want = h[0][0].value().matmul(v.value()).unwrap().to_vec();
    close(transforms::hvp(f, &[x], &[v]).unwrap()[0].value(), &want);
}

#[test]
fn a_gradient_inside_a_function_can_be_differentiated() {
    // inner(w) = d/dx (w·x²)/2 at x = 3 is 3w; d/dw of its square is 18w.
    let outer = |w: &[Var<f64>]| {
        let x = w[0].tape().unwrap().constant(Tensor::from([3.0]));
        let inner = transforms::grad(|x| Ok((&w[0] * &x[0] * &x[0] * 0.5).sum()), &[x])?;
        Ok((&inner[0] * &inner[0]).sum())
    };
    close(transforms::grad(outer, &[constant(&[2.0])]).unwrap()[0].value(), &[36.0]);
}

#[test]
fn a_derivative_does_not_see_other_ways_to_its_input() {
    // d/dz (z·y) at z = x with y = x² fixed is y, not 3x².
    let tape = Tape::new();
    let x = tape.var(Tensor::from([2.0_f64]));
    let y = &x * &x;
    let partial = transforms::grad(|z| Ok((&z[0] * &y).sum()), std::slice::from_ref(&x)).unwrap();
    close(partial[0].value(), &[4.0]);
    // … and the partial derivative, a function of x through y alone, has the derivative 2x.
    close(partial[0].sum().backward().unwrap().wrt(&x).unwrap(), &[4.0]);
}

#[test]
fn per_sample_gradients_add_up_to_that_of_the_batch() {
    let mut rng = Generator::new(1);
    let (w, data) = (
        Tensor::<f64>::randn([4, 3], &mut rng).unwrap(),
        Tensor::<f64>::randn([10, 3], &mut rng).unwrap(),
    );
    let row = |i: usize| data.narrow(0, i, 1).unwrap();
    let loss =
        |w: &[Var<f64>], x: Tensor<f64>| Ok(Var::constant(x).linear(&w[0], None)?.tanh().sum());
    let each =
        transforms::per_sample_grad(10, |w, i| loss(w, row(i)), std::slice::from_ref(&w)).unwrap();
    assert_eq!(each[0].shape(), [10, 4, 3]);
    let whole = transforms::grad(|w| loss(w, data.clone()), &[Var::constant(w.clone())]).unwrap();
    close(&each[0].sum_dim(&[0], false).unwrap(), &whole[0].value().to_vec());
    let none = transforms::per_sample_grad(0, |w, i| loss(w, row(i)), &[w]).unwrap();
    assert_eq!(none[0].shape(), [0, 4, 3]);
}

#[test]
fn mistakes_are_named() {
    let x = constant(&[1.0, 2.0]);
    let two = |x: &[Var<f64>]| Ok(x[0].exp());
    let found = transforms::grad(two, std::slice::from_ref(&x)).unwrap_err();
    assert!(matches!(found, Error::NotScalar { op: "grad", .. }), "{found}");
    let found = transforms::jvp(two, std::slice::from_ref(&x), &[]).unwrap_err().to_string();
    assert_eq!(found, "transform: tangents has 0 entries, expected 1");
    let found = transforms::jvp(two, std::slice::from_ref(&x), &[constant(&[1.0])]).unwrap_err();
    assert!(matches!(found, Error::ShapeMismatch { op: "jvp", .. }), "{found}");
    let (a, b) = (Tape::new(), Tape::new());
    let both = [a.var(Tensor::from([1.0])), b.var(Tensor::from([1.0]))];
    let found = transforms::grad(|x| Ok((&x[0] * &x[1]).sum()), &both).unwrap_err();
    assert!(matches!(found, Error::MixedTapes { .. }), "{found}");
}

#[test]
fn functions_of_several_inputs_and_outputs_are_checked() {
    let f = |x: &[Var<f64>]| -> Result<Vec<Var<f64>>> {
        Ok(vec![&x[0] * &x[1], x[0].exp().sum(), x[1].tanh()])
    };
    let mut rng = Generator::new(2);
    let inputs = [Tensor::randn([2, 3], &mut rng).unwrap(), Tensor::randn([3], &mut rng).unwrap()];
    let options = GradcheckOptions::default();
    for report in [gradcheck(f, &inputs, &options), gradgradcheck(f, &inputs, &options)] {
        let report = report.unwrap();
        assert!(report.passed(), "{report}");
    }
    // One wrong output among right ones is found, and named.
    let wrong = |x: &[Var<f64>]| -> Result<Vec<Var<f64>>> {
        let mut y = f(x)?;
        let double = y[2].value() * 1.0;
        y[2] = autograd::record("wrong", [x[1].node()], [], double, |_, g, sink| sink.add(0, g))?;
        Ok(y)
    };
    let report = gradcheck(wrong, &inputs, &options).unwrap();
    assert!(!report.passed() && report.failures.iter().all(|e| e.input == 1), "{report}");
}

#[test]
fn an_operation_of_first_order_says_so() {
    /// `y = x²` whose backward works on plain values.
    fn square(x: &Var<f64>) -> Result<Var<f64>> {
        let (y, double) = (x.value().square(), x.value() * 2.0);
        autograd::record("square", [x.node()], [], y, move |_, g, sink| {
            sink.add_value(0, &double * g.value())
        })
    }
    let options = GradcheckOptions::default();
    let x = Tensor::from([0.5, -2.0]);
    let f = |x: &[Var<f64>]| square(&x[0]);
    assert!(gradcheck(f, std::slice::from_ref(&x), &options).unwrap().passed());
    let second = gradgradcheck(f, &[x], &options).unwrap_err();
    assert!(matches!(second, Error::HighestOrder { op: "square", order: 1 }), "{second}");
}

#[test]
fn a_gradient_that_would_lose_its_derivative_is_an_error() {
    fn square(x: &Var<f64>) -> Result<Var<f64>> {
        let (y, double) = (x.value().square(), x.value() * 2.0);
        autograd::record("square", [x.node()], [], y, move |_, g, sink| {
            sink.add(0, Var::constant(&double * g.value()))
        })
    }
    let tape = Tape::new();
    let x = tape.var(Tensor::from([3.0]));
    let y = square(&x).unwrap();
    assert!(grad(&[&y], &[&x], &[], false).is_ok());
    let found = grad(&[&y], &[&x], &[], true).unwrap_err();
    assert!(matches!(found, Error::UntrackedGradient { op: "square", input: 0 }), "{found}");
}
