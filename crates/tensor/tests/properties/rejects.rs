//! What operations refuse: errors that name them, before anything is written.

use proptest::collection::vec;
use proptest::prelude::*;
use tensor::{Generator, PadMode, Tensor};

use crate::{cases, rejects, shape};

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn rejects_bad_dims(shape in shape(), far in 7..isize::MAX) {
        let rank = shape.len() as isize;
        let x = Tensor::<f64>::zeros(&shape[..]).unwrap();
        let index = Tensor::from_vec(vec![0_i64], [1]).unwrap();
        for (sign, d) in [(0, rank), (-1, -rank - 1), (0, far), (-1, -far), (-1, isize::MIN)] {
            rejects("transpose", x.transpose(d, sign));
            rejects("transpose", x.transpose(sign, d));
            rejects("narrow", x.narrow(d, 0, 0));
            rejects("squeeze", x.squeeze(d));
            rejects("unsqueeze", x.unsqueeze(d.saturating_add(1 + 2 * sign)));
            rejects("argmax", x.argmax_dim(d, false));
            rejects("index_select", x.index_select(d, &index));
            rejects("here", x.resolve_dim("here", d));
            rejects("argmin", x.argmin_dim(d, false));
            rejects("max_dim", x.max_dim(d, true));
            rejects("min_dim", x.min_dim(d, true));
            rejects("gather", x.gather(d, &index));
            rejects("scatter", x.scatter(d, &index, &x));
            rejects("scatter_add", x.scatter_add(d, &index, &x));
            rejects("index_add", x.index_add(d, &index, &x));
            rejects("flip", x.scatter_view(&shape[..], |x| x.flip(&[d])));
            rejects("linear_recurrence", x.linear_recurrence(&x, d));
            rejects("logcumsumexp", x.logcumsumexp(d));
            rejects("cumsum", x.cumsum(d));
            rejects("cumprod", x.cumprod(d));
            rejects("sort", x.sort(d, true));
            rejects("argsort", x.argsort(d, true));
            rejects("topk", x.topk(0, d, true));
            rejects("slice", x.slice(d, ..));
            rejects("select", x.select(d, 0));
            rejects("flip", x.flip(&[d]));
            rejects("unfold", x.unfold(d, 0, 1));
            rejects("split", x.split(1, d));
            rejects("split_with_sizes", x.split_with_sizes(&[], d));
            rejects("chunk", x.chunk(1, d));
            rejects("roll", x.roll(&[1], &[d]));
            rejects("cat", Tensor::cat(&[&x], d));
            rejects("stack", Tensor::stack(&[&x], d.saturating_add(1 + 2 * sign)));
            rejects("diagonal", x.diagonal(0, d, 0));
            rejects("prod", x.prod_dim(&[d], false));
            rejects("logsumexp", x.logsumexp_dim(&[d], false));
            rejects("amax", x.amax(&[d], false));
            rejects("amin", x.amin(&[d], false));
            rejects("var", x.var_dim(&[d], 1, false));
            rejects("std", x.std_dim(&[d], 1, false));
            rejects("norm", x.norm_dim(2.0, &[d], false));
            rejects("all", x.cast::<bool>().all_dim(&[d], false));
            rejects("any", x.cast::<bool>().any_dim(&[d], false));
            rejects("permute", x.permute(&(1..rank).chain([d]).collect::<Vec<_>>()));
            rejects("sum", x.sum_dim(&(0..rank).chain([d]).collect::<Vec<_>>(), true));
            rejects("mean", x.mean_dim(&[d], false));
        }
        for (d, &size) in shape.iter().enumerate() {
            let d = d as isize;
            rejects("sum", x.sum_dim(&[d, d - rank], true));
            rejects("mean", x.mean_dim(&[d, d], true));
            rejects("permute", x.permute(&vec![d; shape.len() + 1]));
            rejects("permute", x.permute(&(1..rank).collect::<Vec<_>>()));
            rejects("narrow", x.narrow(d, 0, size + 1));
            rejects("narrow", x.narrow(d, size + 1, 0));
            rejects("narrow", x.narrow(d, 1, usize::MAX));
        }
    }

    #[test]
    fn rejects_bad_shapes(shape in vec(2..5_usize, 1..4), more in 1..4_usize) {
        let ones = |shape: &[usize]| Tensor::<f32>::ones(shape).unwrap();
        let (lead, last) = shape.split_at(shape.len() - 1);
        let wrong = [lead, &[last[0] + more]].concat();
        let (x, y) = (ones(&shape), ones(&wrong));
        for (a, b) in [(&x, &y), (&y, &x)] {
            rejects("add", a.checked_add(b));
            rejects("sub", a.checked_sub(b));
            rejects("mul", a.checked_mul(b));
            rejects("div", a.checked_div(b));
            rejects("threshold_backward", a.threshold_backward(b));
            rejects("tanh_backward", a.tanh_backward(b));
            rejects("sigmoid_backward", a.sigmoid_backward(b));
            rejects("maximum", a.maximum(b));
            rejects("minimum", a.clone().into_minimum(b));
            rejects("remainder", a.remainder(b));
            rejects("rem", a.checked_rem(b));
            rejects("pow", a.pow(b));
            rejects("atan2", a.atan2(b));
            rejects("lerp", a.lerp(b, 0.5));
            rejects("lerp", a.lerp(a, b));
            rejects("clamp", a.clamp(0.0, b));
            rejects("clamp", a.clamp(b, 0.0));
            rejects("eq", a.eq(b));
            rejects("ne", a.ne(b));
            rejects("lt", a.lt(b));
            rejects("le", a.le(b));
            rejects("gt", a.gt(b));
            rejects("ge", a.ge(b));
            let (p, q) = (a.cast::<bool>(), b.cast::<bool>());
            rejects("logical_and", p.logical_and(&q));
            rejects("logical_or", p.logical_or(&q));
            rejects("logical_xor", p.logical_xor(&q));
            rejects("where", p.where_cond(b, 0.0));
            rejects("where", p.where_cond(a, b));
            rejects("masked_fill", a.masked_fill(&q, 0.0));
            rejects("masked_select", a.masked_select(&q));
            rejects("stack", Tensor::stack(&[a, b], 0));
            rejects("matmul", a.matmul(&b.unsqueeze(-1).unwrap()));
            rejects("linear", a.linear(&ones(&[3, b.shape()[lead.len()]]), None));
        }
        rejects("matmul", ones(&[2, 1, 3]).matmul(&ones(&[2 + more, 3, 1])));
        rejects("matmul", ones(&[]).matmul(&x));
        rejects("matmul", x.matmul(&ones(&[])));
        rejects("linear", ones(&[]).linear(&ones(&[3, 1]), None));
        rejects("linear", x.linear(&ones(last), None));
        rejects("linear", x.linear(&ones(&[3, last[0]]), Some(&ones(&[3 + more]))));
        rejects("expand", x.expand(&wrong[..]));
        rejects("expand", x.expand([]));
        rejects("reshape", x.reshape([x.numel() + more]));
        rejects("reshape", x.reshape([0, usize::MAX, 2]));
        rejects("sum_to", x.sum_to(&wrong));
        rejects("sum_to", x.sum_to(&[&[1], &shape[..]].concat()));
        rejects("item", x.item());
        rejects("here", x.dims::<7>("here"));
        rejects("from_vec", Tensor::from_vec(vec![0.0; x.numel() + more], &shape[..]));
        let far = Tensor::from_vec(vec![0, shape[0] as i64], [2]).unwrap();
        rejects("index_select", x.index_select(0, &far));
        rejects("index_select", x.index_select(0, &far.unsqueeze(0).unwrap()));
    }
}

#[test]
fn rejects_sizes_that_memory_cannot_address() {
    let (huge, g) = ([usize::MAX, 2], &mut Generator::new(0));
    rejects("full", Tensor::full(huge, true));
    rejects("zeros", Tensor::<f32>::zeros([0, usize::MAX, 2]));
    rejects("ones", Tensor::<f64>::ones([isize::MAX as usize]));
    rejects("from_vec", Tensor::from_vec(vec![0_i64], huge));
    rejects("uniform", Tensor::<f32>::rand(huge, g));
    rejects("uniform", Tensor::<f32>::uniform([2], 0.0, f64::NAN, g));
    rejects("randn", Tensor::<f32>::randn(huge, g));
    rejects("randint", Tensor::randint(0, 2, huge, g));
    rejects("randint", Tensor::randint(2, 2, [2], g));
    rejects("eye", Tensor::<u8>::eye(usize::MAX, 2));
    rejects("linspace", Tensor::linspace(0.0, 1.0, usize::MAX));
    rejects("arange", Tensor::arange(0, i64::MAX, 1));
    rejects("bernoulli", Tensor::<bool>::bernoulli(huge, 0.5, g));
    rejects("randperm", Tensor::randperm(usize::MAX, g));
    rejects("one_hot", Tensor::from([1_i64]).one_hot(usize::MAX));
    rejects("bincount", Tensor::from([i64::MAX]).bincount(0));
    rejects("bincount", Tensor::from([1_i64]).bincount(usize::MAX));
    let one = Tensor::scalar(1.0);
    let [a, b] = [[1 << 40, 1, 1], [1, 1, 1 << 40]].map(|s| one.expand(s).unwrap());
    rejects("add", a.checked_add(&b));
    rejects("matmul", a.matmul(&b));
    rejects("linear", a.linear(&b.reshape([1 << 40, 1]).unwrap(), None));
    rejects("expand", one.expand(huge));
    rejects("repeat", one.repeat(&huge));
    rejects("repeat", one.tile(&huge));
    rejects("pad", a.pad(&[(usize::MAX, 1), (0, 0), (0, 0)], PadMode::Replicate));
    rejects(
        "pad",
        Tensor::from([1.0]).pad(&[(usize::MAX / 2, usize::MAX / 2)], PadMode::Replicate),
    );
    let wide = one.expand([1 << 58]).unwrap();
    rejects("cat", Tensor::cat(&[&wide, &wide, &wide], 0));
    rejects("stack", Tensor::stack(&[&wide, &wide, &wide], 0));
    rejects("unfold", wide.unfold(0, 1 << 30, 1));
    rejects("maximum", a.maximum(&b));
    rejects("clamp", a.clamp(&b, 0.0));
    rejects("eq", a.eq(&b));
    rejects("where", Tensor::scalar(true).where_cond(&a, &b));
    rejects("masked_select", a.masked_select(&Tensor::scalar(true).expand(b.shape()).unwrap()));
}

/// A failed assignment leaves its operand as it was.
#[test]
fn operators_panic_and_change_nothing() {
    let text = |f: &mut dyn FnMut()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    };
    let mut x = Tensor::from([1_i64, 2]);
    let (zeros, wide) = (Tensor::from([1_i64, 0]), Tensor::from([[1_i64, 2], [3, 4]]));
    assert!(text(&mut || x /= &zeros).starts_with("div: divisor"));
    assert!(text(&mut || x %= 0).starts_with("rem: divisor"));
    assert!(text(&mut || x += &wide).starts_with("add: "));
    assert!(text(&mut || x *= &Tensor::from([1_i64, 2, 3])).starts_with("mul: "));
    assert!(text(&mut || drop(&x - Tensor::from([1_i64, 2, 3]))).starts_with("sub: "));
    assert!(text(&mut || drop(7 / &zeros)).starts_with("div: divisor"));
    assert!(text(&mut || drop(7 % zeros.clone())).starts_with("rem: divisor"));
    let (p, q) = (Tensor::from([true, false]), Tensor::from([true; 3]));
    assert!(text(&mut || drop(&p & &q)).starts_with("logical_and: "));
    assert!(text(&mut || drop(p.clone() | q.clone())).starts_with("logical_or: "));
    assert!(text(&mut || drop(&p ^ &q)).starts_with("logical_xor: "));
    assert_eq!(x.to_vec(), [1, 2]);
}
