"""Reference values for the modules, computed by PyTorch on the CPU in float64.

Usage: python make_pytorch_modules.py > pytorch_modules.json      (needs torch; recorded in the file)

A case has a module with its arguments, its parameters and buffers in the order of PyTorch's state_dict, one step or
several, and for each step the outputs, the gradients of sum(output * upstream) over all outputs with respect to every
input and parameter, and the buffers afterwards. Only these are kept. What goes in follows from a formula: the tensors
of a case are numbered from 0, parameters and buffers first, then for each step its inputs and its upstream gradients,
and element i of tensor k is
    (2·((i + 131·(k + 1))³ mod 1019) − 1017)/d,
with d = 1024 for parameters and upstream gradients and the case's `divisor` for inputs, both powers of two; 3/2 is
added to a buffer, since some are variances. The cubes are a permutation of the residues: no two elements of a tensor
are equal, so no maximum is a tie. The numerators are odd, so none of the activations has a kink at an element.

Every case passes torch.autograd.gradcheck, but an embedding with padding, whose row gets no gradient by intention. No
gradient is zero throughout but that of weights which meet no state other than zero.
"""
import json
import math
import sys
import warnings

import torch
from torch import nn

F64 = torch.float64


def formula(k, shape, divisor):
    i = torch.arange(math.prod(shape), dtype=torch.int64)
    return ((2 * ((i + 131 * (k + 1)) ** 3 % 1019) - 1017).to(F64) / divisor).reshape(shape)


def flat(t):
    return t.detach().reshape(-1).tolist()


def case(name, options, inputs, build=None, call=None, run=None, divisor=512, training=False, steps=1,
         zero=None):
    """`inputs`: names and shapes; `build` the module, if not the class of that name with these options; `call`: what
    else the Rust side must know of the call; `run`: the outputs, if not the module of its inputs; `zero`: in the names of
    the parameters whose gradient is zero by its formula."""
    call = call or {}
    module = (build() if build else getattr(nn, name)(**options)).to(F64).train(training)
    run = run or (lambda m, *x: m(*x))
    learned = dict(module.named_parameters())
    state = {n: v for n, v in module.state_dict(keep_vars=True).items() if not n.endswith("num_batches_tracked")}
    with torch.no_grad():
        for k, (n, v) in enumerate(state.items()):
            v.copy_(formula(k, v.shape, 1024) + (0 if n in learned else 1.5))
    number, kept = len(state), []
    for _ in range(steps):
        xs = []
        for shape in inputs.values():
            xs.append(formula(number, shape, divisor).requires_grad_())
            number += 1
        if "padding_idx" not in options:
            check(module, run, xs)
        outputs = run(module, *xs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = 0
        for y in outputs:
            total = total + (y * formula(number, y.shape, 1024)).sum()
            number += 1
        names = list(inputs) + list(learned)
        gradients = dict(zip(names, torch.autograd.grad(total, xs + list(learned.values()))))
        for n, g in gradients.items():
            assert bool((g == 0).all()) == bool(zero and zero in n), f"{name} {options} {call}: {n}"
        kept.append({
            "outputs": [{"shape": list(y.shape), "values": flat(y)} for y in outputs],
            "gradients": {n: flat(g) for n, g in gradients.items()},
            "buffers": {n: flat(v) for n, v in state.items() if n not in learned},
        })
    return {
        "module": name, "options": options, "call": call, "training": training, "divisor": divisor,
        "state": [[n, list(v.shape), n in learned] for n, v in state.items()],
        "inputs": [[n, list(shape)] for n, shape in inputs.items()], "steps": kept,
    }


def check(module, run, xs):
    """PyTorch's own gradients against its own difference quotients; the buffers are put back."""
    learned = dict(module.named_parameters())
    before = {n: b.clone() for n, b in module.named_buffers()}

    class Run(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, *x):
            return run(self.inner, *x)

    def f(*all):
        values = {"inner." + n: v for n, v in zip(learned, all[len(xs):])}
        return torch.func.functional_call(Run(), values, all[:len(xs)])

    assert torch.autograd.gradcheck(f, (*xs, *learned.values()), fast_mode=True)
    for n, b in module.named_buffers():
        b.copy_(before[n])


def linear():
    for shape in ([3], [2, 3], [2, 4, 3]):
        yield case("Linear", {"in_features": 3, "out_features": 5}, {"x": shape})
    yield case("Linear", {"in_features": 4, "out_features": 3, "bias": False}, {"x": [2, 5, 4]})


def embedding():
    for options, indices in [({}, [2, 0, 2, 4]), ({}, [[1, 3, 3], [0, 3, 4]]),
                             ({"padding_idx": 1}, [[1, 3, 1, 0], [2, 1, 4, 4]])]:
        index = torch.tensor(indices)
        yield case("Embedding", {"num_embeddings": 5, "embedding_dim": 3, **options}, {},
                   call={"shape": list(index.shape), "indices": flat(index)}, run=lambda m, index=index: m(index))


def convolutions():
    base = {"in_channels": 4, "out_channels": 6}
    for options, shape in [
        ({"kernel_size": 3}, [2, 4, 7]), ({"kernel_size": 3}, [4, 7]),
        ({"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2}, [2, 4, 9]),
        ({"kernel_size": 2, "groups": 2, "padding": 1}, [3, 4, 5]),
        ({"kernel_size": 1, "stride": 3, "bias": False}, [2, 4, 8]),
    ]:
        yield case("Conv1d", {**base, **options}, {"x": shape})
    base = {"in_channels": 2, "out_channels": 4}
    for options, shape in [
        ({"kernel_size": [3, 3]}, [2, 2, 5, 6]), ({"kernel_size": [2, 3]}, [2, 5, 6]),
        ({"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 0], "dilation": [1, 2]}, [2, 2, 5, 6]),
        ({"kernel_size": [1, 3], "groups": 2, "padding": [0, 2], "stride": [1, 3], "bias": False}, [3, 2, 4, 5]),
        ({"kernel_size": [1, 1]}, [2, 2, 3, 5]),
        ({"kernel_size": [3, 3], "padding": [1, 1], "dilation": [2, 1]}, [1, 2, 5, 4]),
    ]:
        yield case("Conv2d", {**base, **options}, {"x": shape})


def pools():
    for options, shape in [
        ({"kernel_size": 3}, [2, 4, 8]), ({"kernel_size": 3, "stride": 2}, [4, 8]),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}, [2, 3, 9]),
        ({"kernel_size": 2, "stride": 3, "ceil_mode": True}, [2, 3, 7]),
    ]:
        yield case("MaxPool1d", options, {"x": shape})
    for options, shape in [
        ({"kernel_size": [2, 3]}, [2, 3, 5, 6]), ({"kernel_size": [2, 2], "stride": [1, 2]}, [3, 5, 6]),
        ({"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 1], "dilation": [1, 2]}, [2, 3, 5, 6]),
        ({"kernel_size": [2, 3], "stride": [2, 2], "padding": [0, 1], "ceil_mode": True}, [2, 2, 5, 6]),
    ]:
        yield case("MaxPool2d", options, {"x": shape})
    for options, shape in [
        ({"kernel_size": 3}, [2, 4, 8]), ({"kernel_size": 3, "stride": 2, "padding": 1}, [4, 8]),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, [2, 3, 8]),
        ({"kernel_size": 3, "stride": 2, "ceil_mode": True}, [2, 3, 8]),
        ({"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}, [2, 3, 7]),
    ]:
        yield case("AvgPool1d", options, {"x": shape})
    for options, shape in [
        ({"kernel_size": [2, 3]}, [2, 3, 5, 6]), ({"kernel_size": [2, 2], "stride": [1, 2]}, [3, 5, 6]),
        ({"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 0], "count_include_pad": False}, [1, 3, 5, 6]),
        ({"kernel_size": [2, 3], "stride": [2, 2], "padding": [1, 1], "ceil_mode": True}, [2, 2, 5, 6]),
        ({"kernel_size": [2, 3], "stride": [2, 2], "padding": [1, 1], "ceil_mode": True, "count_include_pad": False},
         [2, 2, 5, 6]),
        ({"kernel_size": [2, 2], "padding": [1, 1], "divisor_override": 3}, [2, 2, 4, 5]),
    ]:
        yield case("AvgPool2d", options, {"x": shape})


def shapes():
    for options in ({}, {"start_dim": 0}, {"start_dim": 1, "end_dim": 2}, {"start_dim": -2}):
        yield case("Flatten", options, {"x": [2, 3, 1, 4]})
    yield case("Dropout", {"p": 0.3}, {"x": [2, 3]})
    yield case("Dropout1d", {"p": 0.3}, {"x": [2, 3, 4]})
    yield case("Dropout2d", {"p": 0.3}, {"x": [2, 3, 4, 5]})


def norms():
    for options, shape in [
        ({"normalized_shape": [5]}, [5]), ({"normalized_shape": [5]}, [3, 5]),
        ({"normalized_shape": [4, 5]}, [2, 3, 4, 5]), ({"normalized_shape": [5], "bias": False}, [2, 3, 5]),
        ({"normalized_shape": [3, 5], "elementwise_affine": False, "eps": 0.01}, [2, 3, 5]),
    ]:
        yield case("LayerNorm", options, {"x": shape})
    for options, shape in [
        ({"normalized_shape": [5]}, [5]), ({"normalized_shape": [5]}, [3, 5]),
        ({"normalized_shape": [4, 5], "eps": 0.01}, [2, 3, 4, 5]),
        ({"normalized_shape": [5], "elementwise_affine": False}, [2, 3, 5]),
    ]:
        yield case("RMSNorm", options, {"x": shape})
    for options, shape in [
        ({}, [3, 6]), ({}, [3, 6, 4]), ({}, [2, 6, 1, 3]), ({"affine": False, "eps": 0.01}, [2, 6, 4]),
        ({"num_groups": 1}, [2, 6, 4]), ({"num_groups": 6}, [2, 6, 4]),
    ]:
        yield case("GroupNorm", {"num_groups": 2, "num_channels": 6, **options}, {"x": shape})


def batch_norms():
    for options in ({}, {"momentum": 0.3, "eps": 0.01}, {"affine": False}, {"track_running_stats": False}):
        for name, shapes in (("BatchNorm1d", ([5, 3], [2, 3, 4])), ("BatchNorm2d", ([2, 3, 2, 4],))):
            for shape in shapes:
                yield case(name, {"num_features": 3, **options}, {"x": shape})
                yield case(name, {"num_features": 3, **options}, {"x": shape}, training=True,
                           steps=1 if "track_running_stats" in options else 3)
    # The only options under which one element of a channel is enough.
    yield case("BatchNorm1d", {"num_features": 4, "momentum": 1.0}, {"x": [2, 4, 1]}, training=True)


def activations():
    for name, options in [
        ("ReLU", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("ELU", {}), ("ELU", {"alpha": 0.7}),
        ("SELU", {}), ("CELU", {}), ("GELU", {}), ("GELU", {"approximate": "tanh"}),
        ("SiLU", {}), ("Mish", {}), ("Sigmoid", {}), ("Tanh", {}), ("Softplus", {}),
        ("Softplus", {"beta": 2.0, "threshold": 3.0}), ("Softsign", {}), ("Hardswish", {}),
        ("Hardtanh", {}), ("Hardtanh", {"min_val": -2.5, "max_val": 3.25}), ("ReLU6", {}), ("LogSigmoid", {}),
        ("Tanhshrink", {}), ("Softshrink", {}), ("Softshrink", {"lambd": 1.5}), ("Hardshrink", {}),
        ("Hardshrink", {"lambd": 1.5}), ("Threshold", {"threshold": 0.5, "value": -1.25}), ("PReLU", {}),
        ("PReLU", {"num_parameters": 3}),
    ]:
        yield case(name, options, {"x": [2, 3, 5]}, divisor=128)
    # The backward of these two has a constant in float32 (7 digits) in PyTorch; here their formulas in float64.
    yield case("CELU", {"alpha": 1.3}, {"x": [2, 3, 5]}, divisor=128,
               run=lambda m, x: x.clamp(min=0) + 1.3 * torch.expm1(x.clamp(max=0) / 1.3))
    yield case("Hardsigmoid", {}, {"x": [2, 3, 5]}, divisor=128, run=lambda m, x: (x + 3).clamp(0, 6) / 6)
    yield case("PReLU", {}, {"x": [6]}, divisor=128)
    yield case("PReLU", {"num_parameters": 4}, {"x": [5, 4]}, divisor=128)
    yield case("GLU", {}, {"x": [3, 4]}, divisor=256)
    yield case("GLU", {"dim": 1}, {"x": [2, 6, 3]}, divisor=256)
    for name in ("Softmax", "Softmin", "LogSoftmax"):
        for dim in (0, 1, -1):
            yield case(name, {"dim": dim}, {"x": [2, 3, 4]}, divisor=256)
        yield case(name, {"dim": 0}, {"x": [5]}, divisor=128)


def causal(n):
    return torch.ones(n, n, dtype=torch.bool).triu(1)


PADDING = [[False, False, True, False, True], [True, False, False, False, False]]
MASKED = [[False, True, False, False, True], [True, True, False, False, False], [False, False, False, True, True]]


def added(padding, mask):
    """PyTorch wants masks of one kind."""
    if padding is None or mask is None or mask.dtype == torch.bool:
        return padding
    return torch.zeros(padding.shape, dtype=F64).masked_fill(padding, -math.inf)


def attention_case(inputs, options=None, call=None, heads=2):
    """`call` may have `causal`, `masked` (true where a key is hidden) and `padding`; a `mask` among the inputs is
    added to the scores."""
    call = call or {}
    padding = torch.tensor(call["padding"]) if "padding" in call else None

    def run(m, *xs):
        xs = dict(zip(inputs, xs))
        q = xs["query"]
        k = xs.get("key", q)
        v = xs.get("value", k)
        mask = xs.get("mask")
        if call.get("causal"):
            mask = causal(q.shape[-2])
        if "masked" in call:
            mask = torch.tensor(call["masked"])
        return m(q, k, v, key_padding_mask=added(padding, mask), attn_mask=mask, need_weights=False)[0]

    options = {"embed_dim": 4, "num_heads": heads, **(options or {})}
    return case("MultiheadAttention", options, inputs, call=call, run=run, training=True,
                build=lambda: nn.MultiheadAttention(batch_first=True, **options))


def attention():
    own = {"query": [2, 3, 4]}
    both = {"query": [2, 3, 4], "key": [2, 5, 4]}
    three = {**both, "value": [2, 5, 4]}
    padding = {"padding": PADDING}
    for inputs in (own, both, three):
        yield attention_case(inputs)
        yield attention_case(inputs, {"bias": False}, heads=4)
    yield attention_case({"query": [3, 4]})
    yield attention_case({"query": [3, 4], "key": [5, 4], "value": [5, 4]}, call={"padding": PADDING[0]})
    yield attention_case(own, call={"causal": True})
    yield attention_case(own, {"bias": False}, {"causal": True}, heads=1)
    yield attention_case({"query": [2, 5, 4]}, call={"causal": True, "padding": [PADDING[0], MASKED[0]]})
    yield attention_case(both, call=padding)
    yield attention_case(three, {"bias": False}, padding, heads=4)
    yield attention_case(three, call={"masked": MASKED})
    yield attention_case(three, call={"masked": [r[::-1] for r in MASKED], **padding})
    yield attention_case({**both, "mask": [3, 5]})
    yield attention_case({**three, "mask": [3, 5]}, {"bias": False})
    yield attention_case({**three, "mask": [2 * 4, 3, 5]}, heads=4)
    yield attention_case({**both, "mask": [3, 5]}, call=padding)
    yield attention_case({**own, "mask": [3, 3]})
    yield attention_case({"query": [1, 3, 4]}, heads=1)


def encode(call, length):
    padding = torch.tensor(call["padding"]) if "padding" in call else None
    mask = causal(length) if call.get("causal") else None
    return mask, padding


LIMITS = [{}, {"causal": True}, {"padding": [[False, False, True], [False, True, False]]},
          {"causal": True, "padding": [[False, False, True], [False, True, True]]}]


def layer(options, shape=(2, 3, 4), call=None):
    call = call or {}
    mask, padding = encode(call, shape[-2])
    options = {"d_model": 4, "nhead": 2, "dim_feedforward": 5, **options}
    return case("TransformerEncoderLayer", options, {"x": list(shape)}, call=call, training=True,
                build=lambda: nn.TransformerEncoderLayer(batch_first=True, dropout=0.0, **options),
                run=lambda m, x: m(x, src_mask=mask, src_key_padding_mask=padding))


def encoder(options, norm, shape=(2, 3, 4), call=None):
    call = call or {}
    mask, padding = encode(call, shape[-2])
    options = {"d_model": 4, "nhead": 2, "dim_feedforward": 3, **options}

    def build():
        one = nn.TransformerEncoderLayer(batch_first=True, dropout=0.0, **options)
        last = nn.LayerNorm(4, eps=options.get("layer_norm_eps", 1e-5)) if norm else None
        return nn.TransformerEncoder(one, 2, norm=last, enable_nested_tensor=False)

    return case("TransformerEncoder", {**options, "num_layers": 2, "norm": norm}, {"x": list(shape)}, call=call,
                build=build, training=True, run=lambda m, x: m(x, mask=mask, src_key_padding_mask=padding))


def transformers():
    k = 0
    for norm_first in (False, True):
        for activation in ("relu", "gelu"):
            for call in (LIMITS[k], LIMITS[(k + 2) % 4]):
                yield layer({"norm_first": norm_first, "activation": activation}, call=call)
            k += 1
    yield layer({"norm_first": True, "bias": False, "layer_norm_eps": 0.01}, call=LIMITS[1])
    yield layer({"bias": False, "layer_norm_eps": 0.01, "nhead": 1})
    yield layer({}, (3, 4), LIMITS[1])
    yield encoder({"norm_first": True}, True)
    yield encoder({"norm_first": True, "activation": "gelu"}, True, call=LIMITS[3])
    yield encoder({"layer_norm_eps": 0.01}, True, call=LIMITS[1])
    yield encoder({"activation": "gelu"}, False, call=LIMITS[2])


def recurrent(name, layers, both, first, bias, state, length, batch=True):
    options = {"input_size": 3, "hidden_size": 2, "num_layers": layers, "bidirectional": both, "batch_first": first,
               "bias": bias}
    n = [4] if batch else []
    inputs = {"x": [*n, length, 3] if first else [length, *n, 3]}
    if state:
        for s in ("h",) if name == "GRU" else ("h", "c"):
            inputs[s] = [layers * (2 if both else 1), *n, 2]

    def run(m, x, *s):
        y, last = m(x, (s if name == "LSTM" else s[0]) if s else None)
        return (y, *last) if name == "LSTM" else (y, last)

    zero = "weight_hh" if length == 1 and not state else None
    return case(name, options, inputs, run=run, training=True, zero=zero)


def recurrents():
    for name in ("GRU", "LSTM"):
        for layers in (1, 2):
            for both in (False, True):
                for bias in (True, False):
                    for state in (False, True):
                        # The two other options, so that each of their four pairs meets every other option.
                        first = (layers + both + bias) % 2 == 0
                        length = 5 if (layers + bias + state) % 2 == 0 else 1
                        yield recurrent(name, layers, both, first, bias, state, length)
        yield recurrent(name, 1, False, False, True, False, 5)
        yield recurrent(name, 2, True, False, True, True, 5)
        yield recurrent(name, 1, True, True, True, False, 5, batch=False)
        yield recurrent(name, 2, False, False, True, True, 1, batch=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    groups = [linear, embedding, convolutions, pools, shapes, norms, batch_norms, activations, attention, transformers,
              recurrents]
    cases = [c for group in groups for c in group()]
    out = {"generator": "make_pytorch_modules.py", "torch": torch.__version__, "cases": cases}
    json.dump(out, sys.stdout, separators=(",", ":"))
    counts = {}
    for c in cases:
        counts[c["module"]] = counts.get(c["module"], 0) + 1
    print(len(cases), "cases:", counts, file=sys.stderr)
