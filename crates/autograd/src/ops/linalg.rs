//! Products with the rank in their name: `dot`, `outer`, `mv`, `bmm`, and `addmm`; and the trace.
//! Nothing broadcasts here but the addend; [`Var::matmul`] is the one that does.

use tensor::{Float, Result, Shape, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// Records `z`, linear in each of x and y: `dx = left(g, y)` and `dy = right(g, x)`, summed to their
/// shapes. Saves the factor of each tracked operand.
#[track_caller]
pub(super) fn bilinear<T: Float>(
    name: &'static str,
    [x, y]: [&Var<T>; 2],
    z: Tensor<T>,
    left: impl Fn(&Var<T>, &Var<T>) -> Result<Var<T>> + Send + 'static,
    right: impl Fn(&Var<T>, &Var<T>) -> Result<Var<T>> + Send + 'static,
) -> Result<Var<T>> {
    let nodes = [x.node(), y.node()];
    match (x.is_tracked(), y.is_tracked()) {
        (true, false) => record(name, nodes, [Save::Input(y)], z, move |ctx, g, sink| {
            sink.add_broadcast(0, left(&g, &ctx.saved(0))?)
        }),
        (false, true) => record(name, nodes, [Save::Input(x)], z, move |ctx, g, sink| {
            sink.add_broadcast(1, right(&g, &ctx.saved(0))?)
        }),
        _ => record(name, nodes, [Save::Input(x), Save::Input(y)], z, move |ctx, g, sink| {
            if ctx.needs(0) {
                sink.add_broadcast(0, left(&g, &ctx.saved(1))?)?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, right(&g, &ctx.saved(0))?)?;
            }
            Ok(())
        }),
    }
}

impl<T: Float> Var<T> {
    /// Scalar product of two vectors: `y = Σ_k a_k·b_k`, `dA = g·b`, `dB = g·a`. Saves the factor of
    /// each tracked operand. Any order. `torch.dot`.
    ///
    /// # Shape
    /// `[K] · [K]` → `[]`; 0 where K is 0.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless both are vectors,
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ.
    #[track_caller]
    pub fn dot(&self, rhs: &Self) -> Result<Self> {
        let y = self.value().dot(rhs.value())?;
        bilinear("dot", [self, rhs], y, |g, b| Ok(b * g), |g, a| Ok(a * g))
    }

    /// Outer product of two vectors: `Y_ij = a_i·b_j`, `dA = G·b`, `dB = Gᵀ·a`. Saves the factor of
    /// each tracked operand. Any order. `torch.outer`.
    ///
    /// # Shape
    /// `[M], [N]` → `[M, N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless both are vectors;
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    #[track_caller]
    pub fn outer(&self, rhs: &Self) -> Result<Self> {
        let y = self.value().outer(rhs.value())?;
        bilinear("outer", [self, rhs], y, |g, b| g.mv(b), |g, a| g.transpose(0, 1)?.mv(a))
    }

    /// A matrix times a vector: `y_i = Σ_k A_ik·v_k`, `dA = g·vᵀ`, `dv = Aᵀ·g`. Saves the factor of
    /// each tracked operand. Any order. `torch.mv`.
    ///
    /// # Shape
    /// `[M, K] · [K]` → `[M]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless these are a matrix and a vector,
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ.
    #[track_caller]
    pub fn mv(&self, v: &Self) -> Result<Self> {
        let y = self.value().mv(v.value())?;
        bilinear("mv", [self, v], y, |g, v| g.outer(v), |g, a| a.transpose(0, 1)?.mv(g))
    }

    /// One matrix product for each entry of a batch: `Y_n = A_n·B_n`, `dA = G·Bᵀ`, `dB = Aᵀ·G`. Saves
    /// the factor of each tracked operand. Any order. `torch.bmm`.
    ///
    /// # Shape
    /// `[N, M, K] · [N, K, P]` → `[N, M, P]`. The batch sizes must be equal: 1 does not broadcast.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless both have rank 3,
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ,
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the N differ.
    #[track_caller]
    pub fn bmm(&self, rhs: &Self) -> Result<Self> {
        let y = self.value().bmm(rhs.value())?;
        bilinear(
            "bmm",
            [self, rhs],
            y,
            |g, b| g.bmm(&b.transpose(1, 2)?), // [N,M,P]·[N,K,P]ᵀ
            |g, a| a.transpose(1, 2)?.bmm(g),  // [N,M,K]ᵀ·[N,M,P]
        )
    }

    /// A matrix product added to this variable: `Y = β·C + α·(A·B)` with C = `self`, `dC = β·G`, summed
    /// where C was broadcast, `dA = α·G·Bᵀ`, `dB = α·Aᵀ·G`. Saves a and b. Any order. `torch.addmm`.
    ///
    /// Where `beta` is 0, `self` is not read, and its gradient is 0.
    ///
    /// # Shape
    /// `a: [M, K]`, `b: [K, N]`, `self` broadcasts to `[M, N]` → `[M, N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless `a` and `b` are matrices,
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ,
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if `self` does not broadcast to the
    /// product.
    #[track_caller]
    pub fn addmm(&self, a: &Self, b: &Self, beta: T, alpha: T) -> Result<Self> {
        let y = self.value().addmm(a.value(), b.value(), beta, alpha)?;
        let (nodes, saved) = ([self.node(), a.node(), b.node()], [Save::Input(a), Save::Input(b)]);
        record("addmm", nodes, saved, y, move |ctx, g, sink| {
            if beta == T::ZERO {
                sink.add_zero(0)?;
            } else if ctx.needs(0) {
                sink.add_broadcast(0, &g * beta)?;
            }
            if ctx.needs(1) || ctx.needs(2) {
                let g = g * alpha;
                if ctx.needs(1) {
                    // [M,N]·[K,N]ᵀ
                    sink.add(1, g.matmul(&ctx.saved(1).transpose(0, 1)?)?)?;
                }
                if ctx.needs(2) {
                    // [M,K]ᵀ·[M,N]
                    sink.add(2, ctx.saved(0).transpose(0, 1)?.matmul(&g)?)?;
                }
            }
            Ok(())
        })
    }

    /// Sum of the diagonal of a matrix, `y = Σ_i A_ii`: `dA_ii = g`, and 0 beside the diagonal. Saves
    /// nothing. Any order. `torch.trace`.
    ///
    /// # Shape
    /// `[M, N]` → `[]`; the matrix need not be square.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) unless this is a matrix.
    #[track_caller]
    pub fn trace(&self) -> Result<Self> {
        let [m, n] = self.value().dims("trace")?;
        let y = self.value().diagonal(0, 0, 1)?.sum();
        record("trace", [self.node()], [], y, move |_, g, sink| {
            let g = g.expand(Shape::from([m, n]))?;
            sink.add(0, g.threshold_backward(&Tensor::eye(m, n)?)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::of("dot", &[&[4], &[4]], |x| x[0].dot(&x[1]))
            .and(&[&[3]], |x| x[0].dot(&x[0]))
            .and(&[&[1], &[1]], |x| x[0].dot(&x[1]))
            .and(&[&[0], &[0]], |x| x[0].dot(&x[1]))
            .and(&[&[1], &[3]], |x| x[0].expand([3])?.dot(&x[1])),
        Row::of("outer", &[&[2], &[3]], |x| x[0].outer(&x[1]))
            .and(&[&[3]], |x| x[0].outer(&x[0]))
            .and(&[&[0], &[3]], |x| x[0].outer(&x[1]))
            .and(&[&[1], &[3]], |x| x[0].expand([2])?.outer(&x[1])),
        Row::of("mv", &[&[3, 2], &[2]], |x| x[0].mv(&x[1]))
            .and(&[&[2, 3], &[2]], |x| x[0].transpose(0, 1)?.mv(&x[1]))
            .and(&[&[0, 2], &[2]], |x| x[0].mv(&x[1]))
            .and(&[&[2, 0], &[0]], |x| x[0].mv(&x[1]))
            .and(&[&[2]], |x| x[0].expand([2, 2])?.mv(&x[0])),
        Row::of("bmm", &[&[2, 3, 2], &[2, 2, 4]], |x| x[0].bmm(&x[1]))
            .and(&[&[2, 2, 2]], |x| x[0].bmm(&x[0]))
            .and(&[&[1, 1, 2], &[1, 2, 1]], |x| x[0].bmm(&x[1]))
            .and(&[&[2, 2, 3], &[2, 2, 2]], |x| x[0].permute(&[1, 2, 0])?.bmm(&x[1]))
            .and(&[&[0, 2, 3], &[0, 3, 1]], |x| x[0].bmm(&x[1]))
            .and(&[&[2, 2, 0], &[2, 0, 1]], |x| x[0].bmm(&x[1])),
        Row::of("addmm", &[&[2], &[2, 1], &[1, 2]], |x| x[0].addmm(&x[1], &x[2], 1.0, 1.0))
            .and(&[&[2, 3], &[2, 4], &[4, 3]], |x| x[0].addmm(&x[1], &x[2], 0.5, -2.0))
            .and(&[&[2, 1], &[4, 2], &[3, 4]], |x| {
                let (a, b) = (x[1].transpose(0, 1)?, x[2].transpose(0, 1)?);
                x[0].addmm(&a, &b, 2.0, 1.0)
            })
            .and(&[&[], &[2, 2]], |x| x[0].addmm(&x[1], &x[1], 3.0, 0.5))
            .and(&[&[2, 2]], |x| x[0].addmm(&x[0], &x[0], 1.0, 1.0))
            .and(&[&[3], &[2, 3], &[3, 3]], |x| x[0].addmm(&x[1], &x[2], 0.0, 2.0))
            .and(&[&[3], &[2, 0], &[0, 3]], |x| x[0].addmm(&x[1], &x[2], 1.0, 1.0))
            .and(&[&[3], &[0, 2], &[2, 3]], |x| x[0].addmm(&x[1], &x[2], 1.0, 1.0)),
        Row::of("trace", &[&[2, 3]], |x| (&x[0] * &x[0]).trace())
            .and(&[&[3, 2]], |x| (&x[0] * &x[0]).trace())
            .and(&[&[3, 3]], |x| x[0].transpose(0, 1)?.trace())
            .and(&[&[0, 2]], |x| x[0].trace()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn zeros(shape: &[usize]) -> Var<f64> {
        Var::constant(Tensor::zeros(shape).unwrap())
    }

    #[test]
    fn an_addend_of_weight_zero_is_not_read() {
        let tape = Tape::new();
        let c = tape.var(Tensor::from([f64::NAN, f64::INFINITY]));
        let a = tape.var(Tensor::from([[2.0]]));
        let y = c.addmm(&a, &Var::constant(Tensor::from([[3.0, 4.0]])), 0.0, 1.0).unwrap();
        assert_eq!(y.value().to_vec(), [6.0, 8.0]);
        let grads = y.backward_with(&Tensor::from([[1.0, 1.0]])).unwrap();
        assert_eq!(grads.wrt(&a).unwrap().to_vec(), [7.0]);
        assert!(grads.wrt(&c).map(|g| g.to_vec() == [0.0; 2]).unwrap_or(true));
    }

    #[test]
    fn an_infinite_gradient_stays_on_the_diagonal() {
        let x = Tape::new().var(Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
        let y = x.trace().unwrap();
        assert_eq!(y.item().unwrap(), 6.0);
        let grads = y.backward_with(&Tensor::scalar(f64::INFINITY)).unwrap();
        let inf = f64::INFINITY;
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [inf, 0.0, 0.0, 0.0, inf, 0.0]);
    }

    #[test]
    fn only_the_factors_of_tracked_operands_are_saved() {
        let x = Tensor::<f64>::ones([64, 64]).unwrap();
        let tape = Tape::new();
        let (w, fixed) = (tape.var(x.clone()), Var::constant(x.clone() * 2.0));
        let y = w.matmul(&fixed).unwrap();
        // Had the op kept w, the tape would share its storage.
        let kept = tape.0.graph.borrow().saved.len();
        assert_eq!(kept, 1);
        assert!(tape.0.graph.borrow().saved_of(1)[0].value.shares_storage(fixed.value()));
        assert_eq!(y.sum().backward().unwrap().wrt(&w).unwrap().to_vec()[0], 128.0);
    }

    #[test]
    fn errors_name_the_operation_and_both_shapes() {
        let text = |r: Result<Var<f64>>| r.unwrap_err().to_string();
        let (v, m, b) = (zeros(&[3]), zeros(&[2, 3]), zeros(&[2, 3, 4]));
        assert_eq!(text(v.dot(&zeros(&[2]))), "dot: inner dimensions differ: [3] × [2]");
        assert!(text(v.dot(&m)).starts_with("dot: expected"));
        assert!(text(m.outer(&v)).starts_with("outer: expected"));
        assert_eq!(text(m.mv(&zeros(&[2]))), "mv: inner dimensions differ: [2, 3] × [2]");
        assert_eq!(text(b.bmm(&b)), "bmm: inner dimensions differ: [2, 3, 4] × [2, 3, 4]");
        let other = zeros(&[1, 4, 3]);
        assert_eq!(text(b.bmm(&other)), "bmm: shapes do not match: [2, 3, 4] and [1, 4, 3]");
        let square = zeros(&[3, 3]);
        let wide = zeros(&[4]).addmm(&m, &square, 1.0, 1.0);
        assert_eq!(text(wide), "addmm: shapes do not match: [4] and [2, 3]");
        assert!(text(v.trace()).starts_with("trace: expected"));
        let foreign = Tape::new().var(Tensor::zeros([3]).unwrap());
        let own = Tape::new().var(Tensor::zeros([3]).unwrap());
        assert!(text(own.dot(&foreign)).starts_with("dot: the operands are on two"));
    }
}
