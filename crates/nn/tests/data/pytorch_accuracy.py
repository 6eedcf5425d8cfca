"""How far PyTorch's float32 cross entropy family on the CPU is from the exact values.

For each family of deterministic inputs (a splitmix64 generator, so that another program
can build the same bits) and each class count C: the largest error over all rows and
entries, in units of u = 2^-24, against np.longdouble (80-bit where the platform has it)
with formulas that do not cancel, from the same float32 logits. Errors are relative,
except "grad row sum", which is |sum_k g_k| / sum_k |g_k| of PyTorch's own gradient.
"100 %" is an error of exactly 1: a 0 where the true value is not 0. Entries of "softmax"
and "grad k!=y" count where the true value is above 2^-120. PyTorch uses one thread.

Usage: python pytorch_accuracy.py            (prints Markdown; needs torch and numpy)
"""

import numpy as np
import torch
import torch.nn.functional as F

LD = np.longdouble
SMOOTHING = 0.1
SMALLEST = LD(2) ** -120
# name: scale, offset, gap of the target above the other classes
FAMILIES = {"N(0,4)": (2, 0, None), "N(0,1e-4)": (0.01, 0, None), "N(0,900)": (30, 0, None),
            "offset 1e4": (1, 1e4, None), "offset 1e8": (16, 1e8, None),
            "gap 10": (1, 0, 10), "gap 17": (1, 0, 17), "gap 25": (1, 0, 25),
            "gap 60": (1, 0, 60),
            "strided": (2, 0, None)}  # the rows of N(0,4), with logits laid out as (1, C, R)
COLUMNS = ["logsumexp", "log_softmax", "softmax", "CE loss", "CE mean",
           "grad k!=y", "grad k=y", "grad row sum", "smoothed CE"]


def normals(rows, classes):
    """z(r, k) for all rows and classes: roughly standard normal float64."""
    seed = np.arange(rows, dtype=np.uint64)[:, None] << np.uint64(32)
    x = seed + np.arange(1, classes + 1, dtype=np.uint64)  # uint64 arrays wrap mod 2^64
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    fields = sum((x >> np.uint64(s)) & np.uint64(0xFFFF) for s in (0, 16, 32, 48))
    return (fields.astype(np.int64) - 131070) / 37837.0


def make_inputs(rows, classes, scale, offset, gap):
    """Float32 logits of shape (rows, classes) and one target per row."""
    x = (float(scale) * normals(rows, classes) + float(offset)).astype(np.float32)
    y = 7919 * np.arange(1, rows + 1, dtype=np.int64) % classes
    if gap is not None:
        others = x.astype(np.float64)
        others[np.arange(rows), y] = -np.inf
        x[np.arange(rows), y] = (others.max(axis=1) + gap).astype(np.float32)
    return x, y


def sum_without(e, skip):
    """Row sums without entry skip[r] of row r, small terms first."""
    e = e.copy()
    e[np.arange(len(e)), skip] = 0
    return np.sort(e, axis=1).sum(axis=1)


def reference(x, y):
    """The true values to about 18 digits: every sum has terms of one sign only."""
    r, x, top = np.arange(len(x)), x.astype(LD), x.argmax(axis=1)
    shifted = x - x[r, top][:, None]
    e = np.exp(shifted)
    rest = sum_without(e, top)  # and e[r, top] is 1
    log_p = shifted - np.log1p(rest)[:, None]
    loss = -log_p[r, y]
    smoothed = (1 - LD(SMOOTHING)) * loss - LD(SMOOTHING) * log_p.mean(axis=1)
    return {"logsumexp": x[r, top] + np.log1p(rest), "log_softmax": log_p,
            "softmax": e / (1 + rest)[:, None], "CE loss": loss, "CE mean": loss.mean(),
            "grad k=y": -sum_without(e, y) / (1 + rest), "smoothed CE": smoothed}


def pytorch(x, y, strided):
    """PyTorch's float32 values, in the shapes of reference(), and the whole gradient."""
    def by_row(t):
        return t.detach().numpy()[0].T if strided else t.detach().numpy()
    logits = torch.from_numpy(x.T[None].copy() if strided else x).requires_grad_()
    target = torch.from_numpy(y[None] if strided else y)
    loss = F.cross_entropy(logits, target, reduction="none")
    loss.backward(torch.ones_like(loss))
    grad = by_row(logits.grad)
    smoothed = F.cross_entropy(logits, target, reduction="none", label_smoothing=SMOOTHING)
    return {"logsumexp": by_row(torch.logsumexp(logits, dim=1)),
            "log_softmax": by_row(F.log_softmax(logits, dim=1)),
            "softmax": by_row(F.softmax(logits, dim=1)), "CE loss": by_row(loss),
            "CE mean": F.cross_entropy(logits, target).detach().numpy(), "grad": grad,
            "grad k=y": grad[np.arange(len(x)), y], "smoothed CE": by_row(smoothed)}


def errors(x, y, strided):
    """The largest error of each quantity, in units of 1 (not of u)."""
    ref, got = reference(x, y), pytorch(x, y, strided)
    out = {k: np.abs((got[k].astype(LD) - ref[k]) / ref[k]) for k in ref}
    p, g = ref["softmax"], got["grad"].astype(LD)
    out["softmax"] = out["softmax"][p > SMALLEST]
    off_target = (p > SMALLEST) & (np.arange(x.shape[1]) != y[:, None])
    out["grad k!=y"] = (np.abs(g - p) / p)[off_target]
    out["grad row sum"] = np.abs(g.sum(axis=1)) / np.abs(g).sum(axis=1)
    return {k: float(np.max(v)) for k, v in out.items()}


def show(error):
    """Two significant digits in units of u."""
    v = error * 2.0**24
    if error == 1:
        return "100 %"
    if v < 99.5:
        return f"{v:#.2g}".rstrip(".") if v else "0"
    return f"{float(f'{v:.1e}'):.0f}" if v < 1e5 else f"{v:.1e}".replace("e+0", "e")


def main():
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, CPU capability "
          f"{torch.backends.cpu.get_cpu_capability()}; reference with {np.finfo(LD).nmant + 1} "
          "significant bits. Largest errors in units of u = 2^-24.")
    for classes in (10, 1000, 32768, 131072):
        rows = 64 if classes <= 1000 else 16
        print(f"\nC = {classes}, {rows} rows:\n\n| family | " + " | ".join(COLUMNS) + " |")
        print("|---|" + "---:|" * len(COLUMNS))
        for name, family in FAMILIES.items():
            worst = errors(*make_inputs(rows, classes, *family), name == "strided")
            print(f"| {name} | " + " | ".join(show(worst[k]) for k in COLUMNS) + " |")


if __name__ == "__main__":
    main()
