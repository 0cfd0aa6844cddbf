CARGO ?= cargo
TARGET := x86_64-unknown-linux-musl
INIT := target/$(TARGET)/release/init
export CARGO_TARGET_DIR := $(CURDIR)/target

# What `make boot` boots. The values that work are in qemu/choices.txt.
FIRMWARE ?= bios
SERVERS ?= rootstream
NODES ?= 1
POWER ?= lab
TRUST ?= signed
IMAGE ?= debian
NET ?= tap
ACCEL ?= tcg
HOLD ?= 0
RUNS ?= 5
IMAGES ?= compute,large
SECONDS ?= 30

# Asked before anything is built; $(error) exits 2.
allowed = $(shell sed -n 's/^$(1) //p' qemu/choices.txt)
require = $(if $(filter-out $(call allowed,$(1)),$(or $($(1)),empty)),$(error $(1)=$($(1)): allowed: $(call allowed,$(1))))
ifneq ($(filter boot,$(MAKECMDGOALS)),)
$(foreach variable,FIRMWARE SERVERS NODES POWER TRUST IMAGE NET ACCEL HOLD,$(call require,$(variable)))
endif

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

boot: lab ## netboot a Debian node: [FIRMWARE=] [SERVERS=] [NODES=] [POWER=] [TRUST=] [IMAGE=] [NET=] [ACCEL=] [HOLD=1]
	@exec target/debug/lab boot --init $(INIT) --firmware '$(FIRMWARE)' --servers '$(SERVERS)' --nodes '$(NODES)' \
		--power '$(POWER)' --trust '$(TRUST)' --image '$(IMAGE)' --net '$(NET)' --accel '$(ACCEL)' --hold '$(HOLD)'

init: deps ## build the static agent, target/x86_64-unknown-linux-musl/release/init
	$(CARGO) build --release --target $(TARGET) -p rootstream --bin init --features lean

# With --workspace everywhere each crate is compiled once for development, with one set of features.
lab: init
	$(CARGO) build --workspace

site: lab ## build the lab's image, kernel and initramfs without booting them
	target/debug/lab site --init $(INIT) --trust '$(TRUST)'

deps: ## install what this machine lacks (asks nothing when root)
	@sh qemu/deps.sh

lint: deps ## rustfmt and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

docs: deps ## write docs/BOOT_PARAMETERS.md from the table of parameters
	ROOTSTREAM_WRITE_DOCS=1 $(CARGO) test -q -p rootstream --lib the_page_in_docs

test-fast: lint ## lint, unit and namespace tests
	$(CARGO) test --workspace

test: test-fast lab ## all that continuous integration runs: test-fast, one whole boot, the failure boots
	$(CARGO) test --workspace --features rootstream/netboot --test netboot -- --test-threads=1 --nocapture

test-all: test-fast lab ## every test with virtual nodes, also those that take minutes; goes on where it was broken off
	@sh tests/all.sh $(INIT)

bench: site ## the agent beside the programs that it replaces, writes docs/PERFORMANCE.md: [RUNS=5] [IMAGES=compute,large]
	target/debug/bench --init $(INIT) --runs '$(RUNS)' --images '$(IMAGES)'

fuzz: deps ## break the parsers with every fuzzer for a while: [SECONDS=30]; gets cargo-fuzz and nightly Rust where missing
	@sh fuzz/run.sh '$(SECONDS)'

clean: ## remove everything that was built
	$(CARGO) clean
	rm -rf build

.PHONY: help bench boot fuzz init lab site deps docs lint test-fast test test-all clean
