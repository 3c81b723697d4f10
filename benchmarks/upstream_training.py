"""Train the four recorded runs of the original to their end, and compare every loss and parameter (minutes)."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from halos.testing import record
from tests.golden.recorded import POLICIES, distances, events, golden, loss_differences, trained


def compare(policy: str) -> dict[str, Any]:
    """Our whole run of a recorded one: how far apart they are."""
    run = golden(policy)
    began = time.perf_counter()
    ours = record(trained(run))
    seconds = time.perf_counter() - began
    differences = loss_differences(run, ours)
    recorded = events(run, "val")
    validation = {each.local_steps: each.loss for each in ours.evaluations}
    shares = [abs(validation[each["trained_steps"]] / each["val_loss"] - 1) for each in recorded]
    return {
        "steps": ours.simulation.ledger.committed,
        "recorded_steps": run["final_num_trained_steps"],
        "relative_l2_by_update": distances(policy, ours),
        "largest_loss_difference": max(differences),
        "losses": len(differences),
        "final_validation_loss": validation[recorded[-1]["trained_steps"]],
        "recorded_final_validation_loss": recorded[-1]["val_loss"],
        "largest_validation_difference": max(shares),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="*", default=POLICIES, metavar="POLICY")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = {}
    for policy in options.policies:
        results[policy] = compare(policy)
        print(policy, json.dumps(results[policy]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
