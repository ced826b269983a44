package nts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"ntsclient/nts/ntstest"
)

// notOurs are codes that only callers of this package give.
var notOurs = []Code{Deadline}

// produced are the codes that tests met in errors.
var produced = struct {
	sync.Mutex
	codes map[Code]bool
}{codes: map[Code]bool{}}

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() == "" {
		flag.Set("test.parallel", "32") // these tests wait more than they compute
	}
	names, err := ntstest.ServeNames()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ntstest.AskNames(names)
	code := m.Run()
	if code == 0 && wholeRun() {
		if err := everyCode(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func wholeRun() bool {
	for _, name := range []string{"run", "skip", "list", "fuzz"} {
		if f := flag.Lookup("test." + name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

// everyCode names the codes of errors.go that no test has met.
func everyCode() error {
	codes, err := ntstest.Codes("errors.go")
	if err != nil {
		return err
	}
	var missing []string
	for _, code := range codes {
		if c := Code(code); !produced.codes[c] && !slices.Contains(notOurs, c) {
			missing = append(missing, code)
		}
	}
	if len(codes) == 0 || len(missing) > 0 {
		return fmt.Errorf("of %d codes no test produces %q", len(codes), missing)
	}
	return nil
}

// wantError checks an error's place and part of its text, and that the text
// is fit to be shown. No code wants no error.
func wantError(t *testing.T, err error, stage Stage, code Code, part string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Fatalf("%v (%v)", err, CodeOf(err))
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v, want %s", err, code)
	}
	produced.Lock()
	produced.codes[e.Code] = true
	produced.Unlock()
	if e.Stage != stage || e.Code != code || !strings.Contains(e.Error(), part) {
		t.Errorf("%s, %s: %v; want %s, %s: …%s…", e.Stage, e.Code, e, stage, code, part)
	}
	if text := e.Error() + e.Hint; strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not fit for a terminal: %q", text)
	}
	if strings.HasSuffix(e.Error(), ".") || strings.HasSuffix(e.Hint, ".") {
		t.Errorf("ends with a full stop: %v; %s", e, e.Hint)
	}
}

// skip skips a test, but not where all must run.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// enough is a context for what should succeed.
func enough(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// brief is a context for what has to wait until its end. All that is to
// happen before that happens within this machine.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start starts a server that ends with the test.
func start(t *testing.T, o ntstest.Options) *ntstest.Server {
	t.Helper()
	s, err := ntstest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// clientOf is how to reach a server.
func clientOf(s *ntstest.Server) *Options {
	return &Options{Host: s.KE().Addr().String(), Port: s.KE().Port(), Roots: s.CA().Pool()}
}

// establish makes a key exchange that must succeed.
func establish(t *testing.T, s *ntstest.Server) *Session {
	t.Helper()
	session, err := KeyExchange(enough(t), clientOf(s))
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// clean fails if a server saw what no right client sends.
func clean(t *testing.T, s *ntstest.Server) {
	t.Helper()
	if stats := s.Stats(); len(stats.Bad) > 0 || stats.Replayed > 0 {
		t.Errorf("bad requests: %q; cookies sent twice: %d", stats.Bad, stats.Replayed)
	}
}
