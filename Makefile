CARGO ?= cargo
TARGET := x86_64-unknown-linux-musl

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

init: ## the static agent
	$(CARGO) build --release --target $(TARGET) -p rootstream --bin init

lint: ## rustfmt and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

docs: ## write docs/BOOT_PARAMETERS.md from the table of parameters
	ROOTSTREAM_WRITE_DOCS=1 $(CARGO) test -q -p rootstream --lib the_page_in_docs

test-fast: lint ## lint, unit and namespace tests
	$(CARGO) test --workspace

test: test-fast ## what continuous integration runs

.PHONY: docs help init lint test-fast test
