"""Medians of the workloads of training.rs in PyTorch, on one thread and on two.

    python3 -m venv ~/torch-venv && ~/torch-venv/bin/pip install torch
    ~/torch-venv/bin/python benches/compare_pytorch.py

The names are those that `cargo bench -p benches` prints. For ratios, run the two alternately on an
idle machine, ours with RAYON_NUM_THREADS=1 for the first column and with 2 for the second.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LR = 1e-6  # As in training.rs: no step changes much, so none meets subnormal numbers.
CHAIN = 1000
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.01),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, fused=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.01, fused=True),
}


def workloads():
    for (a, b, c, d), batch in [((64, 128, 64, 10), 64), ((784, 512, 256, 10), 128)]:
        for name, optimizer in OPTIMIZERS.items():
            step = training_step((a, b, c, d), batch, optimizer)
            yield f"training_step/{name}/{a}-{b}-{c}-{d}, batch {batch}", step
    for rows, classes in [(32, 10), (64, 10), (1024, 1000), (2048, 32000)]:
        for smoothing in (0.0, 0.1):
            step = cross_entropy(rows, classes, smoothing)
            yield f"cross_entropy/smoothing {smoothing:g}/{rows}x{classes}", step
    one = torch.ones(1)
    ops = {"add": lambda y: y + one, "mul": lambda y: y * one, "mul_scalar": lambda y: y * 1.0}
    for name, op in ops.items():
        yield f"one_element_op/{name}", chain(op)


def training_step(sizes, batch, optimizer):
    a, b, c, d = sizes
    model = nn.Sequential(
        nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d)
    )
    optimizer = optimizer(model.parameters())
    loss = nn.CrossEntropyLoss()
    x, y = torch.randn(batch, a), torch.randint(d, (batch,))

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def cross_entropy(rows, classes, smoothing):
    x = torch.randn(rows, classes, requires_grad=True)
    y = torch.randint(classes, (rows,))

    def step():
        x.grad = None
        F.cross_entropy(x, y, label_smoothing=smoothing).backward()

    return step


def chain(op):
    x = torch.ones(1, requires_grad=True)

    def step():
        x.grad = None
        y = x
        for _ in range(CHAIN):
            y = op(y)
        y.backward()

    return step


def median(step, budget=1.0, samples=11):
    """Median over samples of the seconds of one step; a sample lasts its share of the budget."""
    step()
    repeats = 1
    while sample(step, repeats) < budget / samples:
        repeats *= 2
    return statistics.median(sample(step, repeats) / repeats for _ in range(samples))


def sample(step, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return time.perf_counter() - start


def in_units(seconds):
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            break
    return f"{seconds * factor:.1f} {unit}"


def main():
    torch.manual_seed(0)
    print(f"PyTorch {torch.__version__}", file=sys.stderr)
    print(f"{'workload':56}{'1 thread':>12}{'2 threads':>12}")
    for name, step in workloads():
        medians = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            medians.append(in_units(median(step)))
        print(f"{name:56}{medians[0]:>12}{medians[1]:>12}", flush=True)


if __name__ == "__main__":
    main()
