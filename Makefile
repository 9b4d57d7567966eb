# `make run` starts the daemon, `make test` tests it, `make help` lists the rest.
#
# Each target first has venv.sh bring .venv up to what it needs: packages pinned in packaging/requirements, by sets, so
# that `make run` downloads only what the daemon needs. PYTHON=python3.13 chooses an interpreter.

VENV = .venv
# The set that echod runs on; `lowest` has the lowest versions that pyproject.toml allows.
RUNTIME = runtime

# How many processes share the tests: they wait more than they work, so more than there are CPUs in CI.
SHARES = 3

PINS   = packaging/requirements
venv   = @sh $(PINS)/venv.sh $(VENV)
python = $(VENV)/bin/python

# What kind of machine `deb` and `install` are for: x86_64 or aarch64.
MACHINE = $(shell uname -m)
PREFIX  = /usr/local
DESTDIR =
WHEELS  = build/wheels/$(MACHINE)

.PHONY: run test test-system style types cover bench test-wheel wheels deb install uninstall docs pins clean help

run: ## run echod in the foreground on localhost:10000; Ctrl-C stops it
	$(venv) $(RUNTIME)
	@echo "echod: starting on localhost:10000; in another terminal try"
	@echo
	@echo "    $(VENV)/bin/echoc localhost"
	@echo "    echo hello | nc -N localhost 10000"
	@echo
	@exec $(VENV)/bin/echod --config etc/echod.toml

test: ## run the unit and integration tests
	$(venv) $(RUNTIME) test
	$(python) -m pytest --numprocesses $(SHARES) tests/unit tests/integration

# A test here may install a package three times, on a busy machine; pytest's own limit of two minutes is for the others.
test-system: wheels ## run the tests that boot a systemd (as root, with debootstrap and systemd-container)
	$(venv) $(RUNTIME) test
	$(python) -m pytest -o faulthandler_timeout=600 tests/system

style: ## check the style and the layout of the code
	$(venv) dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: ## check the types
	$(venv) $(RUNTIME) test dev
	$(VENV)/bin/mypy

cover: ## run the tests and show which lines and branches they miss, in all processes
	$(venv) $(RUNTIME) test dev
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest --numprocesses $(SHARES) tests/unit tests/integration
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

bench: ## compare the cost of an echo with that of other servers
	$(venv) $(RUNTIME) bench
	$(python) tests/bench/run.py

test-wheel: ## build the source archive and the wheel into dist/, and run the tests against the wheel
	$(venv)
	@sh $(PINS)/test-wheel.sh $(python) $(SHARES)

wheels: ## download what deb and install need (echod's dependencies) into build/wheels/
	@sh packaging/wheels.sh $(VENV) $(WHEELS) $(MACHINE)

deb: wheels ## build the Debian packages of echod and echoc into dist/
	@sh packaging/deb.sh $(WHEELS) $(MACHINE)

install: wheels ## install echod as a service, and echoc: as root, or into DESTDIR
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' WHEELS='$(WHEELS)' sh packaging/install.sh install

uninstall: ## take out again what install has put into place, but not a configuration that was changed
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh packaging/install.sh uninstall

docs: ## update what the man pages, README.md and etc/echod.toml repeat of the code
	$(venv) $(RUNTIME)
	PYTHONPATH=packaging $(python) -m generate

pins: ## renew the pinned versions and hashes
	$(venv) build dev
	@$(python) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
	    "make pins: say PYTHON=python3.11, the oldest that the pins must fit")'
	cd $(PINS) && for set in build runtime lowest test dev bench; do \
	    CUSTOM_COMPILE_COMMAND="make pins" ../../$(VENV)/bin/pip-compile --quiet --upgrade --generate-hashes \
	        --allow-unsafe --strip-extras --no-emit-options --no-build-isolation $$set.in || exit; done

clean: ## remove everything that make made
	rm -rf .venv .venv-* build dist *.egg-info .coverage .coverage.* .hypothesis .*_cache
	find echod tests -name __pycache__ -prune -exec rm -rf {} +

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^\#]*\#\# /make \1\t/p' Makefile | expand -t 18
