"""Every format on every instruction set, against float64.

Tolerances, u = 2^-24 being the rounding of a float32. With w the weights and x the activations of a row:

  f32         Sums of 32 products, then sums of those; an instruction set without fused multiply-add
              rounds twice: (2 * 32 + K/32 + 4) u  sum |w x|. The four are for dequantising. Float formats sum
              every 16th column, then the tree: (2 K/16 + 6) u, which is less for the K here.
  bf16        Activations are rounded to eight bits, by 2^-8 of each at most; sums as with f32.
  fast, high  Rounding the activations of a block of 32 to steps of s = max|x| / limit is the only error
              beyond that: s/2 sum |w|, less with an octet. Integer sums are exact; each group of 16 or 32
              columns adds at most four rounded operations: (4 K/16 + 8) u times the terms' magnitude. Where a
              format has minima, scale * q and the minimum partly cancel: in groups of random q both are below
              4 max|w| of the group.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from blocks import FLOAT_FORMATS, FORMATS, INTEGER_FORMATS, random_matrix

U = 2.0**-24
LIMIT = {"fast": 127, "high": 32639}
OCTET_SHARE = 12
KINDS = ["f32", "high", "fast"]
SHAPES = [(1, 1), (3, 1), (15, 2), (16, 1), (17, 3), (40, 4)]  # rows, blocks of 256 columns


def activations(n_tokens: int, cols: int, seed: int) -> np.ndarray:
    """Normal, with the outliers that real hidden states have."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_tokens, cols))
    x[rng.random(x.shape) < 0.002] *= 50
    return x.astype(np.float32)


def tolerance(kind: str, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The largest permitted error, [T, rows]."""
    cols = w.shape[1]
    if kind == "bf16":
        return (2.0**-8 + (2 * 32 + cols / 32 + 4) * U) * (np.abs(x) @ np.abs(w).T) + 1e-30
    if kind == "f32":
        return (2 * 32 + cols / 32 + 4) * U * (np.abs(x) @ np.abs(w).T) + 1e-30
    blocks_x = np.abs(x).reshape(len(x), -1, 32)
    blocks_w = np.abs(w).reshape(len(w), -1, 32)
    step = blocks_x.max(axis=2) / LIMIT[kind]  # [T, K/32]
    rounding = 0.5 * (1 + 1e-3) * step @ blocks_w.sum(axis=2).T
    magnitude = blocks_x.sum(axis=2) @ (8 * blocks_w.max(axis=2)).T
    return rounding + (4 * cols / 16 + 8) * U * magnitude


def check(native: ModuleType, name: str, kind: str, rows: int, cols: int, n_tokens: int, seed: int) -> None:
    type_id = FORMATS[name][0]
    raw, w = random_matrix(name, rows, cols, seed)
    x = activations(n_tokens, cols, seed + 1)
    y = native.linear(type_id, raw, rows, cols, x, kind)
    error = np.abs(y - x.astype(np.float64) @ w.T)
    allowed = tolerance(kind, w, x.astype(np.float64))
    worst = (error / allowed).max()
    assert worst <= 1, (
        f"{name} {kind} rows={rows} cols={cols} T={n_tokens} seed={seed}: {worst:.2f} x the tolerance"
    )
    alone = np.concatenate(
        [native.linear(type_id, raw, rows, cols, x[t : t + 1], kind) for t in range(n_tokens)]
    )
    np.testing.assert_array_equal(y, alone, err_msg="a token's result depends on its batch")


@pytest.mark.parametrize("name", FORMATS)
def test_dequantize(native: ModuleType, name: str) -> None:
    type_id = FORMATS[name][0]
    raw, w = random_matrix(name, 8, 512, seed=1)
    np.testing.assert_array_equal(native.dequantize(type_id, raw, w.size), w.reshape(-1).astype(np.float32))


@pytest.mark.sample(240)
@pytest.mark.parametrize(("rows", "blocks"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_integer_formats(native: ModuleType, name: str, kind: str, rows: int, blocks: int) -> None:
    cols = blocks * 256
    if FORMATS[name][1] == 32:
        cols -= 32 * (blocks % 3)  # no multiple of the tile either
    check(native, name, kind, rows, cols, n_tokens=13, seed=rows)


def encoded(x: np.ndarray) -> np.ndarray:
    """What rows of `fast` stand for, by the definition in native/machine/encoding.h: float64 [T, K]."""
    single = np.float32
    blocks = x.reshape(len(x), -1, 32)
    n_blocks = blocks.shape[1]
    largest = np.abs(blocks).max(axis=2)  # [T, blocks]
    squares = np.zeros((len(x), -(-n_blocks // 16) * 16), np.float32)
    squares[:, :n_blocks] = largest * largest
    tree = np.zeros((len(x), 16), np.float32)
    for k in range(0, squares.shape[1], 16):
        tree += squares[:, k : k + 16]
    while tree.shape[1] > 1:
        tree = tree[:, : tree.shape[1] // 2] + tree[:, tree.shape[1] // 2 :]
    least = tree * (single(OCTET_SHARE) / single(n_blocks))
    octets = np.abs(blocks).reshape(len(x), n_blocks, 4, 8).max(axis=3)
    first = octets.argmax(axis=2)[..., None]
    np.put_along_axis(octets, first, 0, axis=2)
    others = octets.max(axis=2)
    wide = (largest * largest - others * others > least) & (n_blocks >= OCTET_SHARE)
    of_octet = np.repeat(wide[..., None] & (np.arange(4) == first), 8, axis=2)
    rest = np.where(of_octet, single(0), blocks)

    def rounded(values: np.ndarray, greatest: np.ndarray, limit: int) -> np.ndarray:
        with np.errstate(divide="ignore"):
            inverse = np.where(greatest > 0, single(limit) / greatest, single(0))
        a: np.ndarray = np.rint(values * inverse) * (greatest / single(limit)).astype(np.float64)
        return a

    plain = rounded(rest, np.where(wide, others, largest)[..., None], LIMIT["fast"])
    fine = rounded(blocks, largest[..., None], LIMIT["high"])
    found: np.ndarray = np.where(of_octet, fine, plain).reshape(x.shape)
    return found


@pytest.mark.sample(60)
@pytest.mark.parametrize("n_tokens", [1, 30])
@pytest.mark.parametrize("blocks", [1, 3, 5])
@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_octets(native: ModuleType, name: str, blocks: int, n_tokens: int) -> None:
    """Rows with large columns are multiplied as the definition of their encoding says."""
    cols = 512 * blocks - (96 if FORMATS[name][1] == 32 else 0)
    raw, w = random_matrix(name, 32, cols, seed=blocks)
    x = activations(n_tokens, cols, seed=n_tokens)
    rng = np.random.default_rng(blocks)
    for row in x[::2]:
        row[rng.integers(0, cols, rng.integers(1, 4))] = rng.choice([-1, 1]) * rng.uniform(30, 80)
    x[-1, 40] = 0  # and a row with a block of an octet alone
    x[-1, 64:96] = 0
    x[-1, 70] = 90
    expected = encoded(x)
    y = native.linear(FORMATS[name][0], raw, 32, cols, x, "fast")
    sums = (4 * cols / 16 + 8 + cols / 32) * U
    blocks_x = np.abs(expected).reshape(n_tokens, -1, 32).sum(axis=2)
    blocks_w = 8 * np.abs(w).reshape(32, -1, 32).max(axis=2)
    error = np.abs(y - expected @ w.T)
    assert (error <= sums * (blocks_x @ blocks_w.T)).all()


@pytest.mark.parametrize("cols", [1, 7, 16, 33, 257, 530])
@pytest.mark.parametrize("name", FLOAT_FORMATS)
def test_float_formats(native: ModuleType, name: str, cols: int) -> None:
    check(native, name, "f32", rows=37, cols=cols, n_tokens=13, seed=cols)


@pytest.mark.parametrize("cols", [1, 7, 16, 33, 257, 530])
def test_bf16_with_bf16(native: ModuleType, cols: int) -> None:
    if native.MULTIPLIES_BF16:
        check(native, "BF16", "bf16", rows=37, cols=cols, n_tokens=13, seed=cols)
        return
    x = np.zeros((1, cols), np.float32)
    with pytest.raises(ValueError, match="does not multiply"):
        native.linear(FORMATS["BF16"][0], np.zeros(2 * cols, np.uint8), 1, cols, x, "bf16")


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 12, 257])
@pytest.mark.parametrize("kind", KINDS)
def test_batches(native: ModuleType, kind: str, n_tokens: int) -> None:
    check(native, "Q4_K", kind, rows=33, cols=768, n_tokens=n_tokens, seed=n_tokens)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_do_not_depend_on_their_neighbours(native: ModuleType, name: str) -> None:
    type_id, block, size = FORMATS[name]
    raw, _ = random_matrix(name, 50, 512, seed=3)
    x = activations(3, 512, seed=4)
    kind = "f32" if block == 1 else "high"
    y = native.linear(type_id, raw, 50, 512, x, kind)
    row_bytes = 512 // block * size
    some = native.linear(type_id, raw[5 * row_bytes : 31 * row_bytes].copy(), 26, 512, x, kind)
    np.testing.assert_array_equal(y[:, 5:31], some)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_activation_spoils_its_own_token_only(native: ModuleType, kind: str, bad: float) -> None:
    raw, _ = random_matrix("Q4_K", 20, 512, seed=5)
    x = activations(4, 512, seed=6)
    clean = native.linear(FORMATS["Q4_K"][0], raw, 20, 512, x, kind)
    x[2, 100] = bad
    y = native.linear(FORMATS["Q4_K"][0], raw, 20, 512, x, kind)
    np.testing.assert_array_equal(np.delete(y, 2, axis=0), np.delete(clean, 2, axis=0))
    assert not np.isfinite(y[2]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", [0x7E00, 0x7C00, 0xFC00])  # NaN, infinity, minus infinity
def test_a_bad_scale_spoils_its_own_row_only(native: ModuleType, kind: str, half: int) -> None:
    type_id, _, size = FORMATS["Q8_0"]
    raw, _ = random_matrix("Q8_0", 20, 512, seed=7)
    x = activations(3, 512, seed=8)
    clean = native.linear(type_id, raw, 20, 512, x, kind)
    spoiled = raw.copy()
    at = 9 * (512 // 32 * size) + 5 * size
    spoiled[at : at + 2] = np.array([half], dtype="<u2").view(np.uint8)
    y = native.linear(type_id, spoiled, 20, 512, x, kind)
    np.testing.assert_array_equal(np.delete(y, 9, axis=1), np.delete(clean, 9, axis=1))
    assert not np.isfinite(y[:, 9]).any()


def hostile_rows(name: str, rows: int, cols: int) -> np.ndarray:
    """Random blocks, every second row with bytes that no one would write: uint8 [rows, bytes of a row].

    Those are all zeros, all ones, or random, which holds NaN, infinities, denormals and the largest scales.
    """
    _, block, size = FORMATS[name]
    raw = random_matrix(name, rows, cols, seed=11)[0].reshape(rows, -1).copy()
    rng = np.random.default_rng(12)
    for row in range(0, rows, 2):
        first = size * rng.integers(0, cols // block)
        raw[row, first : first + size] = (0, 255, rng.integers(0, 256, size))[row // 2 % 3]
    return raw


@pytest.mark.sample(90)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_bytes(native: ModuleType, name: str, kind: str) -> None:
    """A row with a weight that is not finite has no finite product; all others have theirs."""
    if FORMATS[name][1] == 1 and kind != "f32":
        pytest.skip("floats are multiplied as they are")
    rows, cols = 53, 512
    raw = hostile_rows(name, rows, cols)
    type_id = FORMATS[name][0]
    w = native.dequantize(type_id, raw.reshape(-1), rows * cols).reshape(rows, cols).astype(np.float64)
    x = activations(5, cols, seed=13)
    y = native.linear(type_id, raw.reshape(-1), rows, cols, x, kind)
    finite = np.isfinite(w).all(axis=1)
    ordinary = finite & (np.abs(np.where(np.isfinite(w), w, 0)).max(axis=1) < 1e30)
    assert ordinary[1::2].all()
    # A finite scale can make weights overflow whose product, scaled by the activations first, does not.
    assert (np.abs(y[:, ~finite]) < 1e30).sum() == 0
    error = np.abs(y[:, ordinary] - x.astype(np.float64) @ w[ordinary].T)
    # A scale and a minimum of random bytes may be far larger than the weights that they cancel to.
    allowed = tolerance(kind, w[ordinary], x.astype(np.float64))
    largest = np.abs(w[ordinary]).max(axis=1) * np.abs(x).sum(axis=1)[:, None]
    assert (error <= allowed + 64 * cols * U * largest).all()
    alone = np.concatenate(
        [native.linear(type_id, raw.reshape(-1), rows, cols, x[t : t + 1], kind) for t in range(5)]
    )
    np.testing.assert_array_equal(y, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-30, 1e30])
def test_tiny_and_huge_activations(native: ModuleType, kind: str, size: float) -> None:
    raw, w = random_matrix("Q6_K", 20, 512, seed=9)
    x = (activations(2, 512, seed=10).clip(-3, 3) * np.float64(size)).astype(np.float32)
    y = native.linear(FORMATS["Q6_K"][0], raw, 20, 512, x, kind)
    expected = x.astype(np.float64) @ w.T
    # Blocks whose largest activation is below 1e-34 become zero in the integer encodings.
    allowed = tolerance(kind, w, x.astype(np.float64)) + 1e-34 * np.abs(w).sum(axis=1)
    assert (np.abs(y - expected) <= allowed).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((999, np.zeros(34, np.uint8), 1, 32, np.zeros((1, 32), np.float32), "f32"), "unknown"),
        ((8, np.zeros(33, np.uint8), 1, 32, np.zeros((1, 32), np.float32), "f32"), "within the data"),
        ((8, np.zeros(34, np.uint8), 1, 31, np.zeros((1, 31), np.float32), "f32"), "whole blocks"),
        ((0, np.zeros(128, np.uint8), 1, 32, np.zeros((1, 32), np.float32), "fast"), "does not multiply"),
        ((8, np.zeros(34, np.uint8), 1, 32, np.zeros((1, 16), np.float32), "f32"), r"\[T, cols\]"),
    ],
)
def test_bad_calls_are_refused(native: ModuleType, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.linear(*arguments)
