//! `einsum`: sums of products in index notation, done by sums, broadcast products and `matmul`.
//!
//! The language of equations is in [`subscripts`](super::subscripts).

use super::subscripts::{Equation, OP};
use crate::element::Float;
use crate::error::Result;
use crate::layout::{Layout, Strides};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A tensor and the labels of its dims, each once.
struct Term<T: Float> {
    x: Tensor<T>,
    labels: Vec<usize>,
}

/// Products in index notation.
impl<T: Float> Tensor<T> {
    /// Sum of products in index notation: `y[output] = Σ_{other labels} Π_i operands[i][labels_i]`.
    ///
    /// `equation` names each dim of each operand with a letter, operands set apart by commas:
    /// `"bik,bkj->bij"`. Equal labels run together, also within an operand (`"ii->i"` is the
    /// diagonal), and labels that the output does not name are summed over. Without `->` the output
    /// has the dims of the ellipsis and then the labels that occur once, `A`–`Z` before `a`–`z`. An
    /// ellipsis `...` covers the dims that no letter names; they broadcast between operands, aligned
    /// at the last, and are summed if an explicit output has no ellipsis. Spaces have no meaning.
    ///
    /// Operands are multiplied from left to right, each pair in one `matmul` (or, where nothing is
    /// summed, one broadcast product); what only one of the two has and nothing later needs is
    /// summed first. Order the operands so that the small intermediate results come early. A single
    /// operand that is only permuted, or whose diagonal is taken, gives a view.
    ///
    /// # Shape
    /// Any ranks, sizes and strides. A label has one size, or 1 where an operand broadcasts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an equation that does not parse, names an output label twice
    /// or one that no operand has, and for operands whose number, ranks or sizes do not fit it;
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?;
    /// let v = Tensor::from_vec(vec![1.0, 10.0], [2])?;
    /// assert_eq!(Tensor::einsum("ij,j->i", &[&a, &v])?.to_vec(), [21.0, 43.0]);
    /// assert_eq!(Tensor::einsum("ii", &[&a])?.item()?, 5.0); // the trace
    /// assert_eq!(Tensor::einsum("i,ij,j->", &[&v, &a, &v])?.item()?, 451.0);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.einsum`; Einstein, Ann. Phys. 354 (1916), §5.
    pub fn einsum(equation: &str, operands: &[&Self]) -> Result<Self> {
        let shapes: Vec<&[usize]> = operands.iter().map(|x| x.shape()).collect();
        Equation::new(equation, &shapes)?.evaluate(operands)
    }
}

impl Equation {
    /// The sum of products that it stands for. The operands are as many as the inputs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for sizes that do not fit it;
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    pub fn evaluate<T: Float>(&self, operands: &[&Tensor<T>]) -> Result<Tensor<T>> {
        let shapes: Vec<&[usize]> = operands.iter().map(|x| x.shape()).collect();
        let sizes = self.sizes(&shapes)?;
        let terms = self.inputs.iter().zip(operands);
        let mut terms = terms.map(|(labels, x)| diagonal(x, labels)).collect::<Vec<_>>();
        for term in &mut terms {
            term.drop_ones(&sizes)?;
        }
        let output = &self.output;
        let mut terms = terms.into_iter();
        let Some(mut result) = terms.next() else { unreachable!("bug: split gives one part") };
        while let Some(next) = terms.next() {
            let later = |label: &usize| {
                output.contains(label) || terms.as_slice().iter().any(|t| t.labels.contains(label))
            };
            result = multiply(result, next, later)?;
        }
        let result = result.summed(|label| !output.contains(label))?;
        result.arranged(output.iter().copied())
    }
}

/// A view of `x` in which every label has one dim: equal ones, of equal size, are walked together.
fn diagonal<T: Float>(x: &Tensor<T>, labels: &[usize]) -> Term<T> {
    let (mut distinct, mut sizes, mut strides) = (Vec::new(), Vec::new(), Strides::new());
    for (d, &label) in labels.iter().enumerate() {
        let stride = x.layout.strides[d];
        match distinct.iter().position(|&l| l == label) {
            None => {
                distinct.push(label);
                sizes.push(x.shape()[d]);
                strides.push(stride);
            }
            Some(seen) => strides[seen] += stride,
        }
    }
    let layout = Layout { shape: Shape::from(sizes), strides, offset: x.layout.offset };
    Term { x: Tensor { buffer: x.buffer.clone(), layout }, labels: distinct }
}

impl<T: Float> Term<T> {
    /// Drops each label that has size 1 here and another elsewhere: this operand broadcasts, it does
    /// not depend on it, and another operand carries it.
    fn drop_ones(&mut self, sizes: &[(usize, usize)]) -> Result<()> {
        for d in (0..self.labels.len()).rev() {
            if self.x.shape()[d] == 1 && !sizes.contains(&(self.labels[d], 1)) {
                self.labels.remove(d);
                self.x = self.x.squeeze(d as isize)?;
            }
        }
        Ok(())
    }

    /// Summed over the labels where `over` says so.
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
    fn arranged(&self, labels: impl Iterator<Item = usize>) -> Result<Tensor<T>> {
        let place = |label| self.labels.iter().position(|&l| l == label).map(|d| d as isize);
        self.x.permute(&labels.filter_map(place).collect::<Vec<_>>())
    }

    /// The sizes of `labels`.
    fn sizes(&self, labels: &[usize]) -> Vec<usize> {
        let place = |label: &usize| self.labels.iter().position(|l| l == label);
        labels.iter().filter_map(place).map(|d| self.x.shape()[d]).collect()
    }
}

/// The product of two operands, summed over what both have and `later` does not need.
fn multiply<T: Float>(a: Term<T>, b: Term<T>, later: impl Fn(&usize) -> bool) -> Result<Term<T>> {
    let a = a.summed(|label| !later(label) && !b.labels.contains(label))?;
    let b = b.summed(|label| !later(label) && !a.labels.contains(label))?;
    let (both, left): (Vec<_>, Vec<_>) = a.labels.iter().partition(|&l| b.labels.contains(l));
    let (batch, contracted): (Vec<_>, Vec<_>) = both.into_iter().partition(|l| later(l));
    let right: Vec<_> = b.labels.iter().copied().filter(|l| !a.labels.contains(l)).collect();
    let labels = [&batch[..], &left, &right].concat();
    let sizes = [a.sizes(&batch), a.sizes(&left), b.sizes(&right)];
    let shape = Shape::from(sizes.concat());
    shape.checked_alloc(OP, size_of::<T>())?;

    let lhs = a.arranged([&batch[..], &left, &contracted].concat().into_iter())?;
    let rhs = b.arranged([&batch[..], &contracted, &right].concat().into_iter())?;
    if contracted.is_empty() {
        // Nothing is summed: a broadcast product.
        let ones = vec![1; right.len()];
        let lhs = lhs.reshape([lhs.shape(), &ones[..]].concat())?;
        let ones = vec![1; left.len()];
        let rhs = rhs.reshape([&sizes[0][..], &ones, &sizes[2]].concat())?;
        return Ok(Term { x: lhs.checked_mul(&rhs)?, labels });
    }
    let [n, m, p] = sizes.map(|sizes| sizes.iter().product::<usize>());
    let k: usize = a.sizes(&contracted).iter().product();
    // Without a batch these are matrices, whose strides need no copy to be one stride.
    let x = if batch.is_empty() {
        lhs.reshape([m, k])?.matmul(&rhs.reshape([k, p])?)?
    } else {
        lhs.reshape([n, m, k])?.matmul(&rhs.reshape([n, k, p])?)?
    };
    Ok(Term { x: x.reshape(shape)?, labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Small whole numbers, so that sums and products are exact in any order.
    fn whole(shape: &[usize]) -> Tensor<f64> {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
        Tensor::from_vec(data, shape).unwrap()
    }

    fn at(x: &Tensor<f64>, index: &[usize]) -> f64 {
        let place = index.iter().zip(x.layout().strides()).map(|(&i, &s)| i as isize * s);
        let position = x.layout().offset() as isize + place.sum::<isize>();
        x.buffer.as_slice()[position as usize]
    }

    /// The definition: a loop over all values of all labels. Subscripts without ellipsis.
    fn naive(inputs: &[&str], output: &str, operands: &[&Tensor<f64>]) -> (Vec<usize>, Vec<f64>) {
        let mut sizes = [1_usize; 128];
        let mut labels: Vec<char> = output.chars().collect();
        for (part, x) in inputs.iter().zip(operands) {
            for (c, &size) in part.chars().zip(x.shape()) {
                if size != 1 {
                    sizes[c as usize] = size;
                }
                if !labels.contains(&c) {
                    labels.push(c);
                }
            }
        }
        let shape: Vec<usize> = output.chars().map(|c| sizes[c as usize]).collect();
        let mut out = vec![0.0; shape.iter().product()];
        let inner: usize =
            labels[output.len()..].iter().map(|&c| sizes[c as usize]).product::<usize>();
        for step in 0..out.len() * inner {
            let mut rest = step;
            let mut index = [0_usize; 128];
            for &c in labels.iter().rev() {
                index[c as usize] = rest % sizes[c as usize];
                rest /= sizes[c as usize];
            }
            let factor = |(part, x): (&&str, &&Tensor<f64>)| {
                let bound = part.chars().zip(x.shape()).map(|(c, &s)| index[c as usize].min(s - 1));
                at(x, &bound.collect::<Vec<_>>())
            };
            out[step / inner] += inputs.iter().zip(operands).map(factor).product::<f64>();
        }
        (shape, out)
    }

    fn assert_naive(equation: &str, operands: &[&Tensor<f64>]) {
        let (inputs, output) = equation.split_once("->").unwrap();
        let inputs: Vec<&str> = inputs.split(',').collect();
        let (shape, values) = naive(&inputs, output, operands);
        let got = Tensor::einsum(equation, operands).unwrap();
        assert_eq!(got.shape(), shape, "{equation}");
        assert_eq!(got.to_vec(), values, "{equation}");
    }

    #[test]
    fn matches_the_definition() {
        let cases: [(&str, &[&[usize]]); 27] = [
            ("i->", &[&[5]]),
            ("ij->ji", &[&[2, 3]]),
            ("ijk->j", &[&[2, 3, 4]]),
            ("ii->i", &[&[3, 3]]),
            ("iij->ji", &[&[3, 3, 2]]),
            ("iii->", &[&[3, 3, 3]]),
            ("i,i->", &[&[4], &[4]]),
            ("i,j->ij", &[&[3], &[4]]),
            ("i,j->ji", &[&[3], &[4]]),
            ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
            ("ij,jk->ki", &[&[2, 3], &[3, 4]]),
            ("ij,kj->ik", &[&[2, 3], &[4, 3]]),
            ("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]]),
            ("bij,bjk->ikb", &[&[2, 3, 4], &[2, 4, 5]]),
            ("ib,jb->ijb", &[&[3, 2], &[4, 2]]),
            ("bhid,bhjd->bhij", &[&[2, 2, 3, 4], &[2, 2, 5, 4]]),
            ("bihd,bjhd->bhij", &[&[2, 3, 2, 4], &[2, 5, 2, 4]]),
            ("ijk,kjl->il", &[&[2, 3, 4], &[4, 3, 2]]),
            ("ijx,jky->ik", &[&[2, 3, 2], &[3, 4, 3]]),
            ("ii,ij->j", &[&[3, 3], &[3, 2]]),
            ("ij,ij->ij", &[&[2, 3], &[2, 3]]),
            ("i,ij,j->", &[&[3], &[3, 2], &[2]]),
            ("bn,anm,bm->ba", &[&[2, 3], &[4, 3, 5], &[2, 5]]),
            ("ab,bc,cd,de->ae", &[&[2, 3], &[3, 2], &[2, 4], &[4, 2]]),
            ("aB,Bc->ac", &[&[2, 3], &[3, 2]]),
            (",ij,->j", &[&[], &[2, 3], &[]]),
            ("->", &[&[]]),
        ];
        for (equation, shapes) in cases.into_iter().step_by(if cfg!(miri) { 9 } else { 1 }) {
            let operands: Vec<_> = shapes.iter().map(|s| whole(s)).collect();
            assert_naive(equation, &operands.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn sizes_of_one_broadcast_and_of_zero_are_empty() {
        let cases: [(&str, &[&[usize]]); 9] = [
            ("ij,jk->ik", &[&[2, 1], &[3, 4]]),
            ("ij,jk->ik", &[&[2, 3], &[1, 4]]),
            ("ij,ij->", &[&[1, 3], &[2, 1]]),
            ("bij,bjk->bik", &[&[1, 2, 3], &[4, 3, 2]]),
            ("i,i,i->i", &[&[1], &[1], &[1]]),
            ("ij,jk->ik", &[&[2, 0], &[0, 3]]),
            ("ij,jk->ik", &[&[0, 2], &[2, 3]]),
            ("ij,jk->ik", &[&[2, 1], &[0, 3]]),
            ("ij->j", &[&[0, 2]]),
        ];
        for (equation, shapes) in cases {
            let operands: Vec<_> = shapes.iter().map(|s| whole(s)).collect();
            assert_naive(equation, &operands.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn views_are_operands_like_others() {
        let x = whole(&[4, 6]);
        let row = whole(&[6]);
        let mut reversed = x.clone();
        reversed.layout.offset = 18;
        reversed.layout.strides[0] = -6;
        let views = [
            whole(&[6, 4]).transpose(0, 1).unwrap(),
            x.clone(),
            reversed,
            row.expand([4, 6]).unwrap(),
            whole(&[9, 13]).narrow(0, 2, 4).unwrap().narrow(1, 5, 6).unwrap(),
            Tensor::scalar(3.0).expand([4, 6]).unwrap(),
        ];
        // Miri sees one of the pairs.
        let few = if cfg!(miri) { 6 } else { 1 };
        for a in views.iter().step_by(2 * few - 1) {
            for b in views.iter().step_by(few) {
                for equation in ["ij,kj->ik", "ji,jk->ik", "ij,ij->j", "ij,ij->", "ij,kl->i"] {
                    assert_naive(equation, &[a, b]);
                }
            }
            let square = a.narrow(1, 1, 4).unwrap();
            assert_naive("ii->i", &[&square]);
            assert_naive("ii,ij->ij", &[&square, a]);
        }
        let diagonal = Tensor::einsum("ii->i", &[&x.narrow(1, 0, 4).unwrap()]).unwrap();
        assert!(diagonal.shares_storage(&x));
    }

    #[test]
    fn the_output_may_be_implicit() {
        let same = |implicit: &str, explicit: &str, shapes: &[&[usize]]| {
            let operands: Vec<_> = shapes.iter().map(|s| whole(s)).collect();
            let operands: Vec<_> = operands.iter().collect();
            let got = Tensor::einsum(implicit, &operands).unwrap();
            let wanted = Tensor::einsum(explicit, &operands).unwrap();
            assert_eq!((got.shape(), got.to_vec()), (wanted.shape(), wanted.to_vec()));
        };
        same("ba", "ba->ab", &[&[2, 3]]);
        same("bA", "bA->Ab", &[&[2, 3]]);
        same("ij,jk", "ij,jk->ik", &[&[2, 3], &[3, 4]]);
        same(" i j , j h ", "ij,jh->hi", &[&[2, 3], &[3, 4]]);
        same("ii", "ii->", &[&[3, 3]]);
        same("b...a", "b...a->...ab", &[&[2, 3, 4, 5]]);
        same("i...,i", "i...,i->...", &[&[2, 3], &[2]]);
        same("...", "...->...", &[&[2, 3]]);
    }

    #[test]
    fn an_ellipsis_covers_and_broadcasts_the_other_dims() {
        let same = |equation: &str, plain: &str, shapes: &[&[usize]]| {
            let operands: Vec<_> = shapes.iter().map(|s| whole(s)).collect();
            let operands: Vec<_> = operands.iter().collect();
            let (inputs, output) = plain.split_once("->").unwrap();
            let inputs: Vec<&str> = inputs.split(',').collect();
            let (shape, values) = naive(&inputs, output, &operands);
            let got = Tensor::einsum(equation, &operands).unwrap();
            assert_eq!((got.shape(), got.to_vec()), (&shape[..], values), "{equation}");
        };
        same("...ij,...jk->...ik", "abij,abjk->abik", &[&[2, 3, 2, 3], &[2, 3, 3, 2]]);
        same("...ij,...jk->...ik", "abij,bjk->abik", &[&[2, 3, 2, 3], &[3, 3, 2]]);
        same("...ij,...jk->...ik", "abij,abjk->abik", &[&[2, 1, 2, 3], &[1, 3, 3, 2]]);
        same("i...->...i", "iab->abi", &[&[2, 3, 4]]);
        same("i...j->j...", "iabj->jab", &[&[2, 3, 4, 5]]);
        same("...i->i", "abi->i", &[&[2, 3, 4]]);
        same("...,->...", "ab,->ab", &[&[2, 3], &[]]);
        same("i->...i", "i->i", &[&[3]]);
    }

    #[test]
    fn errors_say_what_does_not_fit() {
        let text = |equation: &str, shapes: &[&[usize]]| {
            let operands: Vec<_> = shapes.iter().map(|s| whole(s)).collect();
            let operands: Vec<_> = operands.iter().collect();
            Tensor::einsum(equation, &operands).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(
            text("ij,jk->ik", &[&[2, 3]]),
            "einsum: operands are 1, but \"ij,jk->ik\" has subscripts for 2"
        );
        assert_eq!(text("", &[]), "einsum: operands are 0, but \"\" has subscripts for 1");
        assert_eq!(
            text("ijk->i", &[&[2, 3]]),
            "einsum: operands do not fit: \"ijk\" names 3 dims, operand 0 is [2, 3]"
        );
        assert_eq!(
            text("i...j", &[&[2]]),
            "einsum: operands do not fit: \"i...j\" names 2 dims, operand 0 is [2]"
        );
        assert_eq!(
            text("ij,jk->ik", &[&[2, 3], &[4, 5]]),
            "einsum: operands do not fit: label \"j\" has size 3 in operand 0 and 4 in operand 1"
        );
        assert_eq!(
            text("...,...", &[&[2], &[3]]),
            "einsum: operands do not fit: label \"...\" has size 2 in operand 0 and 3 in operand 1"
        );
        assert_eq!(
            text("Ai,ii->i", &[&[2, 2], &[2, 3]]),
            "einsum: operands do not fit: label \"i\" has sizes 2 and 3 in operand 1, [2, 3]"
        );
        assert_eq!(
            text("ij->ik", &[&[2, 3]]),
            "einsum: equation \"ij->ik\" has output label 'k', which no operand has"
        );
        assert_eq!(
            text("ij->ii", &[&[2, 3]]),
            "einsum: equation \"ij->ii\" names output label 'i' twice"
        );
        assert_eq!(
            text("i1->i", &[&[2, 3]]),
            "einsum: equation \"i1->i\" has an unexpected '1'; letters, one `...` an operand, `,` and \
             one `->` are allowed"
        );
        for equation in ["i->j->k", "i-", "i>j", "i..", "....", "......", "i->i,i", "é", "i\t"] {
            assert!(text(equation, &[&[2]]).contains("unexpected"), "{equation}");
        }
        let wide = Tensor::scalar(1.0_f64).expand([1 << 31]).unwrap();
        let product = Tensor::einsum("i,j->ij", &[&wide, &wide]).map(|_| ()).unwrap_err();
        assert!(matches!(product, Error::SizeOverflow { op: "einsum", .. }));
    }
}
