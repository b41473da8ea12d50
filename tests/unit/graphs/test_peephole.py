"""Fewer nodes that compute the same: what is rewritten, and what is left alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx", reason="NO ONNX: graphs go untested")

from raudo.graphs.peephole import shorten  # noqa: E402


def model(body: str, result: str, shape: str = "N, 4, 4, 6") -> Any:
    """Return a graph of `images` float [N, 4, 4, 6], by default, written in ONNX's own language."""
    text = f"""
        <ir_version: 8, opset_import: ["": 17]>
        graph (float[{shape}] images) => (float[{result}] boxes)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] three = {{3}}, int64[1] four = {{4}},
         int64[1] far = {{9223372036854775807}}, int64[1] last = {{-1}}, int64[1] one = {{1}}>
        {{ {body} }}
    """
    made = onnx.parser.parse_model(text)
    onnx.checker.check_model(made)
    return made


def run(made: Any, batch: int) -> Any:
    """Run a graph on the same noise each time, as its specification says."""
    from onnx.reference import ReferenceEvaluator

    sides = [d.dim_value or batch for d in made.graph.input[0].type.tensor_type.shape.dim]
    noise = np.random.default_rng(3).normal(0, 3, sides).astype(np.float32)
    found: Any = ReferenceEvaluator(made).run(None, {"images": noise})[0]
    return found


def shortened(made: Any) -> Counter[str]:
    """Shorten a graph, hold its results to those of before, and count its operators."""
    before = [run(made, batch) for batch in (1, 2)]
    shorten(made)
    onnx.checker.check_model(made)
    for batch, expected in zip((1, 2), before, strict=True):
        np.testing.assert_allclose(run(made, batch), expected, rtol=1e-5, atol=1e-5)
    used = {name for node in made.graph.node for name in node.input}
    assert {tensor.name for tensor in made.graph.initializer} <= used
    return Counter(node.op_type for node in made.graph.node)


TWO_SLICES = """
    a = Slice(images, zero, two, last)
    b = Slice(images, two, far, last, one)
"""


def test_all_slices_of_a_value_are_the_value() -> None:
    body = f"{TWO_SLICES} c = Exp(b) boxes = Concat<axis = 3>(a, b, c)"
    found = shortened(model(body, "N, 4, 4, 10"))
    assert found == {"Concat": 1, "Slice": 1, "Exp": 1}


def test_what_is_concatenated_from_nothing_else_is_passed_on() -> None:
    body = f"{TWO_SLICES} c = Concat<axis = -1>(a, b) boxes = Exp(c)"
    assert shortened(model(body, "N, 4, 4, 6")) == {"Identity": 1, "Exp": 1}


@pytest.mark.parametrize(
    "body",
    [
        f"{TWO_SLICES} boxes = Concat<axis = 3>(b, a)",
        f"{TWO_SLICES} boxes = Concat<axis = 3>(a, a)",
        "a = Slice(images, zero, two, last) b = Slice(images, two, four, last)"
        " boxes = Concat<axis = 3>(a, b)",
        "a = Slice(images, zero, far, last, two) b = Slice(images, one, far, last, two)"
        " boxes = Concat<axis = 3>(a, b)",
        "a = Slice(images, zero, two, two) b = Slice(images, two, four, two)"
        " boxes = Concat<axis = 3>(a, b)",
    ],
    ids=["other order", "one twice", "not all", "every second", "other axis"],
)
def test_other_slices_stay(body: str) -> None:
    made = model(body, "N, H, W, C")
    assert shortened(made)["Concat"] == 1
    assert sum(node.op_type == "Slice" for node in made.graph.node) > 0


LEVELS = """
    t = Transpose<perm = [0, 3, 1, 2]>(images)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(t)
    tr = Transpose<perm = [0, 2, 3, 1]>(t)
    pr = Transpose<perm = [0, 2, 3, 1]>(p)
    shape = Constant<value = int64[3] {-1, 16, 6}>()
    small = Constant<value = int64[3] {-1, 4, 6}>()
    a = Reshape(tr, shape)
    b = Reshape(pr, small)
"""


def test_all_levels_are_turned_at_once() -> None:
    found = shortened(model(f"{LEVELS} boxes = Concat<axis = 1>(a, b)", "N, 20, 6"))
    assert found == {"Transpose": 2, "MaxPool": 1, "Reshape": 2, "Concat": 1}


def test_a_level_that_others_read_stays() -> None:
    body = f"{LEVELS} c = Concat<axis = 1>(a, b) d = Exp(a) boxes = Concat<axis = 1>(c, d)"
    assert shortened(model(body, "N, 36, 6"))["Transpose"] == 3


MEAN = """
    shape = Constant<value = int64[4] {0, 4, 8, 3}>()
    logits = Reshape(images, shape)
    shares = Softmax<axis = %d>(logits)
    bins = Constant<value = float[3] {0.0, 1.0, 2.5}>()
    parts = Mul(%s)
    boxes = ReduceSum<keepdims = %d>(parts, %s)
"""


@pytest.mark.parametrize("order", ["shares, bins", "bins, shares"])
@pytest.mark.parametrize("axis", [-1, 3])
def test_a_mean_under_a_softmax_is_a_quotient(order: str, axis: int) -> None:
    found = shortened(model(MEAN % (axis, order, 0, "last"), "N, 4, 8"))
    assert found["MatMul"] == found["Div"] == 1
    assert not {"Softmax", "ReduceSum"} & found.keys()


def test_its_logits_may_be_as_large_as_they_are_small() -> None:
    made = model(MEAN % (-1, "shares, bins", 0, "last"), "N, 4, 8")
    shorten(made)
    from onnx.reference import ReferenceEvaluator

    for size in (-1e4, 1e4):
        images = np.full((1, 4, 4, 6), size, np.float32)
        (found,) = ReferenceEvaluator(made).run(None, {"images": images})
        np.testing.assert_allclose(found, 3.5 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        (2, "shares, bins", 0, "last"),
        (-1, "shares, bins", 1, "last"),
        (-1, "shares, bins", 0, "two"),
    ],
    ids=["softmax of another axis", "axis kept", "sum of another axis"],
)
def test_other_sums_stay(words: tuple[int, str, int, str]) -> None:
    assert shortened(model(MEAN % words, "N, H, W, C" if words[2] else "N, H, W"))["Softmax"] == 1


CORNERS = """
    steps = Constant<value = float[4, 1] {8.0, 8.0, 16.0, 16.0}>()
    moved = Mul(images, steps)
    a = Slice(moved, zero, %s, last)
    b = Slice(moved, %s, far, last)
    centres = Constant<value = float[4, 2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}>()
    low = %s
    high = Add(centres, b)
    boxes = Concat<axis = -1>(low, high)
"""


def test_both_corners_move_at_once() -> None:
    body = CORNERS % ("two", "two", "Sub(centres, a)")
    assert shortened(model(body, "N, 4, 4", "N, 4, 4")) == {"Mul": 1, "Add": 1}


@pytest.mark.parametrize("low", ["Sub(a, centres)", "Add(centres, a)"])
def test_other_corners_stay(low: str) -> None:
    assert shortened(model(CORNERS % ("two", "two", low), "N, 4, 4", "N, 4, 4"))["Concat"] == 1


def test_what_is_reshaped_there_and_back_is_passed_on() -> None:
    body = """
        flat = Constant<value = int64[2] {0, -1}>()
        square = Constant<value = int64[4] {0, 4, 4, 6}>()
        a = Reshape(images, flat)
        b = Reshape(a, square)
        boxes = Exp(b)
    """
    assert shortened(model(body, "N, 4, 4, 6")) == {"Identity": 1, "Exp": 1}


def test_what_is_reshaped_to_something_else_stays() -> None:
    body = """
        flat = Constant<value = int64[2] {0, -1}>()
        other = Constant<value = int64[4] {0, 6, 4, 4}>()
        a = Reshape(images, flat)
        boxes = Reshape(a, other)
    """
    assert shortened(model(body, "N, 6, 4, 4"))["Reshape"] == 2


def with_weights(made: Any, **shapes: tuple[int, ...]) -> Any:
    """Give a graph random weights; a constant node of each name stands for them so far."""
    generator = np.random.default_rng(5)
    for node in [n for n in made.graph.node if n.output[0] in shapes]:
        made.graph.node.remove(node)
    for name, shape in shapes.items():
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(made)
    return made


def weighted(body: str, result: str, shape: str, **shapes: tuple[int, ...]) -> Any:
    """Return a graph with random weights of given shapes."""
    holes = " ".join(f"{name} = Constant<value = float[1] {{0.0}}>()" for name in shapes)
    return with_weights(model(f"{holes} {body}", result, shape), **shapes)


def silu(name: str, conv: str) -> str:
    """Return a convolution and its SiLU."""
    return f"{name}c = {conv} {name}s = Sigmoid({name}c) {name} = Mul({name}c, {name}s)"


@pytest.mark.parametrize("count", [2, 3])
def test_convolutions_of_one_value_are_one(count: int) -> None:
    names = "pqr"[:count]
    body = " ".join(silu(n, f"Conv(images, w{n}, b{n})") for n in names)
    sizes = {f"w{n}": (4 + i, 6, 1, 1) for i, n in enumerate(names)}
    sizes |= {f"b{n}": (4 + i,) for i, n in enumerate(names)}
    body += f" boxes = Concat<axis = 1>({', '.join(reversed(names))})"
    total = sum(4 + i for i in range(count))
    found = shortened(weighted(body, f"N, {total}, 4, 4", "N, 6, 4, 4", **sizes))
    assert found == {"Conv": 1, "Sigmoid": 1, "Mul": 1, "Slice": count, "Concat": 1}


@pytest.mark.parametrize(
    "second",
    [
        silu("q", "Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(images, wide, bias)"),
        silu("q", "Conv<group = 2>(images, half, bias)"),
        "q = Conv(images, wp, bias)",
        silu("q", "Conv(images, wp)"),
    ],
    ids=["other kernel", "groups", "no activation", "no bias"],
)
def test_convolutions_of_other_kinds_stay(second: str) -> None:
    sizes = {"wp": (4, 6, 1, 1), "bias": (4,), "wide": (4, 6, 3, 3), "half": (4, 3, 1, 1)}
    body = f"{silu('p', 'Conv(images, wp, bias)')} {second} boxes = Concat<axis = 1>(p, q)"
    assert shortened(weighted(body, "N, 8, 4, 4", "N, 6, 4, 4", **sizes))["Conv"] == 2


HEADS = """
    small = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(images)
    cells = Constant<value = int64[3] {0, 16, 5}>() less = Constant<value = int64[3] {0, 4, 5}>()
    pc = Conv(images, wp, bp) pt = Transpose<perm = [0, 2, 3, 1]>(pc) pr = Reshape(pt, cells)
    qc = Conv(small, wq, bp) qt = Transpose<perm = [0, 2, 3, 1]>(qc) qr = Reshape(qt, less)
    first = Concat<axis = 1>(pr, qr)
    inner = Exp(first)
    scells = Constant<value = int64[3] {0, 16, 3}>() sless = Constant<value = int64[3] {0, 4, 3}>()
    other = Relu(images) rest = Relu(small)
    uc = Conv(other, wu, bu) ut = Transpose<perm = [0, 2, 3, 1]>(uc) ur = Reshape(ut, scells)
    vc = Conv(rest, wv, bu) vt = Transpose<perm = [0, 2, 3, 1]>(vc) vr = Reshape(vt, sless)
    second = Concat<axis = 1>(ur, vr)
    boxes = Concat<axis = 2>(inner, second)
"""
HEAD_WEIGHTS = {"wp": (5, 6, 1, 1), "wq": (5, 6, 1, 1), "bp": (5,)}
HEAD_WEIGHTS |= {"wu": (3, 6, 1, 1), "wv": (3, 6, 1, 1), "bu": (3,)}


def test_boxes_and_classes_of_a_level_are_predicted_at_once() -> None:
    found = shortened(weighted(HEADS, "N, 20, 8", "N, 6, 4, 4", **HEAD_WEIGHTS))
    assert (found["Conv"], found["Transpose"], found["Slice"]) == (2, 1, 2)


def test_rows_of_predictions_are_filled_up_to_a_multiple_of_eight() -> None:
    few = {**HEAD_WEIGHTS, "wu": (2, 6, 1, 1), "wv": (2, 6, 1, 1), "bu": (2,)}
    body = HEADS.replace("16, 3}", "16, 2}").replace("4, 3}", "4, 2}")
    made = weighted(body, "N, 20, 7", "N, 6, 4, 4", **few)
    assert shortened(made)["Conv"] == 2
    sides = {tensor.name: list(tensor.dims) for tensor in made.graph.initializer}
    heads = [sides[n.input[1]] for n in made.graph.node if n.op_type == "Conv"]
    assert heads == [[8, 12, 1, 1]] * 2


def test_heads_of_wider_kernels_stay() -> None:
    wide = {**HEAD_WEIGHTS, "wv": (3, 6, 3, 3)}
    body = HEADS.replace("Conv(rest,", "Conv<pads = [1, 1, 1, 1]>(rest,")
    found = shortened(weighted(body, "N, 20, 8", "N, 6, 4, 4", **wide))
    assert (found["Conv"], found["Transpose"]) == (4, 2)


def test_a_value_of_a_type_is_not_converted_to_it() -> None:
    body = "a = Cast<to = 1>(images) b = Cast<to = 10>(a) c = Cast<to = 1>(b) boxes = Exp(c)"
    assert shortened(model(body, "N, 4, 4, 6")) == {"Identity": 1, "Cast": 2, "Exp": 1}


ATTENTION = """
    heads = Constant<value = int64[4] {0, 2, 12, 16}>()
    sizes = Constant<value = int64[3] {3, 3, 6}>()
    flat = Constant<value = int64[4] {0, 12, 4, 4}>()
    half = Constant<value = float {0.5}>()
    c = Conv(images, w, bias)
    r = Reshape(c, heads)
    q, k, v = Split<axis = 2>(r, sizes)
    scaled = Mul(q, half)
    turned = Transpose<perm = [0, 1, 3, 2]>(scaled)
    products = MatMul(turned, k)
    shares = Softmax<axis = -1>(products)
    back = Transpose<perm = [0, 1, 3, 2]>(shares)
    seen = MatMul(v, back)
    there = Reshape(seen, flat)
    plain = Reshape(v, flat)
    boxes = Add(there, plain)
"""


@pytest.mark.parametrize("factor", ["0.5", "1.0"])
def test_queries_keys_and_values_are_projected_apart(factor: str) -> None:
    body = ATTENTION.replace("float {0.5}", f"float {{{factor}}}")
    made = weighted(body, "N, 12, 4, 4", "N, 6, 4, 4", w=(24, 6, 1, 1), bias=(24,))
    found = shortened(made)
    assert found["Conv"] == 3
    assert not {"Split", "Mul"} & found.keys()


def test_values_of_a_wider_kernel_stay_together() -> None:
    body = ATTENTION.replace("Conv(", "Conv<pads = [1, 1, 1, 1]>(")
    made = weighted(body, "N, 12, 4, 4", "N, 6, 4, 4", w=(24, 6, 3, 3), bias=(24,))
    assert shortened(made)["Split"] == 1


def convolved(name: str, source: str, weights: str) -> str:
    """Return a convolution of 3x3 and its SiLU."""
    return silu(name, f"Conv<pads = [1, 1, 1, 1]>({source}, {weights}, bias)")


def block(cuts: str, last: str) -> str:
    """Return a block that cuts its input, adds what it convolves, and puts all of it together."""
    inner = f"{convolved('h', 'b', 'wh')} {convolved('k', 'h', 'wh')}"
    whole = f"{silu('y', 'Conv(images, wy, wide)')} {cuts} {inner} m = Add(b, k)"
    return f"{whole} joined = Concat<axis = 1>({last}) boxes = Conv(joined, wo, wide)"


SPLIT = "half = Constant<value = int64[2] {4, 4}>() a, b = Split<axis = 1>(y, half)"
SLICES = "a = Slice(y, zero, four, one) b = Slice(y, four, far, one)"
BLOCK = {"wy": (8, 6, 1, 1), "wide": (8,), "wh": (4, 4, 3, 3), "bias": (4,), "wo": (8, 12, 1, 1)}


@pytest.mark.parametrize("cuts", [SPLIT, SLICES], ids=["split", "slices"])
def test_convolutions_read_what_their_input_was_made_of(cuts: str) -> None:
    made = weighted(block(cuts, "a, b, m"), "N, 8, 4, 4", "N, 6, 4, 4", **BLOCK)
    assert shortened(made) == {"Conv": 4, "Sigmoid": 3, "Mul": 3, "Concat": 1}


def test_a_sum_that_others_read_is_still_made() -> None:
    body = block(SPLIT, "a, b, m").replace("boxes =", "c =")
    body = f"{body} e = Exp(m) boxes = Concat<axis = 1>(c, e)"
    found = shortened(weighted(body, "N, 12, 4, 4", "N, 6, 4, 4", **BLOCK))
    assert (found["Add"], found["Split"]) == (1, 1)


def test_what_several_convolutions_read_is_put_together_once() -> None:
    body = f"""
        {SPLIT.replace("(y,", "(images,")}
        {convolved("h", "b", "wh")} m = Add(b, h) {convolved("k", "m", "wh")} n = Add(m, k)
        joined = Concat<axis = 1>(a, n) boxes = Conv(joined, wo, wide)
    """
    sizes = {**BLOCK, "wo": (8, 8, 1, 1)}
    del sizes["wy"]
    found = shortened(weighted(body, "N, 8, 4, 4", "N, 8, 4, 4", **sizes))
    assert found == {"Conv": 3, "Sigmoid": 2, "Mul": 2, "Concat": 2}


def test_a_part_that_is_nowhere_put_together_is_read_as_it_is() -> None:
    body = f"{SPLIT.replace('(y,', '(images,')} boxes = Conv(b, wp, bias)"
    made = weighted(body, "N, 4, 4, 4", "N, 8, 4, 4", wp=(4, 4, 1, 1), bias=(4,))
    assert shortened(made)["Split"] == 1


LINEAR = """
    a = Conv(images, wa, bias) p = Sigmoid(a)
    b = Conv(p, wb, bias) m = Add(b, p)
    boxes = Conv%s(m, wo, bias)
"""


def test_a_convolution_of_a_pixel_without_activation_is_part_of_the_next() -> None:
    sizes = {"wa": (4, 6, 1, 1), "wb": (4, 4, 1, 1), "wo": (4, 4, 1, 1), "bias": (4,)}
    found = shortened(weighted(LINEAR % "", "N, 4, 4, 4", "N, 6, 4, 4", **sizes))
    assert found == {"Conv": 2, "Sigmoid": 1}


def test_it_is_not_where_the_next_reads_beyond_the_border() -> None:
    sizes = {"wa": (4, 6, 1, 1), "wb": (4, 4, 1, 1), "wo": (4, 4, 3, 3), "bias": (4,)}
    body = LINEAR % "<pads = [1, 1, 1, 1]>"
    found = shortened(weighted(body, "N, 4, 4, 4", "N, 6, 4, 4", **sizes))
    assert (found["Conv"], found["Concat"], found["Add"]) == (3, 1, 0)


def test_fewer_nodes_cannot_be_made_fewer_again() -> None:
    made = weighted(block(SPLIT, "a, b, m"), "N, 8, 4, 4", "N, 6, 4, 4", **BLOCK)
    shorten(made)
    before = made.SerializeToString()
    shorten(made)
    assert made.SerializeToString() == before


def test_a_graph_with_branches_is_left_alone() -> None:
    body = """
        sure = Constant<value = bool {1}>()
        c = If (sure) <
            then_branch = g1 () => (float[N, 4, 4, 6] y) { y = Exp(images) },
            else_branch = g2 () => (float[N, 4, 4, 6] z) { z = Relu(images) }>
        a = Slice(c, zero, two, last)
        b = Slice(c, two, far, last)
        boxes = Concat<axis = 3>(a, b)
    """
    made = model(body, "N, 4, 4, 6")
    before = made.SerializeToString()
    shorten(made)
    assert made.SerializeToString() == before


def test_a_detector_finds_the_same(tiny_onnx: Path) -> None:
    made = onnx.load(tiny_onnx)
    assert made.graph.input[0].name == "images"
    before = Counter(node.op_type for node in made.graph.node)
    shorten(made)
    onnx.checker.check_model(made)
    assert Counter(node.op_type for node in made.graph.node) == before
