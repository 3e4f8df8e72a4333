"""The same flows by flowjax under jit; its environment is one of its own, with torch beside it for the floor."""

from collections.abc import Callable
from typing import Any

from benchmarks.speed.subjects import RATE, Subject, rows
from benchmarks.speed.workloads import Work

__all__ = ["flowjax"]


def flowjax(work: Work, device: str) -> list[Subject]:
    """Nine slopes a set of bins in place of seven, so a few more numbers; permutations between layers are random."""
    import equinox as eqx
    import jax
    import jax.random as jr
    import optax
    import paramax

    if work.moves not in ("coupling", "autoregressive") or work.event:
        return []
    flow = _flow(work, jr.key(0))
    learned, fixed = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimizer = optax.adam(RATE)

    def loss(learned: Any, x: Any) -> Any:
        return -paramax.unwrap(eqx.combine(learned, fixed)).log_prob(x).mean()

    @jax.jit
    def step(learned: Any, state: Any, x: Any) -> Any:
        gradients = jax.grad(loss)(learned, x)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(learned, updates), state

    score = jax.jit(lambda learned, x: paramax.unwrap(eqx.combine(learned, fixed)).log_prob(x))
    draw = jax.jit(
        lambda learned, key, n: paramax.unwrap(eqx.combine(learned, fixed)).sample(key, (n,)), static_argnums=2
    )

    def task(name: str, n: int) -> Callable[[], object]:
        x = jax.numpy.asarray(rows(work, n).numpy())
        if name == "log_prob":
            return lambda: score(learned, x).block_until_ready()
        if name == "sample":
            return lambda: draw(learned, jr.key(1), n).block_until_ready()
        held = [learned, optimizer.init(learned)]

        def train() -> None:
            held[:] = step(*held, x)
            jax.block_until_ready(held)

        return train

    count = sum(leaf.size for leaf in jax.tree_util.tree_leaves(learned))
    tasks = {name: task(name, n) for name, n in work.tasks if name != "epoch"}
    return [Subject("flowjax", count, tasks, compiles=True)] if tasks else []


def _flow(work: Work, key: Any) -> Any:
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    spline = RationalQuadraticSpline(knots=work.bins - 1, interval=5) if work.scalar == "spline" else None
    build = coupling_flow if work.moves == "coupling" else masked_autoregressive_flow
    sizes = {"flow_layers": work.layers, "nn_width": work.hidden[0], "nn_depth": work.depth}
    return build(key, base_dist=Normal(jnp.zeros(work.d)), transformer=spline, invert=True, **sizes)
