# `make check` is what .ci/run does, in the environment at hand.
.PHONY: check
check:
	ruff check .
	ruff format --check .
	mypy
	pytest -q -n 2
