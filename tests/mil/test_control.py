"""States, conditions and loops."""

from typing import Any

import numpy as np
import pytest

from tests.mil.programs import evaluator_of, floats, mb, one, same


def test_states_keep_their_values() -> None:
    x = floats(2, 3).astype(np.float16)

    def build(x: Any, cache: Any) -> Any:
        return mb.coreml_update_state(state=cache, value=mb.add(x=mb.read_state(input=cache), y=x), name="sum")

    evaluator = evaluator_of(build, {"x": x}, ios=18, states={"cache": (2, 3)})
    same(evaluator.run({"x": x})["sum"], x)
    same(evaluator.run({"x": x})["sum"], (x + x).astype(np.float16))
    evaluator.reset_states()
    same(evaluator.run({"x": x})["sum"], x)


def test_what_was_read_does_not_change_with_the_state() -> None:
    x = np.ones((2, 3), np.float16)

    def build(x: Any, cache: Any) -> Any:
        before = mb.read_state(input=cache)
        after = mb.coreml_update_state(state=cache, value=mb.add(x=before, y=x))
        return mb.sub(x=after, y=before, name="difference")

    evaluator = evaluator_of(build, {"x": x}, ios=18, states={"cache": (2, 3)})
    for _ in range(2):
        same(evaluator.run({"x": x})["difference"], x)


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_conditions(value: float) -> None:
    x = np.full((2,), value, np.float32)

    def build(x: Any) -> Any:
        positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0]), y=0.0)
        return mb.cond(pred=positive, _true_fn=lambda: mb.add(x=x, y=10.0), _false_fn=lambda: mb.mul(x=x, y=5.0))

    same(one(build, x=x), x + 10 if value > 0 else x * 5)


def test_loops() -> None:
    x = np.array([1.5], np.float32)

    def build(x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda i, total: mb.less(x=mb.squeeze(x=i), y=np.float32(4.0)),
            _body=lambda i, total: (mb.add(x=i, y=np.float32(1.0)), mb.mul(x=total, y=x)),
            loop_vars=(mb.mul(x=x, y=np.float32(0.0)), x),
        )[1]

    same(one(build, x=x), x**5)
