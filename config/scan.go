package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// item is a table header, or a key with its value, in the order of the file.
type item struct {
	kind   unstable.Kind // Table, ArrayTable or KeyValue
	name   string        // the whole path: "measure.samples"
	offset int
	value  value // of a KeyValue
}

// value is a TOML value before anything is known about what it should be.
type value struct {
	kind   unstable.Kind
	text   string  // of a string its content, else what stands in the file
	list   []value // of an array
	fields []item  // of an inline table; names are relative to it
	offset int
}

// problem is an Error at this value.
func (v value) problem(hint, format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...), Hint: hint, offset: v.offset}
}

// describe says what a value is, in the words of TOML.
func (v value) describe() string {
	switch v.kind {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "a boolean"
	case unstable.Integer:
		return "an integer"
	case unstable.Float:
		return "a float"
	case unstable.Array:
		return "an array"
	case unstable.InlineTable:
		return "a table"
	default:
		return "a date or time"
	}
}

// scan lists what stands in the file, up to the first error of syntax (which checkSyntax reports): there the list ends
// with an item of kind Invalid.
func scan(data []byte) []item {
	var items []item
	var parser unstable.Parser
	parser.Reset(data)
	table := ""
	for parser.NextExpression() {
		node := parser.Expression()
		name, offset := keyOf(node)
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = name + "."
			items = append(items, item{kind: node.Kind, name: name, offset: offset})
		case unstable.KeyValue:
			items = append(items, item{node.Kind, table + name, offset, valueOf(node.Value(), offset)})
		}
	}
	if parser.Error() != nil {
		items = append(items, item{kind: unstable.Invalid, offset: len(data)})
	}
	return items
}

// keyOf joins the parts of a key with dots. A part that TOML would not take bare is quoted, so that "a.b" is not a.b.
func keyOf(node *unstable.Node) (name string, offset int) {
	var parts []string
	for keys := node.Key(); keys.Next(); {
		part := keys.Node()
		if len(parts) == 0 {
			offset = int(part.Raw.Offset)
		}
		text := string(part.Data)
		if text == "" || strings.ContainsFunc(text, notBare) {
			text = quote(text)
		}
		parts = append(parts, text)
	}
	return printable(strings.Join(parts, ".")), offset // no known key is so long that it would be cut
}

func notBare(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
}

// valueOf copies a value out of the parser, which reuses its nodes. Where the parser keeps no place for it (arrays),
// its place is that of the key.
func valueOf(node *unstable.Node, fallback int) value {
	v := value{kind: node.Kind, text: string(node.Data), offset: fallback}
	if node.Raw.Length > 0 {
		v.offset = int(node.Raw.Offset)
	}
	children := node.Children()
	switch node.Kind {
	case unstable.Array:
		for children.Next() {
			v.list = append(v.list, valueOf(children.Node(), v.offset))
		}
	case unstable.InlineTable:
		for children.Next() {
			field := children.Node()
			name, offset := keyOf(field)
			v.fields = append(v.fields, item{field.Kind, name, offset, valueOf(field.Value(), offset)})
		}
	}
	return v
}

// checkSyntax has the library read the whole file, which finds what scan does not look for: keys and tables that
// stand twice, numbers and dates out of range.
func checkSyntax(data []byte) *Error {
	var everything map[string]any
	err := toml.Unmarshal(data, &everything)
	if err == nil {
		return nil
	}
	problem := &Error{Message: "not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		problem.Line, problem.Column = decode.Position()
		problem.Hint = quotesHint(data, problem.Line, problem.Column)
		if key := decode.Key(); len(key) > 0 {
			problem.Key = printable(strings.Join(key, "."))
		}
	}
	return problem
}

// quotesHint is for the likeliest mistake of all: a value that is no TOML and has no quotation marks, or one too few.
func quotesHint(data []byte, line, column int) string {
	for range line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	text, _, _ := bytes.Cut(data, []byte("\n"))
	key, written, ok := bytes.Cut(text, []byte("="))
	if !ok || column <= len(key) || len(bytes.TrimSpace(written)) == 0 {
		return ""
	}
	single, double := bytes.Count(written, []byte("'")), bytes.Count(written, []byte(`"`))
	if single+double > 0 && single%2 == 0 && double%2 == 0 {
		return ""
	}
	return `strings stand in quotation marks, as in address = "time.example.net"`
}
