//! The gradient checker for modules: derivatives in all their trainable parameters.

use std::cell::RefCell;

use autograd::{
    GradcheckOptions, GradcheckReport, Result, Tape, Tensor, Var, gradcheck, gradgradcheck,
};

use crate::parameters::{Parameter, Parameters, Visitor};

/// [`gradcheck`] of a module: compares the gradients of `f(model, tape, inputs)` in every input and
/// every parameter that is not frozen with difference quotients.
///
/// `f` returns one variable or several, such as the loss of a batch. The parameters move while it
/// runs and are put back at the end. In the report the inputs come first, then the parameters by name.
///
/// # Errors
/// As [`gradcheck`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let mut model = Sequential::<f64>::new().append(Linear::new(3, 2, &mut rng)?).append(Tanh::new());
/// let x = Tensor::randn([4, 3], &mut rng)?;
/// let forward = |m: &Sequential<f64>, _: &Tape<f64>, x: &[Var<f64>]| m.forward(&x[0]);
/// let report = gradcheck_module(&mut model, &[x], forward, &GradcheckOptions::default())?;
/// assert!(report.passed() && report.checked == 4 * 3 + 2 * 3 + 2, "{report}");
/// # Ok::<(), nn::Error>(())
/// ```
pub fn gradcheck_module<M: Parameters, O: Into<Vec<Var<M::Elem>>>>(
    model: &mut M,
    inputs: &[Tensor<M::Elem>],
    f: impl Fn(&M, &Tape<M::Elem>, &[Var<M::Elem>]) -> Result<O>,
    options: &GradcheckOptions,
) -> Result<GradcheckReport> {
    as_function(model, inputs, f, |f, all| gradcheck(f, all, options))
}

/// [`gradgradcheck`] of a module, as [`gradcheck_module`].
///
/// # Errors
/// As [`gradgradcheck`].
pub fn gradgradcheck_module<M: Parameters, O: Into<Vec<Var<M::Elem>>>>(
    model: &mut M,
    inputs: &[Tensor<M::Elem>],
    f: impl Fn(&M, &Tape<M::Elem>, &[Var<M::Elem>]) -> Result<O>,
    options: &GradcheckOptions,
) -> Result<GradcheckReport> {
    as_function(model, inputs, f, |f, all| gradgradcheck(f, all, options))
}

type Function<'a, T> = &'a dyn Fn(&[Var<T>]) -> Result<Vec<Var<T>>>;

/// Hands `check` the module as a function of its inputs and parameters.
fn as_function<M: Parameters, O: Into<Vec<Var<M::Elem>>>>(
    model: &mut M,
    inputs: &[Tensor<M::Elem>],
    f: impl Fn(&M, &Tape<M::Elem>, &[Var<M::Elem>]) -> Result<O>,
    check: impl FnOnce(Function<'_, M::Elem>, &[Tensor<M::Elem>]) -> Result<GradcheckReport>,
) -> Result<GradcheckReport> {
    let (mut names, mut ids, mut before) = (vec![], vec![], vec![]);
    for (name, p) in model.named_parameters().into_iter().filter(|(_, p)| p.is_trainable()) {
        names.push(name);
        ids.push(p.id());
        before.push(p.value().clone());
    }
    let all: Vec<_> = inputs.iter().chain(&before).cloned().collect();
    let n = inputs.len();

    let cell = RefCell::new(model);
    let function = |v: &[Var<M::Elem>]| {
        let tape = v.iter().find_map(Var::tape).cloned().unwrap_or_default();
        let (x, parameters) = v.split_at(n);
        set(&mut **cell.borrow_mut(), parameters.iter().map(|p| p.value().clone()));
        for (&id, p) in ids.iter().zip(parameters).filter(|(_, p)| p.is_tracked()) {
            tape.bind_to(id, p)?;
        }
        f(&**cell.borrow(), &tape, x).map(Into::into)
    };
    let report = check(&function, &all);
    set(&mut **cell.borrow_mut(), before.into_iter());
    let mut report = report?;
    let inputs = (0..n).map(|i| format!("input {i}"));
    let rest = report.names.split_off(report.names.len().min(all.len()));
    report.names = inputs.chain(names).chain(rest).collect();
    Ok(report)
}

/// Gives the trainable parameters these values.
fn set<M: Parameters>(model: &mut M, mut values: impl Iterator<Item = Tensor<M::Elem>>) {
    model.visit_mut(&mut Visitor::new(&mut |_: &str, p: &mut Parameter<M::Elem>| {
        if p.is_trainable()
            && let Some(value) = values.next()
        {
            *p.value_mut() = value;
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    fn model() -> (Sequential<f64>, Tensor<f64>, Tensor<i64>) {
        let mut rng = Generator::new(3);
        let model = Sequential::new()
            .append(Linear::new(4, 5, &mut rng).unwrap())
            .append(Tanh::new())
            .append(Linear::new(5, 3, &mut rng).unwrap());
        let x = Tensor::randn([6, 4], &mut rng).unwrap();
        (model, x, Tensor::from([0_i64, 2, 1, 1, 0, 2]))
    }

    #[test]
    fn a_model_and_its_loss_pass_in_first_and_second_order() {
        let (mut model, x, y) = model();
        let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
        let loss = CrossEntropyLoss::new(options).unwrap();
        let before = model.named_parameters()[0].1.value().to_vec();
        let f = |m: &Sequential<f64>, _: &Tape<f64>, x: &[Var<f64>]| {
            loss.forward(&m.forward(&x[0])?, &y)
        };
        let options = GradcheckOptions::default();
        let report = gradcheck_module(&mut model, std::slice::from_ref(&x), f, &options).unwrap();
        assert!(report.passed() && report.checked == 24 + 25 + 18, "{report}");
        let report = gradgradcheck_module(&mut model, &[x], f, &options).unwrap();
        assert!(report.passed() && report.checked == 24 + 25 + 18 + 1, "{report}");
        assert_eq!(report.names[1], "0.weight");
        assert_eq!(report.names[5], "upstream gradient 0");
        assert_eq!(model.named_parameters()[0].1.value().to_vec(), before);
    }

    #[test]
    fn a_parameter_whose_gradient_is_cut_is_named() {
        let (mut model, x, _) = model();
        let f = |m: &Sequential<f64>, tape: &Tape<f64>, x: &[Var<f64>]| {
            let (_, w) = m.named_parameters()[0];
            Ok(x[0].linear(&w.bind(tape).detach(), None)?.tanh().sum())
        };
        let report = gradcheck_module(&mut model, &[x], f, &GradcheckOptions::default()).unwrap();
        let text = report.to_string();
        assert!(!report.passed() && text.contains("wrong: 0.weight at ["), "{text}");
    }

    #[test]
    fn frozen_parameters_stay_constants() {
        let (mut model, x, _) = model();
        model.visit_mut(&mut Visitor::new(&mut |path: &str, p: &mut Parameter<f64>| {
            p.set_frozen(path == "0.weight");
        }));
        let f = |m: &Sequential<f64>, _: &Tape<f64>, x: &[Var<f64>]| m.forward(&x[0]);
        let report = gradcheck_module(&mut model, &[x], f, &GradcheckOptions::default()).unwrap();
        assert!(report.passed() && report.names[1] == "0.bias", "{report}");
    }
}
