//! Matrix products: `Y = A·B`, `dA = G·Bᵀ`, `dB = Aᵀ·G`.

use tensor::{Float, Result, Shape};

use super::linalg::bilinear;
use crate::engine::Ctx;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Matrix product over the last two dims; leading dims broadcast, vectors act as a row on the
    /// left and a column on the right. Saves the factor of each tracked operand. Any order.
    /// `torch.matmul`.
    ///
    /// # Shape
    /// `[.., M, K] · [.., K, N]` → `[.., M, N]`.
    ///
    /// # Gradient
    /// `dA = G·Bᵀ`, `dB = Aᵀ·G`, summed over broadcast dims.
    ///
    /// # Errors
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ,
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if leading dims do not broadcast,
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) for rank 0.
    #[track_caller]
    pub fn matmul(&self, rhs: &Self) -> Result<Self> {
        if self.value().rank() == 1 && rhs.value().rank() > 0 {
            let row = self.unsqueeze(0)?.matmul(rhs)?;
            return row.squeeze(if rhs.value().rank() == 1 { -1 } else { -2 });
        }
        if rhs.value().rank() == 1 && self.value().rank() > 0 {
            return self.matmul(&rhs.unsqueeze(1)?)?.squeeze(-1);
        }
        if let ([lead @ .., m, k], [rhs_k, n]) = (self.shape(), rhs.shape())
            && !lead.is_empty()
            && k == rhs_k
        {
            // One matrix on the right: the leading dims are more rows, and dB one product.
            let rows = m * lead.iter().product::<usize>();
            let shape: Shape = lead.iter().copied().chain([*m, *n]).collect();
            return self.reshape([rows, *k])?.matmul(rhs)?.reshape(shape);
        }
        let y = self.value().matmul(rhs.value())?;
        bilinear(
            "matmul",
            [self, rhs],
            y,
            |g, b| g.matmul(&b.transpose(-2, -1)?), // [..,M,N]·[..,K,N]ᵀ
            |g, a| a.transpose(-2, -1)?.matmul(g),  // [..,M,K]ᵀ·[..,M,N]
        )
    }

    /// `x·Wᵀ + b`, with W as PyTorch stores it. Saves x and W. Any order.
    /// `torch.nn.functional.linear`.
    ///
    /// # Shape
    /// `x: [.., K]`, `w: [N, K]`, `b: [N]` → `[.., N]`.
    ///
    /// # Gradient
    /// With the leading dims of x and g as one, M: `dx = G·W`, `dW = Gᵀ·X`, `db = Σ_M G`.
    ///
    /// # Errors
    /// [`Error::InnerDimensions`](crate::Error::InnerDimensions) if the K differ,
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for b,
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) for W or an x of rank 0.
    #[track_caller]
    pub fn linear(&self, w: &Self, b: Option<&Self>) -> Result<Self> {
        let y = self.value().linear(w.value(), b.map(Var::value))?;
        let nodes = [self.node(), w.node(), b.and_then(Var::node)];
        let saved = [Save::Input(self), Save::Input(w)];
        record("linear", nodes, saved, y, |ctx: &Ctx<T>, g, sink| {
            let (x, w) = (ctx.saved(0), ctx.saved(1));
            let [n, k] = w.value().dims("linear")?;
            let m: usize = x.shape()[..x.value().rank() - 1].iter().product();
            let shape = Shape::from(x.shape());
            let g = g.reshape([m, n])?;
            if ctx.needs(2) {
                sink.add(2, g.sum_dim(&[0], false)?)?;
            }
            if ctx.needs(1) {
                // [M,N]ᵀ·[M,K]
                sink.add(1, g.transpose(0, 1)?.matmul(&x.reshape([m, k])?)?)?;
            }
            if ctx.needs(0) {
                // [M,N]·[N,K]
                sink.add(0, g.matmul(&w)?.reshape(shape)?)?;
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
        Row::of("matmul", &[&[3, 4], &[4, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[2, 1, 3, 4], &[3, 4, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[2, 3, 4], &[4, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[4], &[4]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[4], &[2, 4, 3]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[2, 3, 4], &[4]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[3, 4], &[2, 4]], |x| x[0].matmul(&x[1].transpose(0, 1)?)),
        Row::of("matmul", &[&[3, 3]], |x| x[0].matmul(&x[0])),
        Row::of("matmul", &[&[2, 0], &[0, 3]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[3, 1], &[4, 2]], |x| x[0].expand([3, 4])?.matmul(&x[1])),
        Row::of("matmul", &[&[2, 3, 1, 2], &[3, 2, 2]], |x| {
            x[0].permute(&[1, 0, 2, 3])?.matmul(&x[1].expand([2, 3, 2, 2])?.permute(&[1, 0, 2, 3])?)
        }),
        Row::of("matmul", &[&[2, 1, 2, 3], &[1, 2, 3, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[1, 2, 3], &[2, 3, 1]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[2, 2]], |x| x[0].matmul(&x[0].transpose(0, 1)?)),
        Row::of("matmul", &[&[2, 2, 2]], |x| x[0].matmul(&x[0])),
        Row::of("matmul", &[&[3]], |x| x[0].matmul(&x[0])),
        Row::of("matmul", &[&[0, 2, 3], &[3, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[2, 2, 0], &[2, 0, 2]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[0, 2], &[2, 3]], |x| x[0].matmul(&x[1])),
        Row::of("matmul", &[&[1, 1], &[1, 1]], |x| x[0].matmul(&x[1])),
        Row::of("linear", &[&[5, 3], &[2, 3], &[2]], |x| x[0].linear(&x[1], Some(&x[2]))),
        Row::of("linear", &[&[2, 2, 3], &[4, 3], &[4]], |x| x[0].linear(&x[1], Some(&x[2]))),
        Row::of("linear", &[&[3], &[2, 3]], |x| x[0].linear(&x[1], None)),
        Row::of("linear", &[&[3, 5], &[3, 2], &[1]], |x| {
            x[0].transpose(0, 1)?.linear(&x[1].transpose(0, 1)?, Some(&x[2].expand([2])?))
        }),
        Row::of("linear", &[&[0, 3], &[2, 3], &[2]], |x| x[0].linear(&x[1], Some(&x[2]))),
    ]
}
