package main

import (
	"strings"
	"testing"
)

// The demo must fail where the program is wrong.
func TestCheck(t *testing.T) {
	right := `{"result": "agreed", "servers": [
		{"operator": "one.demo.test", "verdict": "agreed"},
		{"operator": "two.demo.test", "verdict": "agreed"},
		{"operator": "three.demo.test", "verdict": "agreed"},
		{"operator": "four.demo.test", "verdict": "falseticker"},
		{"operator": "five.demo.test", "verdict": "failed"}]}`
	for _, test := range []struct {
		name, old, new, want string
	}{
		{"right", "", "", ""},
		{"no agreement", `"result": "agreed"`, `"result": "no_agreement"`, "not agreed"},
		{"the liar is believed", "falseticker", "agreed", "four.demo.test"},
		{"an honest one is not", `one.demo.test", "verdict": "agreed"`, `one.demo.test", "verdict": "unusable"`, "one.demo.test"},
		{"one is missing", "five.demo.test", "six.demo.test", "five.demo.test"},
		{"no report", right, "usage", "no JSON"},
	} {
		err := check([]byte(strings.Replace(right, test.old, test.new, 1)))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want one with %q", test.name, err, test.want)
		}
	}
}
