//! A picture of what is recorded, in the language of Graphviz.

use std::fmt::Write;

use tensor::Float;

use crate::tape::{NONE, Tag, Tape};

impl<T: Float> Tape<T> {
    /// The recorded graph in DOT, to be drawn with `dot -Tsvg`: a box for each node with its
    /// operation, shape and line of the program; arrows point the way the values went.
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let tape = Tape::new();
    /// let x = tape.var(Tensor::from([1.0_f32, 2.0]));
    /// let _ = x.exp().sum();
    /// let dot = tape.to_dot();
    /// assert!(dot.contains("exp") && dot.contains("n0 -> n1"));
    /// ```
    pub fn to_dot(&self) -> String {
        let graph = self.0.graph.borrow();
        let mut dot = String::from("digraph tape {\n  rankdir=LR;\n  node [shape=box];\n");
        for (i, node) in graph.nodes.iter().enumerate() {
            let style = match node.tag {
                Tag::Leaf => ", style=filled, fillcolor=lightblue",
                _ if node.retain => ", style=bold",
                _ => "",
            };
            let file = node.location.file().replace('\\', "/");
            let (name, shape, line) = (node.name, &node.shape, node.location.line());
            // Writing into a string does not fail.
            let _ = writeln!(
                dot,
                "  n{i} [label=\"{name}\\n{shape:?}\\n{}:{line}\"{style}];",
                escaped(&file)
            );
            let parents = graph.parents_of(i as u32).iter().filter(|&&p| p != NONE);
            for parent in parents {
                let _ = writeln!(dot, "  n{parent} -> n{i};");
            }
            if let Tag::FusedLoss { past } = node.tag {
                let _ = writeln!(dot, "  n{past} -> n{i} [style=dashed, label=\"fused past\"];");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

fn escaped(text: &str) -> String {
    text.replace('"', "\\\"")
}
