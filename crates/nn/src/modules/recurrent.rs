//! Recurrent layers: GRU and LSTM. Both are cells, one for each layer and direction, that walk a
//! sequence.

use autograd::{Error, Float, Generator, Result, Tensor, Var};

use crate::parameters::{Parameter, Parameters, Visitor};

/// Options of [`GRU`] and [`LSTM`]; the defaults are PyTorch's, except that batches come first.
#[derive(Clone, Copy, Debug)]
pub struct RecurrentOptions {
    /// Layers, each of which sees the output of the one before.
    pub num_layers: usize,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether sequences are `[N, L, D]`; else `[L, N, D]`.
    pub batch_first: bool,
    /// The share of each layer's output, but the last's, that is set to 0 in training.
    pub dropout: f64,
    /// Whether there is a second set of cells that walks the sequence backwards.
    pub bidirectional: bool,
}

impl Default for RecurrentOptions {
    fn default() -> Self {
        RecurrentOptions {
            num_layers: 1,
            bias: true,
            batch_first: true,
            dropout: 0.0,
            bidirectional: false,
        }
    }
}

/// The weights of one layer in one direction, for G gates.
#[derive(Clone, Debug)]
struct Cell<T: Float> {
    /// `[G·H, D]`.
    weight_ih: Parameter<T>,
    /// `[G·H, H]`.
    weight_hh: Parameter<T>,
    /// `[G·H]` each, for the input and for the state.
    biases: Option<[Parameter<T>; 2]>,
}

/// What a cell does at each position, with S numbers of state for each feature; the first of them is
/// the output.
trait Step<const S: usize> {
    const NAME: &'static str;
    const GATES: usize;
    /// The next state, from what the input, `[N, G·H]`, and the state, the same, give the gates.
    fn step<T: Float>(
        input: &Var<T>,
        recurrent: &Var<T>,
        state: &[Var<T>; S],
    ) -> Result<[Var<T>; S]>;
}

impl<T: Float> Cell<T> {
    /// Walks the sequence `[L, N, D]`: the outputs `[L, N, H]` in the order of the positions, and the
    /// last state, `[N, H]` each.
    fn walk<K: Step<S>, const S: usize>(
        &self,
        x: &Var<T>,
        mut state: [Var<T>; S],
        backwards: bool,
    ) -> Result<(Var<T>, [Var<T>; S])> {
        let biases = self.biases.as_ref().map(|b| b.each_ref().map(|b| b.bind_like(x)));
        let [b_ih, b_hh] = match &biases {
            Some([b_ih, b_hh]) => [Some(b_ih), Some(b_hh)],
            None => [None, None],
        };
        let weight_hh = self.weight_hh.bind_like(x);
        // One product for all positions.
        let input = x.linear(&self.weight_ih.bind_like(x), b_ih)?;
        let length = x.shape()[0];
        let mut outputs = Vec::with_capacity(length);
        for i in 0..length {
            let t = if backwards { length - 1 - i } else { i };
            let recurrent = state[0].linear(&weight_hh, b_hh)?;
            state = K::step(&input.select(0, t as isize)?, &recurrent, &state)?;
            outputs.push(state[0].clone());
        }
        if backwards {
            outputs.reverse();
        }
        Ok((Var::stack(&outputs.iter().collect::<Vec<_>>(), 0)?, state))
    }
}

/// All cells of a recurrent layer.
#[derive(Clone, Debug)]
struct Stack<T: Float> {
    /// Layer by layer, forward before backward.
    cells: Vec<Cell<T>>,
    inputs: usize,
    hidden: usize,
    options: RecurrentOptions,
}

impl<T: Float> Stack<T> {
    fn new<K: Step<S>, const S: usize>(
        inputs: usize,
        hidden: usize,
        options: RecurrentOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        let invalid = |name, reason| Err(Error::InvalidArgument { op: K::NAME, name, reason });
        let RecurrentOptions { num_layers, dropout, bidirectional, .. } = options;
        if hidden == 0 || num_layers == 0 {
            let name = if hidden == 0 { "hidden_size" } else { "num_layers" };
            return invalid(name, "must be at least 1, found 0".into());
        }
        if !(0.0..=1.0).contains(&dropout) {
            return invalid("dropout", format!("must be in [0, 1], found {dropout}"));
        }
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut parameter = |shape: &[usize]| -> Result<Parameter<T>> {
            Ok(Parameter::new(Tensor::uniform(shape, -bound, bound, generator)?))
        };
        let directions = 1 + usize::from(bidirectional);
        let rows = K::GATES * hidden;
        let mut cells = Vec::with_capacity(num_layers * directions);
        for index in 0..num_layers * directions {
            let width = if index < directions { inputs } else { directions * hidden };
            let (weight_ih, weight_hh) = (parameter(&[rows, width])?, parameter(&[rows, hidden])?);
            let biases = match options.bias {
                true => Some([parameter(&[rows])?, parameter(&[rows])?]),
                false => None,
            };
            cells.push(Cell { weight_ih, weight_hh, biases });
        }
        Ok(Stack { cells, inputs, hidden, options })
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.options.bidirectional)
    }

    /// The outputs of all positions, and the last states, `[cells, N, H]` each.
    fn run<K: Step<S>, const S: usize>(
        &self,
        x: &Var<T>,
        initial: Option<[&Var<T>; S]>,
    ) -> Result<(Var<T>, [Var<T>; S])> {
        let batch = if self.options.batch_first { 0 } else { 1 };
        if x.value().rank() == 2 {
            let initial = initial.map(|states| try_each(states, |h| h.unsqueeze(1))).transpose()?;
            let initial = initial.as_ref().map(|states| states.each_ref());
            let (y, last) = self.run::<K, S>(&x.unsqueeze(batch)?, initial)?;
            return Ok((y.squeeze(batch)?, try_each(last, |h| h.squeeze(1))?));
        }
        let [_, _, width] = x.value().dims(K::NAME)?;
        if width != self.inputs {
            let (lhs, rhs) = (x.shape().to_vec(), vec![self.inputs]);
            return Err(Error::ShapeMismatch { op: K::NAME, lhs, rhs });
        }
        let mut x = if batch == 0 { x.transpose(0, 1)? } else { x.clone() };
        if x.shape()[0] == 0 {
            let reason = "must have at least one position".into();
            return Err(Error::InvalidArgument { op: K::NAME, name: "input", reason });
        }
        let mut last: [Vec<Var<T>>; S] = std::array::from_fn(|_| Vec::new());
        for layer in 0..self.options.num_layers {
            if layer > 0 {
                x = x.dropout(self.options.dropout)?;
            }
            let mut outputs = Vec::new();
            for direction in 0..self.directions() {
                let index = layer * self.directions() + direction;
                let first = self.first::<K, S>(&x, index, initial)?;
                let (y, state) = self.cells[index].walk::<K, S>(&x, first, direction == 1)?;
                last.iter_mut().zip(state).for_each(|(all, state)| all.push(state));
                outputs.push(y);
            }
            x = Var::cat(&outputs.iter().collect::<Vec<_>>(), 2)?;
        }
        let y = if batch == 0 { x.transpose(0, 1)? } else { x };
        Ok((y, try_each(last, |all| Var::stack(&all.iter().collect::<Vec<_>>(), 0))?))
    }

    /// The first state of a cell: of those given, `[cells, N, H]` each, or zeros.
    fn first<K: Step<S>, const S: usize>(
        &self,
        x: &Var<T>,
        index: usize,
        given: Option<[&Var<T>; S]>,
    ) -> Result<[Var<T>; S]> {
        let n = x.shape()[1];
        let Some(given) = given else {
            let zeros = Tensor::zeros([n, self.hidden])?;
            let zeros = match x.tape() {
                Some(tape) => tape.constant(zeros),
                None => Var::constant(zeros),
            };
            return Ok(std::array::from_fn(|_| zeros.clone()));
        };
        let shape = [self.cells.len(), n, self.hidden];
        try_each(given, |state| {
            if state.shape() != shape {
                let (lhs, rhs) = (state.shape().to_vec(), shape.to_vec());
                return Err(Error::ShapeMismatch { op: K::NAME, lhs, rhs });
            }
            state.select(0, index as isize)
        })
    }

    /// `weight_ih_l0`, `weight_ih_l0_reverse`, `weight_ih_l1`, ..: PyTorch's names.
    fn name(&self, kind: &str, index: usize) -> String {
        let reverse = if index % self.directions() == 1 { "_reverse" } else { "" };
        format!("{kind}_l{}{reverse}", index / self.directions())
    }
}

impl<T: Float> Parameters for Stack<T> {
    type Elem = T;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
        for (i, cell) in self.cells.iter().enumerate() {
            visitor.parameter(&self.name("weight_ih", i), &cell.weight_ih);
            visitor.parameter(&self.name("weight_hh", i), &cell.weight_hh);
            if let Some([b_ih, b_hh]) = &cell.biases {
                visitor.parameter(&self.name("bias_ih", i), b_ih);
                visitor.parameter(&self.name("bias_hh", i), b_hh);
            }
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        // Made first: while a cell is borrowed, nothing else of the stack is.
        let names: Vec<_> = (0..self.cells.len())
            .map(|i| {
                ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|kind| self.name(kind, i))
            })
            .collect();
        for (cell, names) in self.cells.iter_mut().zip(&names) {
            visitor.parameter(&names[0], &mut cell.weight_ih);
            visitor.parameter(&names[1], &mut cell.weight_hh);
            if let Some([b_ih, b_hh]) = &mut cell.biases {
                visitor.parameter(&names[2], b_ih);
                visitor.parameter(&names[3], b_hh);
            }
        }
    }
}

/// Each of the items by `f`.
fn try_each<A, B, const S: usize>(items: [A; S], f: impl FnMut(A) -> Result<B>) -> Result<[B; S]> {
    let all: Vec<B> = items.into_iter().map(f).collect::<Result<_>>()?;
    match all.try_into() {
        Ok(all) => Ok(all),
        Err(_) => unreachable!("bug: there are as many as there were"),
    }
}

/// Input, forget, cell and output gate.
struct LstmStep;

impl Step<2> for LstmStep {
    const NAME: &'static str = "LSTM";
    const GATES: usize = 4;

    fn step<T: Float>(
        input: &Var<T>,
        recurrent: &Var<T>,
        [_, c]: &[Var<T>; 2],
    ) -> Result<[Var<T>; 2]> {
        let gates = (input + recurrent).chunk(4, 1)?;
        let [i, f, o] = [0, 1, 3].map(|gate| gates[gate].sigmoid());
        let c = f * c + i * gates[2].tanh();
        Ok([o * c.tanh(), c])
    }
}

/// Reset, update and new gate.
struct GruStep;

impl Step<1> for GruStep {
    const NAME: &'static str = "GRU";
    const GATES: usize = 3;

    fn step<T: Float>(
        input: &Var<T>,
        recurrent: &Var<T>,
        [h]: &[Var<T>; 1],
    ) -> Result<[Var<T>; 1]> {
        let (x, r) = (input.chunk(3, 1)?, recurrent.chunk(3, 1)?);
        let [reset, update] = [0, 1].map(|gate| (&x[gate] + &r[gate]).sigmoid());
        let new = (&x[2] + reset * &r[2]).tanh();
        Ok([&new + update * (h - &new)])
    }
}

/// Long short-term memory: with gates i, f, o and g of the input and the last output,
/// `c ← f·c + i·g`, `h ← o·tanh c`. `torch.nn.LSTM`, without projections.
///
/// # Shape
/// `[N, L, D]` (`[L, N, D]` unless `batch_first`; also without N) → the outputs of the last layer,
/// `[N, L, H]`, of both directions `[N, L, 2·H]`; states `[layers·directions, N, H]`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let layer = LSTM::<f32>::new(3, 4, RecurrentOptions::default(), &mut rng)?;
/// let x = Var::constant(Tensor::randn([2, 5, 3], &mut rng)?);
/// let (y, (h, c)) = layer.forward(&x, None)?;
/// assert_eq!((y.shape(), h.shape(), c.shape()), (&[2, 5, 4][..], &[1, 2, 4][..], &[1, 2, 4][..]));
/// // Half the sequence, and the rest from the state it left.
/// let (_, (h, c)) = layer.forward(&x.narrow(1, 0, 3)?, None)?;
/// let (rest, _) = layer.forward(&x.narrow(1, 3, 2)?, Some((&h, &c)))?;
/// assert_eq!(rest.value().to_vec(), y.narrow(1, 3, 2)?.value().to_vec());
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// Hochreiter & Schmidhuber, Neural Computation 9 (1997).
#[derive(Clone, Debug)]
pub struct LSTM<T: Float>(Stack<T>);

impl<T: Float> LSTM<T> {
    /// For D features of input and H of output; all parameters are uniform in ±1/√H, as PyTorch's.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for H = 0, no layers, or a dropout outside [0, 1];
    /// [`Error::SizeOverflow`].
    pub fn new(
        inputs: usize,
        hidden: usize,
        options: RecurrentOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        Stack::new::<LstmStep, 2>(inputs, hidden, options, generator).map(LSTM)
    }

    /// The outputs and the last state (h, c), from a first state, or from 0.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] and [`Error::ShapeMismatch`]; [`Error::InvalidArgument`] for a sequence
    /// without positions.
    #[expect(clippy::type_complexity, reason = "an output and a pair of states")]
    pub fn forward(
        &self,
        x: &Var<T>,
        state: Option<(&Var<T>, &Var<T>)>,
    ) -> Result<(Var<T>, (Var<T>, Var<T>))> {
        let (y, [h, c]) = self.0.run::<LstmStep, 2>(x, state.map(|(h, c)| [h, c]))?;
        Ok((y, (h, c)))
    }
}

/// Gated recurrent unit: with gates r and z of the input and the last output,
/// `n = tanh(W·x + r·(U·h))`, `h ← (1 − z)·n + z·h`. `torch.nn.GRU`.
///
/// # Shape
/// As [`LSTM`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let options = RecurrentOptions { num_layers: 2, bidirectional: true, ..Default::default() };
/// let layer = GRU::<f32>::new(3, 4, options, &mut rng)?;
/// let (y, h) = layer.forward(&Var::constant(Tensor::randn([2, 5, 3], &mut rng)?), None)?;
/// assert_eq!((y.shape(), h.shape()), (&[2, 5, 8][..], &[4, 2, 4][..]));
/// let names: Vec<_> = layer.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names[4], "weight_ih_l0_reverse");
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// Cho et al., arXiv 1406.1078; the bias of U·h stands inside the reset gate, as in PyTorch.
#[derive(Clone, Debug)]
pub struct GRU<T: Float>(Stack<T>);

impl<T: Float> GRU<T> {
    /// For D features of input and H of output; all parameters are uniform in ±1/√H, as PyTorch's.
    ///
    /// # Errors
    /// As [`LSTM::new`].
    pub fn new(
        inputs: usize,
        hidden: usize,
        options: RecurrentOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        Stack::new::<GruStep, 1>(inputs, hidden, options, generator).map(GRU)
    }

    /// The outputs and the last state, from a first state, or from 0.
    ///
    /// # Errors
    /// As [`LSTM::forward`].
    pub fn forward(&self, x: &Var<T>, state: Option<&Var<T>>) -> Result<(Var<T>, Var<T>)> {
        let (y, [h]) = self.0.run::<GruStep, 1>(x, state.map(|h| [h]))?;
        Ok((y, h))
    }
}

/// The parameters are those of the cells.
macro_rules! of_the_cells {
    ($($name:ident)*) => {$(
        impl<T: Float> Parameters for $name<T> {
            type Elem = T;

            fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
                self.0.visit(visitor);
            }

            fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
                self.0.visit_mut(visitor);
            }
        }
    )*};
}
of_the_cells!(LSTM GRU);
