//! Putting variables together.

use tensor::{Float, Result, Tensor};

use crate::tape::record_many;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Beside each other along a new dim before `dim`; all shapes agree. `dx` of each is its entry of
    /// g. Saves nothing. Any order. `torch.stack`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) without variables;
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch);
    /// [`Error::MixedTapes`](crate::Error::MixedTapes).
    #[track_caller]
    pub fn stack(variables: &[&Self], dim: isize) -> Result<Self> {
        let values: Vec<&Tensor<T>> = variables.iter().map(|x| x.value()).collect();
        let y = Tensor::stack(&values, dim)?;
        let d = y.resolve_dim("stack", dim)?;
        let nodes: Vec<_> = variables.iter().map(|x| x.node()).collect();
        record_many("stack", &nodes, &[], y, move |ctx, g, sink| {
            let n = g.shape()[d];
            let rank = g.value().rank() as isize;
            let front: Vec<isize> =
                [d as isize].into_iter().chain((0..rank).filter(|&i| i != d as isize)).collect();
            let rows = g.permute(&front)?;
            let shape = rows.shape()[1..].to_vec();
            let rows = rows.reshape([n, shape.iter().product()])?;
            for i in (0..n).filter(|&i| ctx.needs(i)) {
                let pick = Var::constant(Tensor::eye(n, n)?.narrow(0, i, 1)?);
                sink.add(i, pick.matmul(&rows)?.reshape(&shape[..])?)?;
            }
            Ok(())
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::of("stack", &[&[2, 3], &[2, 3]], |x| Var::stack(&[&x[0], &x[1], &x[0]], 1))
            .and(&[&[], &[]], |x| Var::stack(&[&x[0], &x[1]], -1))
            .and(&[&[0, 2]], |x| Var::stack(&[&x[0]], 0)),
    ]
}
