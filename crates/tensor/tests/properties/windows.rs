//! Convolutions and pools: loops over windows and taps. Integers, so that sums are exact in any
//! order.

use tensor::{ConvOptions, Float, Windows};

use crate::linalg::numbers;
use crate::twin::{Choices, Dense, Sample, Twin, for_each_index, integers, near, same, with_nan};
use crate::{Oracle, rejects};

macro_rules! table {
    ($($name:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[$((stringify!($name), |case| {
            $name::<f32>(&mut case.choices);
            $name::<f64>(&mut case.choices);
        })),+];
    };
}
table! { conv2d conv2d_input conv2d_weight max_windows mean_windows spread_windows }

/// The entry of a dim of `size` that is tap `k` of window `o`.
fn entry(windows: &Windows, d: usize, size: usize, o: usize, k: usize) -> Option<usize> {
    let at = (o * windows.stride[d] + k * windows.dilation[d]).checked_sub(windows.padding[d].0)?;
    (at < size).then_some(at)
}

/// Windows that fit a plane, with more padding than a pool takes where `wide`.
fn draw(c: &mut Choices, wide: bool) -> (Windows, [usize; 2], [usize; 2]) {
    loop {
        let mut two = |choices: &[usize]| [(); 2].map(|()| c.of(choices));
        let (size, kernel) = (two(&[1, 2, 3, 5, 6, 8]), two(&[1, 1, 2, 3, 4]));
        let (stride, dilation) = (two(&[1, 1, 2, 3]), two(&[1, 1, 2, 3]));
        let (before, after) = (two(&[0, 0, 1, 2]), two(&[0, 0, 1, 2]));
        let padding = [0, 1].map(|d| (before[d], if wide { before[d] } else { after[d] }));
        let windows = Windows { kernel, stride, padding, dilation };
        // How many windows there are, from the definition: the last tap is inside the padded dim.
        let count = [0, 1].map(|d| {
            let last = |o: usize| o * stride[d] + (kernel[d] - 1) * dilation[d];
            let padded = size[d] + padding[d].0 + padding[d].1;
            (0..).take_while(|&o| last(o) < padded).count()
        });
        if count.contains(&0) {
            rejects("count", windows.count("count", size));
            continue;
        }
        assert_eq!(windows.count("count", size).unwrap(), count);
        let holds = |d: usize, o: usize| {
            (0..kernel[d]).any(|k| entry(&windows, d, size[d], o, k).is_some())
        };
        if wide || [0, 1].into_iter().all(|d| (0..count[d]).all(|o| holds(d, o))) {
            return (windows, size, count);
        }
    }
}

/// A convolution and its operands: x, w, and g of the shape of the output.
struct Convolution<T: Sample> {
    options: ConvOptions<2>,
    windows: Windows,
    x: Twin<T>,
    w: Twin<T>,
    g: Twin<T>,
}

impl<T: Float + Sample> Convolution<T> {
    fn draw(c: &mut Choices) -> Self {
        let (windows, [height, width], [rows, columns]) = draw(c, true);
        let (groups, n) = (c.of(&[1, 1, 2, 3]), c.of(&[0, 1, 2, 3]));
        let (inputs, outputs) = (c.of(&[0, 1, 2, 3]), c.of(&[0, 1, 2, 3]));
        let Windows { kernel, stride, dilation, padding } = windows;
        let options = ConvOptions { stride, dilation, padding: padding.map(|p| p.0), groups };
        let mut twin = |shape: [usize; 4]| Twin::strided(&shape, c.bits(), integers);
        let x = twin([n, groups * inputs, height, width]);
        let w = twin([groups * outputs, inputs, kernel[0], kernel[1]]);
        let g = twin([n, groups * outputs, rows, columns]);
        Convolution { options, windows, x, w, g }
    }

    /// Calls `visit` with the indices in x, w and g of each product of the convolution.
    fn for_each_product(&self, mut visit: impl FnMut([usize; 4], [usize; 4], [usize; 4])) {
        let [x, w] = [&self.x.dense.shape, &self.w.dense.shape];
        let outputs = w[0] / self.options.groups;
        for_each_index(&self.g.dense.shape, |g| {
            let group = g[1] / outputs;
            for_each_index(&w[1..], |tap| {
                let [i, j] =
                    [0, 1].map(|d| entry(&self.windows, d, x[d + 2], g[d + 2], tap[d + 1]));
                if let (Some(i), Some(j)) = (i, j) {
                    let x = [g[0], group * w[1] + tap[0], i, j];
                    visit(x, [g[1], tap[0], tap[1], tap[2]], [g[0], g[1], g[2], g[3]]);
                }
            });
        });
    }

    fn check(&self) {
        [&self.x, &self.w, &self.g].into_iter().for_each(Twin::check);
    }
}

fn zeros(shape: &[usize]) -> Dense<f64> {
    Dense::build(shape, |_| 0.0)
}

fn conv2d<T: Float + Sample>(c: &mut Choices) {
    let case = Convolution::<T>::draw(c);
    let (x, w) = (numbers(&case.x), numbers(&case.w));
    let mut want = zeros(&case.g.dense.shape);
    case.for_each_product(|i, j, k| {
        let at = want.flat(&k);
        want.data[at] += x.at(&i) * w.at(&j);
    });
    let y = case.x.view.conv2d(&case.w.view, None, &case.options).unwrap();
    near(&y, &want, |_, _| 0.0);
    let outputs = case.w.dense.shape[0];
    let b = Twin::<T>::strided(&[outputs], c.bits(), integers);
    let bias = numbers(&b).with_shape(&[outputs, 1, 1]);
    let y = case.x.view.conv2d(&case.w.view, Some(&b.view), &case.options).unwrap();
    near(&y, &want.zip(&bias, |y, b| y + b), |_, _| 0.0);
    case.check();
    let groups = case.options.groups * 5 + 1;
    let options = ConvOptions { groups, ..case.options };
    if outputs > 0 {
        rejects("conv2d", case.x.view.conv2d(&case.w.view, None, &options));
    }
    rejects("conv2d", case.x.view.conv2d(&b.view, None, &case.options));
    let long = Twin::<T>::strided(&[outputs + 1], c.bits(), integers);
    rejects("conv2d", case.x.view.conv2d(&case.w.view, Some(&long.view), &case.options));
}

fn conv2d_input<T: Float + Sample>(c: &mut Choices) {
    let case = Convolution::<T>::draw(c);
    let (g, w) = (numbers(&case.g), numbers(&case.w));
    let mut want = zeros(&case.x.dense.shape);
    case.for_each_product(|i, j, k| {
        let at = want.flat(&i);
        want.data[at] += g.at(&k) * w.at(&j);
    });
    let [_, _, height, width] = want.shape[..] else { unreachable!() };
    let dx = case.g.view.conv2d_input(&case.w.view, [height, width], &case.options).unwrap();
    near(&dx, &want, |_, _| 0.0);
    case.check();
    let wrong = [height, width + case.options.stride[1]];
    rejects("conv2d_input", case.g.view.conv2d_input(&case.w.view, wrong, &case.options));
}

fn conv2d_weight<T: Float + Sample>(c: &mut Choices) {
    let case = Convolution::<T>::draw(c);
    let (x, g) = (numbers(&case.x), numbers(&case.g));
    let mut want = zeros(&case.w.dense.shape);
    case.for_each_product(|i, j, k| {
        let at = want.flat(&j);
        want.data[at] += x.at(&i) * g.at(&k);
    });
    let kernel = case.windows.kernel;
    let dw = case.x.view.conv2d_weight(&case.g.view, kernel, &case.options).unwrap();
    near(&dw, &want, |_, _| 0.0);
    case.check();
    let wrong = [kernel[0] + 100, kernel[1]];
    rejects("conv2d_weight", case.x.view.conv2d_weight(&case.g.view, wrong, &case.options));
}

/// What stands in each window, in order, and where in the plane.
fn contents<X: Clone>(
    x: &Dense<X>,
    windows: &Windows,
    count: [usize; 2],
) -> Dense<Vec<(X, Vec<usize>)>> {
    let (lead, size) = x.shape.split_at(x.shape.len() - 2);
    Dense::build(&[lead, &count].concat(), |index| {
        let (lead, o) = index.split_at(index.len() - 2);
        let mut found = Vec::new();
        for_each_index(&windows.kernel, |k| {
            let [i, j] = [0, 1].map(|d| entry(windows, d, size[d], o[d], k[d]));
            if let (Some(i), Some(j)) = (i, j) {
                found.push((x.at(&[lead, &[i, j]].concat()), vec![i, j]));
            }
        });
        found
    })
}

fn lead(c: &mut Choices) -> Vec<usize> {
    let rank = c.below(3);
    (0..rank).map(|_| c.of(&[0, 1, 2, 3])).collect()
}

fn max_windows<T: Float + Sample>(c: &mut Choices) {
    for fill in [integers, with_nan] {
        let (windows, size, count) = draw(c, false);
        let shape = [&lead(c)[..], &size].concat();
        let x = Twin::<T>::strided(&shape, c.bits(), fill);
        let best = contents(&x.dense, &windows, count).map(|window| {
            let better = |a: (T, Vec<usize>), b: (T, Vec<usize>)| {
                let (m, n) = (a.0.number(), b.0.number());
                if n > m || n.is_nan() { b } else { a }
            };
            window.into_iter().reduce(better).unwrap()
        });
        let (y, index) = x.view.max_windows(&windows).unwrap();
        same(&y, &best.map(|(x, _)| x));
        same(&index, &best.map(|(_, at)| (at[0] * size[1] + at[1]) as i64));
        x.check();
        let huge = Windows { kernel: [100, 1], ..windows };
        rejects("max_windows", x.view.max_windows(&huge));
    }
    rejects(
        "max_windows",
        tensor::Tensor::<T>::zeros([3]).unwrap().max_windows(&Windows::new([1; 2])),
    );
}

/// Powers of two, so that shares of integers are exact.
fn divisors<T: Float + Sample>(c: &mut Choices, count: [usize; 2]) -> Twin<T> {
    let power = |bits: u64| T::sample(f64::powi(2.0, (bits % 4) as i32));
    Twin::strided(&c.reduced(&count), c.bits(), power)
}

fn mean_windows<T: Float + Sample>(c: &mut Choices) {
    let (windows, size, count) = draw(c, false);
    let shape = [&lead(c)[..], &size].concat();
    let x = Twin::<T>::strided(&shape, c.bits(), integers);
    let divisors = divisors::<T>(c, count);
    let sums = contents(&numbers(&x), &windows, count)
        .map(|window| window.into_iter().fold(0.0, |sum, (x, _)| sum + x));
    let want = sums.zip(&numbers(&divisors), |sum, n| sum / n);
    near(&x.view.mean_windows(&windows, &divisors.view).unwrap(), &want, |_, _| 0.0);
    x.check();
    divisors.check();
    let wrong = Windows { stride: [0, 1], ..windows };
    rejects("mean_windows", x.view.mean_windows(&wrong, &divisors.view));
}

fn spread_windows<T: Float + Sample>(c: &mut Choices) {
    let (windows, size, count) = draw(c, false);
    let lead = lead(c);
    let g = Twin::<T>::strided(&[&lead[..], &count].concat(), c.bits(), integers);
    let divisors = divisors::<T>(c, count);
    let shares = numbers(&g).zip(&numbers(&divisors), |g, n| g / n);
    let mut want = zeros(&[&lead[..], &size].concat());
    let places = contents(&want, &windows, count);
    for_each_index(&g.dense.shape, |index| {
        for (_, at) in places.at(index) {
            let at = want.flat(&[&index[..lead.len()], &at[..]].concat());
            want.data[at] += shares.at(index);
        }
    });
    near(&g.view.spread_windows(&windows, &divisors.view, size).unwrap(), &want, |_, _| 0.0);
    g.check();
    divisors.check();
    let wrong = [size[0] + windows.stride[0], size[1]];
    rejects("spread_windows", g.view.spread_windows(&windows, &divisors.view, wrong));
}
