# make            the program: static, stripped, stamped, reproducible
# make demo       see it work, on loopback servers, one of them lying
# make test       all tests that need nothing but Go (others say why they skip)
# make interop    against real servers (fetched from Debian's packages)
# make vmtest     on a real kernel with a wrong clock, in qemu
# make sim        the loop against chrony, in simulated networks (2 minutes)
# make sim-fleet  a million machines and one server, on two bad days (15 s)
# make lint fuzz bench long cross cross-os tidy, and what packaging/Makefile.inc adds

version := $(shell git describe --tags --always --dirty 2>/dev/null)
date    := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
tags    := urfave_cli_no_docs
stamp   := -s -w -buildid= -X main.version=$(version) -X main.commitDate=$(date)
# Not inlined, since they are large and never hot: that is 500 KB of 8 MiB.
cold    := github.com/... text/template/... encoding/json encoding/asn1 fmt flag log/slog regexp/... reflect net net/http/... \
           net/url os crypto/tls crypto/x509 crypto/hpke crypto/elliptic math/big unicode/... \
           ntsclient/config ntsclient/timesync/report
build   := CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $(tags) \
           $(cold:%=-gcflags=%=-l) -ldflags '$(stamp)'
tool    := go tool -modfile=tools/go.mod
T       := 15s

.PHONY: ntsclient demo test race interop vmtest vmtest-long sim sim-fleet lint fuzz bench long cross tidy

ntsclient:
	$(build) -o $@ .

demo:
	@go run ./test/demo

# The program that runs against real servers is built beside the cache's back.
test:
	go test $$(go list ./... | grep -v /test/interop)
	go test -count=1 ./test/interop
	cd test/siv && go test ./...

race:
	go test -race -short $$(go list ./... | grep -v /test/)

interop:
	test/interop/prepare
	go test -count=1 ./test/interop

vmtest:
	test/vm/prepare
	go test -count=1 -timeout 20m -tags vm ./test/vm

vmtest-long:
	test/vm/prepare amd64 arm64 armhf
	test/vm/debian
	LONG=1 go test -count=1 -timeout 60m -tags vm ./test/vm

lint:
	@out=$$($(tool) gofumpt -l .); test -z "$$out" || { echo "gofumpt:"; echo "$$out"; exit 1; }
	go vet -tags vm ./...
	$(tool) staticcheck -tags vm ./...

# Each target for T, two at a time. An input that fails is left in testdata/fuzz
# beside its test, where it is a seed once it is committed.
fuzz:
	@grep -r --include='*_test.go' -o '^func Fuzz[A-Za-z0-9]*' . | sed 's|/[^/]*:func | |' | \
		xargs -P 2 -L 1 bash -o pipefail -c 'go test -run "^$$" -fuzz "^$$1\$$" -fuzztime $(T) -fuzzminimizetime 10x -parallel 1 "$$0" 2>&1 | sed "s|^|$$0 $$1: |"'

sim:
	go run ./test/sim -svg docs/discipline.svg

sim-fleet:
	go run ./test/fleet

bench: ntsclient
	test/interop/prepare
	go test -run '^$$' -bench . -benchmem ./nts/... ./timesync/...
	NTSCLIENT_BINARY=$(CURDIR)/ntsclient go run ./test/bench
	NTSCLIENT_BINARY=$(CURDIR)/ntsclient go run ./test/bench -rtt 20ms -memory 4

# Every machine that the program is for, and those that it need only build for.
cross:
	@for target in arm64 arm 386; do GOARCH=$$target GOARM=6 $(build) -o /dev/null . || exit 1; done

cross-os:
	@for os in darwin freebsd windows; do GOOS=$$os go build -o /dev/null . || exit 1; done

long: cross-os vmtest-long sim
	$(MAKE) fuzz T=1m

tidy:
	go mod tidy
	cd test/siv && go mod tidy

include packaging/Makefile.inc
