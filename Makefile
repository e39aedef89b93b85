# sfu-agent. 'make help' lists what there is to make.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TESTHOST := packaging/testhost
# Which parts of the machine the tests may count on: "all", or some of
# internal/testenv/parts.txt. What needs others is skipped.
export SFU_TEST_REQUIRE ?= all
ARGS ?=
# stress-scopes: a fault is held for TIME, a run without one goes for N cycles.
N ?= $(if $(filter none,$(FAULT)),10000,0)
PARALLEL ?= $(if $(filter none,$(FAULT)),64,8)
FAULT ?= none
CLIENT ?= ours
ROUNDS ?= 1
TIME ?= $(if $(filter none,$(FAULT)),0,60s)
STRESS_FLAGS = --n $(N) --parallel $(PARALLEL) --fault $(FAULT) --client $(CLIENT) --rounds $(ROUNDS) --time $(TIME)
export FUZZTIME ?= 3s
SOAK ?= 30m

.PHONY: help build run demo-host test check race native-test vm-test browser-test stress-scopes bench-fanout soak fuzz lint vuln bench install uninstall clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the program, build/sfu-agent
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.linkVersion=$(VERSION)' -o build/sfu-agent ./cmd/sfu-agent

run: build ## run the agent here: http://127.0.0.1:8080 (ARGS='--workers 2 ...')
	./build/sfu-agent run $(ARGS)

demo-host: build ## a systemd host with the agent as its service, until Ctrl-C (root)
	@$(TESTHOST)/install native
	@$(TESTHOST)/demo build/sfu-agent

test: ## everything, on a bare machine: installs what it needs (root)
	@.ci/test all

check: ## the quick half, for a change in hand
	@.ci/test quick

race: ## unit tests under the race detector
	$(GO) test -race ./...

native-test: ## tests inside a systemd host
	@.ci/test native

vm-test: ## tests inside a VM with cgroup v2 controllers
	@.ci/test vm

browser-test: ## Chromium publishes and watches through a systemd host
	@.ci/test browser

stress-scopes: build ## churn systemd scopes: N=10000 PARALLEL=64 FAULT=none|all|... TIME=60s CLIENT=ours (root)
	@$(TESTHOST)/install native
	@$(TESTHOST)/stress-scopes build/sfu-agent $(STRESS_FLAGS)

bench-fanout: build ## CPU time of a forwarded packet by rung, viewers and load, beside the ceiling (8 min)
	./build/sfu-agent stress fanout --rung all --viewers 100,400 --load frames,paced --seconds 2 --rounds 2 --markdown $(ARGS)

soak: build ## viewers and publishers come and go for SOAK (30m), a worker must not grow
	./build/sfu-agent stress soak --time $(SOAK) $(ARGS)

fuzz: ## every fuzz target for FUZZTIME (3s)
	@.ci/test fuzz

lint: ## go vet and staticcheck, every build tag
	@.ci/test lint

vuln: ## known vulnerabilities in what we import (needs vuln.go.dev)
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

bench: ## benchmarks of the packet path
	$(GO) test -run '^$$' -bench . -benchmem ./sfu/...

install: build ## program, unit, slice and user into this system (DESTDIR, PREFIX)
	packaging/install

uninstall: ## the reverse
	packaging/uninstall

clean: ## what was built; the test hosts' cache stays
	rm -rf build
