//! Seeded random numbers. A generator is always an argument; there is no global one. Tensors of them
//! are made in ops/random.rs.

use rand::{RngExt, SeedableRng};

use crate::error::{Error, Result};

/// A ChaCha8 stream: the same seed gives the same numbers on any number of threads.
#[derive(Debug)]
pub struct Generator(pub(crate) rand::rngs::ChaCha8Rng);

impl Generator {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Generator(rand::rngs::ChaCha8Rng::seed_from_u64(seed))
    }

    /// One of the 2⁶⁴ independent streams of `seed`; `new` is stream 0.
    pub fn with_stream(seed: u64, stream: u64) -> Self {
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Generator(rng)
    }

    /// Where the stream stands. A generator made from it goes on with the same numbers.
    pub fn state(&self) -> GeneratorState {
        GeneratorState {
            seed: self.0.get_seed(),
            stream: self.0.get_stream(),
            position: self.0.get_word_pos(),
        }
    }

    /// The generator that stood where `state` says.
    pub fn from_state(state: &GeneratorState) -> Self {
        let mut rng = rand::rngs::ChaCha8Rng::from_seed(state.seed);
        rng.set_stream(state.stream);
        rng.set_word_pos(state.position);
        Generator(rng)
    }

    /// A uniform number of [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        self.0.random::<f64>()
    }

    /// A uniform integer of [0, bound); 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.random_range(0..bound as u64) as usize }
    }

    /// Puts `items` into a uniformly random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Where a [`Generator`] stands: 56 bytes that a checkpoint can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorState {
    seed: [u8; 32],
    stream: u64,
    /// In 32-bit words; below 2⁶⁸.
    position: u128,
}

impl GeneratorState {
    /// The seed's 32 bytes, then the stream and the position, little-endian.
    pub fn to_bytes(&self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..32].copy_from_slice(&self.seed);
        bytes[32..40].copy_from_slice(&self.stream.to_le_bytes());
        bytes[40..].copy_from_slice(&self.position.to_le_bytes());
        bytes
    }

    /// What [`GeneratorState::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there are 56 bytes with a position that a stream has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let parts = || {
            let (seed, rest) = bytes.split_first_chunk::<32>()?;
            let (stream, rest) = rest.split_first_chunk::<8>()?;
            let position = u128::from_le_bytes(rest.try_into().ok()?);
            let stream = u64::from_le_bytes(*stream);
            (position < 1 << 68).then_some(GeneratorState { seed: *seed, stream, position })
        };
        parts().ok_or_else(|| Error::InvalidArgument {
            op: "generator",
            name: "state",
            reason: format!("of {} bytes is none that a generator has written", bytes.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn the_seed_decides() {
        let draw = |seed| Tensor::<f32>::randn([100], &mut Generator::new(seed)).unwrap().to_vec();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let first = |stream| Generator::with_stream(7, stream).uniform();
        assert!(first(0) == Generator::new(7).uniform() && first(1) != first(2));
    }

    #[test]
    fn a_saved_state_goes_on_with_the_same_numbers() {
        let mut g = Generator::with_stream(3, 5);
        // An odd number of words, so that the state lies within a block.
        let _ = Tensor::<f32>::randn([101], &mut g).unwrap();
        let bytes = g.state().to_bytes();
        let want = Tensor::<f64>::randn([50], &mut g).unwrap().to_vec();
        let state = GeneratorState::from_bytes(&bytes).unwrap();
        let mut again = Generator::from_state(&state);
        assert_eq!(again.state(), state);
        assert_eq!(Tensor::<f64>::randn([50], &mut again).unwrap().to_vec(), want);
        assert!(GeneratorState::from_bytes(&bytes[1..]).is_err());
        assert!(GeneratorState::from_bytes(&[255; 56]).is_err());
    }
}
