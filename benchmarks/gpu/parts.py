"""What is measured on a GPU: who takes turns with whom, on which sizes, for how long, and the bars of an H100."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.gpu.contestant import Spec


@dataclass(frozen=True)
class Bar:
    """A ratio of tokens per second that is asked for."""

    over: str  # a contestant's name
    under: str  # another's
    least: float


@dataclass(frozen=True)
class Part:
    """Several contestants, and what their ratios should be."""

    title: str
    seconds: float  # its share of the time; what is left over is the next one's
    contestants: dict[str, Spec]
    bars: tuple[Bar, ...]


UPSTREAM = {  # Pythia-70M with batch and sequence of configs/upstream
    "hidden_size": 512,
    "layers": 6,
    "heads": 8,
    "vocabulary": 50304,
    "length": 2048,
    "batch": 64,
    "micro": 32,
    "samples": 1024,
}
ONE = {"hidden_size": 128, "layers": 4, "heads": 4, "vocabulary": 1024, "length": 128, "batch": 8}  # million: 1.06
TEN = {"hidden_size": 320, "layers": 6, "heads": 5, "vocabulary": 4096, "length": 256, "batch": 8}  # 10.0
SEVENTY = {**UPSTREAM, "batch": 1, "micro": 1}  # in a stack, 16 workers' logits are in memory at once
TINY = {"hidden_size": 16, "layers": 1, "heads": 2, "vocabulary": 32, "length": 8, "batch": 2, "samples": 256}
WORKERS = 16


def stacked(size: dict[str, int], steps: int, compiled: bool = False) -> dict[str, Spec]:
    """Workers in a stack, one after another, and as one model with the batch of all of them."""
    one = Spec(size, WORKERS, steps, "stacked", compiled)
    large = {key: value for key, value in size.items() if key != "micro"}
    return {
        "stacked": one,
        "inline": replace(one, executor="inline", compiled=False),
        "ceiling": replace(one, executor=None, large=True, size=large),
    }


def bars(over_inline: float | None, over_ceiling: float | None) -> tuple[Bar, ...]:
    wanted = (("inline", over_inline), ("ceiling", over_ceiling))
    return tuple(Bar("stacked", under, least) for under, least in wanted if least is not None)


PARTS = {
    "inline 70M": Part(
        "inline over a bare loop, both compiled",
        90.0,
        {
            "inline": Spec(UPSTREAM, 4, 4, "inline", compiled=True),
            "bare loop": Spec(UPSTREAM, 4, 4, compiled=True),
        },
        (Bar("inline", "bare loop", 0.95),),
    ),
    "stacked 1M": Part("16 workers in a stack, eager", 40.0, stacked(ONE, 8), bars(6.0, 0.8)),
    "stacked 10M": Part("16 workers in a stack, eager", 40.0, stacked(TEN, 8), bars(6.0, 0.8)),
    "stacked 70M": Part("16 workers in a stack, eager", 45.0, stacked(SEVENTY, 4), bars(1.0, None)),
    "stacked 1M compiled": Part(
        "16 workers in a stack, compiled as the ceiling is", 45.0, stacked(ONE, 8, compiled=True), bars(6.0, 0.8)
    ),
}
TESTS = 40.0  # seconds for the tests


def tiny(part: Part) -> Part:
    """The same on the CPU, of a size that shows nothing but that it works."""
    specs = {
        name: replace(
            spec, size=TINY | ({"micro": 1} if "micro" in spec.size else {}), workers=2, steps=1, device="cpu"
        )
        for name, spec in part.contestants.items()
    }
    return replace(part, contestants=specs)
