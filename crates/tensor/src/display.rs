//! Printing like NumPy and PyTorch: aligned, elided when large, with shape and type.

use std::fmt;

use crate::element::Element;
use crate::tensor::Tensor;

/// Tensors of more elements are elided.
const THRESHOLD: usize = 1000;
/// Entries shown at each end of an elided dim.
const EDGE: usize = 3;
/// Columns of a line, after which a row goes on below.
const LINE: usize = 80;

impl<T: Element> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor<{}>{:?}", T::NAME, self.shape())
    }
}

/// `{}` prints four digits after the point; `{:.2}` asks for another number.
impl<T: Element> fmt::Display for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.numel() == 0 {
            return write!(f, "[] shape={:?} {}", self.shape(), T::NAME);
        }
        let elide = self.numel() > THRESHOLD;
        let mut shown = Vec::new();
        self.visit(self.layout.offset as isize, 0, elide, &mut |x| shown.push(x));
        let cells = format_cells(&shown, f.precision().unwrap_or(4));
        let width = cells.iter().map(|c| c.chars().count()).max().unwrap_or(0);
        self.write_dim(f, 0, elide, &mut cells.iter(), width)?;
        write!(f, " shape={:?} {}", self.shape(), T::NAME)
    }
}

/// Which indices of a dim are shown; `None` stands for the gap.
fn shown(size: usize, elide: bool) -> impl Iterator<Item = Option<usize>> {
    let gap = elide && size > 2 * EDGE;
    let (head, tail) = if gap { (EDGE, size - EDGE) } else { (size, size) };
    (0..head).map(Some).chain(gap.then_some(None)).chain((tail..size).map(Some))
}

/// All elements in one notation, so that they line up.
fn format_cells<T: Element>(elements: &[T], precision: usize) -> Vec<String> {
    let floats: Option<Vec<f64>> = elements.iter().map(|x| x.as_float()).collect();
    let Some(floats) = floats else {
        return elements.iter().map(|x| format!("{x:?}")).collect();
    };
    let finite = || floats.iter().filter(|x| x.is_finite() && **x != 0.0).map(|x| x.abs());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
    let scientific = high >= 1e8 || (high > 0.0 && (low < 1e-4 || high / low > 1e7));
    let whole = !scientific && floats.iter().all(|x| !x.is_finite() || x.fract() == 0.0);
    let cell = |x: &f64| match *x {
        x if x.is_nan() => "nan".into(),
        x if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
        x if scientific => format!("{x:.precision$e}"),
        x if whole || precision == 0 => format!("{x:.0}."),
        x => format!("{x:.precision$}"),
    };
    floats.iter().map(cell).collect()
}

impl<T: Element> Tensor<T> {
    fn visit(&self, start: isize, dim: usize, elide: bool, push: &mut impl FnMut(T)) {
        if dim == self.rank() {
            return push(self.buffer.as_slice()[start as usize]);
        }
        for i in shown(self.shape()[dim], elide).flatten() {
            self.visit(start + i as isize * self.layout.strides[dim], dim + 1, elide, push);
        }
    }

    fn write_dim(
        &self,
        f: &mut fmt::Formatter<'_>,
        dim: usize,
        elide: bool,
        cells: &mut std::slice::Iter<'_, String>,
        width: usize,
    ) -> fmt::Result {
        if dim == self.rank() {
            let cell = cells.next().map_or("", String::as_str);
            return write!(f, "{cell:>width$}");
        }
        let last = dim + 1 == self.rank();
        // A cell takes its width, a comma and a space.
        let in_line = (LINE.saturating_sub(dim + 1) / (width + 2)).max(1);
        f.write_str("[")?;
        for (n, index) in shown(self.shape()[dim], elide).enumerate() {
            if n > 0 {
                let below = last && n % in_line == 0;
                f.write_str(if last && !below { ", " } else { "," })?;
                if below {
                    write!(f, "\n{}", " ".repeat(dim + 1))?;
                }
            }
            if n > 0 && !last {
                // A blank line between matrices, as NumPy has it.
                f.write_str(&"\n".repeat(self.rank() - dim - 1))?;
                f.write_str(&" ".repeat(dim + 1))?;
            }
            match index {
                Some(_) => self.write_dim(f, dim + 1, elide, cells, width)?,
                None => f.write_str("...")?,
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_aligned_with_shape_and_type() {
        let x = Tensor::from_vec(vec![1.5_f32, -10.25, 0.0, f32::NAN], [2, 2]).unwrap();
        assert_eq!(
            x.to_string(),
            "[[  1.5000, -10.2500],\n [  0.0000,      nan]] shape=[2, 2] f32"
        );
        assert_eq!(format!("{x:?}"), "Tensor<f32>[2, 2]");
        assert_eq!(
            Tensor::from_vec(vec![1_i64, -20], [2]).unwrap().to_string(),
            "[  1, -20] shape=[2] i64"
        );
        assert_eq!(Tensor::scalar(3.0_f64).to_string(), "3. shape=[] f64");
        assert_eq!(Tensor::scalar(true).to_string(), "true shape=[] bool");
        assert_eq!(Tensor::<f32>::zeros([0, 2]).unwrap().to_string(), "[] shape=[0, 2] f32");
        let empty = Tensor::<f32>::zeros([1 << 40, 0]).unwrap();
        assert_eq!(empty.to_string(), "[] shape=[1099511627776, 0] f32");
        let wide = Tensor::from_vec(vec![1e-9_f64, 1.0], [2]).unwrap();
        assert_eq!(format!("{wide:.1}"), "[1.0e-9,  1.0e0] shape=[2] f64");
    }

    #[test]
    fn long_rows_go_on_below() {
        let x = Tensor::from_vec((90..120_i64).collect(), [2, 15]).unwrap();
        let text = x.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(Tensor::<f32>::zeros([2, 70]).unwrap().to_string().lines().all(|l| l.len() <= 80));
        let wide = Tensor::full([30], 0.125_f32).unwrap().to_string();
        let lines: Vec<&str> = wide.lines().collect();
        assert_eq!(lines[0], format!("[{}", "0.1250, ".repeat(8) + "0.1250,"));
        assert_eq!(lines[1][..8], *" 0.1250,");
        assert!(lines[3].ends_with("0.1250] shape=[30] f32"));
    }

    #[test]
    fn a_repeated_number_prints_at_once() {
        let x = Tensor::scalar(1.0_f32).expand([1 << 40]).unwrap();
        assert_eq!(x.to_string(), "[1., 1., 1., ..., 1., 1., 1.] shape=[1099511627776] f32");
        let x = Tensor::from([0.5_f32, 1.5]);
        assert_eq!(format!("{x:.0}"), "[0., 2.] shape=[2] f32");
    }

    #[test]
    fn elides_large_tensors() {
        let x = Tensor::from_vec((0..2000_i64).collect(), [2000]).unwrap();
        assert_eq!(x.to_string(), "[   0,    1,    2, ..., 1997, 1998, 1999] shape=[2000] i64");
        let m = Tensor::<f32>::zeros([50, 50]).unwrap().to_string();
        assert_eq!(m.lines().count(), 7);
    }
}
