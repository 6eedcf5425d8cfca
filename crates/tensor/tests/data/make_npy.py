"""Writes the files in npy/ that tests/npy.rs reads. Needs NumPy 2; run it from anywhere.

All arrays of one dtype hold the same values; only `zip` entries carry the time of the run.
"""

import pathlib

import numpy as np

folder = pathlib.Path(__file__).parent / "npy"
folder.mkdir(exist_ok=True)

FLOATS = [[0.5, -1.5, 2.25], [1e30, -0.0, np.inf]]
VALUES = {
    "f4": FLOATS,
    "f8": FLOATS,
    "i8": [[0, -1, 2], [1 << 40, 4, -(1 << 63)]],
    "u1": [[0, 1, 2], [127, 128, 255]],
    "b1": [[True, False, False], [True, True, False]],
}

for code, values in VALUES.items():
    for order in "<>" if int(code[1]) > 1 else "|":
        x = np.array(values, dtype=order + code)
        name = code + {"<": "_little", ">": "_big", "|": ""}[order]
        np.save(folder / f"{name}_c.npy", x)
        np.save(folder / f"{name}_fortran.npy", np.asfortranarray(x))

x = np.array(FLOATS, dtype="<f4")
for major in 2, 3:
    with open(folder / f"version_{major}.npy", "wb") as file:
        np.lib.format.write_array(file, x, version=(major, 0))

np.save(folder / "rank_0.npy", np.array(2.5))
np.save(folder / "size_0.npy", np.zeros((0, 3), dtype="<f4"))
np.save(folder / "int32.npy", np.zeros(1, dtype="<i4"))
np.save(folder / "structured.npy", np.zeros(1, dtype=[("a", "<i4"), ("b", "<f8")]))
np.save(folder / "object.npy", np.array([None]), allow_pickle=True)

# A header that ends on a multiple of 64 bytes without padding; NumPy pads it by another 64.
shape = (2, 100) + (1,) * 12
path = folder / "aligned.npy"
np.save(path, np.arange(200, dtype="|u1").reshape(shape))
text = path.read_bytes()[10:192]
room_to_grow = 20
assert 10 + len(text.rstrip()) + room_to_grow + 1 == 128 and path.stat().st_size == 192 + 200

# In Fortran order, of a rank where reversing differs from swapping two dims.
np.save(folder / "rank_3_fortran.npy", np.asfortranarray(np.arange(24, dtype="<i8").reshape(2, 3, 4)))

arrays = {
    "x": np.array(FLOATS, dtype="<f4"),
    "layer/w": np.asfortranarray(np.array(VALUES["i8"], dtype=">i8")),
    "größe": np.array(2.5),
    "none": np.zeros((0, 3), dtype="?"),
    "zeros": np.zeros((64, 64), dtype="|u1"),
}
np.savez_compressed(folder / "compressed.npz", **arrays)
arrays.pop("zeros")
np.savez(folder / "stored.npz", **arrays)
