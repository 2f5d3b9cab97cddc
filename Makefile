# Every target does its own set-up: Rust (1.89 or later) and Python 3 are all a machine needs.

CARGO ?= cargo

.PHONY: help test crash lint loom demo bench-store soak fuzz clean

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Four operations that take minutes each; `make crash` runs them with the others.
LONG_CRASHES = --skip evict --skip first_put --skip create_large --skip create_without_room

test: loom ## Everything that proves the project right: loom models, unit, crash, seeded model and integration tests
	$(CARGO) test --workspace --exclude benches-compare --exclude tests
	$(CARGO) test -p tests --test tidy --test behaviour --test model --test it
	$(CARGO) test -p tests --test crash -- --test-threads=2 $(LONG_CRASHES)

crash: ## Every operation interrupted behind every machine instruction, the long ones too
	$(CARGO) test -p tests --test crash -- --test-threads=2

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) clippy --workspace --exclude benches-compare --all-targets -- -D warnings

loom: ## The protocol's source under loom: every interleaving within the bounds
	$(CARGO) test --release -p store --features loom --lib models

demo: ## Two processes, one object, no copy: what the store does, on your machine
	$(CARGO) run --release -p raylet-client --example demo

bench-store: ## The store beside Plasma, Ray, LMDB, iceoryx2 and the machine's limits, in one run
	$(CARGO) run --release -p benches-compare --bin bench-store

soak: ## Tens of thousands of processes killed and stopped at random instants
	$(CARGO) run --release -p tests --bin soak

fuzz: ## Ten million inputs for each decoder
	for target in arrow table spill frame; do \
	  $(CARGO) run --release -p tests --bin fuzz -- $$target --inputs 10000000 --seed 1 || exit 1; \
	done

clean: ## Remove what building left
	$(CARGO) clean
	rm -rf .venv-bench
