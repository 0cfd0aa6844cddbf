CARGO ?= cargo
TARGET := x86_64-unknown-linux-musl

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

init: ## the static agent
	$(CARGO) build --release --target $(TARGET) -p rootstream --bin init

lint: ## rustfmt and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

test-fast: lint ## lint, unit and namespace tests
	$(CARGO) test --workspace

test: test-fast ## what continuous integration runs

.PHONY: help init lint test-fast test
