//! Strided n-d arrays on the CPU: views without copies, broadcasting, vectorised kernels chosen at
//! run time, and buffers recycled through a bounded pool.
//!
//! This crate deliberately has no notion of a gradient; that is the crate `autograd`.
//!
//! # The first ten minutes
//!
//! A [`Tensor<T>`](Tensor) holds `f32`, `f64`, `i64`, `u8` or `bool`. The type is known to the
//! compiler, the shape at run time.
//!
//! ```
//! use tensor::{Generator, Tensor};
//! # fn main() -> tensor::Result<()> {
//! let x = Tensor::from([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
//! assert_eq!(x.shape(), [2, 3]);
//! assert_eq!(x.to_string(), "[[1., 2., 3.],\n [4., 5., 6.]] shape=[2, 3] f32");
//! let zeros = Tensor::<f64>::zeros([4, 4])?;
//! let steps = Tensor::<i64>::arange(0, 10, 3)?; // 0 3 6 9
//! let mut rng = Generator::new(42); // the same numbers on every machine and any number of threads
//! let noise = Tensor::<f32>::randn([2, 3], &mut rng)?;
//! # let _ = (zeros, steps, noise);
//! # Ok(())
//! # }
//! ```
//!
//! **Operators and functions** work element by element and broadcast as in NumPy: shapes are aligned
//! at their last dim, and sizes of 1 repeat. The second operand of a method may be a number.
//!
//! ```
//! # use tensor::Tensor;
//! # fn main() -> tensor::Result<()> {
//! let x = Tensor::from([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
//! let centred = &x - &x.mean_dim(&[1], true)?; // [2, 3] − [2, 1]
//! assert_eq!(centred.to_vec(), [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]);
//! let y = 2.0 * x.maximum(3.0)? + 1.0;
//! assert_eq!(y.to_vec(), [7.0, 7.0, 7.0, 9.0, 11.0, 13.0]);
//! let positive = centred.gt(0.0)?; // a Tensor<bool>
//! assert_eq!(positive.where_cond(&x, 0.0)?.to_vec(), [0.0, 0.0, 3.0, 0.0, 0.0, 6.0]);
//! # Ok(())
//! # }
//! ```
//!
//! **Who owns, writes.** Methods take `&self` and return a new tensor. An operand given by value
//! (`x + &y`, `x.into_exp()`, `x *= 2.0`) is overwritten where nobody else shares its storage, and
//! copied where somebody does: no tensor changes behind another's back, and an expanded one is never
//! written in place.
//!
//! **Views** share storage and cost nothing: `transpose`, `permute`, `narrow`, `slice`, `select`,
//! `flip`, `diagonal`, `unfold`, `expand`. `reshape` is one where the strides allow.
//!
//! ```
//! # use tensor::{Shape, Slice, Tensor};
//! # fn main() -> tensor::Result<()> {
//! let x = Tensor::<i64>::arange(0, 12, 1)?.reshape([3, Shape::INFER])?; // [3, 4]
//! let corner = x.slice(0, ..2)?.slice(1, -2..)?; // x[:2, -2:]
//! assert_eq!(corner.to_vec(), [2, 3, 6, 7]);
//! assert!(corner.shares_storage(&x));
//! let reversed = x.slice(1, Slice::from(..).step(-1))?; // x[:, ::-1]
//! assert_eq!(reversed.select(0, 0)?.to_vec(), [3, 2, 1, 0]);
//! # Ok(())
//! # }
//! ```
//!
//! **Reductions** come in pairs: `x.sum()` over everything, `x.sum_dim(&[0, -1], keepdim)` over the
//! dims named. Float sums are accumulated in `f64` (after at most four additions in their own type) in a
//! fixed order, so 10⁸ ones make exactly 10⁸, and one thread or eight give the same bits.
//!
//! ```
//! # use tensor::Tensor;
//! # fn main() -> tensor::Result<()> {
//! let x = Tensor::from([[1.0_f64, 9.0, 3.0], [4.0, 5.0, 6.0]]);
//! assert_eq!(x.sum_dim(&[0], false)?.to_vec(), [5.0, 14.0, 9.0]);
//! let (values, indices) = x.max_dim(1, false)?;
//! assert_eq!((values.to_vec(), indices.to_vec()), (vec![9.0, 6.0], vec![1, 2]));
//! let w = Tensor::from([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
//! assert_eq!(x.matmul(&w)?.to_vec(), [4.0, 12.0, 10.0, 11.0]);
//! assert_eq!(Tensor::einsum("ij,ij->i", &[&x, &x])?.to_vec(), [91.0, 77.0]);
//! # Ok(())
//! # }
//! ```
//!
//! **Mistakes are errors with the operands in them.** Named methods return [`Result`]; the operators
//! panic with the same text. Nothing is written before everything is checked.
//!
//! ```
//! # use tensor::Tensor;
//! let (a, b) = (Tensor::from([[1.0_f32, 2.0]]), Tensor::from([1.0_f32, 2.0, 3.0]));
//! let error = a.checked_add(&b).unwrap_err().to_string();
//! assert_eq!(error, "add: shapes do not match: [1, 2] and [3]");
//! ```
//!
//! **Integers** wrap on overflow, as in NumPy and PyTorch; `/` and `%` cut towards zero, as in Rust;
//! a divisor of zero is an error. Sums of integers and truth values are `i64`.
//!
//! **Files**: [`npy`] (and `npz` behind the feature of that name) exchange arrays with NumPy.
//!
//! **Memory**: dropped storage waits in a bounded [`pool`] for the next tensor of its size, because a
//! page fault costs more than the arithmetic on the page. `pool::stats`, `pool::clear` and
//! `pool::set_limit` see to it.
//!
//! **Threads**: work of more than some 65,000 elements is split over rayon's threads
//! (`RAYON_NUM_THREADS`); results do not depend on their number.
//!
//! # From NumPy and PyTorch
//!
//! Names are PyTorch's; searching this page for NumPy's finds them too.
//!
//! | NumPy | PyTorch | here |
//! |---|---|---|
//! | `np.array([[1., 2.]])` | `torch.tensor(...)` | `Tensor::from([[1.0, 2.0]])`, [`Tensor::from_nested`], [`Tensor::from_vec`] |
//! | `np.zeros((2, 3))`, `np.full`, `np.eye(3)` | the same | [`Tensor::zeros`]`([2, 3])?`, [`Tensor::full`], [`Tensor::eye`]`(3, 3)` |
//! | `np.zeros_like(x)` | `torch.zeros_like(x)` | [`x.zeros_like()`](Tensor::zeros_like) |
//! | `np.arange(0, 1, .1)`, `np.linspace` | the same | [`Tensor::arange`], [`Tensor::linspace`] |
//! | `rng.normal(size=(2, 3))` | `torch.randn(2, 3, generator=g)` | [`Tensor::randn`]`([2, 3], &mut g)?` |
//! | `rng.permutation(n)`, `rng.integers` | `torch.randperm`, `torch.randint` | [`Tensor::randperm`], [`Tensor::randint`] |
//! | `x.shape`, `x.ndim`, `x.size` | `x.shape`, `x.dim()`, `x.numel()` | [`x.shape()`](Tensor::shape), [`x.rank()`](Tensor::rank), [`x.numel()`](Tensor::numel) |
//! | `x.item()`, `x.tolist()` | the same | [`x.item()?`](Tensor::item), [`x.to_vec()`](Tensor::to_vec) (flat) |
//! | `x.astype(np.int64)` | `x.to(torch.int64)` | [`x.cast::<i64>()`](Tensor::cast) |
//! | `x.reshape(2, -1)` | `x.reshape(2, -1)`, `x.view` | [`x.reshape([2, Shape::INFER])?`](Tensor::reshape), [`x.view`](Tensor::view) |
//! | `x.ravel()` | `x.flatten()` | [`x.flatten(0, -1)?`](Tensor::flatten) |
//! | `x.T`, `np.swapaxes`, `np.transpose` | `x.T`, `x.transpose`, `x.permute` | [`x.transpose(0, 1)?`](Tensor::transpose), [`x.permute`](Tensor::permute) |
//! | `np.expand_dims`, `np.squeeze` | `x.unsqueeze`, `x.squeeze` | [`x.unsqueeze`](Tensor::unsqueeze), [`x.squeeze`](Tensor::squeeze) |
//! | `np.broadcast_to(x, s)` | `x.expand(s)` | [`x.expand(s)?`](Tensor::expand) |
//! | `x[1]`, `x[:, -1]` | the same | [`x.select(0, 1)?`](Tensor::select), `x.select(1, -1)?` |
//! | `x[1:5:2]`, `x[::-1]` | `x[1:5:2]`, `x.flip(0)` | [`x.slice(0, Slice::from(1..5).step(2))?`](Tensor::slice), [`x.flip(&[0])?`](Tensor::flip) |
//! | `np.diagonal(x)` | `torch.diagonal(x)` | [`x.diagonal(0, 0, 1)?`](Tensor::diagonal) |
//! | `sliding_window_view(x, k)` | `x.unfold(0, k, 1)` | [`x.unfold(0, k, 1)?`](Tensor::unfold) |
//! | `np.split`, `np.array_split` | `x.split(3)`, `x.chunk(3)` | [`x.split(3, 0)?`](Tensor::split), [`x.chunk(3, 0)?`](Tensor::chunk) |
//! | `np.concatenate`, `np.stack` | `torch.cat`, `torch.stack` | [`Tensor::cat`]`(&[&a, &b], 0)?`, [`Tensor::stack`] |
//! | `np.tile`, `np.roll`, `np.pad` | `x.repeat`, `x.roll`, `F.pad` | [`x.tile`](Tensor::tile), [`x.repeat`](Tensor::repeat), [`x.roll`](Tensor::roll), [`x.pad`](Tensor::pad) |
//! | `np.tril`, `np.triu` | the same | [`x.tril(0)?`](Tensor::tril), [`x.triu(0)?`](Tensor::triu) |
//! | `a + b`, `a * 2`, `a += b` | the same | `&a + &b`, `&a * 2.0`, `a += &b`; [`a.checked_add(&b)?`](Tensor::checked_add) |
//! | `a % b`, `np.fmod(a, b)` | `a.remainder(b)`, `a.fmod(b)` | [`a.remainder(&b)?`](Tensor::remainder), `&a % &b` |
//! | `a ** 2`, `np.power(a, b)` | `a.pow(2)` | [`a.square()`](Tensor::square), [`a.pow(2.0)?`](Tensor::pow) |
//! | `a < b`, `a == 0` | `a.lt(b)`, `a.eq(0)` | [`a.lt(&b)?`](Tensor::lt), [`a.eq(0.0)?`](Tensor::eq) |
//! | `m & n`, `~m` | the same | `&m & &n`, `!&m`; [`m.logical_and(&n)?`](Tensor::logical_and) |
//! | `np.where(m, a, b)` | `torch.where(m, a, b)` | [`m.where_cond(&a, &b)?`](Tensor::where_cond) |
//! | `np.clip(a, 0, 1)` | `a.clamp(0, 1)` | [`a.clamp(0.0, 1.0)?`](Tensor::clamp) |
//! | `x.sum(axis=0, keepdims=True)` | `x.sum(0, keepdim=True)` | [`x.sum_dim(&[0], true)?`](Tensor::sum_dim) |
//! | `x.max()`, `x.max(axis=0)` | `x.max()`, `x.amax(0)`, `x.max(0)` | [`x.max()?`](Tensor::max), [`x.amax`](Tensor::amax), [`x.max_dim`](Tensor::max_dim) |
//! | `x.argmax(axis=1)` | `x.argmax(1)` | [`x.argmax_dim(1, false)?`](Tensor::argmax_dim) |
//! | `x.var(ddof=1)`, `x.std()` | `x.var()`, `x.std(correction=0)` | [`x.var(1)`](Tensor::var), [`x.std(0)`](Tensor::std) |
//! | `np.linalg.norm(x, p)` | `torch.linalg.vector_norm` | [`x.norm(2.0)`](Tensor::norm) |
//! | `np.cumsum(x, 0)` | `x.cumsum(0)` | [`x.cumsum(0)?`](Tensor::cumsum) |
//! | `np.sort`, `np.argsort` | `x.sort(dim)`, `x.topk(k)` | [`x.sort(-1, false)?`](Tensor::sort), [`x.argsort`](Tensor::argsort), [`x.topk`](Tensor::topk) |
//! | `np.take`, `np.take_along_axis` | `x.index_select`, `x.gather` | [`x.index_select`](Tensor::index_select), [`x.gather`](Tensor::gather) |
//! | `np.put_along_axis`, `np.add.at` | `x.scatter`, `x.scatter_add` | [`x.scatter`](Tensor::scatter), [`x.scatter_add`](Tensor::scatter_add), [`x.index_add`](Tensor::index_add) |
//! | `x[mask]` | `x.masked_select(mask)` | [`x.masked_select(&mask)?`](Tensor::masked_select), [`x.masked_fill`](Tensor::masked_fill) |
//! | `np.bincount`, `np.eye(k)[y]` | `y.bincount()`, `F.one_hot(y, k)` | [`y.bincount(0)?`](Tensor::bincount), [`y.one_hot(k)?`](Tensor::one_hot) |
//! | `a @ b` | `a @ b`, `a.mv(v)`, `a.bmm(b)` | [`a.matmul(&b)?`](Tensor::matmul), [`a.mv`](Tensor::mv), [`a.bmm`](Tensor::bmm) |
//! | `np.dot(u, v)`, `np.outer(u, v)` | `u.dot(v)`, `torch.outer` | [`u.dot(&v)?`](Tensor::dot), [`u.outer(&v)?`](Tensor::outer) |
//! | `np.einsum("ij,jk", a, b)` | the same | [`Tensor::einsum`]`("ij,jk", &[&a, &b])?` |
//! | `np.save`, `np.load`, `np.savez` | `torch.save` | [`npy::write`], [`npy::read`], `npz::write` |
//!
//! What differs: `round` goes to the even integer of two (as both); `argmax`, `sort` and `topk` count
//! NaN as the largest (as both); `pad` takes a pair for each dim in the order of the dims (as NumPy);
//! `flip` is a view; of entries that `scatter` names twice the last one stays, always; an empty `max`
//! is an error, never a number.

mod buffer;
mod dims;
mod display;
mod element;
pub mod error;
pub mod files;
pub mod kernels;
mod layout;
pub mod npy;
#[cfg(feature = "npz")]
pub mod npz;
mod ops;
pub mod pool;
mod random;
mod shape;
mod slice;
mod tensor;

pub use element::{Element, Float, Number};
pub use error::{Error, Result};
pub use kernels::Operand;
pub use layout::Layout;
#[doc(hidden)]
pub use ops::Equation;
pub use ops::{ConvOptions, Nested, PadMode, Windows};
pub use random::{Generator, GeneratorState};
pub use shape::Shape;
pub use slice::Slice;
pub use tensor::Tensor;
