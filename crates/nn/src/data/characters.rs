//! Text as numbers of its characters, and passages of it, for language models.

use std::collections::BTreeSet;

use autograd::{Error, Generator, Result, Tensor};

use super::Dataset;

/// The different characters of a text, each with a number: its place among them in Unicode order.
///
/// # Examples
/// ```
/// use nn::data::Characters;
/// let characters = Characters::new("banana");
/// assert_eq!(characters.len(), 3); // a, b, n
/// let codes = characters.encode("nab")?;
/// assert_eq!(codes.to_vec(), [2, 0, 1]);
/// assert_eq!(characters.decode(&codes)?, "nab");
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Characters {
    /// Rising.
    vocabulary: Vec<char>,
}

impl Characters {
    /// The characters of `text`.
    pub fn new(text: &str) -> Self {
        let vocabulary: BTreeSet<char> = text.chars().collect();
        Characters { vocabulary: vocabulary.into_iter().collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vocabulary.is_empty()
    }

    /// The characters, in the order of their numbers. `Characters::new` of them is the same vocabulary.
    pub fn vocabulary(&self) -> &[char] {
        &self.vocabulary
    }

    /// The number of each character of `text`: `[N]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a character that is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Tensor<i64>> {
        let code = |(place, c): (usize, char)| match self.vocabulary.binary_search(&c) {
            Ok(code) => Ok(code as i64),
            Err(_) => {
                let reason = format!("has {c:?} at {place}, which is not in the vocabulary");
                Err(Error::InvalidArgument { op: "Characters", name: "text", reason })
            }
        };
        let codes: Vec<i64> = text.chars().enumerate().map(code).collect::<Result<_>>()?;
        Tensor::from_slice(&codes, [codes.len()])
    }

    /// The text of `codes`, of any shape.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] for a number that no character has.
    pub fn decode(&self, codes: &Tensor<i64>) -> Result<String> {
        let character = |(position, value): (usize, i64)| {
            let found = usize::try_from(value).ok().and_then(|code| self.vocabulary.get(code));
            let size = self.len();
            found.ok_or(Error::IndexOutOfRange { op: "Characters", position, value, size })
        };
        codes.to_vec().into_iter().enumerate().map(character).collect()
    }
}

/// All passages of so many codes of a text, each with what follows its codes: row i is
/// `(codes[i..i + T], codes[i + 1..i + T + 1])`.
///
/// # Shape
/// A batch of `n` rows is `([n, T], [n, T])`.
///
/// # Examples
/// ```
/// use nn::data::Passages;
/// use nn::prelude::*;
/// let passages = Passages::new(Tensor::from([0_i64, 1, 2, 3, 4]), 2)?;
/// assert_eq!(passages.len(), 3);
/// let (x, y) = passages.batch(&[0, 2], &mut Generator::new(0))?;
/// assert_eq!((x.to_vec(), y.to_vec()), (vec![0, 1, 2, 3], vec![1, 2, 3, 4]));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Passages {
    codes: Vec<i64>,
    length: usize,
}

impl Passages {
    /// The passages of `length` codes; none where there are no more codes than that.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless `codes` is a vector; [`Error::InvalidArgument`] for a length of 0.
    pub fn new(codes: Tensor<i64>, length: usize) -> Result<Self> {
        let op = "Passages";
        let [_] = codes.dims(op)?;
        if length == 0 {
            let reason = "must be at least 1, found 0".into();
            return Err(Error::InvalidArgument { op, name: "length", reason });
        }
        Ok(Passages { codes: codes.to_vec(), length })
    }

    /// A batch of `count` passages at random, each drawn on its own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is none to draw; [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// use nn::data::Passages;
    /// use nn::prelude::*;
    /// let passages = Passages::new(Tensor::<i64>::arange(0, 100, 1)?, 8)?;
    /// let (x, y) = passages.random(5, &mut Generator::new(0))?;
    /// assert_eq!(x.shape(), [5, 8]);
    /// assert_eq!(y.to_vec(), (x + 1).to_vec());
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn random(
        &self,
        count: usize,
        generator: &mut Generator,
    ) -> Result<(Tensor<i64>, Tensor<i64>)> {
        if self.is_empty() {
            let (n, t) = (self.codes.len(), self.length);
            let reason = format!("has {n} codes, too few for a passage of {t} and the next");
            return Err(Error::InvalidArgument { op: "Passages", name: "text", reason });
        }
        let starts = Tensor::randint(0, self.len() as i64, [count], generator)?.to_vec();
        let starts: Vec<usize> = starts.into_iter().map(|start| start as usize).collect();
        self.batch(&starts, generator)
    }
}

impl Dataset for Passages {
    type Batch = (Tensor<i64>, Tensor<i64>);

    fn len(&self) -> usize {
        self.codes.len().saturating_sub(self.length)
    }

    fn batch(&self, rows: &[usize], _: &mut Generator) -> Result<Self::Batch> {
        let size = self.len();
        if let Some(position) = rows.iter().position(|&row| row >= size) {
            let value = rows[position] as i64;
            return Err(Error::IndexOutOfRange { op: "Passages", position, value, size });
        }
        let from = |offset: usize| {
            let passages = rows.iter().flat_map(|&row| &self.codes[row + offset..][..self.length]);
            Tensor::from_vec(passages.copied().collect(), [rows.len(), self.length])
        };
        Ok((from(0)?, from(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_and_strangers_are_named() {
        let text = "Größe: 3 µm\n";
        let characters = Characters::new(text);
        assert!(characters.vocabulary().is_sorted());
        assert_eq!(characters.decode(&characters.encode(text).unwrap()).unwrap(), text);
        let again: String = characters.vocabulary().iter().collect();
        assert_eq!(Characters::new(&again), characters);
        assert_eq!(
            characters.encode("mµx").unwrap_err().to_string(),
            "Characters: text has 'x' at 2, which is not in the vocabulary"
        );
        for bad in [-1, 11, i64::MAX] {
            let error = characters.decode(&Tensor::from([0, bad])).unwrap_err().to_string();
            let want = format!("Characters: index {bad} at position 1 is out of range for size 11");
            assert_eq!(error, want);
        }
        assert!(Characters::new("").is_empty());
        assert_eq!(Characters::new("").encode("").unwrap().shape(), [0]);
    }

    #[test]
    fn passages_are_drawn_from_everywhere() {
        let passages = Passages::new(Tensor::arange(0, 7, 1).unwrap(), 3).unwrap();
        assert_eq!(passages.len(), 4);
        let (x, y) = passages.random(200, &mut Generator::new(0)).unwrap();
        let starts: BTreeSet<i64> = x.to_vec().into_iter().step_by(3).collect();
        assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(y.to_vec(), (x + 1).to_vec());
        let error = passages.batch(&[0, 4], &mut Generator::new(0)).unwrap_err().to_string();
        assert_eq!(error, "Passages: index 4 at position 1 is out of range for size 4");
        let short = Passages::new(Tensor::arange(0, 3, 1).unwrap(), 3).unwrap();
        assert!(short.is_empty());
        assert_eq!(
            short.random(1, &mut Generator::new(0)).unwrap_err().to_string(),
            "Passages: text has 3 codes, too few for a passage of 3 and the next"
        );
        assert!(Passages::new(Tensor::arange(0, 3, 1).unwrap(), 0).is_err());
        assert!(Passages::new(Tensor::scalar(0), 1).is_err());
    }
}
