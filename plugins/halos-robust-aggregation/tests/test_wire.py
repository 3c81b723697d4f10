"""What travels, by the formulas: all-reduce AR(x) = 2 (M−1)/M · x and all-gather AG(x) = (M−1) · x from each worker."""

from __future__ import annotations

from typing import Any

import pytest

from halos.testing import record, tiny

M, P = 8, 1000  # workers, parameters in one tensor


def ar(nbytes: float) -> float:
    return 2 * (M - 1) / M * nbytes


def ag(nbytes: float) -> float:
    return (M - 1) * nbytes


BITS = 5  # ⌈log₂ 17⌉, for counts from −8 to 8
SENT: list[tuple[dict[str, Any], float]] = [
    ({"name": "mean"}, ar(4 * P)),
    ({"name": "edit"}, ag(4) + ar(4 * P)),
    ({"name": "sign_majority", "scale": 1.0}, ar(P * BITS / 8)),
    ({"name": "sign_majority"}, ar(P * BITS / 8) + ar(4)),
    ({"name": "ties"}, 2 * ar(4 * P) + ar(P * BITS / 8)),
    ({"name": "ties", "elect": "count"}, ar(4 * P) + 2 * ar(P * BITS / 8)),
    ({"name": "centred_clipping", "exchange": "iterated"}, 3 * (ag(4) + ar(4 * P))),
    ({"name": "centred_clipping"}, ag(4 * P)),
    ({"name": "geometric_median"}, ag(4 * P)),
    ({"name": "geometric_median", "exchange": "sharded"}, ar(4 * P) + ar(4 * M * M)),
    ({"name": "krum"}, ag(4 * P)),
    ({"name": "multi_krum", "exchange": "sharded"}, ar(4 * P) + ar(4 * M * M)),
    ({"name": "trimmed_mean"}, ag(4 * P)),
    ({"name": "trimmed_mean", "exchange": "sharded"}, ar(4 * P)),
    ({"name": "median"}, ag(4 * P)),
    ({"name": "median", "exchange": "sharded"}, ar(4 * P)),
    ({"name": "trust"}, ag(4 * P)),
]


def run(aggregate: dict[str, Any], **changes: Any) -> Any:
    sections = {
        "cluster": {"regions": [{"workers": [1.0] * M}]},
        "executor": {"name": "timing"},
        "model": {"name": "sized", "parameters": P},
        "network": {"bandwidth_gbps": 8e-6},  # 1000 bytes a second
        "budget": {"local_steps": 2 * M},
    }
    return record(tiny(aggregate=aggregate, **sections | changes))


@pytest.mark.parametrize(("aggregate", "sent"), SENT)
def test_bytes_and_seconds_are_those_of_the_formula(aggregate: dict[str, Any], sent: float) -> None:
    found = run(aggregate)
    assert [transfer.bytes for transfer in found.transfers] == [round(M * sent)]
    assert found.commits[0].time == pytest.approx(2.0 + sent / 1000, rel=1e-12)  # two steps of a second


@pytest.mark.parametrize(("aggregate", "sent"), SENT)
def test_shared_links_carry_as_much(aggregate: dict[str, Any], sent: float) -> None:
    found = run(aggregate, network={"name": "shared_links", "inside_gbps": 1.0, "worker_up_gbps": 8e-6})
    links = found.simulation.links()
    assert links is not None
    assert links["worker-3.up"]["bytes"] == pytest.approx(sent, rel=1e-12)
    assert found.commits[0].time == pytest.approx(2.0 + sent / 1000, rel=1e-9)


def test_codecs_count_where_payloads_travel_and_not_where_counts_do() -> None:
    half = {"codec": {"name": "fp16"}}
    assert run({"name": "median"}, **half).transfers[0].bytes == M * ag(2 * P)
    assert run({"name": "sign_majority", "scale": 1.0}, **half).transfers[0].bytes == M * ar(P * BITS / 8)


def test_gathering_costs_half_the_members_times_an_all_reduce() -> None:
    assert run({"name": "median"}).transfers[0].bytes == M / 2 * run({"name": "mean"}).transfers[0].bytes
