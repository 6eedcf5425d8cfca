//! Random changes of training images that keep what they show.
//!
//! Each image of a batch is changed on its own, as the generator says.

use autograd::{Error, Float, Generator, Result, Tensor};

/// A random change of a batch. `torchvision.transforms.v2.Transform`.
pub trait Augment<T: Float>: Send + Sync {
    /// The batch `x`, changed.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] for a batch that is none of images `[N, C, H, W]`, where the change needs
    /// them.
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>>;
}

/// Several changes, one after another. `torchvision.transforms.v2.Compose`.
///
/// # Examples
/// ```
/// use nn::data::{Augment, Augmentations, GaussianNoise, RandomHorizontalFlip, RandomShift};
/// use nn::prelude::*;
/// let change = Augmentations::<f32>::new()
///     .append(RandomShift::new(2))
///     .append(RandomHorizontalFlip::new(0.5)?)
///     .append(GaussianNoise::new(0.05)?);
/// let images = TensorDataset::new(Tensor::ones([8, 1, 6, 6])?, Tensor::from([3_i64; 8]))?;
/// let images = images.map(move |(x, y), generator| Ok((change.apply(x, generator)?, y)));
/// let loader = DataLoader::new(images, DataLoaderOptions { batch_size: 4, ..Default::default() })?;
/// for batch in loader.epoch(0) {
///     assert_eq!(batch?.0.shape(), [4, 1, 6, 6]);
/// }
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Default)]
pub struct Augmentations<T: Float> {
    changes: Vec<Box<dyn Augment<T>>>,
}

impl<T: Float> Augmentations<T> {
    /// No change.
    pub fn new() -> Self {
        Augmentations { changes: Vec::new() }
    }

    /// And then this one.
    #[must_use]
    pub fn append(mut self, change: impl Augment<T> + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }
}

impl<T: Float> Augment<T> for Augmentations<T> {
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>> {
        self.changes.iter().try_fold(x, |x, change| change.apply(x, generator))
    }
}

/// Moves each image by up to so many pixels along its height and its width; what moves in is 0.
/// `torchvision.transforms.RandomCrop(size, padding)` of the image's own size.
///
/// # Shape
/// `x: [N, C, H, W]` → the same.
///
/// # Examples
/// ```
/// use nn::data::{Augment, RandomShift};
/// use nn::prelude::*;
/// let x = Tensor::<f32>::ones([1, 1, 4, 4])?;
/// let y = RandomShift::new(1).apply(x, &mut Generator::new(0))?;
/// let left = y.sum().item()?; // nothing, a side, or two sides have gone
/// assert!([16.0, 12.0, 9.0].contains(&left));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RandomShift {
    pixels: usize,
}

impl RandomShift {
    /// Shifts of `-pixels..=pixels`, all of the same probability.
    pub fn new(pixels: usize) -> Self {
        RandomShift { pixels }
    }
}

impl<T: Float> Augment<T> for RandomShift {
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>> {
        each_image("RandomShift", &x, |image, size, out| {
            // Beyond its size every shift leaves nothing of the image.
            let [dy, dx] = size.map(|size| {
                let most = self.pixels.min(size);
                generator.below(2 * most + 1) as isize - most as isize
            });
            shift(image, size, [dy, dx], out);
        })
    }
}

/// `out[i][j] = image[i − dy][j − dx]`, for all planes of an image; `out` is 0 before.
fn shift<T: Float>(image: &[T], [h, w]: [usize; 2], [dy, dx]: [isize; 2], out: &mut [T]) {
    let planes = image.chunks_exact(h * w).zip(out.chunks_exact_mut(h * w));
    for (plane, out) in planes {
        for (i, out) in out.chunks_exact_mut(w).enumerate() {
            let Some(from) = i.checked_add_signed(-dy).filter(|&i| i < h) else { continue };
            let row = &plane[from * w..][..w];
            let (skip, kept) = (dx.unsigned_abs(), w.saturating_sub(dx.unsigned_abs()));
            if dx >= 0 {
                out[w - kept..].copy_from_slice(&row[..kept]);
            } else {
                out[..kept].copy_from_slice(&row[skip.min(w)..]);
            }
        }
    }
}

/// Turns each image to its mirror image, left to right, with probability `p`.
/// `torchvision.transforms.RandomHorizontalFlip`.
///
/// # Shape
/// `x: [N, C, H, W]` → the same.
///
/// # Examples
/// ```
/// use nn::data::{Augment, RandomHorizontalFlip};
/// use nn::prelude::*;
/// let x = Tensor::from_vec(vec![1.0_f32, 2.0, 3.0], [1, 1, 1, 3])?;
/// let y = RandomHorizontalFlip::new(1.0)?.apply(x, &mut Generator::new(0))?;
/// assert_eq!(y.to_vec(), [3.0, 2.0, 1.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RandomHorizontalFlip {
    p: f64,
}

impl RandomHorizontalFlip {
    /// Flips with probability `p`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `p` is in [0, 1].
    pub fn new(p: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&p) {
            return Ok(RandomHorizontalFlip { p });
        }
        let reason = format!("must be in [0, 1], found {p}");
        Err(Error::InvalidArgument { op: "RandomHorizontalFlip", name: "p", reason })
    }
}

impl<T: Float> Augment<T> for RandomHorizontalFlip {
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>> {
        each_image("RandomHorizontalFlip", &x, |image, [_, w], out| {
            out.copy_from_slice(image);
            if generator.uniform() < self.p {
                out.chunks_exact_mut(w).for_each(<[T]>::reverse);
            }
        })
    }
}

/// Turns each image about its centre, by an angle of up to so many degrees either way; what turns in is 0.
/// `torchvision.transforms.RandomRotation(degrees, InterpolationMode.BILINEAR)`.
///
/// # Shape
/// `x: [N, C, H, W]` → the same.
///
/// # Numerics
/// A pixel is the bilinear mean of the four about the place that it comes from; those outside the image
/// count as 0.
///
/// # Examples
/// ```
/// use nn::data::{Augment, RandomRotation};
/// use nn::prelude::*;
/// let x = Tensor::<f64>::ones([1, 1, 9, 9])?;
/// let y = RandomRotation::new(45.0)?.apply(x, &mut Generator::new(0))?;
/// assert!((y.select(2, 4)?.select(2, 4)?.item()? - 1.0).abs() < 1e-12); // the centre stays
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RandomRotation {
    degrees: f64,
}

impl RandomRotation {
    /// Angles of [−degrees, degrees), all of the same probability.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `degrees` is finite and not negative.
    pub fn new(degrees: f64) -> Result<Self> {
        check_not_negative("RandomRotation", "degrees", degrees)?;
        Ok(RandomRotation { degrees })
    }
}

impl<T: Float> Augment<T> for RandomRotation {
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>> {
        each_image("RandomRotation", &x, |image, size, out| {
            let degrees = self.degrees * (2.0 * generator.uniform() - 1.0);
            rotate(image, size, degrees.to_radians(), out);
        })
    }
}

/// All planes of an image, turned counter-clockwise.
fn rotate<T: Float>(image: &[T], [h, w]: [usize; 2], angle: f64, out: &mut [T]) {
    let (sin, cos) = angle.sin_cos();
    let (cy, cx) = ((h as f64 - 1.0) / 2.0, (w as f64 - 1.0) / 2.0);
    let planes = image.chunks_exact(h * w).zip(out.chunks_exact_mut(h * w));
    for (plane, out) in planes {
        for (place, out) in out.iter_mut().enumerate() {
            let (y, x) = ((place / w) as f64 - cy, (place % w) as f64 - cx);
            // Rows count downwards, so that this is a turn by −angle.
            *out = T::from_f64(bilinear(
                plane,
                [h, w],
                cy + x * sin + y * cos,
                cx + x * cos - y * sin,
            ));
        }
    }
}

/// The plane at a place between its pixels.
fn bilinear<T: Float>(plane: &[T], [h, w]: [usize; 2], y: f64, x: f64) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let mut sum = 0.0;
    for (row, share_y) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
        for (column, share_x) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
            let inside = row >= 0.0 && row < h as f64 && column >= 0.0 && column < w as f64;
            // A pixel that has no share is not looked at: it may be infinite.
            if inside && share_y * share_x > 0.0 {
                let pixel = plane[row as usize * w + column as usize].to_f64();
                sum += share_y * share_x * pixel;
            }
        }
    }
    sum
}

/// Adds normal noise of mean 0 to every number. `torchvision.transforms.v2.GaussianNoise(clip=False)`.
///
/// # Shape
/// Any; the same comes out.
///
/// # Examples
/// ```
/// use nn::data::{Augment, GaussianNoise};
/// use nn::prelude::*;
/// let x = Tensor::<f64>::zeros([10_000])?;
/// let y = GaussianNoise::new(0.5)?.apply(x, &mut Generator::new(0))?;
/// assert!((y.std(0).item()? - 0.5).abs() < 0.02);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GaussianNoise {
    deviation: f64,
}

impl GaussianNoise {
    /// Noise of the standard deviation `deviation`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `deviation` is finite and not negative.
    pub fn new(deviation: f64) -> Result<Self> {
        check_not_negative("GaussianNoise", "deviation", deviation)?;
        Ok(GaussianNoise { deviation })
    }
}

impl<T: Float> Augment<T> for GaussianNoise {
    fn apply(&self, x: Tensor<T>, generator: &mut Generator) -> Result<Tensor<T>> {
        if self.deviation == 0.0 {
            return Ok(x);
        }
        let noise = x.randn_like(generator);
        Ok(x + noise * T::from_f64(self.deviation))
    }
}

fn check_not_negative(op: &'static str, name: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let reason = format!("must be finite and not negative, found {value}");
    Err(Error::InvalidArgument { op, name, reason })
}

/// Makes each image of `x: [N, C, H, W]` anew: `f` is given the image, its height and width, and zeros to
/// write to.
fn each_image<T: Float>(
    op: &'static str,
    x: &Tensor<T>,
    mut f: impl FnMut(&[T], [usize; 2], &mut [T]),
) -> Result<Tensor<T>> {
    let [_, c, h, w] = x.dims(op)?;
    let size = c * h * w;
    let (images, mut out) = (x.contiguous(), x.zeros_like());
    if let (Some(images), 1..) = (images.as_slice(), size) {
        let pairs = images.chunks_exact(size).zip(out.make_mut().chunks_exact_mut(size));
        pairs.for_each(|(image, out)| f(image, [h, w], out));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, 2, .. in so many planes of h × w.
    fn image(planes: usize, h: usize, w: usize) -> Vec<f64> {
        (0..planes * h * w).map(|i| i as f64 + 1.0).collect()
    }

    #[test]
    fn shifts_move_rows_and_columns() {
        let mut out = [0.0; 6];
        shift(&image(1, 2, 3), [2, 3], [1, -1], &mut out);
        assert_eq!(out, [0.0, 0.0, 0.0, 2.0, 3.0, 0.0]);
        let mut out = [0.0; 6];
        shift(&image(1, 2, 3), [2, 3], [-1, 2], &mut out);
        assert_eq!(out, [0.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
        for far in [[2, 0], [0, 3], [0, -3], [-2, 0]] {
            let mut out = [0.0; 6];
            shift(&image(1, 2, 3), [2, 3], far, &mut out);
            assert_eq!(out, [0.0; 6], "{far:?}");
        }
        let mut out = [0.0; 4];
        shift(&image(2, 1, 2), [1, 2], [0, 1], &mut out);
        assert_eq!(out, [0.0, 1.0, 0.0, 3.0]);
    }

    #[test]
    fn every_shift_comes_up_and_none_beyond() {
        let (mut g, mut seen) = (Generator::new(0), std::collections::BTreeMap::new());
        let mut one = [0.0; 25];
        one[12] = 1.0;
        let x = Tensor::from_vec(one.repeat(500), [500, 1, 5, 5]).unwrap();
        let y = RandomShift::new(1).apply(x, &mut g).unwrap().to_vec();
        for image in y.chunks_exact(25) {
            *seen.entry(image.iter().position(|&p| p == 1.0)).or_insert(0) += 1;
        }
        let places: Vec<_> = seen.keys().map(|p| p.unwrap()).collect();
        assert_eq!(places, [6, 7, 8, 11, 12, 13, 16, 17, 18]);
        assert!(seen.values().all(|&n| n > 25), "{seen:?}");
        let x = Tensor::<f64>::ones([9, 2, 3, 1]).unwrap();
        assert!(RandomShift::new(usize::MAX).apply(x, &mut g).is_ok());
    }

    #[test]
    fn a_quarter_turn_is_exact_up_to_rounding() {
        // torch.rot90 of 1 2 3 / 4 5 6 / 7 8 9.
        let want = [3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0];
        let mut out = [0.0; 9];
        rotate(&image(1, 3, 3), [3, 3], std::f64::consts::FRAC_PI_2, &mut out);
        // At the border, where a place is outside by a rounding, its neighbours are missing.
        assert!(out.iter().zip(want).all(|(o, w)| (o - w).abs() < 1e-13), "{out:?}");
        let mut out = [0.0; 12];
        rotate(&image(2, 2, 3), [2, 3], std::f64::consts::PI, &mut out);
        let half: Vec<f64> = [6, 5, 4, 3, 2, 1, 12, 11, 10, 9, 8, 7].map(f64::from).to_vec();
        assert!(out.iter().zip(half).all(|(o, w)| (o - w).abs() < 1e-13), "{out:?}");
        let mut same = [0.0; 6];
        rotate(&image(1, 2, 3), [2, 3], 0.0, &mut same);
        assert_eq!(same.to_vec(), image(1, 2, 3));
    }

    #[test]
    fn bilinear_is_the_mean_of_four_and_0_outside() {
        let plane = [1.0, 2.0, 3.0, 5.0];
        assert_eq!(bilinear(&plane, [2, 2], 0.5, 0.5), 11.0 / 4.0);
        assert_eq!(bilinear(&plane, [2, 2], 0.0, 0.25), 1.25);
        assert_eq!(bilinear(&plane, [2, 2], 1.5, 1.0), 2.5);
        assert_eq!(bilinear(&plane, [2, 2], -1.0, 0.0), 0.0);
        assert_eq!(bilinear(&[1.0, f64::INFINITY], [1, 2], 0.0, 0.0), 1.0);
    }

    #[test]
    fn flips_are_of_whole_images() {
        let x = Tensor::from_vec(image(2, 1, 2).repeat(400), [400, 2, 1, 2]).unwrap();
        let y = RandomHorizontalFlip::new(0.25).unwrap().apply(x, &mut Generator::new(0)).unwrap();
        let y = y.to_vec();
        let flipped = y.chunks(4).filter(|i| **i == [2.0, 1.0, 4.0, 3.0]).count();
        let kept = y.chunks(4).filter(|i| **i == [1.0, 2.0, 3.0, 4.0]).count();
        // Five standard deviations, √(400·¼·¾), about 100.
        assert!(flipped + kept == 400 && flipped.abs_diff(100) < 44, "{flipped}");
    }

    #[test]
    fn changes_follow_the_generator_and_their_order() {
        let x = Tensor::from_vec(image(3, 4, 5), [3, 1, 4, 5]).unwrap();
        let change = Augmentations::new()
            .append(RandomShift::new(1))
            .append(RandomRotation::new(20.0).unwrap())
            .append(GaussianNoise::new(0.1).unwrap());
        let of = |seed| change.apply(x.clone(), &mut Generator::new(seed)).unwrap().to_vec();
        assert!(of(1) == of(1) && of(1) != of(2));
        let mut g = Generator::new(1);
        let mut y = RandomShift::new(1).apply(x.clone(), &mut g).unwrap();
        y = RandomRotation::new(20.0).unwrap().apply(y, &mut g).unwrap();
        assert_eq!(GaussianNoise::new(0.1).unwrap().apply(y, &mut g).unwrap().to_vec(), of(1));
        // The transposed images in a view.
        let view = x.transpose(2, 3).unwrap();
        let flip = RandomHorizontalFlip::new(1.0).unwrap();
        let flipped = flip.apply(view.clone(), &mut g).unwrap();
        assert_eq!(flipped.to_vec(), view.flip(&[3]).unwrap().to_vec());
    }

    #[test]
    fn bad_arguments_and_shapes_are_refused() {
        let text = RandomRotation::new(f64::NAN).unwrap_err().to_string();
        assert_eq!(text, "RandomRotation: degrees must be finite and not negative, found NaN");
        assert!(GaussianNoise::new(-1.0).is_err());
        assert!(RandomHorizontalFlip::new(1.5).is_err());
        let mut g = Generator::new(0);
        assert!(
            RandomShift::new(1).apply(Tensor::<f32>::ones([2, 3, 4]).unwrap(), &mut g).is_err()
        );
        for shape in [[0, 1, 2, 2], [2, 0, 2, 2], [2, 1, 0, 2], [2, 1, 2, 0]] {
            let none = Tensor::<f32>::ones(shape).unwrap();
            let change = Augmentations::new()
                .append(RandomShift::new(1))
                .append(RandomHorizontalFlip::new(0.5).unwrap())
                .append(RandomRotation::new(9.0).unwrap());
            assert_eq!(change.apply(none, &mut g).unwrap().shape(), shape);
        }
    }
}
