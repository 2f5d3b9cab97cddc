# Every target does its own set-up: Rust (1.89 or later) and Python 3 are all a machine needs.

CARGO ?= cargo

.PHONY: help python test crash lint loom check-aarch64 demo bench-store bench-tasks bench-ray soak fuzz simulate clean

help: ## What there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

python: ## The Python package in .venv, built first where something changed
	.ci/venv .venv release

test: ## Everything that proves the project right: lints, loom models, unit, crash, seeded model and integration tests
	CARGO="$(CARGO)" .ci/run

crash: ## Every operation interrupted behind every machine instruction
	CARGO="$(CARGO)" .ci/run crash

lint: ## Formatting and clippy, warnings are errors
	CARGO="$(CARGO)" .ci/run lint

loom: ## The protocol's source under loom: every interleaving within the bounds
	CARGO="$(CARGO)" .ci/run loom

check-aarch64: ## Whether it compiles for aarch64, where the toolchain has its standard library
	CARGO="$(CARGO)" .ci/run aarch64

demo: ## The main job: text on this machine to clean, unique passages, in Rust, then in Python; DEMO="--help" says more
	$(CARGO) run --release -p raylet-client --example demo -- $(DEMO)
	.ci/venv .venv release
	.venv/bin/python -c "import pyarrow" 2>/dev/null || .venv/bin/python -m pip install --quiet "pyarrow>=14"
	.venv/bin/python client/python/examples/demo --compare $(DEMO)

bench-store: ## The store beside Plasma, Ray, LMDB, iceoryx2 and the machine's limits, in one run
	$(CARGO) run --release -p benches-compare --bin bench-store

bench-tasks: ## Tasks and actors beside Ray, iceoryx2, gRPC, thread pools and the machine's limits, in one run
	$(CARGO) build --release -p raylet-client --example demo
	$(CARGO) run --release -p benches-compare --bin bench-tasks

bench-ray: python ## The Python package beside Ray, its own benchmark included, and Python's pools; BENCH="--help" says more
	$(CARGO) run --release -p benches-compare --bin bench-ray -- $(BENCH)

soak: ## Tens of thousands of processes killed and stopped at random instants
	$(CARGO) run --release -p tests --bin soak

fuzz: ## Ten million inputs for each decoder
	for target in arrow table spill frame; do \
	  $(CARGO) run --release -p tests --bin fuzz -- $$target --inputs 10000000 --seed 1 || exit 1; \
	done

simulate: ## Ten million events of the scheduler, with deaths and stops, its invariants checked after each
	RAYLET_EVENTS=10000000 $(CARGO) test --release -p raylet-core --test simulation -- --nocapture

clean: ## Remove what building left
	$(CARGO) clean
	rm -rf .venv .venv-test .venv-bench
