//! House rules, as tests: what the compiler and the lints do not see.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What a build leaves is not ours.
                folders.extend(Some(path).filter(|p| !p.ends_with("target")));
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

#[test]
fn nothing_points_up_the_house() {
    for (folder, above) in
        [("crates/tensor/src", &["autograd", "nn"][..]), ("crates/autograd/src", &["nn"])]
    {
        for (path, text) in sources(folder) {
            for name in above {
                let used = [format!("use {name}::"), format!(" {name}::")];
                let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
                let up = code.filter(|l| used.iter().any(|u| l.contains(u))).count();
                assert_eq!(up, 0, "{} uses {name}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_stands_where_the_architecture_says() {
    let allowed = ["pool.rs", "buffer.rs", "dispatch.rs", "matmul.rs"];
    for (path, text) in sources("crates") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let has = text.lines().any(|l| l.contains("unsafe {") || l.contains("unsafe impl"));
        let inside = path.starts_with(root().join("crates/tensor/src")) && allowed.contains(&name);
        assert!(!has || inside, "unsafe code in {}", path.display());
    }
    for name in ["autograd", "nn"] {
        let text = fs::read_to_string(root().join(format!("crates/{name}/src/lib.rs"))).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["crates", "examples", "benches"] {
        for (path, text) in sources(folder) {
            let stated =
                text.starts_with("//!") || path.components().any(|c| c.as_os_str() == "ui");
            assert!(stated, "{} does not begin with //!", path.display());
        }
    }
}

#[test]
fn every_op_documents_gradient_memory_and_reference() {
    for (path, text) in sources("crates/autograd/src/ops") {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let mut docs = String::new();
        for line in code.lines() {
            let line = line.trim();
            if let Some(doc) = line.strip_prefix("///") {
                docs.push_str(doc);
            } else if let Some(rest) = line.strip_prefix("pub fn ") {
                if rest.contains("&self") && rest.contains("Self") {
                    let name = rest.split(['(', '<']).next().unwrap();
                    for owed in ["torch.", "order"] {
                        assert!(docs.contains(owed), "{name} in {}: no {owed:?}", path.display());
                    }
                    let gradient = ["dx", "dA", "dL"].iter().any(|d| docs.contains(d));
                    assert!(gradient, "{name} in {}: no gradient", path.display());
                }
                docs.clear();
            } else if !line.starts_with("#[") {
                docs.clear();
            }
        }
    }
}

#[test]
fn the_version_is_in_the_changelog() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_core_stays_small() {
    // Layout, storage, skeletons, tape, engine, checker and loss kernels, without tests and docs. The
    // rest is a catalogue, a page each: the operations, the formulas, functions and element types they
    // are tables of, the products of special shapes, the loss that takes in a layer, the errors, printing, random numbers, file
    // formats, and what stands on the engine without being part of it.
    let catalogue = [
        "ops",
        "math",
        "formulas.rs",
        "skinny.rs",
        "small.rs",
        "dots.rs",
        "linear_cross_entropy.rs",
        "tiles.rs",
        "element.rs",
        "error.rs",
        "display.rs",
        "random.rs",
        "npy.rs",
        "npz.rs",
        "files.rs",
        "suite.rs",
        "transforms.rs",
        "checkpoint.rs",
        "anomaly.rs",
        "dot.rs",
        "training.rs",
    ];
    let mut lines = 0;
    for (path, text) in [sources("crates/tensor/src"), sources("crates/autograd/src")].concat() {
        if !path.components().any(|c| catalogue.iter().any(|name| c.as_os_str() == *name)) {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let counts = |l: &&str| !l.trim().is_empty() && !l.trim_start().starts_with("//");
            lines += code.lines().filter(counts).count();
        }
    }
    assert!(lines < 5000, "{lines} lines of code");
}

/// Whether a file is in the crate or module called `owner`, or has a type of that name.
fn belongs(file: &Path, text: &str, owner: &str) -> bool {
    let word = |l: &str| l.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == owner);
    let types = ["impl", "pub struct", "pub enum", "pub trait", "pub type"];
    file.with_extension("").iter().any(|part| part == owner)
        || text.lines().any(|l| types.iter().any(|t| l.starts_with(t)) && word(l))
}

/// Whether a file defines a public name: with `pub`, in a trait, or as a row of an enum or a macro's table.
fn defines(text: &str, name: &str, in_trait: bool) -> bool {
    let mut documented = false;
    text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().map(str::trim).any(|line| {
        let head = line.split(['(', '<', '{', ':', ';', '=', '"']).next().unwrap();
        let words: Vec<_> = head.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let row = documented;
        documented = line.starts_with("///") || line.starts_with("#[");
        match words[..] {
            ["pub", "use", ..] | ["//" | "///" | "//!", ..] => false,
            ["pub", .., last] => last == name,
            ["fn", method] => in_trait && method == name,
            [first, ..] if row => first == name,
            _ => words.len() > 1 && words.contains(&name) && line.contains(": \""),
        }
    })
}

#[test]
fn what_the_page_for_pytorch_users_names_exists() {
    let page = fs::read_to_string(root().join("docs/FROM_PYTORCH.md")).unwrap();
    let ours = page.lines().filter(|l| l.starts_with('|')).filter_map(|l| l.split('|').nth(2));
    let mut missing: Vec<_> = ours.flat_map(|ours| ours.split('`').skip(1).step_by(2)).collect();
    assert!(missing.len() > 400, "{} names", missing.len());
    let files = sources("crates");
    missing.retain(|&path| {
        let mut parts = path.rsplit("::");
        let (name, owner) = (parts.next().unwrap(), parts.next());
        !files.iter().filter(|(_, text)| text.contains(name)).any(|(file, text)| {
            let in_trait = owner.is_some_and(|owner| text.contains(&format!("pub trait {owner}")));
            owner.is_none_or(|o| belongs(file, text, o)) && defines(text, name, in_trait)
        })
    });
    assert!(missing.is_empty(), "docs/FROM_PYTORCH.md names what is not public: {missing:?}");
}
