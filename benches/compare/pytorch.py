"""The PyTorch side of the comparison: a process that times one workload when asked.

Reads lines `NAME THREADS REPEATS` and answers each with the seconds that so many steps took, or with
`none` for a workload that it does not have. The first line it writes is PyTorch and its version.
A fourth word `peak` asks for the bytes that the process grows by, at most, in one step; that is only
true of a process that has not run it before. With the argument `compile` the losses go through
torch.compile, and a workload that does not compile is one that it does not have. With `chunked`, or
`chunked 128`, there are only the linear cross entropies, with PyTorch's choice of chunks or with 128 rows.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LR = 1e-6  # No step changes much, so none meets subnormal numbers.
ELEMENTS = 1 << 20
CHAIN = 1000
COMPILE = "compile" in sys.argv
CHUNKED = "chunked" in sys.argv
CHUNK_ROWS = int(sys.argv[-1]) if CHUNKED and len(sys.argv) > 2 else None


def compiled(f):
    return torch.compile(f, dynamic=False) if COMPILE else f


def cross_entropy(rows, classes, smoothing):
    x = torch.randn(rows, classes, requires_grad=True)
    y = torch.randint(classes, (rows,))
    loss = compiled(lambda x, y: F.cross_entropy(x, y, label_smoothing=smoothing))

    def step():
        x.grad = None
        loss(x, y).backward()

    return step


def linear_cross_entropy(rows, features, classes, smoothing):
    if CHUNKED and smoothing:
        return None  # PyTorch would run the unfused form, with a warning.
    x = torch.randn(rows, features, requires_grad=True)
    w = (torch.randn(classes, features) * features**-0.5).requires_grad_()
    y = torch.randint(classes, (rows,))
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK_ROWS) if CHUNKED else None
    loss = compiled(lambda x, w, y: F.linear_cross_entropy(
        x, w, y, label_smoothing=smoothing, options=options))

    def step():
        x.grad = w.grad = None
        loss(x, w, y).backward()

    return step


def training_step(sizes, batch, optimizer):
    a, b, c, d = sizes
    model = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    if optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
    criterion = nn.CrossEntropyLoss()
    loss = compiled(lambda x, y: criterion(model(x), y))
    x, y = torch.randn(batch, a), torch.randint(d, (batch,))

    def step():
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()

    return step


def elementwise(f):
    x = torch.randn(1024, ELEMENTS // 1024)

    def step():
        with torch.no_grad():
            f(x)

    return step


def chain(op):
    one = torch.ones(1)
    x = torch.ones(1, requires_grad=True)

    def step():
        x.grad = None
        y = x
        for _ in range(CHAIN):
            y = op(y, one)
        y.backward()

    return step


def prepare(name):
    kind, *rest = name.split("/")
    if kind == "linear_cross_entropy":
        return linear_cross_entropy(*map(int, rest[0].split("x")), float(rest[1]))
    if CHUNKED:
        return None
    if kind == "cross_entropy":
        rows, classes = map(int, rest[0].split("x"))
        return cross_entropy(rows, classes, float(rest[1]))
    if kind == "step":
        return training_step(tuple(map(int, rest[0].split("-"))), int(rest[1]), rest[2])
    if kind == "map":
        f = {
            "exp": torch.exp,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
            "gelu": F.gelu,
            "softmax": lambda x: F.softmax(x, dim=1),
            "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
        }
        return elementwise(f[rest[0]]) if rest[0] in f else None
    if kind == "record":
        ops = {"add": torch.add, "mul": torch.mul, "mul by scalar": lambda y, _: y * 1.0}
        return chain(ops[rest[0]]) if rest[0] in ops else None
    return None


def prepare_compiled(name):
    if not name.startswith(("cross_entropy/", "linear_cross_entropy/", "step/")):
        return None
    torch.compiler.reset()  # Else a second size would be compiled for sizes of any kind.
    try:
        step = prepare(name)
        step()
        return step
    except Exception as error:
        reason = str(error).partition("\n")[0]
        print(f"torch.compile: {name}: {reason}", file=sys.stderr)
        return None


def resident(field):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return 1024 * int(line.split()[1])


def peak(step):
    """The bytes that the process grows by, at most, in a step."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark begins anew
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def main():
    torch.manual_seed(0)
    print(f"PyTorch {torch.__version__}", flush=True)
    name, step = None, None
    for line in sys.stdin:
        wanted, threads, repeats = line.rstrip("\n").rsplit(" ", 2)
        torch.set_num_threads(int(threads))
        if wanted != name:
            step = None  # what the last one held goes first
            name, step = wanted, prepare_compiled(wanted) if COMPILE else prepare(wanted)
        if step is None:
            print("none", flush=True)
            continue
        if repeats == "peak":
            print(peak(step), flush=True)
            continue
        start = time.perf_counter()
        for _ in range(int(repeats)):
            step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
