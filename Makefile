SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# The folder in which rustup installs cargo. Only new shells have the folder in PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

target := $(or $(CARGO_TARGET_DIR),target)
node_clients := tests/clients/node
browser := tests/browser
typescript_sdk := proto/sdk/typescript
# At least four threads: most tests wait for other processes or for time to pass.
threads := $(shell echo $$(( $$(nproc) > 4 ? $$(nproc) : 4 )))
# The Debian release from which `make test-rabbitmq` takes RabbitMQ.
SUITE := trixie
cargo_deny := 0.20.2
# End-to-end tests of `make test-fast`: from publishing over both entrances to delivery and retry.
main_path := deliver::event_flow:: publish::amqp::the_documented_message publish::amqp::a_key_is_one_event \
  publish::http::the_same_key publish::http::each_event_of_a_batch publish::amqp::invalid_messages_are_parked \
  api::resend::one_delivery_is_sent_again survive::drain::
# The slowest tests of the store, which `make test-fast` leaves out.
slow_store := stress:: plans:: retention::
broker_faults := kill-broker,restart-broker,close-connections,memory-alarm,disk-alarm,purge-queues,lose-broker,older-broker,half-open-broker,silent-broker,reset-broker
scripts := .ci/run tests/check-dependencies tests/deploy/run tests/fuzz/run $(filter-out %.md,$(wildcard deploy/dev/*))

.PHONY: help image run test test-browser test-deploy test-fast test-oidc test-sdk test-rabbitmq screenshot smoke chaos fuzz bench check clean toolchain cargo-deny

help: ## List these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' Makefile

run: toolchain ## Build and run a demo with a private RabbitMQ and PostgreSQL; end with Ctrl-C
	@deploy/dev/build --workspace --bin ingest --bin dispatcher --bin fanfare --bin demo
	@exec deploy/dev/with-services $(target)/debug/demo

test: toolchain $(node_clients)/node_modules/.package-lock.json ## Run all tests with a private RabbitMQ and PostgreSQL
	@deploy/dev/install python pgbouncer
	@cargo build --workspace --all-targets
	@deploy/dev/previous >/dev/null
	@exec deploy/dev/with-services env RUST_TEST_THREADS=$(threads) cargo test --workspace -- --skip browser::

# Chromium takes much of two cores: more tests at once only wait for each other.
test-browser: toolchain $(browser)/node_modules/.package-lock.json ## Run the tests of the web pages in Chromium; pictures in target/screens
	@deploy/dev/install postgres rabbitmq chromium
	@cargo build --workspace --all-targets
	@exec deploy/dev/with-services env RUST_TEST_THREADS=$(threads) cargo test --workspace --test e2e browser::

screenshot: toolchain $(browser)/node_modules/.package-lock.json ## Take the README's picture of the console anew
	@deploy/dev/install postgres rabbitmq chromium
	@cargo build --workspace --all-targets
	@deploy/dev/with-services cargo test --workspace --test e2e browser::screenshot::the_picture_of
	@cp $(target)/screens/console.png .github/console.png

test-fast: toolchain ## Run the quick tests: units, most of the store, and the main path end to end; a minute once built
	@cargo build --workspace --all-targets
	@exec deploy/dev/with-services env RUST_TEST_THREADS=$(threads) bash -euc '\
	  cargo test --quiet --workspace --lib --bins; \
	  cargo test --quiet --workspace --test main -- $(addprefix --skip ,$(slow_store)); \
	  cargo test --quiet --workspace --test e2e -- $(main_path)'

test-rabbitmq: toolchain $(node_clients)/node_modules/.package-lock.json ## Run the end-to-end tests and the broker faults with RabbitMQ from another Debian (SUITE=trixie: 4.0, SUITE=forky: 4.3)
	@deploy/dev/install postgres python
	@cargo build --workspace --all-targets
	@FANFARE_RABBITMQ_ROOT=$$(deploy/dev/rabbitmq-from $(SUITE)); export FANFARE_RABBITMQ_ROOT; \
	  env --unset=AMQP_URL deploy/dev/with-services env RUST_TEST_THREADS=$(threads) cargo test --workspace --test e2e -- --skip browser::; \
	  AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/debug/chaos --only $(broker_faults)

# Ingest is built without this feature: a provider's library has some 40 crates.
test-oidc: toolchain $(node_clients)/node_modules/.package-lock.json ## Test the sign-in by a provider of OpenID Connect, with an ingest of the feature oidc
	@cargo build --workspace --all-targets
	@cargo clippy -p fanfare-ingest --features oidc -- -D warnings
	@cargo test -p fanfare-console --features oidc
	@cargo build -p fanfare-ingest --features oidc
	@exec deploy/dev/with-services cargo test --workspace --test e2e -- --ignored provider_of_openid_connect

# Each SDK has its own packages and its own tests, which need a running Fanfare.
test-sdk: toolchain $(typescript_sdk)/node_modules/.package-lock.json $(target)/python-sdk/installed ## Test the SDKs for TypeScript and Python, against a running Fanfare
	@cargo build --workspace --all-targets
	@exec deploy/dev/with-services env FANFARE_TEST_PYTHON=$(abspath $(target)/python-sdk/bin/python) \
	  cargo test --workspace --test e2e -- --ignored sdk_

$(target)/python-sdk/installed: proto/sdk/python/pyproject.toml
	@deploy/dev/install python
	@python3 -m venv --clear $(target)/python-sdk
	@$(target)/python-sdk/bin/python -m pip install --quiet --disable-pip-version-check --editable 'proto/sdk/python[dev]'
	@touch $@

test-deploy: toolchain ## Test chart, image, pods, alerts and dashboards for operators; the image and the pods need root
	@cargo build --workspace --all-targets
	@env --unset=AMQP_URL --unset=DATABASE_URL deploy/dev/with-services tests/deploy/run

# Bench and chaos start private servers, and mostly wait: both run side by side. After `make test`, the build has nothing
# to do.
smoke: toolchain ## Play each bench row and each fault for a moment
	@deploy/dev/install
	@deploy/dev/install faketime || echo "Continuing without the faults of wrong clocks." >&2
	@cargo build --workspace --all-targets
	@deploy/dev/previous >/dev/null
	@AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services bash -euc '\
	  $(target)/debug/bench --smoke > >(sed --unbuffered "s/^/bench: /") 2>&1 & bench=$$!; \
	  trap "kill $$bench 2>/dev/null || true; wait" EXIT; \
	  $(target)/debug/chaos --smoke; \
	  wait $$bench'

# Each chaos run starts private servers; no servers are shared.
chaos: toolchain ## Inject faults under load, alone and mixed, and compare all accounts (CHAOS='--list' lists the faults)
	@deploy/dev/install
	@deploy/dev/install faketime || echo "Continuing without the faults of wrong clocks." >&2
	@cargo build --workspace --bins
	@deploy/dev/previous >/dev/null
	@AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/debug/chaos $(CHAOS)

fuzz: toolchain ## Fuzz all parsers of untrusted input, coverage-guided (FUZZ='--seconds 60 --only url,json')
	@deploy/dev/install cxx
	@tests/fuzz/run $(FUZZ)

# Each bench run starts private servers, too.
bench: toolchain ## Measure throughput, latency and isolation in release, beside the ceiling (BENCH='--list' lists the measurements)
	@deploy/dev/install
	@cargo build --release --workspace --bins
	@AMQP_URL=none DATABASE_URL=none exec deploy/dev/with-services $(target)/release/bench $(BENCH)

image: ## Build the image with docker, podman or buildah
	@deploy/dev/image

check: toolchain cargo-deny ## Check format, lints, documentation, dependencies and licences
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	@tests/check-dependencies
	@deploy/dev/install python shellcheck
	@tests/check-language
	@cargo deny --locked --log-level error check licenses bans sources
	@shellcheck --external-sources $(scripts)

clean: ## Remove all builds, and the servers and files of killed runs
	@deploy/dev/with-services --sweep
	@rm -rf $(target) $(node_clients)/node_modules $(browser)/node_modules $(typescript_sdk)/node_modules $(typescript_sdk)/dist .dev/chaos .dev/bench .dev/fuzz .dev/rabbitmq-*

toolchain:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing. Install Rust from https://rustup.rs and try again." >&2; exit 1; }
	@deploy/dev/install cc

# Without optimization and without the advisory check, which needs the network, cargo-deny builds in a minute instead of
# many, and runs for three seconds.
cargo-deny: toolchain
	@[[ $$(cargo deny --version 2>/dev/null) == "cargo-deny $(cargo_deny)" ]] || { \
	  echo "Installing cargo-deny $(cargo_deny) with cargo, only the first time. Takes a minute." >&2; \
	  CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --profile dev --no-default-features \
	    --version $(cargo_deny) cargo-deny; }

$(node_clients)/node_modules/.package-lock.json $(browser)/node_modules/.package-lock.json $(typescript_sdk)/node_modules/.package-lock.json: \
  %/node_modules/.package-lock.json: %/package-lock.json
	@deploy/dev/install node
	@cd $* && { log=$$(npm ci --no-audit --no-fund 2>&1) || { echo "$$log" >&2; exit 1; }; }
