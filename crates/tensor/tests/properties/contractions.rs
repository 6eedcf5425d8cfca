//! Products with the rank in their name, and `einsum`: index loops over small integers, exact but for
//! the sign of 0.

use tensor::{Float, Tensor};

use crate::linalg::{numbers, product};
use crate::twin::{Dense, Sample, Twin, for_each_index, integers, near};
use crate::{Case, Oracle, rejects};

macro_rules! table {
    ($($name:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[$((stringify!($name), |case| {
            $name::<f32>(case);
            $name::<f64>(case);
        })),+];
    };
}
table! { dot outer mv bmm addmm einsum }

fn twin<T: Sample>(case: &mut Case, shape: &[usize]) -> Twin<T> {
    Twin::strided(shape, case.choices.bits(), integers)
}

fn sizes<const N: usize>(case: &mut Case) -> [usize; N] {
    [(); N].map(|()| case.choices.of(&[0, 1, 2, 3, 5, 17]))
}

fn dot<T: Float + Sample>(case: &mut Case) {
    let [k] = sizes(case);
    let (a, b) = (twin::<T>(case, &[k]), twin::<T>(case, &[k]));
    let terms = a.dense.zip(&b.dense, |x, y| x.number() * y.number());
    let want = Dense::scalar(terms.data.iter().fold(0.0, |sum, x| sum + x));
    near(&a.view.dot(&b.view).unwrap(), &want, |_, _| 0.0);
    a.check();
    b.check();
    let c = twin::<T>(case, &[k + 1]);
    rejects("dot", a.view.dot(&c.view));
    rejects("dot", c.view.dot(&a.view));
    let x = case.twin::<T>(integers);
    if case.rank() != 1 {
        rejects("dot", x.view.dot(&a.view));
        rejects("dot", a.view.dot(&x.view));
    }
}

fn outer<T: Float + Sample>(case: &mut Case) {
    let [m, n] = sizes(case);
    let (a, b) = (twin::<T>(case, &[m]), twin::<T>(case, &[n]));
    let want = Dense::build(&[m, n], |i| a.dense.data[i[0]].number() * b.dense.data[i[1]].number());
    near(&a.view.outer(&b.view).unwrap(), &want, |_, _| 0.0);
    a.check();
    b.check();
    let x = case.twin::<T>(integers);
    if case.rank() != 1 {
        rejects("outer", x.view.outer(&a.view));
        rejects("outer", a.view.outer(&x.view));
    }
}

fn mv<T: Float + Sample>(case: &mut Case) {
    let [m, k] = sizes(case);
    let (a, v) = (twin::<T>(case, &[m, k]), twin::<T>(case, &[k]));
    let want = product(&numbers(&a), &numbers(&v).with_shape(&[k, 1])).with_shape(&[m]);
    near(&a.view.mv(&v.view).unwrap(), &want, |_, _| 0.0);
    a.check();
    v.check();
    rejects("mv", a.view.mv(&twin::<T>(case, &[k + 1]).view));
    rejects("mv", a.view.mv(&a.view));
    rejects("mv", v.view.mv(&v.view));
}

fn bmm<T: Float + Sample>(case: &mut Case) {
    let [n, m, k, p] = sizes(case);
    let n = n.min(3);
    let (a, b) = (twin::<T>(case, &[n, m, k]), twin::<T>(case, &[n, k, p]));
    near(&a.view.bmm(&b.view).unwrap(), &product(&numbers(&a), &numbers(&b)), |_, _| 0.0);
    a.check();
    b.check();
    rejects("bmm", a.view.bmm(&twin::<T>(case, &[n + 1, k, p]).view));
    rejects("bmm", a.view.bmm(&twin::<T>(case, &[n, k + 1, p]).view));
    rejects("bmm", a.view.bmm(&twin::<T>(case, &[k, p]).view));
    rejects("bmm", twin::<T>(case, &[m, k]).view.bmm(&b.view));
}

fn addmm<T: Float + Sample>(case: &mut Case) {
    let [m, k, n] = sizes(case);
    let (a, b) = (twin::<T>(case, &[m, k]), twin::<T>(case, &[k, n]));
    let shape = case.choices.reduced(&[m, n]);
    let input = twin::<T>(case, &shape);
    let ab = product(&numbers(&a), &numbers(&b));
    for (beta, alpha) in [(1.0, 1.0), (2.0, 1.0), (1.0, -3.0), (-0.5, 0.5), (0.0, 1.0), (0.0, 0.0)]
    {
        // Halves of sums of products below 2¹² are exact.
        let want = ab.zip(&numbers(&input), |ab, x| beta * x + alpha * ab);
        let got = input.view.addmm(&a.view, &b.view, T::sample(beta), T::sample(alpha)).unwrap();
        near(&got, &want, |_, _| 0.0);
    }
    // Where β is 0 the input is not read.
    let bad = Twin::<T>::strided(&shape, case.choices.bits(), |_| T::NAN);
    let got = bad.view.addmm(&a.view, &b.view, T::ZERO, T::sample(2.0)).unwrap();
    near(&got, &ab.map(|ab| 2.0 * ab), |_, _| 0.0);
    input.check();
    a.check();
    b.check();
    rejects("addmm", input.view.addmm(&a.view, &twin::<T>(case, &[k + 1, n]).view, T::ONE, T::ONE));
    let wide = twin::<T>(case, &[m + 2, n + 2]);
    rejects("addmm", wide.view.addmm(&a.view, &b.view, T::ONE, T::ONE));
}

/// The sum over all values of the labels that the output does not name, term by term.
fn contracted(
    operands: &[(&[char], Dense<f64>)],
    output: &[char],
    size: impl Fn(char) -> usize,
) -> Dense<f64> {
    let mut labels = output.to_vec();
    let inner = operands.iter().flat_map(|(names, _)| names.iter());
    inner.for_each(|&name| {
        if !labels.contains(&name) {
            labels.push(name)
        }
    });
    let all: Vec<usize> = labels.iter().map(|&name| size(name)).collect();
    let mut out = Dense::build(&all[..output.len()], |_| 0.0);
    for_each_index(&all, |index| {
        let value = |name: &char| index[labels.iter().position(|label| label == name).unwrap()];
        let at = |names: &[char]| names.iter().map(value).collect::<Vec<_>>();
        let term: f64 = operands.iter().map(|(names, x)| x.at(&at(names))).product();
        let place = out.flat(&index[..output.len()]);
        out.data[place] += term;
    });
    out
}

/// A random equation: up to three operands of up to three of five labels, which may repeat.
fn einsum<T: Float + Sample>(case: &mut Case) {
    let alphabet = ['i', 'j', 'B', 'a', 'k'];
    let lengths = alphabet.map(|_| case.choices.of(&[1, 2, 3, 2, 3, 0]));
    let size = |name: char| lengths[alphabet.iter().position(|&a| a == name).unwrap()];
    let mut names: Vec<Vec<char>> = Vec::new();
    for _ in 0..=case.choices.below(3) {
        let rank = case.choices.below(4);
        names.push((0..rank).map(|_| case.choices.of(&alphabet)).collect());
    }
    let mut used: Vec<char> = names.concat();
    used.sort_unstable();
    let once: Vec<char> =
        used.iter().copied().filter(|a| used.iter().filter(|b| a == *b).count() == 1).collect();
    used.dedup();
    let order = case.choices.permutation(used.len());
    let kept = case.choices.below(used.len() + 1);
    let output: Vec<char> = order[..kept].iter().map(|&i| used[i]).collect();
    let twins: Vec<Twin<T>> = (names.iter())
        .map(|names| {
            let shape: Vec<usize> = names.iter().map(|&name| size(name)).collect();
            Twin::strided(&shape, case.choices.bits(), integers)
        })
        .collect();
    let operands: Vec<(&[char], Dense<f64>)> =
        names.iter().zip(&twins).map(|(names, x)| (&names[..], numbers(x))).collect();
    let views: Vec<&Tensor<T>> = twins.iter().map(|twin| &twin.view).collect();
    let left: Vec<String> = names.iter().map(|names| names.iter().collect()).collect();
    let left = left.join(", ");
    for (equation, output) in [
        (format!("{left} -> {}", output.iter().collect::<String>()), &output),
        // Without an output: what occurs once, upper case first.
        (left.clone(), &once),
    ] {
        let got = Tensor::einsum(&equation, &views).unwrap_or_else(|e| panic!("{equation}: {e}"));
        near(&got, &contracted(&operands, output, size), |_, _| 0.0);
    }
    twins.iter().for_each(Twin::check);
    // Leading dims that an ellipsis covers broadcast.
    let (x, y) = (case.part::<T>(integers), case.part::<T>(integers));
    let want = numbers(&x).zip(&numbers(&y), |x, y| x * y);
    let (x, y) = (&x.view, &y.view);
    near(&Tensor::einsum("...,...->...", &[x, y]).unwrap(), &want, |_, _| 0.0);
    near(&Tensor::einsum("...,...", &[x, y]).unwrap(), &want, |_, _| 0.0);
    let total = want.data.iter().fold(0.0, |sum, x| sum + x);
    near(&Tensor::einsum("...,...->", &[x, y]).unwrap(), &Dense::scalar(total), |_, _| 0.0);
    for bad in ["i->ii", "i->j", "i,", "1", "i->j->k", "...i..."] {
        rejects("einsum", Tensor::einsum(bad, &[&Tensor::from([T::ONE, T::ONE])]));
    }
    let two = Tensor::from([[T::ONE, T::ONE]]);
    rejects("einsum", Tensor::einsum("ij,ij", &[&two]));
    rejects("einsum", Tensor::einsum("i", &[&two]));
    rejects("einsum", Tensor::einsum("ij,jk", &[&two, &Tensor::zeros([3, 2]).unwrap()]));
}
