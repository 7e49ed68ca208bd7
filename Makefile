# Every target says what it does: `make` prints the list.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run up down images load test e2e soak check bench fmt generate

TARGET := $(or $(CARGO_TARGET_DIR),target)
RESULTS := $(TARGET)/tests

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve examples/analytics.yaml on localhost, memory only (needs only Rust)
	@[ -x $(TARGET)/release/pannier-sidecar ] || echo "building pannier-sidecar for the first time: about 3 minutes on two cores"
	@cargo run --quiet --release -p pannier-sidecar -- --manifests examples/analytics.yaml

up: ## Show Pannier on three nodes of this machine, or on the cluster of KUBECONFIG (then CONFIRM=yes)
	@[ -n "$${KUBECONFIG:-}" ] && [ "$${KUBECONFIG:-}" != "$(abspath $(TARGET))/try/kubeconfig" ] || $(MAKE) --no-print-directory images
	@cargo build --quiet -p pannier-e2e --bins
	@REGISTRY="$(REGISTRY)" CONFIRM="$(CONFIRM)" $(TARGET)/debug/try up

down: ## Remove every trace of `make up`
	@cargo build --quiet -p pannier-e2e --bins
	@CONFIRM="$(CONFIRM)" $(TARGET)/debug/try down

images: ## Build the images as OCI archives in target/images; REGISTRY=registry.example/folder pushes them
	@cargo run --quiet -p pannier-e2e --bin images -- $(if $(REGISTRY),--push $(REGISTRY))

load: ## Build the images and load them into kind (KIND_CLUSTER=name) or the containerd of this machine
	@cargo run --quiet -p pannier-e2e --bin images -- --load

test: ## Run every test, against real servers and clients (fetched first, nothing is installed)
	@echo "building (about 25 minutes the first time on two cores), fetching servers and clients (1 minute the first time)," \
	  "building Kubernetes and Helm (11 minutes the first time, 7 GB of disk meanwhile, 0.7 GB afterwards), testing (about 40 minutes)"
	@cargo test --workspace --no-run # the programs too: one choice of features, dependencies built once
	@cargo build -p pannier-sidecar --features planted-bugs --bin pannier-sidecar-planted
	@$(TARGET)/debug/e2e-fetch
	@mkdir -p $(RESULTS) && : > $(RESULTS)/skipped
	@status=0; \
	PANNIER_SIDECAR_BIN=$(abspath $(TARGET))/debug/pannier-sidecar \
	PANNIER_PLANTED_BIN=$(abspath $(TARGET))/debug/pannier-sidecar-planted \
	PANNIER_OPERATOR_BIN=$(abspath $(TARGET))/debug/pannier-operator \
	PANNIER_SKIP_LOG=$(abspath $(RESULTS))/skipped \
	cargo test --workspace --no-fail-fast 2>&1 | tee $(RESULTS)/output || status=$$?; \
	echo; \
	sort -u $(RESULTS)/skipped | sed 's/^/SKIPPED /'; \
	awk -v skipped="$$(sort -u $(RESULTS)/skipped | wc -l)" \
	  '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	   /^test .* \.\.\. FAILED$$/ { print "FAILED " $$2 } \
	   END { printf "total: %d passed, %d failed, %d ignored, %d skipped\n", passed, failed, ignored, skipped }' \
	  $(RESULTS)/output | tee $(RESULTS)/summary; \
	exit $$status

e2e: ## Run what takes long on a real cluster of three nodes, and print what it measured (needs root)
	@echo "building (3 minutes the first time, Kubernetes 9 more, the images another 8), then about 15 minutes of tiers under load," \
	  "30 minutes of the whole product, and a thousand tiers (5 minutes)"
	@cargo test --workspace --no-run
	@$(TARGET)/debug/e2e-fetch
ifeq ($(origin KUBECONFIG),command line)
	@mkdir -p $(RESULTS) && : > $(RESULTS)/skipped
	@status=0; \
	export PANNIER_E2E_KUBECONFIG="$(abspath $(KUBECONFIG))"; \
	PANNIER_OPERATOR_BIN=$(abspath $(TARGET))/debug/pannier-operator \
	PANNIER_SKIP_LOG=$(abspath $(RESULTS))/skipped \
	cargo test --workspace --no-fail-fast --test operator --test kubernetes --test injector --test live --test scenarios \
	  -- --test-threads 4 || status=$$?; \
	$(TARGET)/debug/e2e-sweep --borrowed || status=$$?; \
	sort -u $(RESULTS)/skipped | sed 's/^/SKIPPED /'; \
	exit $$status
else
	@PANNIER_OPERATOR_BIN=$(abspath $(TARGET))/debug/pannier-operator \
	cargo test --workspace --test live --test scenarios --test product -- --nocapture --test-threads 1
	@cargo build --release --workspace --bin pannier-operator
	@PANNIER_OPERATOR_BIN=$(abspath $(TARGET))/release/pannier-operator $(TARGET)/debug/operator-scale
endif

soak: ## Judge a million reads of each topology under faults (says first how long it takes)
	@cargo build --release -p pannier-sidecar
	@PANNIER_SIDECAR_BIN=$(abspath $(TARGET))/release/pannier-sidecar \
	cargo run --quiet --release -p pannier-e2e --bin soak

check: ## Check formatting, lints, licences and the fast tests (no servers)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test product --test scenarios -- -D warnings # not among all targets
	cargo test --workspace --exclude pannier-e2e --lib --bins
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo "not checked: licences and advisories (cargo-deny is not installed; cargo install cargo-deny)"; fi

bench: ## Measure side by side with named peers and print one table
	cargo build --release -p pannier-sidecar
	cargo build --release -p pannier-sidecar --features without-guards --target-dir target/without-guards
	cargo run --quiet --release -p pannier-bench

fmt: ## Format all code
	cargo fmt --all

generate: ## Write the generated files anew (CRDs, chart, references, schema, table of commands)
	cargo run --quiet -p pannier-crds --bin crdgen
	UPDATE=1 cargo test --quiet -p pannier-e2e --test chart -- renders_are_as_reviewed the_plain_manifests
	UPDATE=1 cargo test --quiet -p pannier-operator --test golden
	UPDATE=1 cargo test --quiet -p pannier-policy --test schema the_published_schema
	UPDATE=1 cargo test --quiet -p pannier-sidecar --lib metrics::table::tests::the_page
	UPDATE=1 cargo test --quiet -p pannier-sidecar --test compatibility the_page
