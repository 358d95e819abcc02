# Short names for the two scripts and what stands around them.
.PHONY: quickstart test slow label docs wheel clean

quickstart: ## environment, demo, report
	./quickstart.sh

test: ## lint, types and tests
	./runtests.sh

slow: ## tests that take a minute and more
	./runtests.sh -m slow

label: ## the review with a real MONAI Label server
	./runtests.sh --label

docs: ## the documentation site, in docs/_build
	./scripts/docs.sh

wheel: ## what pip installs, in dist
	$(or $(PYTHON),python3) -m pip wheel --no-deps --wheel-dir dist .

clean: ## what the commands above made, but their environments
	rm -rf build dist docs/_build docs/api/modules docs/tutorials docs/bundles docs/changelog.md docs/contributing.md docs/security.md
