//! The equations of `einsum`: letters, commas, an ellipsis, an arrow.
//!
//! A label is a number here: 0 to 51 for a letter (upper case first, as ASCII and torch sort them),
//! and from [`ELLIPSIS`] on for a dim that an ellipsis covers, counted from the right.

use crate::error::{Error, Result};

pub(super) const OP: &str = "einsum";
pub(super) const ELLIPSIS: usize = 52;

pub(super) fn invalid(name: &'static str, reason: String) -> Error {
    Error::InvalidArgument { op: OP, name, reason }
}

/// A label as the equation writes it.
pub(super) fn name(label: usize) -> String {
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
pub(super) fn check(equation: &str, part: &str) -> Result<()> {
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
pub(super) fn resolve(subscripts: &str, shape: &[usize], operand: usize) -> Result<Vec<usize>> {
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
pub(super) fn explicit_output(
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
pub(super) fn implicit_output(inputs: &[&str], covered: usize) -> Vec<usize> {
    let count = |label: &usize| {
        inputs.iter().flat_map(|part| part.chars()).filter(|&c| letter(c) == Some(*label)).count()
    };
    let letters = (0..ELLIPSIS).filter(|label| count(label) == 1);
    (ELLIPSIS..ELLIPSIS + covered).rev().chain(letters).collect()
}
