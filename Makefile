# Each recipe is a few plain lines, so that a machine without make can paste them.

# What `make proof` judges: how many packets, drawn from which seed, and where a disagreement is saved as a golden.
VERDICTS = 1000000
SEED = 1
SAVE =
# The kernels of `make kernels`: 5.10 is Debian 11's, 6.1 and 6.12 are Debian 12's.
KERNELS = 5.10 6.1 6.12
# How many changes `make soak` makes; what they are is drawn from SEED too.
EVENTS = 100000
# How many pods `make starts` starts by each plugin.
STARTS = 250
# For how long `make fuzz` runs each target.
SECONDS = 1200
FUZZERS = decode answers flows manifests objects watched

# What is missing is said before anything is built.
.NOTPARALLEL:
.PHONY: demo test kernels proof fuzz soak starts lint lint-go fmt doc bench image setup manifests

demo: ## Enforces a policy set on real packets, without root and without a cluster.
	cargo run --locked --release --package postern -- try -f manifests/examples/13-three-tiers

test: setup lint lint-go doc ## Everything that must hold before a change lands.
	cargo test --locked --workspace

kernels: ## Tries the codec and an agent on older kernels, in emulated machines. For before a release: it takes long.
	.ci/kernels $(KERNELS)

proof: ## Searches for a packet on which the judges of the compiler differ, as long as asked.
	cargo run --locked --package compiler --example proof -- $(VERDICTS) $(SEED) $(SAVE)

fuzz: ## Searches for bytes on which the decoders and readers break, and leaves them in agent/netlink/fuzz/artifacts.
	@cargo +nightly fuzz --version || { echo "missing: rustup toolchain install nightly; cargo install cargo-fuzz" >&2; exit 1; }
	mkdir -p $(FUZZERS:%=target/fuzz/%)
	set -e; for f in $(FUZZERS); do cargo +nightly fuzz run --fuzz-dir agent/netlink/fuzz --target-dir target/fuzz $$f target/fuzz/$$f agent/netlink/fuzz/corpus/$$f -- -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=1024; done

soak: ## Changes a cluster at random under an agent, with random faults and packets that flow all the time: some 15 minutes.
	cargo run --locked --release --package integration --bin soak -- $(EVENTS) $(SEED)

starts: ## Starts pods by the CNI library and real plugins, which send from their first moment on: some minutes.
	cargo run --locked --release --package integration --bin starts -- ptp $(STARTS)
	cargo run --locked --release --package integration --bin starts -- bridge $(STARTS)

lint:
	.ci/deny
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# The flags are those of .ci/control-plane, so that what it compiled is taken from Go's cache.
lint-go:
	test -z "$$(gofmt -l integration/control-plane)"
	cd integration/control-plane && GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" go vet ./...

fmt:
	cargo fmt --all
	gofmt -w integration/control-plane

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

bench:
	cargo bench --locked --workspace

image: ## The image of the Dockerfile as an OCI archive, without Docker: target/postern.oci.tar.
	cargo run --locked --package integration --bin image

manifests: ## Renders manifests/install.yaml anew.
	UPDATE_EXPECT=1 cargo test --locked --package integration --test manifests rendered

setup: ## Installs what is missing, or says what it is.
	.ci/setup
