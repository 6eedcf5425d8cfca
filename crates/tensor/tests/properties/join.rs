//! Joining, repeating, rolling, padding and triangles: which entry each entry of the result is.

use tensor::{PadMode, Tensor};

use crate::twin::{Dense, Sample, Twin, same, special};
use crate::{Case, Oracle, rejects};

macro_rules! table {
    ($($name:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[$((stringify!($name), |case| {
            $name::<f32>(case);
            $name::<bool>(case);
            $name::<i64>(case);
        })),+];
    };
}
table! { cat stack repeat tile roll pad tril triu }

fn views<T: Sample>(parts: &[Twin<T>]) -> Vec<&Tensor<T>> {
    parts.iter().map(|part| &part.view).collect()
}

fn cat<T: Sample>(case: &mut Case) {
    rejects("cat", Tensor::<T>::cat(&[], 0));
    let rank = case.rank();
    for d in 0..rank {
        let mut parts = Vec::new();
        for _ in 0..=case.choices.below(3) {
            let mut shape = case.shape.clone();
            shape[d] = case.choices.below(4);
            parts.push(Twin::<T>::strided(&shape, case.choices.bits(), special));
        }
        // Part and entry of each index along the dim.
        let sizes = parts.iter().map(|part| part.dense.shape[d]).enumerate();
        let at: Vec<(usize, usize)> =
            sizes.flat_map(|(p, n)| (0..n).map(move |i| (p, i))).collect();
        let mut shape = case.shape.clone();
        shape[d] = at.len();
        let want = Dense::build(&shape, |index| {
            let mut ours = index.to_vec();
            let (part, i) = at[index[d]];
            ours[d] = i;
            parts[part].dense.at(&ours)
        });
        let dim = case.choices.signed(d, rank);
        same(&Tensor::cat(&views(&parts), dim).unwrap(), &want);
        parts.iter().for_each(Twin::check);
        let first = &parts[0].view;
        rejects("cat", Tensor::cat(&[first, &first.unsqueeze(0).unwrap()], dim));
        for k in (0..rank).filter(|&k| k != d) {
            let mut shape = case.shape.clone();
            shape[k] += 1;
            rejects("cat", Tensor::cat(&[first, &Tensor::zeros(shape).unwrap()], dim));
        }
    }
    let x = case.twin::<T>(special);
    rejects("cat", Tensor::cat(&[&x.view], rank as isize));
}

fn stack<T: Sample>(case: &mut Case) {
    let rank = case.rank();
    let count = 1 + case.choices.below(3);
    let parts: Vec<Twin<T>> = (0..count).map(|_| case.twin(special)).collect();
    for d in 0..=rank {
        let mut shape = case.shape.clone();
        shape.insert(d, count);
        let want = Dense::build(&shape, |index| {
            let mut ours = index.to_vec();
            let part = ours.remove(d);
            parts[part].dense.at(&ours)
        });
        let dim = case.choices.signed(d, rank + 1);
        same(&Tensor::stack(&views(&parts), dim).unwrap(), &want);
    }
    rejects("stack", Tensor::<T>::stack(&[], 0));
    rejects("stack", Tensor::stack(&views(&parts), rank as isize + 1));
    let first = &parts[0].view;
    rejects("stack", Tensor::stack(&[first, &first.unsqueeze(0).unwrap()], 0));
}

/// `x` as often along each of its dims as `repeats` says, which may be more than the dims.
fn repeated<T: Sample>(x: &Twin<T>, repeats: &[usize]) -> Dense<T> {
    let lead = repeats.len() - x.dense.shape.len();
    let sizes = [&vec![1; lead][..], &x.dense.shape].concat();
    let shape: Vec<usize> = sizes.iter().zip(repeats).map(|(n, r)| n * r).collect();
    Dense::build(&shape, |index| {
        let ours: Vec<usize> = index.iter().zip(&sizes).map(|(i, n)| i % n).collect();
        x.dense.at(&ours[lead..])
    })
}

fn repeats(case: &mut Case, count: usize) -> Vec<usize> {
    let mut left = 12;
    let mut repeats = Vec::new();
    for _ in 0..count {
        let r = case.choices.of(&[1, 1, 2, 3, 0]).min(left);
        left /= r.max(1);
        repeats.push(r);
    }
    repeats
}

fn repeat<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    let more = case.choices.below(3);
    let repeats = repeats(case, rank + more);
    same(&x.view.repeat(&repeats).unwrap(), &repeated(&x, &repeats));
    if rank > 0 {
        rejects("repeat", x.view.repeat(&repeats[..rank - 1]));
    }
    x.check();
}

fn tile<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    let count = case.choices.below(rank + 3);
    let repeats = repeats(case, count);
    let all = [&vec![1; rank.saturating_sub(count)][..], &repeats].concat();
    same(&x.view.tile(&repeats).unwrap(), &repeated(&x, &all));
    x.check();
}

fn roll<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    let mut shifts = Vec::new();
    let mut dims = Vec::new();
    let mut moved = vec![0_i128; rank];
    for _ in 0..if rank == 0 { 0 } else { case.choices.below(4) } {
        // The same dim may be named again.
        let d = case.choices.below(rank);
        let near = case.choices.between(-7, 7);
        let shift = case.choices.of(&[near, near, near, isize::MIN, isize::MAX]);
        moved[d] += shift as i128;
        shifts.push(shift);
        dims.push(case.choices.signed(d, rank));
    }
    let got = x.view.roll(&shifts, &dims);
    let source = |index: &[usize]| {
        let from =
            |d: usize| (index[d] as i128 - moved[d]).rem_euclid(case.shape[d] as i128) as usize;
        (0..rank).map(from).collect()
    };
    x.mirror(got, &case.shape, source).check();
    dims.push(0);
    rejects("roll", x.view.roll(&shifts, &dims));
    shifts.push(0);
    dims[shifts.len() - 1] = rank as isize;
    rejects("roll", x.view.roll(&shifts, &dims));
    x.check();
}

/// Which entry of `n` stands `i` places from the first, by walking there; `None` is the constant.
fn padded<T>(mode: PadMode<T>, n: isize, i: isize) -> Option<isize> {
    let inside = (0..n).contains(&i);
    match mode {
        _ if inside => Some(i),
        PadMode::Constant(_) => None,
        PadMode::Replicate => Some(if i < 0 { 0 } else { n - 1 }),
        PadMode::Circular => padded(mode, n, if i < 0 { i + n } else { i - n }),
        PadMode::Reflect => padded(mode, n, if i < 0 { -i } else { 2 * (n - 1) - i }),
    }
}

fn pad<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    let value = special::<T>(case.choices.bits());
    for mode in [PadMode::Constant(value), PadMode::Reflect, PadMode::Replicate, PadMode::Circular]
    {
        let mut room = 6;
        let (mut padding, mut fits) = (Vec::new(), true);
        for &n in &case.shape {
            let mut end = || case.choices.below(4).min(room);
            let (before, after) = (end(), end());
            room -= before.max(after).min(room);
            padding.push((before, after));
            let most = match mode {
                PadMode::Constant(_) => usize::MAX,
                PadMode::Reflect => n.saturating_sub(1),
                PadMode::Replicate if n > 0 => usize::MAX,
                PadMode::Replicate => 0,
                PadMode::Circular => n,
            };
            fits &= before.max(after) <= most;
        }
        if !fits {
            rejects("pad", x.view.pad(&padding, mode));
            continue;
        }
        let sizes = case.shape.iter().zip(&padding);
        let shape: Vec<usize> = sizes.map(|(n, (before, after))| before + n + after).collect();
        let want = Dense::build(&shape, |index| {
            let entry = |d: usize| {
                let i = index[d] as isize - padding[d].0 as isize;
                padded(mode, case.shape[d] as isize, i)
            };
            let ours: Option<Vec<usize>> =
                (0..shape.len()).map(|d| Some(entry(d)? as usize)).collect();
            ours.map_or(value, |ours| x.dense.at(&ours))
        });
        same(&x.view.pad(&padding, mode).unwrap(), &want);
        padding.push((0, 0));
        rejects("pad", x.view.pad(&padding, mode));
        x.check();
    }
}

fn triangle<T: Sample>(case: &mut Case, upper: bool) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    for diagonal in [0, case.choices.between(-6, 6), isize::MIN, isize::MAX] {
        let apply = |x: &Tensor<T>| if upper { x.triu(diagonal) } else { x.tril(diagonal) };
        if rank < 2 {
            rejects(if upper { "triu" } else { "tril" }, apply(&x.view));
            continue;
        }
        let want = Dense::build(&case.shape, |index| {
            let away = index[rank - 1] as i128 - index[rank - 2] as i128;
            let kept = if upper { away >= diagonal as i128 } else { away <= diagonal as i128 };
            if kept { x.dense.at(index) } else { T::ZERO }
        });
        same(&apply(&x.view).unwrap(), &want);
        same(&apply(&x.fresh()).unwrap(), &want);
        x.check();
    }
}

fn tril<T: Sample>(case: &mut Case) {
    triangle::<T>(case, false);
}

fn triu<T: Sample>(case: &mut Case) {
    triangle::<T>(case, true);
}
