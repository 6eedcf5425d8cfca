"""Coefficients of `kernels/math` and reference values for its f64 functions.

    python make_math.py          # prints the coefficients, writes math_f64.csv beside this file
    python make_math.py f64      # the values alone

Each polynomial minimises the largest weighted error on its interval (Remez exchange); the weight
makes that the relative error of the function's result. Coefficients are rounded one at a time,
lowest first, and the others are fitted anew after each, so that rounding costs next to nothing.
The quotient of polynomials for the normal distribution has a common factor to choose instead.
math_f64.csv has one value a line: function, bits of x, bits of the nearest f64 to the value, and
what is missing from that in units of its last place (so that subnormal values fit too).
Needs mpmath and numpy.
"""

import math
import pathlib
import random
import struct
import sys

import numpy
from mpmath import mp, mpf

mp.prec = 200


def remez(g, weight, a, b, fixed, terms):
    """Coefficients after `fixed` of the polynomial that minimises max |weight·(p − g)|."""
    known = len(fixed)
    free = terms - known
    nodes = 60 * (free + 1)
    grid = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * i / nodes) for i in range(nodes + 1)]
    low = [sum((c * x**i for i, c in enumerate(fixed)), mpf(0)) for x in grid]
    target = [g(x) - l for x, l in zip(grid, low)]
    w = [weight(x) for x in grid]
    at = [60 * i for i in range(free + 1)] + [nodes]
    at = sorted(set(at))[: free + 1]
    best = None
    for _ in range(12):
        rows = mp.matrix(free + 1, free + 1)
        rhs = mp.matrix(free + 1, 1)
        for r, k in enumerate(at):
            for c in range(free):
                rows[r, c] = w[k] * grid[k] ** (known + c)
            rows[r, free] = (-1) ** r
            rhs[r] = w[k] * target[k]
        solution = mp.lu_solve(rows, rhs)
        p = [solution[i] for i in range(free)]
        error = []
        for x, t, v in zip(grid, target, w):
            s = mpf(0)
            for c in reversed(p):
                s = s * x + c
            error.append(v * (s * x**known - t))
        worst = max(abs(e) for e in error)
        if best is None or worst < best[0]:
            best = (worst, p)
        if worst < abs(solution[free]) * mpf(1.001):
            break
        peaks = []  # the largest error of each sign change
        for k, e in enumerate(error):
            if peaks and (e > 0) == (error[peaks[-1]] > 0):
                if abs(e) > abs(error[peaks[-1]]):
                    peaks[-1] = k
            else:
                peaks.append(k)
        while len(peaks) > free + 1:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        if len(peaks) < free + 1:
            break
        at = peaks
    return best


def fit(name, g, weight, a, b, terms, rounding, fixed=()):
    """Prints the rounded coefficients, highest first, and the largest weighted error left."""
    a, b = mpf(a), mpf(b)
    fixed = [mpf(c) for c in fixed]
    while len(fixed) < terms:
        _, p = remez(g, weight, a, b, fixed, terms)
        fixed.append(mpf(float(rounding(p[0]))))
    worst = mpf(0)
    for i in range(2001):
        x = a + (b - a) * i / 2000
        worst = max(worst, abs(weight(x) * (mp.polyval(fixed[::-1], x) - g(x))))
    print(f"{name}: {terms} terms on [{float(a):.6}, {float(b):.6}],"
          f" error 2^{float(mp.log(worst, 2)):.2f}")
    for c in reversed(fixed):
        print(f"    {literal(rounding(c))},")


def literal(x):
    """A float as rustfmt and clippy like it: the fewest digits, in groups of three."""
    digits, exponent = numpy.format_float_scientific(x, trim="-").split("e")
    whole, _, part = digits.partition(".")
    if len(part) < 3:
        return repr(float(x))
    groups = "_".join(part[i : i + 3] for i in range(0, len(part), 3))
    return f"{whole}.{groups}" + (f"e{int(exponent)}" if int(exponent) else "")


def single(c):
    return numpy.float32(float(c))


def double(c):
    return numpy.float64(float(c))


def coefficients():
    root = mp.sqrt(mpf(1) / 2)
    third = lambda f: mpf(1) / 3 if f == 0 else (mp.log1p(f) - f + f * f / 2) / f**3
    fit("f32 log", third, lambda f: f * f if abs(f) < mpf(10) ** -9 else abs(f**3 / mp.log1p(f)),
        root - 1, 2 * root - 1, 9, single)
    second = lambda r: mpf(1) / 2 if r == 0 else (mp.expm1(r) - r) / r**2
    half_ln2 = mp.log(2) / 2 * (1 + mpf(2) ** -18)
    fit("f32 exp, short", second, lambda r: r * r / mp.exp(r), -half_ln2, half_ln2, 5, single)
    fit("f32 expm1", second, lambda r: abs(r) if r == 0 else abs(r * r / mp.expm1(r)),
        -0.5, 0.5, 6, single)
    tanhc = lambda z: mp.tanh(mp.sqrt(z)) / mp.sqrt(z) if z > 0 else mpf(1)
    fit("f32 tanh, |x| < 0.7, in x²", lambda z: (tanhc(z) - 1) / z if z > 0 else -mpf(1) / 3,
        lambda z: z / tanhc(z), 0, mpf(49) / 100, 5, single)
    ratio = lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) if z > 0 else 2 / mp.sqrt(mp.pi)
    fit("f32 erf, |x| < 0.9, in x²", lambda z: ratio(z) - 1, lambda z: 1 / ratio(z),
        0, mpf(81) / 100, 7, single)
    fit("f32 erf, ln erfc", lambda a: mp.log(mp.erfc(a)), lambda a: mp.erfc(a) / mp.erf(a),
        mpf(9) / 10, 4, 8, single)
    normal_tail()
    quarter = (mp.pi / 4 * (1 + mpf(2) ** -20)) ** 2
    sinc = lambda z: mp.sin(mp.sqrt(z)) / mp.sqrt(z) if z > 0 else mpf(1)
    fit("f32 sin", lambda z: (sinc(z) - 1) / z if z > 0 else -mpf(1) / 6, lambda z: z / sinc(z),
        0, quarter, 3, single)
    fit("f32 cos", lambda z: (mp.cos(mp.sqrt(z)) - 1) / z if z > 0 else -mpf(1) / 2,
        lambda z: z / mp.cos(mp.sqrt(z)), 0, quarter, 4, single, fixed=[-0.5])
    # ln(1+f) = 2 atanh(s), s = f/(2+f): the part after 2s, over s³, in s².
    t = lambda w: (2 * mp.atanh(mp.sqrt(w)) / mp.sqrt(w) - 2) / w if w > 0 else mpf(2) / 3
    s = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)
    fit("f64 log", t, lambda w: w / 2, 0, s * s * (1 + mpf(2) ** -40), 7, double)
    print("pi/2 in two parts, the first of 40 bits:")
    high = mpf(int(mp.floor(mp.pi / 2 * 2**39))) / mpf(2) ** 39
    print(f"    {literal(double(high))}, {literal(double(mp.pi / 2 - high))}")
    print("ln 2 in two parts, the first of 32 bits:")
    high = mpf(int(mp.floor(mp.log(2) * 2**32))) / mpf(2) ** 32
    print(f"    {literal(double(high))}, {literal(double(mp.log(2) - high))}")


def normal_tail(high=15, above=4, below=5):
    """Prints coefficients, highest first, of the two polynomials whose quotient is Φ(−a)/e^(−a²/2)
    for a from 0 to high, with the smallest largest relative error."""
    ratio = lambda a: mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2
    n, nodes = above + below + 1, 600
    ends = [(1 - mp.cos(mp.pi * i / nodes)) / 2 * high / (high + 2) for i in range(nodes + 1)]
    grid = [2 * u / (1 - u) for u in ends]  # dense near 0
    target = [ratio(a) for a in grid]
    at, last = [nodes * i // n for i in range(n + 1)], [mpf(1)] * (nodes + 1)
    for _ in range(20):
        # p − f·q = ±e·f·q, linear with the q of the round before on the right; q(0) = 1.
        rows, rhs = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for r, k in enumerate(at):
            powers = [grid[k] ** i for i in range(below + 1)]
            row = powers[: above + 1] + [-target[k] * x for x in powers[1:]]
            for c, x in enumerate(row + [(-1) ** r * target[k] * last[k]]):
                rows[r, c] = x
            rhs[r] = target[k]
        solution = list(mp.lu_solve(rows, rhs))
        p, q = solution[: above + 1], [mpf(1)] + solution[above + 1 : n]
        last = [mp.polyval(q[::-1], a) for a in grid]
        error = [mp.polyval(p[::-1], a) / (l * f) - 1 for a, l, f in zip(grid, last, target)]
        if max(map(abs, error)) < abs(solution[n]) * mpf(1.001):
            break
        peaks = []
        for k, e in enumerate(error):
            if peaks and (e > 0) == (error[peaks[-1]] > 0):
                peaks[-1] = max(peaks[-1], k, key=lambda k: abs(error[k]))
            else:
                peaks.append(k)
        while len(peaks) > n + 1:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        at = peaks if len(peaks) == n + 1 else at
    x, f = numpy.array(grid, float), numpy.array(target, float)
    # Of 4096 common factors in [1, 2) the one with the smallest errors when evaluated in f32.
    factor = 2 ** mpf(2680 / 4096)
    pair = [[float(single(c * factor)) for c in reversed(part)] for part in (p, q)]
    worst = abs(numpy.polyval(pair[0], x) / numpy.polyval(pair[1], x) / f - 1).max()
    print(f"f32 normal tail: quotient on [0, {high}], error 2^{math.log2(worst):.2f}")
    for part in pair:
        print("".join(f"    {literal(single(c))},\n" for c in part))


def bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def from_bits(b):
    return struct.unpack("<d", struct.pack("<Q", b))[0]


def line(name, function, x):
    value = function(mpf(x))
    _, exponent = mp.frexp(value)
    ulp = mpf(2) ** max(exponent - 53, -1074)
    nearest = int(mp.nint(value / ulp))
    high = float(nearest * ulp)
    missing = value / ulp - nearest
    return f"{name},{bits(x):016x},{bits(high):016x},{float(missing):.16e}\n"


def arguments(count):
    """`count` arguments for each function, `(name, function, x)`."""
    draw = random.Random(20240607)
    between = draw.uniform
    largest, smallest, subnormal = 709.782712893383, -745.1332191019412, -708.3964185322641
    half_ln2 = [
        lambda: (draw.randint(-1070, 1022) + 0.5) * 0.6931471805599453 * (1 + between(-1e-9, 1e-9)),
    ]
    exp = half_ln2 + [
        lambda: between(smallest, largest),
        lambda: between(-2.0, 2.0),
        lambda: between(smallest, subnormal),
        lambda: between(709.0, largest),
        lambda: between(-709.5, -707.0),
        lambda: draw.choice([-1, 1]) * 2.0 ** between(-60, 9),
        lambda: draw.choice([-1, 1]) * 2.0 ** between(-1074, -50),
    ]
    one = 0x3FF0000000000000
    log = [
        lambda: from_bits(draw.randint(1, 0x7FEFFFFFFFFFFFFF)),
        lambda: between(0.5, 2.0),
        lambda: between(0.69, 0.72) * 2.0 ** draw.randint(-2, 2),
        lambda: 1 + draw.choice([-1, 1]) * 2.0 ** between(-52, -2),
        lambda: from_bits(one + draw.randint(-4000, 4000)),
        lambda: from_bits(draw.randint(1, (1 << 52) - 1) >> draw.randint(0, 50)),
        lambda: between(1e-3, 1e3),
        lambda: from_bits(draw.randint(0x7FE0000000000000, 0x7FEFFFFFFFFFFFFF)),
    ]
    corners = {
        "exp": [largest, smallest, subnormal, 0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324],
        "log": [5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, 2.2250738585072e-308,
                2.0, 0.5, from_bits(one - 1), from_bits(one + 1)],
    }
    for name, function, regions in [("exp", mp.exp, exp), ("log", mp.log, log)]:
        for x in corners[name]:
            yield name, function, x
        for i in range(count - len(corners[name])):
            x = regions[i % len(regions)]()
            if name == "exp" and not smallest <= x <= largest:
                continue
            if name == "log" and not 0 < x < float("inf"):
                continue
            yield name, function, x


def values(path, count):
    with open(path, "w", newline="\n") as out:
        for row in arguments(count):
            out.write(line(*row))


if __name__ == "__main__":
    if sys.argv[1:] != ["f64"]:
        coefficients()
    values(pathlib.Path(__file__).parent / "math_f64.csv", 2000)
