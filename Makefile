# `make run` starts the daemon, `make test` tests it, `make help` lists the rest.
#
# Each target first updates .venv with venv.sh. The packages are pinned in packaging/requirements, in sets, so that
# `make run` downloads only what the daemon needs. PYTHON=python3.13 selects an interpreter.

# The tests start Python about a thousand times, and each start would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

VENV = .venv
# The set of echod's dependencies; `lowest` has the lowest versions that pyproject.toml allows.
RUNTIME = runtime

# The number of processes that share the tests. They wait more than they work, so it exceeds the number of CPUs in CI.
SHARES = 3

PINS   = packaging/requirements
venv   = @sh $(PINS)/venv.sh $(VENV)
python = $(VENV)/bin/python

# How long `soak` runs, on which Debian (bookworm or trixie), and by which seed (a new one if it is empty).
DURATION = 3m
ROOT     = trixie
SEED     =

# The kind of machine that `deb` and `install` are for: x86_64 or aarch64.
MACHINE = $(shell uname -m)
PREFIX  = /usr/local
DESTDIR =
WHEELS  = build/wheels/$(MACHINE)

.PHONY: run test test-system soak style types cover bench test-wheel wheels deb install uninstall docs pins clean help

run: ## run echod in the foreground on localhost:10000, until Ctrl-C
	$(venv) $(RUNTIME)
	@echo "echod: starting on localhost:10000; in another terminal, try"
	@echo
	@echo "    $(VENV)/bin/echoc localhost"
	@echo "    echo hello | nc -N localhost 10000"
	@echo
	@exec $(VENV)/bin/echod --config etc/echod.toml

test: ## run the unit and integration tests
	$(venv) $(RUNTIME) test
	$(python) -m pytest --numprocesses $(SHARES) --dist worksteal tests/unit tests/integration

# A test here may install a package three times on a busy machine, so the limit is not pyproject.toml's two minutes.
test-system: wheels ## run the tests that boot systemd (as root, with debootstrap and systemd-container)
	$(venv) $(RUNTIME) test
	$(python) -m pytest -o faulthandler_timeout=600 tests/system

soak: wheels ## run echod for a while under load, restarts, kills and shortages, and compare every byte
	$(venv) $(RUNTIME) test
	$(python) -m tests.system.soak --duration=$(DURATION) --root=$(ROOT) $(if $(SEED),--seed=$(SEED))

style: ## check the style and the format of the code
	$(venv) dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: ## check the types
	$(venv) $(RUNTIME) test dev
	$(VENV)/bin/mypy

cover: ## run the tests, and show the lines and branches that they miss in any process
	$(venv) $(RUNTIME) test dev
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest --numprocesses $(SHARES) --dist worksteal tests/unit tests/integration
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

# Users run Debian's interpreter; one that is built without PGO costs 4 to 15 % more.
bench: VENV = .venv-bench
bench: export PYTHON = /usr/bin/python3
bench: ## compare the cost of an echo with other servers (10 minutes; QUICK=1: one)
	$(venv) $(RUNTIME) bench
	$(python) tests/bench/run.py $(if $(QUICK),--quick)

test-wheel: ## build the source archive and the wheel into dist/, and run the tests against the wheel
	$(venv)
	@sh $(PINS)/test-wheel.sh $(python) $(SHARES)

wheels: ## download what deb and install need (echod's dependencies) into build/wheels/
	@sh packaging/wheels.sh $(VENV) $(WHEELS) $(MACHINE)

deb: wheels ## build the Debian packages echod and echoc into dist/
	@sh packaging/deb.sh $(WHEELS) $(MACHINE)

install: wheels ## install the service echod, and echoc (as root, or into DESTDIR)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' WHEELS='$(WHEELS)' sh packaging/install.sh install

uninstall: ## remove what install has installed, except a configuration that was changed
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh packaging/install.sh uninstall

docs: ## update what the man pages, README.md and etc/echod.toml repeat of the code
	$(venv) $(RUNTIME)
	PYTHONPATH=packaging $(python) -m generate

pins: ## update the pinned versions and hashes
	$(venv) build dev
	@$(python) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
	    "make pins: set PYTHON=python3.11, the oldest Python that the pins must fit")'
	cd $(PINS) && for set in build runtime lowest test dev bench; do \
	    CUSTOM_COMPILE_COMMAND="make pins" ../../$(VENV)/bin/pip-compile --quiet --upgrade --generate-hashes \
	        --allow-unsafe --strip-extras --no-emit-options --no-build-isolation $$set.in || exit; done

clean: ## remove everything that make has made
	rm -rf .venv .venv-* build dist *.egg-info .coverage .coverage.* .hypothesis .*_cache
	find echod tests -name __pycache__ -prune -exec rm -rf {} +

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^\#]*\#\# /make \1\t/p' Makefile | expand -t 18
