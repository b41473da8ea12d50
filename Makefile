.PHONY: setup demo test test-fast lint clean

setup: ## create .venv and install raudo
	@./setup_hu04.sh

demo: ## set up, then optimize the sample model
	@./setup_hu04.sh --demo

test: ## set up, then run the linters and all tests
	@./setup_hu04.sh --test

test-fast: ## the same without the tests that need minutes, and with fewer examples of the others
	@./setup_hu04.sh --test -m "not slow" --hypothesis-profile=brief

lint: ## set up, then run the linters
	@./setup_hu04.sh --lint

clean: ## remove .venv and caches; runs/ and model.pt stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
