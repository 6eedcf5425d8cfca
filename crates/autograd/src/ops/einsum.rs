//! `einsum`: sums of products in index notation. A product of two operands is one recorded operation,
//! whose gradients are products of the same kind with the labels exchanged.

use tensor::{Equation, Float, Result, Shape, Tensor};

use super::linalg::bilinear;
use crate::tape::record;
use crate::var::Var;

/// A variable and the labels of its dims, each once.
struct Term<T: Float> {
    x: Var<T>,
    labels: Vec<usize>,
}

impl<T: Float> Var<T> {
    /// Sum of products in index notation: `y[output] = Σ_{other labels} Π_i operands[i][labels_i]`. The
    /// language of equations is that of [`Tensor::einsum`]: `"bik,bkj->bij"`.
    ///
    /// # Gradient
    /// With `Y = A·B` of labels a, b and y, `dA` is the product of g and B with labels y and b, summed to
    /// a; `dB` likewise. Three and more operands are multiplied from left to right in pairs, and their
    /// gradients found in pairs, so that each costs as much as a forward pass. The gradient of a
    /// diagonal is 0 beside it. Saves the factor of each tracked operand, and of each intermediate
    /// result. Any order.
    ///
    /// # Errors
    /// As [`Tensor::einsum`]; [`Error::MixedTapes`](crate::Error::MixedTapes).
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor, Var};
    /// let tape = Tape::new();
    /// let a = tape.var(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?);
    /// let v = Var::constant(Tensor::from_vec(vec![1.0, 10.0], [2])?);
    /// let y = Var::einsum("i,ij,j->", &[&v, &a, &v])?;
    /// assert_eq!(y.item()?, 451.0);
    /// assert_eq!(y.backward()?.wrt(&a)?.to_vec(), [1.0, 10.0, 10.0, 100.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.einsum`.
    #[track_caller]
    pub fn einsum(equation: &str, operands: &[&Self]) -> Result<Self> {
        let shapes: Vec<&[usize]> = operands.iter().map(|x| x.shape()).collect();
        let equation = Equation::new(equation, &shapes)?;
        let sizes = equation.sizes(&shapes)?;
        let Equation { inputs, output } = equation;
        let mut terms = Vec::new();
        for (labels, x) in inputs.into_iter().zip(operands) {
            terms.push(Term::new(x, labels, &sizes)?);
        }
        let mut terms = terms.into_iter();
        let Some(mut result) = terms.next() else {
            unreachable!("bug: an equation has an operand")
        };
        while let Some(next) = terms.next() {
            let later = |label: &usize| {
                output.contains(label) || terms.as_slice().iter().any(|t| t.labels.contains(label))
            };
            result = multiply(result, next, later)?;
        }
        result.summed(|label| !output.contains(label))?.arranged(&output)
    }
}

impl<T: Float> Term<T> {
    /// `x` without repeated labels, and without those of size 1 that other operands have in full.
    #[track_caller]
    fn new(x: &Var<T>, mut labels: Vec<usize>, sizes: &[(usize, usize)]) -> Result<Self> {
        let mut x = x.clone();
        let repeated = |labels: &[usize]| {
            let second = (1..labels.len()).find(|&d| labels[..d].contains(&labels[d]))?;
            let first = labels.iter().position(|l| *l == labels[second])?;
            Some([first, second])
        };
        while let Some([first, second]) = repeated(&labels) {
            x = x.walked_together([first, second])?;
            labels.remove(second);
            let label = labels.remove(first);
            labels.push(label);
        }
        for d in (0..labels.len()).rev() {
            if x.shape()[d] == 1 && !sizes.contains(&(labels[d], 1)) {
                labels.remove(d);
                x = x.squeeze(d as isize)?;
            }
        }
        Ok(Term { x, labels })
    }

    /// Summed over the labels where `over` says so.
    #[track_caller]
    fn summed(mut self, over: impl Fn(&usize) -> bool) -> Result<Self> {
        let named = self.labels.iter().enumerate().filter(|(_, label)| over(label));
        let dims: Vec<isize> = named.map(|(d, _)| d as isize).collect();
        if !dims.is_empty() {
            self.x = self.x.sum_dim(&dims, false)?;
            self.labels.retain(|label| !over(label));
        }
        Ok(self)
    }

    /// With the dims in the order of `labels`, which are all of them.
    #[track_caller]
    fn arranged(self, labels: &[usize]) -> Result<Var<T>> {
        if self.labels == labels {
            return Ok(self.x);
        }
        let place = |label: &usize| self.labels.iter().position(|l| l == label);
        let order: Vec<isize> = labels.iter().filter_map(place).map(|d| d as isize).collect();
        self.x.permute(&order)
    }
}

/// The product of two operands, summed over what `later` does not need.
#[track_caller]
fn multiply<T: Float>(a: Term<T>, b: Term<T>, later: impl Fn(&usize) -> bool) -> Result<Term<T>> {
    // What only one of the two has is summed here, so that each gradient is a product again.
    let a = a.summed(|label| !later(label) && !b.labels.contains(label))?;
    let b = b.summed(|label| !later(label) && !a.labels.contains(label))?;
    let own = b.labels.iter().filter(|label| !a.labels.contains(label));
    let labels: Vec<usize> = a.labels.iter().chain(own).copied().filter(|l| later(l)).collect();
    let x = product([&a.x, &b.x], [&a.labels, &b.labels, &labels])?;
    Ok(Term { x, labels })
}

/// The product of a and b, of labels `[a, b, y]`. Every label stands in two of the three.
#[track_caller]
fn product<T: Float>([a, b]: [&Var<T>; 2], labels: [&[usize]; 3]) -> Result<Var<T>> {
    let [of_a, of_b, of_y] = labels.map(<[usize]>::to_vec);
    let equation = Equation { inputs: vec![of_a.clone(), of_b.clone()], output: of_y.clone() };
    let y = equation.evaluate(&[a.value(), b.value()])?;
    let (for_a, for_b) = ([of_y.clone(), of_b.clone(), of_a.clone()], [of_y, of_a, of_b]);
    bilinear(
        "einsum",
        [a, b],
        y,
        move |g, b| product([g, b], [&for_a[0], &for_a[1], &for_a[2]]),
        move |g, a| product([g, a], [&for_b[0], &for_b[1], &for_b[2]]),
    )
}

impl<T: Float> Var<T> {
    /// The diagonal of two dims of equal size, which becomes the last dim: `dx` is g on the diagonal
    /// and 0 beside it.
    #[track_caller]
    fn walked_together(&self, [first, second]: [usize; 2]) -> Result<Self> {
        let y = self.value().diagonal(0, first as isize, second as isize)?;
        let (rank, n) = (self.shape().len(), self.shape()[first]);
        let others = (0..rank).filter(|d| ![first, second].contains(d));
        let order: Vec<usize> = others.chain([first, second]).collect();
        let mut back = vec![0; rank];
        order.iter().enumerate().for_each(|(i, &d)| back[d] = i as isize);
        let shape: Shape = order.iter().map(|&d| self.shape()[d]).collect();
        record("diagonal", [self.node()], [], y, move |_, g, sink| {
            let g = g.unsqueeze(-1)?.expand(&shape)?.threshold_backward(&Tensor::eye(n, n)?)?;
            sink.add(0, g.permute(&back)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let cases: &[(&'static str, &[&[usize]])] = &[
        ("i,i->", &[&[3], &[3]]),
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("ij,jk->ki", &[&[2, 3], &[3, 4]]),
        ("ij,kj", &[&[2, 3], &[4, 3]]),
        ("i,j->ji", &[&[2], &[3]]),
        ("bij,bjk->bik", &[&[2, 3, 2], &[2, 2, 3]]),
        ("bihd,bjhd->bhij", &[&[1, 2, 2, 3], &[1, 3, 2, 3]]),
        ("ij,ij->ij", &[&[2, 3], &[2, 3]]),
        ("ij,j->", &[&[2, 3], &[3]]),
        ("ij,kl->i", &[&[2, 3], &[2, 2]]),
        ("i,->i", &[&[3], &[]]),
        ("ij->ji", &[&[2, 3]]),
        ("ij->i", &[&[2, 3]]),
        ("ii", &[&[3, 3]]),
        ("ii->i", &[&[3, 3]]),
        ("iij->ji", &[&[3, 3, 2]]),
        ("iii->i", &[&[2, 2, 2]]),
        ("jiij->", &[&[2, 3, 3, 2]]),
        ("ii,ij->j", &[&[3, 3], &[3, 2]]),
        ("i,ij,j->", &[&[3], &[3, 2], &[2]]),
        ("bn,anm,bm->ba", &[&[2, 3], &[2, 3, 2], &[2, 2]]),
        ("ab,bc,cd,de->ae", &[&[2, 3], &[3, 2], &[2, 3], &[3, 2]]),
        ("i,i,i->i", &[&[3], &[3], &[3]]),
        ("...ij,...jk->...ik", &[&[2, 2, 3], &[1, 3, 2]]),
        ("...ij,jk", &[&[2, 2, 3], &[3, 2]]),
        ("i...->...", &[&[2, 3]]),
        ("...ii->...i", &[&[2, 3, 3]]),
        ("ij,jk->ik", &[&[2, 1], &[3, 4]]),
        ("ij,ij->", &[&[1, 3], &[2, 1]]),
        ("i,i->i", &[&[1], &[1]]),
        ("ij,jk->ik", &[&[2, 0], &[0, 3]]),
        ("ij,jk->ik", &[&[0, 2], &[2, 3]]),
    ];
    let row = Row::of("einsum", &[&[3, 2]], |x| Var::einsum("ij,ij->i", &[&x[0], &x[0]]))
        .and(&[&[2, 2]], |x| Var::einsum("ij,jk,kl->il", &[&x[0], &x[0], &x[0]]))
        .and(&[&[2, 2]], |x| Var::einsum("ii,jj->", &[&x[0], &x[0]]))
        .and(&[&[3, 2], &[2]], |x| {
            Var::einsum("ij,jk->ik", &[&x[0].transpose(0, 1)?, &x[1].expand([3, 2])?])
        });
    cases.iter().fold(vec![row], |mut rows, &(equation, shapes)| {
        rows.push(Row::of("einsum", shapes, move |x| {
            Var::einsum(equation, &x.iter().collect::<Vec<_>>())
        }));
        rows
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;
    use tensor::Generator;

    fn random(shapes: &[&[usize]]) -> Vec<Tensor<f64>> {
        let mut generator = Generator::new(3);
        shapes.iter().map(|s| Tensor::randn(*s, &mut generator).unwrap()).collect()
    }

    #[test]
    fn the_value_is_that_of_tensors() {
        let cases: [(&str, &[&[usize]]); 6] = [
            ("ij,jk->ki", &[&[2, 3], &[3, 4]]),
            ("b...a", &[&[2, 3, 4]]),
            ("ab,bc,cd", &[&[2, 3], &[3, 1], &[5, 2]]),
            ("iij,jk,k->ik", &[&[3, 3, 2], &[2, 4], &[4]]),
            ("...i,i...->...", &[&[2, 3], &[3, 2]]),
            ("i,j,k->", &[&[2], &[3], &[4]]),
        ];
        for (equation, shapes) in cases {
            let x = random(shapes);
            let wanted = Tensor::einsum(equation, &x.iter().collect::<Vec<_>>()).unwrap();
            let x: Vec<_> = x.into_iter().map(Var::constant).collect();
            let got = Var::einsum(equation, &x.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(got.shape(), wanted.shape(), "{equation}");
            for (a, b) in got.value().to_vec().into_iter().zip(wanted.to_vec()) {
                assert!((a - b).abs() <= 1e-14 * (1.0 + b.abs()), "{equation}");
            }
        }
    }

    #[test]
    fn errors_are_those_of_tensors() {
        for (equation, shapes) in [
            ("ij,jk->ik", &[&[2, 3][..]][..]),
            ("ij,jk->ik", &[&[2, 3], &[4, 5]]),
            ("ii->i", &[&[2, 3]]),
            ("ij->ik", &[&[2, 3]]),
            ("i1->i", &[&[2, 3]]),
            ("", &[]),
        ] {
            let x = random(shapes);
            let wanted = Tensor::einsum(equation, &x.iter().collect::<Vec<_>>()).map(|_| ());
            let x: Vec<_> = x.into_iter().map(Var::constant).collect();
            let got = Var::einsum(equation, &x.iter().collect::<Vec<_>>()).map(|_| ());
            assert_eq!(got.unwrap_err().to_string(), wanted.unwrap_err().to_string());
        }
        let [a, b] = [Tape::new(), Tape::new()].map(|t| t.var(Tensor::from([1.0_f64, 2.0])));
        let mixed = Var::einsum("i,i->", &[&a, &b]).unwrap_err().to_string();
        assert!(mixed.starts_with("einsum: the operands are on two different tapes"), "{mixed}");
    }

    /// A chain of matrices has the gradient of `matmul`, and no intermediate larger than it needs.
    #[test]
    fn a_chain_is_differentiated_in_pairs() {
        let x = random(&[&[2, 30], &[30, 2], &[2, 30]]);
        let tape = Tape::new();
        let v: Vec<_> = x.iter().map(|x| tape.var(x.clone())).collect();
        let chained = Var::einsum("ab,bc,cd->ad", &[&v[0], &v[1], &v[2]]).unwrap();
        assert_eq!(tape.op_names()[3..], ["einsum", "einsum"]);
        let upstream = chained.value().ones_like();
        let grads = chained.backward_with(&upstream).unwrap();
        let got: Vec<_> = v.iter().map(|v| grads.wrt(v).unwrap().to_vec()).collect();
        let v: Vec<_> = x.iter().map(|x| tape.var(x.clone())).collect();
        let plain = v[0].matmul(&v[1]).unwrap().matmul(&v[2]).unwrap();
        let grads = plain.backward_with(&upstream).unwrap();
        for (v, got) in v.iter().zip(got) {
            for (a, b) in got.into_iter().zip(grads.wrt(v).unwrap().to_vec()) {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()));
            }
        }
    }
}
