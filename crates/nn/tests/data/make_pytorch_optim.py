"""Reference values for the optimisers and schedules, computed by PyTorch on the CPU in float64.

Usage: python make_pytorch_optim.py > pytorch_optim.json      (needs torch; recorded in the file)

An optimiser updates two parameters of 12 and 5 elements for 100 steps. Element i (counted through both) begins at
(3i mod 5 - 2)/3 and has at step t (from 1) the gradient
    (0.5 + i mod 4)·(w - (5i mod 7 - 3)/4) + ((7t + 13i) mod 11 - 5)/10.
The values after the steps in SNAPSHOTS are kept. A schedule drives the learning rate of two groups, which begin with
0.1 and 0.02; kept are the rates of the first group before every step, and of the second before the last.
"""
import json
import math
import sys
import warnings

import torch
from torch.optim import lr_scheduler as S
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SHAPES = [(4, 3), (5,)]
SNAPSHOTS = (1, 2, 10, 100)
F64 = torch.float64


def indices(k):
    start = sum(math.prod(s) for s in SHAPES[:k])
    return torch.arange(start, start + math.prod(SHAPES[k]), dtype=torch.int64).reshape(SHAPES[k])


def parameters(shapes=SHAPES):
    return [torch.nn.Parameter(((3 * indices(k) % 5 - 2).to(F64) / 3)) for k in range(len(shapes))]


def gradient(k, w, t):
    i = indices(k)
    pull = (0.5 + (i % 4).to(F64)) * (w - (5 * i % 7 - 3).to(F64) / 4)
    return pull + ((7 * t + 13 * i) % 11 - 5).to(F64) / 10


def optimise(name, options, second=None, missing=False, clip=None, one=False):
    """`second`: options of the second parameter's group; `missing`: it has no gradient at every third step; `one`: only
    the matrix."""
    ps = parameters(SHAPES[:1] if one else SHAPES)
    groups = [{"params": ps}] if second is None else [{"params": ps[:1]}, {"params": ps[1:], **second}]
    optimizer = getattr(torch.optim, name)(groups, **options)
    averaged = AveragedModel(torch.nn.ParameterList(ps), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    kept = []
    for t in range(1, 101):
        for k, p in enumerate(ps):
            p.grad = None if missing and k == 1 and t % 3 == 0 else gradient(k, p.detach(), t)
        if clip and "norm" in clip:
            # Without the 1e-6 of clip_grad_norm_.
            norm = torch.nn.utils.get_total_norm([p.grad for p in ps if p.grad is not None])
            factor = min(1.0, clip["norm"] / norm.item())
            for p in ps:
                if p.grad is not None:
                    p.grad.mul_(factor)
        if clip and "value" in clip:
            torch.nn.utils.clip_grad_value_(ps, clip["value"])
        optimizer.step()
        averaged.update_parameters(torch.nn.ParameterList(ps))
        if t in SNAPSHOTS:
            kept.append([v for p in ps for v in p.detach().reshape(-1).tolist()])
    case = {"optimizer": name, "options": options, "second": second, "missing": missing, "clip": clip, "values": kept}
    if name == "SGD" and options == {"lr": 0.05}:
        case["ema"] = [v for p in averaged.module for v in p.detach().reshape(-1).tolist()]
    return case


def optimisers():
    yield optimise("SGD", {"lr": 0.05})
    yield optimise("SGD", {"lr": 0.05, "maximize": True, "weight_decay": 12.0})
    yield optimise("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}, missing=True)
    yield optimise("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}, clip={"norm": 2.0})
    yield optimise("SGD", {"lr": 0.02, "momentum": 0.9}, second={"lr": 0.005, "weight_decay": 0.3})
    yield optimise("Adam", {"lr": 0.05})
    yield optimise("Adam", {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True}, clip={"value": 0.4})
    yield optimise("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "maximize": True}, missing=True)
    yield optimise("AdamW", {"lr": 0.05, "weight_decay": 0.2})
    yield optimise("AdamW", {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True},
                   second={"lr": 0.002, "weight_decay": 0.0, "betas": (0.7, 0.9)})
    yield optimise("AdamW", {"lr": 0.02, "weight_decay": 0.3, "maximize": True}, clip={"norm": 1.0})
    yield optimise("RMSprop", {"lr": 0.01, "weight_decay": 0.0})
    yield optimise("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1, "momentum": 0.8}, missing=True)
    yield optimise("RMSprop", {"lr": 0.01, "centered": True, "maximize": True})
    yield optimise("RMSprop", {"lr": 0.005, "centered": True, "momentum": 0.5, "weight_decay": 0.01},
                   second={"lr": 0.001, "weight_decay": 0.5})
    yield optimise("Adagrad", {"lr": 0.1})
    yield optimise("Adagrad", {"lr": 0.2, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.3,
                               "eps": 1e-3}, missing=True)
    yield optimise("Adagrad", {"lr": 0.05, "maximize": True}, clip={"value": 0.5})
    # PyTorch's Muon multiplies in bfloat16; here in float64.
    half, torch.bfloat16 = torch.bfloat16, torch.float64
    yield optimise("Muon", {"lr": 0.02}, one=True)
    yield optimise("Muon", {"lr": 0.02, "nesterov": False, "weight_decay": 0.5, "adjust_lr_fn": "match_rms_adamw"}, one=True)
    yield optimise("Muon", {"lr": 0.02, "momentum": 0.8, "ns_steps": 3, "adjust_lr_fn": "spectral_unclamped"}, one=True)
    torch.bfloat16 = half


def schedule(name, build, steps=45, momentum=0.9, metrics=None):
    first, second = parameters()
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.02}], lr=0.1, momentum=momentum)
    scheduler = build(optimizer)
    rates, momenta = [], []
    for t in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        second_rate = optimizer.param_groups[1]["lr"]
        optimizer.step()
        if metrics is None:
            scheduler.step()
        else:
            scheduler.step(metrics(t))
    case = {"name": name, "lr": rates, "second": second_rate}
    if any(m != momentum for m in momenta):
        case["momentum"] = momenta
    return case


def schedules():
    yield schedule("StepLR", lambda o: S.StepLR(o, 10, 0.5))
    yield schedule("MultiStepLR", lambda o: S.MultiStepLR(o, [5, 12, 12, 30], 0.3))
    yield schedule("ExponentialLR", lambda o: S.ExponentialLR(o, 0.93))
    yield schedule("LambdaLR", lambda o: S.LambdaLR(o, lambda t: 1 / (1 + t)))
    yield schedule("LinearLR", lambda o: S.LinearLR(o, 0.25, 0.8, 12))
    yield schedule("CosineAnnealingLR", lambda o: S.CosineAnnealingLR(o, 15, 0.001))
    yield schedule("CosineAnnealingWarmRestarts", lambda o: S.CosineAnnealingWarmRestarts(o, 4, 2, 0.001))
    yield schedule("CosineAnnealingWarmRestarts equal", lambda o: S.CosineAnnealingWarmRestarts(o, 7))
    yield schedule("OneCycleLR", lambda o: S.OneCycleLR(o, [0.5, 0.3], 40), 40)
    yield schedule("OneCycleLR linear", lambda o: S.OneCycleLR(
        o, 0.5, 40, pct_start=0.25, anneal_strategy="linear", cycle_momentum=False, div_factor=10, final_div_factor=100), 40)
    yield schedule("OneCycleLR three phases", lambda o: S.OneCycleLR(
        o, 0.5, 40, three_phase=True, base_momentum=0.8, max_momentum=0.9), 40)
    yield schedule("SequentialLR", lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, 1.0, 8), S.CosineAnnealingLR(o, 20, 0.001), S.ExponentialLR(o, 0.9)], [8, 28]))
    dips = lambda t: math.floor(1000 / (1 + t)) / 1000 if t < 12 else 0.1 + (t % 3) / 10
    yield schedule("ReduceLROnPlateau", lambda o: S.ReduceLROnPlateau(o, factor=0.5, patience=2), metrics=dips)
    yield schedule("ReduceLROnPlateau max", lambda o: S.ReduceLROnPlateau(
        o, mode="max", factor=0.3, patience=1, threshold=0.05, threshold_mode="abs", cooldown=3, min_lr=[0.002, 0.001]),
        metrics=dips)
    yield schedule("ReduceLROnPlateau rel max", lambda o: S.ReduceLROnPlateau(
        o, mode="max", factor=0.1, patience=4, threshold=0.1, eps=1e-3), metrics=dips)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = {"generator": "make_pytorch_optim.py", "torch": torch.__version__, "snapshots": SNAPSHOTS,
           "optimizers": list(optimisers()), "schedules": list(schedules())}
    json.dump(out, sys.stdout, separators=(",", ":"))
    print(len(out["optimizers"]), "optimisers,", len(out["schedules"]), "schedules", file=sys.stderr)
