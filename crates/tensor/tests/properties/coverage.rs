//! Every public operation has an oracle: the names are read from the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ORACLES;

/// Macros that make methods, each row of which begins with their names.
const MAKERS: [&str; 5] = ["unary", "binary", "comparisons", "reductions", "extrema"];

/// The files that the operations are in.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let ops = fs::read_dir(root.join("ops")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        ops.filter(|p| p.extension().is_some_and(|e| e == "rs")).collect();
    files.extend(["tensor.rs", "random.rs", "kernels/matmul.rs"].map(|name| root.join(name)));
    files.retain(|path| path.exists());
    files.sort();
    files
}

/// The identifiers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !inside(c)).filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
}

/// The name of the method that a line begins to define.
fn method(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let (before, after) = rest.split_once("fn ")?;
    let qualifiers = ["const", "async", "unsafe", "extern"];
    before
        .split(' ')
        .all(|w| w.is_empty() || qualifiers.contains(&w))
        .then(|| words(after).next())?
}

/// Whether the header of an `impl` is that of the methods of a tensor.
fn of_tensor(header: &str) -> bool {
    let mut rest = header.strip_prefix("impl").unwrap_or_default();
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        });
        rest = &rest[end.unwrap() + 1..];
    }
    rest.trim_start().starts_with("Tensor<") && !rest.contains(" for ")
}

/// The names of the public methods of a tensor in a source file.
///
/// # Panics
/// Panics where a public function might be hidden from it.
fn methods(source: &str) -> BTreeSet<String> {
    let code = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut lines = code.lines();
    // Formatted code: what begins at the margin ends with a line that begins there with `}`.
    while let Some(first) = lines.next() {
        assert!(method(first).is_none(), "a public function outside of any type: {first}");
        let (kind, _) = first.split_once("! {").unwrap_or_default();
        let invoked = MAKERS.iter().any(|maker| first.starts_with(&format!("{maker}!")));
        assert!(!invoked || MAKERS.contains(&kind), "rows are read between braces: {first}");
        let mut header = first.to_owned();
        while first.starts_with("impl") && !header.ends_with(['{', '}', ';']) {
            header.push(' ');
            header.push_str(lines.next().unwrap());
        }
        let macros = !kind.is_empty() || first.starts_with("macro_rules! ");
        if !(macros || first.starts_with("impl") && header.ends_with('{')) {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with('}')).collect();
        if first.starts_with("macro_rules! ") {
            let name = words(first).nth(1).unwrap();
            let makes = block.iter().any(|line| line.contains("pub fn $"));
            assert!(!makes || MAKERS.contains(&name), "what `{name}!` makes is not known here");
        } else if MAKERS.contains(&kind) {
            for row in block.iter().filter_map(|line| line.strip_prefix("    ")) {
                if !row.starts_with([' ', '/', '#', '}']) {
                    let row = row.split(['=', '"']).next().unwrap_or_default();
                    names.extend(words(row).map(str::to_owned));
                }
            }
        } else if of_tensor(&header) {
            names.extend(block.iter().filter_map(|line| method(line)).map(str::to_owned));
        } else {
            let hidden = !header.starts_with("impl") && block.iter().any(|l| method(l).is_some());
            assert!(!hidden, "public functions inside of {first}");
        }
    }
    names
}

#[test]
fn every_operation_has_an_oracle() {
    let texts = sources().into_iter().map(|path| fs::read_to_string(path).unwrap());
    let operations: BTreeSet<String> = texts.flat_map(|text| methods(&text)).collect();
    assert!(operations.len() > 150, "only {} operations found", operations.len());
    for known in ["into_exp", "maximum", "ge", "sum_dim", "argmin_dim", "scatter", "randn", "item"]
    {
        assert!(operations.contains(known), "{known} not found");
    }
    let rows = ORACLES.concat();
    let oracles: BTreeSet<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(rows.len(), oracles.len(), "an operation has two oracles");
    let missing: Vec<_> = operations.difference(&oracles).collect();
    assert!(missing.is_empty(), "operations without an oracle: {missing:?}");
    let unknown: Vec<_> = oracles.difference(&operations).collect();
    assert!(unknown.is_empty(), "oracles of operations that are not there: {unknown:?}");
}

#[test]
fn operations_are_found_wherever_they_stand() {
    let source = r#"
impl<T: Element> Tensor<T> {
    pub fn plain(&self) {}
    pub(crate) fn hidden(&self) {}
    pub const fn constant(&self) {}
}
impl<'a, T: Into<Operand<'a, T>>, U> Tensor<T>
where
    U: Element,
{
    pub fn long(&self) {}
}
impl Generator {
    pub fn other(&self) {}
}
impl<T> Add<Tensor<T>> for Tensor<T> {
    fn add(self) {}
}
macro_rules! unary {
    ($name:ident) => {
        pub fn $name() {}
    };
}
unary! { Float.unary(Unary):
    /// A function.
    #[doc(alias = "g")]
    f, into_f = F;
}
reductions! { Element, Tensor<T::Sum>:
    all,
    some("all") = |dims| {
        dims
    };
}
#[cfg(test)]
mod tests {}
impl Tensor<u8> {
    pub fn tested(&self) {}
}
"#;
    let found: Vec<String> = methods(source).into_iter().collect();
    assert_eq!(found, ["all", "constant", "f", "into_f", "long", "plain", "some"]);
    for hidden in [
        "macro_rules! ops {\n    () => {\n        pub fn $name() {}\n    };\n}",
        "ops! {\n    pub fn f() {}\n}",
        "unary!(Number.number_unary(NumberUnary): f, into_f = F;);",
        "mod inner {\n    impl<T: Element> Tensor<T> {\n        pub fn f() {}\n    }\n}",
        "pub fn f() {}",
    ] {
        assert!(std::panic::catch_unwind(|| methods(hidden)).is_err(), "{hidden}");
    }
}
