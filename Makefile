# What .ci/run does but for installing, in the environment at hand (`. .venv/bin/activate`).
.PHONY: check lock
check:
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest -q -n 2 --dist worksteal
	OMP_NUM_THREADS=1 pytest -q -m slow

# Both locks, with the newest versions that setup.cfg allows.
lock:
	.ci/lock
