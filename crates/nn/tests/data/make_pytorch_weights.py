"""Weights as PyTorch saves them, and what its models make of some rows.

Usage: python make_pytorch_weights.py        (needs torch and safetensors; writes beside itself)

pytorch_mlp.safetensors and pytorch_batch_norm.safetensors are the state_dicts of the two models below, saved by
safetensors.torch.save_file; pytorch_forward.safetensors has the rows x and the models' outputs, in evaluation mode. The
model with the normalisation has seen three batches, so that its running statistics and its counter are not the first
ones. All is float32, but for the counter.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
METADATA = {"format": "pt", "torch": torch.__version__}


def main():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    norm = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    for _ in range(3):
        norm(2 * torch.randn(16, 4) + 1)
    save_file(mlp.state_dict(), HERE / "pytorch_mlp.safetensors", METADATA)
    save_file(norm.state_dict(), HERE / "pytorch_batch_norm.safetensors", METADATA)
    x = torch.randn(5, 4)
    with torch.no_grad():
        forward = {"x": x, "mlp": mlp.eval()(x), "batch_norm": norm.eval()(x)}
    save_file(forward, HERE / "pytorch_forward.safetensors", METADATA)


main()
