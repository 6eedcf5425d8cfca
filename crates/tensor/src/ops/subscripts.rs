//! The equations of `einsum`: letters, commas, an ellipsis, an arrow.
//!
//! A label is a number here: 0 to 51 for a letter (upper case first, as ASCII and torch sort them),
//! and from [`ELLIPSIS`] on for a dim that an ellipsis covers, counted from the right.

use crate::error::{Error, Result};

pub(super) const OP: &str = "einsum";
const ELLIPSIS: usize = 52;

/// An equation for operands of given ranks: the labels of their dims, and those of the result.
#[derive(Clone, Debug)]
pub struct Equation {
    /// The labels of each operand's dims.
    pub inputs: Vec<Vec<usize>>,
    /// The labels of the result's dims, each once and each of some operand.
    pub output: Vec<usize>,
}

impl Equation {
    /// Parses `equation` for operands of these shapes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an equation that does not parse, names an output label twice or
    /// one that no operand has, and for operands whose number or ranks do not fit it.
    pub fn new(equation: &str, shapes: &[&[usize]]) -> Result<Self> {
        let compact: String = equation.chars().filter(|&c| c != ' ').collect();
        let (inputs, output) = match compact.split_once("->") {
            Some((inputs, output)) => (inputs, Some(output)),
            None => (&compact[..], None),
        };
        let parts: Vec<&str> = inputs.split(',').collect();
        for part in parts.iter().copied().chain(output) {
            check(equation, part)?;
        }
        if parts.len() != shapes.len() {
            let (n, wanted) = (shapes.len(), parts.len());
            let reason = format!("are {n}, but {equation:?} has subscripts for {wanted}");
            return Err(invalid("operands", reason));
        }
        let operands = parts.iter().zip(shapes).enumerate();
        let inputs = operands
            .map(|(i, (subscripts, shape))| resolve(subscripts, shape, i))
            .collect::<Result<Vec<_>>>()?;
        let ellipsis = |labels: &Vec<usize>| labels.iter().filter(|&&l| l >= ELLIPSIS).count();
        let covered = inputs.iter().map(ellipsis).max().unwrap_or(0);
        let output = match output {
            Some(output) => {
                let known = |label| inputs.iter().any(|labels| labels.contains(&label));
                explicit_output(equation, output, covered, known)?
            }
            None => implicit_output(&parts, covered),
        };
        Ok(Equation { inputs, output })
    }

    /// Each label with its size, which is 1 only if it is 1 in every operand.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless each label has one size within an operand, and between
    /// operands one size or 1.
    pub fn sizes(&self, shapes: &[&[usize]]) -> Result<Vec<(usize, usize)>> {
        let mut sizes: Vec<(usize, usize, usize)> = Vec::new();
        for (i, (labels, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            for (d, (label, &size)) in labels.iter().zip(*shape).enumerate() {
                if let Some(seen) = labels[..d].iter().position(|l| l == label)
                    && shape[seen] != size
                {
                    let (label, first) = (name(*label), shape[seen]);
                    let reason = format!("label {label:?} has sizes {first} and {size} in operand");
                    return Err(invalid(
                        "operands",
                        format!("do not fit: {reason} {i}, {shape:?}"),
                    ));
                }
            }
        }
        for (i, (labels, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            for (&label, &size) in labels.iter().zip(*shape) {
                match sizes.iter_mut().find(|(l, ..)| *l == label) {
                    None => sizes.push((label, size, i)),
                    Some((_, known, _)) if *known == size || size == 1 => {}
                    Some((_, known, from)) if *known == 1 => (*known, *from) = (size, i),
                    Some((_, known, from)) => {
                        return Err(invalid(
                            "operands",
                            format!(
                                "do not fit: label {:?} has size {known} in operand {from} and \
                                 {size} in operand {i}",
                                name(label)
                            ),
                        ));
                    }
                }
            }
        }
        Ok(sizes.into_iter().map(|(label, size, _)| (label, size)).collect())
    }
}

fn invalid(name: &'static str, reason: String) -> Error {
    Error::InvalidArgument { op: OP, name, reason }
}

/// A label as the equation writes it.
fn name(label: usize) -> String {
    match label {
        0..26 => char::from(b'A' + label as u8).to_string(),
        26..ELLIPSIS => char::from(b'a' + (label - 26) as u8).to_string(),
        _ => "...".into(),
    }
}

fn letter(c: char) -> Option<usize> {
    match c {
        'A'..='Z' => Some(c as usize - 'A' as usize),
        'a'..='z' => Some(26 + c as usize - 'a' as usize),
        _ => None,
    }
}

/// Letters before the ellipsis, whether there is one, and letters after it.
fn split(part: &str) -> (&str, bool, &str) {
    match part.split_once("...") {
        Some((before, after)) => (before, true, after),
        None => (part, false, ""),
    }
}

/// Rejects what is neither letter nor the first ellipsis.
fn check(equation: &str, part: &str) -> Result<()> {
    let (before, _, after) = split(part);
    match before.chars().chain(after.chars()).find(|&c| letter(c).is_none()) {
        None => Ok(()),
        Some(c) => {
            let wanted = "letters, one `...` an operand, `,` and one `->` are";
            Err(invalid(
                "equation",
                format!("{equation:?} has an unexpected {c:?}; {wanted} allowed"),
            ))
        }
    }
}

/// The labels of the dims of an operand.
fn resolve(subscripts: &str, shape: &[usize], operand: usize) -> Result<Vec<usize>> {
    let (before, ellipsis, after) = split(subscripts);
    let named = before.len() + after.len();
    if shape.len() < named || (shape.len() > named && !ellipsis) {
        return Err(invalid(
            "operands",
            format!(
                "do not fit: {subscripts:?} names {named} dims, operand {operand} is {shape:?}"
            ),
        ));
    }
    let covered = (ELLIPSIS..ELLIPSIS + shape.len() - named).rev();
    let (before, after) = (before.chars().filter_map(letter), after.chars().filter_map(letter));
    Ok(before.chain(covered).chain(after).collect())
}

/// The labels after `->`.
fn explicit_output(
    equation: &str,
    output: &str,
    covered: usize,
    known: impl Fn(usize) -> bool,
) -> Result<Vec<usize>> {
    let (before, ellipsis, after) = split(output);
    let mut labels = Vec::new();
    for c in before.chars().chain(after.chars()) {
        let Some(label) = letter(c) else { unreachable!("bug: the output was checked") };
        if labels.contains(&label) {
            return Err(invalid(
                "equation",
                format!("{equation:?} names output label {c:?} twice"),
            ));
        }
        if !known(label) {
            return Err(invalid(
                "equation",
                format!("{equation:?} has output label {c:?}, which no operand has"),
            ));
        }
        labels.push(label);
    }
    if ellipsis {
        let place = before.len();
        labels.splice(place..place, (ELLIPSIS..ELLIPSIS + covered).rev());
    }
    Ok(labels)
}

/// The ellipsis, then the letters that occur once in the whole equation, sorted.
fn implicit_output(inputs: &[&str], covered: usize) -> Vec<usize> {
    let count = |label: &usize| {
        inputs.iter().flat_map(|part| part.chars()).filter(|&c| letter(c) == Some(*label)).count()
    };
    let letters = (0..ELLIPSIS).filter(|label| count(label) == 1);
    (ELLIPSIS..ELLIPSIS + covered).rev().chain(letters).collect()
}
