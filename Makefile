SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# rustup installs to here, and tells only new shells.
export PATH := $(PATH):$(HOME)/.cargo/bin

target := $(or $(CARGO_TARGET_DIR),target)
node_clients := tests/clients/node
# Most tests wait, for other processes or for a time to pass.
threads := $(shell echo $$(( $$(nproc) > 4 ? $$(nproc) : 4 )))
# The Debian whose RabbitMQ `make test-rabbitmq` takes.
SUITE := trixie
cargo_deny := 0.20.2
broker_faults := kill-broker,restart-broker,close-connections,memory-alarm,disk-alarm,purge-queues,lose-broker,older-broker,half-open-broker,silent-broker,reset-broker
scripts := .ci/run tests/fuzz/run $(wildcard deploy/dev/*)

.PHONY: help run test test-rabbitmq chaos fuzz bench check clean toolchain cargo-deny

help: ## List these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' Makefile

run: toolchain ## Build, and run everything against a RabbitMQ and PostgreSQL of its own; Ctrl-C ends it
	@cargo build --workspace --bins
	@exec deploy/dev/with-services $(target)/debug/demo

test: toolchain $(node_clients)/node_modules/.package-lock.json ## Run all tests against a RabbitMQ and PostgreSQL of their own
	@deploy/dev/install python
	@cargo build --workspace --all-targets
	@exec deploy/dev/with-services env RUST_TEST_THREADS=$(threads) cargo test --workspace

test-rabbitmq: toolchain $(node_clients)/node_modules/.package-lock.json ## The tests of the whole and the broker's faults with the RabbitMQ of another Debian (SUITE=trixie has 4.0, SUITE=forky 4.3)
	@deploy/dev/install postgres python
	@cargo build --workspace --all-targets
	@FANFARE_RABBITMQ_ROOT=$$(deploy/dev/rabbitmq-from $(SUITE)); export FANFARE_RABBITMQ_ROOT; \
	  env --unset=AMQP_URL deploy/dev/with-services env RUST_TEST_THREADS=$(threads) cargo test -p fanfare-tests; \
	  AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/debug/chaos --only $(broker_faults)

# Each run of it starts servers of its own: there are none to share.
chaos: toolchain ## Break everything, alone and mixed, under load, and compare the books (CHAOS='--list' for what there is)
	@deploy/dev/install
	@deploy/dev/install faketime || echo "Going on without wrong clocks." >&2
	@cargo build --workspace --bins
	@AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/debug/chaos $(CHAOS)

fuzz: toolchain ## Feed every parser of foreign bytes with what reaches more of it (FUZZ='--seconds 60 --only url,json')
	@deploy/dev/install cxx
	@tests/fuzz/run $(FUZZ)

# As chaos, with servers of its own.
bench: toolchain ## Measure throughput, latency and isolation in release, beside the ceiling (BENCH='--list' for what there is)
	@deploy/dev/install
	@cargo build --release --workspace --bins
	@AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/release/bench $(BENCH)

check: toolchain cargo-deny ## Format, lints, documentation, dependencies and their licences
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	@tests/check-dependencies
	@cargo deny --locked --log-level error check licenses bans sources
	@for script in $(scripts); do bash -n "$$script"; done

clean: ## Remove what was built, and what runs that were killed have left
	@deploy/dev/with-services --sweep
	@rm -rf $(target) $(node_clients)/node_modules .dev/chaos .dev/bench .dev/fuzz .dev/rabbitmq-*

toolchain:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing: please install Rust from https://rustup.rs and try again." >&2; exit 1; }
	@deploy/dev/install cc

# Not optimised, and without what asks for advisories over the network, it takes a minute to build instead of many, and
# runs for three seconds.
cargo-deny: toolchain
	@[[ $$(cargo deny --version 2>/dev/null) == "cargo-deny $(cargo_deny)" ]] || { \
	  echo "Installing cargo-deny $(cargo_deny) with cargo; this takes a minute, once." >&2; \
	  CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --profile dev --no-default-features \
	    --version $(cargo_deny) cargo-deny; }

$(node_clients)/node_modules/.package-lock.json: $(node_clients)/package-lock.json
	@deploy/dev/install node
	@cd $(node_clients) && { log=$$(npm ci --no-audit --no-fund 2>&1) || { echo "$$log" >&2; exit 1; }; }
