"""Recorded runs of the original simulator (see README.md): ours of the same configuration, and how to compare."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos import Update
from halos.config.layers import merge
from halos.testing import Recording, record

GOLDEN = Path(__file__).parent
POLICIES = ["diloco", "diloco_dynupd", "async_local_sgd", "halos"]


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes())))


def delayed_nesterov(written: str) -> dict[str, Any]:
    options = json.loads(written)
    names = {"lr": "lr", "beta": "beta", "buffer_size": "buffer", "c": "activation"}
    return {"name": "delayed_nesterov"} | {ours: options[key] for key, ours in names.items() if key in options}


def config_of(run: dict[str, Any]) -> dict[str, Any]:
    """The recorded run's arguments as our configuration."""
    args, env = run["args"], run["env"]
    schedule, optimizer = json.loads(args["worker_lr_config"]), json.loads(args["worker_opt_config"])
    batch = args["micro_batch_size"] * args["num_gradient_accumulation"]
    if run["algo"] == "halos":
        policy = {
            "name": "halos",
            "outer": delayed_nesterov(args["gps_opt_config"]),
            "local": delayed_nesterov(args["lps_opt_config"]),
            "local_updates": args["local_updates_accumulation"],
            "merge_weight": args["model_merge_weight"],
            "local_servers": args["num_lps"],
            "workers_per_server": args["num_workers_per_lps"],
        }
    elif run["algo"] == "async_local_sgd":
        policy = {"name": "async_local_sgd", "outer": delayed_nesterov(args["ps_opt_config"])}
    else:
        outer = json.loads(args["outer_opt_config"])
        policy = {"name": "diloco", "outer": {"name": "nesterov", "lr": outer["lr"], "momentum": outer["momentum"]}}
    return {
        "seed": args["seed"],
        "cluster": {
            "regions": [{"workers": speeds} for speeds in env["worker_speeds"]],
            "step_time_ms": args["local_step_time_ms"],
            "tie_break_ms": 1.0e-6,
        },
        "network": {"bandwidth_gbps": env["network_bandwidths"], "return_path": "forward"},
        "model": {"name": "sized", "parameters": 17, "wire_bytes": run["model_comm_bytes"]},
        "data": {"sequence_length": run["seq_len"] - 1, "hold_out": False, "shuffle": False},
        "train": {
            "batch_size": batch,
            "micro_batch_size": args["micro_batch_size"],
            "global_batch_size": args["global_batch_size"],
            "optimizer": optimizer | {"name": optimizer.pop("opt_type")},
            "schedule": {"warmup": schedule["t_warmup"], "total": schedule["t_max"]},
            "loss_average_steps": args["loss_average_step"],
        },
        "steps": {
            "name": "by_speed" if args["rescale_num_local_steps"] else "fixed",
            "base": args["num_local_steps"],
            **({"exact": False} if args["rescale_num_local_steps"] else {}),
        },
        "policy": policy,
        "budget": {"local_steps": args["total_steps"]},
        "evaluate": {"every_local_steps": args["val_interval_steps"]},
        "executor": {"name": "analytic"},
    }


def trained(run: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with real training, from the recorded weights and tokens."""
    return merge(
        config_of(run),
        {
            "executor": {"name": "inline"},
            "model": {
                "name": "gpt_neox",
                "vocab_size": 512,
                "hidden_size": 64,
                "layers": 2,
                "heads": 4,
                "weights": str(GOLDEN / "init_state.npz"),
            },
            "data": {"name": "tokens", "path": str(GOLDEN / "data_tokens.npz"), "vocab_size": 512}
            | {"sequence_length": 64, "hold_out": False, "shuffle": False},
        },
    )


def update_steps(run: dict[str, Any], number: int) -> int:
    """Local steps that the global server had merged after so many updates."""
    kind = {"halos": "gps_recv", "async_local_sgd": "worker_pgrads"}.get(run["algo"], "round")
    return int(events(run, kind)[number - 1]["ps_num_trained_steps"])


def distances(name: str, ours: Recording) -> dict[int, float]:
    """Relative L2 distance of global parameters after n updates, by n, wherever they were recorded and we got."""
    archive, result = np.load(GOLDEN / f"{name}_params.npz"), {}
    for tag in sorted({key.split(":")[0] for key in archive.files if key.startswith("u")}):
        number = int(tag[1:])
        if number <= len(ours.global_commits):
            params = ours.global_commits[number - 1].params.tensors()
            recorded = {key.split(":", 1)[1]: archive[key] for key in archive.files if key.startswith(tag + ":")}
            assert set(recorded) == set(params)
            square = sum(
                float(((params[key].numpy().astype(float) - each) ** 2).sum()) for key, each in recorded.items()
            )
            size = sum(float((each.astype(float) ** 2).sum()) for each in recorded.values())
            result[number] = (square / size) ** 0.5
    return result


def loss_differences(run: dict[str, Any], ours: Recording) -> list[float]:
    """|ours − recorded| of every training loss we got to, update by update."""
    if run["algo"].startswith("diloco"):
        theirs = [worker["loss_history"] for event in events(run, "round") for worker in event["workers"]]
        count = len(run["workers"])
        key = lambda place: (place[0] // count, place[1].worker)  # noqa: E731 - within a round, by worker
        mine = [update.losses for _, update in sorted(enumerate(ours.updates), key=key)]
    else:
        theirs = [event["loss_history"] for event in events(run, "worker_pgrads")]
        mine = [update.losses for update in ours.updates]
    return [abs(a - b) for one, other in zip(mine, theirs) for a, b in zip(one, other, strict=True)]


def replay(run: dict[str, Any], **changes: Any) -> Recording:
    """Our run of the same configuration."""
    return record(merge(config_of(run), changes), [str(GOLDEN / "analytic.py")])


def events(run: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in run["events"] if event["type"] == kind]


def near(milliseconds: float) -> Any:
    return pytest.approx(milliseconds / 1e3, rel=1e-6)


def check_norm(params: Any, event: dict[str, Any], key: str) -> None:
    """The norm, where it was recorded: the full-length timelines hold it for some events only."""
    if key in event:
        assert float(np.linalg.norm(params.flat.numpy())) == pytest.approx(event[key], rel=1e-9, abs=1e-12)


def check_update(ours: Update, dispatch: dict[str, Any], pushed: dict[str, Any]) -> None:
    assert ours.worker == dispatch["worker_id"] == pushed["worker_id"]
    assert ours.samples == (dispatch["start_idx"], dispatch["end_idx"])
    assert ours.lr_step == dispatch["start_steps"]
    assert ours.steps == dispatch["num_local_steps"]
    assert ours.start_version == dispatch["ps_version"]
    assert ours.start_time == near(dispatch["t"]) and ours.time == near(pushed["t"])
    assert list(ours.chunks) == pushed["num_local_steps_history"]
    assert ours.losses == pytest.approx(pushed["loss_history"], rel=1e-9)
    check_norm(ours.delta, pushed, "update_l2")


def check_asynchronous(run: dict[str, Any], ours: Recording) -> None:
    """Every arrival at a server that workers push to, in order, with what was dispatched for it."""
    dispatched: dict[int, list[dict[str, Any]]] = {}
    for event in events(run, "dispatch"):
        dispatched.setdefault(event["worker_id"], []).append(event)
    arrivals = events(run, "worker_pgrads")
    assert len(ours.updates) == len(arrivals)
    servers = {"halos": "local-{ps_id}", "async_local_sgd": "global"}[run["algo"]]
    commits = [commit for commit in ours.commits if commit.server != "global" or run["algo"] != "halos"]
    commits = [commit for commit in commits if commit.kind == "update"]
    for update, commit, pushed in zip(ours.updates, commits, arrivals, strict=True):
        check_update(update, dispatched[update.worker].pop(0), pushed)
        assert commit.server == servers.format(**pushed)
        assert (commit.version, commit.time) == (pushed["ps_version_after"], near(pushed["t"]))
        (share,) = commit.shares
        assert share.hop_staleness == pushed["ps_version_before"] - update.start_version
        check_norm(commit.params, pushed, "param_l2")


def check_exchanges(run: dict[str, Any], ours: Recording) -> None:
    """HALoS: what local servers send, the global one merges, and local ones take over."""
    sends = [each for each in ours.transfers if each.kind == "send"]
    received = events(run, "gps_recv")
    commits = [commit for commit in ours.commits if commit.server == "global"]
    assert len(commits) == len(received)
    for commit, event in zip(commits, received):
        (share,) = commit.shares
        assert commit.time == near(event["t"])
        assert share.steps == event["num_local_steps"] and commit.local_steps == event["ps_num_trained_steps"]
        check_norm(commit.params, event, "param_l2")
        losses = [loss for update in share.updates for loss in update.losses]
        assert np.mean(losses) == pytest.approx(event["loss_avg"], rel=1e-9)
    sent = [event for event in events(run, "lps_send") if event["arrive_time"] <= run["final_time_ms"]]
    back = [event for event in received if event["arrive_time"] <= run["final_time_ms"]]
    expected = sorted((e["t"], e["arrive_time"]) for e in sent + back)
    mine = sorted((each.start_time, each.time) for each in sends)
    assert len(mine) == len(expected)
    for (start, end), (want_start, want_end) in zip(mine, expected):
        assert start == near(want_start) and end == near(want_end)
    merges = [commit for commit in ours.commits if commit.kind == "merge"]
    taken_over = events(run, "lps_recv_global")
    assert len(merges) == len(taken_over)
    for commit, event in zip(merges, taken_over):
        assert commit.server == f"local-{event['lps_id']}" and commit.version == event["lps_version"]
        assert commit.time == near(event["t"])
        check_norm(commit.params, event, "param_l2")


def check_rounds(run: dict[str, Any], ours: Recording) -> None:
    rounds = events(run, "round")
    assert len(ours.commits) == len(rounds)
    count = len(run["workers"])
    for number, (commit, event) in enumerate(zip(ours.commits, rounds)):
        assert commit.time == near(event["end_time"])
        assert commit.local_steps == event["ps_num_trained_steps"]
        check_norm(commit.params, event, "param_l2")
        assert all(share.hop_drift == 0.0 and share.hop_staleness == 0 for share in commit.shares)
        updates = sorted(ours.updates[number * count : (number + 1) * count], key=lambda update: update.worker)
        for update, worker in zip(updates, event["workers"], strict=True):
            assert update.worker == worker["worker_id"] and update.steps == worker["num_local_steps"]
            assert update.samples == (worker["start_idx"], worker["end_idx"])
            assert update.lr_step == worker["start_steps"]
            assert update.start_time == near(event["t"])
            assert list(update.chunks) == worker["num_local_steps_history"]
            assert update.losses == pytest.approx(worker["loss_history"], rel=1e-9)


def check(run: dict[str, Any], ours: Recording) -> None:
    if run["algo"].startswith("diloco"):
        check_rounds(run, ours)
    else:
        check_asynchronous(run, ours)
    if run["algo"] == "halos":
        check_exchanges(run, ours)
    final = ours.simulation
    assert final.now == near(run["final_time_ms"])
    assert final.ledger.committed == run["final_num_trained_steps"]
    assert final.version == run["final_n_global_updates"]
    validations = events(run, "val")
    evaluations = ours.evaluations[1:]  # ours evaluates at step 0, too
    if evaluations[-1].local_steps != validations[-1]["trained_steps"]:
        evaluations.pop()  # and at the end
    for evaluation, event in zip(evaluations, validations, strict=True):
        assert evaluation.local_steps == event["trained_steps"]
        assert evaluation.time == near(event["t"])
        assert evaluation.loss == pytest.approx(event["val_loss"], rel=1e-9)
