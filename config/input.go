package config

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// input is a configuration while it is being read.
type input struct {
	cfg   *Config
	dir   string // base of relative paths
	read  Reader
	label string            // the server being read, for messages
	set   map[string]int    // offset of the value of each key that is set
	taken map[string]bool   // names of servers
	cas   map[string][]byte // CA files that were read
}

func newInput(dir string, read Reader) *input {
	if read == nil {
		read = ReadFile
	}
	return &input{
		cfg: Default(), dir: dir, read: read,
		set: map[string]int{}, taken: map[string]bool{}, cas: map[string][]byte{},
	}
}

// applyAll takes over what stands in the file, up to the first problem.
func (in *input) applyAll(items []item) *Error {
	for i, it := range items {
		if problem := in.apply(it, items[i+1:]); problem != nil {
			problem.item = it.offset // the outermost one's in the end
			if problem.Key == "" {
				problem.Key = it.name
			}
			if server, ok := strings.CutPrefix(problem.Key, "server."); ok && in.label != "" {
				problem.Key, problem.Server = server, in.label
			}
			return problem
		}
	}
	return nil
}

// apply takes over one item; rest is what follows it, where a server's address may stand.
func (in *input) apply(it item, rest []item) *Error {
	at := value{offset: it.offset}
	switch {
	case it.kind == unstable.Invalid:
		return nil // checkSyntax knows more
	case it.kind == unstable.ArrayTable && it.name == "server":
		return in.beginServer(at, rest)
	case it.kind == unstable.ArrayTable && isTable(it.name):
		return at.problem("write ["+it.name+"]", "stands once, not in a list")
	case it.name == "server":
		return in.serverAsKey(it, rest)
	case strings.HasPrefix(it.name, "server.") && len(in.cfg.Servers) == 0:
		return at.problem("write [[server]] and below it address, operator and so on, one key a line", "must stand under [[server]]")
	case it.kind == unstable.KeyValue:
		return in.applyKey(it)
	case isTable(it.name):
		return nil
	case find(it.name) != nil:
		return at.problem("", "is a key, not a table")
	}
	return at.problem(unknownHint(it.name), "unknown table")
}

func (in *input) applyKey(it item) *Error {
	k := find(it.name)
	switch {
	case k != nil:
		in.set[it.name] = it.value.offset
		return k.set(in, it.value)
	case it.value.kind == unstable.InlineTable && isTable(it.name):
		return in.applyAll(prefixed(it.name, it.value.fields))
	case isTable(it.name):
		return it.value.problem("write ["+it.name+"] on a line of its own, and its keys below", "must be a table, not %s", it.value.describe())
	}
	return value{offset: it.offset}.problem(unknownHint(it.name), "unknown key")
}

// beginServer adds a server that takes the keys that follow. That its address is missing is not said where a key of it
// is unknown, which may have been meant to be that, and where nobody can tell, as the rest cannot be read.
func (in *input) beginServer(at value, rest []item) *Error {
	in.cfg.Servers = append(in.cfg.Servers, Server{Port: DefaultPort})
	in.label = fmt.Sprint("number ", len(in.cfg.Servers))
	explained := false
	for _, it := range rest {
		if it.kind == unstable.ArrayTable || it.kind == unstable.Table && it.name != "server" {
			break
		}
		explained = explained || it.kind == unstable.Invalid || it.kind == unstable.KeyValue && find(it.name) == nil
		if it.name != "server.address" || it.kind != unstable.KeyValue {
			continue
		}
		if host, port, problem := parseAddress(it.value.text); problem == nil && it.value.kind == unstable.String {
			in.label = Server{Host: host, Port: port}.Name()
		}
		return nil
	}
	if explained {
		return nil
	}
	problem := at.problem(`add address = "host" or "host:port"`, "missing")
	problem.Key = "server.address"
	return problem
}

// serverAsKey handles all that is called server and is not [[server]]: an array of inline tables, which is the same
// to TOML, and the mistakes, above all a file of the original ntsclient (server = "host:port").
func (in *input) serverAsKey(it item, rest []item) *Error {
	v := it.value
	if it.kind == unstable.Table || v.kind == unstable.InlineTable {
		return value{offset: it.offset}.problem("write [[server]], once for each server", "must be a list of tables")
	}
	if v.kind != unstable.Array {
		return value{offset: it.offset}.problem(oldFileHint(v, rest), "a server is written as a table")
	}
	for _, element := range v.list {
		if element.kind != unstable.InlineTable {
			return element.problem(oldFileHint(element, rest), "a server is written as a table")
		}
		fields := prefixed("server", element.fields)
		if problem := in.beginServer(element, fields); problem != nil {
			return problem
		}
		if problem := in.applyAll(fields); problem != nil {
			return problem
		}
	}
	return nil
}

// oldFileHint shows how the server of an old file is written now.
func oldFileHint(v value, rest []item) string {
	address := "host:port"
	if _, _, problem := parseAddress(v.text); problem == nil && v.kind == unstable.String {
		address = v.text
	}
	lines := fmt.Sprintf("[[server]] and below it address = %q", address)
	for _, it := range rest {
		if it.name == "cacert" && it.value.kind == unstable.String && it.value.text != "" {
			lines += fmt.Sprintf(" and ca_file = %s", quote(it.value.text))
		}
	}
	return "server = is how the original ntsclient wrote it; write " + lines
}

func prefixed(table string, fields []item) []item {
	whole := make([]item, len(fields))
	for i, f := range fields {
		f.name = table + "." + f.name
		whole[i] = f
	}
	return whole
}

// finish checks what no key can know alone, and fills in what depends on the whole.
func (in *input) finish() *Error {
	if len(in.cfg.Servers) == 0 {
		return &Error{Message: "no server is configured", Hint: `add [[server]] and below it address = "host" for each server`, offset: -1}
	}
	operators := in.cfg.nameOperators()
	var first *Error
	if run := in.cfg.Run; run.MinPoll > run.MaxPoll {
		first = &Error{Key: "run", Message: fmt.Sprintf("min_poll (%s) is longer than max_poll (%s)", short(run.MinPoll), short(run.MaxPoll))}
		first.offset = max(in.set["run.min_poll"], in.set["run.max_poll"])
	}
	need := &in.cfg.Agreement.MinOperators
	if operators == 1 && *need <= defaultMinOperators {
		*need = 1
	}
	if offset := in.set["agreement.min_operators"]; *need > operators && (first == nil || offset < first.offset) {
		first = &Error{
			Key:     "agreement.min_operators",
			Message: fmt.Sprintf("%d operators can never agree: the servers have %d in all", *need, operators),
			Hint:    "add servers of other operators, or lower it; servers of one domain are one operator unless operator says otherwise",
			offset:  offset,
		}
	}
	return first
}
